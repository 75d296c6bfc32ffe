//! What to check or do next.

use super::{Advice, Case, Incident};
use crate::pools::Pools;

/// The most promising first.
pub(super) fn advice(_incident: &Incident, _case: &Case, _pools: &Pools) -> Vec<Advice> {
    Vec::new()
}
