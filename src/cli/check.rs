//! `config check`: what is in force, and what the limits allow.

use rustix::process::{Resource, getrlimit};

use super::table::wrap;
use crate::config::{Loaded, MetricsDetail};
use crate::metrics::{
    SERIES_OF_ITSELF, SERIES_PER_CLIENT, SERIES_PER_CLIENT_MINIMAL, SERIES_PER_UPSTREAM,
};

/// Descriptors beside those of connections: standard streams, pollers and timers of the workers, the HTTP side
/// with its 64 connections, logs.
const DESCRIPTORS_BESIDE: usize = 192;

/// The configuration as a file that can be loaded, and below it as comments what it allows.
pub(super) fn report(loaded: &Loaded) -> String {
    let limit = getrlimit(Resource::Nofile);
    let mut text = loaded.to_string();
    for line in allowances(loaded, limit.current, limit.maximum) {
        text.push_str(&comment(&line));
    }
    for warning in &loaded.warnings {
        text.push_str(&comment(&format!("warning: {}", warning.escape_debug())));
    }
    text
}

/// A text as comment lines that fit a terminal.
fn comment(text: &str) -> String {
    let lines = wrap("  ", text);
    let lines = lines.lines().map(|line| line.strip_prefix("  "));
    lines
        .flatten()
        .fold(String::new(), |comment, line| comment + "# " + line + "\n")
}

/// `soft` and `hard` are the limits of the process; `None` is no limit.
fn allowances(loaded: &Loaded, soft: Option<u64>, hard: Option<u64>) -> Vec<String> {
    let config = &loaded.config;
    let clients = config.limits.clients_max;
    let upstreams = config.listeners.len();
    let each = match config.metrics_detail {
        MetricsDetail::Minimal => SERIES_PER_CLIENT_MINIMAL,
        MetricsDetail::Standard => SERIES_PER_CLIENT,
    };
    // The row for what is over the limit has series as well.
    let series = (clients + 1) * each + upstreams * SERIES_PER_UPSTREAM + SERIES_OF_ITSELF;
    let connections = config.limits.connections_max;
    let descriptors = 2 * connections + upstreams + DESCRIPTORS_BESIDE;
    let needed = u64::try_from(descriptors).unwrap_or(u64::MAX);
    let limit = |limit: Option<u64>| {
        limit.map_or_else(
            || "no limit".to_owned(),
            |limit| grouped(usize::try_from(limit).unwrap_or(usize::MAX)),
        )
    };
    // `serve` raises the soft limit to the hard one.
    let verdict = if hard.is_none_or(|hard| hard >= needed) {
        "enough".to_owned()
    } else {
        let enough_for = hard.map_or(0, |hard| {
            let left = usize::try_from(hard).unwrap_or(usize::MAX);
            left.saturating_sub(upstreams + DESCRIPTORS_BESIDE) / 2
        });
        format!(
            "enough for {} connections only; raise it (ulimit -Hn, LimitNOFILE=)",
            grouped(enough_for)
        )
    };
    let raised = if soft == hard {
        String::new()
    } else {
        format!(", which serve raises to {}", limit(hard))
    };
    vec![
        format!(
            "series: about {} when all clients are busy ({} for clients, {each} each; {} for upstreams, \
             {SERIES_PER_UPSTREAM} each)",
            grouped(series),
            grouped((clients + 1) * each),
            grouped(upstreams * SERIES_PER_UPSTREAM)
        ),
        format!(
            "descriptors: {} for {} connections; the limit is {}{raised}: {verdict}",
            grouped(descriptors),
            grouped(connections),
            limit(soft),
        ),
    ]
}

/// A number with commas between its thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layer};

    fn loaded() -> Loaded {
        let flags = Layer::from_flags(|flag| {
            let value = match flag {
                "listen" => "127.0.0.1:27018",
                "upstream" => "127.0.0.1:27017",
                _ => return None,
            };
            Some(vec![value.to_owned()])
        });
        Config::load(None, [], flags).unwrap()
    }

    #[test]
    fn the_defaults_stay_near_thirty_thousand_series() {
        let lines = allowances(&loaded(), Some(1024), Some(4096));
        assert_eq!(
            lines,
            [
                "series: about 30,228 when all clients are busy (29,618 for clients, 118 each; 500 for upstreams, \
                 500 each)",
                "descriptors: 40,193 for 20,000 connections; the limit is 1,024, which serve raises to 4,096: \
                 enough for 1,951 connections only; raise it (ulimit -Hn, LimitNOFILE=)",
            ]
        );
        for hard in [None, Some(40_193)] {
            let lines = allowances(&loaded(), Some(1024), hard);
            assert!(lines[1].ends_with(": enough"), "{}", lines[1]);
        }
    }

    #[test]
    fn the_report_can_be_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.yaml");
        let loaded = loaded();
        std::fs::write(&path, report(&loaded)).unwrap();
        let again = Config::load(Some(&path), [], Layer::default()).unwrap();
        assert_eq!(again.config, loaded.config);
    }
}
