//! The configuration file: YAML, every scalar read as text together with its place.
//!
//! Texts are understood later, by the same parsers that read the environment and the flags, so a value is written
//! the same way everywhere and a mistake found there can still name its line.

use std::path::Path;

use serde::Deserialize;
use serde_saphyr::{Spanned, UserMessageFormatter};

use super::error::{ConfigError, Problem};
use super::keys::{
    CAPTURE_LIMIT, CLIENT_TTL, CONNECT_TIMEOUT, DRAIN_TIMEOUT, INFLATE_LIMIT, JOURNAL_MAX_FILES,
    JOURNAL_MAX_SIZE, JOURNAL_PATH, KEEPALIVE, LOG_FORMAT, LOG_LEVEL, MAX_CLIENTS, MAX_CONNECTIONS,
    METRICS_DETAIL, OBSERVE_BUDGET, WEB_LISTEN_ADDRESS, WORKERS,
};
use super::layer::{Layer, ListenerSettings, Origin, Setting};

/// Longest file that is read: a configuration is a page, so anything longer is the wrong file.
const FILE_LEN_MAX: u64 = 1024 * 1024;

type Text = Option<Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listeners: Option<Vec<Spanned<Listener>>>,
    connect_timeout: Text,
    keepalive: Text,
    drain_timeout: Text,
    workers: Text,
    web: Option<Web>,
    max_clients: Text,
    client_ttl: Text,
    max_connections: Text,
    capture_limit: Text,
    inflate_limit: Text,
    observe_budget: Text,
    metrics: Option<Metrics>,
    journal: Option<Journal>,
    log: Option<Log>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listener {
    listen: Text,
    upstream: Text,
    name: Text,
    advertised: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Web {
    listen_address: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    detail: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    path: Text,
    max_size: Text,
    max_files: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    level: Text,
    format: Text,
}

/// Reads a file from disk.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let shown = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        ConfigError::new(vec![Problem {
            place: shown.clone(),
            reason: format!("cannot be read: {}", lower_first(&error.to_string())),
        }])
    };
    let len = std::fs::metadata(path).map_err(unreadable)?.len();
    if len > FILE_LEN_MAX {
        return Err(ConfigError::new(vec![Problem {
            place: shown,
            reason: format!(
                "has {len} bytes, more than the {FILE_LEN_MAX} a configuration may have"
            ),
        }]));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&shown, &text)
}

/// Understands the text of a file; `path` is for the messages.
pub(super) fn parse(path: &str, text: &str) -> Result<Layer, ConfigError> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(
            || path.to_owned(),
            |at| format!("{path}:{}:{}", at.line(), at.column()),
        );
        let reason = error
            .without_snippet()
            .render_with_formatter(&UserMessageFormatter);
        // The place is said in front.
        let reason = match reason.rfind(" at line ") {
            Some(end) => reason.get(..end).unwrap_or(&reason),
            None => &reason,
        };
        ConfigError::new(vec![Problem {
            place,
            reason: reason.to_owned(),
        }])
    })?;
    Ok(Reader { path }.layer(file))
}

struct Reader<'a> {
    path: &'a str,
}

impl Reader<'_> {
    fn layer(&self, file: File) -> Layer {
        let (log_level, log_format) = match file.log {
            Some(log) => (log.level, log.format),
            None => (None, None),
        };
        let journal = file.journal.unwrap_or_default();
        let texts = [
            (CONNECT_TIMEOUT, file.connect_timeout),
            (KEEPALIVE, file.keepalive),
            (DRAIN_TIMEOUT, file.drain_timeout),
            (WORKERS, file.workers),
            (
                WEB_LISTEN_ADDRESS,
                file.web.and_then(|web| web.listen_address),
            ),
            (MAX_CLIENTS, file.max_clients),
            (CLIENT_TTL, file.client_ttl),
            (MAX_CONNECTIONS, file.max_connections),
            (CAPTURE_LIMIT, file.capture_limit),
            (INFLATE_LIMIT, file.inflate_limit),
            (OBSERVE_BUDGET, file.observe_budget),
            (
                METRICS_DETAIL,
                file.metrics.and_then(|metrics| metrics.detail),
            ),
            (JOURNAL_PATH, journal.path),
            (JOURNAL_MAX_SIZE, journal.max_size),
            (JOURNAL_MAX_FILES, journal.max_files),
            (LOG_LEVEL, log_level),
            (LOG_FORMAT, log_format),
        ];
        Layer {
            settings: texts
                .into_iter()
                .filter_map(|(key, text)| Some((key.path, self.setting(text?))))
                .collect(),
            listeners: file
                .listeners
                .unwrap_or_default()
                .into_iter()
                .map(|listener| self.listener(listener))
                .collect(),
        }
    }

    fn listener(&self, listener: Spanned<Listener>) -> ListenerSettings {
        let origin = self.origin(&listener);
        let Listener {
            listen,
            upstream,
            name,
            advertised,
        } = listener.value;
        ListenerSettings {
            origin,
            listen: listen.map(|text| self.setting(text)),
            upstream: upstream.map(|text| self.setting(text)),
            name: name.map(|text| self.setting(text)),
            advertised: advertised
                .unwrap_or_default()
                .into_iter()
                .map(|text| self.setting(text))
                .collect(),
        }
    }

    fn setting(&self, text: Spanned<String>) -> Setting {
        let origin = self.origin(&text);
        Setting {
            text: text.value,
            origin,
        }
    }

    fn origin<T>(&self, spanned: &Spanned<T>) -> Origin {
        Origin::File {
            path: self.path.to_owned(),
            line: spanned.referenced.line(),
            column: spanned.referenced.column(),
        }
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}
