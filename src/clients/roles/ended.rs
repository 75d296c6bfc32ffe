//! What a silent connection that ended was for, where neither it nor time has told: by what its client did beside it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::departed::{is_together, is_within};
use super::traits::Habit;
use super::{Departed, Family, REPLACED_WITHIN, SETTLING, SWAPPED, Sibling};
use crate::connection::Role;
use crate::time::Timestamp;

/// What goodbyes are matched with monitors by; of two at one moment the answer is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A monitor, or what may be one, was answered.
    Answered {
        opened_at: Timestamp,
        /// It is the connection that is asked about.
        is_own: bool,
    },
    /// A connection was opened that was to say goodbye.
    Goodbye,
}

/// A client that is closed ends its monitors and its pool within this time.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Losses of monitors that are looked at.
const LOSSES_MAX: usize = 16;

/// A connection that ended, and what is known beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended<'a> {
    pub(super) family: &'a Family,
    pub(super) departed: &'a Departed,
    pub(super) ending: &'a Sibling,
    pub(super) at: Timestamp,
}

impl<'a> Ended<'a> {
    /// Rules 5 to 7.
    pub(super) fn role(&self) -> Role {
        if self.replaces_monitor() {
            return Role::Monitor;
        }
        let has_streaming = !self.family.streaming.is_empty();
        if !has_streaming && !self.departed.has_streamed(self.at) {
            return self.by_goodbyes();
        }
        if self.measures_round_trips() {
            return Role::RoundTripMonitor;
        }
        // What waits for its first answer in vain is pooled, as long as a monitor is there: a client that was made
        // meanwhile has none, and waits until it gives its operation up.
        let may_be_monitor = self.ending.traits.habit == Habit::RoundTripLater
            && self.ending.is_answered
            && self.ending.age(self.at) < SETTLING;
        if may_be_monitor {
            return self.by_goodbyes();
        }
        Role::Application
    }

    /// Rule 5. A server is known, and pooled connections are opened to it, as long as its monitor is answered.
    fn replaces_monitor(&self) -> bool {
        if !self.ending.traits.has_monitors() {
            return false;
        }
        let reigns = &self.departed.reigns;
        let begun = self.ending.opened_at;
        let watchers = self.family.watchers();
        let open = |at: Timestamp| watchers.partition_point(|opened| *opened < at);
        let watching = |at: Timestamp| {
            let until = at + REPLACED_WITHIN;
            let ended = reigns.iter();
            let ended = ended.filter(|reign| reign.opened < at && until < reign.ended);
            ended.count() + open(at)
        };
        let waits = self.ending.traits.waits_to_check_again;
        let vacant: Vec<Timestamp> = self.departed.vacancies(waits, self.at).collect();
        let lost = reigns.iter().zip(&vacant).rev();
        let lost = lost.filter(|(_, vacant_from)| **vacant_from <= begun);
        // Each was there until it was lost.
        let most = lost
            .take(LOSSES_MAX)
            .map(|(reign, _)| watching(reign.ended - REPLACED_WITHIN * 2).max(1))
            .max();
        // With the monitor in place comes its round-trip monitor, and may be accepted first.
        let is_answered = self.ending.is_answered;
        let seen_at = if is_answered { begun + SWAPPED } else { begun };
        let there = reigns.iter().zip(&vacant);
        let there =
            there.filter(|(reign, vacant_from)| reign.opened < seen_at && begun < **vacant_from);
        let watched = there.count() + open(seen_at);
        let departed = self.departed;
        most.is_some_and(|most| {
            if is_answered {
                watched + departed.attempts_beside(begun) < most
            } else {
                watched < most && departed.attempts_near(begun) < most * 2
            }
        })
    }

    /// Rule 6. Streaming monitors that were there lack round-trip monitors, and no other is nearer to being one.
    fn measures_round_trips(&self) -> bool {
        let taken = self.family.round_trips.len() + self.departed.round_trips_near(self.at);
        let lacking = self.able_count(self.ending).saturating_sub(taken);
        let before = self.family.undecided_before(self.ending, self.at);
        let before = before.filter(|one| self.able_count(one) > 0);
        before.take(lacking).count() < lacking
    }

    /// Streaming monitors, open or ended about then, that could have opened `silent` as their round-trip connection.
    fn able_count(&self, silent: &Sibling) -> usize {
        let begun = silent.opened_at;
        let is_able = |(ended, opened): &&(Timestamp, Timestamp)| {
            is_together(*ended, self.at)
                && is_within(begun, (*opened, *ended))
                && self.family.is_able(*opened, silent)
        };
        let mut count = self.family.able_count(silent);
        let older = self.family.streaming.partition_point(|at| *at <= begun);
        let (mut fresh, mut gone) = (count.saturating_sub(older), 0);
        for (ended, opened) in self.departed.streaming.iter().filter(is_able) {
            count += 1;
            fresh += usize::from(*opened > begun);
            gone += usize::from(*opened <= begun && *ended <= begun + SWAPPED);
        }
        // One that took the place of another has no need of its own.
        count - fresh.min(gone)
    }

    /// Rule 7.
    fn by_goodbyes(&self) -> Role {
        let (family, departed) = (self.family, self.departed);
        // Beside a streaming monitor plain hellos are those of a round-trip monitor.
        let has_polling = family.streaming.is_empty() && !family.round_trips.is_empty();
        if has_polling || !departed.polling.is_empty() {
            return Role::Application;
        }
        let is_monitor = if self.goodbyes().next().is_none() {
            let before = family.undecided_before(self.ending, self.at);
            self.monitors().next().is_none() && before.count() == 0
        } else {
            self.is_taken_along()
        };
        if is_monitor {
            Role::Monitor
        } else {
            Role::Application
        }
    }

