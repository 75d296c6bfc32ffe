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
//!   monitor before its second. The rules for it, the first that applies:
//!
//! 1. No answer to its handshake yet, or no `client` metadata (drivers always send it): unknown.
//! 2. The driver says so: Ruby from 2.15 ends `platform` with `A`, `M` or `P`. Drivers without monitors
//!    (Node legacy, PHP, load balanced) have pooled connections only.
//! 3. Its handshake shows it: monitors of PyMongo and Java offer no compressor where the pool does; the pool of
//!    asynchronous PyMongo is named `…|async` and its monitors are not; monitors never authenticate where the
//!    pool does. The habits of the pool are remembered from the connections that were used.
//! 4. Older than 1.2 heartbeats: pooled. A monitor would have spoken.
//! 5. Younger than two seconds: unknown. A streaming monitor speaks only then (Node: half a second later).
//! 6. Every streaming monitor already has its round-trip monitor, or cannot have one yet (Node opens it one
//!    heartbeat after the monitor): pooled.
//! 7. Otherwise unknown until rule 4 decides.
//!
//! A connection that *ends* undecided is counted by best evidence, rules 2 to 4, and then:
//!
//! 8. Streaming monitors (alive, or ended within five seconds) still lack round-trip monitors: the silent
//!    connections opened first are those, as drivers open them with the monitor and the pool after its first
//!    answer. The rest is pooled. A monitor and a round-trip monitor that ended are paired off, so the order in
//!    which a closing client closes does not matter.
//! 9. No streaming monitor is known. A polling one is: pooled. None is: the first silent connection of an
//!    instance is its monitor, as a pool presupposes a discovered server; as many later ones that opened within
//!    two seconds of it are monitors as there are used connections from that time (a `MongoClient` per request,
//!    each closed before its monitor spoke); the rest is pooled.
//!
//! Sources: Server Monitoring specification § Streaming protocol, § Measuring RTT; Connection Monitoring and
//! Pooling specification § Populating the pool; behaviour of Node 3.6 to 7, PyMongo 4, Go 1.8, Rust 3, Java 3.6
//! and libmongoc 1.23 as captured.

use std::collections::VecDeque;
use std::time::Duration;

use super::ConnectionId;
use crate::connection::{ClientMetadata, Role};
use crate::time::Timestamp;

/// A monitor that has not spoken by then never will; in tenths of its interval.
const SILENCE_MAX_TENTHS: u32 = 12;

/// Node opens the round-trip connection one heartbeat after the monitor; in tenths, with some tolerance.
const DELAYED_ROUND_TRIP_TENTHS: u32 = 9;

/// A streaming monitor has sent its first awaitable hello by then.
const SETTLING: Duration = Duration::from_secs(2);

/// A closing client has closed everything within this time (PyMongo's monitor follows half a second later).
const DEPARTURE: Duration = Duration::from_secs(5);

/// Departed connections remembered for one client.
const DEPARTED_MAX: usize = 256;

/// How a driver watches servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Habit {
    /// No metadata, or a driver nobody knows.
    #[default]
    Unknown,
    /// No dedicated monitors.
    NoMonitors,
    /// A round-trip connection together with the streaming one.
    RoundTripAtOnce,
    /// A round-trip connection one heartbeat after the streaming one.
    RoundTripLater,
}

/// What a handshake tells about the use of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    habit: Habit,
    has_metadata: bool,
    /// What the driver itself says, where it does.
    declared: Option<Role>,
    /// The driver's monitors offer no compressor even where its pool does.
    hides_compressors_on_monitors: bool,
    offers_compressor: bool,
    is_pymongo: bool,
    is_async: bool,
    pub(super) has_authenticated: bool,
}

