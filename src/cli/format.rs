//! Values as people read them: short, one line, and harmless.

use unicode_width::UnicodeWidthChar;

use crate::telemetry::is_invisible;

/// Columns a character takes on a terminal.
fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Columns a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Text from the wire as one harmless line: what would move the cursor, change colours or reverse the line is
/// shown as its escape.
pub(super) fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\r' | '\t') {
            shown.extend(c.escape_default());
        } else if is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The beginning of a text and its last `tail` columns, together at most `max` columns; `…` stands for what was
/// cut. A tail that leaves no room is cut as well.
pub(super) fn shorten(text: &str, max: usize, tail: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    // One column for the mark, and some of the beginning should be left.
    let tail = if tail + 3 <= max { tail } else { 0 };
    let head: String = take_columns(text.chars(), max.saturating_sub(tail + 1)).collect();
    let mut end: Vec<char> = take_columns(text.chars().rev(), tail).collect();
    // Marks belong to the character before them, which was cut.
    while end.last().is_some_and(|c| char_width(*c) == 0) {
        end.pop();
    }
    head + "…" + &end.into_iter().rev().collect::<String>()
}

fn take_columns(chars: impl Iterator<Item = char>, max: usize) -> impl Iterator<Item = char> {
    let mut used = 0;
    chars.take_while(move |c| {
        used += char_width(*c);
        used <= max
    })
}

/// A count in at most five columns.
#[expect(
    clippy::cast_precision_loss,
    reason = "only the first three digits are shown"
)]
pub(super) fn count(count: u64) -> String {
    if count < 100_000 {
        count.to_string()
    } else {
        number(count as f64)
    }
}

/// A count in at most four columns.
#[expect(
    clippy::cast_precision_loss,
    reason = "only the first two digits are shown"
)]
pub(super) fn brief(count: u64) -> String {
    if count < 10_000 {
        count.to_string()
    } else if count < 999_500 {
        format!("{:.0}k", count as f64 / 1e3)
    } else {
        number(count as f64)
    }
}

/// A number in at most five columns.
pub(super) fn number(number: f64) -> String {
    const UNITS: [(f64, &str); 5] = [
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
    ];
    if number < 9.95 {
        return format!("{number:.1}");
    }
    if number < 99_999.5 {
        return format!("{number:.0}");
    }
    if number < 999_500.0 {
        return format!("{:.0}k", number / 1e3);
    }
    let (factor, unit) = UNITS
        .into_iter()
        .find(|(factor, _)| number >= factor * 0.9995)
        .unwrap_or((1e6, "M"));
    let scaled = number / factor;
    if scaled < 9.95 {
        format!("{scaled:.1}{unit}")
    } else {
        format!("{scaled:.0}{unit}")
    }
}

/// A duration in at most five columns, in its largest sensible unit.
pub(super) fn duration(seconds: f64) -> String {
    let millis = seconds * 1e3;
    if millis > 0.0 && millis < 0.095 {
        format!("{:.0}µs", seconds * 1e6)
    } else if millis < 9.95 {
        format!("{millis:.1}ms")
    } else if millis < 999.5 {
        format!("{millis:.0}ms")
    } else if seconds < 9.95 {
        format!("{seconds:.1}s")
    } else if seconds < 99.5 {
        format!("{seconds:.0}s")
    } else if seconds < 100.0 * 60.0 {
        format!("{:.0}m", (seconds / 60.0).floor())
    } else if seconds < 48.0 * 3600.0 {
        format!("{:.0}h", (seconds / 3600.0).floor())
    } else {
        format!("{:.0}d", (seconds / 86_400.0).floor())
    }
}

/// What is not known.
pub(super) const UNKNOWN: &str = "-";

/// A value that may not be known.
pub(super) fn or_unknown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

/// `1 client`, `2 clients`.
pub(super) fn plural(number: u64, one: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {one}{end}", count(number))
}

/// A driver as people call it: the first of the chain, without the words every driver has, with its version, and
/// what is built on it.
pub(super) fn driver(name: &str, version: &str) -> String {
    let mut names = name.split('|');
    let first = names.next().unwrap_or_default();
    let first = first.strip_prefix("mongo-").unwrap_or(first);
    let first = first.strip_suffix("-driver").unwrap_or(first);
    let version = version.split('|').next().unwrap_or_default();
    // `c` and `async` are parts of PyMongo, `sync` of the Java driver: not worth a column.
    let on_top = names.find(|name| !["c", "async", "sync", "legacy"].contains(name));
    let shown = match on_top {
        Some(on_top) => format!("{first} {version} {on_top}"),
        None => format!("{first} {version}"),
    };
    safe(shown.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shortened_by_columns_and_keep_their_tail() {
        for (text, max, tail, expected) in [
            ("orders", 6, 0, "orders"),
            ("orders-api", 6, 0, "order…"),
            ("orders-api@10.0.0.1", 14, 9, "orde…@10.0.0.1"),
            ("orders-api@10.0.0.1", 10, 9, "orders-ap…"),
            ("中文中文中文", 6, 0, "中文…"),
            ("中文中文@1", 7, 2, "中文…@1"),
            ("e\u{301}e\u{301}e\u{301}", 2, 0, "e\u{301}…"),
        ] {
            let shown = shorten(text, max, tail);
            assert_eq!(shown, expected);
            assert!(width(&shown) <= max);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_499, "999k"),
            (999_999, "1.0M"),
            (12_345_678, "12M"),
            (999_999_999, "1.0G"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(count(value), expected);
        }
        assert_eq!(number(0.04), "0.0");
        assert_eq!(number(9.96), "10");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(0.000_025), "25µs");
        for (seconds, expected) in [
            (0.0, "0.0ms"),
            (0.001_234, "1.2ms"),
            (0.087, "87ms"),
            (0.9999, "1.0s"),
            (12.4, "12s"),
            (180.0, "3m"),
            (7200.0, "2h"),
            (200_000.0, "2d"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn drivers_are_called_as_people_call_them() {
        for (name, version, expected) in [
            ("PyMongo|c|async", "4.9.1", "PyMongo 4.9.1"),
            ("nodejs|Mongoose", "6.8.0|8.1.0", "nodejs 6.8.0 Mongoose"),
            ("mongo-rust-driver", "3.2.1", "rust 3.2.1"),
            ("mongo-java-driver|sync", "5.1.0", "java 5.1.0"),
            ("", "", ""),
            ("\u{1b}[2J", "1", "\\u{1b}[2J 1"),
        ] {
            assert_eq!(driver(name, version), expected);
        }
    }
}
