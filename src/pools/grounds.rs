//! On what each figure of a mongo client and its pool rests, and how sure that makes it.
//!
//! Texts are made when they are asked for; what they are made of is kept as counts and marks. A confidence is that of
//! the figure, taken for granted that the connections are one client's: of that [`MongoClient::confidence`] speaks.
//! Moments are compared with the drivers' own events when recorded scenarios are judged again; where applications were seen
//! to do less than applications may, the confidence stays below what was found there.

use std::time::Duration;

use super::rates::{self, Happened};
use super::{Clear, CloseReason, MongoClient, Pool};
use crate::time::Timestamp;

/// A connection that carried operations or authenticated is a pooled one; nothing else does either.
const USED: f64 = 0.99;

/// What only shook hands is found to be pooled by its handshake, its siblings and its silence.
const ASSUMED: f64 = 0.85;

/// Uses from which half of the doubt about a distribution is gone.
const FEW_USES: u64 = 10;

/// A pool in which everything is under way may be about to grow.
const MAY_GROW: f64 = 0.3;

/// Why something is believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Ground {
    /// From 0 (a guess) to 1 (proven).
    pub confidence: f64,
    /// What it is concluded from.
    pub evidence: String,
}

/// What the life of a mongo client is concluded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It was the only mongo client of its instance that was open.
    pub is_alone: bool,
    /// Its connections carried common logical sessions.
    pub has_sessions: bool,
    /// It has, or had, monitors.
    pub is_watched: bool,
    /// Its first connection was a monitor.
    pub began_watching: bool,
    /// How it was closed, where it was.
    pub farewell: Option<Farewell>,
}

/// How it is concluded that a mongo client was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// It said goodbye, and closed its connections itself.
    SaidGoodbye,
    /// It said goodbye, and something else ended the last of its connections.
    CutAfterGoodbye,
    /// It closed all its connections itself, its monitors among them.
    Left,
    /// It closed all its connections itself, and had no monitors.
    LeftUnwatched,
    /// It lost all its connections, and none of its monitors came back.
    NotBack,
    /// It lost all its connections, and nothing came back; but it had no monitors.
    NotBackUnwatched,
}

impl Farewell {
    /// How sure it is. A driver dials for its monitors without end, for others only when it is asked for something.
    pub const fn confidence(self) -> f64 {
        match self {
            Self::SaidGoodbye => 0.98,
            Self::CutAfterGoodbye | Self::Left => 0.9,
            Self::NotBack => 0.85,
            Self::LeftUnwatched => 0.7,
            Self::NotBackUnwatched => 0.5,
        }
    }

    /// As a reader is told.
    pub const fn told(self) -> &'static str {
        match self {
            Self::SaidGoodbye => {
                "it said goodbye (`endSessions`), and closed the last of its connections then"
            }
            Self::CutAfterGoodbye => {
                "it said goodbye (`endSessions`); the last of its connections was ended by something else then"
            }
            Self::Left => {
                "it closed all its connections, its monitors among them, and opened none for two seconds; it did not say goodbye"
            }
            Self::LeftUnwatched => {
                "it closed all its connections, and opened none for two seconds; it had no monitors, so it may open more when it is used"
            }
            Self::NotBack => {
                "it lost all its connections, and its monitors, which never cease to dial, did not come back for 30 s"
            }
            Self::NotBackUnwatched => {
                "it lost all its connections, and opened none for 30 s; it had no monitors, so it may open more when it is used"
            }
        }
    }
}

/// Who got the answer by which a pool is taken to be ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadySign {
    /// A monitor: that is what makes a driver's pool ready.
    Check,
    /// A pooled connection: the check was not seen, or there is none.
    #[default]
    Connection,
    /// The monitor that took the place of another.
    NewMonitor,
}

impl ReadySign {
    /// How sure it is that the pool was ready at that moment.
    pub const fn confidence(self) -> f64 {
        match self {
            Self::Check => 0.95,
            Self::NewMonitor => 0.8,
            Self::Connection => 0.85,
        }
    }

    /// As a reader is told.
    pub const fn told(self) -> &'static str {
        match self {
            Self::Check => "the server answered its monitor",
            Self::Connection => {
                "the server answered a pooled connection, so that the pool was ready by then"
            }
            Self::NewMonitor => "it had opened another monitor in place of the one before",
        }
    }
}

