//! Cleared pools.
//!
//! A driver clears a pool when it has reason to believe that its connections are dead (Server Discovery and Monitoring
//! specification § Error handling). One outage makes one event in some drivers and one for each failed check in
//! others, so episodes are told here: from the first sign until a check or a new connection succeeds.
//!
//! Signs are:
//! - a monitor was ended by the server's side, or was given up by its client after more silence than an interval;
//! - the server's side ended a pooled connection that had a request in flight;
//! - a reply with the code 91 or 11600; other codes of state changes only from servers before 4.2
//!   (`maxWireVersion` up to 7);
//! - a connection broke before its first hello was answered, unless the driver announced `backpressure`; and a failed
//!   authentication in Node from 4 on and Go;
//! - a client replaced its monitor although nothing broke, and kept pooled connections.
//!
//! None of these is a time-out of an operation, the end of an idle pooled connection, or the close of a client.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ReadySign;
use super::closings::Closing;
use crate::time::Timestamp;

/// A pool that is cleared again so soon after it was ready is in the same trouble.
const SAME_TROUBLE: Duration = Duration::from_secs(1);

/// Episodes remembered for one pool.
const CLEARS_MAX: usize = 32;

/// Connections that were idle are closed with the clear, or within this time.
const AFTERMATH: Duration = Duration::from_secs(2);

/// The first sign may be read later than what follows from it.
const JITTER: Duration = Duration::from_millis(100);

/// An episode in which a pool was cleared: from the first sign until its pool works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear {
    /// The first sign.
    pub at: Timestamp,
    /// The newest sign.
    pub newest: Timestamp,
    /// When a check of the server succeeded again; `None` while none did.
    pub ready_at: Option<Timestamp>,
    /// What that is concluded from, once it is ready.
    pub ready_sign: ReadySign,
    /// What it is concluded from.
    pub sign: ClearSign,
    /// Connections that went with it.
    pub closed: u64,
    /// When a monitor was given up in it, so that connections in use were closed, too.
    pub given_up_at: Option<Timestamp>,
}

/// Signs closer to each other than this are remembered as one.
const SIGN_WIDTH: Duration = Duration::from_millis(25);

/// Signs remembered for one pool: those of the seconds in which closes wait to be explained.
const SIGNS_MAX: usize = 128;

/// A connection that was opened by one that saw its pool being cleared is in use for no longer, as a rule.
const FIRST_USE: Duration = Duration::from_secs(1);

/// When a pool was cleared, each time of an episode: the beginnings of its generations.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs(VecDeque<Sign>);

/// Signs of one moment: the first of them and the last.
#[derive(Clone, Copy, Debug)]
struct Sign {
    first: Timestamp,
    last: Timestamp,
}

impl Signs {
    /// A sign; on a pooled connection, with the moment it was opened. What becomes of a connection of an earlier
    /// generation clears nothing (Connection Monitoring and Pooling specification § Connection Pool Behaviors); one
    /// that was being made takes the generation that there is then.
    pub(super) fn add(&mut self, opened_at: Option<Timestamp>, at: Timestamp) {
        let is_outdated =
            opened_at.is_some_and(|opened_at| self.has_within(opened_at + JITTER, at));
        if is_outdated {
            return;
        }
        if let Some(newest) = self.0.back_mut()
            && newest.first <= at
            && at.since(newest.first) < SIGN_WIDTH
        {
            newest.last = newest.last.max(at);
            return;
        }
        if self.0.len() >= SIGNS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Sign {
            first: at,
            last: at,
        });
    }

    /// It was cleared between two moments.
    pub(super) fn has_within(&self, from: Timestamp, until: Timestamp) -> bool {
        let mut signs = self.0.iter();
        signs.any(|sign| from <= sign.last && sign.first <= until)
    }

    /// What was closed then was of an earlier generation. A driver numbers a connection before it dials: one that is
    /// accepted just after a clear may be of the generation before, and is closed after its first use.
    pub(super) fn outdated(&self, opened_at: Timestamp, closed_at: Timestamp) -> bool {
        let is_new = closed_at.since(opened_at) < FIRST_USE;
        let from = if is_new {
            opened_at - JITTER
        } else {
            opened_at
        };
        self.has_within(from, closed_at + JITTER)
    }

    pub(super) fn absorb(&mut self, other: Self) {
        for sign in other.0 {
            self.add(None, sign.first);
            self.add(None, sign.last);
        }
    }
}

