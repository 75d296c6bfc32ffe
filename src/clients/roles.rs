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
//!    asynchronous PyMongo is named `…|async` and its monitors are not; monitors never authenticate where the
//!    pool does. The habits of the pool are remembered from the connections that were used.
//! 4. Older than a heartbeat and a fifth of it, at least two seconds (12 s in all unless the client's monitors
//!    told another interval): pooled. A monitor would have spoken.
//!    Where streaming monitors still lack their round-trip monitors, one of the silent may be such a monitor that
//!    is late, its process being held up: pooled after three heartbeats only.
//! 5. Otherwise unknown.
//!
//! Nothing weaker decides about an open connection, since counters follow from it and must never fall: that all
//! monitors found so far have their round-trip connection says nothing of one that was opened a moment ago, and
//! a monitor is silent for as long as its process is held up.
//!
//! A connection that *ends* undecided is judged a second later, when everything that its client did on other
//! sockets at the same moment has been seen, by best evidence: rules 2 to 4, and then:
//!
//! 6. Streaming monitors (alive, or ended within five seconds) still lack round-trip monitors: the silent
//!    connections opened first are those, as drivers open them with the monitor and the pool after its first
//!    answer. The rest is pooled. A monitor and a round-trip monitor that ended are paired off, so the order in
//!    which a closing client closes does not matter.
//! 7. No streaming monitor is known, or the connection is one of Node's that ended within two seconds, before its
//!    client's own monitor could speak. A polling one is: pooled. None is: the
//!    first silent connection of an instance is its monitor, as a pool presupposes a discovered server; of those
//!    opened within two seconds of it as many are monitors, those that spoke included, as clients said goodbye (a `MongoClient` per request,
//!    each closed before its monitor spoke: `endSessions` is sent once by each client); the rest is pooled.
//!
//! A connection of which not even a handshake was read belongs to nobody's pool: nothing tells whose it was.
//!
//! Sources: Server Monitoring specification § Streaming protocol, § Measuring RTT; Connection Monitoring and
//! Pooling specification § Populating the pool; behaviour of Node 3.6 to 7, PyMongo 4, Go 1.8, Rust 3, Java 3.6
//! and libmongoc 1.23 as captured.

use std::collections::VecDeque;
use std::time::Duration;

use super::ConnectionId;
use crate::connection::{ClientMetadata, Role};
use crate::time::Timestamp;

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
pub(crate) struct Traits {
    habit: Habit,
    has_metadata: bool,
    /// What the driver itself says, where it does.
    declared: Option<Role>,
    /// The driver's monitors offer no compressor even where its pool does.
    hides_compressors_on_monitors: bool,
    offers_compressor: bool,
    is_pymongo: bool,
    is_async: bool,
    pub(crate) has_authenticated: bool,
}

