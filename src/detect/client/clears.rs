//! Pools that were wiped, as [`crate::pools`] infers it.
//!
//! A clear follows from trouble: it belongs into the course of an incident that is there anyway, and begins none.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Subject};
use crate::pools::{Clear, ClearSign, MongoClientId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// Signs of one moment come in any order, and the first of them is the moment of the clear.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// Tells each episode once, and again with the same moment when more is known of it.
///
/// **Invariant:** it remembers one clear of each pool that there is.
#[derive(Debug, Default)]
pub(super) struct Clears {
    /// The newest clear of each pool as it was told last.
    told: BTreeMap<(MongoClientId, UpstreamId), Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    at: Timestamp,
    sign: ClearSign,
    closed: u64,
}

impl Detector for Clears {
    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        self.told
            .retain(|(client, _), _| pools.mongo_client(*client).is_some());
        for client in pools.mongo_clients() {
            for (upstream, pool) in &client.pools {
                let subject = Subject {
                    upstream: *upstream,
                    instance: Some(client.instance),
                    mongo_client: Some(client.id),
                };
                let key = (client.id, *upstream);
                let before = self.told.get(&key).copied();
                for told in news(&pool.clears, before, at) {
                    self.told.insert(key, told);
                    signals.push(told.signal(subject, at));
                }
            }
        }
    }
}

/// What is to be told of the clears of a pool, the oldest first, when `before` is what was told last.
fn news(clears: &[Clear], before: Option<Told>, at: Timestamp) -> Vec<Told> {
    let is_new = |clear: &Clear| {
        before.is_none_or(|before| clear.at > before.at) && at.since(clear.at) >= SETTLED_AFTER
    };
    let fresh: Vec<Told> = clears
        .iter()
        .filter(|clear| is_new(clear))
        .map(|clear| Told::of(clear, clear.at))
        .collect();
    if !fresh.is_empty() {
        return fresh;
    }
    // What was told last is the last that there is, even if its first sign was found to be older since.
    let again = before.zip(clears.last()).and_then(|(before, last)| {
        let now = Told::of(last, before.at);
        (last.at <= before.at && now != before).then_some(now)
    });
    again.into_iter().collect()
}

impl Told {
    const fn of(clear: &Clear, at: Timestamp) -> Self {
        Self {
            at,
            sign: clear.sign,
            closed: clear.closed,
        }
    }

