//! Facts that tell a cause from those it is mistaken for: each is told where it was seen, and only there.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fact is looked for in the signals that have it; a new one is no business of the others"
)]

mod clients;
mod ends;

use super::super::Evidence;
use super::super::words::{counted, length};
use super::server::{NOT_PRIMARY, SHUTDOWN, fact, note, refused as refusal};
use super::server::{replied, restarted as restart};
use super::suspects::Scene;
use crate::connection::ServerRole;
use crate::detect::{Signal, SignalKind};

pub(super) use clients::{
    left_after_refusal, logins_accepted, nobody_refused, nothing_afterwards, of_one_instance,
    others_are_back, put_to_use, refused_after_hello, was_troubled,
};
pub(super) use ends::{
    closed_in_order, cut_by_reset, cut_in_use, ended_at_an_age, ended_by_client, ended_from_afar,
    hung_at_use, no_goodbye, turned_away,
};

// --- what the tables show ---

pub(super) fn went_on(scene: &Scene<'_>) -> Option<Evidence> {
    scene.seen.went_on()
}

pub(super) fn watched(scene: &Scene<'_>) -> Option<Evidence> {
    scene.seen.watched()
}

pub(super) fn greeted(scene: &Scene<'_>) -> Option<Evidence> {
    scene.seen.greeted()
}

/// After a reset the next dial succeeds.
pub(super) fn nobody_greeted(scene: &Scene<'_>) -> Option<Evidence> {
    let is_nobody = scene.seen.greeted().is_none();
    is_nobody.then(|| {
        note(
            scene.case.began_at(),
            "the server answered no new connection since",
        )
    })
}

pub(super) fn round_trips(scene: &Scene<'_>) -> Option<Evidence> {
    let has_risen = scene
        .case
        .kinds()
        .any(|kind| matches!(kind, SignalKind::RoundTripTime { .. }));
    scene.seen.round_trips().filter(|_| !has_risen)
}

pub(super) fn hardly_resent(scene: &Scene<'_>) -> Option<Evidence> {
    scene.seen.hardly_resent()
}

pub(super) fn no_shutdown_said(scene: &Scene<'_>) -> Option<Evidence> {
    let is_said = replied(scene.case, &SHUTDOWN).is_some();
    let unsaid = scene.seen.unsaid("the server was shutting down");
    unsaid.filter(|_| !is_said)
}

pub(super) fn no_step_down_said(scene: &Scene<'_>) -> Option<Evidence> {
    let is_said = step_down_said(scene).is_some();
    let unsaid = scene.seen.unsaid("the server is not primary");
    unsaid.filter(|_| !is_said)
}

// --- what the server said ---

pub(super) fn refused(scene: &Scene<'_>) -> Option<Evidence> {
    refusal(scene.case)
        .map(|(signal, count)| fact(signal.at, count, "the server refused dials afterwards"))
}

pub(super) fn restarted(scene: &Scene<'_>) -> Option<Evidence> {
    restart(scene.case).map(|signal| note(signal.at, "another server process answered afterwards"))
}

pub(super) fn shutdown_said(scene: &Scene<'_>) -> Option<Evidence> {
    let (signal, code, count) = replied(scene.case, &SHUTDOWN)?;
    let text = format!("the server itself said that it was shutting down (error {code})");
    Some(fact(signal.at, count, text))
}

pub(super) fn step_down_said(scene: &Scene<'_>) -> Option<Evidence> {
    if let Some((signal, code, count)) = replied(scene.case, &NOT_PRIMARY) {
        let text = format!("the server itself said that it is not primary (error {code})");
        return Some(fact(signal.at, count, text));
    }
    let stepped_down = scene.case.find(|kind| {
        let SignalKind::RoleChanged { from, .. } = kind else {
            return None;
        };
        (*from == ServerRole::Primary).then_some(())
    });
    stepped_down.map(|(signal, ())| {
        note(
            signal.at,
            "the server itself announced that it is primary no longer",
        )
    })
}

pub(super) fn credentials_refused(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| {
        let SignalKind::AuthenticationFails { count, .. } = kind else {
            return None;
        };
        let text = format!(
            "the server itself refused the credentials in {}",
            counted(*count, "reply")
        );
        Some((*count, text))
    })
}

// --- silence ---

/// A process that ends has its connections closed by its host.
pub(super) fn stayed_open(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| {
        let SignalKind::RepliesMissing { connections, .. } = kind else {
            return None;
        };
        let text = format!(
            "{} fell silent without an end; of a process that dies they are closed",
            counted(*connections, "connection")
        );
        Some((*connections, text))
    })
}

pub(super) fn hellos_unanswered(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::RepliesMissing {
            monitors,
            late_hellos,
            ..
        } if monitors + late_hellos > 0 => Some((
            monitors + late_hellos,
            "hellos, which need no work of the server, were not answered either".to_owned(),
        )),
        SignalKind::HandshakesUnanswered { count, .. } => {
            Some((*count, "first hellos were not answered either".to_owned()))
        }
        _ => None,
    })
}

pub(super) fn unacknowledged(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::RepliesMissing {
            is_acknowledged: Some(false),
            connections,
            ..
        } => Some((
            *connections,
            "what was sent was not acknowledged; the host of a frozen process does".to_owned(),
        )),
        _ => None,
    })
}

pub(super) fn clients_stayed(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| {
        let SignalKind::ClientsUnreached { connections, .. } = kind else {
            return None;
        };
        let text = format!(
            "{} fell silent without an end; of a process that dies they are closed",
            counted(*connections, "connection")
        );
        Some((*connections, text))
    })
}

pub(super) fn clients_unreached(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| {
        let SignalKind::ClientsUnreached { connections, .. } = kind else {
            return None;
        };
        Some((
            *connections,
            "the server had answered: it is its replies that were not acknowledged".to_owned(),
        ))
    })
}

/// What is slow by itself is slow on a quick path, too.
pub(super) fn paths_are_slow(scene: &Scene<'_>) -> Option<Evidence> {
    let mut signals = scene.case.signals().iter();
    signals.find_map(|signal| {
        let (what, now, before) = match &signal.kind {
            SignalKind::RoundTripTime { now, before, .. } => ("round trips", now, before),
            SignalKind::SlowOperations {
                hello: Some((now, before)),
                ..
            } => ("hellos", now, before),
            _ => return None,
        };
        let (now, before) = (length(*now), length(*before));
        let text =
            format!("{what}, which need no work of the server, take {now} instead of {before}");
        Some(note(signal.at, text))
    })
}

// --- looking a signal up ---

fn signal<'a>(scene: &Scene<'a>, is_wanted: fn(&SignalKind) -> bool) -> Option<&'a Signal> {
    let mut signals = scene.case.signals().iter();
    signals.find(|signal| is_wanted(&signal.kind))
}

/// A fact of the first signal that has it: how many, and what.
fn first(
    scene: &Scene<'_>,
    told: impl Fn(&SignalKind) -> Option<(u64, String)>,
) -> Option<Evidence> {
    let mut signals = scene.case.signals().iter();
    signals.find_map(|signal| {
        let (count, text) = told(&signal.kind)?;
        Some(fact(signal.at, count, text))
    })
}
