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
//! Go, Java, C#, Ruby): of two introductions of one process the later has the higher id.
//!
//! Sources: Driver Sessions specification § Server session pool; Server Monitoring specification § Monitoring;
//! Connection Monitoring and Pooling specification § Connection pool.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::household::Household;
use super::sessions::CircleId;
use super::{
    Connection, Connections, InstanceId, MongoClient, MongoClientId, Pool, RECENT, Upstream,
};
use crate::connection::{Role, ServerRole};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, UpstreamId};

/// A driver opens its first pooled connection right after its monitor's first answer; Node's monitor shows itself
/// half a second later.
const SETTLING: Duration = Duration::from_secs(2);

/// Moments of different connections may be so much out of order.
const JITTER: Duration = Duration::from_millis(50);

/// Operations after which two circles of one session pool would have met.
const SEPARATE_OPERATIONS: u64 = 30;

/// The same for circles that began in one burst: its workers may keep to a session each for long.
const SEPARATE_OPERATIONS_IN_BURST: u64 = 300;

/// A pool that grows opens its connections at shorter distances.
const BURST: Duration = Duration::from_millis(300);

/// How long a mongo client that lost all its connections to trouble is expected back.
const EXPECTED_BACK: Duration = Duration::from_secs(30);

/// Connections that are looked at one against the other.
const COMPARED_MAX: usize = 256;

/// Pooled connections that certainly belong together.
struct Unit {
    circle: Option<CircleId>,
    members: Vec<ConnectionId>,
    first: Timestamp,
    /// When each was opened.
    births: Vec<Timestamp>,
    upstreams: BTreeSet<UpstreamId>,
    operations: u64,
    /// All ended, after `endSessions`.
    has_said_goodbye: bool,
    lacks_monitors: bool,
    has_single_socket: bool,
    /// Whose it was found to be before.
    held_by: Option<MongoClientId>,
}

/// What is known while pooled connections are placed.
#[derive(Default)]
struct Register {
    /// Whose circles these are for certain.
    homes: BTreeMap<CircleId, MongoClientId>,
    /// Whose they were found to be.
    circles: BTreeMap<CircleId, MongoClientId>,
    /// Mongo clients with monitors and without sessions.
    homeless: Vec<MongoClientId>,
    /// How many connections carried each.
    widths: BTreeMap<CircleId, usize>,
    /// When the newest connection of each was opened, up to the moment that is looked at.
    newest: BTreeMap<MongoClientId, Timestamp>,
}

impl Register {
    /// Several connections carried sessions of this circle.
    fn is_round(&self, circle: CircleId) -> bool {
        self.widths.get(&circle).is_some_and(|width| *width > 1)
    }

