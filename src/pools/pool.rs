//! Pools and what they went through.
//!
//! Source of the words: Connection Monitoring and Pooling specification § Events.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Connection, Inferred};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

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
    /// Those with a request in flight.
    pub(super) busy: BTreeSet<ConnectionId>,
}

impl Pool {
    /// A connection became its own.
    pub(super) fn enter(&mut self, connection: &mut Connection) {
        self.created += 1;
        self.operations += connection.last.operations;
        connection.operations_counted = connection.last.operations;
        if connection.is_open() {
            self.open.insert(connection.id);
            self.peak = self.peak.max(count(self.open.len()));
            self.active_ones_changed(connection);
        } else {
            self.closed.error += 1;
        }
    }

    /// A connection turned out to be another's.
    pub(super) fn disown(&mut self, connection: &mut Connection) {
        self.created = self.created.saturating_sub(1);
        self.operations = self
            .operations
            .saturating_sub(std::mem::take(&mut connection.operations_counted));
        self.open.remove(&connection.id);
        self.busy.remove(&connection.id);
        self.active = count(self.busy.len());
    }

    /// Its counters were told.
    pub(super) fn sampled(&mut self, connection: &mut Connection) {
        self.operations += connection
            .last
            .operations
            .saturating_sub(connection.operations_counted);
        connection.operations_counted = connection.last.operations;
        self.active_ones_changed(connection);
    }

    /// One of its connections ended.
    pub(super) fn ended(&mut self, connection: &mut Connection) {
        self.sampled(connection);
        self.busy.remove(&connection.id);
        self.active = count(self.busy.len());
        if self.open.remove(&connection.id) {
            self.closed.error += 1;
        }
    }

    /// Takes in what turned out to be the same pool.
    pub(super) fn absorb(&mut self, other: Self) {
        self.open.extend(other.open);
        self.busy.extend(other.busy);
        self.active = count(self.busy.len());
        self.peak = self.peak.max(other.peak).max(count(self.open.len()));
        self.created += other.created;
        self.operations += other.operations;
        self.recycled += other.recycled;
        self.closed.idle += other.closed.idle;
        self.closed.stale += other.closed.stale;
        self.closed.error += other.closed.error;
        self.closed.pool_closed += other.closed.pool_closed;
        self.clears.extend(other.clears);
        self.clears.sort_by_key(|clear| clear.at);
    }

    fn active_ones_changed(&mut self, connection: &Connection) {
        if connection.last.in_flight > 0 {
            self.busy.insert(connection.id);
        } else {
            self.busy.remove(&connection.id);
        }
        self.active = count(self.busy.len());
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
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
