//! When connections are called to end while the proxy drains.
//!
//! They are called one after the other, spread over some time, so that a fleet of clients does not reconnect in one
//! instant.

use std::time::Duration;

use crate::time::Timestamp;

/// Time between two rounds of calls.
pub(super) const ROUND: Duration = Duration::from_millis(20);

/// A plan to call so many connections, evenly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    began_at: Timestamp,
    spread: Duration,
    total: usize,
}

impl Schedule {
    pub(super) const fn new(began_at: Timestamp, spread: Duration, total: usize) -> Self {
        Self {
            began_at,
            spread,
            total,
        }
    }

    /// How many are to have been called by `now`. The first is due at once: a few connections need not wait for
    /// most of the time to pass.
    pub(super) fn due(&self, now: Timestamp) -> usize {
        let passed = (now.since(self.began_at) + ROUND).as_micros();
        let share = self.total as u128 * passed;
        let due = share.div_ceil(self.spread.as_micros().max(1));
        usize::try_from(due).map_or(self.total, |due| due.min(self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_spread_evenly_and_the_first_is_due_at_once() {
        let start = Timestamp::from_nanos(1_000_000_000);
        let schedule = Schedule::new(start, Duration::from_secs(6), 100);
        let due = |millis| schedule.due(start + Duration::from_millis(millis));
        assert_eq!(due(0), 1);
        assert_eq!(due(2_980), 50);
        assert_eq!(due(5_980), 100);
        assert_eq!(due(60_000), 100, "never more than there are");
    }

    #[test]
    fn without_time_all_are_due_at_once() {
        let start = Timestamp::from_nanos(1_000_000_000);
        assert_eq!(Schedule::new(start, Duration::ZERO, 100).due(start), 100);
        assert_eq!(Schedule::new(start, Duration::ZERO, 0).due(start), 0);
    }
}
