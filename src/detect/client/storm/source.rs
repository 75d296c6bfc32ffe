//! One client, those at an address that nobody tells apart, or all that dial an upstream.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::super::{Signal, SignalKind, Subject};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// Connections opened within this are counted.
const WINDOW: Duration = Duration::from_secs(5);

/// What lasts for less has not been a connection worth the name.
const BRIEF: Duration = Duration::from_secs(2);

/// Brief connections in the window that are a storm.
const OPENED_MIN: u64 = 25;

/// Opened in the window for each that was lost. A driver whose server is gone looks for it twice a second, ten times in
/// the window, and had a monitor and a pooled connection at least.
const AMPLIFICATION_MIN: u64 = 6;

/// Opened per second, compared with the time before.
const OVER_BASELINE: f64 = 4.0;

/// Seconds of the window in which connections were opened: it goes on without pause.
const SECONDS_MIN: usize = 4;

/// What came before as long a pause is not a part of it.
const PAUSE: Duration = Duration::from_secs(1);

/// Time over which the baseline forgets.
const BASELINE: Duration = Duration::from_mins(2);

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Connections of one source in the window.
const OPENS_MAX: usize = 4096;

/// Instances of a storm that are named.
const INSTANCES_MAX: usize = 1000;

#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    /// When connections were opened that ended soon, the oldest first, and whose they were.
    brief: VecDeque<(Timestamp, Option<InstanceId>)>,
    /// When connections were lost that had lasted.
    lost: VecDeque<Timestamp>,
    /// When a dial failed last.
    failed_at: Option<Timestamp>,
    /// Brief connections a second, outside of storms.
    baseline: f64,
    looked_at: Option<Timestamp>,
    storm: Option<Storm>,
}

#[derive(Clone, Debug)]
struct Storm {
    began_at: Timestamp,
    told_at: Timestamp,
    /// All that took part in it.
    instances: BTreeSet<InstanceId>,
    opened: u64,
    lost: u64,
    counted_until: Timestamp,
    baseline: f64,
}

/// What is to be told of a storm.
#[derive(Debug)]
pub(super) struct Told<'a> {
    storm: &'a Storm,
    seen_at: Timestamp,
}

impl Source {
    pub(super) const fn is_storming(&self) -> bool {
        self.storm.is_some()
    }

    pub(super) fn is_worth_keeping(&self) -> bool {
        self.storm.is_some()
            || !self.brief.is_empty()
            || !self.lost.is_empty()
            || self.baseline > 0.01
    }

    /// A connection that lasted.
    pub(super) fn is_lost(connection: &Connection, ended_at: Timestamp) -> bool {
        ended_at.since(connection.opened_at) >= BRIEF
    }

    /// What was dialled turned out to be another's; what was lost stays.
    pub(super) fn leave_dials(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        *self = Self {
            lost,
            failed_at: self.failed_at,
            ..Self::default()
        };
    }

    /// Takes in a connection that ended.
    pub(super) fn count(&mut self, connection: &Connection, ended_at: Timestamp) {
        if connection.dial_failure.is_some() {
            self.failed_at = Some(ended_at);
        }
        if Self::is_lost(connection, ended_at) {
            let place = self.lost.partition_point(|known| *known <= ended_at);
            self.lost.insert(place, ended_at);
        } else {
            let moment = connection.opened_at;
            let place = self.brief.partition_point(|(known, _)| *known <= moment);
            self.brief.insert(place, (moment, connection.instance));
        }
        if self.brief.len() > OPENS_MAX {
            self.brief.pop_front();
        }
        if self.lost.len() > OPENS_MAX {
            self.lost.pop_front();
        }
    }

