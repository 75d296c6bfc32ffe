//! How long the operations of an instance take, and took in calm times.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::thresholds::{
    BASELINE_OPERATIONS, LOAD_NEWEST, LOAD_WINDOW, OCCUPIED_MIN, SLOW_ANYWAY, SLOW_FACTOR,
    SLOW_MIN, USUAL_FACTOR,
};
use crate::time::Timestamp;
use crate::timeline::Sample;

/// Parts of a window that are kept of one instance.
const KEPT_MAX: usize = 4096;

/// Operations, and the time that they took together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    operations: u64,
    busy: Duration,
}

/// What a connection did between two looks at its counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// When it was looked at.
    at: Timestamp,
    work: Work,
    /// It took much longer than what it did before; of a new one nothing else is known.
    is_unlike_it: bool,
    /// It has ended.
    is_last: bool,
}

/// What the connections of an instance did lately, and usually do.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Oldest first.
    done: VecDeque<Done>,
    usual: Usual,
}

/// Operations of calm times.
#[derive(Debug, Default)]
struct Usual(Work);

impl Work {
    const fn new(operations: u64, busy: Duration) -> Self {
        Self { operations, busy }
    }

    /// What counters tell. Of the time for which something has been under way, that up to the last reply belongs to what
    /// was answered: a connection on which a next request always waits, as drivers have them that send several at once,
    /// is busy without an end.
    pub(super) fn told(sample: &Sample) -> Self {
        let done = sample
            .operations
            .saturating_sub(u64::from(sample.in_flight));
        let since = sample.busy_since.unwrap_or(sample.from_server_at);
        Self::new(done, sample.busy + sample.from_server_at.since(since))
    }

    fn of<'a>(done: impl Iterator<Item = &'a Done>) -> Self {
        let mut sum = Self::default();
        for Done { work, .. } in done {
            sum.operations += work.operations;
            sum.busy += work.busy;
        }
        sum
    }

    /// How long one of them took.
    fn mean(&self) -> Option<Duration> {
        (self.operations > 0)
            .then(|| self.busy / u32::try_from(self.operations).unwrap_or(u32::MAX))
    }

    /// They occupied several connections over the window.
    fn is_occupying(&self) -> bool {
        self.operations >= 2 && self.busy >= LOAD_WINDOW.mul_f64(OCCUPIED_MIN)
    }
}

impl Done {
    /// `None` where it did nothing.
    pub(super) fn between(before: Work, now: Work, at: Timestamp, is_last: bool) -> Option<Self> {
        let work = Work {
            operations: now.operations.saturating_sub(before.operations),
            busy: now.busy.saturating_sub(before.busy),
        };
        let mean = work.mean()?;
        let usual = before.mean().unwrap_or_default();
        Some(Self {
            at,
            work,
            is_unlike_it: mean >= usual * USUAL_FACTOR,
            is_last,
        })
    }
}

impl Pace {
    pub(super) fn add(&mut self, done: Done) {
        self.done.push_back(done);
        if self.done.len() > KEPT_MAX {
            self.done.pop_front();
        }
    }

    /// How long operations take, and took before, when they are slow. `running` is how long several have been under
    /// way.
    pub(super) fn slowness(
        &mut self,
        running: Option<Duration>,
        at: Timestamp,
    ) -> Option<(Duration, Duration)> {
        let is_over = |done: &Done| at.since(done.at) > LOAD_WINDOW;
        let over = self.done.iter().take_while(|done| is_over(done)).count();
        let settled: Vec<Done> = self.done.drain(..over).collect();
        let before = self.usual.mean();
        let limit = before.map_or(SLOW_ANYWAY, |before| (before * SLOW_FACTOR).max(SLOW_MIN));
        let all = Work::of(self.done.iter());
        let mean = all.mean().unwrap_or_default();
        let by_mean = (mean >= limit && all.is_occupying()).then_some(mean);
        let newest = before.and_then(|_| self.newest_slow(limit.max(SLOW_ANYWAY), at));
        let found = by_mean.max(newest);
        if found.is_none() {
            for done in settled {
                self.usual.add(done.work);
            }
        }
        let running = running.filter(|running| *running >= limit);
        let now = found.max(running.map(|running| running.max(mean)))?;
        Some((now, before.unwrap_or_default()))
    }

