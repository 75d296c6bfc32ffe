//! Which connections of an instance belong to one `MongoClient`.
//!
//! ```text
//! monitors ─────────────────▶ one mongo client each: a MongoClient has one monitor a server
//! circles of sessions ──┬───▶ the mongo client whose sessions they are
//!                       ├───▶ a mongo client without sessions whose monitor was opened just before
//!                       └───▶ the only mongo client there is, or a new one
//! round-trip monitors ──────▶ a mongo client whose monitor has none, in the order of opening
//! ```
//!
//! The number of mongo clients follows from the monitors, where a driver has them; what is uncertain is at most
//! which pooled connection belongs to which of several. That is decided anew whenever something is learned: sessions
//! that meet prove what birth order could only suggest. Drivers without monitors are told apart by sessions alone:
//! circles that stay apart although both carried many operations are two session pools, so two mongo clients.
//!
//! Processes behind one address are told apart by request ids where a driver counts them process-wide (Node, Rust,
//! Go, Java, C#, Ruby): of two introductions of one process the later has the higher id ([`crate::clients::processes`]).
//!
//! Sources: Driver Sessions specification § Server session pool; Server Monitoring specification § Monitoring;
//! Connection Monitoring and Pooling specification § Connection pool.

mod monitors;
mod owner;
mod pooled;
mod units;

use std::collections::BTreeMap;
use std::time::Duration;

use super::household::Household;
use super::sessions::CircleId;
use super::{
    Connection, Connections, InstanceId, MongoClient, MongoClientId, Pool, RECENT, Upstream,
};
use crate::clients::numbering::JITTER;
use crate::connection::ServerRole;
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, UpstreamId};

/// A driver opens its first pooled connection right after its monitor's first answer; Node's monitor shows itself
/// half a second later.
pub(super) const SETTLING: Duration = Duration::from_secs(2);

/// How long a mongo client that lost all its connections to trouble is expected back.
const EXPECTED_BACK: Duration = Duration::from_secs(30);

/// Connections that are looked at one against the other.
const COMPARED_MAX: usize = 256;

/// Joins the connections of one instance.
pub(super) struct Joiner<'a> {
    pub(super) household: &'a mut Household,
    pub(super) connections: &'a mut Connections,
    pub(super) clients: &'a mut BTreeMap<MongoClientId, MongoClient>,
    pub(super) upstreams: &'a [Upstream],
    pub(super) instance: InstanceId,
    pub(super) started: &'a mut u64,
    /// When a dial on behalf of its address failed last.
    pub(super) tried_at: Option<Timestamp>,
    pub(super) at: Timestamp,
}

