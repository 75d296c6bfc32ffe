//! Causes that lie with the application, its driver or its settings.
//!
//! | rules | causes |
//! |---|---|
//! | [`ends`] | `app_crash`, `driver_pool_destroyed`, `unhandled_async_cleanup` |
//! | [`rollouts`] | `deploy`, `scale_out` |
//! | [`many_clients`] | `client_per_request` |
//! | [`habits`] | `reconnect_storm`, `idle_recycling`, `health_checks`, `wedged_client` |

mod ends;
mod growth;
mod habits;
mod many_clients;
mod rollouts;

use super::super::Evidence;
use super::Rule;
use crate::time::Timestamp;

pub(super) const RULES: &[Rule] = &[
    rollouts::deploy,
    rollouts::scale_out,
    ends::app_crash,
    ends::pool_destroyed,
    ends::cleanup,
    many_clients::client_per_request,
    habits::reconnect_storm,
    habits::idle_recycling,
    habits::health_checks,
    habits::wedged_client,
];

fn fact(at: Timestamp, count: u64, text: impl Into<String>) -> Evidence {
    Evidence {
        at: Some(at),
        fact: text.into(),
        count: Some(count),
    }
}

fn note(at: Timestamp, text: impl Into<String>) -> Evidence {
    Evidence {
        at: Some(at),
        fact: text.into(),
        count: None,
    }
}

#[cfg(test)]
mod tests;