    const fn signal(self, subject: Subject, seen_at: Timestamp) -> Signal {
        Signal {
            at: self.at,
            seen_at,
            subject,
            among: Vec::new(),
            kind: SignalKind::PoolCleared {
                sign: self.sign,
                closed: self.closed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Initiator, Phase, Role};
    use crate::detect::testing::{at, ended, pools, ready};
    use crate::pools::InstanceId;
    use crate::timeline::{ConnectionId, Entry, Fact, Sample, SessionId};

    /// One mongo client of Node's driver with a monitor (1) and pooled connections (from 2 on).
    struct Stage {
        pools: Pools,
        detector: Clears,
    }

    impl Stage {
        fn new(pooled: u64) -> Self {
            let mut stage = Self {
                pools: pools(),
                detector: Clears::default(),
            };
            stage.open(0, 1);
            stage.tell(0, 1, Fact::RoleFound(Role::Monitor));
            stage.tell(0, 1, Fact::Heartbeat(Duration::from_secs(10)));
            for number in 2..2 + pooled {
                stage.open(100, number);
                stage.tell(100, number, Fact::RoleFound(Role::Application));
                stage.tell(100, number, Fact::SessionUsed(SessionId([1; 16])));
            }
            stage
        }

        fn open(&mut self, millis: u64, number: u64) {
            for fact in ready(1, number, "orders") {
                self.tell(millis, number, fact);
            }
        }

        fn tell(&mut self, millis: u64, number: u64, fact: Fact) {
            self.pools.record(&Entry {
                at: at(millis),
                connection: ConnectionId(number),
                fact,
            });
        }

        fn end(&mut self, millis: u64, number: u64, initiator: Initiator, phase: Phase) {
            self.tell(millis, number, ended(initiator, phase, Sample::default()));
        }

        /// What is told on the ticks until then: the moment of each clear, and how many connections went with it.
        fn told(&mut self, from: u64, until: u64) -> Vec<(Timestamp, ClearSign, u64)> {
            let mut signals = Vec::new();
            for millis in (from..=until).step_by(250) {
                self.pools.tick(at(millis));
                self.detector.tick(at(millis), &self.pools, &mut signals);
            }
            let all = signals.into_iter().map(|signal| {
                let subject = signal.subject;
                assert_eq!(subject.upstream, UpstreamId(0));
                assert_eq!(subject.instance, Some(InstanceId(1)));
                assert!(subject.mongo_client.is_some());
                let SignalKind::PoolCleared { sign, closed } = signal.kind else {
                    panic!("{signal:?}");
                };
                (signal.at, sign, closed)
            });
            all.collect()
        }
    }

    #[test]
    fn a_clear_is_told_once_and_again_with_what_went_with_it() {
        let mut stage = Stage::new(3);
        assert_eq!(stage.told(250, 5000), []);
        stage.end(5100, 2, Initiator::Server, Phase::InExchange);
        let broke = ClearSign::ConnectionBroke;
        let first = stage.told(5250, 5500);
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!((first[0].0, first[0].1), (at(5100), broke));
        for number in [3, 4] {
            stage.end(5700, number, Initiator::Client, Phase::Idle);
        }
        let later = stage.told(5750, 12_000);
        assert!(!later.is_empty() && later.iter().all(|told| told.0 == at(5100)));
        assert_eq!(later.last(), Some(&(at(5100), broke, 3)));
        assert_eq!(stage.told(12_250, 20_000), [], "nothing new");
    }

    #[test]
    fn what_a_client_closes_is_no_clear() {
        let mut stage = Stage::new(2);
        stage.end(5000, 2, Initiator::Client, Phase::Idle);
        stage.end(5000, 3, Initiator::Client, Phase::InExchange);
        assert_eq!(stage.told(5250, 12_000), []);
    }

    #[test]
    fn each_episode_is_told_by_its_own_moment() {
        let clear = |millis, closed| Clear {
            ready_sign: crate::pools::ReadySign::Check,
            at: at(millis),
            newest: at(millis),
            ready_at: Some(at(millis + 100)),
            sign: ClearSign::MonitorLost,
            closed,
            given_up_at: None,
        };
        let told = |millis, closed| Told {
            at: at(millis),
            sign: ClearSign::MonitorLost,
            closed,
        };
        let both = [clear(1000, 2), clear(9000, 1)];
        assert_eq!(news(&both[..1], None, at(1200)), [], "not settled");
        assert_eq!(news(&both, None, at(9500)), [told(1000, 2), told(9000, 1)]);
        assert_eq!(news(&both, Some(told(1000, 2)), at(9500)), [told(9000, 1)]);
        assert_eq!(news(&both, Some(told(9000, 1)), at(9750)), []);
        // The first sign was found later to be older: the same episode keeps the moment it was told with.
        let moved = [clear(1000, 2), clear(8990, 4)];
        assert_eq!(news(&moved, Some(told(9000, 1)), at(9750)), [told(9000, 4)]);
    }

    #[test]
    fn pools_that_are_forgotten_leave_nothing_behind() {
        let mut stage = Stage::new(1);
        stage.told(250, 5000);
        stage.end(5100, 2, Initiator::Server, Phase::InExchange);
        assert_eq!(stage.told(5250, 6000).len(), 1);
        stage.pools = Pools::new(Vec::new());
        stage.told(6250, 6250);
        assert!(stage.detector.told.is_empty());
    }
}
