//! Every key, once: its place in the file, its variable, its flag, its default and what it is for.
//!
//! The three spellings of a key follow from each other: `web.listen_address` in the file is
//! `POOLSCOPE_WEB_LISTEN_ADDRESS` in the environment and `--web.listen-address` on the command line; the keys of
//! a listener (`listeners[].upstream`) go without their prefix. A test holds the table to that.

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place in the file; `listeners[].` stands before the keys of a listener.
    pub path: &'static str,
    /// Its variable.
    pub env: &'static str,
    /// Its flag, without the leading dashes.
    pub flag: &'static str,
    /// What a value looks like.
    pub value: &'static str,
    /// The value when no source has one, as it would be written.
    pub default: Option<&'static str>,
    /// What it is for, in a sentence.
    pub help: &'static str,
}

impl Key {
    /// The key belongs to a listener: flags repeat it, the environment separates its values by spaces.
    pub fn is_of_listener(&self) -> bool {
        self.path.starts_with("listeners[].")
    }
}

macro_rules! keys {
    ($($name:ident = $path:literal, $env:literal, $flag:literal, $value:literal, $default:expr, $help:literal;)+) => {
        $(pub(super) const $name: Key = Key {
            path: $path, env: $env, flag: $flag, value: $value, default: $default, help: $help,
        };)+
        /// Every key, in the order of the example file.
        pub const KEYS: &[Key] = &[$($name,)+];
    };
}

keys! {
    LISTEN = "listeners[].listen", "POOLSCOPE_LISTEN", "listen", "ADDR", None,
        "Address to accept clients on, such as 127.0.0.1:27018; the n-th belongs to the n-th upstream";
    UPSTREAM = "listeners[].upstream", "POOLSCOPE_UPSTREAM", "upstream", "HOST:PORT", None,
        "Server behind the n-th listener; every accepted connection is dialled there, once";
    NAME = "listeners[].name", "POOLSCOPE_NAME", "name", "NAME", None,
        "Name of the n-th upstream in metrics and API [default: its host:port]";
    ADVERTISED = "listeners[].advertised", "POOLSCOPE_ADVERTISED", "advertised", "HOST:PORT,..", None,
        "Names under which clients know the n-th listener; a server calling itself otherwise is reported, because drivers then walk round the proxy [default: the listen address]";
    CONNECT_TIMEOUT = "connect_timeout", "POOLSCOPE_CONNECT_TIMEOUT", "connect-timeout", "DURATION", Some("5s"),
        "Longest wait for a server to accept a dial; then the client is reset";
    KEEPALIVE = "keepalive", "POOLSCOPE_KEEPALIVE", "keepalive", "DURATION", Some("2m"),
        "Idle time after which the kernel probes a peer, on both sides";
    DRAIN_TIMEOUT = "drain_timeout", "POOLSCOPE_DRAIN_TIMEOUT", "drain-timeout", "DURATION", Some("25s"),
        "Time over which connections are ended after SIGTERM";
    WORKERS = "workers", "POOLSCOPE_WORKERS", "workers", "N|auto", Some("auto"),
        "Threads that forward; auto takes one a core of the quota";
    WEB_LISTEN_ADDRESS = "web.listen_address", "POOLSCOPE_WEB_LISTEN_ADDRESS", "web.listen-address", "ADDR", Some("127.0.0.1:9604"),
        "Address of metrics and API; nobody is asked for a password there";
    MAX_CLIENTS = "max_clients", "POOLSCOPE_MAX_CLIENTS", "max-clients", "N", Some("250"),
        "Client instances with their own row and series; further ones are counted as `other`";
    CLIENT_TTL = "client_ttl", "POOLSCOPE_CLIENT_TTL", "client-ttl", "DURATION", Some("15m"),
        "Time without a connection after which a client instance is forgotten";
    MAX_CONNECTIONS = "max_connections", "POOLSCOPE_MAX_CONNECTIONS", "max-connections", "N", Some("20000"),
        "Open client connections; further ones are reset";
    CAPTURE_LIMIT = "capture_limit", "POOLSCOPE_CAPTURE_LIMIT", "capture-limit", "SIZE", Some("16KiB"),
        "Bytes of one message that may be held for reading it whole";
    INFLATE_LIMIT = "inflate_limit", "POOLSCOPE_INFLATE_LIMIT", "inflate-limit", "SIZE", Some("1MiB"),
        "Bytes that may come out of one compressed message for reading it";
    OBSERVE_BUDGET = "observe_budget", "POOLSCOPE_OBSERVE_BUDGET", "observe-budget", "PERCENT|off", Some("50%"),
        "Share of a worker's time that looking at the traffic may take; beyond it connections are forwarded without being looked at";
    METRICS_DETAIL = "metrics.detail", "POOLSCOPE_METRICS_DETAIL", "metrics.detail", "DETAIL", Some("standard"),
        "How much the exposition tells: minimal leaves the histograms of clients out, standard is everything";
    JOURNAL_PATH = "journal.path", "POOLSCOPE_JOURNAL_PATH", "journal.path", "PATH|none", Some("none"),
        "File to record what happens to connections in, for poolscope replay; none records nothing";
    JOURNAL_MAX_SIZE = "journal.max_size", "POOLSCOPE_JOURNAL_MAX_SIZE", "journal.max-size", "SIZE", Some("64MiB"),
        "Size at which the journal goes on in a new file";
    JOURNAL_MAX_FILES = "journal.max_files", "POOLSCOPE_JOURNAL_MAX_FILES", "journal.max-files", "N", Some("4"),
        "Files of the journal that are kept, the one being written included";
    LOG_LEVEL = "log.level", "POOLSCOPE_LOG_LEVEL", "log.level", "FILTER", Some("info"),
        "What is logged: a level, or a list such as info,poolscope::proxy=debug";
    LOG_FORMAT = "log.format", "POOLSCOPE_LOG_FORMAT", "log.format", "FORM", Some("human"),
        "Form of the log lines on the standard error stream: human or json";
}

/// The variable that names the file.
pub const CONFIG_ENV: &str = "POOLSCOPE_CONFIG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings_follow_from_each_other() {
        assert_eq!(KEYS.len(), 21);
        for key in KEYS {
            let short = key.path.strip_prefix("listeners[].").unwrap_or(key.path);
            assert_eq!(key.flag, short.replace('_', "-"));
            assert_eq!(
                key.env,
                format!("POOLSCOPE_{}", short.replace('.', "_").to_uppercase())
            );
            assert_eq!(key.default.is_none(), key.is_of_listener());
        }
    }
}
