//! Connections that ended from the server's side: who did it.

use std::time::Duration;

use super::super::super::words::counted;
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::{
    Case, Cut, SHUTDOWN, SignalKind, cuts, fact, hello_since, note, refused, replied, restarted,
};
use crate::pools::Pools;
use crate::time::Timestamp;

/// Clients that found all their connections closed dial again within this.
const NO_DIAL: Duration = Duration::from_millis(1200);

/// Words before a death belong to it when they come no later than this after its first sign: what is read from
/// different connections is read by different threads.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// `18 dials were refused`.
fn refused_dials(count: u64) -> String {
    let were = if count == 1 { "was" } else { "were" };
    format!("{} {were} refused", counted(count, "dial"))
}

/// The server's process ended without a word.
pub(super) fn crash(case: &Case, pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let cuts = cuts(case);
    let cut = cuts
        .iter()
        .filter(|cut| !cut.is_client_side && cut.signal.subject.instance.is_none())
        .max_by_key(|cut| cut.group.closed)
        .or_else(|| cuts.iter().find(|cut| !cut.is_client_side));
    let refused = refused(case);
    let restarted = restarted(case);
    let mut evidence = Vec::new();
    let mut against = Vec::new();
    let mut evident_at = case.began_at();
    evidence.extend(cut.map(Cut::told));
    if let Some((signal, count)) = refused {
        evident_at = evident_at.max(signal.at);
        evidence.push(fact(signal.at, count, refused_dials(count)));
    }
    if let Some(signal) = restarted {
        if refused.is_none() {
            evident_at = evident_at.max(signal.at);
        }
        evidence.push(note(signal.at, "another server process answered"));
    }
    let is_total = cut.is_some_and(Cut::is_total);
    let has_returned = cut.and_then(|cut| hello_since(pools, case.upstream(), cut.signal.at));
    let mut confidence: f64 = match (cut, refused, restarted) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) if is_total => 0.94,
        (Some(_), Some(_), _) => 0.8,
        (Some(cut), None, None)
            if is_total && has_returned.is_none() && at.since(cut.signal.at) >= NO_DIAL =>
        {
            evident_at = evident_at.max(cut.signal.at + NO_DIAL);
            0.62
        }
        (Some(_), None, None) if is_total => 0.3,
        (Some(_), ..) => 0.15,
        (None, Some((_, count)), _) if count >= 2 => 0.55,
        (None, _, Some(_)) => 0.4,
        (None, ..) => return None,
    };
    if let (Some(returned_at), None, None) = (has_returned, refused, restarted) {
        confidence = confidence.min(0.1);
        against.push(note(
            returned_at,
            "the same server process answered the next hello",
        ));
    }
    let death = cut.map_or(case.began_at(), |cut| cut.signal.at);
    if let Some((signal, code, count)) = replied(case, &SHUTDOWN)
        && signal.at <= death + LAST_WORDS
    {
        confidence = confidence.min(0.2);
        against.push(fact(
            signal.at,
            count,
            format!("the server said that it was shutting down (error {code}) before"),
        ));
    }
    Some(Opinion {
        cause: Cause::ServerCrash,
        confidence,
        evident_at,
        evidence,
        against,
    })
}

/// The server was told to stop, and said so.
pub(super) fn shutdown(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let (signal, code, count) = replied(case, &SHUTDOWN)?;
    let mut evidence = vec![fact(
        signal.at,
        count,
        format!(
            "{} said that the server is shutting down (error {code})",
            counted(count, "reply")
        ),
    )];
    let cuts = cuts(case);
    let cut = cuts.iter().find(|cut| cut.is_total());
    evidence.extend(cut.map(Cut::told));
    let refused = refused(case);
    if let Some((signal, count)) = refused {
        evidence.push(fact(signal.at, count, refused_dials(count)));
    }
    let first_cut = cuts.first().map(|cut| cut.signal.at);
    let is_after = first_cut.is_some_and(|cut_at| signal.at > cut_at + LAST_WORDS);
    let mut confidence: f64 = match (cut, refused) {
        (Some(_), Some(_)) => 0.94,
        (None, Some(_)) => 0.9,
        (Some(_), None) => 0.85,
        (None, None) => 0.65,
    };
    let mut against = Vec::new();
    if is_after {
        confidence = confidence.min(0.45);
        against.push(note(
            first_cut.unwrap_or(signal.at),
            "connections were cut before the server said so",
        ));
    }
    Some(Opinion {
        cause: Cause::ServerShutdown,
        confidence,
        evident_at: signal.at,
        evidence,
        against,
    })
}

