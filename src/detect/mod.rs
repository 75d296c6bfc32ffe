//! What is off: detectors that turn the timeline and the tables of pools into signals.
//!
//! A detector sees every entry after the tables took it in, and every tick of the grid. It must be deterministic in
//! both and keep bounded state. A [`Signal`] is a finding, not a verdict: what it means is decided in
//! [`crate::diagnose`], where signals of several detectors meet.

mod client;
mod server;
mod signal;
#[cfg(test)]
mod testing;
mod thresholds;

pub use signal::{CloseGroup, DestroyTrigger, PoolDestroyed, Signal, SignalKind, Subject};

use crate::connection::Role;
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::Entry;

/// Finds one kind of trouble (or of healthy change that looks like it).
pub trait Detector: std::fmt::Debug + Send {
    /// A fact about a connection was taken in.
    fn record(
        &mut self,
        entry: &Entry,
        connection: &Connection,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    );

    /// Time passed; ticks come on the grid of [`crate::observer`].
    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>);
}

/// Every detector, in the order they are asked.
#[derive(Debug, Default)]
pub struct Detectors {
    all: Vec<Box<dyn Detector>>,
}

impl Detectors {
    /// One of each.
    pub fn new() -> Self {
        Self {
            all: server::detectors()
                .into_iter()
                .chain(client::detectors())
                .collect(),
        }
    }

    /// A fact was taken in by `pools`.
    pub fn record(&mut self, entry: &Entry, pools: &Pools, signals: &mut Vec<Signal>) {
        let Some(connection) = pools.connection(entry.connection) else {
            return;
        };
        for detector in &mut self.all {
            detector.record(entry, connection, pools, signals);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for detector in &mut self.all {
            detector.tick(at, pools, signals);
        }
    }
}

/// Whether a connection is an application's: neither another member's nor a probe's nor a tool's.
pub const fn is_of_a_client(connection: &Connection) -> bool {
    match connection.role {
        Role::Unknown | Role::Application | Role::Monitor | Role::RoundTripMonitor => true,
        Role::Probe | Role::Tool | Role::Member => false,
    }
}
