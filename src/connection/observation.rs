//! What a connection tells the rest: the seam between those who move bytes and those who reason.
//!
//! Two kinds of facts leave the tracker. Per-exchange facts ([`Exchange`], [`ReplyError`], message sizes)
//! are added to counters at once and never queued. Facts that change what is known about the connection
//! are [`Observation`]s.
//!
//! **Invariant:** no observation holds a SASL payload, a password or a document value other than the
//! metadata listed here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Role, State};
use crate::time::Timestamp;
use crate::wire::{CodeName, Command, Compressor, Direction, ErrorLabels, TopologyVersion};

/// A fact that changes what is known about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The client introduced itself (also without `client` metadata: then every field is empty).
    HandshakeSeen {
        /// As it said.
        client: Box<ClientMetadata>,
        /// `requestID` of its hello.
        request_id: i32,
    },
    /// The server described itself; repeated only when something of it changed.
    ServerDescribed(Box<ServerFacts>),
    /// An authentication conversation ended.
    Authenticated(Authentication),
    /// The connection can carry its first ordinary command.
    Ready {
        /// Time from accept.
        after: Duration,
    },
    /// Evidence decided (or changed) what the connection is used for.
    RoleFound(Role),
    /// The interval at which the client checks the server, read from an awaitable hello.
    HeartbeatInterval(Duration),
    /// A plain hello, not an awaitable one, was answered after this time. Its moment is that of the answer's arrival:
    /// what the client does on other connections because of the answer is always seen later.
    HelloAnswered(Duration),
    /// A request carried another logical session than the last one told; at most one a second once a handful were.
    SessionUsed([u8; 16]),
    /// `endSessions` was sent, with these sessions (bounded).
    SessionsEnded(Vec<[u8; 16]>),
    /// A multi-statement transaction began here.
    TransactionStarted {
        /// `lsid.id` of its logical session, where it was read.
        lsid: Option<[u8; 16]>,
    },
    /// It was committed or aborted, or the reply said that it is gone.
    TransactionEnded {
        /// `lsid.id` of its logical session, where it was read.
        lsid: Option<[u8; 16]>,
    },
    /// The connection can no longer be decoded.
    TurnedOpaque(OpaqueReason),
}

/// Why a connection is no longer decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpaqueReason {
    /// It speaks TLS.
    Tls,
    /// It speaks something else from its first byte.
    UnknownProtocol,
    /// Its bytes broke the protocol.
    DecodeFailure,
    /// The decoder panicked.
    Panic,
    /// Looking cost more than its budget.
    Budget,
}

impl OpaqueReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Tls,
        Self::UnknownProtocol,
        Self::DecodeFailure,
        Self::Panic,
        Self::Budget,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::UnknownProtocol => "unknown_protocol",
            Self::DecodeFailure => "decode_failure",
            Self::Panic => "panic",
            Self::Budget => "budget",
        }
    }
}

/// What a client says of itself in its first hello (`client` document). Raw text from the wire, cut to
/// bounded lengths but not yet sanitised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientMetadata {
    /// `application.name`; invalid UTF-8 is replaced.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub application: String,
    /// `driver.name`, a chain such as `PyMongo|c|async`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver_name: String,
    /// `driver.version`, a chain of the same shape.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver_version: String,
    /// `os.type`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_type: String,
    /// `os.name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_name: String,
    /// `os.architecture`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_architecture: String,
    /// `os.version`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// `platform`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// `env.name`: the function-as-a-service platform.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env_name: String,
    /// `env.region`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env_region: String,
    /// `env.container.runtime`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_runtime: String,
    /// `env.container.orchestrator`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_orchestrator: String,
    /// Compressors offered, in order; anything the protocol has no name for is left out.
    pub compressors_offered: Vec<Compressor>,
    /// The handshake asked for `loadBalanced`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub load_balanced: bool,
    /// The handshake carried `backpressure`: the driver does not clear its pool on errors during it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub backpressure: bool,
    /// The handshake announced credentials: `speculativeAuthenticate` or `saslSupportedMechs`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub announces_credentials: bool,
}

impl ClientMetadata {
    /// The driver is Node's with the pool that it had before the unified topology: up to 3.7, unless it says
    /// otherwise. That pool can log "Pool was force destroyed", and has neither monitors nor clears.
    pub fn has_legacy_pool(&self) -> bool {
        let is_old = ["2.", "3."]
            .iter()
            .any(|major| self.driver_version.starts_with(major));
        self.driver_name.starts_with("nodejs") && is_old && !self.platform.contains("(unified)")
    }
}

/// What a server says of itself in a hello reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerFacts {
    /// `connectionId`: `conn<N>` in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<i64>,
    /// `setName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_name: Option<String>,
    /// `me`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub me: Option<String>,
    /// `hosts`, `passives` and `arbiters`, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// `primary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The role announced.
    pub role: ServerRole,
    /// `topologyVersion`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_version: Option<TopologyVersion>,
    /// `maxWireVersion`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wire_version: Option<i32>,
    /// The first of the compressors both sides know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressor: Option<Compressor>,
    /// `setVersion`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_version: Option<i64>,
}

