//! Why pooled connections were closed.
//!
//! The reasons are those of the Connection Monitoring and Pooling specification § Events (`ConnectionClosedEvent`).
//! What they are read from:
//! - *pool closed*: the mongo client said goodbye about then, or ended altogether by its own will;
//! - *error*: it was broken while idle, ended before it was ready, or with a request in flight;
//! - *stale*: the client closed it idle, and its pool was cleared since it was opened; or it was interrupted in the
//!   moment its monitor was given up;
//! - *idle*: the client closed it idle, and nothing happened.
//!
//! Two events of one moment have the reason of what the driver sees first. A pool that is cleared in the moment its
//! idle sockets break closes them as stale, without another look at them (PyMongo `Pool._reset`, Go
//! `connectionPerished`, Rust `ConnectionPoolWorker::check_out`); Node's event loop has seen the socket close, and
//! calls that an error (`connectionIsPerished`).

use std::time::Duration;

use super::clear::Signs;
use super::reasons::CloseBasis;
use super::{Clear, Connection};
use crate::connection::{ClientMetadata, Initiator, Phase};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

/// What else a client did at the moment of a close is known by then.
const EXPLAINED_AFTER: Duration = Duration::from_secs(1);

/// What a client does at once takes no longer.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A client that is being closed has closed everything within this time.
const DEPARTURE: Duration = Duration::from_secs(2);

/// What is sent in one order is read in another within this.
const READ_TOGETHER: Duration = Duration::from_millis(10);

/// Limits of idle time are seconds and more.
const LONG_UNUSED: Duration = Duration::from_secs(1);

impl Habits {
    /// By name and version of a driver.
    pub(super) fn of(client: &ClientMetadata) -> Self {
        let driver = client.driver_name.as_str();
        let mut version = client.driver_version.split(['.', '|']);
        let mut number = || version.next().and_then(|number| number.parse().ok());
        let version: (u32, u32) = (number().unwrap_or(0), number().unwrap_or(0));
        let is_node = driver.starts_with("nodejs");
        Self {
            notices_ends: is_node,
            // `ConnectionPool.closeCheckedOutConnections`.
            breaks_what_it_closes: is_node && version >= (6, 13),
            // `Connection::send_message_with_cancellation`; Node from 6 on.
            breaks_what_it_interrupts: driver.starts_with("mongo-rust-driver"),
        }
    }
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
    /// It was broken on the driver, which had nothing in flight on it.
    is_broken: bool,
    phase: Phase,
    has_failed: bool,
    has_said_goodbye: bool,
    habits: Habits,
}

/// What drivers do differently when connections end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// It sees at once that a socket it does not use was closed on it.
    pub(super) notices_ends: bool,
    /// It breaks what is in use before it closes a pool.
    pub(super) breaks_what_it_closes: bool,
    /// It breaks what is in use when a pool is cleared because a monitor was given up.
    pub(super) breaks_what_it_interrupts: bool,
}

/// What is known of the mongo client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Circumstances {
    pub(super) said_goodbye_at: Option<Timestamp>,
    /// It was closed, by its own will.
    pub(super) closed_at: Option<Timestamp>,
    /// It has no connection left, and it is not decided whether it was closed.
    pub(super) is_undecided: bool,
    /// It closed the last of its connections then by its own will, and nothing had broken any.
    pub(super) left_at: Option<Timestamp>,
    /// It closed a monitor of the server then, and it is not decided whether it cleared its pool.
    pub(super) may_have_cleared_at: Option<Timestamp>,
}

impl Closing {
    pub(super) fn of(connection: &Connection) -> Option<Self> {
        let end = connection.ended?;
        let is_by_client = end.ending.initiator == Initiator::Client;
        Some(Self {
            connection: connection.id,
            at: end.at,
            opened_at: connection.opened_at,
            idle: connection.idle_age(end.at),
            is_by_client,
            is_broken: connection.was_broken(),
            phase: end.ending.phase,
            has_failed: end.ending.after_failed_authentication,
            has_said_goodbye: connection.said_goodbye_at.is_some(),
            habits: connection.habits,
        })
    }

    /// Enough is known.
    pub(super) fn is_due(
        &self,
        circumstances: Circumstances,
        signs: &Signs,
        at: Timestamp,
    ) -> bool {
        let may_be_cleared = circumstances.may_have_cleared_at;
        at.since(self.at) >= EXPLAINED_AFTER
            && may_be_cleared.is_none_or(|cleared_at| cleared_at > self.at + AT_ONCE)
            && !(self.is_by_client && circumstances.is_undecided && !self.follows_clear(signs))
    }

    /// Its pool was cleared just before, since it was opened.
    fn follows_clear(&self, signs: &Signs) -> bool {
        let since = self.at - DEPARTURE;
        signs.has_within(self.opened_at.max(since), self.at + AT_ONCE)
    }

    /// What the reason follows from.
    pub(super) fn basis(
        &self,
        circumstances: Circumstances,
        clears: &[Clear],
        signs: &Signs,
    ) -> CloseBasis {
        let is_about = |moment: Timestamp| {
            moment.since(self.at) <= DEPARTURE && self.at.since(moment) <= DEPARTURE
        };
        // What follows a clear is not the will of the application, unless it says so; nor is what never stood.
        let has_left = circumstances.left_at.is_some_and(is_about) && self.phase.has_stood();
        let goodbye = circumstances.said_goodbye_at;
        // A driver says goodbye first, and closes its pools then. What was at work a moment ago may be another client's.
        let is_before_goodbye = self.idle >= LONG_UNUSED
            && goodbye.is_some_and(|goodbye| goodbye.since(self.at) > READ_TOGETHER);
        let has_said_goodbye = goodbye.is_some_and(is_about) && !is_before_goodbye;
        let is_closing = has_said_goodbye
            || (!self.follows_clear(signs)
                && !is_before_goodbye
                && (has_left || circumstances.closed_at.is_some_and(is_about)));
        let is_in_use = matches!(self.phase, Phase::InExchange | Phase::MidMessage);
        if self.is_by_client && is_closing {
            // What is in flight on one that said goodbye is that.
            let is_in_use = is_in_use && !self.has_said_goodbye;
            return if is_in_use && self.habits.breaks_what_it_closes {
                CloseBasis::BrokenByClose
            } else if has_said_goodbye {
                CloseBasis::SaidGoodbye
            } else {
                CloseBasis::ClientLeft
            };
        }
        if self.has_failed {
            return CloseBasis::AuthenticationFailed;
        }
        match self.phase {
            Phase::Idle | Phase::Opaque => {
                let is_stale = signs.outdated(self.opened_at, self.at);
                match (self.is_broken, is_stale) {
                    (true, true) if !self.habits.notices_ends => CloseBasis::BrokenWithClear,
                    (true, _) => CloseBasis::BrokenIdle,
                    (false, true) => CloseBasis::Outdated,
                    (false, false) => CloseBasis::Unused,
                }
            }
            Phase::InExchange | Phase::MidMessage => {
                let given_up = clears.iter().filter_map(|clear| clear.given_up_at);
                let is_interrupted = given_up
                    .into_iter()
                    .any(|at| at.since(self.at) <= AT_ONCE && self.at.since(at) <= AT_ONCE);
                if self.is_by_client && is_interrupted && !self.habits.breaks_what_it_interrupts {
                    CloseBasis::Interrupted
                } else {
                    CloseBasis::InUse
                }
            }
            Phase::Dialling | Phase::Handshaking | Phase::Authenticating => CloseBasis::NeverReady,
        }
    }
}
