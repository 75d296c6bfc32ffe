//! Mongo clients: `MongoClient` objects, as far as they can be told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::closings::Circumstances;
use super::sessions::CircleId;
use super::{ClearSign, Connection, InstanceId, Pool, ReadySign, clear, lower};
use crate::clients::numbering::Introduction;
use crate::clients::processes::{ProcessId, are_apart};
use crate::connection::{Initiator, Manner, Role};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, UpstreamId};

/// A driver that cancels a check opens its next monitor within this time, and the monitor has shown itself.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);

/// A client that is closed ends its monitors within this time.
const AT_ONCE: Duration = Duration::from_millis(20);

/// Closed monitors of one mongo client that are looked at.
const REPLACED_MAX: usize = 64;

/// A mongo client's number, rising in order of first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MongoClientId(pub u64);

/// What joined the connections of a mongo client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Joined {
    /// They carried common logical sessions.
    Sessions,
    /// They were opened around the same monitor.
    Monitors,
    /// Nothing tells them apart from others of their instance.
    Metadata,
}

impl Joined {
    /// The word of the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Monitors => "monitors",
            Self::Metadata => "metadata",
        }
    }
}

/// Something inferred, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inferred<T> {
    /// What.
    pub value: T,
    /// From 0 (a guess) to 1 (proven).
    pub confidence: f64,
    /// What it is concluded from.
    pub basis: Basis,
}

/// What a setting of a pool is concluded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// Every connection was in use for so long, and it did not grow.
    Saturated(Duration),
    /// It was filled to that size so often with connections that nobody had asked for.
    FilledUp(u32),
    /// Its client closed so many connections that were idle for about the same time.
    ClosedIdle {
        /// How many.
        closes: u32,
        /// The shortest time.
        shortest: Duration,
        /// The longest.
        longest: Duration,
    },
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturated(lasted) => write!(
                f,
                "every connection was in use for {:.1} s, and it did not grow",
                lasted.as_secs_f64()
            ),
            Self::FilledUp(times) => write!(
                f,
                "filled up to that with connections nobody had asked for, {times} times"
            ),
            Self::ClosedIdle {
                closes,
                shortest,
                longest,
            } => write!(
                f,
                "{closes} connections were closed by their client after {:.1} to {:.1} s without use",
                shortest.as_secs_f64(),
                longest.as_secs_f64()
            ),
        }
    }
}

/// One `MongoClient` object of an instance.
#[derive(Clone, Debug)]
pub struct MongoClient {
    /// Its number.
    pub id: MongoClientId,
    /// Whose it is.
    pub instance: InstanceId,
    /// Its first connection was opened.
    pub created_at: Timestamp,
    /// It was closed: said goodbye, or all its connections went.
    pub closed_at: Option<Timestamp>,
    /// What tells it apart.
    pub joined: Joined,
    /// From 0 (a guess) to 1 (proven).
    pub confidence: f64,
    /// Its monitors that are open.
    pub monitors: BTreeSet<ConnectionId>,
    /// Its pools, one a server. A node of the map has room for eleven, and most have one to three: boxes keep it small.
    pub pools: BTreeMap<UpstreamId, Box<Pool>>,
    /// It said that it is being closed (`endSessions`).
    pub said_goodbye_at: Option<Timestamp>,
    /// The sessions that are its own.
    pub(super) home: Option<CircleId>,
    /// Who watches each server for it.
    pub(super) watches: BTreeMap<UpstreamId, Watch>,
    /// Monitors that it closed itself, and when: whether it closes altogether, time tells.
    replaced: Vec<Replaced>,
    /// Its process, where its driver's requests tell.
    pub(super) process: Option<ProcessId>,
    /// How its process introduced a connection last, where it counts request ids.
    pub(super) last_introduction: Option<Introduction>,
    /// When the newest end of its connections was, and whether that was its own will.
    pub(super) last_end: Option<(Timestamp, bool)>,
    /// When something else than itself ended one of its connections last.
    broken_at: Option<Timestamp>,
    /// When it closed the last of its connections.
    left_at: Option<Timestamp>,
    /// Its monitors that ended last.
    quit: Quit,
    /// No other mongo client of its instance was open when that was looked at last.
    pub(super) is_alone: bool,
}

/// Monitors of a client that ended at once.
#[derive(Clone, Copy, Debug, Default)]
struct Quit {
    /// When the last of them did.
    at: Timestamp,
    has_monitor: bool,
    has_round_trip: bool,
    /// One had failed: it got no answer, or was not closed by its client.
    has_failed: bool,
}

impl Quit {
    fn add(&mut self, monitor: &Connection, at: Timestamp) {
        if at.since(self.at) > AT_ONCE {
            *self = Self::default();
        }
        self.at = at;
        self.has_monitor |= monitor.found == Role::Monitor;
        self.has_round_trip |= monitor.found == Role::RoundTripMonitor;
        self.has_failed |= monitor.is_overdue() || !monitor.was_closed_by_choice();
    }
}

