//! Mongo clients and what their pools went through.
//!
//! Source of the words: Connection Monitoring and Pooling specification § Events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::InstanceId;
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, UpstreamId};

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
    /// Its pools, one a server.
    pub pools: BTreeMap<UpstreamId, Pool>,
}

/// One mongo client's pooled connections to one server.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Open right now.
    pub open: BTreeSet<ConnectionId>,
    /// Most open at once.
    pub peak: u64,
    /// With a request in flight, as sampled.
    pub active: u64,
    /// Connections created so far.
    pub created: u64,
    /// Connections closed so far, by reason.
    pub closed: CloseReasons,
    /// Operations so far.
    pub operations: u64,
    /// Connections closed and replaced by others.
    pub recycled: u64,
    /// Episodes in which it was cleared, oldest first; bounded.
    pub clears: Vec<Clear>,
    /// `maxPoolSize`.
    pub max_size: Option<Inferred<u64>>,
    /// `minPoolSize`.
    pub min_size: Option<Inferred<u64>>,
    /// `maxIdleTimeMS`.
    pub max_idle: Option<Inferred<Duration>>,
    /// Shares of its connections' idle time at 50, 90 and 99 percent of check-outs.
    pub idle_before_use: [Option<Duration>; 3],
    /// Since when every connection is active while the pool is as large as it was seen to get.
    pub saturated_since: Option<Timestamp>,
}

/// Closed connections by the reasons of the Connection Monitoring and Pooling specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseReasons {
    /// Idle for longer than `maxIdleTimeMS`.
    pub idle: u64,
    /// The pool was cleared.
    pub stale: u64,
    /// An error on the connection.
    pub error: u64,
    /// The pool was closed.
    pub pool_closed: u64,
}

/// An episode in which a pool was cleared: from the first sign until its pool works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear {
    /// The first sign.
    pub at: Timestamp,
    /// When a check of the server succeeded again; `None` while none did.
    pub ready_at: Option<Timestamp>,
    /// Why.
    pub trigger: ClearTrigger,
    /// Connections that went with it.
    pub closed: u64,
}

/// Why a pool was cleared: the `trigger` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClearTrigger {
    /// A reply said that the server is not, or no longer, primary.
    NotPrimary,
    /// A connection broke, or a monitor gave up.
    Network,
    /// A reply said that the server is shutting down.
    ServerShutdown,
    /// Nothing tells.
    Unknown,
}

impl ClearTrigger {
    /// Every trigger.
    pub const ALL: [Self; 4] = [
        Self::NotPrimary,
        Self::Network,
        Self::ServerShutdown,
        Self::Unknown,
    ];

    /// The value of the `trigger` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotPrimary => "not_primary",
            Self::Network => "network",
            Self::ServerShutdown => "server_shutdown",
            Self::Unknown => "unknown",
        }
    }
}
