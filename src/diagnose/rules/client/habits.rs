//! What clients do again and again, or never again.

use std::time::Duration;

use super::super::super::reopenings::a_second;
use super::super::super::words::{counted, length};
use super::super::super::{Case, Cause, Evidence};
use super::super::Opinion;
use super::many_clients::no_reuse;
use super::{fact, note};
use crate::detect::SignalKind;
use crate::pools::Pools;
use crate::time::Timestamp;

/// What goes on for so long goes on without pause: a pool that fills, or comes back, is done sooner.
const WITHOUT_PAUSE: Duration = Duration::from_secs(3);

pub(super) const fn opinion(
    cause: Cause,
    confidence: f64,
    evident_at: Timestamp,
    evidence: Vec<Evidence>,
) -> Opinion {
    Opinion {
        cause,
        confidence,
        evident_at,
        evidence,
        against: Vec::new(),
    }
}

/// Dials without pause.
pub(super) fn reconnect_storm(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let signal = case
        .signals()
        .iter()
        .find(|signal| matches!(signal.kind, SignalKind::ReconnectBurst { .. }))?;
    let SignalKind::ReconnectBurst {
        from,
        opened,
        lost,
        lasted,
        baseline,
    } = signal.kind
    else {
        return None;
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of connections")]
    let (rate, amplification) = (
        opened as f64 / lasted.as_secs_f64().max(1.0),
        opened as f64 / lost.max(1) as f64,
    );
    let mut evidence = vec![
        fact(
            signal.at,
            opened,
            format!(
                "{opened} connections that did not last were opened within {}, {rate:.0} a second; {} before",
                length(lasted),
                a_second(baseline),
            ),
        ),
        fact(
            signal.at,
            lost,
            match lost {
                0 => "no connection had been lost that these could replace".to_owned(),
                _ => format!(
                    "{} had been lost: {amplification:.0} were opened for each",
                    counted(lost, "connection")
                ),
            },
        ),
    ];
    if let Some(from) = from.filter(|_| signal.subject.instance.is_none()) {
        let (at, clients) = (signal.at, signal.among.len() as u64);
        evidence.push(fact(
            at,
            clients,
            format!("all were dialled from {from}; what the server refused does not say by which client there"),
        ));
    }
    evidence.extend(no_reuse(case));
    let evident_at = signal.seen_at.min(signal.at + WITHOUT_PAUSE);
    Some(opinion(Cause::ReconnectStorm, 0.85, evident_at, evidence))
}

/// Idle connections are replaced.
pub(super) fn idle_recycling(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let signal = case
        .signals()
        .iter()
        .find(|signal| matches!(signal.kind, SignalKind::IdleRecycling { .. }))?;
    let SignalKind::IdleRecycling { age, closed } = signal.kind else {
        return None;
    };
    let evidence = vec![fact(
        signal.at,
        closed,
        format!(
            "{closed} idle connections were closed by their client after at least {} without a byte, and nothing failed",
            length(age)
        ),
    )];
    Some(opinion(Cause::IdleRecycling, 0.9, signal.seen_at, evidence))
}

/// Probes.
pub(super) fn health_checks(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let signal = case
        .signals()
        .iter()
        .find(|signal| matches!(signal.kind, SignalKind::Probes { .. }))?;
    let SignalKind::Probes { count, every } = signal.kind else {
        return None;
    };
    let rhythm = every.map_or(String::new(), |every| {
        format!(", one every {}", length(every))
    });
    let evidence = vec![fact(
        signal.at,
        count,
        format!("{count} connections came and went without a byte{rhythm}"),
    )];
    Some(opinion(Cause::HealthChecks, 0.95, signal.seen_at, evidence))
}

/// A client that will not come back.
pub(super) fn wedged_client(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let signal = case
        .signals()
        .iter()
        .find(|signal| matches!(signal.kind, SignalKind::SilentAfterTrouble { .. }))?;
    let SignalKind::SilentAfterTrouble {
        silent,
        others_back,
        ..
    } = signal.kind
    else {
        return None;
    };
    let mut evidence = vec![note(
        signal.at,
        format!(
            "the client lost every connection and has dialled no more for {}, without a goodbye",
            length(silent)
        ),
    )];
    evidence.push(if others_back > 0 {
        fact(
            signal.at,
            others_back,
            format!(
                "{} came back meanwhile",
                counted(others_back, "other client")
            ),
        )
    } else {
        note(
            signal.at,
            "nobody else shows whether the server is back, but a pool that has not given up dials on",
        )
    });
    evidence.push(note(
        signal.at,
        "its driver is Node 3.x with the legacy pool, which gives up for good after `reconnectTries`",
    ));
    let confidence = if others_back > 0 { 0.85 } else { 0.65 };
    Some(opinion(
        Cause::WedgedClient,
        confidence,
        signal.seen_at,
        evidence,
    ))
}
