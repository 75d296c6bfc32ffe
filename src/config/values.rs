//! How values are written: durations, sizes, counts and addresses. Every parser takes the text and tells, when it
//! cannot be meant, why; every formatter writes what its parser reads back as the same value.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{LogFormat, MetricsDetail};

/// Units of durations with their milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Units of sizes with their bytes, the largest first.
const SIZE_UNITS: [(&str, usize); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Longest name of an upstream, in bytes: it stands in every series and every row.
const NAME_LEN_MAX: usize = 128;

/// A duration such as `5s`, `1m30s` or `250ms`.
pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let mut rest = text;
    let mut millis: u64 = 0;
    if text.is_empty() {
        return Err("a duration is missing, such as 5s".to_owned());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)
            .ok_or_else(|| format!("{text:?} is not a duration such as 250ms, 5s or 1m30s"))?;
        let unit_len = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, factor) = DURATION_UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| match unit {
                "" => format!("{text:?} has no unit; write ms, s, m, h or d behind the number"),
                _ => format!("{text:?} has an unknown unit; write ms, s, m, h or d"),
            })?;
        millis = number
            .checked_mul(factor)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| format!("{text:?} is too long"))?;
        rest = after;
    }
    within(Duration::from_millis(millis), range, |&d| {
        format_duration(d)
    })
}

/// A size such as `16KiB`.
pub(super) fn size(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
    let (number, unit) =
        split_number(text).ok_or_else(|| format!("{text:?} is not a size such as 16KiB"))?;
    let unit = unit.trim_start();
    let (_, factor) = SIZE_UNITS
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| match unit {
            "" => format!("{text:?} has no unit; write B, KiB, MiB or GiB behind the number"),
            _ => format!("{text:?} has an unknown unit; write B, KiB, MiB or GiB"),
        })?;
    let bytes = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is too large"))?;
    within(bytes, range, |&bytes| format_size(bytes))
}

/// A whole number.
pub(super) fn count(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
    let number = text
        .parse()
        .map_err(|_| format!("{text:?} is not a whole number"))?;
    within(number, range, ToString::to_string)
}

/// `auto` or a number of threads.
pub(super) fn workers(text: &str, range: &RangeInclusive<usize>) -> Result<Option<usize>, String> {
    if text == "auto" {
        return Ok(None);
    }
    count(text, range)
        .map(Some)
        .map_err(|reason| format!("{reason}; or write auto"))
}

/// `off` or a share from 1% to 100%.
pub(super) fn share(text: &str) -> Result<Option<u32>, String> {
    if text == "off" {
        return Ok(None);
    }
    let percent = text
        .strip_suffix('%')
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("{text:?} is not a share such as 50%; or write off"))?;
    within(percent, &(1..=100), |percent| format!("{percent}%")).map(Some)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let len = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(len)?;
    Some((digits.parse().ok()?, rest))
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if value < *range.start() {
        return Err(format!(
            "{} is less than the least possible value, {}",
            show(&value),
            show(range.start())
        ));
    }
    if value > *range.end() {
        return Err(format!(
            "{} is more than the greatest possible value, {}",
            show(&value),
            show(range.end())
        ));
    }
    Ok(value)
}

/// Writes a duration the way the configuration reads it; parts below a millisecond are dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        // Whole days are for life times; 36 hours read better than a day and 12 hours.
        if unit == "d" && rest % factor != 0 {
            continue;
        }
        if rest >= factor {
            text.push_str(&(rest / factor).to_string());
            text.push_str(unit);
            rest %= factor;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Writes a size the way the configuration reads it.
pub fn format_size(bytes: usize) -> String {
    SIZE_UNITS
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || format!("{bytes}B"),
            |(unit, factor)| format!("{}{unit}", bytes / factor),
        )
}

/// An address to listen on: numeric, with a port; port 0 lets the system choose.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        if text.parse::<IpAddr>().is_ok() {
            format!("{text:?} has no port")
        } else {
            format!(
                "{text:?} is not an address to listen on, such as 127.0.0.1:27018 or [::1]:27018"
            )
        }
    })
}

/// The host of an address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A numeric address.
    Ip(IpAddr),
    /// A name, in lower case.
    Name(String),
}

/// A host with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// `host:port`, `a.b.c.d:port` or `[ipv6]:port`; a port is never guessed.
pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    if text.contains("://") {
        return Err(format!(
            "{text:?} is a connection string; write one host:port"
        ));
    }
    if text.contains(',') {
        return Err(format!(
            "{text:?} names several servers; write one host:port"
        ));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!(
            "{text:?} has no port, or its address no brackets; write [ipv6]:port"
        ));
    }
    let (host, port) = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'))
        .ok_or_else(|| format!("{text:?} has no port; write host:port"))?;
    let port = match port.parse::<u16>() {
        Ok(0) => return Err(format!("{text:?} has port 0, where nothing can be reached")),
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => number,
        _ => return Err(format!("{text:?} has no port between 1 and 65535")),
    };
    let host = if let Some(inner) = host.strip_prefix('[') {
        inner
            .strip_suffix(']')
            .and_then(|inner| inner.parse().ok())
            .map(|ip| Host::Ip(IpAddr::V6(ip)))
    } else if let Ok(ip) = host.parse() {
        Some(Host::Ip(IpAddr::V4(ip)))
    } else {
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        is_name.then(|| Host::Name(host.to_ascii_lowercase()))
    };
    host.map(|host| HostPort { host, port })
        .ok_or_else(|| format!("{text:?} has no host that could be looked up"))
}

