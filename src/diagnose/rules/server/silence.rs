//! No byte comes: is it the process, or the way to it?

use std::time::Duration;

use super::super::super::words::{counted, length};
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::slowness::slow_since_resumed;
use super::{Case, Signal, SignalKind, cuts, dialled_at_once, fact, note, refused, unreachable};
use crate::pools::Pools;
use crate::time::Timestamp;

/// All operations of several instances hang at once for so long: it is not the operations.
const LONG_FOR_MANY: Duration = Duration::from_millis(2500);

/// The same for one instance.
const LONG_FOR_ONE: Duration = Duration::from_millis(3500);

/// A path that loses every third segment may well lose one four times in a row, which takes so long.
pub(super) const MANY_LOST_IN_A_ROW: Duration = Duration::from_secs(4);

/// How sure it is that nothing gets through while nobody has dialled.
const IDLE_ONLY: f64 = 0.6;

/// What is known of a silence.
#[derive(Clone, Copy, Debug)]
struct Silence<'a> {
    signal: &'a Signal,
    connections: u64,
    instances: u64,
    waited: Duration,
    is_acknowledged: Option<bool>,
    retransmits: u64,
    /// Hellos that were not answered, or late.
    hellos: u64,
    /// Those that had been in use, and whose request was not acknowledged.
    in_use: u64,
    /// Those that waited on when the server was heard again.
    still_waiting: u64,
    resumed_at: Option<Timestamp>,
}

fn silence(case: &Case) -> Option<Silence<'_>> {
    let handshakes = case
        .all(|kind| match kind {
            SignalKind::HandshakesUnanswered { count, .. } => Some(*count),
            _ => None,
        })
        .map(|(_, count)| count)
        .max();
    let mut all = case
        .signals()
        .iter()
        .filter_map(|signal| match signal.kind {
            SignalKind::RepliesMissing {
                connections,
                instances,
                waited,
                is_acknowledged,
                monitors,
                late_hellos,
                retransmits,
                in_use,
                still_waiting,
                resumed_at,
            } => Some(Silence {
                signal,
                connections,
                instances,
                waited,
                is_acknowledged,
                retransmits,
                hellos: monitors + late_hellos + handshakes.unwrap_or_default(),
                in_use,
                still_waiting,
                resumed_at,
            }),
            _ => None,
        });
    let first = all.next()?;
    // The longest says most, the first began it.
    Some(all.fold(first, |longest, one| {
        if one.waited > longest.waited {
            Silence {
                is_acknowledged: one.is_acknowledged.or(longest.is_acknowledged),
                ..one
            }
        } else {
            longest
        }
    }))
}

impl Silence<'_> {
    fn told(&self) -> Vec<Evidence> {
        let mut told = vec![fact(
            self.signal.at,
            self.connections,
            format!(
                "no byte came from the server for {}, while {} of {} waited",
                length(self.waited),
                counted(self.connections, "connection"),
                counted(self.instances, "instance"),
            ),
        )];
        if self.hellos > 0 {
            told.push(fact(
                self.signal.at,
                self.hellos,
                "hellos, which need no work of the server, were not answered either",
            ));
        }
        if let Some(resumed_at) = self.resumed_at {
            told.push(note(resumed_at, "replies came again"));
        }
        told
    }

    fn acknowledged(&self) -> Evidence {
        note(
            self.signal.at,
            "the server's host acknowledged what was sent",
        )
    }

    fn unacknowledged(&self) -> Evidence {
        fact(
            self.signal.at,
            self.retransmits,
            match self.retransmits {
                0 => "what was sent was not acknowledged".to_owned(),
                count => format!(
                    "what was sent was not acknowledged, and was sent again ({})",
                    counted(count, "segment")
                ),
            },
        )
    }
}

/// What speaks against silence being the cause rather than a part of something else.
fn other_beginning(case: &Case, silence: &Silence<'_>, pools: &Pools) -> Option<Evidence> {
    let forgotten = case
        .find(|kind| match kind {
            SignalKind::EqualIdleAge {
                at_first_use: true,
                by_server: false,
                closed,
                ..
            } => Some(*closed),
            _ => None,
        })
        .filter(|(signal, _)| {
            silence.in_use == 0 && dialled_at_once(pools, signal.subject.upstream, signal.at)
        })
        .map(|(signal, count)| {
            fact(
                signal.at,
                count,
                "only connections hung that had been idle, and a new one was answered at once",
            )
        });
    if forgotten.is_some() {
        return forgotten;
    }
    let cut = cuts(case)
        .iter()
        .find(|cut| cut.is_total() && cut.signal.at <= silence.signal.at)
        .map(|cut| {
            fact(
                cut.signal.at,
                cut.group.closed,
                "connections were cut before",
            )
        });
    let refused = refused(case)
        .filter(|(signal, _)| signal.at <= silence.signal.at)
        .map(|(signal, count)| fact(signal.at, count, "the server refused dials before"));
    cut.or(refused)
}

