//! Numbers, times and names as sentences have them.

use std::time::Duration;

use crate::time::Timestamp;
use crate::timeline::Commands;

/// `1 connection`, `2 connections`, `3 replies`, `4 processes`.
pub(super) fn counted(number: u64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(begin)) => format!("{number} {begin}ies"),
        (_, None) if one.ends_with('s') => format!("{number} {one}es"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// ` (find ×2, update)`, or nothing.
pub(super) fn named(commands: &Commands) -> String {
    if commands.is_empty() {
        return String::new();
    }
    format!(" ({commands})")
}

/// How long something took: two digits that mean something, in the unit that suits it.
pub(super) fn length(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 0.1 {
        "less than 0.1 ms".to_owned()
    } else if millis < 9.95 {
        format!("{millis:.1} ms")
    } else if millis < 999.5 {
        format!("{millis:.0} ms")
    } else if millis < 119_950.0 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{:.0} min", (duration.as_secs_f64() / 60.0).floor())
    }
}

/// How far apart events are: whole milliseconds, and never none.
pub(super) fn within(span: Duration) -> String {
    let millis = span.as_nanos().div_ceil(1_000_000).max(1);
    if millis < 1000 {
        format!("{millis} ms")
    } else {
        length(span)
    }
}

/// The time of day in UTC, to the millisecond; the day stands beside it wherever it is shown.
pub(super) fn clock(at: Timestamp) -> String {
    let moment = at.to_string();
    moment.get(11..23).unwrap_or(&moment).to_owned()
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(names: &[String]) -> String {
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// `orders@10.0.0.11`, as the filters of the API and the log have it; the address alone without an application name.
pub(super) fn client(app: &str, address: &str) -> String {
    if app.is_empty() {
        address.to_owned()
    } else {
        format!("{app}@{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_the_unit_that_suits_them() {
        for (micros, expected) in [
            (0, "less than 0.1 ms"),
            (230, "0.2 ms"),
            (9_990, "10 ms"),
            (70_400, "70 ms"),
            (2_015_000, "2.0 s"),
            (150_000_000, "2 min"),
        ] {
            assert_eq!(length(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn events_of_one_moment_are_a_millisecond_apart_at_most() {
        for (micros, expected) in [
            (0, "1 ms"),
            (900, "1 ms"),
            (2_100, "3 ms"),
            (1_500_000, "1.5 s"),
        ] {
            assert_eq!(within(Duration::from_micros(micros)), expected);
        }
    }

    #[test]
    fn lists_and_counts_read_as_sentences() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(listed(&names[..1]), "a");
        assert_eq!(listed(&names[..2]), "a and b");
        assert_eq!(listed(&names), "a, b and c");
        assert_eq!(counted(1, "dial"), "1 dial");
        assert_eq!(counted(0, "dial"), "0 dials");
        assert_eq!(counted(3, "reply"), "3 replies");
        assert_eq!(client("orders", "10.0.0.1"), "orders@10.0.0.1");
        assert_eq!(client("", "10.0.0.1"), "10.0.0.1");
    }
}