impl MongoClient {
    /// What its life is concluded from.
    pub fn standing(&self) -> Standing {
        let mut watches = self.watches.values();
        Standing {
            is_alone: self.is_alone,
            has_sessions: self.home.is_some(),
            is_watched: !self.watches.is_empty(),
            began_watching: watches.any(|watch| watch.since <= self.created_at),
            farewell: self.farewell(),
        }
    }

    fn farewell(&self) -> Option<Farewell> {
        let closed_at = self.closed_at?;
        let is_own_will = self.last_end.is_some_and(|(_, is_own)| is_own);
        let was_awaited = self
            .pools
            .values()
            .any(|pool| pool.is_cleared() || pool.is_ready_again(closed_at));
        let is_watched = !self.watches.is_empty();
        Some(match (self.said_goodbye_at.is_some(), is_own_will) {
            (true, true) => Farewell::SaidGoodbye,
            (true, false) => Farewell::CutAfterGoodbye,
            (false, true) if !was_awaited && is_watched => Farewell::Left,
            (false, true) if !was_awaited => Farewell::LeftUnwatched,
            (false, _) if is_watched => Farewell::NotBack,
            (false, _) => Farewell::NotBackUnwatched,
        })
    }
}

impl Standing {
    /// What tells that these connections are one client's, beside how many there were.
    pub fn joined(self, created: u64, monitors: u64) -> String {
        let by = match (self.has_sessions, self.is_watched) {
            (true, true) => "carried common logical sessions, and it has monitors of its own",
            (true, false) => "carried common logical sessions; its driver shows no monitors",
            (false, true) => "were opened around its monitors; no session joins them",
            (false, false) => "share address, application and driver; nothing else joins them",
        };
        let among = if self.is_alone {
            "no other mongo client of the instance was open"
        } else {
            "others of the instance were open"
        };
        let pooled = counted(created, "pooled connection");
        let open = counted(monitors, "open monitor");
        format!("{pooled} and {open}: these {by}; {among}")
    }

    /// Why it was created when its first connection was opened.
    pub fn created(self) -> Ground {
        let (confidence, evidence) = match (self.began_watching, self.is_watched) {
            (true, _) => (
                0.95,
                "a monitor was its first connection: drivers open that when the object is made",
            ),
            (false, true) => (0.9, "a pooled connection was opened before its monitor was"),
            (false, false) => (
                0.8,
                "a pooled connection was its first, and it has no monitors: the object may have been there unused",
            ),
        };
        Ground::of(confidence, evidence)
    }

    /// Why it was closed.
    pub fn closed(self) -> Option<Ground> {
        let farewell = self.farewell?;
        Some(Ground::of(farewell.confidence(), farewell.told()))
    }
}

impl Ground {
    fn of(confidence: f64, evidence: impl Into<String>) -> Self {
        Self {
            confidence,
            evidence: evidence.into(),
        }
    }

    /// Open monitors, of which so many asked for what only monitors ask for.
    pub fn of_monitors(all: u64, proven: u64) -> Option<Self> {
        let assumed = all.saturating_sub(proven);
        let confidence = mean([(proven, USED), (assumed, ASSUMED)])?;
        let evidence = format!(
            "{proven} of {all} asked as only monitors do, {assumed} had at most shaken hands or repeat plain hellos beside one"
        );
        Some(Self::of(confidence, evidence))
    }
}

impl Clear {
    /// Why it was over then.
    pub fn ground_of_ready(&self) -> Option<Ground> {
        self.ready_at?;
        let sign = self.ready_sign;
        Some(Ground::of(sign.confidence(), sign.told()))
    }
}

impl Pool {
    /// Why its connections are pooled ones; none where there were none.
    pub fn ground_of_created(&self) -> Option<Ground> {
        let used = self.used.min(self.created);
        let assumed = self.created - used;
        let confidence = mean([(used, USED), (assumed, ASSUMED)])?;
        let evidence = format!(
            "{used} of {} carried operations or authenticated, {assumed} only shook hands and are no monitors by handshake, \
             siblings or silence",
            self.created
        );
        Some(Ground::of(confidence, evidence))
    }

    /// Why it was ready then.
    pub fn ground_of_ready(&self) -> Option<Ground> {
        self.ready_at?;
        Some(Ground::of(
            self.ready_sign.confidence(),
            self.ready_sign.told(),
        ))
    }

