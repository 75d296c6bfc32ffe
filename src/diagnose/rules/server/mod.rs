//! Causes that lie with the server or with the network.
//!
//! | rules | causes |
//! |---|---|
//! | [`ends`] | `server_crash`, `server_shutdown`, `server_closing`, `network_reset` |
//! | [`roles`] | `failover` |
//! | [`silence`] | `server_freeze`, `network_blackhole` |
//! | [`slowness`] | `network_loss`, `network_latency`, `slow_operations` |
//! | [`ages`] | `idle_cutoff`, `socket_timeout` |
//! | [`refusals`] | `pool_capacity`, `auth_failures` |
//! | [`unknown`] | `unknown` |

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a rule asks for the signals it knows; a new one is no business of the others"
)]

mod ages;
mod ends;
mod refusals;
mod roles;
mod silence;
mod slowness;
mod unknown;

use std::time::Duration;

use super::super::words::{counted, named, within};
use super::super::{Case, Evidence};
use super::Rule;
use crate::detect::{CloseGroup, Signal, SignalKind, is_of_a_client};
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::{DialFailure, UpstreamId};

pub(super) const RULES: &[Rule] = &[
    ends::crash,
    ends::shutdown,
    ends::closing,
    ends::reset,
    roles::failover,
    silence::freeze,
    silence::blackhole,
    slowness::loss,
    slowness::latency,
    slowness::slow_operations,
    ages::idle_cutoff,
    ages::socket_timeout,
    refusals::capacity,
    refusals::authentication,
    unknown::unknown,
];

/// `ShutdownInProgress`, `InterruptedAtShutdown`.
pub(super) const SHUTDOWN: [i32; 2] = [91, 11600];

/// `PrimarySteppedDown`, `InterruptedDueToReplStateChange`, `NotPrimaryOrSecondary`, `NotWritablePrimary`,
/// `NotPrimaryNoSecondaryOk`, and what servers before 4.4 said.
pub(super) const NOT_PRIMARY: [i32; 6] = [189, 11602, 13436, 10107, 13435, 10058];

/// A dial that is sent again takes a second.
const AT_ONCE: Duration = Duration::from_millis(800);

/// A fact.
pub(super) fn fact(at: Timestamp, count: u64, text: impl Into<String>) -> Evidence {
    Evidence {
        at: Some(at),
        fact: text.into(),
        count: Some(count),
    }
}

/// A fact without a count.
pub(super) fn note(at: Timestamp, text: impl Into<String>) -> Evidence {
    Evidence {
        at: Some(at),
        fact: text.into(),
        count: None,
    }
}

/// Connections that the server's side ended together, as a signal has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'a> {
    signal: &'a Signal,
    pub(super) group: &'a CloseGroup,
    instances: u64,
    instances_before: u64,
    followed: u64,
    is_client_side: bool,
}

impl Cut<'_> {
    /// The server's side ended most of what there was, and nothing was left.
    const fn is_total(&self) -> bool {
        self.group.closed * 2 >= self.group.of && self.group.closed + self.followed >= self.group.of
    }

    /// Nearly all of it were resets.
    const fn is_by_reset(&self) -> bool {
        self.group.resets > 0 && self.group.resets * 5 >= self.group.closed * 4
    }

    fn told(&self) -> Evidence {
        let CloseGroup {
            closed,
            of,
            in_flight,
            resets,
            span,
            commands_lost,
            ..
        } = self.group;
        let how = if *resets == 0 {
            "by FIN".to_owned()
        } else if resets == closed {
            "by RST".to_owned()
        } else {
            format!("{resets} by RST, {} by FIN", closed - resets)
        };
        let side = if self.is_client_side {
            "client"
        } else {
            "server"
        };
        let when = match closed {
            1 => String::new(),
            _ => format!(" within {}", within(*span)),
        };
        let busy = match (in_flight, closed) {
            (0, _) => "none with a request in flight".to_owned(),
            (1, 1) => "with a request in flight".to_owned(),
            _ => format!("{in_flight} with a request in flight"),
        } + &named(commands_lost);
        let whose = match (self.instances, self.instances_before) {
            (_, 0 | 1) => String::new(),
            (2, 2) => " of both instances".to_owned(),
            (some, before) if some == before => format!(" of all {before} instances"),
            (some, before) => format!(" of {some} of {before} instances"),
        };
        fact(
            self.signal.at,
            *closed,
            format!(
                "{}{whose} ended from the {side}'s side{when}, {how}, {busy}",
                match (closed, of) {
                    (1, 1) => "the only connection".to_owned(),
                    (closed, of) if closed == of => format!("all {of} connections"),
                    (closed, of) => format!("{closed} of {}", counted(*of, "connection")),
                },
            ),
        )
    }
}

