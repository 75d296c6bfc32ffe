//! Another member leads.

use std::time::Duration;

use super::super::super::Cause;
use super::super::super::words::counted;
use super::super::Opinion;
use super::{Case, NOT_PRIMARY, SHUTDOWN, SignalKind, cuts, fact, note, replied};
use crate::connection::ServerRole;
use crate::pools::Pools;
use crate::time::Timestamp;

/// A server that stops steps down a few milliseconds before it says so.
const SETTLED: Duration = Duration::from_millis(300);

/// A process that was started anew begins with another role.
const RESTART: Duration = Duration::from_secs(2);

/// Another member became primary.
pub(super) fn failover(case: &Case, _pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let restarts: Vec<_> = case
        .all(|kind| matches!(kind, SignalKind::ServerRestarted).then_some(()))
        .map(|(signal, ())| signal)
        .collect();
    let has_restarted = |signal: &super::Signal| {
        restarts.iter().any(|restart| {
            restart.subject.upstream == signal.subject.upstream
                && restart.at.since(signal.at) <= RESTART
                && signal.at.since(restart.at) <= RESTART
        })
    };
    let stepped_down = case
        .all(|kind| match kind {
            SignalKind::RoleChanged {
                from: ServerRole::Primary,
                ..
            } => Some(()),
            _ => None,
        })
        .find(|(signal, ())| !has_restarted(signal));
    let replies = replied(case, &NOT_PRIMARY);
    let first_at = match (&stepped_down, &replies) {
        (Some((stepped, ())), Some((reply, ..))) => stepped.at.min(reply.at),
        (Some((stepped, ())), None) => stepped.at,
        (None, Some((reply, ..))) => reply.at,
        (None, None) => return None,
    };
    if at.since(first_at) < SETTLED {
        return None;
    }
    let elected = elected_since(case, first_at);
    let mut evidence = Vec::new();
    let mut against = Vec::new();
    let mut confidence: f64 = 0.66;
    if let Some((signal, ())) = stepped_down {
        confidence = 0.9;
        evidence.push(note(
            signal.at,
            "the primary announced that it is primary no longer",
        ));
    }
    if let Some((signal, code, count)) = replies {
        evidence.push(fact(
            signal.at,
            count,
            format!(
                "{} said that the server is not primary (error {code})",
                counted(count, "reply")
            ),
        ));
    }
    if let Some(signal) = elected {
        confidence += 0.04;
        evidence.push(note(
            signal.at,
            "another member announced that it is primary",
        ));
    }
    if let Some(cut) = cuts(case)
        .iter()
        .find(|cut| cut.is_total() && cut.signal.at <= first_at + SETTLED)
    {
        confidence = confidence.min(0.4);
        against.push(fact(
            cut.signal.at,
            cut.group.closed,
            "all connections to the server broke before: the change of roles followed from that",
        ));
    }
    if let Some((signal, code, count)) = replied(case, &SHUTDOWN) {
        confidence = confidence.min(0.4);
        against.push(fact(
            signal.at,
            count,
            format!("the server stepped down because it was shutting down (error {code})"),
        ));
    }
    let silent = case.find(|kind| matches!(kind, SignalKind::RepliesMissing { .. }).then_some(()));
    if let Some((signal, ())) = silent
        && signal.at < first_at
    {
        confidence = confidence.min(0.4);
        against.push(note(
            signal.at,
            "the server had not answered before: the change of roles followed from that",
        ));
    }
    Some(Opinion {
        cause: Cause::Failover,
        confidence,
        evident_at: first_at,
        evidence,
        against,
    })
}

/// The first member that announced from then on that it is primary; one before is the one that stepped down.
fn elected_since(case: &Case, since: Timestamp) -> Option<&super::Signal> {
    case.all(|kind| match kind {
        SignalKind::RoleChanged {
            to: ServerRole::Primary,
            ..
        } => Some(()),
        _ => None,
    })
    .map(|(signal, ())| signal)
    .find(|signal| signal.at >= since)
}