/// A monitor that its client closed.
#[derive(Clone, Copy, Debug)]
struct Replaced {
    upstream: UpstreamId,
    at: Timestamp,
    /// The newest pooled connection at that moment; `None` when the server's side had ended all.
    newest: Option<ConnectionId>,
    /// It was reset rather than closed: by something on the way.
    is_reset: bool,
    /// A pooled connection was ended by the server's side after that: a client that closes does that itself.
    has_lost: bool,
}

/// One mongo client's monitors of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// The streaming or polling monitor that is open.
    pub(super) monitor: Option<ConnectionId>,
    /// When the first of them was opened.
    pub(super) since: Timestamp,
    /// The lowest `requestID` that introduced one of them, where the process counts.
    pub(super) first_request_id: Option<i32>,
    /// When the last of them ended.
    pub(super) lost_at: Option<Timestamp>,
    /// The round-trip monitor that is open.
    pub(super) round_trip: Option<ConnectionId>,
    /// When the newest of the former was opened.
    renewed_at: Timestamp,
    /// The highest `requestID` of those that ended, where each monitor counts for itself.
    counted: Option<i32>,
}

impl Watch {
    /// The connection may be the next of the same monitor, by what it has counted.
    pub(super) fn may_be_continued_by(&self, monitor: &Connection) -> bool {
        !monitor.monitors_count_apart || monitor.first_request_id > self.counted
    }

    /// A monitor ended.
    fn lost(&mut self, monitor: &Connection) {
        self.lost_at = monitor.ended.map(|end| end.at);
        if monitor.monitors_count_apart {
            let newest = monitor.first_request_id.max(Some(monitor.last.request_id));
            self.counted = self.counted.max(newest);
        }
    }
}

impl MongoClient {
    pub(super) fn new(id: MongoClientId, instance: InstanceId, at: Timestamp) -> Self {
        Self {
            id,
            instance,
            created_at: at,
            closed_at: None,
            joined: Joined::Metadata,
            confidence: 0.0,
            monitors: BTreeSet::new(),
            pools: BTreeMap::new(),
            said_goodbye_at: None,
            home: None,
            watches: BTreeMap::new(),
            replaced: Vec::new(),
            process: None,
            last_introduction: None,
            last_end: None,
            broken_at: None,
            left_at: None,
            quit: Quit::default(),
            is_alone: false,
        }
    }

    /// It was not closed.
    pub const fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// Another process opened the connection, as far as request ids tell.
    pub(super) fn is_foreign(&self, connection: &Connection) -> bool {
        are_apart(self.process, connection.process)
    }

    /// Its open pooled connections, to all servers.
    pub fn pooled_open(&self) -> usize {
        self.pools.values().map(|pool| pool.open.len()).sum()
    }

    /// Its monitor of this server is open.
    pub(super) fn is_watching(&self, upstream: UpstreamId) -> bool {
        self.watches
            .get(&upstream)
            .is_some_and(|watch| watch.monitor.is_some())
    }

    /// A connection became its own.
    pub(super) fn take(&mut self, connection: &mut Connection) {
        connection.mongo_client = Some(self.id);
        self.created_at = self.created_at.min(connection.opened_at);
        self.process = self.process.or(connection.process);
        self.last_introduction = self.last_introduction.max(connection.introduction());
        let is_open = connection.is_open();
        if is_open {
            self.closed_at = None;
        }
        if connection.found.is_monitor() {
            // A driver has a pool for each server it watches, if an empty one.
            let pool = self.pools.entry(connection.upstream).or_default();
            pool.answered(connection.hello_answered_at, ReadySign::Check);
            let watch = self.watches.entry(connection.upstream).or_insert(Watch {
                since: connection.opened_at,
                ..Watch::default()
            });
            let introduced = connection.introduction().map(|one| one.request_id);
            watch.first_request_id = lower(watch.first_request_id, introduced);
            let place = if connection.found == Role::Monitor {
                &mut watch.monitor
            } else {
                &mut watch.round_trip
            };
            if is_open {
                *place = Some(connection.id);
                if connection.found == Role::Monitor {
                    watch.renewed_at = connection.opened_at;
                }
                self.monitors.insert(connection.id);
            } else if connection.found == Role::Monitor && watch.monitor.is_none() {
                watch.lost(connection);
            }
        } else {
            let pool = self.pools.entry(connection.upstream).or_default();
            pool.answered(connection.hello_answered_at, ReadySign::Connection);
            pool.enter(connection);
        }
        if let Some(goodbye) = connection.said_goodbye_at {
            self.said_goodbye_at = self.said_goodbye_at.max(Some(goodbye));
        }
        self.see_end(connection);
    }

