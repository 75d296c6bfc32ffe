//! Mongo clients and their pools, inferred: what the drivers' own events would have said.
//!
//! One table each of upstreams, connections, client instances and mongo clients, folded from the timeline by one
//! thread. Unlike [`crate::clients`], which counts live traffic with atomics, this reasons: it may hesitate, join
//! what it held to be two, and say how sure it is.
//!
//! **Invariant:** every table is bounded; ended connections and departed clients are remembered for
//! [`RECENT`] only, so that detectors can look at what just happened.

mod connection;
mod instance;
mod mongo_client;
mod upstream;

use std::collections::BTreeMap;
use std::time::Duration;

pub use connection::{Connection, End};
pub use instance::{Instance, InstanceId};
pub use mongo_client::{
    Clear, ClearTrigger, CloseReasons, Inferred, Joined, MongoClient, MongoClientId, Pool,
};
pub use upstream::Upstream;

use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{ConnectionId, Entry, Fact, UpstreamId};

/// How long what is over is remembered.
pub const RECENT: Duration = Duration::from_secs(30);

/// Everything inferred about who holds which pools.
#[derive(Debug)]
pub struct Pools {
    upstreams: Vec<Upstream>,
    connections: BTreeMap<ConnectionId, Connection>,
    instances: BTreeMap<InstanceId, Instance>,
    mongo_clients: BTreeMap<MongoClientId, MongoClient>,
}

impl Pools {
    /// Empty tables; an [`UpstreamId`] is a position in `upstreams`.
    pub fn new(upstreams: Vec<UpstreamName>) -> Self {
        Self {
            upstreams: upstreams.into_iter().map(Upstream::new).collect(),
            connections: BTreeMap::new(),
            instances: BTreeMap::new(),
            mongo_clients: BTreeMap::new(),
        }
    }

    /// Takes in one fact. Facts about connections whose beginning was missed are passed over.
    pub fn record(&mut self, entry: &Entry) {
        if let Fact::Opened(opened) = &entry.fact {
            let connection = Connection::new(entry.connection, *opened, entry.at);
            self.connections.insert(entry.connection, connection);
        }
        let Some(connection) = self.connections.get_mut(&entry.connection) else {
            return;
        };
        connection.record(entry.at, &entry.fact);
        if let Some(upstream) = self.upstreams.get_mut(usize::from(connection.upstream.0)) {
            upstream.record(entry.at, &entry.fact);
        }
        if let Fact::Introduced { client, .. } = &entry.fact {
            let id = Instance::find_or_add(&mut self.instances, connection, client, entry.at);
            connection.instance = Some(id);
        }
    }

    /// Forgets what is over, and infers what only time tells. To be called on the grid of
    /// [`crate::observer`].
    pub fn tick(&mut self, at: Timestamp) {
        self.connections.retain(|_, connection| {
            connection
                .ended
                .as_ref()
                .is_none_or(|end| at.since(end.at) < RECENT)
        });
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
        self.connections.get(&id)
    }

    /// All of these, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
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