    /// Of each client that said goodbye one monitor was answered before the connection was opened that said so: the
    /// nearest before it that is no other's. Node 3.6 fills its pool without waiting for the monitor; where none was
    /// answered yet, it is the next one of those that were opened beside it.
    fn is_taken_along(&self) -> bool {
        let is_early = self.ending.traits.habit == Habit::RoundTripLater;
        // Monitors that are nobody's yet, and goodbyes without a monitor.
        let (mut unclaimed, mut lacking) = (Vec::new(), VecDeque::new());
        for (at, event) in self.events() {
            let claimed = match event {
                Event::Goodbye => {
                    let nearest = unclaimed.pop();
                    if nearest.is_none() && is_early {
                        lacking.push_back(at);
                    }
                    nearest
                }
                Event::Answered { opened_at, is_own } => {
                    let first: Option<&Timestamp> = lacking.front();
                    if first.is_some_and(|left_at| opened_at <= *left_at + SWAPPED) {
                        lacking.pop_front();
                        Some(is_own)
                    } else {
                        unclaimed.push(is_own);
                        None
                    }
                }
            };
            if claimed == Some(true) {
                return true;
            }
        }
        false
    }

    /// In order of time, without those monitors that are known to have gone with a goodbye.
    fn events(&self) -> Vec<(Timestamp, Event)> {
        let answered = |one: &Sibling, is_own: bool| {
            let opened_at = one.opened_at;
            let at = one.answered_at.unwrap_or(opened_at);
            (at, Event::Answered { opened_at, is_own })
        };
        let silent = self.family.undecided_near(self.ending, self.at);
        let silent = silent.map(|one| answered(one, false));
        let is_own = false;
        let monitors = self.watched_until_now().chain(self.monitors());
        let monitors = monitors.map(|opened_at| (opened_at, Event::Answered { opened_at, is_own }));
        let goodbyes = self.goodbyes().map(|at| (at, Event::Goodbye));
        let mut events: Vec<_> = silent.chain(monitors).chain(goodbyes).collect();
        for (opened_at, goodbye) in self.known_pairs() {
            let monitor = (opened_at, Event::Answered { opened_at, is_own });
            // What is too far from the connection is not among them.
            for event in [monitor, (goodbye, Event::Goodbye)] {
                if let Some(place) = events.iter().position(|other| *other == event) {
                    events.swap_remove(place);
                }
            }
        }
        events.push(answered(self.ending, true));
        events.sort_unstable();
        events
    }

    /// When monitors were opened that showed themselves and ended at once with a connection that said goodbye, and when
    /// that was opened; each goes with the nearest in time.
    fn known_pairs(&self) -> Vec<(Timestamp, Timestamp)> {
        let still_open = self.family.goodbyes.iter();
        let still_open = still_open.map(|opened_at| (*opened_at, self.at));
        let ended = self.departed.goodbyes.iter().copied();
        let goodbyes: Vec<_> = ended.chain(still_open).collect();
        let mut pairs = Vec::new();
        for (monitor_ended, monitor) in &self.departed.streaming {
            for (place, (goodbye, ended)) in goodbyes.iter().enumerate() {
                let apart = monitor_ended.distance(*ended);
                if monitor <= goodbye && apart <= AT_ONCE {
                    pairs.push((apart, *monitor, place, *goodbye));
                }
            }
        }
        pairs.sort_unstable();
        let (mut monitors, mut places) = (BTreeSet::new(), BTreeSet::new());
        pairs.retain(|(_, monitor, place, _)| {
            let is_free = !monitors.contains(monitor) && !places.contains(place);
            if is_free {
                monitors.insert(*monitor);
                places.insert(*place);
            }
            is_free
        });
        let pairs = pairs.into_iter();
        pairs
            .map(|(_, monitor, _, goodbye)| (monitor, goodbye))
            .collect()
    }

    /// When monitors were opened, long before the connection, that were there until it ended: a client that was closed
    /// took one of these along, or one of [`Self::monitors`].
    fn watched_until_now(&self) -> impl Iterator<Item = Timestamp> + 'a {
        let (at, own) = (self.at, self.ending.opened_at);
        let ended = self.departed.reigns.iter();
        let ended = ended.filter(move |reign| at.distance(reign.ended) <= SETTLING);
        let ended = ended.map(|reign| reign.opened);
        let all = ended.chain(self.family.streaming.iter().copied());
        all.filter(move |opened_at| *opened_at + SETTLING < own)
    }

    /// When monitors were opened, about the time of the connection.
    fn monitors(&self) -> impl Iterator<Item = Timestamp> + 'a {
        let streamed = self
            .departed
            .streaming
            .iter()
            .map(|(_, opened_at)| opened_at);
        let streaming = streamed.chain(&self.family.streaming);
        self.near(streaming.chain(&self.departed.silent_monitors))
    }

    /// When connections were opened that carried `endSessions`, about the time of the connection.
    fn goodbyes(&self) -> impl Iterator<Item = Timestamp> + 'a {
        let ended = self.departed.goodbyes.iter();
        let ended = ended.map(|(opened_at, _)| opened_at);
        self.near(self.family.goodbyes.iter().chain(ended))
    }

    fn near(
        &self,
        moments: impl Iterator<Item = &'a Timestamp> + 'a,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        let own = self.ending.opened_at;
        moments
            .copied()
            .filter(move |other| other.distance(own) <= SETTLING)
    }
}
