//! Who holds which connections: client instances, their connections, and the upstreams they talk to.
//!
//! ```text
//! accept ──▶ Directory::open ──▶ Recorder (one a connection, implements Facts)
//!                 │                  │ per exchange: relaxed atomics of cells resolved beforehand
//!                 │                  │ per fact: the connection moves to its owner, once
//!                 ▼                  ▼
//!          ConnectionCell ───────▶ ClientCell ───────▶ UpstreamCell
//!                 └────────────── Directory::snapshot ─────────────┘
//! ```
//!
//! It must do no IO and read no clock. **Invariant:** the number of client instances, of their labels and of
//! their cursors is bounded; whoever finds no place is accounted to `other`, and counted.

mod attribution;
mod client;
mod connection;
mod cursors;
mod directory;
#[cfg(test)]
pub(crate) mod fixtures;
mod latency;
pub(crate) mod numbering;
mod picture;
pub(crate) mod processes;
mod recorder;
mod retell;
pub(crate) mod roles;
mod snapshot;
mod tcp;
mod upstream;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::timeline::{ConnectionId, DialFailure, UpstreamId};
pub use client::ERROR_CODE_OTHER;
pub use directory::{Directory, DirectoryLimits};
pub(crate) use latency::{COMMAND_TIMES, Histogram, Scale};
pub use numbering::Numbering;
pub use recorder::Recorder;
pub use upstream::UpstreamSpec;

pub use snapshot::{
    ClientRow, CloseCounts, ConnectionRow, DirectoryRow, DriverRow, HistogramRow, Snapshot,
    StateCounts, UpstreamRow,
};

/// A client instance's number, rising in order of first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// Locks, also after a panic elsewhere: every value here is whole after each single change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many items there are, as rows count them.
fn count(items: impl Iterator) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

/// Text from the wire made fit for a label or a line: printable, on one line, of bounded length.
pub(crate) fn label_text(raw: &str) -> String {
    attribution::driver_text(raw)
}