/// A server that stays up closes single connections.
pub(super) fn closing(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let cuts = cuts(case);
    let single: Vec<_> = cuts
        .iter()
        .filter(|cut| !cut.is_client_side && !cut.is_by_reset() && cut.group.in_flight > 0)
        .collect();
    let first = single.first()?;
    let closed: u64 = single.iter().map(|cut| cut.group.closed).sum();
    let mut confidence: f64 = match single.len() {
        1 => 0.58,
        2 => 0.8,
        _ => 0.88,
    };
    let mut evidence: Vec<_> = single.iter().take(5).map(|cut| cut.told()).collect();
    let mut against = Vec::new();
    let upstream = case.upstream();
    let restarted = restarted(case);
    let returned = hello_since(pools, upstream, first.signal.at).filter(|_| restarted.is_none());
    if let Some(returned_at) = returned {
        evidence.push(note(
            returned_at,
            "the same server process answered the next hello",
        ));
    }
    if cuts.iter().any(Cut::is_total) {
        confidence = confidence.min(if returned.is_some() { 0.52 } else { 0.2 });
        against.push(fact(
            first.signal.at,
            closed,
            "all connections went, not single ones",
        ));
    }
    if let Some((signal, count)) = refused(case) {
        confidence = confidence.min(0.1);
        against.push(fact(
            signal.at,
            count,
            "the server refused dials afterwards",
        ));
    }
    if let Some(signal) = restarted {
        confidence = confidence.min(0.1);
        against.push(note(
            signal.at,
            "another server process answered afterwards",
        ));
    }
    if let Some((signal, code, count)) = replied(case, &SHUTDOWN) {
        confidence = confidence.min(0.3);
        against.push(fact(
            signal.at,
            count,
            format!("the server said that it was shutting down (error {code})"),
        ));
    }
    Some(Opinion {
        cause: Cause::ServerClosing,
        confidence,
        evident_at: first.signal.at,
        evidence,
        against,
    })
}

/// The client let its connections go itself; `dialled_at` is its first dial since.
fn let_go(cut: &Cut<'_>, dialled_at: Option<Timestamp>) -> Option<Evidence> {
    let last = cut.signal.at + cut.group.span;
    let dialled_at = dialled_at.filter(|dialled_at| cut.group.was_let_go(last, *dialled_at));
    dialled_at.filter(|_| cut.is_client_side).map(|dialled_at| {
        note(
            dialled_at,
            "it was in the middle of its traffic, and did not dial again at once: it let its connections go itself",
        )
    })
}

/// Something between resets connections.
pub(super) fn reset(case: &Case, pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let cuts = cuts(case);
    let resets: Vec<_> = cuts.iter().filter(|cut| cut.is_by_reset()).collect();
    let first = resets.first()?;
    let upstream = first.signal.subject.upstream;
    let mut evidence: Vec<_> = resets.iter().take(5).map(|cut| cut.told()).collect();
    let mut against = Vec::new();
    let mut evident_at = first.signal.at;
    let is_of_all = first.instances >= first.instances_before;
    let dialled_since = || {
        super::connections_to(pools, upstream)
            .filter(|one| one.opened_at > first.signal.at)
            .filter(|one| {
                one.instance
                    .is_some_and(|instance| first.signal.concerns(instance))
            })
    };
    let returned = dialled_since()
        .filter_map(|one| one.hello_answered_at)
        .min();
    let mut confidence: f64 = if let Some(returned_at) = returned {
        evident_at = evident_at.max(returned_at);
        evidence.push(note(
            returned_at,
            if restarted(case).is_some() {
                "the next dial succeeded"
            } else {
                "the next dial succeeded, and the same server process answered"
            },
        ));
        if first.is_total() || first.is_client_side {
            0.9
        } else if !is_of_all && first.group.closed >= 2 {
            0.85
        } else {
            0.6
        }
    } else if at.since(first.signal.at) < NO_DIAL || first.is_client_side {
        0.4
    } else {
        0.45
    };
    if let Some(let_go) = let_go(first, dialled_since().map(|one| one.opened_at).min()) {
        confidence = confidence.min(0.3);
        against.push(let_go);
    }
    if !is_of_all {
        evidence.push(fact(
            first.signal.at,
            first.instances_before.saturating_sub(first.instances),
            "the other instances lost nothing",
        ));
    }
    if let Some((signal, count)) = refused(case) {
        confidence = confidence.min(0.15);
        against.push(fact(
            signal.at,
            count,
            "the server refused dials afterwards",
        ));
    }
    if let Some(signal) = restarted(case) {
        confidence = confidence.min(0.15);
        against.push(note(
            signal.at,
            "another server process answered afterwards",
        ));
    }
    let at_age = case.find(|kind| match kind {
        SignalKind::EqualIdleAge {
            by_server: true,
            closed,
            ..
        } => Some(*closed),
        _ => None,
    });
    let has_spared_monitors = resets.iter().all(|cut| cut.group.monitors == 0);
    if let Some((signal, count)) = at_age
        && has_spared_monitors
        && !first.is_client_side
    {
        confidence = confidence.min(0.35);
        against.push(fact(
            signal.at,
            count,
            "only connections went that had been idle",
        ));
    }
    Some(Opinion {
        cause: Cause::NetworkReset,
        confidence,
        evident_at,
        evidence,
        against,
    })
}
