//! Operations that take longer than they did, and pools that grow because of it.

mod pace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use self::pace::{Done, Pace, Work};
use super::super::{Detector, Taken};
use super::heard::Heard;
use super::network::slow_from;
use super::thresholds::{
    GROWTH_FACTOR, GROWTH_MIN, GROWTH_SETTLED, LOAD_WINDOW, ROUND_TRIPS_MIN, SLOW_ANYWAY,
    TOLD_EVERY, USUAL_FACTOR,
};
use super::{Signal, SignalKind, Subject, about_upstream, is_of_a_client};
use crate::connection::Role;
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, UpstreamId};

/// A pool's size is compared with what it was so long ago.
const SIZES_KEPT: Duration = Duration::from_secs(15);

/// Hellos that are compared with.
const HELLOS_KEPT: usize = 15;

type Key = (UpstreamId, InstanceId);

#[derive(Debug, Default)]
pub(super) struct Load {
    /// What each connection had done when it was found last to have done something.
    connections: BTreeMap<ConnectionId, Work>,
    instances: BTreeMap<Key, State>,
    slow: BTreeMap<UpstreamId, Slow>,
    hellos: BTreeMap<UpstreamId, Hellos>,
    heard: Heard,
}

/// How long hellos take: they need no work of the server.
#[derive(Debug, Default)]
struct Hellos {
    /// Those that were quick, the newest last.
    usual: VecDeque<Duration>,
    /// When the newest came, and the quickest of those in a row that took longer.
    slow: Option<(Timestamp, Duration)>,
}

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    /// Sizes of the pool, oldest first, one a second.
    sizes: VecDeque<(Timestamp, u64)>,
    /// Since when it grows, from which size, when that was told last.
    growth: Option<(Timestamp, u64, Timestamp)>,
}

#[derive(Debug)]
struct Slow {
    began_at: Timestamp,
    told_at: Timestamp,
    last_at: Timestamp,
    instances: BTreeSet<InstanceId>,
    /// When hellos were found to be slow meanwhile, and how long they took and take.
    hello: Option<(Timestamp, Duration, Duration)>,
}

/// What the open connections of a pool do.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    open: u64,
    active: u64,
    in_flight: u64,
    /// Operations that run for longer than their connection is used to, and the age of the youngest and the oldest.
    running: u64,
    oldest: Duration,
}

impl Detector for Load {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        self.heard.record(entry, connection);
        if let Fact::HelloAnswered(took) = &entry.fact {
            let hellos = self.hellos.entry(connection.upstream).or_default();
            hellos.took(entry.at, *took);
        }
        let (sample, is_end) = if let Fact::Sampled(sample) = &entry.fact {
            (*sample, false)
        } else if let Fact::Ended(ended) = &entry.fact {
            (ended.last, true)
        } else {
            return;
        };
        let now = Work::told(&sample);
        let before = self.connections.get(&entry.connection);
        let done = Done::between(before.copied().unwrap_or_default(), now, entry.at, is_end);
        if is_end {
            self.connections.remove(&entry.connection);
        } else if done.is_some() {
            self.connections.insert(entry.connection, now);
        }
        let Some(instance) = connection.instance.filter(|_| is_of_a_client(connection)) else {
            return;
        };
        let key = (connection.upstream, instance);
        if let Some(done) = done {
            self.instances.entry(key).or_default().pace.add(done);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        self.instances
            .retain(|(_, instance), _| pools.instance(*instance).is_some());
        let mut activity: BTreeMap<Key, Activity> = BTreeMap::new();
        for connection in pools.connections().filter(|one| one.is_open()) {
            if let Some(instance) = connection.instance
                && is_pooled(connection)
            {
                let key = (connection.upstream, instance);
                let heard_at = self.heard.last(connection.upstream);
                activity
                    .entry(key)
                    .or_default()
                    .add(connection, heard_at, at);
            }
        }
        let mut slow: BTreeMap<UpstreamId, Vec<(InstanceId, Duration, Duration, u64)>> =
            BTreeMap::new();
        let mut connected: BTreeMap<UpstreamId, usize> = BTreeMap::new();
        for ((upstream, instance), activity) in &activity {
            *connected.entry(*upstream).or_default() += 1;
            let state = self.instances.entry((*upstream, *instance)).or_default();
            if let Some((now, before)) = state.pace.slowness(activity.running(), at) {
                let all = slow.entry(*upstream).or_default();
                all.push((*instance, now, before, activity.in_flight));
            }
            let subject = Subject {
                upstream: *upstream,
                instance: Some(*instance),
                mongo_client: None,
            };
            let first_seen = pools
                .instance(*instance)
                .map_or(at, |known| known.first_seen);
            signals.extend(state.growth(subject, activity, first_seen, at));
        }
        self.slow
            .retain(|_, slow| at.since(slow.last_at) <= LOAD_WINDOW);
        for (upstream, instances) in slow {
            let connected = connected.get(&upstream).copied().unwrap_or_default();
            self.tell_slow(upstream, &instances, connected, at, signals);
        }
    }
}

fn is_pooled(connection: &Connection) -> bool {
    connection.ready_at.is_some()
        && match connection.role {
            Role::Application => true,
            Role::Unknown => connection.last.operations > 0,
            Role::Monitor | Role::RoundTripMonitor | Role::Probe | Role::Tool | Role::Member => {
                false
            }
        }
}