/// What tells that a pool was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClearSign {
    /// The server's side ended a monitor, or its client gave it up after more silence than an interval.
    MonitorLost,
    /// The server's side ended a pooled connection that had a request in flight.
    ConnectionBroke,
    /// A connection broke before its first hello was answered.
    HandshakeBroke,
    /// An authentication failed, in a driver that clears its pool then.
    AuthenticationFailed,
    /// A reply said that the server is not, or no longer, primary.
    NotPrimary,
    /// A reply said that the server is shutting down.
    ShuttingDown,
    /// A monitor was reset on its way, and its client went on with another.
    MonitorReset,
    /// A client replaced its monitor although nothing broke, and kept pooled connections.
    MonitorReplaced,
}

impl ClearSign {
    /// Why the pool was cleared.
    pub const fn trigger(self) -> ClearTrigger {
        match self {
            Self::MonitorLost
            | Self::ConnectionBroke
            | Self::HandshakeBroke
            | Self::MonitorReset => ClearTrigger::Network,
            Self::NotPrimary => ClearTrigger::NotPrimary,
            Self::ShuttingDown => ClearTrigger::ServerShutdown,
            Self::AuthenticationFailed | Self::MonitorReplaced => ClearTrigger::Unknown,
        }
    }

    /// How sure it is, from 0 to 1. What the specification says a driver does is surer than what only some were seen
    /// to do.
    pub const fn confidence(self) -> f64 {
        match self {
            Self::NotPrimary | Self::ShuttingDown | Self::MonitorLost | Self::ConnectionBroke => {
                0.97
            }
            Self::HandshakeBroke | Self::MonitorReset => 0.9,
            Self::AuthenticationFailed | Self::MonitorReplaced => 0.8,
        }
    }

    /// As a reader is told.
    pub const fn told(self) -> &'static str {
        match self {
            Self::MonitorLost => "its monitor was ended, or given up after too long a silence",
            Self::ConnectionBroke => "a connection broke with a request under way",
            Self::HandshakeBroke => "a connection broke before its first hello was answered",
            Self::AuthenticationFailed => "an authentication failed",
            Self::NotPrimary => "a reply said that the server is not primary",
            Self::ShuttingDown => "a reply said that the server is shutting down",
            Self::MonitorReset => "its monitor was reset on the way, and another took its place",
            Self::MonitorReplaced => {
                "it replaced its monitor although nothing broke, and kept its pool"
            }
        }
    }
}

/// Why a pool was cleared: the `trigger` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClearTrigger {
    /// A reply said that the server is not, or no longer, primary.
    NotPrimary,
    /// A connection broke, or a monitor gave up.
    Network,
    /// A reply said that the server is shutting down.
    ServerShutdown,
    /// Nothing tells.
    Unknown,
}

impl Clear {
    /// The connection was closed because of it.
    pub(super) fn takes_along(&self, closing: &Closing) -> bool {
        let until = self
            .ready_at
            .map_or(closing.at, |ready_at| ready_at + AFTERMATH);
        closing.opened_at <= self.at && self.at <= closing.at + JITTER && closing.at <= until
    }
}

/// A sign that a pool was cleared.
pub(super) fn sign(clears: &mut Vec<Clear>, at: Timestamp, sign: ClearSign) {
    if let Some(last) = clears.last_mut() {
        let is_same = last
            .ready_at
            .is_none_or(|ready_at| at.since(ready_at) < SAME_TROUBLE);
        if is_same {
            // Ends of one moment are told in any order.
            last.at = last.at.min(at);
            last.newest = last.newest.max(at);
            last.ready_at = last.ready_at.filter(|ready_at| *ready_at > at);
            if last.sign.trigger() == ClearTrigger::Unknown {
                last.sign = sign;
            }
            return;
        }
    }
    if clears.len() >= CLEARS_MAX {
        clears.remove(0);
    }
    clears.push(Clear {
        at,
        newest: at,
        ready_at: None,
        ready_sign: ReadySign::default(),
        sign,
        closed: 0,
        given_up_at: None,
    });
}

/// A check or a new connection succeeded, on a connection opened at this moment. When bytes came from a server is told up to
/// a second later; what was heard before the newest sign says nothing of what has been since.
pub(super) fn succeeded(
    clears: &mut [Clear],
    opened_at: Timestamp,
    at: Timestamp,
    sign: ReadySign,
) {
    if let Some(last) = clears.last_mut()
        && last.ready_at.is_none()
        && opened_at >= last.at
        && at >= last.newest
    {
        last.ready_at = Some(at);
        last.ready_sign = sign;
    }
}

impl ClearTrigger {
    /// Every trigger.
    pub const ALL: [Self; 4] = [
        Self::NotPrimary,
        Self::Network,
        Self::ServerShutdown,
        Self::Unknown,
    ];

    /// The value of the `trigger` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotPrimary => "not_primary",
            Self::Network => "network",
            Self::ServerShutdown => "server_shutdown",
            Self::Unknown => "unknown",
        }
    }
}