/// The server's host answers, the server does not.
pub(super) fn freeze(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let silence = silence(case)?;
    let mut evidence = silence.told();
    let mut against = Vec::new();
    let long = if silence.instances > 1 {
        LONG_FOR_MANY
    } else {
        LONG_FOR_ONE
    };
    let mut confidence: f64 = if silence.hellos > 0 {
        0.85
    } else if silence.waited >= long {
        0.66
    } else {
        0.4
    };
    match silence.is_acknowledged {
        Some(true) => {
            confidence += 0.07;
            evidence.push(silence.acknowledged());
        }
        Some(false) => {
            confidence = 0.12;
            against.push(silence.unacknowledged());
        }
        None => confidence -= 0.05,
    }
    if let Some((signal, count)) = unreachable(case) {
        confidence = confidence.min(0.2);
        against.push(fact(
            signal.at,
            count,
            "dials ran into their time-out; the host of a frozen process accepts them",
        ));
    }
    if let Some(resumed_at) = silence.resumed_at
        && silence.still_waiting > 0
        && silence.is_acknowledged != Some(false)
    {
        confidence = confidence.min(0.3);
        against.push(fact(
            resumed_at,
            silence.still_waiting,
            "requests waited on when the server was heard again; a process that goes on answers them all",
        ));
    }
    if let Some(slow) = slow_since_resumed(case)
        && silence.hellos == 0
    {
        confidence = confidence.min(0.3);
        against.push(note(
            slow.at,
            "operations were as slow as before when replies came again",
        ));
    }
    if let Some(other) = other_beginning(case, &silence, pools) {
        confidence = confidence.min(0.3);
        against.push(other);
    }
    Some(Opinion {
        cause: Cause::ServerFreeze,
        confidence,
        evident_at: silence.signal.seen_at.min(silence.signal.at + long),
        evidence,
        against,
    })
}

/// Nothing arrives any more, and nobody says so.
pub(super) fn blackhole(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let server_side = blackhole_to_server(case, pools);
    let client_side = blackhole_to_clients(case);
    let sure = |opinion: &Option<Opinion>| opinion.as_ref().map_or(0.0, |one| one.confidence);
    if sure(&client_side) > sure(&server_side) {
        client_side
    } else {
        server_side
    }
}

/// Clients acknowledge nothing and say nothing.
fn blackhole_to_clients(case: &Case) -> Option<Opinion> {
    let (signal, (connections, instances, instances_before, waited, retransmits, resumed_at)) =
        case.find(|kind| match *kind {
            SignalKind::ClientsUnreached {
                connections,
                instances,
                instances_before,
                waited,
                retransmits,
                resumed_at,
            } => Some((
                connections,
                instances,
                instances_before,
                waited,
                retransmits,
                resumed_at,
            )),
            _ => None,
        })?;
    let mut evidence = vec![fact(
        signal.at,
        connections,
        format!(
            "what was sent to {instances} of {instances_before} instances on {connections} connections was not \
             acknowledged for {}, and was sent again up to {retransmits} times; nothing came from them either",
            length(waited),
        ),
    )];
    if let Some(resumed_at) = resumed_at {
        evidence.push(note(resumed_at, "they acknowledged again"));
    }
    let mut confidence: f64 = if connections > 1 { 0.88 } else { 0.7 };
    let mut against = Vec::new();
    if let Some((lost, ())) = lossy(case)
        && resumed_at.is_some()
        && waited <= MANY_LOST_IN_A_ROW
    {
        confidence = confidence.min(0.4);
        against.push(came_through(lost));
    }
    Some(Opinion {
        cause: Cause::NetworkBlackhole,
        confidence,
        evident_at: signal.seen_at,
        evidence,
        against,
    })
}

fn lossy(case: &Case) -> Option<(&Signal, ())> {
    case.find(|kind| matches!(kind, SignalKind::Retransmits { .. }).then_some(()))
}

fn came_through(lost: &Signal) -> Evidence {
    note(
        lost.at,
        "packets came through now and then: part of them was lost",
    )
}

/// No byte comes from the server, and what is sent to it is not acknowledged.
fn blackhole_to_server(case: &Case, pools: &Pools) -> Option<Opinion> {
    let silence = silence(case)?;
    let mut evidence = silence.told();
    let mut against = Vec::new();
    let mut confidence: f64 = match silence.is_acknowledged {
        Some(false) => {
            evidence.push(silence.unacknowledged());
            0.9
        }
        Some(true) => {
            against.push(silence.acknowledged());
            0.08
        }
        None => 0.3,
    };
    if let Some((signal, count)) = unreachable(case) {
        confidence = confidence.max(0.85);
        evidence.push(fact(signal.at, count, "dials ran into their time-out"));
    } else if silence.in_use == 0 && silence.hellos == 0 {
        confidence = confidence.min(IDLE_ONLY);
        against.push(note(
            silence.signal.at,
            "only connections hung that had been idle, which something may have forgotten; a new one will tell",
        ));
    }
    if let Some(other) = other_beginning(case, &silence, pools) {
        confidence = confidence.min(0.2);
        against.push(other);
    }
    if let Some((lost, ())) = lossy(case)
        && silence.resumed_at.is_some()
        && silence.waited <= MANY_LOST_IN_A_ROW
    {
        confidence = confidence.min(0.4);
        against.push(came_through(lost));
    }
    Some(Opinion {
        cause: Cause::NetworkBlackhole,
        confidence,
        evident_at: silence.signal.seen_at,
        evidence,
        against,
    })
}
