//! What clients do.
//!
//! | detector | tells |
//! |---|---|
//! | [`departures`] | connections that a client ends together: orderly, by force, or with its process |
//! | [`arrivals`] | processes that appear |
//! | [`churn`] | mongo clients made again and again |
//! | [`leak`] | mongo clients left open one after the other, slowly |
//! | [`reuse`] | connections that are used once |
//! | [`storm`] | dials without pause |
//! | [`reopened`] | pools that open much at once after trouble |
//! | [`recycling`] | idle connections that are replaced |
//! | [`clears`] | pools that were wiped |
//! | [`probes`] | bare connections |
//! | [`absent`] | clients that were at work before trouble and stay away after it |
//! | [`legacy`] | Node 3.x pools that destroy themselves, and clients that stay silent after it |
//!
//! **Invariant:** a detector watches at most [`INSTANCES_MAX`] instances.

mod absent;
mod arrivals;
mod churn;
mod clears;
mod departures;
mod leak;
mod legacy;
mod lives;
mod probes;
mod recycling;
mod reopened;
mod reuse;
mod storm;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Subject, Taken, is_of_a_client};
use crate::connection::Initiator;
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{Fact, UpstreamId};
use crate::wire::is_about_the_server;

/// Instances a detector watches; of more, the ones seen first are left out.
const INSTANCES_MAX: usize = 4096;

/// What a client does within this after trouble with its server may follow from it.
const AFTERMATH: Duration = Duration::from_secs(12);

pub(super) fn detectors() -> Vec<Box<dyn Detector>> {
    vec![
        Box::<departures::Departures>::default(),
        Box::<arrivals::Arrivals>::default(),
        Box::<churn::Churn>::default(),
        Box::<leak::Leak>::default(),
        Box::<reuse::Reuse>::default(),
        Box::<storm::Storms>::default(),
        Box::<reopened::Reopenings>::default(),
        Box::<recycling::Recycling>::default(),
        Box::<clears::Clears>::default(),
        Box::<probes::Probes>::default(),
        Box::<legacy::Legacy>::default(),
        Box::<absent::Absent>::default(),
    ]
}

/// What became of a connection of a client.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It said whose it is.
    Introduced,
    /// It ended, from this side.
    Ended(Initiator),
}

/// The instance whose connection takes a turn, where it counts.
fn turn(taken: &Taken<'_>) -> Option<(InstanceId, Turn)> {
    let turn = if let Fact::Introduced { .. } = &taken.entry.fact {
        Turn::Introduced
    } else if let Fact::Ended(ended) = &taken.entry.fact {
        Turn::Ended(ended.ending.initiator)
    } else {
        return None;
    };
    let instance = taken.connection.instance?;
    is_of_a_client(taken.connection).then_some((instance, turn))
}

/// A finding about one instance.
const fn about(
    upstream: UpstreamId,
    instance: InstanceId,
    at: Timestamp,
    seen_at: Timestamp,
    kind: SignalKind,
) -> Signal {
    Signal {
        at,
        seen_at,
        subject: Subject {
            upstream,
            instance: Some(instance),
            mongo_client: None,
        },
        among: Vec::new(),
        kind,
    }
}

/// Room for one more instance.
fn make_room<T>(watched: &mut BTreeMap<InstanceId, T>, wanted: InstanceId) {
    if watched.len() >= INSTANCES_MAX && !watched.contains_key(&wanted) {
        watched.pop_first();
    }
}

/// A connection that belongs to `instance` and counts.
fn is_own(connection: &Connection, instance: InstanceId) -> bool {
    connection.instance == Some(instance) && is_of_a_client(connection)
}

/// Whether the server, the way to it or credentials gave this instance trouble just before `at`.
fn was_troubled(pools: &Pools, instance: InstanceId, at: Timestamp) -> bool {
    let is_recent = |moment: Timestamp| moment <= at && at.since(moment) < AFTERMATH;
    let mut upstreams = pools.upstreams().iter();
    let is_upstream_troubled = |connection: &Connection| {
        pools.upstream(connection.upstream).is_some_and(|upstream| {
            upstream.unreachable_since.is_some()
                || upstream.restarted_at.is_some_and(is_recent)
                || upstream.role_changed_at.is_some_and(is_recent)
        })
    };
    let is_connection_troubled = |connection: &Connection| {
        let is_cut = connection.ended.is_some_and(|end| {
            is_recent(end.at)
                && match end.ending.initiator {
                    Initiator::Server | Initiator::Proxy => true,
                    Initiator::Client => end.ending.after_failed_authentication,
                }
        });
        let has_failed = connection
            .last_error
            .is_some_and(|(moment, error)| is_recent(moment) && tells_of_trouble(error.code));
        is_cut || has_failed || connection.dial_failure.is_some()
    };
    upstreams.any(|upstream| upstream.restarted_at.is_some_and(is_recent))
        || pools
            .connections()
            .filter(|connection| is_own(connection, instance))
            .any(|connection| {
                is_connection_troubled(connection) || is_upstream_troubled(connection)
            })
}

/// `MaxTimeMSExpired`: as often as not the limit is too short for what was asked.
const TOO_LONG: i32 = 50;

/// `AuthenticationFailed`.
const REFUSED: i32 = 18;

/// Error codes after which drivers clear pools or look for another server: shutdown, step-down, network errors
/// of members, refused credentials.
const fn tells_of_trouble(code: i32) -> bool {
    code == REFUSED || (code != TOO_LONG && is_about_the_server(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_what_a_server_says_of_itself_and_of_credentials() {
        for code in [
            6, 7, 18, 89, 91, 189, 202, 262, 462, 9001, 10107, 11600, 11602, 13435,
        ] {
            assert!(tells_of_trouble(code), "{code}");
        }
        for code in [0, 11, 50, 112, 11000] {
            assert!(!tells_of_trouble(code), "{code}");
        }
    }
}
