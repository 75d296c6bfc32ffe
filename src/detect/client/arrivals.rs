//! Processes of applications that appear.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Taken, about, is_of_a_client, make_room, was_troubled};
use crate::pools::{InstanceId, Numbering, Pools};
use crate::time::Timestamp;
use crate::timeline::Fact;

/// A process opens its first connections within this.
const START: Duration = Duration::from_millis(700);

/// An application is known when others of it were there within this.
const ROLLOUT: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Drivers that number requests differently may share address and name.
    instances: BTreeMap<InstanceId, BTreeMap<Numbering, Known>>,
}

#[derive(Debug)]
struct Known {
    arrived_at: Timestamp,
    lowest_first_id: i32,
}

impl Detector for Arrivals {
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        let Fact::Introduced { request_id, .. } = &entry.fact else {
            return;
        };
        let Some(own) = connection.instance.and_then(|id| pools.instance(id)) else {
            return;
        };
        if !is_of_a_client(connection) {
            return;
        }
        make_room(&mut self.instances, own.id);
        let is_first = !self.instances.contains_key(&own.id);
        let known = self.instances.entry(own.id).or_default();
        let numbering = connection.numbering;
        if let Some(known) = known.get_mut(&numbering) {
            // Several processes behind one address count each for itself: only an id below all is certain.
            let begins = numbering.begins_process(*request_id)
                || numbering.is_counted() && *request_id <= known.lowest_first_id;
            known.lowest_first_id = known.lowest_first_id.min(*request_id);
            if !begins || entry.at.since(known.arrived_at) <= START {
                return;
            }
        }
        known.insert(
            numbering,
            Known {
                arrived_at: entry.at,
                lowest_first_id: *request_id,
            },
        );
        let others = pools
            .instances()
            .filter(|other| other.app == own.app && (other.id != own.id || !is_first))
            .filter(|other| {
                entry.at.since(other.last_introduced) < ROLLOUT || has_open(other.id, pools)
            })
            .count() as u64;
        if others > 0 && !was_troubled(pools, own.id, entry.at) {
            signals.push(about(
                connection.upstream,
                own.id,
                entry.at,
                entry.at,
                SignalKind::InstanceAppeared { others },
            ));
        }
    }

    fn tick(&mut self, _at: Timestamp, pools: &Pools, _signals: &mut Vec<Signal>) {
        self.instances
            .retain(|instance, _| pools.instance(*instance).is_some());
    }
}

fn has_open(instance: InstanceId, pools: &Pools) -> bool {
    pools
        .connections()
        .any(|connection| connection.instance == Some(instance) && connection.is_open())
}
