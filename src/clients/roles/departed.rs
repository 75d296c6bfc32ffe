//! Monitors that ended a moment ago.

use std::collections::VecDeque;
use std::time::Duration;

use super::{GIVEN_UP_WITHIN, REPLACED_WITHIN, SWAPPED, Sibling};
use crate::connection::Role;
use crate::time::Timestamp;

/// A closing client has closed everything within this time (PyMongo's monitor follows half a second later).
const DEPARTURE: Duration = Duration::from_secs(5);

/// A client whose monitor was lost tries again and again, and may be held up by its host; what follows later than
/// this, on the loss or on the last attempt, is not told from a client that is new.
const LOST_FOR: Duration = Duration::from_secs(30);

/// A server is checked no more often (Server Discovery and Monitoring specification § minHeartbeatFrequencyMS), with
/// some tolerance for a clock of the host.
const ATTEMPTS_APART: Duration = Duration::from_millis(450);

/// The end of a monitor is read late by no more than one of so many parts of its life: a client may be there for
/// milliseconds altogether, and what it opened with its monitor is no successor of that.
const PARTS_OF_REIGN: u32 = 8;

/// What is there so long after a monitor ended is of a client that was neither killed nor closed with it,
const OUTLIVED: Duration = Duration::from_millis(100);

/// so that the end of that monitor may be read so much later than what takes its place was accepted.
const OUTLIVED_LATE: Duration = Duration::from_millis(25);

/// Departed connections remembered for one client.
const DEPARTED_MAX: usize = 256;

/// A monitor that had been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reign {
    pub(super) opened: Timestamp,
    pub(super) ended: Timestamp,
    /// Something else than its client ended it.
    is_cut: bool,
}

/// Monitors that ended a moment ago and were not paired off yet. Bounded; entries expire.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// When each ended, and when it was opened.
    pub(super) streaming: VecDeque<(Timestamp, Timestamp)>,
    pub(super) round_trip: VecDeque<(Timestamp, Timestamp)>,
    pub(super) polling: VecDeque<Timestamp>,
    /// When the last streaming monitor ended, paired off or not.
    pub(super) streamed_at: Option<Timestamp>,
    /// Monitors that had been answered, in the order in which they ended.
    pub(super) reigns: VecDeque<Reign>,
    /// When pooled connections were ended by something else than their client, in order.
    cuts: VecDeque<Timestamp>,
    /// When connections were opened that were to be the next monitor and were not answered, and when they ended.
    attempts: VecDeque<(Timestamp, Timestamp)>,
    /// When the newest of these ended.
    tried_at: Timestamp,
    /// When ended connections that had carried `endSessions` were opened, and when they ended.
    pub(super) goodbyes: VecDeque<(Timestamp, Timestamp)>,
    /// Opening times of connections that ended silent and were counted as monitors under rule 7.
    pub(super) silent_monitors: VecDeque<Timestamp>,
    /// When the newest entry of the two above was made.
    newest: Timestamp,
}

impl Departed {
    /// Forgets what ended too long ago.
    pub(super) fn expire(&mut self, at: Timestamp) {
        let is_over = |ended: &Timestamp| at.since(*ended) > DEPARTURE;
        let is_long_over = |ended: &Timestamp| at.since(*ended) > LOST_FOR;
        // A client may notice late that a connection was ended; with which others it went is asked then.
        for departed in [&mut self.streaming, &mut self.round_trip] {
            while departed
                .pop_front_if(|(ended, _)| is_long_over(ended))
                .is_some()
            {}
        }
        while self.polling.pop_front_if(|ended| is_over(ended)).is_some() {}
        // An outage may last for hours: who still tries has not given up.
        if is_long_over(&self.tried_at) {
            while self
                .reigns
                .pop_front_if(|reign| is_long_over(&reign.ended))
                .is_some()
            {}
        }
        while self
            .attempts
            .pop_front_if(|(_, ended)| is_over(ended))
            .is_some()
        {}
        while self.cuts.pop_front_if(|cut| is_over(cut)).is_some() {}
        if self.streamed_at.is_some_and(|ended| is_over(&ended)) {
            self.streamed_at = None;
        }
        if at.since(self.newest) > DEPARTURE {
            self.goodbyes.clear();
            self.silent_monitors.clear();
        }
    }

    /// Nothing is left of what departed.
    pub(super) fn is_empty(&self) -> bool {
        let pairs = [
            &self.streaming,
            &self.round_trip,
            &self.attempts,
            &self.goodbyes,
        ];
        let moments = [&self.polling, &self.cuts, &self.silent_monitors];
        pairs.iter().all(|pairs| pairs.is_empty())
            && moments.iter().all(|moments| moments.is_empty())
            && self.reigns.is_empty()
            && self.streamed_at.is_none()
    }

    /// From when on another monitor may be opened in the place of each that ended, if it was there until `until`. Its
    /// client gives a monitor up because a connection broke, and does not dial before that; and the end may be read
    /// later than the dial. Some drivers wait before they check again, `waits`, unless the check itself failed; then
    /// there is half a second between checks even where it was not read that a connection had broken.
    pub(super) fn vacancies(
        &self,
        waits: bool,
        until: Timestamp,
    ) -> impl Iterator<Item = Timestamp> {
        self.reigns.iter().map(move |reign| {
            let ended = reign.ended;
            let before = self.cuts.partition_point(|cut| *cut <= ended);
            let cause = before.checked_sub(1).and_then(|last| self.cuts.get(last));
            let cause = cause.filter(|cut| ended.since(**cut) <= GIVEN_UP_WITHIN);
            let late = if ended + OUTLIVED <= until {
                OUTLIVED_LATE
            } else {
                REPLACED_WITHIN
            };
            let late = late.min(ended.since(reign.opened) / PARTS_OF_REIGN);
            let earliest = ended - late;
            match cause {
                Some(_) if waits && !reign.is_cut => earliest + ATTEMPTS_APART,
                Some(cut) => earliest.max(*cut),
                None if waits && !reign.is_cut => earliest.max(reign.opened + ATTEMPTS_APART),
                None => earliest,
            }
        })
    }

