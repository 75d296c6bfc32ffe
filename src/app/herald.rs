//! Tells of incidents: one log line when one opens and one when it closes, numbers, and events for subscribers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::admin::{EventKind, Events, incident_row};
use crate::diagnose::{ClientName, Incident, IncidentId, News};
use crate::live::Findings;
use crate::metrics::IncidentTally;
use crate::telemetry::{Printable, PrintableLine};

/// Time between two updates of one incident; what changes in between is told together.
const UPDATE_EVERY: Duration = Duration::from_secs(1);
/// Clients that a log line names.
const CLIENTS_NAMED_MAX: usize = 5;

/// Knows what it told.
pub(super) struct Herald {
    findings: Arc<Findings>,
    news: Receiver<News>,
    events: Arc<Events>,
    tally: Arc<IncidentTally>,
    /// Names of the upstreams.
    upstreams: Vec<String>,
    /// Incidents that were opened and are not over, with an update that waits.
    open: BTreeMap<IncidentId, Option<Arc<Incident>>>,
    /// The newest that was opened.
    newest: Option<IncidentId>,
}

impl Herald {
    /// Hears everything from now on.
    pub(super) fn new(
        findings: Arc<Findings>,
        events: Arc<Events>,
        tally: Arc<IncidentTally>,
        upstreams: Vec<String>,
    ) -> Self {
        Self {
            news: findings.subscribe(),
            findings,
            events,
            tally,
            upstreams,
            open: BTreeMap::new(),
            newest: None,
        }
    }

    /// Tells until `stop`, and then what is left.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(UPDATE_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                news = self.news.recv() => match news {
                    Ok(news) => self.tell(news),
                    Err(RecvError::Lagged(_)) => self.catch_up(),
                    Err(RecvError::Closed) => break,
                },
                _ = tick.tick() => self.tell_updates(),
            }
        }
        loop {
            match self.news.try_recv() {
                Ok(news) => self.tell(news),
                Err(TryRecvError::Lagged(_)) => self.catch_up(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.tell_updates();
    }

    fn tell(&mut self, news: News) {
        match news {
            News::Opened(incident) => self.opened(&incident),
            News::Updated(incident) => {
                if let Some(waiting) = self.open.get_mut(&incident.id) {
                    *waiting = Some(incident);
                }
            }
            News::Closed(incident) => self.closed(&incident),
        }
    }

    /// More news came than may wait: what is known of the incidents now says what they were.
    fn catch_up(&mut self) {
        for incident in self.findings.incidents().iter().rev() {
            if self.newest.is_none_or(|newest| incident.id > newest) {
                self.opened(incident);
            }
            if incident.closed_at.is_some() {
                self.closed(incident);
            } else if let Some(waiting) = self.open.get_mut(&incident.id) {
                *waiting = Some(Arc::clone(incident));
            }
        }
    }

    fn opened(&mut self, incident: &Incident) {
        // Told before, when it was caught up with.
        if self.newest.is_some_and(|newest| incident.id <= newest) {
            return;
        }
        self.newest = Some(incident.id);
        self.open.insert(incident.id, None);
        self.tally.opened(incident);
        log(incident, self.upstream(incident), "incident opened");
        self.publish(EventKind::Opened, incident);
    }

    fn closed(&mut self, incident: &Incident) {
        if self.open.remove(&incident.id).is_none() {
            return;
        }
        self.tally.closed(incident);
        log(incident, self.upstream(incident), "incident closed");
        self.publish(EventKind::Closed, incident);
    }

    fn tell_updates(&mut self) {
        let waiting = self.open.values_mut().filter_map(Option::take);
        for incident in waiting.collect::<Vec<_>>() {
            self.publish(EventKind::Updated, &incident);
        }
    }

    fn publish(&self, kind: EventKind, incident: &Incident) {
        let row = incident_row(incident, self.upstream(incident));
        self.events.publish(kind, &row);
    }

    fn upstream(&self, incident: &Incident) -> &str {
        let name = self.upstreams.get(usize::from(incident.upstream.0));
        name.map_or("", String::as_str)
    }
}

/// One line. Names and sentences may hold what clients chose, so they are made harmless.
fn log(incident: &Incident, upstream: &str, message: &'static str) {
    let length = incident.closed_at.map(|at| at.since(incident.opened_at));
    tracing::info!(
        incident = incident.id.0,
        cause = incident.cause().label(),
        confidence = %format_args!("{:.2}", incident.confidence()),
        severity = incident.severity.label(),
        upstream = %Printable(upstream),
        clients = %PrintableLine(&names(&incident.clients)),
        seconds = length.map(|length| length.as_secs_f64()),
        summary = %PrintableLine(&incident.summary),
        "{message}"
    );
}

/// `orders@10.0.0.11, billing@10.0.0.12 and 3 more`.
fn names(clients: &[ClientName]) -> String {
    let named = clients.iter().take(CLIENTS_NAMED_MAX);
    let named = named.map(|client| match (&*client.app, &*client.address) {
        ("", address) => address.to_owned(),
        (app, address) => format!("{app}@{address}"),
    });
    let named: Vec<String> = named.collect();
    let named = named.join(", ");
    match clients.len().saturating_sub(CLIENTS_NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
