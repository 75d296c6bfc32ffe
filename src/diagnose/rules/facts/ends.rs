//! How connections ended, by whom, and what they were used for.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fact is looked for in the signals that have it; a new one is no business of the others"
)]

use super::super::super::Evidence;
use super::super::super::words::{counted, length};
use super::super::server::{cuts, fact};
use super::{Scene, first};
use crate::detect::{CloseGroup, SignalKind};

/// Those of a server that closes them, or of something that resets them.
fn ends(scene: &Scene<'_>) -> Option<(u64, u64, u64)> {
    let cuts = cuts(scene.case);
    let sum = |part: fn(&CloseGroup) -> u64| cuts.iter().map(|cut| part(cut.group)).sum();
    let closed = sum(|group| group.closed);
    let busy = sum(|group| group.in_flight);
    (closed > 0).then(|| (closed, sum(|group| group.resets), busy))
}

pub(in super::super) fn closed_in_order(scene: &Scene<'_>) -> Option<Evidence> {
    let (closed, ..) = ends(scene).filter(|(_, resets, _)| *resets == 0)?;
    let text = format!(
        "{} ended by FIN, none by RST",
        counted(closed, "connection")
    );
    Some(fact(scene.case.began_at(), closed, text))
}

pub(in super::super) fn cut_by_reset(scene: &Scene<'_>) -> Option<Evidence> {
    let (closed, resets, _) = ends(scene).filter(|(_, resets, _)| *resets > 0)?;
    let text = format!(
        "{resets} of {} ended by RST; a server that closes sends FIN",
        counted(closed, "connection")
    );
    Some(fact(scene.case.began_at(), resets, text))
}

/// Who is turned away was never in use.
pub(in super::super) fn cut_in_use(scene: &Scene<'_>) -> Option<Evidence> {
    let (.., busy) = ends(scene).filter(|(.., busy)| *busy > 0)?;
    let text = format!(
        "{} had a request under way: the server had let them in",
        counted(busy, "connection")
    );
    Some(fact(scene.case.began_at(), busy, text))
}

pub(in super::super) fn turned_away(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| {
        let SignalKind::TurnedAway { count, .. } = kind else {
            return None;
        };
        let text = format!(
            "{} ended before a hello was answered: none was in use",
            counted(*count, "connection")
        );
        Some((*count, text))
    })
}

/// What a fault of the server or the network ends is not ended by the client.
pub(in super::super) fn ended_by_client(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::ClientClosed { group, .. } if group.resets == 0 => Some((
            group.closed,
            "the connections ended by FIN from the client's side".to_owned(),
        )),
        SignalKind::EqualIdleAge {
            by_server: false,
            at_first_use: false,
            closed,
            ..
        } => Some((
            *closed,
            "the connections ended from the client's side".to_owned(),
        )),
        _ => None,
    })
}

pub(in super::super) fn no_goodbye(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::ClientClosed { group, .. } if !group.has_said_goodbye => Some((
            group.closed,
            "the connections ended without a goodbye (no `endSessions`)".to_owned(),
        )),
        _ => None,
    })
}

pub(in super::super) fn ended_at_an_age(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::EqualIdleAge {
            at_first_use: false,
            age,
            closed,
            ..
        } => Some((
            *closed,
            format!(
                "only connections went that had been idle for {}",
                length(*age)
            ),
        )),
        SignalKind::EqualIdleAge {
            at_first_use: true,
            closed,
            ..
        } => Some((
            *closed,
            "only connections failed that had been idle, each at its first use".to_owned(),
        )),
        _ => None,
    })
}

pub(in super::super) fn ended_from_afar(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::EqualIdleAge {
            by_server: true,
            closed,
            ..
        } => Some((
            *closed,
            "the client did not end them: they ended from the server's side".to_owned(),
        )),
        _ => None,
    })
}

pub(in super::super) fn hung_at_use(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::EqualIdleAge {
            by_server: false,
            at_first_use: true,
            in_flight,
            ..
        } => Some((
            *in_flight,
            "requests were sent on them and had no answer; a pool replaces what nobody uses"
                .to_owned(),
        )),
        _ => None,
    })
}
