//! How much happened in the last minutes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

const SLICE: Duration = Duration::from_secs(10);

/// What lies further back does not count.
pub(super) const WINDOW: Duration = Duration::from_mins(5);

/// What one pool did in the last [`WINDOW`], in slices.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    slices: VecDeque<(Timestamp, Happened)>,
}

/// What happened in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) opened: u64,
    pub(super) replaced: u64,
    pub(super) operations: u64,
}

impl Rates {
    /// The slice of a moment.
    pub(super) fn at(&mut self, at: Timestamp) -> &mut Happened {
        let grid = u64::try_from(SLICE.as_nanos()).unwrap_or(u64::MAX);
        let start = Timestamp::from_nanos(at.as_nanos() / grid * grid);
        while let Some((oldest, _)) = self.slices.front()
            && start.since(*oldest) >= WINDOW
        {
            self.slices.pop_front();
        }
        // What is told late belongs to the newest slice: time does not run backwards here.
        if self.slices.back().is_none_or(|(newest, _)| *newest < start) {
            self.slices.push_back((start, Happened::default()));
        }
        let newest = self.slices.len() - 1;
        &mut self.slices[newest].1
    }

    /// What happened within `window` before `at`.
    pub(super) fn within(&self, window: Duration, at: Timestamp) -> Happened {
        let mut sum = Happened::default();
        for (start, happened) in &self.slices {
            if at.since(*start) < window {
                sum.opened += happened.opened;
                sum.replaced += happened.replaced;
                sum.operations += happened.operations;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_ago_does_not_count() {
        let second = |seconds: u64| Timestamp::default() + Duration::from_secs(1000 + seconds);
        let mut rates = Rates::default();
        for seconds in 0..600 {
            rates.at(second(seconds)).opened += 1;
        }
        let minute = rates.within(Duration::from_mins(1), second(599));
        assert_eq!(minute.opened, 60);
        assert_eq!(rates.slices.len(), 30);
        assert_eq!(rates.within(WINDOW, second(2000)), Happened::default());
    }
}
