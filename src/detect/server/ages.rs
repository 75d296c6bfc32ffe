//! Connections that end at one age: a time-out of the client, or something between that forgets what is idle.
//!
//! ```text
//!        last reply      request        end
//! ──────────┼───────────────┼────────────┼──▶
//!           └─── pause ─────┘└─ waited ──┘       a request was unanswered
//!           └──────────── idle ──────────┘       none was
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::{Detector, Taken};
use super::heard::Heard;
use super::thresholds::{
    AGES_WINDOW, CUTOFF_SPREAD, EQUAL_AGES_MIN, PAUSE_MIN, SETTING_EARLY_MS, SETTING_LATE_MS,
    SETTING_STEP_MS, SILENCE, TIMEOUT_MIN, TIMEOUT_SPREAD, TOLD_EVERY,
};
use super::{Signal, SignalKind, about_upstream, is_of_a_client};
use crate::connection::{Initiator, Manner, Role};
use crate::pools::{Connection, End, Instance, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, UpstreamId};

/// Ends that are remembered.
const KEPT_MAX: usize = 2048;

/// Episodes that are told apart.
const EPISODES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Ages {
    recent: VecDeque<Aged>,
    episodes: BTreeMap<Key, Episode>,
    is_news: bool,
    looked_at: Timestamp,
    heard: Heard,
    /// Connections whose first request after a pause hangs.
    hung: BTreeSet<ConnectionId>,
}

/// An end with its age.
#[derive(Clone, Copy, Debug)]
struct Aged {
    at: Timestamp,
    upstream: UpstreamId,
    instance: Option<InstanceId>,
    way: Way,
    /// What is compared.
    age: Duration,
    pause: Duration,
    in_flight: bool,
    is_unacknowledged: bool,
    /// A legacy pool, which a single wave of time-outs may destroy, waited for as long as somebody would set.
    is_setting: bool,
}

/// In which way a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The server's side closed it while it was idle; compared by the time it was.
    CutIdle,
    /// It was reset on its first use after a pause; the pause counts.
    CutAtUse,
    /// Its client gave up waiting, or (Node 3.x) closed it at the same age without waiting; compared by that age.
    TimedOut,
    /// Its client gave up, or still waits, on its first use after a pause, while others were answered.
    Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    upstream: UpstreamId,
    instance: Option<InstanceId>,
    way: Way,
}

#[derive(Debug)]
struct Episode {
    began_at: Timestamp,
    told: usize,
}

impl Detector for Ages {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        self.heard.record(entry, connection);
        if let Fact::Ended(_) = &entry.fact {
            let was_hung = self.hung.remove(&connection.id);
            if let Some(aged) = aged(connection, pools)
                && !was_hung
            {
                self.remember(aged);
            }
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        if at.since(self.looked_at) >= TOLD_EVERY {
            self.looked_at = at;
            self.find_hung(at, pools);
        }
        if !std::mem::take(&mut self.is_news) {
            return;
        }
        while self
            .recent
            .front()
            .is_some_and(|aged| at.since(aged.at) > AGES_WINDOW)
        {
            self.recent.pop_front();
        }
        let keys: BTreeSet<Key> = self.recent.iter().map(Aged::key).collect();
        self.episodes.retain(|key, _| keys.contains(key));
        for key in keys {
            self.tell(key, at, signals);
        }
    }
}

/// Whether it carries work of an application.
fn carries_work(connection: &Connection) -> bool {
    is_of_a_client(connection)
        && (connection.role == Role::Application || connection.last.operations > 0)
}

/// Node's legacy pool applies `socketTimeoutMS` to idle connections as well. It has no `maxIdleTimeMS`, but it may
/// be closing altogether.
fn times_out_when_idle(connection: &Connection, pools: &Pools) -> bool {
    is_legacy(connection, pools)
        && !pools
            .connections()
            .any(|other| other.instance == connection.instance && other.said_goodbye_at.is_some())
}

/// The age of a connection that ended, where it tells something.
fn aged(connection: &Connection, pools: &Pools) -> Option<Aged> {
    let end: End = connection.ended?;
    if !carries_work(connection) || connection.said_goodbye_at.is_some() {
        return None;
    }
    let last = &connection.last;
    let pause = connection.pause();
    let waited = last.busy_since.map_or(Duration::ZERO, |since| {
        end.at.since(since.max(last.from_server_at))
    });
    let idle = connection.idle_age(end.at);
    // Node's timer begins again with each write, and its legacy pool writes on while it waits.
    let waited = if is_legacy(connection, pools) {
        waited.min(idle)
    } else {
        waited
    };
    let in_flight = end.was_in_flight();
    let is_reset = matches!(end.ending.manner, Manner::Reset | Manner::TimedOut);
    let (way, age) = match end.ending.initiator {
        Initiator::Server if !in_flight && idle >= PAUSE_MIN => (Way::CutIdle, idle),
        Initiator::Server if in_flight && is_reset && pause >= PAUSE_MIN && waited < PAUSE_MIN => {
            (Way::CutAtUse, pause)
        }
        Initiator::Client if in_flight && waited >= TIMEOUT_MIN => {
            // Where the host has the request, nothing between has forgotten the connection.
            if pause >= PAUSE_MIN && connection.is_unacknowledged() != Some(false) {
                (Way::Forgotten, waited)
            } else {
                (Way::TimedOut, waited)
            }
        }
        Initiator::Client
            if !in_flight && idle >= TIMEOUT_MIN && times_out_when_idle(connection, pools) =>
        {
            (Way::TimedOut, idle)
        }
        Initiator::Client | Initiator::Server | Initiator::Proxy => return None,
    };
    Some(Aged {
        at: end.at,
        upstream: connection.upstream,
        instance: connection.instance,
        way,
        age,
        pause,
        in_flight,
        is_unacknowledged: connection.is_unacknowledged() == Some(true),
        is_setting: in_flight && is_setting(age) && is_legacy(connection, pools),
    })
}

