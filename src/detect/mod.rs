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

pub use signal::{
    CloseGroup, DestroyTrigger, LeakSign, PoolDestroyed, Signal, SignalKind, Subject,
};

use crate::connection::Role;
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::Entry;

/// Finds one kind of trouble (or of healthy change that looks like it).
pub trait Detector: std::fmt::Debug + Send {
    /// A fact about a connection was taken in. Some look at the tables only.
    fn record(&mut self, _taken: &Taken<'_>, _signals: &mut Vec<Signal>) {}

    /// Time passed; ticks come on the grid of [`crate::observer`].
    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>);
}

/// A fact that the tables took in, with what they know by then.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// The fact, and when it was told.
    pub entry: &'a Entry,
    /// The connection that it is about.
    pub connection: &'a Connection,
    /// Everything else.
    pub pools: &'a Pools,
}

impl<'a> Taken<'a> {
    /// `None` where the connection found no place in the tables.
    pub fn of(entry: &'a Entry, pools: &'a Pools) -> Option<Self> {
        Some(Self {
            entry,
            connection: pools.connection(entry.connection)?,
            pools,
        })
    }
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
        let Some(taken) = Taken::of(entry, pools) else {
            return;
        };
        for detector in &mut self.all {
            detector.record(&taken, signals);
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
