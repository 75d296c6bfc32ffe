//! What can be configured: one place for every key, its default, unit and reason.
//!
//! Sources in order of precedence: the YAML file, environment variables, command-line flags (a later source
//! wins). Configuration is merely mistaken, never hostile: a mistake stops the start with file, line and reason.
//!
//! ```text
//! file ───────▶ Layer ─┐
//! environment ▶ Layer ─┼─▶ check: last one wins, ranges, parts fit together ─▶ Config
//! flags ──────▶ Layer ─┘   (texts with their place, one parser a kind of value)
//! ```

mod check;
mod error;
mod file;
mod keys;
mod layer;
mod show;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{ConfigError, Problem};
pub use keys::{CONFIG_ENV, KEYS, Key};
pub use layer::{Layer, Origin, Setting};
pub use values::{format_duration, format_size};

/// A checked configuration, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where the value of each key came from, by the path of the key; listeners are not among them.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What the user should hear although it does not stop the start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Loads the file, if one is named, lets the environment and then the flags win over it, and checks the
    /// result.
    ///
    /// The error lists every mistake with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Layer,
    ) -> Result<Loaded, ConfigError> {
        let file = file.map(file::read).transpose()?.unwrap_or_default();
        let (environment, unknown) = Layer::from_environment(environment);
        let mut loaded = check::check(&[file, environment, flags])?;
        loaded.warnings = unknown
            .into_iter()
            .map(|name| format!("environment {name}: no key has this variable; it is not used"))
            .collect();
        Ok(loaded)
    }
}

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
    /// What is recorded.
    pub journal: JournalConfig,
}

/// What is recorded, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The file being written; `None` records nothing.
    pub path: Option<PathBuf>,
    /// Size at which it goes on in a new file.
    pub size_max_bytes: usize,
    /// Files that are kept, the one being written included.
    pub files_max: usize,
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
    /// Percent of a worker's time that looking at the traffic may take; `None` without limit.
    pub observe_percent: Option<u32>,
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
            observe_percent: Some(50),
        }
    }
}

#[cfg(test)]
mod tests;
