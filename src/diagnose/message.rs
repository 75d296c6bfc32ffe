//! What the logs of drivers will say.

use super::{Case, Incident, Logged};
use crate::pools::Pools;

/// What an incident makes drivers log.
pub(super) fn logged(_incident: &Incident, _case: &Case, _pools: &Pools) -> Vec<Logged> {
    Vec::new()
}
