//! Clients that are made on and on, where one would do.

use super::super::super::words::{counted, length};
use super::super::super::{Case, Cause, Evidence};
use super::super::Opinion;
use super::growth::growth;
use super::habits::opinion;
use super::{fact, note};
use crate::detect::{LeakSign, Signal, SignalKind};
use crate::pools::Pools;
use crate::time::Timestamp;

/// A client for each request, closed or not, at whichever pace.
pub(super) fn client_per_request(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let churn = case.signals().iter().find_map(churn);
    let leak = case.signals().iter().find_map(leak);
    let mut all: Vec<Opinion> = churn.into_iter().chain(leak).collect();
    if all.is_empty() {
        return None;
    }
    let mut best = all.remove(0);
    for other in all {
        best.evident_at = best.evident_at.min(other.evident_at);
        best.evidence.extend(other.evidence);
    }
    best.evidence.extend(growth(case, pools));
    best.evidence.extend(no_reuse(case));
    Some(best)
}

fn fate(closed: u64, made: u64) -> String {
    match closed {
        0 => "none of them was closed again".to_owned(),
        1 => "only one of them was closed again".to_owned(),
        _ if closed * 2 >= made => format!("{closed} of them were closed again"),
        _ => format!("only {closed} of them were closed again"),
    }
}

/// Many in a short time.
fn churn(signal: &Signal) -> Option<Opinion> {
    let SignalKind::ClientChurn {
        created,
        closed,
        evident_at,
        window,
        operations_each,
    } = signal.kind
    else {
        return None;
    };
    let evidence = vec![
        fact(
            signal.at,
            created,
            format!(
                "{created} mongo clients were made within {}",
                length(window)
            ),
        ),
        fact(signal.at, closed, fate(closed, created)),
        note(
            signal.at,
            format!("each carried {operations_each:.1} operations on the average"),
        ),
    ];
    Some(opinion(Cause::ClientPerRequest, 0.9, evident_at, evidence))
}

/// One after the other, over minutes.
fn leak(signal: &Signal) -> Option<Opinion> {
    let SignalKind::ClientLeak {
        sign,
        from,
        to,
        left,
        closed,
        connections,
        monitors,
        rested,
        lasted,
        evident_at,
    } = signal.kind
    else {
        return None;
    };
    let mut evidence = vec![
        fact(
            signal.at,
            to,
            format!(
                "open mongo clients{} grew from {from} to {to} within {}",
                match sign {
                    LeakSign::Monitors | LeakSign::Hellos => " of one process",
                    LeakSign::Number => "",
                },
                length(lasted)
            ),
        ),
        fact(
            signal.at,
            left,
            format!(
                "{left} of them were used when they were new and never since: they lie idle for {} at the least",
                length(rested)
            ),
        ),
        fact(
            signal.at,
            closed,
            match closed {
                0 => "none was closed meanwhile".to_owned(),
                _ => format!("only {closed} were closed meanwhile"),
            },
        ),
        fact(
            signal.at,
            connections,
            format!(
                "the idle ones hold {}{}",
                counted(connections, "connection"),
                match monitors {
                    0 => String::new(),
                    some => format!(", of which {some} watch servers"),
                }
            ),
        ),
    ];
    evidence.extend(told_apart(sign).map(|told| note(signal.at, told)));
    let confidence = match sign {
        LeakSign::Monitors | LeakSign::Hellos => 0.75,
        LeakSign::Number => 0.6,
    };
    let mut opinion = opinion(Cause::ClientPerRequest, confidence, evident_at, evidence);
    if sign == LeakSign::Number {
        opinion.against.push(Evidence {
            at: None,
            fact: "processes that start one after the other and then have nothing to do look like this: their driver numbers requests by the client, so that only their number speaks against it"
                .to_owned(),
            count: None,
        });
    }
    opinion.against.push(Evidence {
        at: None,
        fact: "an application that keeps a client for each of its tenants looks like this until it uses them again"
            .to_owned(),
        count: None,
    });
    Some(opinion)
}

/// Where monitors do not tell clients: what does.
const fn told_apart(sign: LeakSign) -> Option<&'static str> {
    match sign {
        LeakSign::Monitors => None,
        LeakSign::Hellos => Some(
            "each of these connections carries hellos of its own, which a client of Node 3.x's legacy pool sends by one connection at a time",
        ),
        LeakSign::Number => Some(
            "they are more than the processes of a service; nothing else tells a client of this driver from a process",
        ),
    }
}

/// That connections are opened for an operation each, where that was found beside it.
pub(super) fn no_reuse(case: &Case) -> Option<Evidence> {
    case.asides().iter().find_map(|signal| {
        let SignalKind::NoReuse {
            opened,
            closed,
            operations,
            needless,
            window,
        } = signal.kind
        else {
            return None;
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of operations")]
        let each = operations as f64 / opened.max(1) as f64;
        Some(fact(
            signal.at,
            opened,
            format!(
                "connections are not used again: {opened} opened within {} carried {}, {each:.1} each; {needless} of them came when another was at hand or had been closed, and {} closed again",
                length(window),
                counted(operations, "operation"),
                match closed {
                    0 => "none was".to_owned(),
                    1 => "one was".to_owned(),
                    _ => format!("{closed} were"),
                },
            ),
        ))
    })
}
