//! Everything works, but late: packets are lost, packets take longer, or operations do.

use std::time::Duration;

use super::super::super::words::{counted, length};
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::super::seen::Seen;
use super::silence::MANY_LOST_IN_A_ROW;
use super::{Case, Signal, SignalKind, cuts, fact, note, refused};
use crate::pools::Pools;
use crate::time::Timestamp;

/// A share of lost segments that leaves no doubt.
const MUCH_LOST: f64 = 0.03;

/// Operations that were held up by a silence are no longer among the newest so long after it.
const STILL_SLOW: Duration = Duration::from_secs(5);

/// Segments that were sent again, as a signal has it.
#[derive(Clone, Copy, Debug)]
struct Resent<'a> {
    signal: &'a Signal,
    count: u64,
    lost: u64,
    sent: u64,
    connections: u64,
    is_client_side: bool,
}

fn losses(case: &Case) -> impl Iterator<Item = Resent<'_>> {
    case.signals()
        .iter()
        .filter_map(|signal| match signal.kind {
            SignalKind::Retransmits {
                count,
                lost,
                sent,
                connections,
                is_client_side,
            } => Some(Resent {
                signal,
                count,
                lost,
                sent,
                connections,
                is_client_side,
            }),
            _ => None,
        })
}

impl Resent<'_> {
    /// Of all segments sent.
    #[expect(clippy::cast_precision_loss, reason = "counts of segments")]
    fn share(&self) -> f64 {
        self.count as f64 / self.sent.max(1) as f64
    }

    fn told(&self) -> Evidence {
        let side = if self.is_client_side {
            "clients"
        } else {
            "the server"
        };
        fact(
            self.signal.at,
            self.count,
            format!(
                "{} of {} to {side} ({:.1} %) were sent again on {}, which went on afterwards; {} of them had not arrived",
                self.count,
                counted(self.sent, "segment"),
                self.share() * 100.0,
                counted(self.connections, "connection"),
                self.lost,
            ),
        )
    }
}

/// No byte came from the server at all for longer than `most`.
fn silent(case: &Case, most: Duration) -> Option<Evidence> {
    case.find(|kind| match kind {
        SignalKind::RepliesMissing {
            connections,
            waited,
            ..
        } if *waited > most => Some(*connections),
        _ => None,
    })
    .map(|(signal, count)| {
        fact(
            signal.at,
            count,
            "for a while no byte came from the server at all",
        )
    })
}

fn lost(case: &Case) -> Option<Evidence> {
    case.find(|kind| match kind {
        SignalKind::Retransmits { count, .. } => Some(*count),
        _ => None,
    })
    .map(|(signal, count)| fact(signal.at, count, "segments were lost and sent again"))
}

fn delayed(case: &Case) -> Option<Evidence> {
    case.find(|kind| match kind {
        SignalKind::RoundTripTime { now, before, .. } => Some((*now, *before)),
        _ => None,
    })
    .map(|(signal, (now, before))| {
        note(
            signal.at,
            format!(
                "round trips took {} instead of {}",
                length(now),
                length(before)
            ),
        )
    })
}

/// Connections were cut, or dials refused: what is slow then is slow for that reason.
fn broken(case: &Case) -> Option<Evidence> {
    let cut = cuts(case)
        .iter()
        .find(|cut| cut.is_total())
        .map(|cut| fact(cut.signal.at, cut.group.closed, "all connections were cut"));
    cut.or_else(|| {
        refused(case).map(|(signal, count)| fact(signal.at, count, "the server refused dials"))
    })
}

/// Lowers the confidence for each of these that there is.
fn weigh(
    confidence: &mut f64,
    against: &mut Vec<Evidence>,
    found: impl IntoIterator<Item = (Option<Evidence>, f64)>,
) {
    for (evidence, most) in found {
        if let Some(evidence) = evidence {
            *confidence = confidence.min(most);
            against.push(evidence);
        }
    }
}

/// Part of the packets is lost.
pub(super) fn loss(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let all: Vec<Resent<'_>> = losses(case).collect();
    let first = all.first()?;
    let evidence = all.iter().map(Resent::told).collect();
    let mut confidence: f64 = if all.iter().any(|lost| lost.share() >= MUCH_LOST) {
        0.85
    } else {
        0.75
    };
    let mut against = Vec::new();
    // What takes longer than expected is sent again, too.
    let delayed = delayed(case).filter(|_| all.iter().all(|lost| lost.lost * 2 < lost.count));
    weigh(
        &mut confidence,
        &mut against,
        [
            (delayed, 0.45),
            (silent(case, MANY_LOST_IN_A_ROW), 0.45),
            (broken(case), 0.3),
        ],
    );
    Some(Opinion {
        cause: Cause::NetworkLoss,
        confidence,
        evident_at: first.signal.seen_at,
        evidence,
        against,
    })
}

/// Hellos, which need no work of the server, are as slow as operations: what takes the time lies between.
fn delayed_behind_next_hop(case: &Case) -> Option<(&Signal, Evidence)> {
    let (signal, (operations, now, before)) = case.find(|kind| match *kind {
        SignalKind::SlowOperations {
            now,
            hello: Some((hello, before)),
            ..
        } => Some((now, hello, before)),
        _ => None,
    })?;
    let evidence = note(
        signal.at,
        format!(
            "hellos, which need no work of the server, took {} instead of {}, like operations ({})",
            length(now),
            length(before),
            length(operations)
        ),
    );
    (now * 2 >= operations).then_some((signal, evidence))
}

