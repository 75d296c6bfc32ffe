//! What the tables show of a server since a moment: grounds for a cause, and against its neighbours.

use std::time::Duration;

use super::super::words::{counted, length};
use super::super::{Case, Evidence};
use super::server::{connections_to, fact, restarted};
use crate::connection::Role;
use crate::detect::SignalKind;
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// What is heard so long after a moment is no rest of what was on its way then.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// One segment in so many that is sent again is everyday.
const RARELY: u64 = 200;

/// What takes less than this part of an operation's time does not explain it.
const PART_OF_OPERATION: u32 = 4;

/// One look at the connections of an upstream.
#[derive(Debug, Default)]
pub(super) struct Seen {
    since: Timestamp,
    /// Connections from before on which the server was heard afterwards.
    went_on: u64,
    /// The monitors among them: what they are answered needs no work of the server.
    watched: u64,
    /// How long first hellos took on connections that were opened since.
    greetings: Vec<Duration>,
    /// The same server process answered as before.
    is_same_process: bool,
    /// The newest round-trip time of each connection on which the server was heard since.
    round_trips: Vec<Duration>,
    /// Segments sent to the server on these, and those of them that were sent again.
    segments: u64,
    resent: u64,
    /// Connections on which replies were read.
    read: u64,
    /// How long operations take, where they are slow.
    operations: Option<Duration>,
}

impl Seen {
    pub(super) fn of(case: &Case, pools: &Pools, upstream: UpstreamId, since: Timestamp) -> Self {
        let mut seen = Self {
            since,
            is_same_process: restarted(case).is_none()
                && pools.upstream(upstream).is_some_and(|upstream| {
                    let server = upstream.server.as_ref();
                    server.is_some_and(|server| server.topology_version.is_some())
                }),
            operations: case
                .all(|kind| {
                    if let SignalKind::SlowOperations { now, .. } = kind {
                        Some(*now)
                    } else {
                        None
                    }
                })
                .map(|(_, now)| now)
                .min(),
            ..Self::default()
        };
        for connection in connections_to(pools, upstream) {
            seen.add(connection);
        }
        seen.greetings.sort_unstable();
        seen.round_trips.sort_unstable();
        seen
    }

    fn add(&mut self, connection: &Connection) {
        let last = &connection.last;
        let Some(answered_at) = connection.hello_answered_at else {
            return;
        };
        self.read += u64::from(connection.opaque.is_none());
        if connection.opened_at <= self.since {
            let goes_on = last.from_server_at > self.since + AFTERWARDS;
            let is_monitor = matches!(connection.found, Role::Monitor | Role::RoundTripMonitor);
            self.went_on += u64::from(goes_on);
            self.watched += u64::from(goes_on && is_monitor);
        } else if let Some(introduced_at) = connection.introduced_at {
            self.greetings.push(answered_at.since(introduced_at));
        }
        if let Some([_, server]) = last.tcp
            && last.from_server_at > self.since
        {
            let round_trip = server.rtt.duration();
            if round_trip > Duration::ZERO {
                self.round_trips.push(round_trip);
            }
            self.segments += u64::from(server.segments);
            self.resent += u64::from(server.retransmits);
        }
    }

    /// The server was heard on what was there before.
    pub(super) fn went_on(&self) -> Option<Evidence> {
        let were = if self.went_on == 1 { "was" } else { "were" };
        (self.went_on > 0).then(|| {
            fact(
                self.since,
                self.went_on,
                format!(
                    "the server was heard later on {} that {were} open before",
                    counted(self.went_on, "connection")
                ),
            )
        })
    }

    /// The server answers those who ask how it is.
    pub(super) fn watched(&self) -> Option<Evidence> {
        (self.watched > 0).then(|| {
            fact(
                self.since,
                self.watched,
                format!(
                    "hellos of {} were answered meanwhile",
                    counted(self.watched, "monitor")
                ),
            )
        })
    }

