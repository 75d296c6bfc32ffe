//! What silent connections are for, decided from their siblings and from time.
//!
//! The tracker of one connection tells what its own traffic proves. What only siblings can prove is decided
//! here, for all connections of one client instance together, as a pure function of facts and moment.
//!
//! Told roles:
//! - *Round-trip monitor* means: nothing but plain hellos after the handshake. Without a streaming monitor
//!   beside it this is a polling monitor (servers before 4.4, function platforms, old drivers). With a driver
//!   that has no monitors of its own it is a pooled connection that checks the server now and then (Node with
//!   the legacy topology, PHP).
//! - *Unknown* means: only a handshake. Such a connection is one of: a pooled connection opened in advance
//!   (`minPoolSize`) or not used yet; the round-trip monitor before its first hello; a streaming or polling
//!   monitor before its second. The rules for it while it is open, the first that applies:
//!
//! 1. No answer to its handshake yet, not decoded any more, or no `client` metadata (drivers always send it): unknown.
//! 2. The driver says so: Ruby from 2.15 ends `platform` with `A`, `M` or `P`. Drivers without monitors
//!    (Node legacy, PHP, load balanced) have pooled connections only.
//! 3. Its handshake shows it: monitors of PyMongo and Java offer no compressor where the pool does; the pool of
//!    asynchronous PyMongo is named `…|async` and its monitors are not; a hello that announces no credentials where
//!    those of the pool do is a monitor's, and so is a connection that does not authenticate for two seconds after
//!    its hello was answered, where the pool does (monitors of Java 3.x authenticate, too). The habits of the pool
//!    are remembered from the connections that were used.
//! 4. Silent since its hello was answered for longer than a heartbeat and a fifth of it, at least two seconds (12 s
//!    in all unless the client's monitors told another interval): pooled. A monitor would have spoken.
//!    Where streaming monitors still lack their round-trip monitors, one of the silent may be such a monitor that
//!    is late, its process being held up: pooled after three heartbeats only.
//!
//! Otherwise it is unknown.
//!
//! Nothing weaker decides about an open connection, since counters follow from it and must never fall: that all
//! monitors found so far have their round-trip connection says nothing of one that was opened a moment ago, and
//! a monitor is silent for as long as its process is held up.
//!
//! A connection that *ends* undecided is judged a second later, when everything that its client did on other
//! sockets at the same moment has been seen, by best evidence: rules 2 to 4, and then:
//!
//! 5. Its client had lost a monitor within half a minute, or attempted to have another within that time, and none had
//!    been answered when it was opened: it is the next attempt at a monitor. Drivers open pooled connections only to servers that their monitor reached.
//!    Of attempts that fail there is one each half a second, and one more at once after a failure
//!    (`minHeartbeatFrequencyMS`), and of those that are waiting one at a time; what is more, connections that were
//!    waited for before the monitor was lost, is pooled. Rust and Node up to 3.7 wait half a second
//!    after a check that they gave up themselves.
//! 6. Streaming monitors (alive, or ended within five seconds) that were there when it was opened still lack round-trip
//!    monitors: the silent connections opened first are those, as drivers open them with the monitor and the pool after
//!    its first answer. The rest is pooled. A monitor and a round-trip monitor that ended are paired off, so the order in
//!    which a closing client closes does not matter.
//! 7. No streaming monitor is known, or the connection is one of Node's that ended within two seconds, before its
//!    client's own monitor could speak. A polling one is: pooled. None is: the first silent connection of an instance is
//!    its monitor, as a pool presupposes a discovered server. Where clients said goodbye within two seconds (a
//!    `MongoClient` per request, each closed before its monitor spoke: `endSessions` is sent once by each client), each
//!    of them has one monitor: one that showed itself and ended with it, otherwise the nearest that was answered before
//!    (with Node, which may fill its pool first, the next that was opened beside it where there is none); the rest is
//!    pooled.
//!
//! Where handshakes have a count of their own, which tells the processes behind one address apart (Node up to 3.7), all of
//! this is decided for each process by itself: see [`families`].
//!
//! A connection of which not even a handshake was read belongs to nobody's pool: nothing tells whose it was.
//!
//! Sources: Server Monitoring specification § Streaming protocol, § Measuring RTT; Connection Monitoring and
//! Pooling specification § Populating the pool; behaviour of Node 3.6 to 7, PyMongo 4, Go 1.8, Rust 3, Java 3.6
//! and libmongoc 1.23 as captured.

mod departed;
mod ended;
mod families;
mod traits;