    /// Why its operations are those of so many connections.
    pub fn ground_of_operations(&self) -> Option<Ground> {
        let created = self.ground_of_created()?;
        let evidence = format!(
            "{} on {}, {} of which carried any or authenticated",
            counted(self.operations, "operation"),
            counted(self.created, "connection"),
            self.used
        );
        Some(Ground::of(created.confidence, evidence))
    }

    /// Why it opens so many connections a second; `since` is when its mongo client was created.
    pub fn ground_of_sockets(&self, since: Timestamp, at: Timestamp) -> Option<Ground> {
        let created = self.ground_of_created()?;
        let opened = self.rates.within(super::pool::MINUTE, at).opened;
        let (share, lasted) = covered(super::pool::MINUTE, since, at);
        let evidence = format!(
            "{} opened in the last {lasted}",
            counted(opened, "connection")
        );
        Some(Ground::of(created.confidence * share, evidence))
    }

    /// Why it replaces and grows by so many connections; `since` is when its mongo client was created.
    pub fn ground_of_recycling(&self, since: Timestamp, at: Timestamp) -> Option<Ground> {
        let created = self.ground_of_created()?;
        let Happened {
            opened,
            replaced,
            operations,
        } = self.rates.within(rates::WINDOW, at);
        let (share, lasted) = covered(rates::WINDOW, since, at);
        let leaving = self.closed.counts();
        let leaving = leaving.filter(|(basis, _)| basis.reason() != CloseReason::PoolClosed);
        let (mut gone, mut sure) = (0, 0.0);
        for (basis, count) in leaving {
            gone += count;
            sure += basis.confidence() * float(count);
        }
        // What was replaced is as sure as what it replaced; where nothing was closed, that is counted.
        let closes = if gone == 0 { 1.0 } else { sure / float(gone) };
        let evidence = format!(
            "{} opened in the last {lasted}, {replaced} of them after others had been closed (idle, stale or for an \
             error: {gone} so far), beside {}",
            counted(opened, "connection"),
            counted(operations, "operation")
        );
        Some(Ground::of(created.confidence * closes * share, evidence))
    }

    /// What the distribution of idle times is measured from.
    pub fn ground_of_idle_times(&self) -> Option<Ground> {
        let (uses, exact) = self.idle_times.uses();
        let averaged = uses.saturating_sub(exact);
        let measured = mean([(exact, USED), (averaged, ASSUMED)])?;
        let doubt = float(FEW_USES) / float(FEW_USES + uses);
        let evidence = format!(
            "{}: {exact} measured singly, {averaged} as the mean of several between two looks",
            counted(uses, "use")
        );
        Some(Ground::of(measured * (1.0 - doubt), evidence))
    }

    /// Why it is taken for saturated.
    pub fn ground_of_saturation(&self, at: Timestamp) -> Option<Ground> {
        let since = self.saturated_since?;
        let open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        let limit = self.max_size.filter(|limit| limit.value == open);
        let confidence = limit.map_or(MAY_GROW, |limit| limit.confidence);
        let so_far = if limit.is_some() {
            "and it did not grow"
        } else {
            "for so short a time that it may be about to grow"
        };
        let evidence = format!(
            "all {open} connections had requests under way at each of {} in {:.1} s, {so_far}",
            counted(u64::from(self.saturated_looks), "look"),
            at.since(since).as_secs_f64()
        );
        Some(Ground::of(confidence, evidence))
    }
}

/// How far a window is covered, and what it comes to: what began in it tells less than a whole one.
fn covered(window: Duration, since: Timestamp, at: Timestamp) -> (f64, String) {
    let lived = at.since(since);
    if lived >= window {
        let minutes = window.as_secs() / 60;
        let window = counted(minutes, "minute");
        return (1.0, window);
    }
    let part = lived.as_secs_f64() / window.as_secs_f64();
    let window = window.as_secs();
    let lasted = format!(
        "{:.0} s, all of its life, of the {window} s that are reckoned with",
        lived.as_secs_f64()
    );
    (0.5 + part / 2.0, lasted)
}

/// The mean of confidences, each of so many.
fn mean<const N: usize>(parts: [(u64, f64); N]) -> Option<f64> {
    let all: u64 = parts.iter().map(|(count, _)| count).sum();
    let sum: f64 = parts.iter().map(|(count, sure)| float(*count) * sure).sum();
    (all > 0).then(|| sum / float(all))
}

fn counted(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

#[expect(clippy::cast_precision_loss, reason = "confidences are read by people")]
const fn float(count: u64) -> f64 {
    count as f64
}