    /// The server answers those who come.
    pub(super) fn greeted(&self) -> Option<Evidence> {
        let median = self.median(&self.greetings)?;
        let count = self.greetings.len() as u64;
        let who = if self.is_same_process {
            "the same server process"
        } else {
            "the server"
        };
        let typical = if count == 1 { "" } else { " (median)" };
        Some(fact(
            self.since,
            count,
            format!(
                "{who} answered the first hello of {} since, within {}{typical}",
                counted(count, "connection"),
                length(median)
            ),
        ))
    }

    /// The way to the server is short.
    pub(super) fn round_trips(&self) -> Option<Evidence> {
        let median = self.median(&self.round_trips)?;
        let count = self.round_trips.len() as u64;
        let typical = match count {
            1 => "on 1 connection".to_owned(),
            _ => format!("median of {}", counted(count, "connection")),
        };
        let text = format!(
            "the kernel measures round trips of {} to the server ({typical})",
            length(median)
        );
        Some(fact(self.since, count, text))
    }

    /// The median, where it does not explain how slow operations are.
    fn median(&self, times: &[Duration]) -> Option<Duration> {
        let median = *times.get(times.len() / 2)?;
        let most = self.operations.map(|took| took / PART_OF_OPERATION);
        most.is_none_or(|most| median <= most).then_some(median)
    }

    /// Next to nothing had to be sent again.
    pub(super) fn hardly_resent(&self) -> Option<Evidence> {
        let is_rare = self.segments > 0 && self.resent * RARELY <= self.segments;
        is_rare.then(|| {
            let number = match self.resent {
                0 => "none".to_owned(),
                some => some.to_string(),
            };
            fact(
                self.since,
                self.resent,
                format!(
                    "of {} to the server {number} had to be sent again",
                    counted(self.segments, "segment")
                ),
            )
        })
    }

    /// Connections of which the replies were read, none of which said `what`.
    pub(super) fn unsaid(&self, what: &str) -> Option<Evidence> {
        (self.read > 0).then(|| {
            fact(
                self.since,
                self.read,
                format!(
                    "no reply that was read on {} said that {what}",
                    counted(self.read, "connection")
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            went_on: 1,
            watched: 1,
            greetings: vec![Duration::from_millis(2)],
            round_trips: [100, 200, 900].map(Duration::from_micros).to_vec(),
            segments: 1000,
            resent: 2,
            read: 3,
            ..Seen::default()
        }
    }

    fn told(evidence: Option<Evidence>) -> String {
        evidence.map_or_else(String::new, |evidence| evidence.fact)
    }

    #[test]
    fn what_was_seen_is_told_in_numbers() {
        let seen = seen();
        for (evidence, expected) in [
            (
                seen.went_on(),
                "the server was heard later on 1 connection that was open before",
            ),
            (
                seen.watched(),
                "hellos of 1 monitor were answered meanwhile",
            ),
            (
                seen.greeted(),
                "the server answered the first hello of 1 connection since, within 2.0 ms",
            ),
            (
                seen.round_trips(),
                "the kernel measures round trips of 0.2 ms to the server (median of 3 connections)",
            ),
            (
                seen.hardly_resent(),
                "of 1000 segments to the server 2 had to be sent again",
            ),
            (
                seen.unsaid("it shuts down"),
                "no reply that was read on 3 connections said that it shuts down",
            ),
        ] {
            assert_eq!(told(evidence), expected);
        }
    }

    #[test]
    fn what_was_not_seen_is_not_told() {
        let nothing = Seen::default();
        assert_eq!(nothing.went_on(), None);
        assert_eq!(nothing.watched(), None);
        assert_eq!(nothing.greeted(), None);
        assert_eq!(nothing.round_trips(), None);
        assert_eq!(nothing.hardly_resent(), None);
        assert_eq!(nothing.unsaid("it shuts down"), None);
        let lossy = Seen {
            resent: 200,
            ..seen()
        };
        assert_eq!(lossy.hardly_resent(), None);
    }

    #[test]
    fn what_takes_as_long_as_operations_speaks_for_no_other() {
        let of_operations = |millis| Seen {
            operations: Some(Duration::from_millis(millis)),
            greetings: vec![Duration::from_millis(300)],
            ..Seen::default()
        };
        assert_eq!(of_operations(310).greeted(), None);
        assert!(of_operations(1200).greeted().is_some());
    }
}