use std::collections::VecDeque;
use std::time::Duration;

use super::ConnectionId;
use crate::connection::Role;
use crate::time::Timestamp;

use departed::Departed;
use ended::Ended;
pub(crate) use families::{Departures, Families};
use traits::Habit;
pub(crate) use traits::Traits;

/// A monitor may be late by this part of its interval, and by [`SETTLING`] where that is more: the shortest
/// interval is half a second, and a busy machine delays by more than a part of it.
const SILENCE_TOLERANCE_PART: u32 = 5;

/// Intervals that a round-trip monitor which must be there may have missed, its process being held up, before it
/// is given up for missing.
const MISSED_MAX: u32 = 3;

/// The same for short intervals.
const MISSING_MIN: Duration = Duration::from_secs(12);

/// Node opens the round-trip connection one heartbeat after the monitor; in tenths, with some tolerance.
const DELAYED_ROUND_TRIP_TENTHS: u32 = 9;

/// The end of a monitor may be read so much later than the beginning of the one in its place. Not more: a process that
/// is killed while its pool grows ends everything together.
const REPLACED_WITHIN: Duration = Duration::from_millis(5);

/// A client gives its monitor up within this time after one of its connections broke.
const GIVEN_UP_WITHIN: Duration = Duration::from_millis(100);

/// Monitor and round-trip monitor are opened by two threads, so that either may be first by this much.
const SWAPPED: Duration = Duration::from_millis(100);

/// A streaming monitor has sent its first awaitable hello by then.
const SETTLING: Duration = Duration::from_secs(2);

/// One connection, as its siblings see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sibling {
    pub(crate) id: ConnectionId,
    pub(crate) opened_at: Timestamp,
    /// The role its own traffic proves.
    pub(crate) told: Role,
    /// Its first hello was answered, and what follows is read.
    pub(crate) is_answered: bool,
    /// When that was.
    pub(crate) answered_at: Option<Timestamp>,
    /// It was found to be pooled before, and stays that unless its own traffic proves otherwise.
    pub(crate) was_found_pooled: bool,
    /// It carried more than hellos, or authenticated.
    pub(crate) has_worked: bool,
    /// It carried `endSessions`, which a client that is closed sends once to a server.
    pub(crate) has_said_goodbye: bool,
    /// It was ended, and not by its client.
    pub(crate) is_cut: bool,
    /// How often it asks for changes, where it is a streaming monitor.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) traits: Traits,
}

impl Sibling {
    fn is_streaming(&self) -> bool {
        self.told == Role::Monitor
    }

    fn is_round_trip(&self) -> bool {
        self.told == Role::RoundTripMonitor && self.traits.habit != Habit::NoMonitors
    }

    /// Whether it belongs to a pool, given the role it was found to have. A tool has monitors of its own, so the
    /// name alone does not tell.
    pub(crate) fn is_pooled(&self, role: Role) -> bool {
        match role {
            Role::Application => true,
            Role::Tool => self.has_worked,
            Role::Unknown | Role::Monitor | Role::RoundTripMonitor | Role::Probe | Role::Member => {
                false
            }
        }
    }

    /// Nothing but a handshake of a driver.
    pub(crate) fn is_silent(&self) -> bool {
        self.told == Role::Unknown && self.traits.has_metadata
    }

    fn age(&self, at: Timestamp) -> Duration {
        at.since(self.opened_at)
    }

    /// How long it could have spoken again: its first hello was answered so long ago.
    fn since_answer(&self, at: Timestamp) -> Option<Duration> {
        let answered_at = self.answered_at.filter(|_| self.is_answered)?;
        Some(at.since(answered_at))
    }

    /// Its place among siblings.
    pub(crate) const fn order(&self) -> (Timestamp, ConnectionId) {
        (self.opened_at, self.id)
    }
}

/// Habits of a client's pool, learned from connections that were used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    authenticates: bool,
    announces_credentials: bool,
    offers_compressor: bool,
    is_async: bool,
}

impl Hints {
    /// A connection was proven to be pooled.
    pub(crate) fn pooled(&mut self, traits: Traits) {
        self.authenticates |= traits.has_authenticated;
        self.announces_credentials |= traits.announces_credentials;
        self.offers_compressor |= traits.hides_compressors_on_monitors && traits.offers_compressor;
        self.is_async |= traits.is_async;
    }
}

