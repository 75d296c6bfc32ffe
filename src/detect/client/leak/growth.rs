//! How the mongo clients of one process grew, and whether those that it leaves behind are a leak.

use std::time::Duration;

use crate::detect::LeakSign;
use crate::time::Timestamp;

/// So many clients that were left behind are no habit of a start.
pub(super) const LEFT_MIN: usize = 8;

/// Where each may be a process of its own, it takes more than one address runs of a service.
const PROCESSES_MIN: usize = 64;

/// They were made at different moments: what comes together belongs to a start, or to one request.
const APART: Duration = Duration::from_secs(1);

/// Whoever made a client for a request has done with it after this.
const YOUTH: Duration = Duration::from_secs(5);

/// Left behind is what rests for so long,
const RESTS_MIN: Duration = Duration::from_secs(10);

/// and for so many times what passes between one client and the next: whatever is used seldom is made seldom.
const RESTS_GAPS: u32 = 3;

/// Clients of which the pace is taken: the newest.
const PACE_OF: usize = 16;

/// Applications start within this.
const LASTED_MIN: Duration = Duration::from_secs(30);

/// It goes on while the newest client is no older than this, or than twice the pace.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_GAPS: u32 = 2;

/// And is over after this, or four times the pace.
const OVER_MIN: Duration = Duration::from_secs(30);
const OVER_GAPS: u32 = 4;

/// Clients left behind for each that is in use, for each process that began, and for each that was closed.
const LEFT_SHARE: usize = 4;

/// A mongo client that is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) at: Timestamp,
    /// When it was at work last.
    pub(super) used_at: Timestamp,
    /// It carried something.
    pub(super) is_used: bool,
    /// Its first message was the first of its process.
    pub(super) begins_process: bool,
    pub(super) connections: u64,
    pub(super) monitors: u64,
}

/// The clients of one process, as they are at a moment.
#[derive(Debug)]
pub(super) struct Growth {
    sign: LeakSign,
    at: Timestamp,
    /// The oldest first.
    made: Vec<Made>,
    closed: Vec<Timestamp>,
    /// Those left behind, at different moments.
    left: Vec<Made>,
    /// What passes between one client and the next.
    pace: Duration,
}