/// The role a server announces.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ServerRole {
    /// Nothing was announced yet.
    #[default]
    Unknown,
    /// Primary of a replica set.
    Primary,
    /// Secondary of a replica set.
    Secondary,
    /// Arbiter of a replica set.
    Arbiter,
    /// A router of a sharded cluster.
    Mongos,
    /// A server without a replica set.
    Standalone,
    /// A member in any other state.
    Other,
}

impl ServerRole {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Primary,
        Self::Secondary,
        Self::Arbiter,
        Self::Mongos,
        Self::Standalone,
        Self::Other,
    ];

    /// The value of the `role` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Arbiter => "arbiter",
            Self::Mongos => "mongos",
            Self::Standalone => "standalone",
            Self::Other => "other",
        }
    }
}

/// The outcome of an authentication conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// How it ended.
    pub result: AuthenticationResult,
    /// `<db>.<user>` where the protocol sends it in the clear and apart from secrets.
    pub user: Option<String>,
}

/// Authentication mechanisms told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// `SCRAM-SHA-1`.
    ScramSha1,
    /// `SCRAM-SHA-256`.
    ScramSha256,
    /// `PLAIN`.
    Plain,
    /// `MONGODB-X509`.
    X509,
    /// `MONGODB-AWS`.
    Aws,
    /// `MONGODB-OIDC`.
    Oidc,
    /// `GSSAPI`.
    Gssapi,
    /// Anything else.
    Other,
}

impl Mechanism {
    /// The mechanism with this name on the wire.
    pub fn from_wire(name: &str) -> Self {
        match name {
            "SCRAM-SHA-1" => Self::ScramSha1,
            "SCRAM-SHA-256" => Self::ScramSha256,
            "PLAIN" => Self::Plain,
            "MONGODB-X509" => Self::X509,
            "MONGODB-AWS" => Self::Aws,
            "MONGODB-OIDC" => Self::Oidc,
            "GSSAPI" => Self::Gssapi,
            _ => Self::Other,
        }
    }

    /// The value of the `mechanism` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::X509 => "MONGODB-X509",
            Self::Aws => "MONGODB-AWS",
            Self::Oidc => "MONGODB-OIDC",
            Self::Gssapi => "GSSAPI",
            Self::Other => "other",
        }
    }
}

/// How an authentication conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticationResult {
    /// The server accepted it.
    Ok,
    /// The server refused it.
    Failed,
    /// The server had not decided when the connection ended, or when it said something of itself instead (that it shuts
    /// down, say).
    Abandoned,
}

impl AuthenticationResult {
    /// The value of the `result` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A request with its last reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The command.
    pub command: Command,
    /// First byte of the request read.
    pub started_at: Timestamp,
    /// Last byte of the reply written.
    pub ended_at: Timestamp,
    /// The reply said `ok: 1`, as far as it was read.
    pub is_ok: bool,
    /// How long it took says something about the server: false for awaitable hellos, exhaust streams and
    /// `getMore` on cursors known to await data.
    pub is_timed: bool,
    /// What it did to a cursor.
    pub cursor: CursorEffect,
}

/// What an exchange did to a cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CursorEffect {
    /// No cursor outlived it.
    #[default]
    None,
    /// A cursor was opened and has more to give.
    Opened {
        /// Its id.
        id: i64,
        /// It waits for data: tailable, or a change stream.
        awaits_data: bool,
    },
    /// A `getMore` left it open.
    Continued {
        /// Its id.
        id: i64,
    },
    /// A `getMore` drained it, or failed and so closed it.
    Exhausted {
        /// Its id.
        id: i64,
    },
}

/// An error in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyError {
    /// Where in the reply it stood.
    pub kind: ErrorKind,
    /// The command that was answered.
    pub command: Command,
    /// The code; 0 when the reply had none.
    pub code: i32,
    /// The name as the server spelt it.
    pub code_name: Option<CodeName>,
    /// Labels of the reply.
    pub labels: ErrorLabels,
    /// How many times the reply had it (write errors).
    pub count: u32,
}

/// Where in a reply an error stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// `ok: 0`.
    Command,
    /// `writeErrors`.
    Write,
    /// `writeConcernError`.
    WriteConcern,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Command, Self::Write, Self::WriteConcern];

    /// The value of the `kind` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Write => "write",
            Self::WriteConcern => "write_concern",
        }
    }
}

/// Receives what a tracker finds on one connection, in the order it happened.
pub trait Facts {
    /// A message of `wire_len` bytes was seen to its end.
    fn message_seen(&mut self, direction: Direction, wire_len: u32);

    /// A request was seen to its end, whether or not it expects a reply.
    fn request_seen(&mut self, at: Timestamp, command: Command, request_id: i32);

    /// Cursors were named in a `killCursors` and the server said they are gone.
    fn cursor_killed(&mut self, at: Timestamp, id: i64);

    /// An exchange ended.
    fn exchange_ended(&mut self, exchange: &Exchange);

    /// A reply held an error.
    fn error_seen(&mut self, at: Timestamp, error: &ReplyError);

    /// The state, or the number of application requests in flight, changed.
    fn activity_changed(&mut self, at: Timestamp, state: State, in_flight: u32);

    /// It ends, and nothing answered these requests of the application.
    fn left_unanswered(&mut self, commands: impl Iterator<Item = Command>);

    /// A fact that changes what is known about the connection.
    fn observed(&mut self, at: Timestamp, observation: Observation);
}
