//! Incidents, counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::catalogue as c;
use super::families::{Families, float};
use crate::clients::{Histogram, Scale};
use crate::diagnose::{Cause, Incident, Severity};

/// Lengths of incidents: milliseconds shown as seconds.
static LENGTHS: Scale = Scale {
    recorded: &[
        100, 1000, 10_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000,
    ],
    shown: &[
        0.1, 1.0, 10.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 21_600.0, 86_400.0,
    ],
    recorded_per_shown: 1e3,
};

/// Times until an incident was told: milliseconds shown as seconds.
static DELAYS: Scale = Scale {
    recorded: &[
        100, 250, 500, 1000, 1500, 2000, 2500, 5000, 10_000, 30_000, 60_000, 300_000,
    ],
    shown: &[
        0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    ],
    recorded_per_shown: 1e3,
};

/// Clients that open incidents, all of them together, show with series of their own; the rest is `other`.
const ACTIVE_CLIENTS_MAX: usize = 250;
/// Series of open incidents at most; there are rarely more than a handful of incidents at a time.
const ACTIVE_SERIES_MAX: usize = 2500;

/// Counts incidents as they are told.
#[derive(Debug, Default)]
pub struct IncidentTally {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    opened: BTreeMap<(Cause, Severity), u64>,
    lengths: BTreeMap<Cause, Histogram>,
    delays: BTreeMap<Cause, Histogram>,
}

impl IncidentTally {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An incident was opened.
    pub fn opened(&self, incident: &Incident) {
        let mut inner = self.inner();
        let cause = incident.cause();
        *inner.opened.entry((cause, incident.severity)).or_default() += 1;
        let delay = incident.detected_at.since(incident.opened_at);
        let delays = inner.delays.entry(cause);
        record(delays.or_insert_with(|| Histogram::new(&DELAYS)), delay);
    }

    /// An incident is over.
    pub fn closed(&self, incident: &Incident) {
        let length = incident.closed_at.unwrap_or(incident.detected_at);
        let length = length.since(incident.opened_at);
        let mut inner = self.inner();
        let lengths = inner.lengths.entry(incident.cause());
        record(lengths.or_insert_with(|| Histogram::new(&LENGTHS)), length);
    }

    /// Shows what was counted, and which incidents are open among `incidents`; `upstreams` are the names.
    pub(super) fn show(
        &self,
        families: &mut Families,
        incidents: &[Arc<Incident>],
        upstreams: &[Arc<str>],
    ) {
        let inner = self.inner();
        // Every cause is there from the start with the severity it has by nature, so that `rate()` sees the first.
        let natural = Cause::ALL.iter().map(|cause| (*cause, cause.severity()));
        let kinds: BTreeSet<_> = natural.chain(inner.opened.keys().copied()).collect();
        for (cause, severity) in kinds {
            let count = inner.opened.get(&(cause, severity));
            let labels = [cause.label(), severity.label()];
            families.add(&c::INCIDENTS, &labels, float(count.copied().unwrap_or(0)));
        }
        for (family, by_cause) in [
            (&c::INCIDENT_DURATION, &inner.lengths),
            (&c::INCIDENT_DETECTION_DELAY, &inner.delays),
        ] {
            for (cause, times) in by_cause {
                families.add_histogram(family, &[cause.label()], &times.row());
            }
        }
        for labels in active(incidents, upstreams) {
            families.add(&c::INCIDENT_ACTIVE, &labels, 1.0);
        }
    }
}

fn record(histogram: &Histogram, time: Duration) {
    histogram.record(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
}

/// Label sets of open incidents: a client that has two of one kind has one series.
fn active<'a>(incidents: &'a [Arc<Incident>], upstreams: &'a [Arc<str>]) -> BTreeSet<[&'a str; 5]> {
    let mut series = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for incident in incidents
        .iter()
        .filter(|incident| incident.closed_at.is_none())
    {
        let upstream = upstreams.get(usize::from(incident.upstream.0));
        let upstream = upstream.map_or("", |name| name);
        let labels = |client, app| {
            let (cause, severity) = (incident.cause().label(), incident.severity.label());
            [cause, severity, upstream, client, app]
        };
        if incident.clients.is_empty() {
            series.insert(labels("", ""));
        }
        for client in &incident.clients {
            let own = (&*client.address, &*client.app);
            let has_place = shown.len() < ACTIVE_CLIENTS_MAX || shown.contains(&own);
            if has_place && series.len() < ACTIVE_SERIES_MAX {
                shown.insert(own);
                series.insert(labels(own.0, own.1));
            } else {
                series.insert(labels("other", ""));
            }
        }
    }
    series
}
