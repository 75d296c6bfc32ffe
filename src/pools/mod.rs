//! Mongo clients and their pools, inferred: what the drivers' own events would have said.
//!
//! One table each of upstreams, connections, client instances and mongo clients, folded from the timeline by one
//! thread. Unlike [`crate::clients`], which counts live traffic with atomics, this reasons: it may hesitate, join
//! what it held to be two, and say how sure it is.
//!
//! **Invariant:** every table is bounded; ended connections and departed clients are remembered for
//! [`RECENT`] only, so that detectors can look at what just happened.

mod clear;
mod closings;
mod connection;
mod grounds;
mod household;
mod idle_times;
mod instance;
mod join;
mod mongo_client;
mod pool;
mod rates;
mod reasons;
mod sessions;
mod signs;
mod sizes;
mod upstream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

pub use clear::{Clear, ClearSign, ClearTrigger};
pub use connection::{Connection, End};
pub use grounds::{Farewell, Ground, ReadySign, Standing};
pub use instance::{Instance, InstanceId};
pub use mongo_client::{Basis, Inferred, Joined, MongoClient, MongoClientId};
pub use pool::Pool;
pub use reasons::{CloseBasis, CloseReason, CloseReasons};
pub use upstream::Upstream;

use household::{Household, LOOK_EVERY};
use instance::InstanceKey;
use join::Joiner;

pub use crate::clients::Numbering;
use crate::connection::ClientMetadata;
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{ConnectionId, Entry, Fact, SessionId, UpstreamId};

/// How long what is over is remembered.
pub const RECENT: Duration = Duration::from_secs(30);

/// How long an instance without connections is remembered.
const INSTANCE_RECENT: Duration = Duration::from_mins(15);

/// Instances told apart; connections of further ones belong to none.
const INSTANCES_MAX: usize = 4096;

/// Ended connections remembered; in a storm the oldest of them go before their time.
const ENDED_MAX: usize = 20_000;

/// Addresses of which failed dials are remembered.
const ADDRESSES_MAX: usize = 4096;

/// Numbers rise, so nodes of the table stay half empty: boxes keep them small.
type Connections = BTreeMap<ConnectionId, Box<Connection>>;

/// Everything inferred about who holds which pools.
#[derive(Debug)]
pub struct Pools {
    upstreams: Vec<Upstream>,
    connections: Connections,
    /// Those that ended, in the order of their ends.
    ended: VecDeque<(Timestamp, ConnectionId)>,
    instances: BTreeMap<InstanceId, Instance>,
    by_key: BTreeMap<InstanceKey, InstanceId>,
    instances_started: u64,
    households: BTreeMap<InstanceId, Household>,
    /// Instances that are to be looked at.
    restless: BTreeSet<InstanceId>,
    mongo_clients: BTreeMap<MongoClientId, MongoClient>,
    mongo_clients_started: u64,
    /// When a dial on behalf of an address failed last.
    tried: BTreeMap<IpAddr, Timestamp>,
    swept_at: Timestamp,
}

/// How often instances are looked through for those that are over.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

impl Pools {
    /// Empty tables; an [`UpstreamId`] is a position in `upstreams`.
    pub fn new(upstreams: Vec<UpstreamName>) -> Self {
        Self {
            upstreams: upstreams.into_iter().map(Upstream::new).collect(),
            connections: BTreeMap::new(),
            ended: VecDeque::new(),
            instances: BTreeMap::new(),
            by_key: BTreeMap::new(),
            instances_started: 0,
            households: BTreeMap::new(),
            restless: BTreeSet::new(),
            mongo_clients: BTreeMap::new(),
            mongo_clients_started: 0,
            tried: BTreeMap::new(),
            swept_at: Timestamp::default(),
        }
    }

    /// Takes in one fact. Facts about connections whose beginning was missed are passed over.
    pub fn record(&mut self, entry: &Entry) {
        if let Fact::Opened(opened) = &entry.fact {
            let connection = Connection::new(entry.connection, *opened, entry.at);
            self.connections
                .insert(entry.connection, Box::new(connection));
        }
        let Some(connection) = self.connections.get_mut(&entry.connection) else {
            return;
        };
        let is_late =
            matches!(entry.fact, Fact::Introduced { .. }) && connection.introduced_at.is_none();
        if connection.ended.is_some() && !is_late {
            return;
        }
        connection.record(entry.at, &entry.fact);
        if let Some(upstream) = self.upstreams.get_mut(usize::from(connection.upstream.0)) {
            upstream.record(entry.at, &entry.fact);
        }
        if let Fact::DialFailed(_) = &entry.fact {
            let address = connection.peer.ip().to_canonical();
            if self.tried.len() < ADDRESSES_MAX || self.tried.contains_key(&address) {
                self.tried.insert(address, entry.at);
            }
        } else if let Fact::Ended(_) = &entry.fact {
            self.ended.push_back((entry.at, entry.connection));
        } else if let Fact::Introduced { client, .. } = &entry.fact {
            self.introduced(entry.connection, client, entry.at);
        }
        self.reason(entry);
    }

    fn introduced(&mut self, id: ConnectionId, client: &ClientMetadata, at: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let key = InstanceKey::new(connection, client);
        if let Some(known) = self.by_key.get(&key) {
            connection.instance = Some(*known);
            if let Some(instance) = self.instances.get_mut(known) {
                instance.introduced(client, at);
            }
        } else if self.instances.len() < INSTANCES_MAX {
            self.instances_started += 1;
            let instance = InstanceId(self.instances_started);
            connection.instance = Some(instance);
            self.by_key.insert(key.clone(), instance);
            self.instances
                .insert(instance, Instance::new(instance, key, client, at));
        }
    }

