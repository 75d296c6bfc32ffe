//! The exposition: everything known as Prometheus metrics in the classic text format.
//!
//! ```text
//! Directory ─▶ Snapshot ─▶ Census ┐
//! Inference, IncidentTally ▶ Census │
//! Health ────────────────▶ Census ├─▶ own registry ─▶ text
//! /proc/self ──▶ ProcessCollector ┘
//! ```
//!
//! One struct, one constructor, a registry of its own. Nothing here is touched while traffic flows: clients and
//! upstreams are read when somebody scrapes. **Invariant:** every family stands in [`catalogue`], and label
//! values come from closed sets or from the directory's bounded one, never from the text of an error.

pub mod catalogue;
mod census;
mod cost;
mod families;
mod health;
mod incidents;
mod pools;
mod process;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tracing::error;

pub use cost::Cost;
pub use health::{AcceptFailure, Health};
pub use incidents::IncidentTally;

use self::catalogue::{BUILD_INFO, EXPOSED_SERIES, Family, SCRAPE_DURATION};
use self::census::Census;
use self::process::ProcessCollector;
use crate::clients::Directory;
use crate::config::MetricsDetail;
use crate::diagnose::Incident;
use crate::live::{Findings, PoolPicture};
use crate::time::Timestamp;

/// The `Content-Type` of an exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Series of a busy client with twenty commands in use: 64 of counters and gauges, 54 of four histograms.
pub(crate) const SERIES_PER_CLIENT: usize = 118;
/// The same without its histograms.
pub(crate) const SERIES_PER_CLIENT_MINIMAL: usize = 64;
/// Series of an upstream with twenty commands in use, most of them from the histogram of each.
pub(crate) const SERIES_PER_UPSTREAM: usize = 500;
/// Series of the proxy and its process; 25 of them count incidents by cause.
pub(crate) const SERIES_OF_ITSELF: usize = 110;

/// Upper bounds of the time to build an exposition, in seconds.
const SCRAPE_BOUNDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What this program was built from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuildFacts {
    /// The version of the package.
    pub version: &'static str,
    /// The revision of its sources; empty when unknown.
    pub revision: &'static str,
    /// The compiler's version; empty when unknown.
    pub rustc: &'static str,
    /// The target triple; empty when unknown.
    pub target: &'static str,
}

/// What is inferred, as far as it shows in metrics.
pub trait Inference: fmt::Debug + Send + Sync {
    /// Incidents that are open or were lately.
    fn incidents(&self) -> Vec<Arc<Incident>>;

    /// What is inferred about mongo clients, about a second old at most.
    fn pool_picture(&self, at: Timestamp) -> Arc<PoolPicture>;
}

impl Inference for Findings {
    fn incidents(&self) -> Vec<Arc<Incident>> {
        self.incidents()
    }

    fn pool_picture(&self, at: Timestamp) -> Arc<PoolPicture> {
        self.pool_picture(at)
    }
}

/// Everything an exposition shows.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Clients and upstreams.
    pub directory: Arc<Directory>,
    /// What the proxy counts about itself.
    pub health: Arc<Health>,
    /// Incidents that were counted.
    pub tally: Arc<IncidentTally>,
    /// Incidents that are open, and mongo clients.
    pub inference: Arc<dyn Inference>,
}

/// Renders expositions, one at a time.
pub struct Exposition {
    registry: Registry,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The moment of the running scrape, read by the collector.
    at: Arc<AtomicU64>,
    exposed_series: IntGauge,
    scrape_duration: Histogram,
    one_at_a_time: Mutex<()>,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl Exposition {
    /// An exposition of `sources`; `clock` measures how long it takes to build one.
    ///
    /// # Errors
    ///
    /// When the catalogue contradicts itself (a name twice, or one that the format forbids).
    pub fn new(
        sources: Sources,
        detail: MetricsDetail,
        build: BuildFacts,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let at = Arc::new(AtomicU64::new(0));
        let census = Census::new(sources, detail, Arc::clone(&at))?;
        registry.register(Box::new(census))?;
        registry.register(Box::new(ProcessCollector::new()?))?;

        let build_info = IntGaugeVec::new(opts(&BUILD_INFO), BUILD_INFO.labels)?;
        let facts = [build.version, build.revision, build.rustc, build.target];
        build_info.get_metric_with_label_values(&facts)?.set(1);
        registry.register(Box::new(build_info))?;

        let exposed_series = IntGauge::with_opts(opts(&EXPOSED_SERIES))?;
        registry.register(Box::new(exposed_series.clone()))?;

        let scrape_opts = HistogramOpts::new(SCRAPE_DURATION.name, SCRAPE_DURATION.help);
        let scrape_duration = Histogram::with_opts(scrape_opts.buckets(SCRAPE_BOUNDS.to_vec()))?;
        registry.register(Box::new(scrape_duration.clone()))?;

        Ok(Self {
            registry,
            clock: Box::new(clock),
            at,
            exposed_series,
            scrape_duration,
            one_at_a_time: Mutex::new(()),
        })
    }

    /// The exposition at the moment `at`, in the classic text format ([`CONTENT_TYPE`]).
    ///
    /// The number of series and the time it took show in the next one.
    pub fn render(&self, at: Timestamp) -> String {
        let _turn = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let started_at = (self.clock)();
        self.at.store(at.as_nanos(), Ordering::Relaxed);
        let families = self.registry.gather();
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            // The encoder refuses only families without a name or a sample, which the collectors never make.
            error!(%error, "failed to encode the exposition");
        }
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        self.exposed_series
            .set(i64::try_from(series).unwrap_or(i64::MAX));
        let took = (self.clock)().since(started_at);
        self.scrape_duration.observe(took.as_secs_f64());
        text
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

#[cfg(test)]
mod tests;
