//! What a connection is used for, and what it is doing.

use serde::{Deserialize, Serialize};

/// What a connection is used for, as far as its own traffic and that of its siblings tells.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nothing decides yet: only a handshake was seen, or the connection is opaque.
    #[default]
    Unknown,
    /// A pooled connection of an application.
    Application,
    /// Watches the server: streaming or polling hello.
    Monitor,
    /// Measures round-trip times beside a streaming monitor.
    RoundTripMonitor,
    /// Sent no byte at all, or nothing the protocol knows: a health check or a scanner.
    Probe,
    /// A shell or an administration tool, by its application name.
    Tool,
    /// Another member of the replica set.
    Member,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Application,
        Self::Monitor,
        Self::RoundTripMonitor,
        Self::Probe,
        Self::Tool,
        Self::Member,
    ];

    /// The stable name in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Application => "application",
            Self::Monitor => "monitor",
            Self::RoundTripMonitor => "round_trip_monitor",
            Self::Probe => "probe",
            Self::Tool => "tool",
            Self::Member => "member",
        }
    }

    /// Whether the connection watches the server rather than carrying work.
    pub const fn is_monitor(self) -> bool {
        matches!(self, Self::Monitor | Self::RoundTripMonitor)
    }
}

/// The state of a connection; exactly one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Accepted, the server side is being dialled.
    Connecting,
    /// Dialled, the first hello is not answered yet.
    Handshaking,
    /// Authentication is under way.
    Authenticating,
    /// Ready, no request in flight.
    Idle,
    /// At least one request in flight.
    Active,
    /// A monitor, whatever it has in flight.
    Monitoring,
    /// Told to end at the next message boundary.
    Draining,
    /// No longer decoded.
    Opaque,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Connecting,
        Self::Handshaking,
        Self::Authenticating,
        Self::Idle,
        Self::Active,
        Self::Monitoring,
        Self::Draining,
        Self::Opaque,
    ];

    /// The value of the `state` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Handshaking => "handshaking",
            Self::Authenticating => "authenticating",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Monitoring => "monitoring",
            Self::Draining => "draining",
            Self::Opaque => "opaque",
        }
    }

    /// Position in [`State::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}
