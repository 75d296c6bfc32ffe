//! The HTTP side: metrics for scrapers, health for orchestrators, an API for people and tools.
//!
//! ```text
//! TcpListener ─▶ server: at most 128 connections, deadlines for heads and writes
//!                  └▶ routes: /metrics  /-/healthy  /-/ready  /api/v1/…
//!                       ├▶ Source (a picture of one moment) ─▶ convert ─▶ api rows ─▶ JSON
//!                       └▶ Events ─▶ server-sent events, at most 64 subscribers
//! ```
//!
//! It must never wait on, or be waited on by, the forwarding side: it reads pictures. **Invariant:** whoever asks,
//! however slowly or often, holds at most a fixed number of connections, threads and bytes here.
//!
//! There is no authentication: bind it to the loopback, or to an address that only those who may know can reach.

pub mod api;
mod convert;
mod events;
mod filter;
mod incidents;
mod routes;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clients::Snapshot;
use crate::config::Limits;
use crate::diagnose::Incident;
use crate::live::PoolPicture;
use crate::metrics::Cost;
use crate::time::Timestamp;

pub use convert::{client as client_row, upstreams as upstream_rows};
pub use events::{EventKind, Events};
pub use incidents::row as incident_row;
pub use server::serve;

/// What the HTTP side shows. `snapshot`, `exposition` and `pool_picture` are called on threads that may block; the others have to
/// answer at once.
pub trait Source: Send + Sync + 'static {
    /// A picture of this moment; with one row a connection only when asked, because there may be many.
    fn snapshot(&self, with_connections: bool) -> Snapshot;

    /// The metrics in the classic text format.
    fn exposition(&self) -> String;

    /// The moment.
    fn now(&self) -> Timestamp;

    /// Incidents that are open or were lately, the newest first.
    fn incidents(&self) -> Vec<Arc<Incident>>;

    /// What is inferred about mongo clients.
    fn pool_picture(&self) -> Arc<PoolPicture>;

    /// Where news of incidents are published.
    fn events(&self) -> Arc<Events>;

    /// New connections are taken: all listeners are bound and nobody asked to stop.
    fn is_ready(&self) -> bool;

    /// What is known of the process itself.
    fn status(&self) -> StatusFacts;
}

/// What is known of the process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusFacts {
    /// Version of poolscope.
    pub version: &'static str,
    /// When it was started.
    pub started_at: Timestamp,
    /// The listeners, in configured order.
    pub listeners: Vec<ListenerFacts>,
    /// The address this side is bound to.
    pub web: SocketAddr,
    /// Threads that forward.
    pub workers: usize,
    /// The limits in force.
    pub limits: Limits,
    /// Time over which connections are ended.
    pub drain_timeout: Duration,
    /// Somebody asked to stop.
    pub is_draining: bool,
    /// What the proxy itself has cost.
    pub cost: Cost,
    /// Sentences an operator should read, such as variables that no key has.
    pub warnings: Vec<String>,
}

/// What is known of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFacts {
    /// Name of its upstream.
    pub name: String,
    /// The address it is bound to: with the port the system chose when the configuration has port 0.
    pub listen: SocketAddr,
    /// Where it dials.
    pub upstream: String,
    /// Names under which clients know it.
    pub advertised: Vec<String>,
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
