//! What a handshake tells about the use of a connection, and what drivers are known to do.

use crate::clients::processes::ProcessId;
use crate::connection::{ClientMetadata, Role};

/// How a driver watches servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Habit {
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
    pub(super) habit: Habit,
    pub(super) has_metadata: bool,
    /// What the driver itself says, where it does.
    pub(super) declared: Option<Role>,
    /// The driver's monitors offer no compressor even where its pool does.
    pub(super) hides_compressors_on_monitors: bool,
    pub(super) offers_compressor: bool,
    pub(super) is_pymongo: bool,
    pub(super) is_async: bool,
    pub(crate) has_authenticated: bool,
    /// Its hello said that it will.
    pub(super) announces_credentials: bool,
    /// The driver waits half a second (`minHeartbeatFrequencyMS`) after a check that it gave up itself.
    pub(super) waits_to_check_again: bool,
    /// The process that opened it, where handshakes have a count of their own: what others lost is not its concern.
    pub(crate) process: Option<ProcessId>,
}

impl Traits {
    /// Reads the traits from handshake metadata.
    pub(crate) fn of(metadata: &ClientMetadata) -> Self {
        let name = metadata.driver_name.as_str();
        let is_pymongo = name.starts_with("PyMongo");
        let is_java = name.starts_with("mongo-java-driver");
        let has_metadata = !name.is_empty();
        let habit = if has_metadata {
            habit(metadata)
        } else {
            Habit::Unknown
        };
        Self {
            habit,
            has_metadata,
            declared: declared(metadata),
            hides_compressors_on_monitors: is_pymongo || is_java,
            offers_compressor: !metadata.compressors_offered.is_empty(),
            is_pymongo,
            is_async: is_pymongo && name.split('|').any(|part| part == "async"),
            has_authenticated: false,
            announces_credentials: metadata.announces_credentials,
            // Node 3.5 to 3.7: `makeInterruptableAsyncInterval`, begun anew when the monitor is reset.
            waits_to_check_again: name.starts_with("mongo-rust-driver")
                || (habit == Habit::RoundTripLater && metadata.driver_version.starts_with("3.")),
            process: None,
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
