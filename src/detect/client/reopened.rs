//! Pools that open much at once after trouble, and keep it.
//!
//! A pool that lost its connections opens others: as many as it had, or, where more waits for it than before, many
//! times that, and with it every instance at the same moment. It is what servers that come back are hit by, and no
//! storm: what is opened lasts. It belongs into the course of an incident that is there anyway, and begins none.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Taken, Turn, about, make_room, turn};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, UpstreamId};

/// What is opened within this of each other is one burst.
const WINDOW: Duration = Duration::from_secs(5);

/// What lasts for so long was opened for good.
const LASTS: Duration = Duration::from_secs(2);

/// Connections that are worth a word.
const OPENED_MIN: u64 = 4;

/// Opened per second, compared with the time before.
const OVER_BASELINE: f64 = 4.0;

/// Time over which the baseline forgets.
const BASELINE: Duration = Duration::from_mins(2);

/// What was lost is replaced within this of the server being back.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);

/// Connections of one instance that are counted.
const CONNECTIONS_MAX: usize = 4096;

/// Upstreams of one instance that are watched.
const UPSTREAMS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Reopenings {
    instances: BTreeMap<InstanceId, BTreeMap<UpstreamId, Pool>>,
}

/// What one instance has at one upstream.
#[derive(Debug, Default)]
struct Pool {
    /// When connections were opened, the oldest first.
    opened: VecDeque<(Timestamp, ConnectionId)>,
    /// When connections that had lasted were lost, the oldest first.
    lost: VecDeque<Timestamp>,
    /// Lasting connections a second, outside of bursts.
    baseline: f64,
    looked_at: Option<Timestamp>,
    burst: Option<Burst>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Burst {
    began_at: Timestamp,
    newest_at: Timestamp,
    opened: u64,
    lost: u64,
    baseline: f64,
}

impl Detector for Reopenings {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let Some((instance, turn)) = turn(taken) else {
            return;
        };
        let connection = taken.connection;
        make_room(&mut self.instances, instance);
        let pools = self.instances.entry(instance).or_default();
        if pools.len() >= UPSTREAMS_MAX && !pools.contains_key(&connection.upstream) {
            return;
        }
        let pool = pools.entry(connection.upstream).or_default();
        match turn {
            Turn::Introduced => pool.opened(connection),
            Turn::Ended(_) => pool.ended(connection, taken.entry.at),
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for (instance, own) in &mut self.instances {
            for (upstream, pool) in own {
                let known = pools.upstream(*upstream);
                let is_away = known.is_some_and(|known| known.unreachable_since.is_some());
                if let Some(burst) = pool.look(at, is_away) {
                    signals.push(burst.signal(*upstream, *instance, at));
                }
            }
        }
        self.instances
            .retain(|instance, _| pools.instance(*instance).is_some());
    }
}

impl Pool {
    fn opened(&mut self, connection: &Connection) {
        let moment = connection.opened_at;
        let place = self.opened.partition_point(|(known, _)| *known <= moment);
        self.opened.insert(place, (moment, connection.id));
        if self.opened.len() > CONNECTIONS_MAX {
            self.opened.pop_front();
        }
    }

    /// What is over soon was nothing; what its client is done with is no loss.
    fn ended(&mut self, connection: &Connection, at: Timestamp) {
        if at.since(connection.opened_at) < LASTS {
            self.opened.retain(|(_, known)| *known != connection.id);
            return;
        }
        if connection.said_goodbye_at.is_none() {
            self.lost.push_back(at);
        }
        if self.lost.len() > CONNECTIONS_MAX {
            self.lost.pop_front();
        }
    }

    /// A burst of which there is something new to be told.
    fn look(&mut self, at: Timestamp, is_away: bool) -> Option<Burst> {
        self.forget(at, is_away);
        let first_lost = self.lost.front().copied();
        let lasting = self.opened.iter().map(|(moment, _)| *moment);
        let lasting = lasting.filter(|moment| at.since(*moment) >= LASTS);
        let since = self.burst.map(|burst| burst.newest_at);
        let again: Vec<Timestamp> = lasting
            .filter(|moment| first_lost.is_some_and(|lost| lost <= *moment))
            .filter(|moment| since.is_none_or(|since| since < *moment))
            .collect();
        let (Some(began_at), Some(newest_at)) = (again.first(), again.last()) else {
            self.learn(at);
            return None;
        };
        let (opened, lost) = (again.len() as u64, self.lost.len() as u64);
        let burst = match self.burst {
            Some(burst) => Burst {
                newest_at: *newest_at,
                opened: burst.opened + opened,
                lost: burst.lost.max(lost),
                ..burst
            },
            None if opened >= OPENED_MIN && rate(opened) > self.baseline * OVER_BASELINE => Burst {
                began_at: *began_at,
                newest_at: *newest_at,
                opened,
                lost,
                baseline: self.baseline,
            },
            None => {
                self.learn(at);
                return None;
            }
        };
        self.looked_at = Some(at);
        self.burst = Some(burst);
        Some(burst)
    }