/// Every cut of a case, the earliest first.
pub(super) fn cuts(case: &Case) -> Vec<Cut<'_>> {
    case.signals()
        .iter()
        .filter_map(|signal| match &signal.kind {
            SignalKind::ServerClosed {
                group,
                instances,
                instances_before,
                followed,
                is_client_side,
            } => Some(Cut {
                signal,
                group,
                instances: *instances,
                instances_before: *instances_before,
                followed: *followed,
                is_client_side: *is_client_side,
            }),
            _ => None,
        })
        .collect()
}

/// Since when dials fail, and how many did; a relay before a dead server accepts and closes instead.
pub(super) fn refused(case: &Case) -> Option<(&Signal, u64)> {
    case.find(|kind| match kind {
        SignalKind::DialsFail {
            failure: DialFailure::Refused,
            count,
            ..
        }
        | SignalKind::TurnedAway { count, open: 0 } => Some(*count),
        _ => None,
    })
}

/// Dials that run into their time-out, or find no way.
fn unreachable(case: &Case) -> Option<(&Signal, u64)> {
    case.find(|kind| match kind {
        SignalKind::DialsFail {
            failure: DialFailure::Timeout | DialFailure::Unreachable,
            count,
            ..
        } => Some(*count),
        _ => None,
    })
}

pub(super) fn restarted(case: &Case) -> Option<&Signal> {
    case.find(|kind| matches!(kind, SignalKind::ServerRestarted).then_some(()))
        .map(|(signal, ())| signal)
}

/// The first error replies with one of these codes: the signal, the code, and how many in all.
pub(super) fn replied<'a>(case: &'a Case, codes: &[i32]) -> Option<(&'a Signal, i32, u64)> {
    let wanted = |kind: &SignalKind| match kind {
        SignalKind::ErrorReplies { code, count, .. } if codes.contains(code) => {
            Some((*code, *count))
        }
        _ => None,
    };
    let (first, (code, _)) = case.find(wanted)?;
    let count = case.all(wanted).map(|(_, (_, count))| count).sum();
    Some((first, code, count))
}

/// Connections of clients to a server.
pub(super) fn connections_to(
    pools: &Pools,
    upstream: UpstreamId,
) -> impl Iterator<Item = &Connection> {
    pools
        .connections()
        .filter(move |connection| connection.upstream == upstream && is_of_a_client(connection))
}

/// The first hello the server answered after `since` on a connection that was opened after it.
fn hello_since(pools: &Pools, upstream: UpstreamId, since: Timestamp) -> Option<Timestamp> {
    connections_to(pools, upstream)
        .filter(|connection| connection.opened_at > since)
        .filter_map(|connection| connection.hello_answered_at)
        .min()
}

/// Whether a dial after `since` was answered as quickly as usual: the way to the server was open.
fn dialled_at_once(pools: &Pools, upstream: UpstreamId, since: Timestamp) -> bool {
    let first = connections_to(pools, upstream)
        .filter(|connection| connection.opened_at > since)
        .min_by_key(|connection| connection.opened_at);
    first.is_some_and(|first| {
        let dialled_at = first
            .dialled_at
            .filter(|at| at.since(first.opened_at) < AT_ONCE);
        dialled_at.is_some() && first.hello_answered_at.is_some()
    })
}

/// Connections on which the server was heard later than `since`.
fn heard_since(pools: &Pools, upstream: UpstreamId, since: Timestamp) -> u64 {
    connections_to(pools, upstream)
        .filter(|connection| {
            connection.hello_answered_at.is_some() && connection.last.from_server_at > since
        })
        .count() as u64
}
