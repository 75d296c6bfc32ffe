//! Why pooled connections were closed.
//!
//! The reasons are those of the Connection Monitoring and Pooling specification § Events (`ConnectionClosedEvent`).
//! What they are read from:
//! - *pool closed*: the mongo client said goodbye about then, or ended altogether by its own will;
//! - *error*: the server's side ended it, or it ended before it was ready, or with a request in flight;
//! - *stale*: the client closed it idle, and its pool was cleared since it was opened; or it was interrupted in the
//!   moment its monitor was given up;
//! - *idle*: the client closed it idle, and nothing happened.

use std::time::Duration;

use super::{Clear, Connection};
use crate::connection::{Initiator, Phase};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

/// What else a client did at the moment of a close is known by then.
const EXPLAINED_AFTER: Duration = Duration::from_secs(1);

/// What a client does at once takes no longer.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A client that is being closed has closed everything within this time.
const DEPARTURE: Duration = Duration::from_secs(2);

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    Idle,
    Stale,
    Error,
    PoolClosed,
}

/// A connection that was closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) connection: ConnectionId,
    pub(super) at: Timestamp,
    pub(super) opened_at: Timestamp,
    /// Time without a byte before.
    pub(super) idle: Duration,
    is_by_client: bool,
    phase: Phase,
    has_failed: bool,
}

/// What is known of the mongo client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Circumstances {
    pub(super) said_goodbye_at: Option<Timestamp>,
    /// It was closed, by its own will.
    pub(super) closed_at: Option<Timestamp>,
    /// It has no connection left, and it is not decided whether it was closed.
    pub(super) is_undecided: bool,
}

impl Closing {
    pub(super) fn of(connection: &Connection) -> Option<Self> {
        let end = connection.ended?;
        Some(Self {
            connection: connection.id,
            at: end.at,
            opened_at: connection.opened_at,
            idle: connection.idle_age(end.at),
            is_by_client: end.ending.initiator == Initiator::Client,
            phase: end.ending.phase,
            has_failed: end.ending.after_failed_authentication,
        })
    }

    /// Enough is known.
    pub(super) fn is_due(&self, circumstances: Circumstances, at: Timestamp) -> bool {
        at.since(self.at) >= EXPLAINED_AFTER && !(self.is_by_client && circumstances.is_undecided)
    }

    pub(super) fn reason(&self, circumstances: Circumstances, clears: &[Clear]) -> CloseReason {
        let is_about = |moment: Timestamp| {
            moment.since(self.at) <= DEPARTURE && self.at.since(moment) <= DEPARTURE
        };
        let is_closing = circumstances
            .said_goodbye_at
            .into_iter()
            .chain(circumstances.closed_at)
            .any(is_about);
        if self.is_by_client && is_closing {
            return CloseReason::PoolClosed;
        }
        if !self.is_by_client || self.has_failed {
            return CloseReason::Error;
        }
        match self.phase {
            Phase::Idle | Phase::Opaque => {
                let is_stale = clears
                    .iter()
                    .any(|clear| self.opened_at <= clear.at && clear.at <= self.at + AT_ONCE);
                if is_stale {
                    CloseReason::Stale
                } else {
                    CloseReason::Idle
                }
            }
            Phase::InExchange | Phase::MidMessage => {
                let given_up = clears.iter().filter_map(|clear| clear.given_up_at);
                let is_interrupted = given_up
                    .into_iter()
                    .any(|at| at.since(self.at) <= AT_ONCE && self.at.since(at) <= AT_ONCE);
                if is_interrupted {
                    CloseReason::Stale
                } else {
                    CloseReason::Error
                }
            }
            Phase::Dialling | Phase::Handshaking | Phase::Authenticating => CloseReason::Error,
        }
    }
}