impl Traits {
    /// Reads the traits from handshake metadata.
    pub(super) fn of(metadata: &ClientMetadata) -> Self {
        let name = metadata.driver_name.as_str();
        let is_pymongo = name.starts_with("PyMongo");
        let is_java = name.starts_with("mongo-java-driver");
        let has_metadata = !name.is_empty();
        Self {
            habit: if has_metadata {
                habit(metadata)
            } else {
                Habit::Unknown
            },
            has_metadata,
            declared: declared(metadata),
            hides_compressors_on_monitors: is_pymongo || is_java,
            offers_compressor: !metadata.compressors_offered.is_empty(),
            is_pymongo,
            is_async: is_pymongo && name.split('|').any(|part| part == "async"),
            has_authenticated: false,
        }
    }

    /// These traits, and whether `known` had authenticated.
    pub(super) fn with_authentication_of(mut self, known: Self) -> Self {
        self.has_authenticated = known.has_authenticated;
        self
    }

    /// Whether the number of monitors says anything about the number of clients.
    pub(super) fn has_monitors(self) -> bool {
        matches!(self.habit, Habit::RoundTripAtOnce | Habit::RoundTripLater)
    }

    /// Whether the driver is known to have no monitors.
    pub(super) fn lacks_monitors(self) -> bool {
        self.habit == Habit::NoMonitors
    }
}

fn habit(metadata: &ClientMetadata) -> Habit {
    let name = metadata.driver_name.as_str();
    if metadata.load_balanced {
        return Habit::NoMonitors;
    }
    if name.starts_with("nodejs")
        || name.starts_with("mongodb-core")
        || name.starts_with("mongo-node")
    {
        return node_habit(metadata);
    }
    if name.contains("ext-mongodb:PHP") {
        return Habit::NoMonitors;
    }
    let families = [
        "PyMongo",
        "mongo-java-driver",
        "mongo-go-driver",
        "mongo-rust-driver",
        "mongo-csharp-driver",
        "mongo-ruby-driver",
        "mongoc",
    ];
    if families.iter().any(|family| name.starts_with(family)) {
        Habit::RoundTripAtOnce
    } else {
        Habit::Unknown
    }
}

/// Node has dedicated monitors from 3.5 on, and up to 3.7 only with the unified topology; its `platform` names
/// the topology (always from 3.5 on), or the version of `mongodb-core` up to 3.2.
fn node_habit(metadata: &ClientMetadata) -> Habit {
    let is_legacy =
        metadata.platform.contains("(legacy)") || metadata.platform.contains("mongodb-core");
    // A wrapper may have put its own version first; a chain of two versions ends with the driver's.
    let version = metadata
        .driver_version
        .split('|')
        .next()
        .unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let major = numbers.next().flatten();
    let minor = numbers.next().flatten();
    let is_old = match (major, minor) {
        (Some(0..=2), _) => true,
        (Some(3), Some(minor)) => minor < 5,
        _ => false,
    };
    if is_legacy || is_old {
        Habit::NoMonitors
    } else {
        Habit::RoundTripLater
    }
}

fn declared(metadata: &ClientMetadata) -> Option<Role> {
    if !metadata.driver_name.starts_with("mongo-ruby-driver") {
        return None;
    }
    match metadata.platform.rsplit_once(", ")?.1 {
        "A" => Some(Role::Application),
        "M" | "P" => Some(Role::Monitor),
        _ => None,
    }
}

/// One connection, as its siblings see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sibling {
    pub(super) id: ConnectionId,
    pub(super) opened_at: Timestamp,
    /// The role its own traffic proves.
    pub(super) told: Role,
    /// Its first hello was answered.
    pub(super) is_answered: bool,
    pub(super) traits: Traits,
}

impl Sibling {
    fn is_streaming(&self) -> bool {
        self.told == Role::Monitor
    }

    fn is_round_trip(&self) -> bool {
        self.told == Role::RoundTripMonitor && self.traits.habit != Habit::NoMonitors
    }

    /// Nothing but a handshake of a driver.
    fn is_silent(&self) -> bool {
        self.told == Role::Unknown && self.traits.has_metadata
    }

    fn age(&self, at: Timestamp) -> Duration {
        at.since(self.opened_at)
    }
}