    /// What was taken for its monitor of a server measures round trips. False when it was not taken for that.
    pub(super) fn correct(&mut self, upstream: UpstreamId, monitor: ConnectionId) -> bool {
        let Some(watch) = self.watches.get_mut(&upstream) else {
            return false;
        };
        if watch.monitor != Some(monitor) {
            return false;
        }
        watch.monitor = None;
        watch.round_trip.get_or_insert(monitor);
        true
    }

    /// A connection turned out to be another's.
    pub(super) fn yield_up(&mut self, connection: &mut Connection) {
        connection.mongo_client = None;
        self.monitors.remove(&connection.id);
        if let Some(watch) = self.watches.get_mut(&connection.upstream) {
            let is_it = |held: &mut ConnectionId| *held == connection.id;
            watch.monitor.take_if(is_it);
            watch.round_trip.take_if(is_it);
        }
        if let Some(pool) = self.pools.get_mut(&connection.upstream) {
            pool.disown(connection);
        }
    }

    /// One of its connections ended.
    pub(super) fn ended(&mut self, connection: &mut Connection, at: Timestamp) {
        if self.monitors.remove(&connection.id) {
            self.quit.add(connection, at);
        }
        if let Some(watch) = self.watches.get_mut(&connection.upstream) {
            let is_it = |held: &mut ConnectionId| *held == connection.id;
            if watch.monitor.take_if(is_it).is_some() {
                watch.lost(connection);
                let pool = self.pools.get(&connection.upstream);
                let newest = pool.and_then(|pool| pool.open.last()).copied();
                let is_reset = connection.ended.is_some_and(|end| {
                    end.ending.manner == Manner::Reset && end.ending.initiator == Initiator::Client
                });
                // A check is cancelled when the next use of a connection finds it dead.
                let found_dead = newest.is_none()
                    && self
                        .last_end
                        .is_some_and(|(at, is_own)| !is_own || self.broken_at >= Some(at))
                    && pool.is_some_and(|pool| pool.created > 0);
                if (newest.is_some() || is_reset || found_dead)
                    && !connection.is_overdue()
                    && self.replaced.len() < REPLACED_MAX
                {
                    self.replaced.push(Replaced {
                        upstream: connection.upstream,
                        at,
                        newest,
                        is_reset,
                        has_lost: false,
                    });
                }
            }
            watch.round_trip.take_if(is_it);
        }
        if let Some(pool) = self.pools.get_mut(&connection.upstream) {
            pool.ended(connection, at);
        }
        self.see_end(connection);
        let is_own = !connection.was_broken();
        if is_own && self.monitors.is_empty() && self.pooled_open() == 0 {
            self.left_at = Some(at);
        } else if !is_own && connection.is_pooled() {
            for one in &mut self.replaced {
                one.has_lost |= one.upstream == connection.upstream;
            }
        }
    }

    /// When it closed all its monitors at once, and what measures round trips with them, although none had failed and
    /// nothing was broken: it is being closed, and what is pooled goes once it has been answered.
    pub(super) fn quit_at(&self) -> Option<Timestamp> {
        let quit = self.quit;
        let is_in_trouble = self
            .broken_at
            .is_some_and(|at| quit.at.since(at) <= REPLACED_WITHIN)
            || self.pools.values().any(|pool| pool.is_cleared());
        let are_gone = self.monitors.is_empty() && quit.has_monitor && quit.has_round_trip;
        (are_gone && !quit.has_failed && !is_in_trouble).then_some(quit.at)
    }

    /// What was opened at `opened_at` is none of its monitors, since it was being closed by then.
    pub(super) fn had_quit(&self, opened_at: Timestamp) -> bool {
        self.quit_at().is_some_and(|quit_at| quit_at < opened_at)
    }

    /// Servers of which a monitor is open.
    pub(super) fn watched(&self) -> BTreeSet<UpstreamId> {
        let watches = self.watches.iter();
        watches
            .filter(|(_, watch)| watch.monitor.is_some())
            .map(|(upstream, _)| *upstream)
            .collect()
    }

    /// Takes in what turned out to be the same.
    pub(super) fn absorb(&mut self, other: Self) {
        self.created_at = self.created_at.min(other.created_at);
        if other.closed_at.is_none() {
            self.closed_at = None;
        }
        self.said_goodbye_at = self.said_goodbye_at.max(other.said_goodbye_at);
        self.last_end = self.last_end.max(other.last_end);
        self.process = self.process.or(other.process);
        self.last_introduction = self.last_introduction.max(other.last_introduction);
        self.monitors.extend(other.monitors);
        for (upstream, watch) in other.watches {
            let own = self.watches.entry(upstream).or_insert(watch);
            own.monitor = own.monitor.or(watch.monitor);
            own.round_trip = own.round_trip.or(watch.round_trip);
            own.since = own.since.min(watch.since);
            own.first_request_id = lower(own.first_request_id, watch.first_request_id);
        }
        for (upstream, pool) in other.pools {
            self.pools.entry(upstream).or_default().absorb(*pool);
        }
    }

