//! Entries in the order of their moments, and ticks between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Observer;
use crate::diagnose::News;
use crate::time::Timestamp;
use crate::timeline::Entry;

/// Ticks come at multiples of this since the epoch.
pub const TICK: Duration = Duration::from_millis(250);

/// Entries of different connections are read by different threads, so an earlier one may come later; by no more
/// than this, unless a thread is held up.
const HOLD: Duration = Duration::from_millis(100);

/// Drives an [`Observer`].
#[derive(Debug, Default)]
pub struct Sequencer {
    /// By moment, then in order of arrival.
    waiting: BTreeMap<(Timestamp, u64), Entry>,
    arrived: u64,
    /// Everything up to here was told.
    told_until: Timestamp,
}

impl Sequencer {
    /// An entry arrived.
    pub fn push(&mut self, entry: Entry) {
        self.arrived += 1;
        // What comes too late for its place is told next, so that time never runs backwards.
        let at = entry.at.max(self.told_until);
        self.waiting
            .insert((at, self.arrived), Entry { at, ..entry });
    }

    /// It is `now`: tells the observer what can no longer be overtaken, and returns up to when. `told` sees each
    /// entry in its final order.
    pub fn advance(
        &mut self,
        now: Timestamp,
        observer: &mut Observer,
        news: &mut Vec<News>,
        told: impl FnMut(&Entry),
    ) -> Timestamp {
        let until = now - HOLD;
        self.tell_until(until, observer, news, told);
        until
    }

    /// Tells everything there is, up to `until`.
    pub fn tell_until(
        &mut self,
        until: Timestamp,
        observer: &mut Observer,
        news: &mut Vec<News>,
        mut told: impl FnMut(&Entry),
    ) {
        while let Some(first) = self.waiting.first_entry() {
            let at = first.key().0;
            if at > until {
                break;
            }
            let entry = first.remove();
            self.tick_until(at, observer, news);
            told(&entry);
            observer.record(&entry, news);
        }
        self.tick_until(until, observer, news);
    }

    /// Ticks at every moment of the grid that lies before `at`.
    fn tick_until(&mut self, at: Timestamp, observer: &mut Observer, news: &mut Vec<News>) {
        if self.told_until == Timestamp::default() {
            self.told_until = at;
        }
        let mut next = after(self.told_until);
        while next <= at {
            observer.tick(next, news);
            next = next + TICK;
        }
        self.told_until = self.told_until.max(at);
    }
}

/// The first moment of the grid after `at`.
fn after(at: Timestamp) -> Timestamp {
    let grid = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
    Timestamp::from_nanos((at.as_nanos() / grid + 1) * grid)
}
