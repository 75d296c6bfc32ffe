//! What happened, in order: the one input of the floors that reason.
//!
//! ```text
//! live traffic ──┐
//! journal ───────┤
//! packet capture ┼──▶ Entry, Entry, Entry, … ──▶ pools ▶ detect ▶ diagnose
//! test scenario ─┘
//! ```
//!
//! An [`Entry`] is one fact about one connection. Facts come from the connection's tracker, from the relay and, for
//! what would be too much to tell one by one, from samples of its counters. The same entries in the same order
//! give the same incidents, wherever they came from; [`lines`] writes and reads them as text.
//!
//! **Invariant:** an entry holds nothing of an observation that [`crate::connection::Observation`] would not: no
//! document, no credential.

mod commands;
mod fact;
pub mod lines;
mod names;

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use commands::Commands;
pub use fact::{Ended, ErrorReply, Fact, Sample};

use crate::time::{Micros, Timestamp};

/// A connection's number, rising from 1 in order of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// An upstream's position in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpstreamId(pub u16);

/// Why a dial failed: the `reason` label of connect failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DialFailure {
    /// The address refused.
    Refused,
    /// The connect time-out ran out.
    Timeout,
    /// No route, or the network said no.
    Unreachable,
    /// The name did not resolve.
    Dns,
    /// Anything else.
    Other,
}

impl DialFailure {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::Dns,
        Self::Other,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Other => "other",
        }
    }
}

/// One fact about one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it happened, in nanoseconds since the Unix epoch.
    pub at: Timestamp,
    /// On which connection.
    #[serde(rename = "conn")]
    pub connection: ConnectionId,
    /// What.
    #[serde(flatten)]
    pub fact: Fact,
}

/// Receives entries where they arise; must neither block nor fail.
pub trait Witness: fmt::Debug + Send + Sync {
    /// A fact became known. Facts of one connection come in order; those of different connections may come
    /// slightly out of it.
    fn saw(&self, entry: Entry);

    /// Entries it could not take.
    fn lost(&self) -> u64 {
        0
    }
}

/// An id of a logical session (`lsid.id`): random, so that it identifies the `MongoClient` that drew it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

/// The other end of an accepted connection, and when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The upstream it was accepted for.
    pub upstream: UpstreamId,
    /// The client's address.
    pub peer: SocketAddr,
}

/// What the kernel tells about one socket (`TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TcpState {
    /// Smoothed round-trip time.
    pub rtt: Micros,
    /// Segments with data sent since the connection was made, those sent again included; 0 where the kernel (before
    /// Linux 4.6) does not tell.
    #[serde(default)]
    pub segments: u32,
    /// Segments retransmitted since the connection was made.
    pub retransmits: u32,
    /// Those of them that the other side already had, as it said itself (RFC 2883): sent again because an
    /// acknowledgement came late, not because a segment was lost. 0 where the kernel (before Linux 4.20) does not tell.
    #[serde(default)]
    pub duplicates: u32,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Time since the last acknowledgement was received.
    pub since_ack: Micros,
}
