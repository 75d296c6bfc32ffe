//! Longer round-trip times, from what the kernel tells and from how long hellos take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::{Detector, Taken};
use super::thresholds::{
    ROUND_TRIP_FACTOR, ROUND_TRIP_MORE, ROUND_TRIP_SPREAD, ROUND_TRIP_WINDOW, ROUND_TRIPS_MIN,
    TOLD_EVERY,
};
use super::{Side, Signal, SignalKind, about_upstream, connected_to};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::{Micros, Timestamp};
use crate::timeline::{ConnectionId, Fact, Sample, UpstreamId};

/// Measurements that are kept for one side of one upstream.
const KEPT_MAX: usize = 4096;

/// A hello that took longer was held up by more than the network.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Network {
    /// When each connection's client and server were heard last.
    heard_at: BTreeMap<ConnectionId, [Timestamp; 2]>,
    round_trips: BTreeMap<(UpstreamId, Measure), RoundTrips>,
    /// Since when paths to clients of an upstream are slow.
    clients_from: BTreeMap<UpstreamId, Timestamp>,
}

/// A path that takes longer than it did.
#[derive(Clone, Copy, Debug)]
struct Slow {
    began_at: Timestamp,
    now: Duration,
    before: Duration,
}

/// Instances to which paths are slow, and one of these paths, when it is to be told.
#[derive(Debug, Default)]
struct SlowClients {
    instances: BTreeSet<InstanceId>,
    slow: Option<Slow>,
}

/// What a round-trip time was measured by. Their scales differ, so each has its own baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    /// The server's sockets, by the kernel.
    Server,
    /// The sockets of an instance, by the kernel.
    Client(InstanceId),
    Hello,
}

#[derive(Debug, Default)]
struct RoundTrips {
    recent: VecDeque<(Timestamp, Duration)>,
    /// What is usual.
    baseline: Option<Duration>,
    /// Since when it is slow, and when that was told last.
    episode: Option<(Timestamp, Timestamp)>,
}

impl Detector for Network {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        // A dial is the network's alone, but too quick to compare a hello with.
        if let Fact::HelloAnswered(took) = &entry.fact {
            if *took < ROUND_TRIP_MAX {
                let key = (connection.upstream, Measure::Hello);
                let trips = self.round_trips.entry(key).or_default();
                trips.measured(entry.at, *took);
            }
        } else if let Fact::Sampled(sample) = &entry.fact {
            self.sampled(entry.at, connection, sample);
        } else if let Fact::Ended(_) = &entry.fact {
            self.heard_at.remove(&entry.connection);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        self.round_trips.retain(|(_, measure), _| match measure {
            Measure::Client(instance) => pools.instance(*instance).is_some(),
            Measure::Server | Measure::Hello => true,
        });
        // Where the kernel measures and finds the network quick, late hellos are owed to whoever answers them.
        let mut quick = BTreeSet::new();
        let mut clients: BTreeMap<UpstreamId, SlowClients> = BTreeMap::new();
        for ((upstream, measure), trips) in &mut self.round_trips {
            let slow = trips.look(at, *measure != Measure::Hello);
            match measure {
                Measure::Server => {
                    if trips.recent.len() >= ROUND_TRIPS_MIN && trips.episode.is_none() {
                        quick.insert(*upstream);
                    }
                    signals.extend(slow.map(|slow| slow.told(*upstream, Side::Server, at)));
                }
                Measure::Hello => {
                    let slow = slow.filter(|_| !quick.contains(upstream));
                    signals.extend(slow.map(|slow| slow.told(*upstream, Side::Server, at)));
                }
                Measure::Client(instance) => {
                    if trips.episode.is_some() {
                        let all = clients.entry(*upstream).or_default();
                        all.instances.insert(*instance);
                        all.slow = slow.or(all.slow);
                    }
                }
            }
        }
        self.clients_from
            .retain(|upstream, _| clients.contains_key(upstream));
        for (upstream, SlowClients { instances, slow }) in clients {
            if let Some(slow) = slow {
                let began_at = *self.clients_from.entry(upstream).or_insert(slow.began_at);
                let slow = Slow { began_at, ..slow };
                let signal = slow.told(upstream, Side::Client, at);
                signals.push(signal.among(&instances, connected_to(pools, upstream)));
            }
        }
    }
}

impl Network {
    fn sampled(&mut self, at: Timestamp, connection: &Connection, sample: &Sample) {
        let Some(states) = sample.tcp else {
            return;
        };
        let known = self.heard_at.entry(connection.id).or_default();
        let heard = [sample.from_client_at, sample.from_server_at];
        for (position, side) in [Side::Client, Side::Server].into_iter().enumerate() {
            let (state, heard_at) = (states[position], heard[position]);
            let before = std::mem::replace(&mut known[position], heard_at);
            let measure = match side {
                Side::Server => Some(Measure::Server),
                Side::Client => connection.instance.map(Measure::Client),
            };
            if let Some(measure) = measure
                && heard_at > before
                && state.rtt > Micros::ZERO
            {
                self.round_trips
                    .entry((connection.upstream, measure))
                    .or_default()
                    .measured(at, state.rtt.duration());
            }
        }
    }
}

/// What takes so long is slow, where `usual` was.
pub(super) fn slow_from(usual: Duration) -> Duration {
    (usual * ROUND_TRIP_FACTOR).max(usual + ROUND_TRIP_MORE)
}