impl Growth {
    /// `made` are those that are open, the oldest first; `closed` are moments at which others were closed.
    pub(super) fn of<'a>(
        made: Vec<Made>,
        closed: impl Iterator<Item = &'a Timestamp>,
        sign: LeakSign,
        at: Timestamp,
    ) -> Self {
        let mut growth = Self {
            sign,
            at,
            pace: pace(&made),
            left: Vec::new(),
            closed: closed.copied().collect(),
            made,
        };
        let left = growth.made.iter().filter(|made| growth.is_left(made));
        growth.left = apart(left.copied());
        growth
    }

    /// It was used when it was new, and not since.
    fn is_left(&self, made: &Made) -> bool {
        made.is_used
            && made.used_at.since(made.at) <= YOUTH
            && self.at.since(made.used_at) >= self.rests_min()
    }

    fn rests_min(&self) -> Duration {
        RESTS_MIN.max(self.pace * RESTS_GAPS)
    }

    /// Clients that are used again, or were never used: they were made for another reason.
    fn others(&self) -> usize {
        let is_other = |made: &&Made| !made.is_used || made.used_at.since(made.at) > YOUTH;
        self.made.iter().filter(is_other).count()
    }

    /// So many must have been left behind.
    fn left_min(&self) -> usize {
        let began_at = self.began_at().unwrap_or(self.at);
        let is_later = |made: &&Made| made.begins_process && made.at > began_at;
        let processes = self.made.iter().filter(is_later).count();
        let closed = usize::try_from(self.closed_since(began_at)).unwrap_or(usize::MAX);
        let amiss = self.others().max(processes).max(closed);
        let least = match self.sign {
            LeakSign::Monitors | LeakSign::Hellos => LEFT_MIN,
            LeakSign::Number => PROCESSES_MIN,
        };
        least.max(amiss.saturating_mul(LEFT_SHARE))
    }

    /// What tells its clients.
    pub(super) const fn sign(&self) -> LeakSign {
        self.sign
    }

    /// Clients are made on and on and left behind.
    pub(super) fn is_leak(&self) -> bool {
        self.left.len() >= self.left_min()
            && self.lasted_at().is_some()
            && self.at.since(self.newest_at()) <= PAUSE_MIN.max(self.pace * PAUSE_GAPS)
    }

    /// What was a leak is one still.
    pub(super) fn goes_on(&self) -> bool {
        self.left.len() >= self.left_min()
            && self.at.since(self.newest_at()) <= OVER_MIN.max(self.pace * OVER_GAPS)
    }

    /// When the first was made that was left behind.
    pub(super) fn began_at(&self) -> Option<Timestamp> {
        self.left.first().map(|first| first.at)
    }

    /// When one was made after longer than applications take to start.
    fn lasted_at(&self) -> Option<Timestamp> {
        let began_at = self.began_at()?;
        let mut moments = self.made.iter().map(|made| made.at);
        moments.find(|at| at.since(began_at) >= LASTED_MIN)
    }

    /// When it could be known.
    pub(super) fn evident_at(&self) -> Timestamp {
        let mut rested: Vec<Timestamp> = self
            .left
            .iter()
            .map(|made| made.used_at + self.rests_min())
            .collect();
        rested.sort_unstable();
        let enough = rested.get(self.left_min().saturating_sub(1)).copied();
        enough.max(self.lasted_at()).unwrap_or(self.at)
    }

    /// When the newest was made.
    pub(super) fn newest_at(&self) -> Timestamp {
        self.made.last().map_or(self.at, |newest| newest.at)
    }

    /// Clients that are open.
    pub(super) fn open(&self) -> u64 {
        count(self.made.len())
    }

    /// Those of them that were made before.
    pub(super) fn before(&self, at: Timestamp) -> u64 {
        count(self.made.iter().filter(|made| made.at < at).count())
    }

    /// Those of them that are left behind.
    pub(super) fn left(&self) -> u64 {
        count(self.made.iter().filter(|made| self.is_left(made)).count())
    }

    /// For how long each of those has rested at least.
    pub(super) fn rested(&self) -> Duration {
        let rested = self.left.iter().map(|made| self.at.since(made.used_at));
        rested.min().unwrap_or_default()
    }

    pub(super) fn connections_left(&self) -> u64 {
        let left = self.made.iter().filter(|made| self.is_left(made));
        left.map(|made| made.connections).sum()
    }

    pub(super) fn monitors_left(&self) -> u64 {
        let left = self.made.iter().filter(|made| self.is_left(made));
        left.map(|made| made.monitors).sum()
    }

    pub(super) fn closed_since(&self, at: Timestamp) -> u64 {
        count(self.closed.iter().filter(|closed| **closed >= at).count())
    }
}

/// One of each moment.
fn apart(made: impl Iterator<Item = Made>) -> Vec<Made> {
    let mut moments: Vec<Made> = Vec::new();
    for one in made {
        let is_apart = |last: &Made| one.at.since(last.at) >= APART;
        if moments.last().is_none_or(is_apart) {
            moments.push(one);
        }
    }
    moments
}

/// What passes between the newest clients, on the average.
fn pace(made: &[Made]) -> Duration {
    let moments = apart(made.iter().copied());
    let newest = moments.len().saturating_sub(PACE_OF);
    let newest = moments.get(newest..).unwrap_or_default();
    let (Some(first), Some(last)) = (newest.first(), newest.last()) else {
        return Duration::ZERO;
    };
    let gaps = u32::try_from(newest.len().saturating_sub(1)).unwrap_or(u32::MAX);
    last.at.since(first.at) / gaps.max(1)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
