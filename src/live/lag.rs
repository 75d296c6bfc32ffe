//! How far the thread is behind the traffic it reasons about.
//!
//! Each entry has the moment at which it happened; what it waited until the thread took it is the lag. A short peak
//! matters as much as a long one, so the longest wait of a window is kept for whoever looks only now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Timestamp;

/// The longest wait is kept for one to two of these: as long as scrapes are usually apart, and no peak is missed.
const WINDOW: Duration = Duration::from_secs(15);

/// Written by the thread that reasons, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// The longest wait of this window and of the one before, in nanoseconds.
    waited: [AtomicU64; 2],
    /// Nanoseconds since the epoch: when this window began, and when the thread looked last.
    began_at: AtomicU64,
    looked_at: AtomicU64,
}

impl Lag {
    /// The thread took everything there was by `now`; what waited longest did so for this long.
    pub(super) fn looked(&self, now: Timestamp, waited: Duration) {
        let [current, before] = &self.waited;
        let began_at = Timestamp::from_nanos(self.began_at.load(Ordering::Relaxed));
        if now.since(began_at) >= WINDOW {
            before.store(current.swap(0, Ordering::Relaxed), Ordering::Relaxed);
            self.began_at.store(now.as_nanos(), Ordering::Relaxed);
        }
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        current.fetch_max(waited, Ordering::Relaxed);
        self.looked_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// The longest wait lately: of what was taken, or of what the thread has not come to since it looked last.
    pub(super) fn at(&self, now: Timestamp) -> Duration {
        let waited = self
            .waited
            .each_ref()
            .map(|one| one.load(Ordering::Relaxed));
        let longest = waited.into_iter().max().unwrap_or(0);
        let unseen = match self.looked_at.load(Ordering::Relaxed) {
            // It has not begun.
            0 => Duration::ZERO,
            looked_at => now.since(Timestamp::from_nanos(looked_at)),
        };
        Duration::from_nanos(longest).max(unseen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000_000) + Duration::from_millis(millis)
    }

    #[test]
    fn the_longest_wait_stays_for_a_window_and_goes_after_two() {
        let lag = Lag::default();
        let check = |now: u64, expected: u64| {
            assert_eq!(lag.at(ms(now)), Duration::from_millis(expected), "{now} ms");
        };
        check(0, 0);
        lag.looked(ms(0), Duration::from_millis(70));
        lag.looked(ms(50), Duration::from_millis(900));
        lag.looked(ms(100), Duration::from_millis(20));
        check(100, 900);
        lag.looked(ms(15_000), Duration::from_millis(10));
        check(15_000, 900);
        lag.looked(ms(29_990), Duration::from_millis(30));
        check(29_990, 900);
        lag.looked(ms(30_000), Duration::ZERO);
        check(30_000, 30);
    }

    #[test]
    fn a_thread_that_does_not_look_falls_behind() {
        let lag = Lag::default();
        lag.looked(ms(0), Duration::from_millis(5));
        assert_eq!(lag.at(ms(3000)), Duration::from_secs(3));
        lag.looked(ms(3000), Duration::from_millis(2990));
        assert_eq!(lag.at(ms(3010)), Duration::from_millis(2990));
    }
}
