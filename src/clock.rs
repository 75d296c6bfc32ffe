//! The only reader of clocks.
//!
//! Wall time is read once, at start; from then on the monotonic clock advances it. Moments therefore never run
//! backwards, whatever is done to the time of the machine, and can still be printed as wall time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Tells the moment. A copy tells the same time as its original.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    anchored_at: Timestamp,
}

impl Clock {
    /// Reads wall time, once.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the only reader of clocks"
    )]
    pub fn start() -> Self {
        let anchor = Instant::now();
        // A machine that believes to live before 1970 gets moments that count from zero.
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            anchor,
            anchored_at: Timestamp::from_nanos(0) + since_epoch,
        }
    }

    /// The moment now; never before one told earlier.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the only reader of clocks"
    )]
    pub fn now(&self) -> Timestamp {
        self.anchored_at + Instant::now().saturating_duration_since(self.anchor)
    }

    /// The moment this clock was started.
    pub const fn started_at(&self) -> Timestamp {
        self.anchored_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_rise_and_copies_agree() {
        let clock = Clock::start();
        let copy = clock;
        let mut last = clock.started_at();
        for _ in 0..100 {
            let now = copy.now();
            assert!(now >= last);
            last = now;
        }
        assert_eq!(clock.started_at(), copy.started_at());
        // Not before this code was written, not after the year 2200.
        assert!((1_700_000_000_000..7_258_118_400_000).contains(&last.as_millis()));
    }
}