impl Traits {
    /// Reads the traits from handshake metadata.
    pub(crate) fn of(metadata: &ClientMetadata) -> Self {
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
    pub(crate) fn with_authentication_of(mut self, known: Self) -> Self {
        self.has_authenticated = known.has_authenticated;
        self
    }

    /// Whether the number of monitors says anything about the number of clients.
    pub(crate) fn has_monitors(self) -> bool {
        matches!(self.habit, Habit::RoundTripAtOnce | Habit::RoundTripLater)
    }

    /// Whether the driver is known to have no monitors.
    pub(crate) fn lacks_monitors(self) -> bool {
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
pub(crate) struct Sibling {
    pub(crate) id: ConnectionId,
    pub(crate) opened_at: Timestamp,
    /// The role its own traffic proves.
    pub(crate) told: Role,
    /// Its first hello was answered, and what follows is read.
    pub(crate) is_answered: bool,
    /// It was found to be pooled before, and stays that unless its own traffic proves otherwise.
    pub(crate) was_found_pooled: bool,
    /// It carried more than hellos, or authenticated.
    pub(crate) has_worked: bool,
    /// It carried `endSessions`, which a client that is closed sends once to a server.
    pub(crate) has_said_goodbye: bool,
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
}

/// Habits of a client's pool, learned from connections that were used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hints {
    authenticates: bool,
    offers_compressor: bool,
    is_async: bool,
}

impl Hints {
    /// A connection was proven to be pooled.
    pub(crate) fn pooled(&mut self, traits: Traits) {
        self.authenticates |= traits.has_authenticated;
        self.offers_compressor |= traits.hides_compressors_on_monitors && traits.offers_compressor;
        self.is_async |= traits.is_async;
    }
}

/// Monitors that ended a moment ago and were not paired off yet. Bounded; entries expire.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    /// When each ended, and when it was opened.
    streaming: VecDeque<(Timestamp, Timestamp)>,
    round_trip: VecDeque<Timestamp>,
    polling: VecDeque<Timestamp>,
    /// When the last streaming monitor ended, paired off or not.
    streamed_at: Option<Timestamp>,
    /// Opening times of ended connections that had carried `endSessions`.
    goodbyes: VecDeque<Timestamp>,
    /// Opening times of connections that ended silent and were counted as monitors under rule 7.
    silent_monitors: VecDeque<Timestamp>,
    /// When the newest entry of the two above was made.
    newest: Timestamp,
}

impl Departed {
    /// Forgets what ended too long ago.
    pub(crate) fn expire(&mut self, at: Timestamp) {
        let is_over = |ended: &Timestamp| at.since(*ended) > DEPARTURE;
        while self
            .streaming
            .front()
            .is_some_and(|(ended, _)| is_over(ended))
        {
            self.streaming.pop_front();
        }
        for ended in [&mut self.round_trip, &mut self.polling] {
            while ended.front().is_some_and(is_over) {
                ended.pop_front();
            }
        }
        if self.streamed_at.is_some_and(|ended| is_over(&ended)) {
            self.streamed_at = None;
        }
        if at.since(self.newest) > DEPARTURE {
            self.goodbyes.clear();
            self.silent_monitors.clear();
        }
    }

