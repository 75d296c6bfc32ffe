//! Connections that ended at one age: was it something between, or the client's own time-out?

use std::time::Duration;

use super::super::super::words::{counted, length, within};
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::{
    Case, SHUTDOWN, SignalKind, cuts, dialled_at_once, fact, heard_since, hello_since, note,
    refused, replied, restarted,
};
use crate::detect::{DestroyTrigger, Signal};
use crate::pools::Pools;
use crate::time::Timestamp;

/// What is known of ends at one age.
#[derive(Clone, Copy, Debug)]
struct Aged<'a> {
    signal: &'a Signal,
    age: Duration,
    spread: Duration,
    closed: u64,
    in_flight: u64,
    by_server: bool,
    at_first_use: bool,
    pauses: Option<(Duration, Duration)>,
    is_unacknowledged: bool,
}

fn aged(case: &Case) -> impl Iterator<Item = Aged<'_>> {
    case.signals()
        .iter()
        .filter_map(|signal| match signal.kind {
            SignalKind::EqualIdleAge {
                age,
                spread,
                closed,
                in_flight,
                by_server,
                at_first_use,
                pauses,
                is_unacknowledged,
            } => Some(Aged {
                signal,
                age,
                spread,
                closed,
                in_flight,
                by_server,
                at_first_use,
                pauses,
                is_unacknowledged,
            }),
            _ => None,
        })
}

impl Aged<'_> {
    fn told(&self) -> Evidence {
        let (age, closed) = (length(self.age), counted(self.closed, "connection"));
        let spread = match self.closed {
            1 => String::new(),
            _ => format!(", within {} of each other", within(self.spread)),
        };
        let were = if self.closed == 1 { "was" } else { "were" };
        let pause = self.pauses.map_or_else(String::new, |(short, long)| {
            match (length(short), length(long)) {
                (short, long) if short == long => short,
                (short, long) => format!("{short} to {long}"),
            }
        });
        let text = match (self.by_server, self.at_first_use) {
            (true, false) => format!(
                "{closed} {were} closed from the server's side after {age} without a byte{spread}; mongod never \
                 closes idle connections"
            ),
            (true, true) => {
                format!("{closed} {were} reset at the first use after a pause of {pause}")
            }
            (false, true) => {
                format!("{closed} got no answer at the first use after a pause of {pause}")
            }
            (false, false) => format!(
                "the client closed {closed} after {age} without an answer{spread}, {} with a request in flight",
                match self.in_flight {
                    0 => "none".to_owned(),
                    some if some == self.closed => "each".to_owned(),
                    some => some.to_string(),
                }
            ),
        };
        fact(self.signal.at, self.closed, text)
    }
}

/// Everything went, whatever its age.
fn everything_went(case: &Case) -> Option<Evidence> {
    let all = cuts(case)
        .iter()
        .find(|cut| cut.is_total() && (cut.group.monitors > 0 || cut.is_client_side))
        .map(|cut| {
            fact(
                cut.signal.at,
                cut.group.closed,
                "connections in use and monitors went as well",
            )
        });
    all.or_else(|| {
        refused(case)
            .map(|(signal, count)| fact(signal.at, count, "the server refused dials afterwards"))
    })
    .or_else(|| {
        restarted(case).map(|signal| note(signal.at, "another server process answered afterwards"))
    })
}

/// No byte came from the whole server.
#[derive(Clone, Copy, Debug)]
struct Silent<'a> {
    signal: &'a Signal,
    connections: u64,
    in_use: u64,
    waited: Duration,
}

fn silent(case: &Case) -> Option<Silent<'_>> {
    let all = case.all(|kind| match kind {
        SignalKind::RepliesMissing {
            connections,
            in_use,
            waited,
            ..
        } => Some((*connections, *in_use, *waited)),
        _ => None,
    });
    let longest = all.max_by_key(|(_, (.., waited))| *waited);
    longest.map(|(signal, (connections, in_use, waited))| Silent {
        signal,
        connections,
        in_use,
        waited,
    })
}

impl Silent<'_> {
    fn told(&self) -> Evidence {
        fact(
            self.signal.at,
            self.connections,
            format!(
                "no byte came from the server on any connection for {}",
                length(self.waited)
            ),
        )
    }
}

