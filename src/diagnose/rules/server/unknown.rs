//! Connections clearly broke, and nothing known fits.

use std::time::Duration;

use super::super::super::book::SURE;
use super::super::super::words::counted;
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::{Case, SignalKind, cuts, fact};
use crate::pools::Pools;
use crate::time::Timestamp;

/// Something better may be known by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// Dials that fail, of which one alone is a hiccup.
const FAILED_DIALS: u64 = 3;

/// Nothing known fits.
pub(super) fn unknown(case: &Case, _pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let mut evidence: Vec<Evidence> = cuts(case)
        .iter()
        .filter(|cut| cut.group.in_flight > 0)
        .map(super::Cut::told)
        .collect();
    for (signal, (failure, count)) in case.all(|kind| match kind {
        SignalKind::DialsFail { failure, count, .. } if *count >= FAILED_DIALS => {
            Some((*failure, *count))
        }
        _ => None,
    }) {
        let text = format!("{} failed ({})", counted(count, "dial"), failure.label());
        evidence.push(fact(signal.at, count, text));
    }
    if evidence.is_empty() || at.since(case.began_at()) < PATIENCE {
        return None;
    }
    Some(Opinion {
        cause: Cause::Unknown,
        confidence: SURE,
        evident_at: case.began_at() + PATIENCE,
        evidence,
        against: Vec::new(),
    })
}
