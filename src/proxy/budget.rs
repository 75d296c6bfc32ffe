//! How much of a worker's time may be spent on looking at what it forwards.
//!
//! Looking comes after writing, but on the same thread: what it takes, the next chunk waits. Each worker charges
//! the processor time of sampled looks against a share of a second of its own. When that is used up, the connection
//! that was looked at last, most likely a costly one, turns opaque, and a new second begins: observation sheds
//! itself, one connection after the other, until what is left fits.
//!
//! The time of the thread is charged rather than that of the clock: a thread that was not running has cost nobody
//! anything.

use std::cell::RefCell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::time::Timestamp;

/// The length of a window.
const WINDOW: Duration = Duration::from_secs(1);

thread_local! {
    static WINDOWS: RefCell<Window> = RefCell::default();
}

/// A share of each worker's time; none means that there is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    of_window: Option<Duration>,
}

impl Budget {
    /// `percent` of a worker's time.
    pub(super) fn new(percent: Option<u32>) -> Self {
        Self {
            of_window: percent.map(|percent| WINDOW * percent / 100),
        }
    }

    /// Charges `cost` to this thread at the moment `at`; true when that was more than there is.
    pub(super) fn is_exceeded_by(self, cost: Duration, at: Timestamp) -> bool {
        let Some(allowed) = self.of_window else {
            return false;
        };
        WINDOWS.with_borrow_mut(|window| window.charge(cost, at, allowed))
    }
}

/// Processor time of this thread so far.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// What was charged since the window began.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began_at: Timestamp,
    spent: Duration,
}

impl Window {
    fn charge(&mut self, cost: Duration, at: Timestamp, allowed: Duration) -> bool {
        if at.since(self.began_at) >= WINDOW {
            *self = Self {
                began_at: at,
                spent: Duration::ZERO,
            };
        }
        self.spent += cost;
        let is_exceeded = self.spent > allowed;
        if is_exceeded {
            *self = Self {
                began_at: at,
                spent: Duration::ZERO,
            };
        }
        is_exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn each_window_sheds_only_what_it_must() {
        let start = Timestamp::from_nanos(1_000_000_000_000);
        let mut window = Window::default();
        let mut charge = |at: u64, cost: u64| window.charge(ms(cost), start + ms(at), ms(500));
        assert!(!charge(0, 300));
        assert!(!charge(900, 200), "exactly the share");
        assert!(!charge(1000, 450), "a new window");
        assert!(charge(1100, 100));
        assert!(!charge(1101, 400), "the account starts anew after shedding");
        assert!(charge(1200, 200));
    }

    #[test]
    fn without_a_share_nothing_is_too_much() {
        let budget = Budget::new(None);
        assert!(!budget.is_exceeded_by(ms(1_000_000), Timestamp::from_nanos(1)));
    }

    #[test]
    fn the_time_of_a_thread_passes_while_it_works() {
        let before = thread_time();
        while thread_time().saturating_sub(before) < ms(2) {
            std::hint::spin_loop();
        }
        assert!(thread_time().saturating_sub(before) >= ms(2));
    }
}
