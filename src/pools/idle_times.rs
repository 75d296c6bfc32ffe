//! How long connections lie idle before they are used again.

use std::time::Duration;

/// Two classes for each doubling, from a millisecond to about two hours.
const CLASSES: usize = 47;

/// Beyond this the past is worth half, so that the distribution follows its pool.
const WEIGHT_MAX: u64 = 100_000;

/// A distribution of idle times; of bounded size, and exact to a fifth.
///
/// Measured from samples of counters: where a connection carried one operation since the sample before, the time from
/// the last byte of the reply before it to its first byte; where it carried more, their mean, once for each. So short
/// pauses of a busy connection are averaged within a second, and long ones are exact.
#[derive(Clone, Debug)]
pub(super) struct IdleTimes {
    counts: [u64; CLASSES],
    total: u64,
    /// Those that were not averaged.
    exact: u64,
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self {
            counts: [0; CLASSES],
            total: 0,
            exact: 0,
        }
    }
}

impl IdleTimes {
    /// A connection was idle for so long before each of so many uses.
    pub(super) fn add(&mut self, idle: Duration, uses: u64) {
        let class = (0..CLASSES - 1)
            .find(|class| idle <= limit(*class))
            .unwrap_or(CLASSES - 1);
        if let Some(count) = self.counts.get_mut(class) {
            *count += uses;
            self.total += uses;
            self.exact += u64::from(uses == 1);
        }
        self.forget();
    }

    /// Takes in those of another that turned out to be the same.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (own, others) in self.counts.iter_mut().zip(other.counts) {
            *own += others;
        }
        self.total += other.total;
        self.exact += other.exact;
        self.forget();
    }

    fn forget(&mut self) {
        if self.total > WEIGHT_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
            self.exact = (self.exact / 2).min(self.total);
        }
    }

    /// Uses that it is made of, and those of them that were measured singly.
    pub(super) const fn uses(&self) -> (u64, u64) {
        (self.total, self.exact)
    }

    /// The idle times that 50, 90 and 99 percent of uses do not exceed.
    pub(super) fn quantiles(&self) -> [Option<Duration>; 3] {
        [50, 90, 99].map(|percent| {
            if self.total == 0 {
                return None;
            }
            let rank = (self.total * percent).div_ceil(100);
            let mut seen = 0;
            let class = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            Some(limit(class.unwrap_or(CLASSES - 1)))
        })
    }
}

/// The longest time in a class.
fn limit(class: usize) -> Duration {
    let doublings = u32::try_from(class / 2).unwrap_or(u32::MAX);
    let whole = Duration::from_millis(1).saturating_mul(2_u32.saturating_pow(doublings));
    if class.is_multiple_of(2) {
        whole
    } else {
        // The square root of two.
        whole * 99 / 70
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_are_one_every_use_counts() {
        let (mut one, mut other) = (IdleTimes::default(), IdleTimes::default());
        one.add(Duration::from_millis(10), 3);
        other.add(Duration::from_secs(10), 6);
        other.add(Duration::from_secs(10), 1);
        one.absorb(&other);
        assert_eq!(one.uses(), (10, 1));
        assert!(one.quantiles()[0] > Some(Duration::from_secs(5)));
    }

    #[test]
    fn quantiles_are_near_what_was_added() {
        let mut times = IdleTimes::default();
        assert_eq!(times.quantiles(), [None; 3]);
        times.add(Duration::from_micros(10), 90);
        times.add(Duration::from_millis(100), 9);
        times.add(Duration::from_secs(100_000), 1);
        let [median, ninety, most] = times.quantiles().map(Option::unwrap);
        assert_eq!(median, Duration::from_millis(1));
        assert_eq!(ninety, Duration::from_millis(1));
        assert!((100..=142).contains(&most.as_millis()), "{most:?}");
        times.add(Duration::from_secs(9), 10 * WEIGHT_MAX);
        let [median, ..] = times.quantiles().map(Option::unwrap);
        assert!((9..=13).contains(&median.as_secs()), "{median:?}");
        assert!(times.total <= 10 * WEIGHT_MAX);
    }
}