    /// Time from the newest connection of `client` to the first of `unit`.
    fn gap(&self, unit: &Unit, client: &MongoClient) -> Option<Duration> {
        let newest = self.newest.get(&client.id)?;
        (*newest <= unit.first + JITTER).then(|| unit.first.since(*newest))
    }
}

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

    fn place_monitors(&mut self) {
        self.correct_round_trips();
        let mut homeless: Vec<(Timestamp, ConnectionId)> = self
            .members()
            .filter(|one| one.found == Role::Monitor && one.mongo_client.is_none())
            // One that ended without having shown itself does not prove a mongo client of its own.
            .filter(|one| one.is_open() || one.role != Role::Unknown)
            .map(|one| (one.opened_at, one.id))
            .collect();
        homeless.sort_unstable();
        for (_, id) in homeless {
            let Some(monitor) = self.connections.get(&id) else {
                continue;
            };
            let opened_at = monitor.opened_at;
            let owner = self
                .lacking_monitor(monitor)
                .unwrap_or_else(|| self.start(opened_at));
            self.give(id, owner);
        }
    }

    /// What was taken for a polling monitor is a round-trip monitor once a streaming one is beside it.
    fn correct_round_trips(&mut self) {
        let corrected: Vec<ConnectionId> = self
            .members()
            .filter(|one| one.is_open() && one.found == Role::RoundTripMonitor)
            .filter(|one| one.mongo_client.is_some())
            .map(|one| one.id)
            .collect();
        for id in corrected {
            if let Some(connection) = self.connections.get_mut(&id)
                && let Some(client) = connection.mongo_client
                && let Some(client) = self.clients.get_mut(&client)
                && let Some(watch) = client.watches.get_mut(&connection.upstream)
                && watch.monitor == Some(id)
            {
                watch.monitor = None;
                watch.round_trip.get_or_insert(id);
            }
        }
    }

    /// The mongo client that lacks just this monitor.
    fn lacking_monitor(&self, monitor: &Connection) -> Option<MongoClientId> {
        let upstream = monitor.upstream;
        let lacking = || {
            self.open_clients()
                .filter(move |client| !client.is_watching(upstream))
                .filter(|client| client.said_goodbye_at.is_none())
        };
        let returning = lacking().find(|client| {
            let lost_at = client
                .watches
                .get(&upstream)
                .and_then(|watch| watch.lost_at);
            // In trouble the old one may linger while the new one is already there.
            let is_in_trouble = client.pools.values().any(Pool::is_cleared);
            lost_at.is_some_and(|at| is_in_trouble || at <= monitor.opened_at + JITTER)
                && self.may_be_one(client, &[monitor.id])
        });
        if let Some(client) = returning {
            return Some(client.id);
        }
        let discovering = lacking().find(|client| {
            !client.watches.contains_key(&upstream)
                && client
                    .watches
                    .keys()
                    .any(|other| self.are_kin(*other, upstream))
                && self.may_be_one(client, &[monitor.id])
        });
        if let Some(client) = discovering {
            return Some(client.id);
        }
        lacking()
            .filter(|client| client.watches.is_empty() && !self.lacks_monitors(client))
            .filter(|client| self.may_be_one(client, &[monitor.id]))
            .min_by_key(|client| (distance(client.created_at, monitor.opened_at), client.id))
            .map(|client| client.id)
    }

    /// True when some connections wait for what time may tell.
    fn place_pooled(&mut self) -> bool {
        let mut is_waiting = false;
        let units = self.units();
        let mut births: Vec<(Timestamp, usize)> = units
            .iter()
            .enumerate()
            .flat_map(|(position, unit)| unit.births.iter().map(move |at| (*at, position)))
            .collect();
        births.sort_unstable();
        let mut register = self.register();
        let circles = units
            .iter()
            .filter_map(|unit| Some((unit.circle?, unit.members.len())));
        register.widths = circles.collect();
        let mut owners: Vec<Option<MongoClientId>> = vec![None; units.len()];
        for (at, position) in births {
            let (Some(unit), Some(decided)) = (units.get(position), owners.get_mut(position))
            else {
                continue;
            };
            if at == unit.first && decided.is_none() {
                *decided = match self.owner(unit, &register) {
                    Some(owner) => Some(owner),
                    None if self.is_undecided(unit) => {
                        is_waiting = true;
                        None
                    }
                    None => Some(self.start(unit.first)),
                };
                if let Some(owner) = *decided {
                    self.settle(unit, owner, &mut register);
                }
            }
            if let Some(owner) = *decided {
                register.newest.insert(owner, at);
            }
        }
        self.household.circles = register.circles;
        is_waiting
    }

    fn register(&mut self) -> Register {
        let mut register = Register::default();
        for (circle, client) in std::mem::take(&mut self.household.circles) {
            let circle = self.household.sessions.root(circle);
            if self.clients.contains_key(&client) {
                let owner = register.circles.entry(circle).or_insert(client);
                *owner = client.min(*owner);
            }
        }
        for client in self
            .household
            .clients
            .iter()
            .filter_map(|id| self.clients.get(id))
        {
            let home = client.home.map(|home| self.household.sessions.root(home));
            if let Some(home) = home {
                register.homes.insert(home, client.id);
            } else if !client.watches.is_empty() {
                register.homeless.push(client.id);
            }
            let watches = client.watches.values();
            if let Some(since) = watches.map(|watch| watch.since).max() {
                register.newest.insert(client.id, since);
            }
        }
        register
    }

    fn settle(&mut self, unit: &Unit, owner: MongoClientId, register: &mut Register) {
        for id in &unit.members {
            self.give(*id, owner);
        }
        let Some(circle) = unit.circle else {
            return;
        };
        register.circles.insert(circle, owner);
        if let Some(client) = self.clients.get_mut(&owner)
            && client.home.is_none()
        {
            client.home = Some(circle);
            register.homes.insert(circle, owner);
            register.homeless.retain(|id| *id != owner);
        }
    }

    fn units(&self) -> Vec<Unit> {
        let mut by_circle: BTreeMap<CircleId, Unit> = BTreeMap::new();
        let mut units = Vec::new();
        for connection in self.members() {
            let is_settled = connection.is_judged && connection.mongo_client.is_some();
            if is_settled || !connection.is_pooled() {
                continue;
            }
            let circle = connection.circle;
            let circle = circle.map(|circle| self.household.sessions.root(circle));
            let fresh = || Unit {
                circle,
                members: Vec::new(),
                first: connection.opened_at,
                births: Vec::new(),
                upstreams: BTreeSet::new(),
                operations: 0,
                has_said_goodbye: false,
                lacks_monitors: connection.traits.lacks_monitors(),
                has_single_socket: connection.has_single_socket,
                held_by: None,
            };
            if let Some(circle) = circle {
                by_circle
                    .entry(circle)
                    .or_insert_with(fresh)
                    .add(connection);
            } else {
                let mut unit = fresh();
                unit.add(connection);
                units.push(unit);
            }
        }
        units.extend(by_circle.into_values());
        units
    }

    /// Whose it is; `None` when it is nobody's that is known.
    fn owner(&self, unit: &Unit, register: &Register) -> Option<MongoClientId> {
        if let Some(circle) = unit.circle
            && let Some(client) = register.homes.get(&circle)
        {
            return Some(*client);
        }
        if !unit.lacks_monitors
            && let Some(founder) = self.founder(unit, register)
        {
            return Some(founder);
        }
        let known = unit.circle.and_then(|circle| register.circles.get(&circle));
        let held_by = unit.held_by.or(known.copied());
        let held_by = held_by.and_then(|id| self.clients.get(&id));
        if let Some(holder) = held_by
            && holder.is_open()
            && !self.is_separate(unit, holder, register)
            && !(unit.lacks_monitors && self.is_of_other_burst(unit, holder, register))
        {
            return Some(holder.id);
        }
        if self.is_undecided(unit) {
            return None;
        }
        let candidates = self
            .open_clients()
            .filter(|client| client.said_goodbye_at.is_none_or(|at| at >= unit.first))
            .filter(|client| client.created_at <= unit.first + JITTER)
            .filter(|client| self.is_near(unit, client))
            .filter(|client| !self.is_separate(unit, client, register))
            .filter(|client| self.may_be_one(client, &unit.members));
        // Connections opened together belong together; otherwise a pool that is all in use grows.
        candidates
            .min_by_key(|client| {
                let gap = register.gap(unit, client).filter(|gap| *gap < SETTLING);
                let is_busy = unit.upstreams.iter().any(|upstream| {
                    let pool = client.pools.get(upstream);
                    pool.is_some_and(|pool| pool.busy.len() == pool.open.len())
                });
                let is_at_rest = !is_busy;
                (
                    gap.is_none(),
                    gap,
                    is_at_rest,
                    Reverse(client.created_at),
                    client.id,
                )
            })
            .map(|client| client.id)
    }

    /// The mongo client without sessions whose monitor was opened just before.
    fn founder(&self, unit: &Unit, register: &Register) -> Option<MongoClientId> {
        let born = |client: &MongoClient| {
            unit.upstreams
                .iter()
                .filter_map(|upstream| client.watches.get(upstream))
                .map(|watch| watch.since)
                .min()
        };
        // A monitor comes first. Only where there is none before may one have been accepted a moment too late.
        let has_earlier = self
            .open_clients()
            .filter(|client| self.may_be_one(client, &unit.members))
            .filter_map(born)
            .any(|born| born <= unit.first && unit.first.since(born) <= SETTLING);
        let late = if has_earlier { Duration::ZERO } else { JITTER };
        register
            .homeless
            .iter()
            .filter_map(|id| self.clients.get(id))
            .filter(|client| unit.circle.is_some() || !client.has_pooled())
            .filter_map(|client| Some((born(client)?, client)))
            .filter(|(born, _)| *born <= unit.first + late)
            .filter(|(born, _)| unit.first.since(*born) <= SETTLING)
            .filter(|(_, client)| self.may_be_one(client, &unit.members))
            .min_by_key(|(born, client)| (*born, client.id))
            .map(|(_, client)| client.id)
    }

    /// Its sessions are certainly not those of `client`.
    fn is_separate(&self, unit: &Unit, client: &MongoClient, register: &Register) -> bool {
        let Some(home) = client.home else {
            return false;
        };
        if unit.circle == Some(self.household.sessions.root(home)) {
            return false;
        }
        // `endSessions` lists all sessions of a client, which has no use for others afterwards.
        if unit.has_said_goodbye || unit.has_single_socket {
            return true;
        }
        let carried: u64 = client.pools.values().map(|pool| pool.operations).sum();
        let own = if unit.held_by == Some(client.id) {
            carried.saturating_sub(unit.operations)
        } else {
            carried
        };
        let gap = register.gap(unit, client);
        // Sessions went round within each, and not from one to the other.
        let home = self.household.sessions.root(home);
        let are_round = unit.members.len() > 1 && register.is_round(home);
        let enough = if are_round || gap.is_none_or(|gap| gap > BURST) {
            SEPARATE_OPERATIONS
        } else {
            SEPARATE_OPERATIONS_IN_BURST
        };
        let has_worked = unit.circle.is_some() && unit.operations >= enough;
        unit.lacks_monitors && has_worked && own >= enough
    }

    /// It was opened long after `holder` grew, and while another mongo client did.
    fn is_of_other_burst(&self, unit: &Unit, holder: &MongoClient, register: &Register) -> bool {
        let is_near = |client: &MongoClient| {
            let gap = register.gap(unit, client);
            gap.is_some_and(|gap| gap < BURST)
        };
        !is_near(holder) && self.open_clients().any(is_near)
    }

    /// It has to do with the same servers.
    fn is_near(&self, unit: &Unit, client: &MongoClient) -> bool {
        let known: BTreeSet<UpstreamId> = client
            .pools
            .keys()
            .chain(client.watches.keys())
            .copied()
            .collect();
        unit.upstreams
            .iter()
            .any(|upstream| known.iter().any(|other| self.are_kin(*other, *upstream)))
    }

    /// A monitor that has not shown itself yet may have been opened with it.
    fn is_undecided(&self, unit: &Unit) -> bool {
        !unit.lacks_monitors
            && self.at.since(unit.first) < SETTLING
            && self.members().any(|one| {
                one.found == Role::Unknown
                    && !one.traits.lacks_monitors()
                    && distance(one.opened_at, unit.first) < SETTLING
            })
    }

    fn place_round_trips(&mut self) {
        let mut homeless: Vec<(Timestamp, ConnectionId, UpstreamId)> = self
            .members()
            .filter(|one| one.found == Role::RoundTripMonitor && one.mongo_client.is_none())
            .map(|one| (one.opened_at, one.id, one.upstream))
            .collect();
        homeless.sort_unstable();
        for (opened_at, id, upstream) in homeless {
            let owner = self
                .household
                .clients
                .iter()
                .filter_map(|id| self.clients.get(id))
                .filter_map(|client| Some((client.watches.get(&upstream)?, client)))
                .filter(|(watch, _)| watch.round_trip.is_none())
                .filter(|(watch, _)| watch.since <= opened_at + SETTLING)
                .min_by_key(|(watch, client)| (watch.since, client.id))
                .map(|(_, client)| client.id);
            if let Some(owner) = owner {
                self.give(id, owner);
            }
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
                if self.at.since(closed_at) > RECENT {
                    forgotten.push(*id);
                }
                continue;
            }
            let Some((ended_at, was_own_will)) = client.last_end else {
                continue;
            };
            if client.pooled_open() > 0 {
                continue;
            }
            let is_empty = client.monitors.is_empty();
            is_open_question |= is_empty || client.said_goodbye_at.is_some();
            let tried_at = self.tried_at.unwrap_or_default().max(ended_at);
            // A check that succeeds after all was lost is its own, although the connection is not placed yet.
            let is_coming_back = |pool: &Pool| pool.is_cleared() || pool.is_ready_again(ended_at);
            let is_gone = if client.said_goodbye_at.is_some() {
                true
            } else if is_empty && was_own_will && !client.pools.values().any(is_coming_back) {
                self.at.since(ended_at) >= SETTLING && self.at.since(tried_at) >= SETTLING
            } else {
                is_empty && self.at.since(tried_at) >= EXPECTED_BACK
            };
            if is_gone {
                client.closed_at = Some(ended_at);
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

    fn members(&self) -> impl Iterator<Item = &Connection> {
        self.household
            .members
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
        !others.into_iter().any(|(at, request_id)| {
            own.iter().any(|(own_at, own_id)| {
                (at + JITTER < *own_at && request_id >= *own_id)
                    || (*own_at + JITTER < at && request_id <= *own_id)
            })
        })
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

impl Unit {
    fn add(&mut self, connection: &Connection) {
        if connection.opened_at < self.first || self.members.is_empty() {
            self.first = connection.opened_at;
            self.held_by = connection.mongo_client;
        }
        self.members.push(connection.id);
        self.births.push(connection.opened_at);
        self.upstreams.insert(connection.upstream);
        self.operations = self.operations.saturating_add(connection.last.operations);
        self.has_said_goodbye |= connection.said_goodbye_at.is_some();
    }
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}