impl Slow {
    fn told(&self, upstream: UpstreamId, side: Side, at: Timestamp) -> Signal {
        let kind = SignalKind::RoundTripTime {
            now: self.now,
            before: self.before,
            is_client_side: side == Side::Client,
        };
        about_upstream(upstream, self.began_at, at, kind)
    }
}

impl RoundTrips {
    fn measured(&mut self, at: Timestamp, took: Duration) {
        self.recent.push_back((at, took));
        if self.recent.len() > KEPT_MAX {
            self.recent.pop_front();
        }
    }

    /// How slow it is, where that is to be told. `is_average`: each measurement is one of several before it.
    fn look(&mut self, at: Timestamp, is_average: bool) -> Option<Slow> {
        while self
            .recent
            .front()
            .is_some_and(|(then, _)| at.since(*then) > ROUND_TRIP_WINDOW)
        {
            self.recent.pop_front();
        }
        if self.recent.len() < ROUND_TRIPS_MIN {
            if self.recent.is_empty() {
                self.episode = None;
            }
            return None;
        }
        // Three of four take at least `usual`.
        let (usual, median) = quantiles(self.recent.iter().map(|(_, took)| *took));
        let Some(before) = self.baseline else {
            self.baseline = Some(median);
            return None;
        };
        let limit = slow_from(before);
        let lately = || self.slow_lately(limit).filter(|_| is_average);
        let slow = self.slow_all_along(usual, limit).or_else(lately);
        let Some((began_at, now)) = slow else {
            if usual < limit {
                self.episode = None;
                // Follows slowly what is usual, and not what is on its way to be slow.
                if median < limit {
                    self.baseline = Some((before * 63 + median) / 64);
                }
            }
            return None;
        };
        let (began_at, told_at) = self.episode.get_or_insert((began_at, Timestamp::default()));
        if at.since(*told_at) < TOLD_EVERY {
            return None;
        }
        *told_at = at;
        Some(Slow {
            began_at: *began_at,
            now,
            before,
        })
    }

    /// Where most of the window takes at least `limit`: from when on, and `usual` of it.
    fn slow_all_along(&self, usual: Duration, limit: Duration) -> Option<(Timestamp, Duration)> {
        let mut slow = self.recent.iter().filter(|(_, took)| *took >= limit);
        let (first, _) = slow.next()?;
        let (newest, _) = self.recent.back()?;
        let (last, _) = slow.next_back()?;
        let is_slow = usual >= limit && last == newest && last.since(*first) >= ROUND_TRIP_SPREAD;
        is_slow.then_some((*first, usual))
    }

    /// The same of the newest measurements alone, as far apart as those of one event are not: what came before them
    /// says how it was, not how it is. The kernel tells an average. One late acknowledgement raises it for a while, in
    /// which it falls; where the path is slow it does not.
    fn slow_lately(&self, limit: Duration) -> Option<(Timestamp, Duration)> {
        let (newest, _) = *self.recent.back()?;
        let enough = self.recent.len().checked_sub(ROUND_TRIPS_MIN)?;
        let mut oldest = self.recent.range(..=enough).rev();
        let (from, _) = *oldest
            .find(|(then, took)| *took >= limit && newest.since(*then) >= ROUND_TRIP_SPREAD)?;
        let lately = self.recent.iter().filter(|(then, _)| *then >= from);
        let (first, last): (Vec<_>, Vec<_>) =
            lately.partition(|(then, _)| newest.since(*then) > then.since(from));
        let (usual, _) = quantiles(first.iter().chain(&last).map(|(_, took)| *took));
        let [before, now] =
            [first, last].map(|half| quantiles(half.iter().map(|(_, took)| *took)).1);
        let has_not_fallen = self.episode.is_some() || now >= before;
        (usual >= limit && has_not_fallen).then_some((from, usual))
    }
}

/// What three of four take at least, and the median; zero where there are none.
fn quantiles(times: impl Iterator<Item = Duration>) -> (Duration, Duration) {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    (at(times.len() / 4), at(times.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is told that a path is slow which takes 20 ms and then, second by second, what follows: on each of
    /// three connections, of which one has nothing to carry.
    #[track_caller]
    fn check(millis: &[u64], is_average: bool, is_told: bool) {
        let start = Timestamp::default() + Duration::from_hours(500_000);
        let mut trips = RoundTrips::default();
        let all = [20; 6].iter().chain(millis);
        let told = (0..).zip(all).any(|(second, millis)| {
            let at = start + Duration::from_secs(second);
            for _ in 0..2 {
                trips.measured(at, Duration::from_millis(*millis));
            }
            trips
                .look(at + Duration::from_millis(250), is_average)
                .is_some()
        });
        assert_eq!(told, is_told, "{millis:?}");
    }

    #[test]
    fn a_path_is_slow_when_it_takes_longer_in_two_seconds_in_a_row() {
        check(&[120, 180], true, true);
        check(&[300, 300], true, true);
        check(&[120], true, false);
        check(&[120, 20, 120, 20], true, false);
    }

    #[test]
    fn one_late_acknowledgement_is_no_slow_path_while_the_average_of_it_falls() {
        check(&[120, 105, 60], true, false);
    }

    #[test]
    fn what_is_measured_one_by_one_takes_most_of_the_window() {
        check(&[300, 300], false, false);
        check(&[300, 300, 300, 300], false, true);
    }
}
