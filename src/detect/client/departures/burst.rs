//! Closes of one instance that follow each other.

use std::collections::BTreeSet;

use super::scope::Scope;
use super::{is_monitor, is_own};
use crate::pools::{Connection, InstanceId, MongoClientId, Pools};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

#[derive(Debug)]
pub(super) struct Burst {
    pub(super) began_at: Timestamp,
    pub(super) last_at: Timestamp,
    pub(super) closed: Vec<ConnectionId>,
}

impl Burst {
    /// Only monitors are left, which may follow, or only busy connections of a client without monitors.
    pub(super) fn is_waiting(&self, instance: InstanceId, pools: &Pools) -> bool {
        self.scopes(instance, pools).iter().any(|scope| {
            let has_pooled = scope.closed.iter().any(|closed| !is_monitor(closed));
            let are_monitors_left =
                !scope.left.is_empty() && scope.left.iter().all(|left| is_monitor(left));
            (has_pooled && are_monitors_left && scope.has_said_goodbye(self))
                || scope.may_be_closing()
        })
    }

    pub(super) fn scopes<'a>(&self, instance: InstanceId, pools: &'a Pools) -> Vec<Scope<'a>> {
        let closed: Vec<&Connection> = self
            .closed
            .iter()
            .filter_map(|id| pools.connection(*id))
            .collect();
        let left: Vec<&Connection> = pools
            .connections()
            .filter(|connection| {
                is_own(connection, instance)
                    && connection.opened_at <= self.last_at
                    && connection.is_open()
            })
            .collect();
        let clients: BTreeSet<Option<MongoClientId>> =
            closed.iter().map(|closed| closed.mongo_client).collect();
        if left.is_empty() || !clients.iter().any(Option::is_some) {
            return vec![Scope {
                mongo_client: clients
                    .first()
                    .copied()
                    .flatten()
                    .filter(|_| clients.len() == 1),
                closed,
                left,
                others: Vec::new(),
            }];
        }
        clients
            .into_iter()
            .map(|client| {
                let is_of_it = |connection: &&&Connection| connection.mongo_client == client;
                let closed: Vec<&Connection> =
                    closed.iter().filter(|c| is_of_it(c)).copied().collect();
                // A client that ends its monitors with everything it had dials no more: what was dialled since is
                // another's, even where the two cannot be told apart yet.
                let is_over = closed.iter().any(|closed| is_monitor(closed))
                    && !left
                        .iter()
                        .any(|left| is_of_it(&left) && left.opened_at <= self.began_at);
                let (own, others) = left
                    .iter()
                    .copied()
                    .partition(|left| is_of_it(&left) && !is_over);
                Scope {
                    mongo_client: client,
                    closed,
                    left: own,
                    others,
                }
            })
            .collect()
    }
}