    /// A connection with this final role ended.
    pub(crate) fn ended(&mut self, connection: &Sibling, role: Role, at: Timestamp) {
        self.expire(at);
        match role {
            Role::Monitor if connection.is_streaming() => {
                self.streamed_at = Some(at);
                if self.round_trip.pop_front().is_none() {
                    remember(&mut self.streaming, (at, connection.opened_at));
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
            Role::Application if connection.has_said_goodbye => {
                remember(&mut self.goodbyes, connection.opened_at);
                self.newest = at;
            }
            Role::Unknown | Role::Application | Role::Probe | Role::Tool | Role::Member => {}
        }
    }
}

fn remember<T>(entries: &mut VecDeque<T>, entry: T) {
    if entries.len() >= DEPARTED_MAX {
        entries.pop_front();
    }
    entries.push_back(entry);
}

/// Everything a decision is made from.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    /// All open connections of one client instance, in any order.
    pub(crate) siblings: &'a [Sibling],
    pub(crate) hints: Hints,
    pub(crate) heartbeat: Duration,
    pub(crate) at: Timestamp,
}

impl Family<'_> {
    /// The roles of all siblings at this moment, in their order.
    pub(crate) fn roles(&self) -> Vec<Role> {
        let streaming = self.streaming();
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
                self.evident(sibling, &streaming, round_trips)
                    .unwrap_or(Role::Unknown)
            })
            .collect()
    }

    /// The role by which `ending`, one of the siblings, is counted for good.
    pub(crate) fn final_role(&self, ending: &Sibling, departed: &Departed) -> Role {
        let mut streaming = self.streaming();
        if ending.told != Role::Unknown {
            let has_streaming = !streaming.is_empty() || !departed.streaming.is_empty();
            return proven(ending, has_streaming);
        }
        if !ending.is_silent() {
            return Role::Unknown;
        }
        if let Some(role) = self.evident(ending, &streaming, self.round_trip_count()) {
            return role;
        }
        streaming.extend(departed.streaming.iter().map(|(_, opened_at)| *opened_at));
        streaming.sort_unstable();
        let has_streamed = departed.streamed_at.is_some() || !departed.round_trip.is_empty();
        if streaming.is_empty() && !has_streamed {
            return self.by_goodbyes(ending, departed, &streaming);
        }
        let taken = self.round_trip_count() + departed.round_trip.len();
        let lacking = self.able_count(ending, &streaming).saturating_sub(taken);
        let before = self
            .silent_before(ending)
            .filter(|sibling| self.able_count(sibling, &streaming) > 0);
        if before.count() < lacking {
            return Role::RoundTripMonitor;
        }
        let may_be_monitor =
            ending.traits.habit == Habit::RoundTripLater && ending.age(self.at) < SETTLING;
        if may_be_monitor {
            return self.by_goodbyes(ending, departed, &streaming);
        }
        Role::Application
    }

    /// Rule 7.
    fn by_goodbyes(&self, ending: &Sibling, departed: &Departed, streaming: &[Timestamp]) -> Role {
        // Beside a streaming monitor plain hellos are those of a round-trip monitor.
        let has_polling =
            self.streaming().is_empty() && self.siblings.iter().any(Sibling::is_round_trip);
        if has_polling || !departed.polling.is_empty() {
            return Role::Application;
        }
        let leaving = self
            .siblings
            .iter()
            .filter(|sibling| sibling.has_said_goodbye)
            .filter(|sibling| is_near(sibling.opened_at, ending))
            .count();
        let left = departed
            .goodbyes
            .iter()
            .filter(|opened_at| is_near(**opened_at, ending))
            .count();
        let clients = (leaving + left).max(1);
        let earlier = departed
            .silent_monitors
            .iter()
            .chain(streaming)
            .filter(|opened_at| is_near(**opened_at, ending))
            .count();
        if earlier + self.silent_before(ending).count() < clients {
            Role::Monitor
        } else {
            Role::Application
        }
    }

    /// Rules 2 to 4.
    fn evident(
        &self,
        silent: &Sibling,
        streaming: &[Timestamp],
        round_trips: usize,
    ) -> Option<Role> {
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
            || (self.hints.authenticates && silent.age(self.at) >= SETTLING);
        if is_unlike_pool {
            return Some(if streaming.is_empty() {
                Role::Monitor
            } else {
                Role::RoundTripMonitor
            });
        }
        let tolerance = (self.heartbeat / SILENCE_TOLERANCE_PART).max(SETTLING);
        let silence_max = if self.able_count(silent, streaming) > round_trips {
            self.heartbeat.saturating_mul(MISSED_MAX).max(MISSING_MIN)
        } else {
            self.heartbeat.saturating_add(tolerance)
        };
        (silent.age(self.at) > silence_max).then_some(Role::Application)
    }

    /// When the streaming monitors that are alive were opened, ascending.
    fn streaming(&self) -> Vec<Timestamp> {
        let streaming = self.siblings.iter().filter(|one| one.is_streaming());
        let mut opened_at: Vec<Timestamp> = streaming.map(|one| one.opened_at).collect();
        opened_at.sort_unstable();
        opened_at
    }

    fn round_trip_count(&self) -> usize {
        self.siblings
            .iter()
            .filter(|sibling| sibling.is_round_trip())
            .count()
    }

    /// Streaming monitors (opened at these moments, ascending) that could have opened `silent` as their
    /// round-trip connection.
    fn able_count(&self, silent: &Sibling, streaming: &[Timestamp]) -> usize {
        if silent.traits.habit != Habit::RoundTripLater {
            return streaming.len();
        }
        let delay = self.heartbeat * DELAYED_ROUND_TRIP_TENTHS / 10;
        streaming.partition_point(|monitor| *monitor + delay <= silent.opened_at)
    }

    /// Undecided siblings that were opened before `silent`.
    fn silent_before(&self, silent: &Sibling) -> impl Iterator<Item = &Sibling> {
        let own = (silent.opened_at, silent.id);
        let streaming = self.streaming();
        let round_trips = self.round_trip_count();
        self.siblings
            .iter()
            .filter(|sibling| sibling.is_silent())
            .filter(move |sibling| (sibling.opened_at, sibling.id) < own)
            .filter(move |sibling| self.evident(sibling, &streaming, round_trips).is_none())
    }
}