/// Packets take longer than before.
pub(super) fn latency(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let all: Vec<_> = case
        .all(|kind| match kind {
            SignalKind::RoundTripTime {
                now,
                before,
                is_client_side,
            } => Some((*now, *before, *is_client_side)),
            _ => None,
        })
        .collect();
    let hellos = delayed_behind_next_hop(case);
    let first = all.first().map(|(signal, _)| *signal);
    let first = first.or(hellos.as_ref().map(|(signal, _)| *signal))?;
    let mut evidence: Vec<Evidence> = all
        .iter()
        .map(|(signal, (now, before, is_client_side))| {
            let side = if *is_client_side {
                "clients"
            } else {
                "the server"
            };
            note(
                signal.at,
                format!(
                    "round trips to {side} took {} instead of {}",
                    length(*now),
                    length(*before)
                ),
            )
        })
        .collect();
    evidence.extend(hellos.map(|(_, evidence)| evidence));
    let mut confidence: f64 = match all.len() {
        0 => 0.8,
        1 => 0.85,
        _ => 0.92,
    };
    let mut against = Vec::new();
    weigh(
        &mut confidence,
        &mut against,
        [(silent(case, Duration::ZERO), 0.4), (broken(case), 0.3)],
    );
    Some(Opinion {
        cause: Cause::NetworkLatency,
        confidence,
        evident_at: first.seen_at,
        evidence,
        against,
    })
}

/// Replies came again after a silence, and operations are as slow as before: the signal that says so.
pub(super) fn slow_since_resumed(case: &Case) -> Option<&Signal> {
    let resumed_at = case
        .all(|kind| match kind {
            SignalKind::RepliesMissing {
                resumed_at: Some(at),
                is_acknowledged,
                ..
            } if *is_acknowledged != Some(false) => Some(*at),
            _ => None,
        })
        .map(|(_, at)| at)
        .min()?;
    let is_slow = |kind: &SignalKind| matches!(kind, SignalKind::SlowOperations { .. });
    case.signals()
        .iter()
        .find(|signal| is_slow(&signal.kind) && signal.seen_at > resumed_at + STILL_SLOW)
}

/// What was as quick as ever while operations were slow.
fn quick_meanwhile(case: &Case, pools: &Pools, slow: &Signal) -> Vec<Evidence> {
    let seen = Seen::of(case, pools, slow.subject.upstream, slow.at);
    let round_trips = seen.round_trips().filter(|_| delayed(case).is_none());
    let hellos = [seen.watched(), seen.greeted()];
    let hellos = hellos
        .into_iter()
        .flatten()
        .filter(|_| delayed_behind_next_hop(case).is_none());
    round_trips.into_iter().chain(hellos).collect()
}

/// Slow operations occupy the pools.
pub(super) fn slow_operations(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let (signal, (now, before, in_flight)) = case.find(|kind| match kind {
        SignalKind::SlowOperations {
            now,
            before,
            in_flight,
            ..
        } => Some((*now, *before, *in_flight)),
        _ => None,
    })?;
    let mut evidence = vec![fact(
        signal.at,
        in_flight,
        format!(
            "operations took {} instead of {}, {in_flight} under way",
            length(now),
            length(before)
        ),
    )];
    let mut confidence: f64 = 0.68;
    let growth = case.find(|kind| match kind {
        SignalKind::PoolGrew {
            from,
            to,
            active,
            is_saturated,
        } => Some((*from, *to, *active, *is_saturated)),
        _ => None,
    });
    if let Some((grown, (from, to, active, is_saturated))) = growth {
        confidence = if is_saturated { 0.85 } else { 0.8 };
        evidence.push(fact(
            grown.at,
            to,
            format!("a pool grew from {from} to {to} connections, {active} of them in use"),
        ));
    }
    evidence.extend(quick_meanwhile(case, pools, signal));
    let timed_out = case
        .find(|kind| match kind {
            SignalKind::EqualIdleAge {
                by_server: false,
                at_first_use: false,
                in_flight,
                ..
            } if *in_flight > 0 => Some(*in_flight),
            _ => None,
        })
        .map(|(signal, count)| {
            fact(
                signal.at,
                count,
                "the client gave up on operations before they were answered",
            )
        });
    let forgotten = case
        .find(|kind| match kind {
            SignalKind::EqualIdleAge {
                at_first_use: true,
                closed,
                ..
            } => Some(*closed),
            _ => None,
        })
        .map(|(signal, count)| {
            fact(
                signal.at,
                count,
                "what hung was the first use of a connection after a pause",
            )
        });
    let silent = silent(case, Duration::ZERO);
    // A process that was held up answers quickly again; so does one that waited for a lock.
    let is_slow_again = slow_since_resumed(case).is_some();
    let mut against = Vec::new();
    weigh(
        &mut confidence,
        &mut against,
        [
            (delayed(case), 0.35),
            (delayed_behind_next_hop(case).map(|(_, one)| one), 0.35),
            (lost(case), 0.35),
            (silent.filter(|_| !is_slow_again), 0.35),
            (broken(case), 0.3),
            (timed_out, 0.48),
            (forgotten, 0.35),
        ],
    );
    Some(Opinion {
        cause: Cause::SlowOperations,
        confidence,
        evident_at: signal.seen_at,
        evidence,
        against,
    })
}
