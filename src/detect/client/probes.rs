//! Bare connections that never speak: health checks of load balancers and orchestrators, scanners.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Subject};
use crate::connection::Initiator;
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, UpstreamId};

/// So many are a habit.
const COUNT_MIN: u64 = 3;

/// A habit has no longer pauses than this.
const PAUSE_MAX: Duration = Duration::from_mins(2);

/// Told again after this, at the earliest: once is enough.
const TELL_EVERY: Duration = Duration::from_hours(1);

/// Sources watched.
const SOURCES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Probes {
    sources: BTreeMap<(IpAddr, UpstreamId), Source>,
}

#[derive(Debug)]
struct Source {
    first_at: Timestamp,
    last_at: Timestamp,
    count: u64,
    told_at: Option<Timestamp>,
}

impl Detector for Probes {
    fn record(
        &mut self,
        entry: &Entry,
        connection: &Connection,
        _pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        if !matches!(entry.fact, Fact::Ended(_)) || !is_bare(connection) {
            return;
        }
        let key = (connection.peer.ip().to_canonical(), connection.upstream);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&key) {
            self.sources.pop_first();
        }
        let at = connection.opened_at;
        let source = self.sources.entry(key).or_insert(Source {
            first_at: at,
            last_at: at,
            count: 0,
            told_at: None,
        });
        if at.since(source.last_at) > PAUSE_MAX {
            source.first_at = at;
            source.count = 0;
        }
        source.count += 1;
        source.last_at = source.last_at.max(at);
        let is_due = source
            .told_at
            .is_none_or(|told_at| entry.at.since(told_at) >= TELL_EVERY);
        if source.count < COUNT_MIN || !is_due {
            return;
        }
        source.told_at = Some(entry.at);
        let gaps = u32::try_from(source.count - 1).unwrap_or(u32::MAX);
        signals.push(Signal {
            at: source.first_at,
            seen_at: entry.at,
            subject: Subject {
                upstream: connection.upstream,
                instance: None,
                mongo_client: None,
            },
            among: Vec::new(),
            kind: SignalKind::Probes {
                count: source.count,
                every: source.last_at.since(source.first_at).checked_div(gaps),
            },
        });
    }

    fn tick(&mut self, at: Timestamp, _: &Pools, _: &mut Vec<Signal>) {
        self.sources
            .retain(|_, source| at.since(source.last_at) < TELL_EVERY);
    }
}

/// It reached the server, was ended by its client and never carried a message.
fn is_bare(connection: &Connection) -> bool {
    connection.introduced_at.is_none()
        && connection.last.requests == 0
        && connection.dialled_at.is_some()
        && connection.opaque.is_none()
        && connection
            .ended
            .is_some_and(|end| end.ending.initiator == Initiator::Client)
}
