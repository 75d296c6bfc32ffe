//! The whole brain behind few methods: entries and time in, incidents out.
//!
//! [`Sequencer`] puts entries in the order of their moments and turns time into ticks on a fixed grid, so that
//! live traffic, a journal and a capture drive [`Observer`] in exactly the same way.

mod bursts;
mod sequencer;

use std::net::IpAddr;
use std::sync::Arc;

use bursts::Bursts;

pub use sequencer::{Sequencer, TICK};

use crate::detect::Detectors;
use crate::diagnose::{Book, Incident, News};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{Entry, UpstreamId};

/// Reasons about one proxy's connections.
#[derive(Debug)]
pub struct Observer {
    pools: Pools,
    detectors: Detectors,
    book: Book,
    bursts: Bursts,
}

impl Observer {
    /// Knows nothing yet; an upstream's id is its position.
    pub fn new(upstreams: Vec<UpstreamName>) -> Self {
        Self {
            pools: Pools::new(upstreams),
            detectors: Detectors::new(),
            book: Book::default(),
            bursts: Bursts::default(),
        }
    }

    /// Takes in one fact.
    pub fn record(&mut self, entry: &Entry, news: &mut Vec<News>) {
        let mut signals = Vec::new();
        self.pools.record(entry);
        self.detectors.record(entry, &self.pools, &mut signals);
        if !signals.is_empty() {
            self.bursts.count(&signals);
            self.book.add(signals, &self.pools, entry.at, news);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, at: Timestamp, news: &mut Vec<News>) {
        let mut signals = Vec::new();
        self.pools.tick(at);
        self.detectors.tick(at, &self.pools, &mut signals);
        self.bursts.count(&signals);
        self.bursts.forget(&self.pools);
        self.book.consider(signals, &self.pools, at, news);
    }

    /// What is inferred about pools.
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Bursts of new connections since those that have them are known: at which upstream, from which address, of which
    /// application, empty where nobody said who dialled, and how many.
    pub fn bursts(&self) -> impl Iterator<Item = (UpstreamId, IpAddr, Arc<str>, u64)> {
        self.bursts.counts(&self.pools)
    }

    /// Incidents, the newest first.
    pub fn incidents(&self) -> Vec<Arc<Incident>> {
        self.book.incidents().map(Arc::clone).collect()
    }

    /// Grows with every change of [`Self::incidents`], be it news or not.
    pub const fn changes(&self) -> u64 {
        self.book.changes()
    }
}