/// The name of an upstream: it becomes a label and a row, so it is kept to a safe alphabet.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_LEN_MAX {
        return Err(format!(
            "a name has 1 to {NAME_LEN_MAX} bytes, this one has {}",
            text.len()
        ));
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-_.:/[]".contains(*c))
    {
        return Err(format!(
            "{bad:?} cannot stand in a name; letters, digits and - _ . : / [ ] can"
        ));
    }
    if text == "other" {
        return Err("\"other\" is taken: it stands for what is over a limit".to_owned());
    }
    Ok(text.to_owned())
}

/// A path, or `none`.
pub(super) fn optional_path(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Err("a path is missing; write none to have none".to_owned()),
        "none" => Ok(None),
        path if path.contains('\0') => Err(format!("{path:?} is not a path")),
        path => Ok(Some(path.into())),
    }
}

/// A level, or a list of levels and `target=level`.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| word.eq_ignore_ascii_case(level))
    };
    for part in text.split(',') {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, part),
        };
        if !is_level(level) {
            return Err(format!(
                "{level:?} is not a level; there are off, error, warn, info, debug and trace, alone or as target=level"
            ));
        }
        let is_target = |target: &str| {
            !target.is_empty()
                && target
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
        };
        if target.is_some_and(|target| !is_target(target)) {
            return Err(format!("{part:?} has no target such as poolscope::proxy"));
        }
    }
    Ok(text.to_owned())
}

/// `human` or `json`.
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    [LogFormat::Human, LogFormat::Json]
        .into_iter()
        .find(|format| format.to_string() == text)
        .ok_or_else(|| format!("{text:?} is not a form of logs; there are human and json"))
}

/// `minimal` or `standard`.
pub(super) fn metrics_detail(text: &str) -> Result<MetricsDetail, String> {
    [MetricsDetail::Minimal, MetricsDetail::Standard]
        .into_iter()
        .find(|detail| detail.to_string() == text)
        .ok_or_else(|| format!("{text:?} is not a detail; there are minimal and standard"))
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

impl fmt::Display for MetricsDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    #[test]
    fn durations_survive_the_round_trip() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5000),
            ("1m30s", 90_000),
            ("15m", 900_000),
            ("36h", 129_600_000),
            ("7d", 604_800_000),
            ("1h1ms", 3_600_001),
        ] {
            let value = duration(text, &ANY).unwrap();
            assert_eq!(value, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(value), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5x",
            "1.5s",
            "5s5",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(duration(text, &ANY).is_err(), "{text:?}");
        }
        let range = Duration::from_secs(1)..=Duration::from_hours(1);
        assert_eq!(
            duration("0s", &range).unwrap_err(),
            "0s is less than the least possible value, 1s"
        );
        assert_eq!(
            duration("61m", &range).unwrap_err(),
            "1h1m is more than the greatest possible value, 1h"
        );
    }

    #[test]
    fn sizes_survive_the_round_trip() {
        for (text, bytes) in [
            ("0B", 0),
            ("100B", 100),
            ("16KiB", 16_384),
            ("1MiB", 1 << 20),
            ("1025KiB", 1025 << 10),
        ] {
            let value = size(text, &(0..=usize::MAX)).unwrap();
            assert_eq!(value, bytes, "{text}");
            assert_eq!(format_size(value), text);
        }
        for text in [
            "",
            "16",
            "16KB",
            "KiB",
            "-1B",
            "99999999999999999999B",
            "18446744073709551615GiB",
        ] {
            assert!(size(text, &(0..=usize::MAX)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn servers_need_a_host_and_a_port() {
        for text in [
            "db:27017",
            "10.0.0.1:1",
            "[::1]:65535",
            "mongo-0.mongo.default.svc:27017",
        ] {
            assert!(host_port(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "db",
            "db:",
            "db:0",
            "db:65536",
            "db:+1",
            ":27017",
            "::1",
            "::1:27017",
            "[::1]",
            "[db]:1",
            "a b:1",
            "mongodb://db:27017",
            "a:1,b:2",
            "db\n:1",
        ] {
            assert!(host_port(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_keep_to_a_safe_alphabet() {
        for text in ["orders", "10.0.0.1:27017", "[::1]:27017"] {
            assert!(name(text).is_ok(), "{text}");
        }
        let long = "a".repeat(129);
        for text in ["", "a b", "a\"b", "a\nb", "ä", "other", long.as_str()] {
            assert!(name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn filters_name_levels() {
        for text in ["info", "WARN", "info,poolscope::proxy=debug"] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in ["", "inof", "=debug", "a b=debug", "info,", "poolscope=loud"] {
            assert!(log_filter(text).is_err(), "{text:?}");
        }
    }
}
