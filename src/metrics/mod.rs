//! The exposition: everything known as Prometheus metrics in the classic text format.
//!
//! ```text
//! Directory ─▶ Snapshot ──▶ census ┐
//! Inference, IncidentTally ▶ census │
//! Health ─────────────────▶ census ├─▶ Families ─▶ text
//! /proc/self ────────────▶ process ┘
//! ```
//!
//! One struct, one constructor. Nothing here is touched while traffic flows: clients and
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use cost::Cost;
pub use health::{AcceptFailure, Health};
pub use incidents::IncidentTally;

use self::catalogue::{BUILD_INFO, EXPOSED_SERIES, SCRAPE_DURATION};
use self::families::{Families, float};
use crate::clients::{COMMAND_TIMES, Directory, Histogram};
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

    /// How far behind the traffic whoever infers was lately.
    fn lag(&self, at: Timestamp) -> Duration;
}

impl Inference for Findings {
    fn incidents(&self) -> Vec<Arc<Incident>> {
        self.incidents()
    }

    fn pool_picture(&self, at: Timestamp) -> Arc<PoolPicture> {
        self.pool_picture(at)
    }

    fn lag(&self, at: Timestamp) -> Duration {
        self.lag(at)
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

/// Renders everything known.
pub struct Exposition {
    sources: Sources,
    detail: MetricsDetail,
    build: BuildFacts,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// What is told of the expositions before; its lock lets one be made at a time.
    past: Mutex<Past>,
}

/// What is known of earlier expositions.
struct Past {
    /// Series of the last.
    series: u64,
    durations: Histogram,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl Exposition {
    /// An exposition of `sources`; `clock` measures how long expositions take.
    pub fn new(
        sources: Sources,
        detail: MetricsDetail,
        build: BuildFacts,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            sources,
            detail,
            build,
            clock: Box::new(clock),
            past: Mutex::new(Past {
                series: 0,
                durations: Histogram::new(&COMMAND_TIMES),
            }),
        }
    }

    /// The exposition at the moment `at`, in the classic text format ([`CONTENT_TYPE`]).
    ///
    /// The number of series and the time it took show in the next one.
    pub fn render(&self, at: Timestamp) -> String {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let started_at = (self.clock)();
        let mut families = Families::default();
        census::census(&mut families, &self.sources, self.detail, at);
        process::process(&mut families);
        let build = &self.build;
        let facts = [build.version, build.revision, build.rustc, build.target];
        families.add(&BUILD_INFO, &facts, 1.0);
        families.add(&EXPOSED_SERIES, &[], float(past.series));
        families.add_histogram(&SCRAPE_DURATION, &[], &past.durations.row());
        past.series = families.series();
        let text = families.finish();
        let took = (self.clock)().since(started_at);
        past.durations.record_duration(took);
        text
    }
}

#[cfg(test)]
mod tests;