/// Habits of a client's pool, learned from connections that were used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    authenticates: bool,
    offers_compressor: bool,
    is_async: bool,
}

impl Hints {
    /// A connection was proven to be pooled.
    pub(super) fn pooled(&mut self, traits: Traits) {
        self.authenticates |= traits.has_authenticated;
        self.offers_compressor |= traits.hides_compressors_on_monitors && traits.offers_compressor;
        self.is_async |= traits.is_async;
    }
}

/// Monitors that ended a moment ago and were not paired off yet. Bounded; entries expire.
#[derive(Debug, Default)]
pub(super) struct Departed {
    streaming: VecDeque<Timestamp>,
    round_trip: VecDeque<Timestamp>,
    polling: VecDeque<Timestamp>,
    /// Opening times of used connections that ended.
    used: VecDeque<Timestamp>,
    /// Opening times of connections that ended silent and were counted as monitors under rule 9.
    silent_monitors: VecDeque<Timestamp>,
    /// When the newest entry of the two above was made.
    newest: Timestamp,
}

impl Departed {
    /// Forgets what ended too long ago.
    pub(super) fn expire(&mut self, at: Timestamp) {
        for ended in [&mut self.streaming, &mut self.round_trip, &mut self.polling] {
            while ended
                .front()
                .is_some_and(|ended| at.since(*ended) > DEPARTURE)
            {
                ended.pop_front();
            }
        }
        if at.since(self.newest) > DEPARTURE {
            self.used.clear();
            self.silent_monitors.clear();
        }
    }

    /// A connection with this final role ended.
    pub(super) fn ended(&mut self, connection: &Sibling, role: Role, at: Timestamp) {
        self.expire(at);
        match role {
            Role::Monitor if connection.is_streaming() => {
                if self.round_trip.pop_front().is_none() {
                    remember(&mut self.streaming, at);
                }
            }
            Role::Monitor if connection.told == Role::Unknown => {
                remember(&mut self.silent_monitors, connection.opened_at);
                self.newest = at;
            }
            Role::Monitor => remember(&mut self.polling, at),
            Role::RoundTripMonitor => {
                if self.streaming.pop_front().is_none() {
                    remember(&mut self.round_trip, at);
                }
            }
            Role::Application if connection.told == Role::Application => {
                remember(&mut self.used, connection.opened_at);
                self.newest = at;
            }
            Role::Unknown | Role::Application | Role::Probe | Role::Tool | Role::Member => {}
        }
    }
}

fn remember(times: &mut VecDeque<Timestamp>, at: Timestamp) {
    if times.len() >= DEPARTED_MAX {
        times.pop_front();
    }
    times.push_back(at);
}

/// Everything a decision is made from.
#[derive(Debug)]
pub(super) struct Family<'a> {
    /// All open connections of one client instance, in any order.
    pub(super) siblings: &'a [Sibling],
    pub(super) hints: Hints,
    pub(super) heartbeat: Duration,
    pub(super) at: Timestamp,
}