    /// How long the newest operations took, where three of four connections took so long for theirs, unlike before.
    ///
    /// A mean over the whole window is that of the quick ones in it for as long as they are many. What takes seconds is
    /// known for slow before they are over, and no network takes as long. Ends come before the counters of the others,
    /// and have a cause of their own.
    fn newest_slow(&self, limit: Duration, at: Timestamp) -> Option<Duration> {
        let newest = || {
            let newest = self.done.iter().rev();
            let newest = newest.take_while(|done| at.since(done.at) <= LOAD_NEWEST);
            newest.filter(|done| !done.is_last)
        };
        let is_slow = |done: &&Done| {
            let mean = done.work.mean();
            done.is_unlike_it && mean.is_some_and(|mean| mean >= limit)
        };
        // One that took longer than the window occupied one connection in it.
        let occupied = newest().map(|done| done.work.busy.min(LOAD_WINDOW)).sum();
        let all = Work::of(newest());
        let capped = Work::new(all.operations, occupied);
        let mean = all.mean().filter(|mean| *mean >= limit)?;
        let is_common = newest().filter(is_slow).count() * 4 >= newest().count() * 3;
        (is_common && capped.is_occupying()).then_some(mean)
    }
}

impl Usual {
    /// Older times count less.
    fn add(&mut self, work: Work) {
        let Self(sum) = self;
        sum.operations += work.operations;
        sum.busy += work.busy;
        if sum.operations > 50 * BASELINE_OPERATIONS {
            sum.operations /= 2;
            sum.busy /= 2;
        }
    }

    fn mean(&self) -> Option<Duration> {
        self.0
            .mean()
            .filter(|_| self.0.operations >= BASELINE_OPERATIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection does in a second: so many operations of so many milliseconds each.
    type Second = (u64, u64);

    /// How long operations are told to take, in milliseconds, once eight connections have done 20 of 2 ms each for five
    /// seconds and what follows in a sixth, in which they end if it is their last.
    fn told(last: [Second; 8], is_last: bool) -> Option<u128> {
        let start = Timestamp::default() + Duration::from_hours(500_000);
        let mut pace = Pace::default();
        let mut works = [Work::default(); 8];
        let mut found = None;
        for second in 0..6 {
            let at = start + Duration::from_secs(second);
            for (work, last) in works.iter_mut().zip(last) {
                let (count, millis) = if second < 5 { (20, 2) } else { last };
                let is_last = is_last && second == 5;
                let busy = Duration::from_millis(count * millis);
                let now = Work::new(work.operations + count, work.busy + busy);
                if let Some(done) = Done::between(*work, now, at, is_last) {
                    pace.add(done);
                }
                *work = now;
            }
            found = pace.slowness(None, at + Duration::from_millis(250));
        }
        found.map(|(now, _)| now.as_millis())
    }

    #[test]
    fn slow_operations_are_told_when_the_first_are_over_on_most_connections() {
        assert_eq!(told([(1, 1200); 8], false), Some(1200));
        let mut most = [(1, 1200); 8];
        most[..2].fill((0, 0));
        assert_eq!(told(most, false), Some(1200));
    }

    #[test]
    fn some_long_operations_beside_quick_ones_are_no_slow_server() {
        let mut some = [(20, 2); 8];
        some[..2].fill((1, 5000));
        assert_eq!(told(some, false), None);
        some[2..].fill((1, 2));
        assert_eq!(told(some, false), None, "however few the quick ones are");
        assert_eq!(
            told([(1, 300); 8], false),
            None,
            "a network may take as long"
        );
        assert_eq!(told([(20, 2); 8], false), None);
    }

    #[test]
    fn one_operation_occupies_one_connection_however_long_it_takes() {
        let mut one = [(0, 0); 8];
        one[0] = (1, 8000);
        assert_eq!(told(one, false), None);
    }

    #[test]
    fn what_ends_is_judged_with_the_others() {
        assert_eq!(told([(1, 1500); 8], true), None);
    }

    #[test]
    fn what_is_answered_while_more_waits_took_its_time() {
        let at = |millis: u64| {
            Timestamp::default() + Duration::from_hours(500_000) + Duration::from_millis(millis)
        };
        let told = |operations: u64, replied: u64| {
            let sample = Sample {
                operations,
                in_flight: 2,
                busy_since: Some(at(0)),
                from_server_at: at(replied),
                ..Sample::default()
            };
            Work::told(&sample)
        };
        // None is over at the first look, one at each of the others.
        let [begun, first, second] = [told(2, 0), told(3, 1200), told(4, 2400)];
        let mean = |before: Work, now: Work| {
            let done = Done::between(before, now, at(2500), false);
            done.and_then(|done| done.work.mean())
        };
        assert_eq!(mean(Work::default(), begun), None);
        assert_eq!(mean(begun, first), Some(Duration::from_millis(1200)));
        assert_eq!(mean(first, second), Some(Duration::from_millis(1200)));
    }

    #[test]
    fn a_connection_that_waits_by_nature_is_like_itself() {
        let at = Timestamp::default() + Duration::from_hours(500_000);
        let before = Work::new(100, Duration::from_secs(100));
        let now = Work::new(101, Duration::from_secs(101));
        assert!(!Done::between(before, now, at, false).unwrap().is_unlike_it);
        let now = Work::new(101, Duration::from_secs(104));
        assert!(Done::between(before, now, at, false).unwrap().is_unlike_it);
    }
}