impl Hellos {
    fn took(&mut self, at: Timestamp, took: Duration) {
        if self.median().is_some_and(|usual| took >= slow_from(usual)) {
            let quickest = self.slow.map_or(took, |(_, quickest)| took.min(quickest));
            self.slow = Some((at, quickest));
            return;
        }
        self.slow = None;
        self.usual.push_back(took);
        if self.usual.len() > HELLOS_KEPT {
            self.usual.pop_front();
        }
    }

    fn median(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.usual.iter().copied().collect();
        times.sort_unstable();
        (times.len() >= ROUND_TRIPS_MIN).then(|| times[times.len() / 2])
    }

    /// How long they take and took, when those since `from` were slow.
    fn slow_since(&self, from: Timestamp) -> Option<(Duration, Duration)> {
        let (at, took) = self.slow?;
        (at >= from).then_some((took, self.median()?))
    }
}

impl Activity {
    fn add(&mut self, connection: &Connection, heard_at: Timestamp, at: Timestamp) {
        let last = &connection.last;
        self.open += 1;
        self.in_flight += u64::from(last.in_flight);
        let Some(busy_since) = last.busy_since else {
            return;
        };
        self.active += 1;
        // What did not arrive is not slow.
        if connection.is_unacknowledged() == Some(true) {
            return;
        }
        let done = last.operations.saturating_sub(u64::from(last.in_flight));
        let usual = last.busy / u32::try_from(done).unwrap_or(u32::MAX).max(1);
        // Counters are known a second late; an operation that was quick is over by then. While nothing comes from the
        // server at all, it is not known whether operations are slow or the server is gone.
        let since = busy_since.max(last.from_server_at);
        let age = at.since(since);
        let is_server_there = heard_at > since + SLOW_ANYWAY;
        if age >= SLOW_ANYWAY * 2 && age >= usual * USUAL_FACTOR && is_server_there {
            self.running += 1;
            self.oldest = self.oldest.max(age);
        }
    }

    /// How long operations run that are under way, where several do.
    fn running(&self) -> Option<Duration> {
        (self.running >= 2).then_some(self.oldest)
    }
}

impl State {
    /// The pool has become much larger while it is in use.
    fn growth(
        &mut self,
        subject: Subject,
        activity: &Activity,
        first_seen: Timestamp,
        at: Timestamp,
    ) -> Option<Signal> {
        let is_due = self
            .sizes
            .back()
            .is_none_or(|(then, _)| at.since(*then) >= TOLD_EVERY);
        if !is_due {
            return None;
        }
        self.sizes.push_back((at, activity.open));
        while self
            .sizes
            .front()
            .is_some_and(|(then, _)| at.since(*then) > SIZES_KEPT)
        {
            self.sizes.pop_front();
        }
        let settled_at = first_seen + GROWTH_SETTLED;
        let from = self
            .sizes
            .iter()
            .filter(|(then, size)| *then >= settled_at && *size > 0)
            .map(|(_, size)| *size)
            .min()?;
        let to = activity.open;
        let has_grown =
            to >= from * GROWTH_FACTOR && to >= from + GROWTH_MIN && activity.active * 2 >= to;
        if !has_grown {
            self.growth = None;
            return None;
        }
        let (began_at, from, told_at) = self.growth.get_or_insert((at, from, Timestamp::default()));
        *told_at = at;
        Some(Signal {
            at: *began_at,
            seen_at: at,
            subject,
            among: Vec::new(),
            kind: SignalKind::PoolGrew {
                from: *from,
                to,
                active: activity.active,
                is_saturated: activity.active == to,
            },
        })
    }
}

impl Load {
    fn tell_slow(
        &mut self,
        upstream: UpstreamId,
        instances: &[(InstanceId, Duration, Duration, u64)],
        connected: usize,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) {
        let now = instances.iter().map(|(_, now, ..)| *now).max();
        let before = instances.iter().map(|(_, _, before, _)| *before).max();
        let (now, before) = (now.unwrap_or_default(), before.unwrap_or_default());
        let slow = self.slow.entry(upstream).or_insert_with(|| Slow {
            began_at: at - now.min(LOAD_WINDOW),
            told_at: Timestamp::default(),
            last_at: at,
            instances: BTreeSet::new(),
            hello: None,
        });
        slow.last_at = at;
        // Operations are slow on the average of a window: what happens in it belongs to them, and when it is over, they
        // look slow for that much longer.
        let since = slow.began_at.min(at - LOAD_WINDOW);
        let hellos = self.hellos.get(&upstream);
        let known = slow
            .hello
            .filter(|(seen_at, ..)| at.since(*seen_at) <= LOAD_WINDOW);
        let seen = hellos.and_then(|hellos| hellos.slow_since(since));
        slow.hello = match (seen, known) {
            // The slowest are told as long as they are slow at all.
            (Some((now, _)), Some((_, known, before))) if now < known => Some((at, known, before)),
            (Some((now, before)), _) => Some((at, now, before)),
            (None, known) => known,
        };
        if at.since(slow.told_at) < TOLD_EVERY {
            return;
        }
        slow.told_at = at;
        // Whoever was among the slow stays concerned.
        slow.instances.extend(instances.iter().map(|(id, ..)| *id));
        let kind = SignalKind::SlowOperations {
            now,
            before,
            in_flight: instances.iter().map(|(.., in_flight)| in_flight).sum(),
            hello: slow.hello.map(|(_, now, before)| (now, before)),
        };
        let signal = about_upstream(upstream, slow.began_at, at, kind);
        signals.push(signal.among(&slow.instances, connected));
    }
}