impl Joiner<'_> {
    /// Finds out what belongs together. True when time may tell more.
    pub(super) fn join(&mut self) -> bool {
        self.merge();
        self.place_monitors();
        let is_waiting = self.place_pooled();
        self.place_round_trips();
        let is_closing = self.close();
        self.household.claim(self.clients, self.at);
        let is_unexplained = self.explain();
        self.rate();
        is_waiting || is_closing || is_unexplained
    }

    /// Mongo clients whose sessions met are one, unless each has a monitor of the same server.
    fn merge(&mut self) {
        let mut owners: BTreeMap<CircleId, MongoClientId> = BTreeMap::new();
        let ids: Vec<MongoClientId> = self.household.clients.iter().copied().collect();
        for id in ids {
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let Some(home) = client.home.map(|home| self.household.sessions.root(home)) else {
                continue;
            };
            client.home = Some(home);
            let Some(older) = owners.get(&home).copied() else {
                owners.insert(home, id);
                continue;
            };
            let watched = client.watched();
            let is_other = self
                .clients
                .get(&older)
                .is_some_and(|older| older.watched().intersection(&watched).next().is_some());
            if is_other {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.home = None;
                }
            } else {
                self.absorb(older, id);
            }
        }
    }

    fn absorb(&mut self, older: MongoClientId, younger: MongoClientId) {
        self.household.clients.remove(&younger);
        let Some(gone) = self.clients.remove(&younger) else {
            return;
        };
        for id in &self.household.members {
            if let Some(connection) = self.connections.get_mut(id)
                && connection.mongo_client == Some(younger)
            {
                connection.mongo_client = Some(older);
            }
        }
        if let Some(client) = self.clients.get_mut(&older) {
            client.absorb(gone);
        }
    }

    /// Closes mongo clients that are gone. True when some may be about to.
    fn close(&mut self) -> bool {
        let mut is_open_question = false;
        let mut forgotten = Vec::new();
        for id in &self.household.clients {
            let Some(client) = self.clients.get_mut(id) else {
                continue;
            };
            if let Some(closed_at) = client.closed_at {
                is_open_question = true;
                // Without a goodbye that is found only when it has stayed away.
                let found_after = match client.said_goodbye_at {
                    Some(_) => Duration::ZERO,
                    None => EXPECTED_BACK,
                };
                if self.at.since(closed_at) > RECENT + found_after {
                    forgotten.push(*id);
                }
                continue;
            }
            let Some((ended_at, was_own_will)) = client.last_end else {
                continue;
            };
            let goodbye = client.said_goodbye_at;
            if client.pooled_open() > 0 {
                // What is left may turn out to be another's.
                is_open_question |= goodbye.is_some_and(|at| self.at.since(at) <= 2 * SETTLING);
                continue;
            }
            let is_empty = client.monitors.is_empty();
            // What measures round trips may turn out to be another's.
            let may_be_empty =
                client.watched().is_empty() && self.at.since(ended_at) <= 2 * SETTLING;
            is_open_question |= is_empty || may_be_empty || client.said_goodbye_at.is_some();
            let tried_at = self.tried_at.unwrap_or_default().max(ended_at);
            // A check that succeeds after all was lost is its own, although the connection is not placed yet.
            let is_coming_back = |pool: &Pool| pool.is_cleared() || pool.is_ready_again(ended_at);
            let is_gone = if client.said_goodbye_at.is_some() {
                true
            } else if is_empty
                && was_own_will
                && !client.pools.values().any(|pool| is_coming_back(pool))
            {
                self.at.since(ended_at) >= SETTLING && self.at.since(tried_at) >= SETTLING
            } else {
                is_empty && self.at.since(tried_at) >= EXPECTED_BACK
            };
            if is_gone {
                client.closed_at = Some(client.quit_at().unwrap_or(ended_at));
            }
        }
        for id in forgotten {
            self.household.clients.remove(&id);
            self.clients.remove(&id);
        }
        is_open_question
    }

    /// Explains what mongo clients did. True when something is left to explain.
    fn explain(&mut self) -> bool {
        let mut is_open_question = false;
        for id in &self.household.clients {
            if let Some(client) = self.clients.get_mut(id) {
                is_open_question |= client.explain(self.at);
            }
        }
        is_open_question
    }

    /// Says how sure this is.
    fn rate(&mut self) {
        let count = self.open_clients().count();
        for id in &self.household.clients {
            if let Some(client) = self.clients.get_mut(id) {
                client.rate(count <= 1);
            }
        }
    }

    // --- what is asked again and again ---

    fn unsettled(&self) -> impl Iterator<Item = &Connection> {
        self.household
            .unsettled
            .iter()
            .filter_map(|id| self.connections.get(id))
            .map(Box::as_ref)
    }

    fn open_clients(&self) -> impl Iterator<Item = &MongoClient> {
        self.household
            .clients
            .iter()
            .filter_map(|id| self.clients.get(id))
            .filter(|client| client.is_open())
    }

    /// Members of one replica set, routers of one cluster, or the same server.
    fn are_kin(&self, one: UpstreamId, other: UpstreamId) -> bool {
        if one == other {
            return true;
        }
        let server = |id: UpstreamId| {
            let upstream = self.upstreams.get(usize::from(id.0))?;
            upstream.server.as_deref()
        };
        let (Some(one), Some(other)) = (server(one), server(other)) else {
            return false;
        };
        let are_routers = one.role == ServerRole::Mongos && other.role == ServerRole::Mongos;
        are_routers || (one.set_name.is_some() && one.set_name == other.set_name)
    }

    fn lacks_monitors(&self, client: &MongoClient) -> bool {
        let mut connections = client.pools.values().flat_map(|pool| &pool.open);
        connections.any(|id| {
            self.connections
                .get(id)
                .is_some_and(|connection| connection.traits.lacks_monitors())
        })
    }

    /// Their request ids may have been counted by one process.
    fn may_be_one(&self, client: &MongoClient, others: &[ConnectionId]) -> bool {
        let counted = |id: &ConnectionId| self.connections.get(id)?.introduction();
        let pooled = client.pools.values().flat_map(|pool| &pool.open);
        let own = client.monitors.iter().chain(pooled);
        let own = own.take(COMPARED_MAX).filter_map(counted);
        let own: Vec<_> = own.chain(client.last_introduction).collect();
        let others = others.iter().take(COMPARED_MAX).filter_map(counted);
        others
            .into_iter()
            .all(|other| own.iter().all(|own| own.may_be_counted_with(&other)))
    }

    fn start(&mut self, at: Timestamp) -> MongoClientId {
        *self.started += 1;
        let id = MongoClientId(*self.started);
        self.clients
            .insert(id, MongoClient::new(id, self.instance, at));
        self.household.clients.insert(id);
        id
    }

    fn give(&mut self, id: ConnectionId, owner: MongoClientId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.mongo_client == Some(owner) {
            return;
        }
        if let Some(former) = connection.mongo_client
            && let Some(former) = self.clients.get_mut(&former)
        {
            former.yield_up(connection);
        }
        if let Some(client) = self.clients.get_mut(&owner) {
            client.take(connection);
        }
    }
}
