//! Bare connections that never speak: health checks of load balancers and orchestrators, scanners.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Subject, Taken};
use crate::connection::Initiator;
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, UpstreamId};

/// So many are a habit.
const COUNT_MIN: u64 = 3;

/// A habit has no longer pauses than this.
const PAUSE_MAX: Duration = Duration::from_mins(2);

/// Told again after this, at the earliest: once is enough.
const TELL_EVERY: Duration = Duration::from_hours(1);

/// What a client dials at once is dialled within this.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Connections before and after one that may have been dialled with it.
const SIBLINGS: u64 = 8;

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
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        if !matches!(entry.fact, Fact::Ended(_)) || !is_bare(connection) {
            return;
        }
        if is_of_a_client_that_gave_up(connection, pools) {
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

/// A client that dials several connections at once and closes itself at the first answer has not spoken on all of them.
fn is_of_a_client_that_gave_up(bare: &Connection, pools: &Pools) -> bool {
    let number = bare.id.0;
    let around = number.saturating_sub(SIBLINGS)..=number.saturating_add(SIBLINGS);
    let mut around = around.filter_map(|number| pools.connection(ConnectionId(number)));
    around.any(|other| {
        other.introduced_at.is_some()
            && other.upstream == bare.upstream
            && other.peer.ip().to_canonical() == bare.peer.ip().to_canonical()
            && other.opened_at.distance(bare.opened_at) < AT_ONCE
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{ClientMetadata, Ending, Manner, Phase};
    use crate::timeline::lines::UpstreamName;
    use crate::timeline::{Commands, Ended, Entry, Opened, Sample};

    fn at(millis: u64) -> Timestamp {
        Timestamp::default() + Duration::from_hours(500_000) + Duration::from_millis(millis)
    }

    fn opened(host: u8, port: u16) -> [Fact; 2] {
        let peer = ([10, 1, 0, host], port).into();
        let upstream = UpstreamId(0);
        let dialled = Fact::Dialled(Duration::from_millis(1));
        [Fact::Opened(Opened { upstream, peer }), dialled]
    }

    fn ended() -> Fact {
        let ending = Ending {
            initiator: Initiator::Client,
            manner: Manner::Fin,
            phase: Phase::Handshaking,
            after_failed_authentication: false,
        };
        Fact::Ended(Box::new(Ended {
            ending,
            last: Sample::default(),
            unanswered: Commands::default(),
            left_at: None,
        }))
    }

    /// How many probes are told when bare connections come each second from one host, each with one that says hello
    /// from another so many milliseconds later.
    fn told(speaker: u8, later: u64) -> Option<u64> {
        let mut pools = Pools::new(vec![UpstreamName {
            name: "db".to_owned(),
            address: "10.0.0.1:27017".to_owned(),
        }]);
        let mut probes = Probes::default();
        let mut signals = Vec::new();
        for second in 0..5 {
            let begin = second * 1000;
            let (bare, speaking) = (second * 2, second * 2 + 1);
            let port = 40_000 + u16::try_from(second).unwrap();
            let introduced = Fact::Introduced {
                client: Box::<ClientMetadata>::default(),
                request_id: 1,
            };
            let mut facts: Vec<_> = opened(1, port).map(|fact| (begin, bare, fact)).into();
            let spoken = opened(speaker, port + 500).into_iter().chain([introduced]);
            facts.extend(spoken.map(|fact| (begin + later, speaking, fact)));
            facts.extend([bare, speaking].map(|one| (begin + later + 1, one, ended())));
            for (millis, connection, fact) in facts {
                let entry = Entry {
                    at: at(millis),
                    connection: ConnectionId(connection),
                    fact,
                };
                pools.record(&entry);
                let taken = Taken::of(&entry, &pools).unwrap();
                probes.record(&taken, &mut signals);
            }
        }
        let SignalKind::Probes { count, .. } = signals.last()?.kind else {
            panic!("{signals:?}");
        };
        Some(count)
    }

    #[test]
    fn bare_connections_are_probes_but_for_those_of_a_client_that_gives_up() {
        assert_eq!(told(1, 5), None);
        assert_eq!(told(2, 5), Some(COUNT_MIN));
        assert_eq!(told(1, 400), Some(COUNT_MIN));
    }
}