/// Whether something was opened at about the time of `connection`.
fn is_near(opened_at: Timestamp, connection: &Sibling) -> bool {
    let later = opened_at.since(connection.opened_at);
    let earlier = connection.opened_at.since(opened_at);
    later.max(earlier) <= SETTLING
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

/// The interval that has to pass before silence means something: the longest that a streaming monitor among
/// `siblings` told, otherwise the one remembered for their client.
pub(crate) fn heartbeat(siblings: &[Sibling], remembered: Duration) -> Duration {
    siblings
        .iter()
        .filter(|sibling| sibling.is_streaming())
        .filter_map(|sibling| sibling.heartbeat)
        .max()
        .unwrap_or(remembered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Compressor;

    const HEARTBEAT: Duration = Duration::from_secs(10);

    fn milli(millis: u64) -> Timestamp {
        Timestamp::default() + Duration::from_millis(millis)
    }

    fn metadata(driver: &str) -> ClientMetadata {
        let (name, version, platform) = match driver {
            "node6" => ("nodejs", "6.22.0", "Node.js v18, LE"),
            "node36" => (
                "nodejs|Mongoose",
                "3.6.12|5.13",
                "'Node.js v18, LE (unified)",
            ),
            "legacy" => ("nodejs", "3.6.12", "'Node.js v18, LE (legacy)"),
            "rust" => ("mongo-rust-driver", "3.9.1", "rustc 1.90"),
            "pymongo" => ("PyMongo|c", "4.20.0|", "CPython 3.11"),
            "async" => ("PyMongo|c|async", "4.20.0||", "CPython 3.11"),
            "php" => ("mongoc / ext-mongodb:PHP ", "1.23.1 / 1.15", "PHP 8.2"),
            "ruby-pool" => ("mongo-ruby-driver", "2.20.0", "Ruby 3.2, x86_64, A"),
            "ruby-push" => ("mongo-ruby-driver", "2.20.0", "Ruby 3.2, x86_64, P"),
            _ => ("", "", ""),
        };
        ClientMetadata {
            driver_name: name.to_owned(),
            driver_version: version.to_owned(),
            platform: platform.to_owned(),
            ..ClientMetadata::default()
        }
    }

    fn sibling(driver: &str, id: u64, opened_ms: u64, told: Role) -> Sibling {
        Sibling {
            id: ConnectionId(id),
            opened_at: milli(opened_ms),
            told,
            is_answered: true,
            was_found_pooled: false,
            has_worked: told == Application,
            has_said_goodbye: false,
            heartbeat: None,
            traits: Traits::of(&metadata(driver)),
        }
    }

    /// Connections of one driver, opened at these milliseconds, with these told roles.
    fn siblings(driver: &str, members: &[(u64, Role)]) -> Vec<Sibling> {
        let members = members.iter().zip(1..);
        members
            .map(|((opened_ms, told), id)| sibling(driver, id, *opened_ms, *told))
            .collect()
    }

    fn family(siblings: &[Sibling], at: Timestamp) -> Family<'_> {
        let mut hints = Hints::default();
        let pooled = siblings.iter().filter(|one| one.told == Application);
        pooled.for_each(|one| hints.pooled(one.traits));
        Family {
            siblings,
            hints,
            heartbeat: HEARTBEAT,
            at,
        }
    }

    use Role::{Application, Monitor, RoundTripMonitor as RoundTrip, Unknown};

    fn check_live(driver: &str, at_ms: u64, members: &[(u64, Role)], expected: &[Role]) {
        let siblings = siblings(driver, members);
        assert_eq!(
            family(&siblings, milli(at_ms)).roles(),
            expected,
            "{driver}"
        );
    }

    /// All members end at `at_ms`, in every rotation of their order and backwards; the number counted as
    /// pooled must not depend on it.
    fn check_closed(driver: &str, at_ms: u64, members: &[(u64, Role)], pooled: usize) {
        check_ended(driver, at_ms, &siblings(driver, members), pooled);
    }

    /// The same with a goodbye on each used connection.
    fn check_left(driver: &str, at_ms: u64, members: &[(u64, Role)], pooled: usize) {
        let mut all = siblings(driver, members);
        for one in &mut all {
            one.has_said_goodbye = one.told == Application;
        }
        check_ended(driver, at_ms, &all, pooled);
    }

    fn check_ended(driver: &str, at_ms: u64, all: &[Sibling], pooled: usize) {
        let hints = family(all, milli(at_ms)).hints;
        for start in 0..all.len() {
            for is_backwards in [false, true] {
                let mut open = all.to_vec();
                open.rotate_left(start);
                if is_backwards {
                    open.reverse();
                }
                let mut departed = Departed::default();
                let mut counted = 0;
                while let Some(ending) = open.first().copied() {
                    let family = Family {
                        siblings: &open,
                        hints,
                        heartbeat: HEARTBEAT,
                        at: milli(at_ms),
                    };
                    let role = family.final_role(&ending, &departed);
                    departed.ended(&ending, role, milli(at_ms));
                    counted += usize::from(ending.is_pooled(role));
                    open.remove(0);
                }
                assert_eq!(counted, pooled, "{driver} from {start}, {is_backwards}");
            }
        }
    }

    #[test]
    fn connections_opened_in_advance_are_pooled_after_a_silent_heartbeat() {
        let members = [(0, Monitor), (50, Unknown), (90, Unknown), (95, Unknown)];
        check_live(
            "rust",
            5000,
            &members,
            &[Monitor, Unknown, Unknown, Unknown],
        );
        let members = [(0, Monitor), (50, RoundTrip), (90, Unknown), (95, Unknown)];
        check_live(
            "rust",
            10_100,
            &members,
            &[Monitor, RoundTrip, Unknown, Unknown],
        );
        check_live(
            "rust",
            12_096,
            &members,
            &[Monitor, RoundTrip, Application, Application],
        );
    }

    #[test]
    fn node_opens_its_round_trip_connection_one_heartbeat_later() {
        let members = [(0, Monitor), (60, Unknown), (9990, Unknown)];
        check_live("node6", 5000, &members[..2], &[Monitor, Unknown]);
        check_live("node6", 12_100, &members, &[Monitor, Application, Unknown]);
        check_closed("node6", 5000, &members[..2], 1);
        check_closed("node6", 11_000, &members, 1);
        check_closed("node36", 11_000, &members, 1);
        // Its own monitor speaks half a second after its handshake.
        check_live("node6", 400, &[(0, Unknown)], &[Unknown]);
    }

    #[test]
    fn a_pool_closed_before_anyone_spoke_is_counted_whatever_the_order() {
        let with_pool = [(0, Monitor), (40, Unknown), (80, Unknown), (81, Unknown)];
        check_closed("rust", 3000, &with_pool, 2);
        let used = [
            (0, Monitor),
            (40, Unknown),
            (80, Application),
            (81, Unknown),
        ];
        check_closed("rust", 3000, &used, 2);
        let two_clients = [
            (0, Monitor),
            (1, Unknown),
            (100, Monitor),
            (101, Unknown),
            (200, Application),
            (201, Application),
        ];
        check_closed("rust", 3000, &two_clients, 2);
        let told = [(0, Monitor), (40, RoundTrip), (80, Unknown), (81, Unknown)];
        check_closed("rust", 3000, &told, 2);
    }

    #[test]
    fn clients_closed_before_their_monitor_spoke_have_one_monitor_each() {
        check_closed("node6", 300, &[(0, Unknown), (20, Application)], 1);
        let concurrent = [
            (0, Unknown),
            (1, Unknown),
            (20, Application),
            (21, Application),
        ];
        // One client whose process was killed: what its pool opened in advance is no monitor.
        check_closed("node6", 300, &concurrent, 3);
        // Two clients, each of which said goodbye.
        check_left("node6", 300, &concurrent, 2);
        let with_pool = [
            (0, Unknown),
            (20, Application),
            (21, Unknown),
            (22, Unknown),
        ];
        check_closed("node6", 300, &with_pool, 3);
    }

    #[test]
    fn a_short_lived_client_beside_a_long_lived_one_has_its_own_monitor() {
        let open = [
            sibling("node6", 1, 0, Monitor),
            sibling("node6", 2, 60, Application),
            sibling("node6", 3, 10_000, RoundTrip),
            sibling("node6", 4, 60_000, Unknown),
            sibling("node6", 5, 60_020, Application),
        ];
        let family = family(&open, milli(60_300));
        assert_eq!(family.final_role(&open[3], &Departed::default()), Monitor);
    }

    #[test]
    fn clients_one_after_the_other_have_one_monitor_each() {
        let mut departed = Departed::default();
        for round in 0..50 {
            let start = round * 400;
            let mut open = [
                sibling("node6", 2 * round, start, Unknown),
                sibling("node6", 2 * round + 1, start + 20, Application),
            ];
            open[1].has_said_goodbye = true;
            let at = milli(start + 300);
            let monitor = family(&open, at).final_role(&open[0], &departed);
            departed.ended(&open[0], monitor, at);
            assert_eq!(monitor, Monitor, "round {round}");
            departed.ended(&open[1], Application, at);
        }
    }

    #[test]
    fn some_monitors_speak_before_their_client_is_closed_and_some_do_not() {
        let mut departed = Departed::default();
        for round in 0..20 {
            let start = round * 700;
            let spoke = if round % 2 == 0 { Monitor } else { Unknown };
            let mut open = [
                sibling("node6", 2 * round, start, spoke),
                sibling("node6", 2 * round + 1, start + 20, Application),
            ];
            open[1].has_said_goodbye = true;
            let at = milli(start + 600);
            let monitor = family(&open, at).final_role(&open[0], &departed);
            departed.ended(&open[0], monitor, at);
            assert_eq!(monitor, Monitor, "round {round}");
            departed.ended(&open[1], Application, at);
        }
    }

    #[test]
    fn drivers_without_monitors_have_pooled_connections_only() {
        let members = [(0, RoundTrip), (10, Unknown)];
        check_live("legacy", 50, &members, &[Application, Application]);
        check_live("php", 50, &members, &[Application, Application]);
        check_closed("legacy", 50, &members, 2);
        let balanced = ClientMetadata {
            load_balanced: true,
            ..metadata("node6")
        };
        assert!(Traits::of(&balanced).lacks_monitors());
        assert!(!Traits::of(&metadata("node36")).lacks_monitors());
        let old = ClientMetadata {
            driver_version: "3.3.5".to_owned(),
            ..metadata("node6")
        };
        assert!(Traits::of(&old).lacks_monitors());
    }

    #[test]
    fn a_lone_plain_hello_is_a_polling_monitor() {
        let members = [(0, RoundTrip), (30, Application), (40, Unknown)];
        check_live("rust", 5000, &members, &[Monitor, Application, Unknown]);
        check_closed("rust", 5000, &members, 2);
    }

    #[test]
    fn what_the_pool_does_and_monitors_do_not_decides_at_once() {
        // The pool of asynchronous PyMongo has another name than its monitors.
        let mut members = vec![
            sibling("pymongo", 1, 0, Monitor),
            sibling("pymongo", 2, 5, Unknown),
            sibling("async", 3, 9, Unknown),
            sibling("async", 4, 10, Application),
        ];
        let roles = family(&members, milli(100)).roles();
        assert_eq!(roles, [Monitor, RoundTrip, Application, Application]);

        // PyMongo's pool offers compressors, its monitors do not.
        let mut offering = metadata("pymongo");
        offering.compressors_offered = vec![Compressor::Zstd];
        members.truncate(2);
        members.push(Sibling {
            traits: Traits::of(&offering),
            ..sibling("pymongo", 3, 9, Unknown)
        });
        let roles = family(&members, milli(100)).roles();
        assert_eq!(roles, [Monitor, Unknown, Application]);
        members[2].told = Application;
        let roles = family(&members, milli(100)).roles();
        assert_eq!(roles, [Monitor, RoundTrip, Application]);

        // Monitors never authenticate.
        let mut members = siblings("rust", &[(0, Monitor), (5, Unknown), (9, Application)]);
        members[2].traits.has_authenticated = true;
        let roles = family(&members, milli(3000)).roles();
        assert_eq!(roles, [Monitor, RoundTrip, Application]);

        let members = [
            sibling("ruby-pool", 1, 0, Unknown),
            sibling("ruby-push", 2, 0, Unknown),
        ];
        let roles = family(&members, milli(1)).roles();
        assert_eq!(roles, [Application, Monitor]);
    }

    #[test]
    fn the_slowest_monitor_says_how_long_silence_may_last() {
        let told = |id, seconds| Sibling {
            heartbeat: Some(Duration::from_secs(seconds)),
            ..sibling("rust", id, 0, Monitor)
        };
        let members = [
            told(1, 60),
            told(2, 10),
            sibling("rust", 3, 0, Unknown),
            sibling("rust", 4, 0, RoundTrip),
            sibling("rust", 5, 0, RoundTrip),
        ];
        assert_eq!(heartbeat(&members, HEARTBEAT), Duration::from_mins(1));
        assert_eq!(heartbeat(&members[2..], HEARTBEAT), HEARTBEAT);
        let mut family = family(&members, milli(15_000));
        assert_eq!(family.roles()[2], Application);
        family.heartbeat = heartbeat(&members, HEARTBEAT);
        assert_eq!(family.roles()[2], Unknown);
        family.at = milli(72_001);
        assert_eq!(family.roles()[2], Application);
    }

    #[test]
    fn a_late_round_trip_monitor_is_not_taken_for_pooled() {
        // Nobody measured round trips yet: either silent one may be about to.
        let members = [(0, Monitor), (50, Unknown), (90, Unknown)];
        check_live("rust", 29_000, &members, &[Monitor, Unknown, Unknown]);
        check_live(
            "rust",
            30_100,
            &members,
            &[Monitor, Application, Application],
        );
        // Once found to be pooled it stays that, whoever comes later.
        let mut members = siblings("rust", &[(0, Monitor), (50, RoundTrip), (90, Unknown)]);
        assert_eq!(family(&members, milli(12_100)).roles()[2], Application);
        members[2].was_found_pooled = true;
        members.push(sibling("rust", 4, 12_200, Monitor));
        assert_eq!(family(&members, milli(12_300)).roles()[2], Application);
    }

    #[test]
    fn a_tool_is_pooled_when_it_works() {
        let mut tool = sibling("node6", 1, 0, Role::Tool);
        assert!(!tool.is_pooled(Role::Tool));
        tool.has_worked = true;
        assert!(tool.is_pooled(Role::Tool));
        assert!(!tool.is_pooled(RoundTrip));
    }

    #[test]
    fn a_handshake_without_metadata_is_nobodys_pool() {
        check_live("raw", 60_000, &[(0, Unknown)], &[Unknown]);
        check_closed("raw", 60_000, &[(0, Unknown), (1, Unknown)], 0);
    }
}