    /// Whether there is something new to be told.
    pub(super) fn look(&mut self, at: Timestamp) -> Option<Told<'_>> {
        self.forget(at);
        if self.storm.is_none() {
            if !self.is_storm(at) {
                self.learn(at);
                return None;
            }
            self.storm = Some(Storm {
                began_at: self.unbroken_since(at),
                told_at: Timestamp::default(),
                instances: BTreeSet::new(),
                opened: 0,
                lost: 0,
                // What came before the pause is no part of it.
                counted_until: self.unbroken_since(at) - Duration::from_nanos(1),
                baseline: self.baseline,
            });
        }
        self.looked_at = Some(at);
        if self.brief.is_empty() {
            self.storm = None;
            return None;
        }
        let lost = self.lost.len() as u64;
        let storm = self.storm.as_mut()?;
        let is_news = storm.goes_on(&self.brief, lost, at);
        is_news.then_some(Told { storm, seen_at: at })
    }

    /// Forgets what is over.
    fn forget(&mut self, at: Timestamp) {
        let is_over = |(moment, _): &(Timestamp, _)| at.since(*moment) > WINDOW;
        while self.brief.front().is_some_and(is_over) {
            self.brief.pop_front();
        }
        // For as long as dials fail, what was lost is still to be replaced.
        let is_failing = self
            .failed_at
            .is_some_and(|failed| at.since(failed) <= WINDOW);
        let is_replaced = |moment: &Timestamp| at.since(*moment) > WINDOW * 3;
        while !is_failing && self.lost.front().is_some_and(is_replaced) {
            self.lost.pop_front();
        }
    }

    /// Opened a second, in the window.
    #[expect(clippy::cast_precision_loss, reason = "counts of connections")]
    fn rate(&self) -> f64 {
        self.brief.len() as f64 / WINDOW.as_secs_f64()
    }

    fn is_storm(&self, at: Timestamp) -> bool {
        let (opened, lost) = (self.brief.len() as u64, self.lost.len() as u64);
        let seconds = self.brief.iter();
        let seconds: BTreeSet<u64> = seconds
            .map(|(moment, _)| at.since(*moment).as_secs())
            .collect();
        opened >= OPENED_MIN
            && opened >= lost.max(1) * AMPLIFICATION_MIN
            && self.rate() > self.baseline * OVER_BASELINE
            && seconds.len() >= SECONDS_MIN
    }

    /// What is usual, while there is no storm.
    fn learn(&mut self, at: Timestamp) {
        // The first that is seen of a source says nothing of what is usual: it may be its storm that begins.
        let passed = self
            .looked_at
            .map_or(Duration::ZERO, |before| at.since(before));
        let passed = passed.min(BASELINE);
        let share = passed.as_secs_f64() / BASELINE.as_secs_f64();
        self.baseline += (self.rate() - self.baseline) * share.min(1.0);
        self.looked_at = Some(at);
    }

    /// When the first was opened since which there was no pause.
    fn unbroken_since(&self, at: Timestamp) -> Timestamp {
        let mut since = at;
        for (moment, _) in self.brief.iter().rev() {
            if since.since(*moment) > PAUSE {
                break;
            }
            since = *moment;
        }
        since
    }
}

impl Storm {
    /// Counts what was opened since; whether that is to be told.
    fn goes_on(
        &mut self,
        brief: &VecDeque<(Timestamp, Option<InstanceId>)>,
        lost: u64,
        at: Timestamp,
    ) -> bool {
        let known = brief.partition_point(|(moment, _)| *moment <= self.counted_until);
        let fresh = brief.range(known..);
        let count = fresh.len() as u64;
        for instance in fresh.filter_map(|(_, instance)| *instance) {
            if self.instances.len() < INSTANCES_MAX {
                self.instances.insert(instance);
            }
        }
        self.opened += count;
        self.counted_until = brief
            .back()
            .map_or(self.counted_until, |(moment, _)| *moment);
        self.lost = self.lost.max(lost);
        if count == 0 || at.since(self.told_at) < TELL_EVERY {
            return false;
        }
        self.told_at = at;
        true
    }
}

impl Told<'_> {
    /// About the one that dials.
    pub(super) fn of_one(
        &self,
        upstream: UpstreamId,
        from: IpAddr,
        client: InstanceId,
        pools: &Pools,
    ) -> Signal {
        let client = Some(client).filter(|id| pools.instance(*id).is_some());
        self.signal(upstream, Some(from), client, Vec::new())
    }

    /// About those of which one or several dial, nobody can tell which.
    pub(super) fn of_any(
        &self,
        upstream: UpstreamId,
        from: Option<IpAddr>,
        clients: impl Iterator<Item = InstanceId>,
        pools: &Pools,
    ) -> Signal {
        let among = clients.filter(|id| pools.instance(*id).is_some());
        self.signal(upstream, from, None, among.collect())
    }

    /// About all that dial; whoever is merely connected is not concerned.
    pub(super) fn of_many(&self, upstream: UpstreamId, pools: &Pools) -> Signal {
        self.of_any(upstream, None, self.storm.instances.iter().copied(), pools)
    }

    fn signal(
        &self,
        upstream: UpstreamId,
        from: Option<IpAddr>,
        instance: Option<InstanceId>,
        among: Vec<InstanceId>,
    ) -> Signal {
        let Self { storm, seen_at } = self;
        Signal {
            at: storm.began_at,
            seen_at: *seen_at,
            subject: Subject {
                upstream,
                instance,
                mongo_client: None,
            },
            among,
            kind: SignalKind::ReconnectBurst {
                from,
                opened: storm.opened,
                lost: storm.lost,
                lasted: seen_at.since(storm.began_at),
                baseline: storm.baseline,
            },
        }
    }
}
