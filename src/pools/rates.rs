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

impl Happened {
    const fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.replaced += other.replaced;
        self.operations += other.operations;
    }
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

    /// Takes in what happened to another that turned out to be the same.
    pub(super) fn absorb(&mut self, other: Self) {
        for (start, happened) in other.slices {
            let place = self.slices.partition_point(|(known, _)| *known < start);
            match self.slices.get_mut(place) {
                Some((known, own)) if *known == start => own.add(happened),
                _ => self.slices.insert(place, (start, happened)),
            }
        }
    }

    /// What happened within `window` before `at`.
    pub(super) fn within(&self, window: Duration, at: Timestamp) -> Happened {
        let mut sum = Happened::default();
        for (start, happened) in &self.slices {
            if at.since(*start) < window {
                sum.add(*happened);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_are_one_everything_counts() {
        let second = |seconds: u64| Timestamp::default() + Duration::from_secs(1000 + seconds);
        let (mut one, mut other) = (Rates::default(), Rates::default());
        for seconds in [0, 10, 30] {
            one.at(second(seconds)).opened += 1;
        }
        for seconds in [10, 20, 40] {
            other.at(second(seconds)).opened += 2;
        }
        one.absorb(other);
        let sum = |window| one.within(Duration::from_secs(window), second(40)).opened;
        assert_eq!([10, 20, 30, 40, 60].map(sum), [2, 3, 5, 8, 9]);
    }

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