/// Something between ends connections that were idle for too long.
pub(super) fn idle_cutoff(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let all: Vec<Aged<'_>> = aged(case)
        .filter(|aged| aged.by_server || aged.at_first_use)
        .collect();
    let first = all.first()?;
    let count: u64 = all.iter().map(|aged| aged.closed).sum();
    let mut evidence: Vec<Evidence> = all.iter().map(Aged::told).collect();
    let mut against = Vec::new();
    let mut confidence: f64 = match count {
        1 => 0.6,
        2 | 3 => 0.78,
        _ => 0.86,
    };
    let upstream = first.signal.subject.upstream;
    if all.iter().all(|aged| !aged.by_server) {
        // Nobody cut anything: the server must be seen to answer others.
        if all.iter().any(|aged| aged.is_unacknowledged) {
            confidence += 0.05;
            evidence.push(note(
                first.signal.at,
                "what was sent on them was not acknowledged",
            ));
        } else {
            confidence = confidence.min(0.58);
        }
        let others = heard_since(pools, upstream, first.signal.at);
        if others > 0 {
            evidence.push(fact(
                first.signal.at,
                others,
                format!(
                    "the server answered on {} since",
                    counted(others, "other connection")
                ),
            ));
        } else {
            confidence = confidence.min(0.35);
        }
    }
    if let Some(evidence) = everything_went(case) {
        confidence = confidence.min(0.15);
        against.push(evidence);
    }
    if let Some((signal, _, count)) = replied(case, &SHUTDOWN)
        && signal.subject.upstream == upstream
        && signal.at <= first.signal.at
    {
        confidence = confidence.min(0.15);
        against.push(fact(
            signal.at,
            count,
            "the server had said that it was shutting down, and closes its connections then",
        ));
    }
    if !first.by_server {
        let silent = silent(case);
        if let Some(silent) = silent.filter(|silent| silent.in_use > 0) {
            confidence = confidence.min(0.2);
            against.push(fact(
                silent.signal.at,
                silent.in_use,
                "what was sent on connections in use was not acknowledged either",
            ));
        } else if let Some(silent) = silent
            && !dialled_at_once(pools, upstream, first.signal.at)
        {
            // An application that is alone with its pause hears nothing while its requests hang, until it dials again.
            confidence = confidence.min(0.3);
            against.push(silent.told());
        }
    }
    Some(Opinion {
        cause: Cause::IdleCutoff,
        confidence,
        evident_at: first.signal.seen_at,
        evidence,
        against,
    })
}

/// The client gives its operations less time than they need.
pub(super) fn socket_timeout(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let all: Vec<Aged<'_>> = aged(case)
        .filter(|aged| !aged.by_server && !aged.at_first_use)
        .collect();
    let first = all.first()?;
    let count: u64 = all.iter().map(|aged| aged.closed).sum();
    let mut evidence: Vec<Evidence> = all.iter().map(Aged::told).collect();
    let mut against = Vec::new();
    let mut confidence: f64 = if count > 3 { 0.85 } else { 0.75 };
    let upstream = first.signal.subject.upstream;
    let began_at = first.signal.at - first.age;
    let hello_at = hello_since(pools, upstream, began_at);
    let others = heard_since(pools, upstream, first.signal.at);
    if let Some(hello_at) = hello_at {
        evidence.push(note(hello_at, "the server answered hellos meanwhile"));
    } else if others > 0 {
        evidence.push(fact(
            first.signal.at,
            others,
            format!(
                "the server answered on {} meanwhile",
                counted(others, "other connection")
            ),
        ));
    } else {
        // A pool that gave up for its time-outs leaves nobody who would ask the server.
        let gave_up = case.kinds().any(|kind| {
            matches!(kind, SignalKind::PoolDestroyed(destroyed)
                if destroyed.trigger == DestroyTrigger::RepeatedTimeouts)
        });
        confidence = confidence.min(if gave_up { 0.6 } else { 0.3 });
        against.push(note(
            first.signal.at,
            "nothing shows that the server was able to answer",
        ));
    }
    if all.iter().all(|aged| aged.in_flight == 0) {
        // The pool dials again when it is needed: a habit, and nobody's trouble.
        confidence = confidence.min(0.45);
        against.push(note(
            first.signal.at,
            "no request was in flight: Node 3.x applies socketTimeoutMS to idle sockets, too",
        ));
    }
    if let Some(evidence) = everything_went(case) {
        confidence = confidence.min(0.2);
        against.push(evidence);
    }
    if let Some(silent) = silent(case) {
        confidence = confidence.min(0.35);
        against.push(silent.told());
    }
    Some(Opinion {
        cause: Cause::SocketTimeout,
        confidence,
        evident_at: first.signal.seen_at,
        evidence,
        against,
    })
}
