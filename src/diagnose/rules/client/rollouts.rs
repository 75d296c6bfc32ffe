//! Instances of an application that come and go, as they should.

use super::super::super::words::counted;
use super::super::super::{Case, Cause, Evidence};
use super::super::Opinion;
use super::fact;
use crate::detect::{Signal, SignalKind};
use crate::pools::Pools;
use crate::time::Timestamp;

/// Processes that came, and processes that said goodbye.
fn movements(case: &Case) -> (Vec<&Signal>, Vec<&Signal>) {
    let arrived = case.signals().iter().filter(
        |signal| matches!(signal.kind, SignalKind::InstanceAppeared { others } if others > 0),
    );
    let left = case
        .signals()
        .iter()
        .filter(|signal| matches!(signal.kind, SignalKind::InstanceGone { .. }));
    (arrived.collect(), left.collect())
}

fn told(signals: &[&Signal], whom: &str, what: &str) -> Option<Evidence> {
    let first = signals.first()?;
    let count = signals.len() as u64;
    Some(fact(
        first.at,
        count,
        format!("{} {what}", counted(count, whom)),
    ))
}

/// Instances were replaced.
pub(super) fn deploy(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let (arrived, left) = movements(case);
    let evident_at = arrived.first()?.at.max(left.first()?.at);
    Some(Opinion {
        cause: Cause::Deploy,
        confidence: 0.9,
        evident_at,
        evidence: [
            told(&arrived, "new process", "of the application connected"),
            told(&left, "client", "said goodbye with nothing under way"),
        ]
        .into_iter()
        .flatten()
        .collect(),
        against: Vec::new(),
    })
}

/// Instances were added.
pub(super) fn scale_out(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let (arrived, left) = movements(case);
    let first = arrived.first()?;
    let (confidence, against) = if left.is_empty() {
        (0.7, Vec::new())
    } else {
        (
            0.3,
            told(&left, "client", "left meanwhile")
                .into_iter()
                .collect(),
        )
    };
    Some(Opinion {
        cause: Cause::ScaleOut,
        confidence,
        evident_at: first.at,
        evidence: told(&arrived, "new process", "of the application connected")
            .into_iter()
            .collect(),
        against,
    })
}
