//! Histograms as relaxed atomics: fixed bounds for exposition, fine ones for percentiles.
//!
//! Values are recorded as integers (nanoseconds, bytes, requests) and only shown as floating point, so no
//! value near a bound falls to its wrong side. A bucket holds values at most its bound, as in Prometheus.
//!
//! The fine histogram is log-linear with decimal bounds: a decade is 1 1.25 1.5 1.75 2 2.5 3 3.5 4 5 6 7 8 9,
//! from 10 µs to 100 s. Every bound of the exposed histogram is one of them, so that percentiles and exposed
//! buckets come from the same counts. **Invariant:** recording neither locks nor allocates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::HistogramRow;

/// Bounds of a histogram: as recorded and as shown.
#[derive(Debug)]
pub(crate) struct Scale {
    /// Upper bounds in the unit recorded, ascending.
    pub(crate) recorded: &'static [u64],
    /// The same bounds in the unit shown.
    pub(crate) shown: &'static [f64],
    /// Recorded units in one shown unit.
    pub(crate) recorded_per_shown: f64,
}

const NANOS_PER_SECOND: f64 = 1e9;

/// Command and connect times: nanoseconds shown as seconds.
pub(crate) static COMMAND_TIMES: Scale = Scale {
    recorded: &[
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    shown: &[
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ],
    recorded_per_shown: NANOS_PER_SECOND,
};

/// Times until a connection is ready: nanoseconds shown as seconds.
pub(crate) static HANDSHAKES: Scale = Scale {
    recorded: &[
        1_000_000,
        5_000_000,
        10_000_000,
        50_000_000,
        100_000_000,
        500_000_000,
        1_000_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    shown: &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0],
    recorded_per_shown: NANOS_PER_SECOND,
};

/// Lifetimes of connections: nanoseconds shown as seconds.
pub(crate) static LIFETIMES: Scale = Scale {
    recorded: &[
        100_000_000,
        1_000_000_000,
        10_000_000_000,
        60_000_000_000,
        300_000_000_000,
        600_000_000_000,
        1_800_000_000_000,
        3_600_000_000_000,
        21_600_000_000_000,
        86_400_000_000_000,
    ],
    shown: &[
        0.1, 1.0, 10.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 21_600.0, 86_400.0,
    ],
    recorded_per_shown: NANOS_PER_SECOND,
};

/// Requests carried by a connection.
pub(crate) static REQUESTS: Scale = Scale {
    recorded: &[1, 2, 5, 10, 50, 100, 1000, 10_000, 100_000],
    shown: &[
        1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 1000.0, 10_000.0, 100_000.0,
    ],
    recorded_per_shown: 1.0,
};

/// Sizes of messages in bytes.
pub(crate) static MESSAGE_SIZES: Scale = Scale {
    recorded: &[
        64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
    ],
    shown: &[
        64.0,
        256.0,
        1024.0,
        4096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
        16_777_216.0,
    ],
    recorded_per_shown: 1.0,
};

/// A histogram with the bounds of a [`Scale`].
#[derive(Debug)]
pub(crate) struct Histogram {
    scale: &'static Scale,
    /// One count a bound and one for what lies above the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new(scale: &'static Scale) -> Self {
        Self {
            scale,
            counts: std::iter::repeat_with(AtomicU64::default)
                .take(scale.recorded.len() + 1)
                .collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts `value`, in the recorded unit of the scale.
    pub(crate) fn record(&self, value: u64) {
        let position = self.scale.recorded.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(position) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts `duration` in a scale of nanoseconds.
    pub(crate) fn record_duration(&self, duration: Duration) {
        self.record(nanos(duration));
    }

    /// The cumulative row for exposition.
    pub(crate) fn row(&self) -> HistogramRow {
        let mut below = 0_u64;
        let mut counts: Vec<u64> = self
            .counts
            .iter()
            .map(|count| {
                below = below.saturating_add(count.load(Ordering::Relaxed));
                below
            })
            .collect();
        let count = counts.pop().unwrap_or_default();
        HistogramRow {
            bounds: self.scale.shown,
            counts,
            count,
            sum: float(self.sum.load(Ordering::Relaxed)) / self.scale.recorded_per_shown,
        }
    }
}

/// Steps of a decade, in hundredths.
const STEPS: [u64; 14] = [
    100, 125, 150, 175, 200, 250, 300, 350, 400, 500, 600, 700, 800, 900,
];

/// Decades from 10 µs (inclusive) to 100 s (exclusive).
const DECADES: usize = 7;

/// Bounds of the fine histogram: every step of every decade, and 100 s.
const FINE_BOUNDS_COUNT: usize = STEPS.len() * DECADES + 1;

/// Upper bounds of the fine histogram in nanoseconds.
static FINE_BOUNDS: [u64; FINE_BOUNDS_COUNT] = fine_bounds();

const fn fine_bounds() -> [u64; FINE_BOUNDS_COUNT] {
    let mut bounds = [0; FINE_BOUNDS_COUNT];
    // A hundredth of 10 µs in nanoseconds.
    let mut unit = 100_u64;
    let mut position = 0;
    while position < FINE_BOUNDS_COUNT {
        bounds[position] = STEPS[position % STEPS.len()] * unit;
        position += 1;
        if position.is_multiple_of(STEPS.len()) {
            unit *= 10;
        }
    }
    bounds
}

/// Command times, fine enough for percentiles.
#[derive(Debug)]
pub(crate) struct LatencyHistogram {
    /// One count a bound and one for what lies above the last.
    counts: [AtomicU64; FINE_BOUNDS_COUNT + 1],
    sum_nanos: AtomicU64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; FINE_BOUNDS_COUNT + 1],
            sum_nanos: AtomicU64::new(0),
        }
    }
}

