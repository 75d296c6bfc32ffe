//! Who dials from one address: the clients that said who they are, and whoever did not.
//!
//! A dial that the server refuses says nothing. Where one client is known at the address it is that client's; where
//! several are, nobody can tell, and such dials are counted for the address: one client's storm is then neither
//! another's nor nobody's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::source::Source;
use crate::detect::Signal;
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// Clients of one address that are told apart; what others dial is counted for the address.
const CLIENTS_MAX: usize = 256;

/// One address that dials an upstream.
#[derive(Debug, Default)]
pub(super) struct Place {
    clients: BTreeMap<InstanceId, Source>,
    /// Dials of nobody knows whom, and whatever was lost at the address: any of these may replace it.
    strangers: Source,
}

impl Place {
    /// Takes in a connection that ended.
    pub(super) fn count(&mut self, connection: &Connection, ended_at: Timestamp) {
        let owner = self.owner(connection);
        let is_lost = owner.is_some() && Source::is_lost(connection, ended_at);
        if owner.is_none() || is_lost {
            self.strangers.count(connection, ended_at);
        }
        if let Some(owner) = owner {
            let source = self.clients.entry(owner).or_default();
            source.count(connection, ended_at);
        }
    }

    /// The client that opened the connection, as far as that is known.
    fn owner(&mut self, connection: &Connection) -> Option<InstanceId> {
        let Some(owner) = connection.instance else {
            let mut known = self.clients.keys();
            return known.next().copied().filter(|_| known.next().is_none());
        };
        if self.clients.is_empty() {
            // Whoever comes first is the one that dialled before it was let in.
            self.clients.insert(owner, self.strangers.clone());
            self.strangers.leave_dials();
        }
        let has_room = self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&owner);
        has_room.then_some(owner)
    }

    pub(super) fn is_storming(&self) -> bool {
        self.strangers.is_storming() || self.clients.values().any(Source::is_storming)
    }

    /// What is new of each of its storms.
    pub(super) fn look(
        &mut self,
        (from, upstream): (IpAddr, UpstreamId),
        at: Timestamp,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        for (client, source) in &mut self.clients {
            let told = source.look(at);
            signals.extend(told.map(|told| told.of_one(upstream, from, *client, pools)));
        }
        if let Some(told) = self.strangers.look(at) {
            let all = self.clients.keys().copied();
            signals.push(told.of_any(upstream, Some(from), all, pools));
        }
        self.clients.retain(|_, source| source.is_worth_keeping());
    }

    pub(super) fn is_worth_keeping(&self) -> bool {
        !self.clients.is_empty() || self.strangers.is_worth_keeping()
    }
}

#[cfg(test)]
mod tests;
