//! Clients that dial without pause.
//!
//! A pool that grows opens connections and uses them; a pool that was cleared opens as many as it lost. A storm opens
//! many times that, and what it opens does not last.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Subject};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, UpstreamId};

/// Connections opened within this are counted.
const WINDOW: Duration = Duration::from_secs(5);

/// What lasts for less has not been a connection worth the name.
const BRIEF: Duration = Duration::from_secs(2);

/// Brief connections in the window that are a storm.
const OPENED_MIN: u64 = 25;

/// Opened for each that was lost.
const AMPLIFICATION_MIN: u64 = 3;

/// Opened per second, compared with the time before.
const OVER_BASELINE: f64 = 4.0;

/// Seconds of the window in which connections were opened: it goes on without pause.
const SECONDS_MIN: usize = 4;

/// Time over which the baseline forgets.
const BASELINE: Duration = Duration::from_mins(2);

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Sources watched.
const SOURCES_MAX: usize = 4096;

/// Connections of one source in the window.
const OPENS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Storms {
    sources: BTreeMap<(IpAddr, UpstreamId), Source>,
}

#[derive(Debug, Default)]
struct Source {
    instance: Option<InstanceId>,
    /// When connections were opened that ended soon, the oldest first.
    brief: VecDeque<Timestamp>,
    /// When connections were lost that had lasted.
    lost: VecDeque<Timestamp>,
    /// Brief connections a second, outside of storms.
    baseline: f64,
    looked_at: Timestamp,
    storm: Option<Storm>,
}

#[derive(Debug)]
struct Storm {
    began_at: Timestamp,
    told_at: Timestamp,
    opened: u64,
    lost: u64,
    counted_until: Timestamp,
    baseline: f64,
}

impl Detector for Storms {
    fn record(&mut self, entry: &Entry, pools: &Pools, _signals: &mut Vec<Signal>) {
        let Fact::Ended(_) = &entry.fact else {
            return;
        };
        let Some(connection) = pools.connection(entry.connection) else {
            return;
        };
        let key = (connection.peer.ip().to_canonical(), connection.upstream);
        let lasted = entry.at.since(connection.opened_at);
        if !counts(connection) {
            return;
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&key) {
            self.sources.pop_first();
        }
        let source = self.sources.entry(key).or_default();
        source.instance = connection.instance.or(source.instance);
        let queue = if lasted < BRIEF {
            &mut source.brief
        } else {
            &mut source.lost
        };
        let place = queue.partition_point(|moment| *moment <= connection.opened_at);
        if lasted < BRIEF {
            queue.insert(place, connection.opened_at);
        } else {
            queue.push_back(entry.at);
        }
        if queue.len() > OPENS_MAX {
            queue.pop_front();
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for ((_, upstream), source) in &mut self.sources {
            source.look(at, *upstream, pools, signals);
        }
        self.sources.retain(|_, source| {
            source.storm.is_some()
                || !source.brief.is_empty()
                || !source.lost.is_empty()
                || source.baseline > 0.01
        });
    }
}

/// Neither a probe nor a client that says goodbye, as those do that are made for a request.
fn counts(connection: &Connection) -> bool {
    let has_spoken = connection.introduced_at.is_some() || connection.dial_failure.is_some();
    let is_foreign = matches!(
        connection.role,
        crate::connection::Role::Tool | crate::connection::Role::Member
    );
    // A client that was made for a request has done some work.
    let has_worked = connection.last.operations > 0 && connection.dialled_at.is_some();
    has_spoken
        && !is_foreign
        && connection.said_goodbye_at.is_none()
        && !(has_worked && is_clean(connection))
}

fn is_clean(connection: &Connection) -> bool {
    connection.ended.is_some_and(|end| {
        end.ending.initiator == crate::connection::Initiator::Client && !end.was_in_flight()
    })
}

impl Source {
    fn look(
        &mut self,
        at: Timestamp,
        upstream: UpstreamId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        while self
            .brief
            .front()
            .is_some_and(|moment| at.since(*moment) > WINDOW)
        {
            self.brief.pop_front();
        }
        while self
            .lost
            .front()
            .is_some_and(|moment| at.since(*moment) > WINDOW * 3)
        {
            self.lost.pop_front();
        }
        let opened = self.brief.len() as u64;
        let lost = self.lost.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "counts of connections")]
        let rate = opened as f64 / WINDOW.as_secs_f64();
        let seconds: std::collections::BTreeSet<u64> = self
            .brief
            .iter()
            .map(|moment| at.since(*moment).as_secs())
            .collect();
        let is_storm = opened >= OPENED_MIN
            && opened >= lost.max(1) * AMPLIFICATION_MIN
            && rate > self.baseline * OVER_BASELINE
            && seconds.len() >= SECONDS_MIN;
        if self.storm.is_none() {
            if !is_storm {
                let passed = at.since(self.looked_at).min(BASELINE);
                let share = passed.as_secs_f64() / BASELINE.as_secs_f64();
                self.baseline += (rate - self.baseline) * share.min(1.0);
                self.looked_at = at;
                return;
            }
            self.storm = Some(Storm {
                began_at: self.brief.front().copied().unwrap_or(at),
                told_at: Timestamp::default(),
                opened: 0,
                lost,
                counted_until: Timestamp::default(),
                baseline: self.baseline,
            });
        }
        self.looked_at = at;
        let Some(storm) = &mut self.storm else {
            return;
        };
        if opened == 0 {
            self.storm = None;
            return;
        }
        let until = storm.counted_until;
        let fresh = self.brief.iter().filter(|moment| **moment > until).count();
        storm.opened += fresh as u64;
        storm.counted_until = self.brief.back().copied().unwrap_or(until);
        storm.lost = storm.lost.max(lost);
        if fresh == 0 || at.since(storm.told_at) < TELL_EVERY {
            return;
        }
        storm.told_at = at;
        let instance = self.instance.filter(|id| pools.instance(*id).is_some());
        signals.push(Signal {
            at: storm.began_at,
            seen_at: at,
            subject: Subject {
                upstream,
                instance,
                mongo_client: None,
            },
            kind: SignalKind::ReconnectBurst {
                opened: storm.opened,
                lost: storm.lost,
                lasted: at.since(storm.began_at),
                baseline: storm.baseline,
            },
        });
    }
}