/// Settings are round; timers are late by some milliseconds. What was written is seen a little later than it was.
const fn is_setting(age: Duration) -> bool {
    age.as_secs() > 0
        && (age.subsec_millis() + SETTING_EARLY_MS) % SETTING_STEP_MS <= SETTING_LATE_MS
}

/// Most ended at the age that is set; others went down with the pool, later and before their time.
fn are_a_setting(like: &[&&Aged]) -> bool {
    let due = || like.iter().filter(|aged| aged.is_setting);
    let first = due().map(|aged| aged.at).min();
    let shortest = due().map(|aged| aged.age).min();
    let is_early = |aged: &Aged| Some(aged.at) >= first && Some(aged.age) < shortest;
    due().count() * 2 > like.len() && like.iter().all(|aged| aged.is_setting || is_early(aged))
}

fn is_legacy(connection: &Connection, pools: &Pools) -> bool {
    let instance = connection.instance.and_then(|id| pools.instance(id));
    instance.is_some_and(Instance::has_legacy_pool)
}

impl Aged {
    fn key(&self) -> Key {
        Key {
            upstream: self.upstream,
            // Time-outs are a setting of one application; cut-offs concern whoever pauses.
            instance: self.instance.filter(|_| self.way == Way::TimedOut),
            way: self.way,
        }
    }
}

impl Ages {
    fn remember(&mut self, aged: Aged) {
        self.recent.push_back(aged);
        if self.recent.len() > KEPT_MAX {
            self.recent.pop_front();
        }
        self.is_news = true;
    }

    /// A driver without a time-out never gives up on a connection that was forgotten.
    fn find_hung(&mut self, at: Timestamp, pools: &Pools) {
        for connection in pools.connections() {
            let last = &connection.last;
            let Some(since) = last.busy_since else {
                continue;
            };
            let pause = connection.pause();
            let others_heard = self.heard.last(connection.upstream) > since + SILENCE;
            if connection.is_open()
                && carries_work(connection)
                && connection.is_unacknowledged() == Some(true)
                && pause >= PAUSE_MIN
                && at.since(since) >= PAUSE_MIN
                && others_heard
                && self.hung.len() < KEPT_MAX
                && self.hung.insert(connection.id)
            {
                self.remember(Aged {
                    at: since,
                    upstream: connection.upstream,
                    instance: connection.instance,
                    way: Way::Forgotten,
                    age: at.since(since),
                    pause,
                    in_flight: true,
                    is_unacknowledged: true,
                    is_setting: false,
                });
            }
        }
    }

    fn tell(&mut self, key: Key, at: Timestamp, signals: &mut Vec<Signal>) {
        let all: Vec<&Aged> = self
            .recent
            .iter()
            .filter(|aged| aged.key() == key)
            .collect();
        let Some(newest) = all.last() else {
            return;
        };
        let spread = match key.way {
            Way::CutIdle => CUTOFF_SPREAD,
            Way::TimedOut => TIMEOUT_SPREAD,
            // A pause has no upper bound, and neither has a wait without a time-out.
            Way::CutAtUse | Way::Forgotten => Duration::MAX,
        };
        let like: Vec<&&Aged> = all
            .iter()
            .filter(|aged| aged.age.abs_diff(newest.age) <= spread)
            .collect();
        let least = match key.way {
            Way::CutIdle | Way::TimedOut => EQUAL_AGES_MIN,
            Way::CutAtUse | Way::Forgotten => 1,
        };
        let known = self.episodes.get(&key).map_or(0, |episode| episode.told);
        if like.len() < least || like.len() == known {
            return;
        }
        // What began in one moment and ended in one has one age, whoever ended it: a time-out strikes again.
        let newest_at = newest.at;
        let strikes_again = like
            .iter()
            .any(|aged| newest_at.since(aged.at) >= TIMEOUT_MIN);
        let is_setting = are_a_setting(&like);
        if key.way == Way::TimedOut && !strikes_again && !is_setting {
            return;
        }
        let Some(first) = like.iter().map(|aged| aged.at).min() else {
            return;
        };
        if self.episodes.len() >= EPISODES_MAX && !self.episodes.contains_key(&key) {
            return;
        }
        let episode = self.episodes.entry(key).or_insert(Episode {
            began_at: first,
            told: 0,
        });
        episode.told = like.len();
        let ages = || like.iter().map(|aged| aged.age);
        let (shortest, longest) = (
            ages().min().unwrap_or_default(),
            ages().max().unwrap_or_default(),
        );
        let waiting = || like.iter().filter(|aged| aged.in_flight);
        let instances: BTreeSet<InstanceId> =
            like.iter().filter_map(|aged| aged.instance).collect();
        let kind = SignalKind::EqualIdleAge {
            age: shortest,
            spread: longest.saturating_sub(shortest),
            closed: like.len() as u64,
            in_flight: waiting().count() as u64,
            by_server: matches!(key.way, Way::CutIdle | Way::CutAtUse),
            at_first_use: matches!(key.way, Way::CutAtUse | Way::Forgotten),
            pauses: waiting()
                .map(|aged| aged.pause)
                .min()
                .zip(waiting().map(|aged| aged.pause).max()),
            is_unacknowledged: like.iter().any(|aged| aged.is_unacknowledged),
        };
        // Those that lost nothing had no pause, or have nothing to do with it.
        let signal = about_upstream(key.upstream, episode.began_at, at, kind);
        signals.push(signal.among(&instances, usize::MAX));
    }
}
