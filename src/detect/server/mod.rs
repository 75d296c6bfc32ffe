//! What happens to the server, and on the way to it.
//!
//! | detector | tells |
//! |---|---|
//! | [`closes`] | connections that the server's side, or something between, ended |
//! | [`dials`] | dials that fail, handshakes that are turned away or stay unanswered |
//! | [`replies`] | error replies, refused credentials, other roles, other processes |
//! | [`silence`] | a server of which no byte comes while requests wait |
//! | [`loss`] | lost segments |
//! | [`network`] | longer round-trip times |
//! | [`unreached`] | clients that nothing reaches |
//! | [`load`] | slow operations, growing pools |
//! | [`ages`] | connections that end at one age |

mod ages;
mod closes;
mod dials;
mod heard;
mod load;
mod loss;
mod network;
mod replies;
mod silence;
mod unreached;

use std::collections::BTreeSet;

use super::{Detector, Signal, SignalKind, Subject, is_of_a_client, thresholds};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

pub(super) fn detectors() -> Vec<Box<dyn Detector>> {
    vec![
        Box::<closes::Closes>::default(),
        Box::<dials::Dials>::default(),
        Box::<replies::Replies>::default(),
        Box::<silence::Silences>::default(),
        Box::<unreached::Unreached>::default(),
        Box::<loss::Loss>::default(),
        Box::<network::Network>::default(),
        Box::<load::Load>::default(),
        Box::<ages::Ages>::default(),
    ]
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Client,
    Server,
}

/// Instances that have a connection to an upstream.
fn connected_to(pools: &Pools, upstream: UpstreamId) -> usize {
    let connected: BTreeSet<InstanceId> = pools
        .connections()
        .filter(|one| one.upstream == upstream && one.is_open() && is_of_a_client(one))
        .filter_map(|one| one.instance)
        .collect();
    connected.len()
}

/// A finding about a whole upstream.
fn about_upstream(
    upstream: UpstreamId,
    began_at: Timestamp,
    seen_at: Timestamp,
    kind: SignalKind,
) -> Signal {
    Signal {
        at: began_at,
        seen_at,
        subject: Subject {
            upstream,
            instance: None,
            mongo_client: None,
        },
        among: Vec::new(),
        kind,
    }
}