    fn forget(&mut self, at: Timestamp, is_away: bool) {
        let is_over = |(moment, _): &(Timestamp, _)| at.since(*moment) > WINDOW + LASTS;
        while self.opened.front().is_some_and(is_over) {
            self.opened.pop_front();
        }
        let is_replaced = |moment: &Timestamp| at.since(*moment) > REPLACED_WITHIN;
        while !is_away && self.lost.front().is_some_and(is_replaced) {
            self.lost.pop_front();
        }
        let is_done = |burst: Burst| at.since(burst.newest_at) > WINDOW + LASTS;
        if self.burst.is_some_and(is_done) {
            self.burst = None;
            self.lost.clear();
        }
    }

    /// What is usual, while there is no burst.
    fn learn(&mut self, at: Timestamp) {
        if self.burst.is_none() {
            // What a pool opens when it starts says little about what is usual.
            let passed = self
                .looked_at
                .map_or(Duration::ZERO, |before| at.since(before));
            let passed = passed.min(BASELINE);
            let share = passed.as_secs_f64() / BASELINE.as_secs_f64();
            self.baseline += (rate(self.opened.len() as u64) - self.baseline) * share;
        }
        self.looked_at = Some(at);
    }
}

/// So many of the window, a second.
#[expect(clippy::cast_precision_loss, reason = "counts of connections")]
fn rate(count: u64) -> f64 {
    count as f64 / WINDOW.as_secs_f64()
}

impl Burst {
    const fn signal(
        self,
        upstream: UpstreamId,
        instance: InstanceId,
        seen_at: Timestamp,
    ) -> Signal {
        let kind = SignalKind::PoolReopened {
            opened: self.opened,
            lost: self.lost,
            lasted: self.newest_at.since(self.began_at),
            baseline: self.baseline,
        };
        about(upstream, instance, self.began_at, seen_at, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Initiator, Phase};
    use crate::detect::testing::{beginning, ended, peer, play};
    use crate::timeline::{Fact, Sample};

    /// When a connection is opened and when it ends, in milliseconds.
    type Life = (u64, Option<u64>);

    fn end() -> Fact {
        ended(Initiator::Server, Phase::Idle, Sample::default())
    }

    /// What is told last of the bursts of a minute, by their beginnings: opened, lost, and how long it took.
    fn bursts(lives: impl IntoIterator<Item = Life>) -> Vec<(u64, u64, u128)> {
        let mut facts = Vec::new();
        for (number, (opened, ended)) in (1..).zip(lives) {
            let connection = ConnectionId(number);
            let facts_of = beginning(peer(1, number), "orders", 1);
            facts.extend(facts_of.map(|fact| (opened, connection, fact)));
            facts.extend(ended.map(|ended| (ended, connection, end())));
        }
        let signals = play(&mut Reopenings::default(), facts);
        let mut told = BTreeMap::new();
        for signal in signals {
            assert!(signal.seen_at.since(signal.at) >= LASTS);
            let SignalKind::PoolReopened {
                opened,
                lost,
                lasted,
                ..
            } = signal.kind
            else {
                panic!("{signal:?}");
            };
            told.insert(signal.at, (opened, lost, lasted.as_millis()));
        }
        told.into_values().collect()
    }

    /// So many connections that were there for long, and are lost at once at second 20.
    fn lost(count: u64) -> impl Iterator<Item = Life> {
        (0..count).map(|number| (1000 + number, Some(20_000)))
    }

    /// So many that are opened 100 ms apart from a moment on, and stay.
    fn opened(count: u64, from: u64) -> impl Iterator<Item = Life> {
        (0..count).map(move |number| (from + number * 100, None))
    }

    #[test]
    fn what_a_pool_opens_again_is_counted_with_what_it_lost() {
        let told = bursts(lost(6).chain(opened(6, 21_000)));
        assert_eq!(told, [(6, 6, 500)]);
        // More waits for it than before.
        let told = bursts(lost(6).chain(opened(30, 21_000)));
        assert_eq!(told, [(30, 6, 2900)]);
    }

    #[test]
    fn a_pool_that_grows_has_lost_nothing() {
        assert_eq!(bursts(opened(30, 21_000)), []);
        // Nor has one that lost something long ago.
        assert_eq!(bursts(lost(6).chain(opened(30, 40_000))), []);
    }

    #[test]
    fn what_does_not_last_is_not_opened_again() {
        let brief = (0..30).map(|number| (21_000 + number * 100, Some(21_500 + number * 100)));
        assert_eq!(bursts(lost(6).chain(brief)), []);
    }

    #[test]
    fn a_few_are_not_worth_a_word() {
        assert_eq!(bursts(lost(6).chain(opened(3, 21_000))), []);
    }

    #[test]
    fn a_pool_that_opens_as_many_all_the_time_has_no_burst() {
        let busy = (0..550).map(|number| {
            let is_old = number < 20;
            (1000 + number * 100, is_old.then_some(45_000))
        });
        assert_eq!(bursts(busy), []);
    }
}