    /// Says what tells it apart, and how sure that is.
    pub(super) fn rate(&mut self, is_alone: bool) {
        self.is_alone = is_alone;
        let is_pooled = self.has_pooled();
        (self.joined, self.confidence) = match (self.home, self.watches.is_empty()) {
            (Some(_), false) => (Joined::Sessions, if is_alone { 0.99 } else { 0.95 }),
            (Some(_), true) => (Joined::Sessions, if is_alone { 0.9 } else { 0.8 }),
            (None, false) if is_alone || !is_pooled => (Joined::Monitors, 0.95),
            (None, false) => (Joined::Monitors, 0.7),
            (None, true) => (Joined::Metadata, if is_alone { 0.6 } else { 0.4 }),
        };
    }

    /// It opened or opens pooled connections.
    pub(super) fn has_pooled(&self) -> bool {
        self.pools.values().any(|pool| pool.created > 0)
    }

    /// A sign that its pool was cleared; on a pooled connection, with the moment it was opened.
    pub(super) fn sign(
        &mut self,
        upstream: UpstreamId,
        at: Timestamp,
        sign: ClearSign,
        opened_at: Option<Timestamp>,
    ) {
        if let Some(pool) = self.pools.get_mut(&upstream) {
            clear::sign(&mut pool.clears, at, sign);
            pool.signs.add(opened_at, at);
        }
    }

    /// Explains what it did, once that can be told. True when something is left to explain.
    pub(super) fn explain(&mut self, at: Timestamp) -> bool {
        let is_due = |one: &mut Replaced| at.since(one.at) >= REPLACED_WITHIN;
        let replaced: Vec<Replaced> = self.replaced.extract_if(.., is_due).collect();
        for one in replaced {
            // A client that closes keeps nothing. Without monitor it is still about to.
            let pool = self.pools.get(&one.upstream);
            let has_kept = match one.newest {
                Some(newest) => one.has_lost || pool.is_some_and(|pool| pool.has_kept(newest)),
                None => true,
            };
            let renewed_at = self
                .watches
                .get(&one.upstream)
                .map(|watch| watch.renewed_at);
            let is_replaced = self.is_watching(one.upstream) && self.said_goodbye_at.is_none();
            if is_replaced && (has_kept || one.is_reset) {
                let sign = if one.is_reset {
                    ClearSign::MonitorReset
                } else {
                    ClearSign::MonitorReplaced
                };
                self.sign(one.upstream, one.at, sign, None);
                let pool = self.pools.get_mut(&one.upstream);
                if let (Some(pool), Some(renewed_at)) = (pool, renewed_at) {
                    let sign = ReadySign::NewMonitor;
                    // The end of the old one may be read after the new one was accepted.
                    let renewed_at = renewed_at.max(one.at);
                    clear::succeeded(&mut pool.clears, renewed_at, renewed_at, sign);
                }
            }
        }
        let is_left = self.pooled_open() > 0 || !self.monitors.is_empty();
        let circumstances = Circumstances {
            said_goodbye_at: self.said_goodbye_at,
            closed_at: self
                .closed_at
                .filter(|_| self.last_end.is_some_and(|(_, is_own)| is_own)),
            is_undecided: !is_left && self.is_open() && self.said_goodbye_at.is_none(),
            left_at: self.left_at.filter(|left_at| {
                let broken_at = self.broken_at;
                broken_at.is_none_or(|broken_at| left_at.since(broken_at) > REPLACED_WITHIN)
            }),
            may_have_cleared_at: None,
        };
        let mut is_open_question = !self.replaced.is_empty();
        for (upstream, pool) in &mut self.pools {
            let cancelled = self.replaced.iter();
            let cancelled = cancelled.filter(|one| one.upstream == *upstream);
            let circumstances = Circumstances {
                may_have_cleared_at: cancelled.map(|one| one.at).min(),
                ..circumstances
            };
            pool.explain(circumstances, at);
            is_open_question |= !pool.closings.is_empty();
        }
        is_open_question
    }

    fn see_end(&mut self, connection: &Connection) {
        if let Some(end) = connection.ended {
            if connection.was_broken() {
                self.broken_at = self.broken_at.max(Some(end.at));
            }
            let newest = self.last_end.is_none_or(|(at, _)| at <= end.at);
            if newest {
                self.last_end = Some((end.at, end.is_by_client()));
            }
        }
    }
}
