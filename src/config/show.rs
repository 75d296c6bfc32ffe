//! The configuration as a file: what is printed can be loaded again.

use std::fmt;

use super::keys::KEYS;
use super::values::{format_duration, format_size};
use super::{Config, Loaded};

impl Config {
    /// The text of a value as it would be written; `None` for keys of listeners.
    fn text(&self, path: &str) -> Option<String> {
        Some(match path {
            "connect_timeout" => format_duration(self.connect_timeout),
            "keepalive" => format_duration(self.keepalive),
            "drain_timeout" => format_duration(self.drain_timeout),
            "workers" => self
                .workers
                .map_or_else(|| "auto".to_owned(), |workers| workers.to_string()),
            "web.listen_address" => self.web.listen.to_string(),
            "max_clients" => self.limits.clients_max.to_string(),
            "client_ttl" => format_duration(self.limits.client_ttl),
            "max_connections" => self.limits.connections_max.to_string(),
            "capture_limit" => format_size(self.limits.capture_limit_bytes),
            "inflate_limit" => format_size(self.limits.inflate_limit_bytes),
            "observe_budget" => self
                .limits
                .observe_percent
                .map_or_else(|| "off".to_owned(), |percent| format!("{percent}%")),
            "metrics.detail" => self.metrics_detail.to_string(),
            "journal.path" => self
                .journal
                .path
                .as_ref()
                .map_or_else(|| "none".to_owned(), |path| path.display().to_string()),
            "journal.max_size" => format_size(self.journal.size_max_bytes),
            "journal.max_files" => self.journal.files_max.to_string(),
            "log.level" => self.log.filter.clone(),
            "log.format" => self.log.format.to_string(),
            _ => return None,
        })
    }
}

/// YAML, one line a value, with the origin of each behind it.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "listeners:")?;
        for listener in &self.config.listeners {
            writeln!(f, "  - listen: {:?}", listener.listen.to_string())?;
            writeln!(f, "    upstream: {:?}", listener.upstream)?;
            writeln!(f, "    name: {:?}", listener.name)?;
            if !listener.advertised.is_empty() {
                writeln!(f, "    advertised: {:?}", listener.advertised)?;
            }
        }
        let mut section = "";
        for key in KEYS {
            let Some(text) = self.config.text(key.path) else {
                continue;
            };
            let (of, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if of != section && !of.is_empty() {
                writeln!(f, "{of}:")?;
            }
            section = of;
            let indent = if of.is_empty() { "" } else { "  " };
            // Whatever could mean something in YAML is quoted.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let text = if text.chars().all(is_plain) {
                text
            } else {
                format!("{text:?}")
            };
            let line = format!("{indent}{name}: {text}");
            match self.origins.get(key.path) {
                Some(origin) => writeln!(f, "{line:<34} # {origin}")?,
                None => writeln!(f, "{line}")?,
            }
        }
        Ok(())
    }
}