    /// Updates what the fact's instance and mongo client know.
    fn reason(&mut self, entry: &Entry) {
        let Some(connection) = self.connections.get_mut(&entry.connection) else {
            return;
        };
        let Some(instance) = connection.instance else {
            return;
        };
        if let Fact::Sampled(sample) = &entry.fact {
            if let Some(process) = connection.process
                && let Some(household) = self.households.get_mut(&instance)
                && connection.numbering == Numbering::Counted
            {
                let processes = &mut household.processes;
                processes.counted(process, sample.request_id, entry.at);
            }
        } else {
            let household = self.households.entry(instance).or_default();
            household.record(connection, entry.at, &entry.fact);
            if household.is_dirty {
                self.restless.insert(instance);
            }
        }
        let client = connection.mongo_client;
        if let Some(client) = client.and_then(|id| self.mongo_clients.get_mut(&id)) {
            if let Fact::Sampled(_) = &entry.fact {
                if let Some(pool) = client.pools.get_mut(&connection.upstream)
                    && pool.open.contains(&connection.id)
                {
                    pool.sampled(connection, entry.at);
                }
            } else if let Fact::Ended(_) = &entry.fact {
                client.ended(connection, entry.at);
            } else if let Fact::SessionsEnded(_) = &entry.fact {
                client.said_goodbye_at = Some(entry.at);
            }
        }
        self.read_signs(entry, instance);
    }

    /// Forgets what is over, and infers what only time tells. To be called on the grid of
    /// [`crate::observer`].
    pub fn tick(&mut self, at: Timestamp) {
        let restless: Vec<InstanceId> = self.restless.iter().copied().collect();
        for id in restless {
            self.look_at(id, at);
        }
        while let Some((ended_at, id)) = self.ended.front().copied()
            && (at.since(ended_at) >= RECENT || self.ended.len() > ENDED_MAX)
        {
            self.ended.pop_front();
            self.forget(id);
        }
        if at.since(self.swept_at) >= SWEEP_EVERY {
            // At the same moments whenever the watching began.
            self.swept_at = at.floor(SWEEP_EVERY);
            self.sweep(at);
        }
    }

    /// Joins the connections of an instance.
    fn look_at(&mut self, id: InstanceId, at: Timestamp) {
        let Some(household) = self.households.get_mut(&id) else {
            self.restless.remove(&id);
            return;
        };
        if !household.is_dirty && household.look_at.is_some_and(|due| due > at) {
            return;
        }
        if household.is_crowded() && at.since(household.looked_at) < LOOK_EVERY {
            return;
        }
        household.looked_at = at;
        household.is_dirty = false;
        let is_undecided = household.judge(&mut self.connections, at);
        let address = self.instances.get(&id).map(|instance| instance.address);
        let is_waiting = Joiner {
            household,
            connections: &mut self.connections,
            clients: &mut self.mongo_clients,
            upstreams: &self.upstreams,
            instance: id,
            started: &mut self.mongo_clients_started,
            tried_at: address.and_then(|address| self.tried.get(&address).copied()),
            at,
        }
        .join();
        household.settle(&self.connections, at);
        household.look_at = (is_undecided || is_waiting).then(|| at + LOOK_EVERY);
        if household.look_at.is_none() {
            self.restless.remove(&id);
        }
        if household.is_to_be_tidied(at) {
            let clients = self.mongo_clients.values_mut();
            let holders = clients
                .filter(|client| client.instance == id)
                .filter_map(|client| client.home.as_mut());
            household.tidy(&mut self.connections, holders, at);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        if let Some(instance) = connection.instance
            && let Some(household) = self.households.get_mut(&instance)
        {
            household.members.remove(&id);
            household.unsettled.remove(&id);
        }
    }

    fn sweep(&mut self, at: Timestamp) {
        self.tried
            .retain(|_, tried_at| at.since(*tried_at) < INSTANCE_RECENT);
        self.households
            .retain(|_, household| !household.is_over(at));
        let households = &self.households;
        self.instances.retain(|id, instance| {
            households.contains_key(id) || at.since(instance.last_introduced) < INSTANCE_RECENT
        });
        let instances = &self.instances;
        self.by_key.retain(|_, id| instances.contains_key(id));
    }

    /// An upstream.
    pub fn upstream(&self, id: UpstreamId) -> Option<&Upstream> {
        self.upstreams.get(usize::from(id.0))
    }

    /// All upstreams, by position.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// A connection that is open, or ended within [`RECENT`].
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id).map(Box::as_ref)
    }

    /// All of these, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().map(Box::as_ref)
    }

    /// What open connections are known to have in common by logical sessions: uses that prove it again.
    pub fn session_uses(&self) -> impl Iterator<Item = (ConnectionId, SessionId, Timestamp)> {
        let households = self.households.values();
        households.flat_map(|household| household.session_uses(&self.connections))
    }

    /// When a dial on behalf of an address failed last, within the last quarter of an hour.
    pub fn tried_at(&self, address: IpAddr) -> Option<Timestamp> {
        self.tried.get(&address).copied()
    }

    /// A client instance.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id)
    }

    /// All client instances.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// A mongo client.
    pub fn mongo_client(&self, id: MongoClientId) -> Option<&MongoClient> {
        self.mongo_clients.get(&id)
    }

    /// All mongo clients.
    pub fn mongo_clients(&self) -> impl Iterator<Item = &MongoClient> {
        self.mongo_clients.values()
    }
}

/// The lower of two, as far as there are two: what is not known is not lower.
fn lower<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