impl LatencyHistogram {
    /// Counts `duration`.
    pub(crate) fn record(&self, duration: Duration) {
        let value = nanos(duration);
        let position = FINE_BOUNDS.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(position) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.fetch_add(value, Ordering::Relaxed);
    }

    /// The counts at this moment, from which everything else is derived.
    pub(crate) fn read(&self) -> LatencyCounts {
        LatencyCounts {
            counts: std::array::from_fn(|position| {
                self.counts
                    .get(position)
                    .map_or(0, |count| count.load(Ordering::Relaxed))
            }),
            sum_nanos: self.sum_nanos.load(Ordering::Relaxed),
        }
    }
}

/// Counts of a [`LatencyHistogram`] at one moment.
#[derive(Debug)]
pub(crate) struct LatencyCounts {
    counts: [u64; FINE_BOUNDS_COUNT + 1],
    sum_nanos: u64,
}

impl LatencyCounts {
    /// The duration below which `percent` of all observations lie, interpolated within its bucket; `None`
    /// without observations, 100 s when it lies above the last bound.
    pub(crate) fn percentile(&self, percent: u64) -> Option<Duration> {
        let total: u64 = self.counts.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = (u128::from(total) * u128::from(percent)).div_ceil(100);
        let rank = u64::try_from(rank).unwrap_or(u64::MAX).max(1);
        let mut below = 0_u64;
        let mut lower = 0_u64;
        for (bound, count) in FINE_BOUNDS.iter().zip(&self.counts) {
            if below + count >= rank {
                let within = u128::from(bound - lower) * u128::from(rank - below);
                let within = within / u128::from(*count);
                let within = u64::try_from(within).unwrap_or(u64::MAX);
                return Some(Duration::from_nanos(lower + within));
            }
            below += count;
            lower = *bound;
        }
        Some(Duration::from_nanos(lower))
    }