/// What the connections of one client instance tell of each other, or those of one of its processes.
///
/// Made once for a moment and then asked about many: in a storm of short-lived clients thousands end a second.
#[derive(Debug)]
struct Family {
    hints: Hints,
    /// The interval that has to pass before silence means something: the longest that one of the streaming monitors
    /// told, otherwise the one remembered for their client.
    heartbeat: Duration,
    /// When streaming monitors were opened, ascending.
    streaming: Vec<Timestamp>,
    /// The same of those that repeat bare hellos.
    round_trips: Vec<Timestamp>,
    /// When connections were opened that carried `endSessions`.
    goodbyes: Vec<Timestamp>,
    /// Those that only shook hands, in the order of opening; bounded.
    silent: VecDeque<Sibling>,
}

impl Family {
    /// `siblings` are the open connections, and those of the ended whose role is not decided; in any order.
    fn new<'a>(
        siblings: impl IntoIterator<Item = &'a Sibling>,
        hints: Hints,
        remembered_heartbeat: Duration,
    ) -> Self {
        let mut family = Self {
            hints,
            heartbeat: remembered_heartbeat,
            streaming: Vec::new(),
            round_trips: Vec::new(),
            goodbyes: Vec::new(),
            silent: VecDeque::new(),
        };
        let mut told_heartbeat = None;
        for sibling in siblings {
            if sibling.is_streaming() {
                family.streaming.push(sibling.opened_at);
                told_heartbeat = told_heartbeat.max(sibling.heartbeat);
            } else if sibling.is_round_trip() {
                family.round_trips.push(sibling.opened_at);
            } else if sibling.is_silent() {
                family.silent.push_back(*sibling);
            }
            if sibling.has_said_goodbye {
                family.goodbyes.push(sibling.opened_at);
            }
        }
        family.heartbeat = told_heartbeat.unwrap_or(remembered_heartbeat);
        family.streaming.sort_unstable();
        family.round_trips.sort_unstable();
        let silent = family.silent.make_contiguous();
        silent.sort_unstable_by_key(Sibling::order);
        if family.silent.len() > SILENT_MAX {
            // The oldest are monitors of long-lived clients, the newest those of clients that come and go.
            let newest = family.silent.len() - SILENT_MAX * 3 / 4;
            family.silent.drain(SILENT_MAX / 4..newest);
        }
        family
    }

    /// The role of a sibling that is open.
    fn role(&self, sibling: &Sibling, at: Timestamp) -> Role {
        if sibling.told != Role::Unknown {
            return proven(sibling, !self.streaming.is_empty());
        }
        if !sibling.is_silent() || !sibling.is_answered {
            return Role::Unknown;
        }
        match self.evident(sibling, at) {
            // It shows itself soon, unless it is the round-trip monitor of a client that had lost its monitor.
            Some(Role::Monitor) if self.is_early(sibling) && sibling.traits.declared.is_none() => {
                Role::Unknown
            }
            evident => evident.unwrap_or(Role::Unknown),
        }
    }

    /// The role by which `ending`, which ended `at` this moment, is counted for good.
    fn final_role(&self, ending: &Sibling, departed: &Departed, at: Timestamp) -> Role {
        if ending.told != Role::Unknown {
            return proven(
                ending,
                !self.streaming.is_empty() || departed.streamed_near(at),
            );
        }
        if !ending.is_silent() {
            return Role::Unknown;
        }
        let evident = self.evident(ending, at);
        evident.unwrap_or_else(|| {
            let ended = Ended {
                family: self,
                departed,
                ending,
                at,
            };
            ended.role()
        })
    }

    /// A sibling has ended, and its role is decided.
    fn leave(&mut self, sibling: &Sibling) {
        if sibling.is_silent()
            && let Ok(place) = self
                .silent
                .binary_search_by_key(&sibling.order(), Sibling::order)
        {
            // They are judged in the order of opening, so it is one of the first.
            self.silent.remove(place);
        }
        let own = if sibling.is_streaming() {
            Some(&mut self.streaming)
        } else if sibling.is_round_trip() {
            Some(&mut self.round_trips)
        } else {
            None
        };
        if let Some(own) = own
            && let Ok(position) = own.binary_search(&sibling.opened_at)
        {
            own.remove(position);
        }
        if sibling.has_said_goodbye {
            let mut goodbyes = self.goodbyes.iter();
            if let Some(position) = goodbyes.position(|at| *at == sibling.opened_at) {
                self.goodbyes.swap_remove(position);
            }
        }
    }

    /// Rules 2 to 4.
    fn evident(&self, silent: &Sibling, at: Timestamp) -> Option<Role> {
        let traits = silent.traits;
        if silent.was_found_pooled {
            return Some(Role::Application);
        }
        if traits.declared.is_some() {
            return traits.declared;
        }
        if traits.habit == Habit::NoMonitors
            || traits.is_async
            || (traits.hides_compressors_on_monitors && traits.offers_compressor)
        {
            return Some(Role::Application);
        }
        let is_unlike_pool = (self.hints.offers_compressor && traits.hides_compressors_on_monitors)
            || (self.hints.is_async && traits.is_pymongo)
            || (self.hints.announces_credentials && !traits.announces_credentials)
            || (self.hints.authenticates
                && !traits.has_authenticated
                && silent
                    .since_answer(at)
                    .is_some_and(|passed| passed >= SETTLING));
        if is_unlike_pool {
            // A round-trip monitor may be opened before the monitor that takes the place of one that was lost.
            let is_round_trip = !self.streaming.is_empty() && !self.is_early(silent);
            return Some(if is_round_trip {
                Role::RoundTripMonitor
            } else {
                Role::Monitor
            });
        }
        let tolerance = (self.heartbeat / SILENCE_TOLERANCE_PART).max(SETTLING);
        let silence_max = if self.able_count(silent) > self.round_trips.len() {
            self.heartbeat.saturating_mul(MISSED_MAX).max(MISSING_MIN)
        } else {
            self.heartbeat.saturating_add(tolerance)
        };
        let passed = silent.since_answer(at)?;
        (passed > silence_max).then_some(Role::Application)
    }

    /// When the open monitors were opened. Beside none that streams, bare hellos are those of polling monitors.
    fn watchers(&self) -> &[Timestamp] {
        if self.streaming.is_empty() {
            &self.round_trips
        } else {
            &self.streaming
        }
    }

    /// Streaming monitors that could have opened `silent` as their round-trip connection.
    fn able_count(&self, silent: &Sibling) -> usize {
        self.streaming
            .partition_point(|monitor| self.is_able(*monitor, silent))
    }

    /// A round-trip monitor of the streaming monitors that are there would not be opened yet.
    fn is_early(&self, silent: &Sibling) -> bool {
        silent.traits.habit == Habit::RoundTripLater
            && !self.streaming.is_empty()
            && self.able_count(silent) == 0
    }

    /// A streaming monitor that was opened at this moment could have opened `silent` as its round-trip connection.
    fn is_able(&self, monitor_opened_at: Timestamp, silent: &Sibling) -> bool {
        if silent.traits.habit == Habit::RoundTripLater {
            let delay = self.heartbeat * DELAYED_ROUND_TRIP_TENTHS / 10;
            monitor_opened_at + delay <= silent.opened_at
        } else {
            monitor_opened_at <= silent.opened_at + SWAPPED
        }
    }

    /// Undecided siblings that were opened before `silent`.
    fn undecided_before(&self, silent: &Sibling, at: Timestamp) -> impl Iterator<Item = &Sibling> {
        let own = silent.order();
        let before = self.silent.partition_point(|sibling| sibling.order() < own);
        let before = self.silent.iter().take(before);
        before.filter(move |sibling| self.evident(sibling, at).is_none())
    }

    /// Other undecided siblings that were opened about then.
    fn undecided_near(&self, silent: &Sibling, at: Timestamp) -> impl Iterator<Item = &Sibling> {
        let own = silent.order();
        let (since, until) = (silent.opened_at - SETTLING, silent.opened_at + SETTLING);
        let before = self.silent.partition_point(|one| one.opened_at < since);
        let near = self.silent.iter().skip(before);
        let near = near.take_while(move |one| one.opened_at <= until);
        near.filter(move |one| one.order() != own && self.evident(one, at).is_none())
    }
}

/// Silent siblings that are looked at when one of them has ended.
const SILENT_MAX: usize = 1024;

/// The role a connection's own traffic proves, in the company of its siblings.
fn proven(sibling: &Sibling, has_streaming: bool) -> Role {
    match sibling.told {
        Role::RoundTripMonitor if sibling.traits.habit == Habit::NoMonitors => Role::Application,
        Role::RoundTripMonitor if !has_streaming => Role::Monitor,
        Role::RoundTripMonitor => Role::RoundTripMonitor,
        Role::Unknown
        | Role::Application
        | Role::Monitor
        | Role::Probe
        | Role::Tool
        | Role::Member => sibling.told,
    }
}

#[cfg(test)]
mod tests;
