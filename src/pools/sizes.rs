//! Settings of pools, read from what pools do.
//!
//! - `maxPoolSize`: the size at which a pool stayed although every connection of it was in use. An application with
//!   just as many workers looks the same, so this is never sure; the longer it lasted and the more it looks like a
//!   common default, the likelier.
//! - `minPoolSize`: the size up to which a pool was filled with connections nobody had asked for, seen from
//!   connections that did nothing for longer than a monitor would have.
//! - `maxIdleTimeMS`: the shortest idle time after which the client closed connections for no other reason, where
//!   these times agree.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Basis, Inferred};

/// A pool that is asked for more grows within this time.
const PLATEAU_MIN: Duration = Duration::from_secs(2);

/// Sizes that drivers have unless told otherwise.
const COMMON_SIZES: [u64; 3] = [5, 10, 100];

/// Closes that have to agree.
const AGREEING_MIN: usize = 3;

/// Closes that are remembered.
const AGREEING_MAX: usize = 16;

/// What is known of the settings of one pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    /// The size at which it stayed, and for how long in all.
    plateau: Option<(u64, Duration)>,
    /// The size up to which it was filled, and how often.
    filled: Option<(u64, u32)>,
    idle: VecDeque<Duration>,
}

impl Sizes {
    /// Every connection has been in use for so long, and it did not grow.
    pub(super) fn saturated(&mut self, open: u64, lasted: Duration) {
        if lasted < PLATEAU_MIN {
            return;
        }
        self.plateau = match self.plateau {
            Some((size, longest)) if size == open => Some((size, longest.max(lasted))),
            Some((size, longest)) if size > open => Some((size, longest)),
            Some(_) | None => Some((open, lasted)),
        };
    }

    /// It has so many connections.
    pub(super) fn grew_to(&mut self, open: u64) {
        self.plateau = self.plateau.filter(|(size, _)| open <= *size);
    }

    /// A connection nobody had asked for made it so large.
    pub(super) fn filled_up(&mut self, open: u64) {
        self.filled = match self.filled {
            Some((size, times)) if size == open => Some((size, times.saturating_add(1))),
            Some((size, times)) if size > open => Some((size, times)),
            Some((_, times)) => Some((open, times)),
            None => Some((open, 1)),
        };
    }

    /// A connection was closed after so long without use.
    pub(super) fn closed_idle(&mut self, idle: Duration) {
        if self.idle.len() >= AGREEING_MAX {
            self.idle.pop_front();
        }
        self.idle.push_back(idle);
    }

    pub(super) fn max_size(&self) -> Option<Inferred<u64>> {
        let (size, lasted) = self.plateau?;
        let share = (lasted.as_secs_f64() / 60.0).min(1.0) * 0.2;
        let common = if COMMON_SIZES.contains(&size) {
            0.3
        } else {
            0.0
        };
        Some(Inferred {
            value: size,
            confidence: 0.4 + share + common,
            basis: Basis::Saturated(lasted),
        })
    }

    pub(super) fn min_size(&self) -> Option<Inferred<u64>> {
        let (size, times) = self.filled?;
        Some(Inferred {
            value: size,
            confidence: 0.8 - 0.4 / f64::from(times + 1),
            basis: Basis::FilledUp(times),
        })
    }

    pub(super) fn max_idle(&self) -> Option<Inferred<Duration>> {
        let shortest = *self.idle.iter().min()?;
        let longest = *self.idle.iter().max()?;
        // Drivers look for idle connections every second or ten.
        let tolerance = (shortest / 4).max(Duration::from_secs(1));
        if self.idle.len() < AGREEING_MIN || longest.saturating_sub(shortest) > tolerance {
            return None;
        }
        let samples = u32::try_from(self.idle.len()).unwrap_or(u32::MAX);
        Some(Inferred {
            value: shortest,
            confidence: 0.95 - 1.0 / f64::from(samples + 1),
            basis: Basis::ClosedIdle {
                closes: samples,
                shortest,
                longest,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_plateau_is_a_limit_until_it_is_exceeded() {
        let mut sizes = Sizes::default();
        sizes.saturated(7, SECOND);
        assert_eq!(sizes.max_size(), None);
        sizes.saturated(7, 3 * SECOND);
        let guess = sizes.max_size().unwrap();
        assert_eq!(guess.value, 7);
        sizes.grew_to(8);
        assert_eq!(sizes.max_size(), None);
        sizes.saturated(10, 60 * SECOND);
        let better = sizes.max_size().unwrap();
        assert_eq!(better.value, 10);
        assert!(better.confidence > guess.confidence + 0.3);
    }

    #[test]
    fn idle_closes_tell_a_limit_only_where_they_agree() {
        let mut sizes = Sizes::default();
        for millis in [5000, 5400] {
            sizes.closed_idle(Duration::from_millis(millis));
            assert_eq!(sizes.max_idle(), None);
        }
        sizes.closed_idle(Duration::from_millis(5900));
        assert_eq!(sizes.max_idle().unwrap().value, 5 * SECOND);
        sizes.closed_idle(30 * SECOND);
        assert_eq!(sizes.max_idle(), None);
    }
}
