//! What certainly belongs together, and what is known while it is placed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{JITTER, SETTLING};
use crate::pools::sessions::CircleId;
use crate::pools::{Connection, MongoClient, MongoClientId, lower};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, UpstreamId};

/// Pooled connections that certainly belong together.
pub(super) struct Unit {
    pub(super) circle: Option<CircleId>,
    pub(super) members: Vec<ConnectionId>,
    pub(super) first: Timestamp,
    /// The lowest `requestID` that introduced one of them, where their process counts.
    pub(super) first_request_id: Option<i32>,
    /// When each was opened.
    pub(super) births: Vec<Timestamp>,
    pub(super) upstreams: BTreeSet<UpstreamId>,
    pub(super) operations: u64,
    /// All ended, after `endSessions`.
    pub(super) has_said_goodbye: bool,
    pub(super) lacks_monitors: bool,
    pub(super) is_of_legacy_pool: bool,
    pub(super) has_single_socket: bool,
    /// Whose it was found to be before.
    pub(super) held_by: Option<MongoClientId>,
}

/// What is known while pooled connections are placed.
#[derive(Default)]
pub(super) struct Register {
    /// Whose circles these are for certain.
    pub(super) homes: BTreeMap<CircleId, MongoClientId>,
    /// Whose they were found to be.
    pub(super) circles: BTreeMap<CircleId, MongoClientId>,
    /// Mongo clients with monitors and without sessions.
    pub(super) homeless: Vec<MongoClientId>,
    /// How many connections carried each.
    pub(super) widths: BTreeMap<CircleId, usize>,
    /// When the newest connection of each was opened, up to the moment that is looked at.
    pub(super) newest: BTreeMap<MongoClientId, Timestamp>,
    /// When connections were opened that may turn out to be monitors, in order.
    pub(super) unshown: Vec<Timestamp>,
}

impl Register {
    /// What may turn out to be a monitor was opened about `at`.
    pub(super) fn has_unshown_near(&self, at: Timestamp) -> bool {
        let first = self
            .unshown
            .partition_point(|other| *other < at && other.distance(at) >= SETTLING);
        let nearest = self.unshown.get(first);
        nearest.is_some_and(|other| other.distance(at) < SETTLING)
    }

    /// Several connections carried sessions of this circle.
    pub(super) fn is_round(&self, circle: CircleId) -> bool {
        self.widths.get(&circle).is_some_and(|width| *width > 1)
    }

    /// Time between the newest connection of `client` and the first of `unit`.
    pub(super) fn gap(&self, unit: &Unit, client: &MongoClient) -> Option<Duration> {
        let newest = self.newest.get(&client.id)?;
        (*newest <= unit.first + JITTER).then(|| unit.first.distance(*newest))
    }
}

impl Unit {
    /// When the monitor of `client` was opened that watches its server, the first of them where it has several.
    pub(super) fn born(&self, client: &MongoClient) -> Option<Timestamp> {
        let watches = self.upstreams.iter();
        let watches = watches.filter_map(|upstream| client.watches.get(upstream));
        watches.map(|watch| watch.since).min()
    }

    /// Its process introduced one of these before the first monitor of `client` that watches its server.
    pub(super) fn precedes(&self, client: &MongoClient) -> bool {
        let watches = self.upstreams.iter();
        let watches = watches.filter_map(|upstream| client.watches.get(upstream));
        let monitored = watches.filter_map(|watch| watch.first_request_id).min();
        let introduced = self.first_request_id.zip(monitored);
        introduced.is_some_and(|(own, monitored)| own < monitored)
    }

    pub(super) fn add(&mut self, connection: &Connection) {
        if connection.opened_at < self.first || self.members.is_empty() {
            self.first = connection.opened_at;
            self.held_by = connection.mongo_client;
        }
        let introduced = connection.introduction().map(|one| one.request_id);
        self.first_request_id = lower(self.first_request_id, introduced);
        self.members.push(connection.id);
        self.births.push(connection.opened_at);
        self.upstreams.insert(connection.upstream);
        self.operations = self.operations.saturating_add(connection.last.operations);
        self.has_said_goodbye |= connection.said_goodbye_at.is_some();
    }
}