    /// The cumulative row with the bounds of [`COMMAND_TIMES`].
    pub(crate) fn row(&self) -> HistogramRow {
        let mut fine = FINE_BOUNDS.iter().zip(&self.counts).peekable();
        let mut below = 0;
        let counts = COMMAND_TIMES
            .recorded
            .iter()
            .map(|bound| {
                while let Some((_, count)) = fine.next_if(|(fine_bound, _)| *fine_bound <= bound) {
                    below += count;
                }
                below
            })
            .collect();
        HistogramRow {
            bounds: COMMAND_TIMES.shown,
            counts,
            count: self.counts.iter().sum(),
            sum: float(self.sum_nanos) / NANOS_PER_SECOND,
        }
    }
}

/// Whole nanoseconds, saturating after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition has only floating point; above 2^53 a sum is rounded"
)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_bounds_rise_and_contain_every_exposed_bound() {
        assert!(FINE_BOUNDS.is_sorted());
        assert_eq!(FINE_BOUNDS.first(), Some(&10_000));
        assert_eq!(FINE_BOUNDS.last(), Some(&100_000_000_000));
        for bound in COMMAND_TIMES.recorded {
            assert!(FINE_BOUNDS.contains(bound), "{bound} ns");
        }
    }

    #[test]
    fn scales_show_what_they_record() {
        for scale in [
            &COMMAND_TIMES,
            &HANDSHAKES,
            &LIFETIMES,
            &REQUESTS,
            &MESSAGE_SIZES,
        ] {
            assert_eq!(scale.recorded.len(), scale.shown.len());
            for (recorded, shown) in scale.recorded.iter().zip(scale.shown) {
                let difference = float(*recorded) - shown * scale.recorded_per_shown;
                assert!(difference.abs() < 1e-3, "{recorded} is shown as {shown}");
            }
        }
    }

    #[test]
    fn exposed_buckets_are_exact_at_and_around_every_bound() {
        let fine = LatencyHistogram::default();
        let plain = Histogram::new(&COMMAND_TIMES);
        for bound in COMMAND_TIMES.recorded {
            for value in [bound - 1, *bound, bound + 1] {
                fine.record(Duration::from_nanos(value));
                plain.record(value);
            }
        }
        for value in [0, 1, 99_000_000_000, 100_000_000_001, 3_600_000_000_000] {
            fine.record(Duration::from_nanos(value));
            plain.record(value);
        }
        assert_eq!(fine.read().row(), plain.row());
    }

    fn check_percentile(values_micros: &[u64], percent: u64, expected_micros: u64) {
        let histogram = LatencyHistogram::default();
        for value in values_micros {
            histogram.record(Duration::from_micros(*value));
        }
        assert_eq!(
            histogram.read().percentile(percent),
            Some(Duration::from_micros(expected_micros)),
            "p{percent} of {values_micros:?}"
        );
    }

    #[test]
    fn percentiles_are_interpolated_within_their_bucket() {
        assert_eq!(LatencyHistogram::default().read().percentile(50), None);
        check_percentile(&[1000], 50, 1000);
        // Four values in the bucket from 1 ms to 1.25 ms: the second of them is half way.
        check_percentile(&[1100, 1100, 1100, 1100], 50, 1125);
        check_percentile(&[1100, 1100, 1100, 1100], 99, 1250);
        check_percentile(&[10, 10, 10, 10], 50, 5);
        check_percentile(&[10, 10, 10, 200_000_000], 99, 100_000_000);
    }

    #[test]
    fn percentiles_are_off_by_at_most_a_quarter() {
        let histogram = LatencyHistogram::default();
        for micros in 1..=100_000_u64 {
            histogram.record(Duration::from_micros(micros));
        }
        let counts = histogram.read();
        for percent in [50, 95, 99] {
            let found = counts.percentile(percent).unwrap().as_micros();
            let expected = u128::from(percent) * 1000;
            assert!(
                found.abs_diff(expected) * 100 <= expected,
                "p{percent} is {found} µs"
            );
        }
    }
}
