//! Time as a plain integer.
//!
//! The pure floors never read a clock: the shell passes the moment in. Moments are nanoseconds since the
//! Unix epoch, anchored once at start and advanced by the monotonic clock, so they never run backwards and
//! can be printed as wall time.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment: nanoseconds since the Unix epoch, advanced monotonically.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The last multiple of `grid` since the Unix epoch up to this moment.
    #[must_use]
    pub fn floor(self, grid: Duration) -> Self {
        let grid = u64::try_from(grid.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self(self.0 / grid * grid)
    }

    /// The time between the two, whichever is earlier.
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0))
    }
}

/// A duration in whole microseconds, at most 71 minutes: a quarter of the size of a [`Duration`], where one is kept
/// for every connection. What is longer counts as that, and is written as a [`Duration`] is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "Duration", into = "Duration")]
pub struct Micros(u32);

impl Micros {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// `micros` microseconds.
    pub const fn new(micros: u32) -> Self {
        Self(micros)
    }

    /// The same as a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_micros(u64::from(self.0))
    }
}

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Self {
        micros.duration()
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T21:46:28.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        let second_of_day = millis / 1000 % 86_400;
        let (year, month, day) = civil_from_days(millis / 86_400_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            second_of_day / 3600,
            second_of_day / 60 % 60,
            second_of_day % 60,
            millis % 1000,
        )
    }
}

/// A text that is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a moment in UTC such as 2026-11-23T21:46:28.123Z")]
pub struct ParseTimestampError;

/// Reads RFC 3339 in UTC, with or without a fraction of the second; what is finer than a nanosecond is dropped.
impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or(ParseTimestampError)
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let part = |from: usize, to: usize| -> Option<u64> {
        let digits = whole.get(from..to)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &[u8]| {
        let found = whole.as_bytes().get(at);
        found.is_some_and(|byte| marks.contains(byte))
    };
    let is_shaped = whole.len() == 19
        && [4, 7].into_iter().all(|at| mark(at, b"-"))
        && mark(10, b"Tt ")
        && [13, 16].into_iter().all(|at| mark(at, b":"));
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let is_time = hour < 24 && minute < 60 && second < 61;
    if !(is_shaped && is_time && year >= 1970 && (1..=12).contains(&month)) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that its month does not have comes out as another one.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u64 = is_number.then(|| fraction.parse().ok())??;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    let nanos = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(Timestamp::from_nanos(nanos))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, from that year on.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" § `days_from_civil`.
const fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // One day more than the date has, so that day 0 cannot go below zero.
    (era * 146_097 + day_of_era).saturating_sub(719_469)
}

/// Year, month and day of the Gregorian calendar, `days` days after 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" § `civil_from_days`. Nanoseconds in 64
/// bits end in the year 2554, so nothing here can overflow.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // Days are counted from 0000-03-01, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micros_are_small_and_stop_at_the_longest() {
        // The state of both sockets is kept for every connection, in its cell and by the observer, and in each sample.
        assert_eq!(size_of::<crate::timeline::TcpState>(), 24);
        let check = |nanos: u64, expected: u64| {
            let micros = Micros::from(Duration::from_nanos(nanos));
            assert_eq!(
                micros.duration(),
                Duration::from_micros(expected),
                "{nanos}"
            );
        };
        check(0, 0);
        check(1_999, 1);
        check(4_294_967_295_000, 4_294_967_295);
        check(4_294_967_296_000, 4_294_967_295);
        check(u64::MAX, 4_294_967_295);
    }

    #[test]
    fn moments_print_as_wall_time() {
        // Seconds from `date -u -d … +%s`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_795_469_188, "2026-11-23T21:26:28.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let moment = Timestamp::from_nanos(seconds * 1_000_000_000);
            assert_eq!(moment.to_string(), expected);
        }
        let last = Timestamp::from_nanos(u64::MAX);
        assert_eq!(last.to_string(), "2554-07-21T23:34:33.709Z");
    }

    #[test]
    fn moments_are_read_as_they_are_printed() {
        for nanos in [
            0,
            951_782_399_000_000_000,
            951_782_400_001_000_000,
            1_709_164_800_999_000_000,
            4_107_542_400_000_000_000,
        ] {
            let moment = Timestamp::from_nanos(nanos);
            assert_eq!(moment.to_string().parse(), Ok(moment));
        }
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                text.parse().ok(),
                expected.map(Timestamp::from_nanos),
                "{text}"
            );
        };
        check("1970-01-01T00:00:01Z", Some(1_000_000_000));
        check("1970-01-01T00:00:00.1234567891Z", Some(123_456_789));
        check("1970-01-02t00:00:00z", Some(86_400_000_000_000));
        for text in [
            "",
            "yesterday",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00+01:00",
            "1970-01-01T24:00:00Z",
            "1970-02-30T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T+0:00:00Z",
            "9999-12-31T23:59:59Z",
            "中970-01-01T00:00:0Z",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn moments_are_rounded_down_to_a_grid() {
        let check = |at: u64, millis: u64, expected: u64| {
            let floor = Timestamp::from_nanos(at).floor(Duration::from_millis(millis));
            assert_eq!(floor.as_nanos(), expected, "{at} by {millis} ms");
        };
        check(0, 10, 0);
        check(9_999_999, 10, 0);
        check(10_000_000, 10, 10_000_000);
        check(u64::MAX, 1, u64::MAX / 1_000_000 * 1_000_000);
        check(7, 0, 7);
    }

    #[test]
    fn differences_never_go_below_zero() {
        let early = Timestamp::from_nanos(5);
        let late = early + Duration::from_nanos(7);
        assert_eq!(late.since(early), Duration::from_nanos(7));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early - Duration::from_secs(1), Timestamp::from_nanos(0));
    }
}
