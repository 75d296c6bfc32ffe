//! What can be configured: one place for every key, its default, unit and reason.
//!
//! Sources in order of precedence: the YAML file, environment variables, command-line flags (a later source
//! wins). Configuration is merely mistaken, never hostile: a mistake stops the start with file, line and reason.

use std::net::SocketAddr;
use std::time::Duration;

/// The configuration of a running proxy, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Listeners, each with its upstream; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Longest wait for the server to accept a dial.
    pub connect_timeout: Duration,
    /// Idle time after which the kernel probes a peer (TCP keepalive), both sides.
    pub keepalive: Duration,
    /// The HTTP side.
    pub web: WebConfig,
    /// Limits of what is remembered.
    pub limits: Limits,
    /// How the proxy stops.
    pub drain_timeout: Duration,
    /// Threads that forward; `None` takes one a core of the quota.
    pub workers: Option<usize>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How much the exposition tells.
    pub metrics_detail: MetricsDetail,
}

/// One address to accept on and the server behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The value of the `upstream` label; `host:port` of the upstream unless configured.
    pub name: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// `host:port` (or `[ipv6]:port`) of the server.
    pub upstream: String,
    /// Names (`host:port`) under which clients know this listener; the server's `me` should be one of them.
    /// Empty: the listen address, and `localhost` with its port when it is a loopback address.
    pub advertised: Vec<String>,
}

/// The HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebConfig {
    /// Where metrics and API are served.
    pub listen: SocketAddr,
}

/// Limits of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client instances with their own row and series.
    pub clients_max: usize,
    /// Time without a connection after which a client instance is forgotten.
    pub client_ttl: Duration,
    /// Open connections; further ones are reset.
    pub connections_max: usize,
    /// Bytes of one message that may be held for reading it whole.
    pub capture_limit_bytes: usize,
    /// Bytes of one message that may come out of its decompression.
    pub inflate_limit_bytes: usize,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level or a list of `target=level`.
    pub filter: String,
    /// Human or machine readable.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// How much the exposition tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Without per-client histograms.
    Minimal,
    /// Everything in the catalogue.
    #[default]
    Standard,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: 250,
            client_ttl: Duration::from_mins(15),
            connections_max: 20_000,
            capture_limit_bytes: 16 * 1024,
            inflate_limit_bytes: 1024 * 1024,
        }
    }
}
