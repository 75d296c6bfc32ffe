//! An incident in words.

use super::{Case, Incident, Moment};
use crate::pools::Pools;

/// The cause in one sentence with names, counts and times.
pub(super) fn summary(incident: &Incident, _case: &Case, pools: &Pools) -> String {
    let upstream = pools
        .upstream(incident.upstream)
        .map_or("", |upstream| &*upstream.name);
    format!(
        "{} at {upstream} since {}, {} clients",
        incident.cause().label(),
        incident.opened_at,
        incident.clients.len()
    )
}

/// The course of events, oldest first.
pub(super) fn course(_case: &Case, _pools: &Pools) -> Vec<Moment> {
    Vec::new()
}
