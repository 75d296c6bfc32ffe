//! The server is there, and says no.

use super::super::super::Cause;
use super::super::super::words::counted;
use super::super::Opinion;
use super::{Case, SignalKind, cuts, fact, note};
use crate::pools::Pools;
use crate::time::Timestamp;

/// The server turns connections away: more are wanted than it accepts.
pub(super) fn capacity(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let (signal, (count, open)) = case.find(|kind| match kind {
        SignalKind::TurnedAway { count, open } if *open > 0 => Some((*count, *open)),
        _ => None,
    })?;
    let evidence = vec![
        fact(
            signal.at,
            count,
            format!(
                "the server accepted {} and closed {} before it answered",
                counted(count, "connection"),
                if count == 1 { "it" } else { "them" }
            ),
        ),
        fact(
            signal.at,
            open,
            format!(
                "{} {} open meanwhile, and stayed",
                counted(open, "connection"),
                if open == 1 { "was" } else { "were" }
            ),
        ),
    ];
    let mut confidence: f64 = if count >= 6 { 0.9 } else { 0.75 };
    let mut against = Vec::new();
    if let Some(cut) = cuts(case).iter().find(|cut| cut.is_total()) {
        confidence = confidence.min(0.2);
        against.push(fact(
            cut.signal.at,
            cut.group.closed,
            "connections that were established went as well",
        ));
    }
    let fails = case.find(|kind| match kind {
        SignalKind::DialsFail { count, .. } => Some(*count),
        _ => None,
    });
    if let Some((signal, count)) = fails {
        confidence = confidence.min(0.3);
        against.push(fact(signal.at, count, "dials failed altogether"));
    }
    Some(Opinion {
        cause: Cause::PoolCapacity,
        confidence,
        evident_at: signal.seen_at,
        evidence,
        against,
    })
}

/// Credentials are refused.
pub(super) fn authentication(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let all: Vec<_> = case
        .all(|kind| match kind {
            SignalKind::AuthenticationFails {
                count,
                user,
                had_succeeded,
            } => Some((*count, user.as_deref(), *had_succeeded)),
            _ => None,
        })
        .collect();
    let (first, _) = all.first()?;
    let total: u64 = all.iter().map(|(_, (count, ..))| count).sum();
    let mut evidence = Vec::new();
    for (signal, (count, user, had_succeeded)) in &all {
        let user = user.map_or_else(String::new, |user| format!(" of {user}"));
        evidence.push(fact(
            signal.at,
            *count,
            format!(
                "the server refused the credentials{user} {}",
                counted(*count, "time")
            ),
        ));
        if *had_succeeded {
            evidence.push(note(signal.at, "they had been accepted before"));
        }
    }
    Some(Opinion {
        cause: Cause::AuthFailures,
        confidence: match total {
            1 => 0.6,
            2 => 0.85,
            _ => 0.93,
        },
        evident_at: first.at,
        evidence,
        against: Vec::new(),
    })
}