    /// A streaming monitor ended about then.
    pub(super) fn streamed_near(&self, at: Timestamp) -> bool {
        let mut ended = self.streaming.iter();
        ended.any(|(ended_at, _)| is_together(*ended_at, at))
    }

    /// Round-trip monitors that ended about then, and were not paired off.
    pub(super) fn round_trips_near(&self, at: Timestamp) -> usize {
        let ended = self.round_trip.iter();
        ended
            .filter(|(ended_at, _)| is_together(*ended_at, at))
            .count()
    }

    /// There were monitors that stream.
    pub(super) fn has_streamed(&self, at: Timestamp) -> bool {
        self.streamed_at.is_some() || self.streamed_near(at) || self.round_trips_near(at) > 0
    }

    /// Attempts at a monitor that could not be made by one monitor with one opened at this moment.
    pub(super) fn attempts_near(&self, opened_at: Timestamp) -> usize {
        self.attempts_about(opened_at).count()
    }

    /// Those of them that were still waiting for their answer then: a monitor makes one attempt at a time.
    pub(super) fn attempts_beside(&self, opened_at: Timestamp) -> usize {
        let is_waiting = |ended: &Timestamp| opened_at + REPLACED_WITHIN < *ended;
        self.attempts_about(opened_at).filter(is_waiting).count()
    }

    /// When attempts ended that were made about this moment.
    fn attempts_about(&self, opened_at: Timestamp) -> impl Iterator<Item = Timestamp> {
        let attempts = self.attempts.iter().copied();
        attempts
            .filter(move |(opened, _)| opened_at.distance(*opened) < ATTEMPTS_APART)
            .map(|(_, ended)| ended)
    }

    /// A connection with this final role ended.
    pub(super) fn ended(&mut self, connection: &Sibling, role: Role, at: Timestamp) {
        self.expire(at);
        if role == Role::Monitor && connection.is_answered {
            let reign = Reign {
                opened: connection.opened_at,
                ended: at,
                is_cut: connection.is_cut,
            };
            remember(&mut self.reigns, reign);
        }
        if role == Role::Monitor && !connection.is_answered {
            remember(&mut self.attempts, (connection.opened_at, at));
            self.tried_at = self.tried_at.max(at);
        }
        if role == Role::Application && connection.is_cut {
            let place = self.cuts.partition_point(|cut| *cut <= at);
            self.cuts.insert(place, at);
            if self.cuts.len() > DEPARTED_MAX {
                self.cuts.pop_front();
            }
        }
        match role {
            Role::Monitor if connection.is_streaming() => {
                self.streamed_at = Some(at);
                let reign = (connection.opened_at, at);
                let is_its = |(_, opened_at): &(_, Timestamp)| is_within(*opened_at, reign);
                if !pair_off(&mut self.round_trip, reign, is_its) {
                    remember(&mut self.streaming, (at, connection.opened_at));
                }
            }
            Role::Monitor if connection.told == Role::Unknown => {
                remember(&mut self.silent_monitors, connection.opened_at);
                self.newest = at;
            }
            Role::Monitor => remember(&mut self.polling, at),
            Role::RoundTripMonitor => {
                let opened_at = connection.opened_at;
                let is_its = |(ended, opened): &(Timestamp, Timestamp)| {
                    is_within(opened_at, (*opened, *ended))
                };
                if !pair_off(&mut self.streaming, (opened_at, at), is_its) {
                    remember(&mut self.round_trip, (at, opened_at));
                }
            }
            Role::Application if connection.has_said_goodbye => {
                remember(&mut self.goodbyes, (connection.opened_at, at));
                self.newest = at;
            }
            Role::Unknown | Role::Application | Role::Probe | Role::Tool | Role::Member => {}
        }
    }
}

/// Opened in the reign of a streaming monitor, from its opening to its end, or a moment before.
pub(super) fn is_within(opened_at: Timestamp, reign: (Timestamp, Timestamp)) -> bool {
    reign.0 <= opened_at + SWAPPED && opened_at <= reign.1
}

/// Two connections that ended so close to each other may have gone together.
pub(super) fn is_together(one_ended_at: Timestamp, other_ended_at: Timestamp) -> bool {
    one_ended_at.distance(other_ended_at) <= DEPARTURE
}

/// Takes out the one that fits one of this life, otherwise the oldest that was there with it: a monitor that was replaced
/// left its round-trip monitor to the next. False when there is none.
fn pair_off(
    departed: &mut VecDeque<(Timestamp, Timestamp)>,
    (opened_at, at): (Timestamp, Timestamp),
    fits: impl Fn(&(Timestamp, Timestamp)) -> bool,
) -> bool {
    let is_near = |(ended_at, _): &(Timestamp, Timestamp)| {
        is_together(*ended_at, at) && *ended_at >= opened_at
    };
    let fitting = departed.iter().position(|one| is_near(one) && fits(one));
    let fitting = fitting.or_else(|| departed.iter().position(is_near));
    fitting.is_some_and(|position| departed.remove(position).is_some())
}

fn remember<T>(entries: &mut VecDeque<T>, entry: T) {
    if entries.len() >= DEPARTED_MAX {
        entries.pop_front();
    }
    entries.push_back(entry);
}