impl Family<'_> {
    /// The roles of all siblings at this moment, in their order.
    pub(super) fn roles(&self) -> Vec<Role> {
        let streaming: Vec<Timestamp> = self.streaming().collect();
        let round_trips = self.round_trip_count();
        self.siblings
            .iter()
            .map(|sibling| {
                if sibling.told != Role::Unknown {
                    return proven(sibling, !streaming.is_empty());
                }
                if !sibling.is_silent() || !sibling.is_answered {
                    return Role::Unknown;
                }
                if let Some(role) = self.evident(sibling, !streaming.is_empty()) {
                    return role;
                }
                if sibling.age(self.at) < SETTLING {
                    return Role::Unknown;
                }
                let able = self.able_count(sibling, &streaming);
                if !streaming.is_empty() && able <= round_trips {
                    Role::Application
                } else {
                    Role::Unknown
                }
            })
            .collect()
    }

    /// The role by which `ending`, one of the siblings, is counted for good.
    pub(super) fn final_role(&self, ending: &Sibling, departed: &Departed) -> Role {
        let mut streaming: Vec<Timestamp> = self.streaming().collect();
        if ending.told != Role::Unknown {
            let has_streaming = !streaming.is_empty() || !departed.streaming.is_empty();
            return proven(ending, has_streaming);
        }
        if !ending.is_silent() {
            return Role::Unknown;
        }
        if let Some(role) = self.evident(ending, !streaming.is_empty()) {
            return role;
        }
        // How long a departed monitor had lived is not known; it may have had its round-trip connection.
        streaming.extend(departed.streaming.iter().map(|_| Timestamp::default()));
        if streaming.is_empty() && departed.round_trip.is_empty() {
            return self.without_streaming(ending, departed);
        }
        let taken = self.round_trip_count() + departed.round_trip.len();
        let lacking = self.able_count(ending, &streaming).saturating_sub(taken);
        if self.silent_before(ending) < lacking {
            Role::RoundTripMonitor
        } else {
            Role::Application
        }
    }

    /// Rule 9.
    fn without_streaming(&self, ending: &Sibling, departed: &Departed) -> Role {
        let has_polling = self.siblings.iter().any(Sibling::is_round_trip);
        if has_polling || !departed.polling.is_empty() {
            return Role::Application;
        }
        let is_near = |opened_at: &Timestamp| {
            opened_at
                .since(ending.opened_at)
                .max(ending.opened_at.since(*opened_at))
                <= SETTLING
        };
        let used_now = self
            .siblings
            .iter()
            .filter(|sibling| sibling.told == Role::Application)
            .filter(|sibling| is_near(&sibling.opened_at))
            .count();
        let used = used_now + departed.used.iter().filter(|used| is_near(used)).count();
        let earlier = departed
            .silent_monitors
            .iter()
            .filter(|opened_at| is_near(opened_at))
            .count();
        if earlier + self.silent_before(ending) < used.max(1) {
            Role::Monitor
        } else {
            Role::Application
        }
    }

    /// Rules 2 to 4.
    fn evident(&self, silent: &Sibling, has_streaming: bool) -> Option<Role> {
        let traits = silent.traits;
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
            || (self.hints.authenticates && silent.age(self.at) >= SETTLING);
        if is_unlike_pool {
            return Some(if has_streaming {
                Role::RoundTripMonitor
            } else {
                Role::Monitor
            });
        }
        let silence_max = self.heartbeat * SILENCE_MAX_TENTHS / 10;
        (silent.age(self.at) > silence_max).then_some(Role::Application)
    }

    /// When the streaming monitors that are alive were opened.
    fn streaming(&self) -> impl Iterator<Item = Timestamp> {
        self.siblings
            .iter()
            .filter(|sibling| sibling.is_streaming())
            .map(|sibling| sibling.opened_at)
    }

    fn round_trip_count(&self) -> usize {
        self.siblings
            .iter()
            .filter(|sibling| sibling.is_round_trip())
            .count()
    }

    /// Streaming monitors that could have opened `silent` as their round-trip connection.
    fn able_count(&self, silent: &Sibling, streaming: &[Timestamp]) -> usize {
        let delay = if silent.traits.habit == Habit::RoundTripLater {
            self.heartbeat * DELAYED_ROUND_TRIP_TENTHS / 10
        } else {
            Duration::ZERO
        };
        streaming
            .iter()
            .filter(|monitor| delay.is_zero() || silent.opened_at >= **monitor + delay)
            .count()
    }

    /// Undecided siblings that were opened before `silent`.
    fn silent_before(&self, silent: &Sibling) -> usize {
        self.siblings
            .iter()
            .filter(|sibling| sibling.is_silent())
            .filter(|sibling| (sibling.opened_at, sibling.id) < (silent.opened_at, silent.id))
            .filter(|sibling| self.evident(sibling, true).is_none())
            .count()
    }
}

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

/// Whether a connection with this role belongs to a pool.
pub(super) const fn is_pooled(role: Role) -> bool {
    matches!(role, Role::Application | Role::Tool)
}
