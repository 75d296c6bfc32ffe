//! The whole brain behind few methods: entries and time in, incidents out.
//!
//! [`Sequencer`] puts entries in the order of their moments and turns time into ticks on a fixed grid, so that
//! live traffic, a journal and a capture drive [`Observer`] in exactly the same way.

mod sequencer;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use sequencer::{Sequencer, TICK};

use crate::detect::{Detectors, Signal, SignalKind};
use crate::diagnose::{Book, Incident, News};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{Entry, UpstreamId};

/// Reasons about one proxy's connections.
#[derive(Debug)]
pub struct Observer {
    pools: Pools,
    detectors: Detectors,
    book: Book,
    /// Of instances that are remembered: when the newest burst began, and how many there were.
    bursts: BTreeMap<(UpstreamId, InstanceId), (Timestamp, u64)>,
}

impl Observer {
    /// Knows nothing yet; an upstream's id is its position.
    pub fn new(upstreams: Vec<UpstreamName>) -> Self {
        Self {
            pools: Pools::new(upstreams),
            detectors: Detectors::new(),
            book: Book::default(),
            bursts: BTreeMap::new(),
        }
    }

    /// Takes in one fact.
    pub fn record(&mut self, entry: &Entry, news: &mut Vec<News>) {
        let mut signals = Vec::new();
        self.pools.record(entry);
        self.detectors.record(entry, &self.pools, &mut signals);
        if !signals.is_empty() {
            self.count_bursts(&signals);
            self.book.add(signals, &self.pools, entry.at, news);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, at: Timestamp, news: &mut Vec<News>) {
        let mut signals = Vec::new();
        self.pools.tick(at);
        self.detectors.tick(at, &self.pools, &mut signals);
        self.count_bursts(&signals);
        let pools = &self.pools;
        self.bursts
            .retain(|(_, instance), _| pools.instance(*instance).is_some());
        self.book.consider(signals, &self.pools, at, news);
    }

    /// What is inferred about pools.
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Bursts of new connections since the instance that has them is known.
    pub fn bursts(&self) -> impl Iterator<Item = (UpstreamId, InstanceId, u64)> {
        let bursts = self.bursts.iter();
        bursts.map(|((upstream, instance), (_, count))| (*upstream, *instance, *count))
    }

    /// A burst is told again and again while it goes on, always from the same beginning.
    fn count_bursts(&mut self, signals: &[Signal]) {
        for signal in signals {
            let SignalKind::ReconnectBurst { .. } = signal.kind else {
                continue;
            };
            let Some(instance) = signal.subject.instance else {
                continue;
            };
            let key = (signal.subject.upstream, instance);
            let (began_at, count) = self.bursts.entry(key).or_default();
            if *count == 0 || signal.at > *began_at {
                *began_at = signal.at;
                *count += 1;
            }
        }
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
