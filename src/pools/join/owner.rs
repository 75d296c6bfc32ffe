//! Which mongo client a unit of pooled connections belongs to.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::units::{Register, Unit};
use super::{COMPARED_MAX, JITTER, Joiner, SETTLING};
use crate::clients::processes::{ProcessId, are_apart};
use crate::pools::sessions::CircleId;
use crate::pools::{Connection, MongoClient, MongoClientId};
use crate::timeline::UpstreamId;

/// Operations after which two circles of one session pool would have met.
const SEPARATE_OPERATIONS: u64 = 30;

/// The same for circles that began in one burst: its workers may keep to a session each for long.
const SEPARATE_OPERATIONS_IN_BURST: u64 = 300;

/// A pool that grows opens its connections at shorter distances.
const BURST: Duration = Duration::from_millis(300);

/// The legacy pool opens one after the other, which takes a busy machine longer. It is told apart by what lies idle.
const LEGACY_BURST: Duration = Duration::from_millis(800);

/// What connections had done at a moment is told within this.
const KNOWN_AFTER: Duration = Duration::from_millis(1200);

/// How much sooner than its monitor a pool that does not wait for one may be opened, by a process that is starting.
const HEAD_START: Duration = Duration::from_secs(1);

impl Joiner<'_> {
    /// Whose it is; `None` when it is nobody's that is known.
    pub(super) fn owner(&self, unit: &Unit, register: &Register) -> Option<MongoClientId> {
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
            && let Some(other) = self.grew_instead(unit, holder)
        {
            return Some(other);
        }
        if let Some(holder) = held_by
            && holder.is_open()
            && !self.is_separate(unit, holder, register)
            && !(unit.lacks_monitors && self.is_of_other_burst(unit, holder, register))
            && !self.was_held_too_early(unit, holder)
            && !self.has_outlived(unit, holder)
        {
            return Some(holder.id);
        }
        if self.is_undecided(unit, register) {
            return None;
        }
        let candidates = || {
            self.open_clients()
                .filter(|client| client.said_goodbye_at.is_none_or(|at| at >= unit.first))
                .filter(|client| client.created_at <= unit.first + JITTER)
                .filter(|client| self.is_near(unit, client))
                .filter(|client| !self.is_separate(unit, client, register))
                .filter(|client| !self.has_outlived(unit, client))
        };
        let may_be_one = |client: &&MongoClient| self.may_be_one(client, &unit.members);
        let likeliest = self.likeliest(candidates().filter(may_be_one), unit, register);
        let likeliest = likeliest.or_else(|| self.left_behind(unit, register));
        let likeliest = likeliest.or_else(|| {
            // A mongo client begins with a monitor. Without a new one this is one of those that are there; which of two
            // processes has which monitor may have been guessed wrong.
            let is_there = |client: &&MongoClient| {
                !unit.lacks_monitors && !client.watches.is_empty() && client.pooled_open() > 0
            };
            self.likeliest(candidates().filter(is_there), unit, register)
        });
        let likeliest = likeliest.or_else(|| self.outrun(unit));
        likeliest.or_else(|| self.first_of_process(unit))
    }

    fn members(&self, unit: &Unit) -> impl Iterator<Item = &Connection> {
        let members = unit.members.iter();
        members.filter_map(|id| self.connections.get(id).map(Box::as_ref))
    }

    /// The first mongo client of the same process, although its first connection was opened a little later: what was
    /// never ready does not prove another. A server at its limit turns many away before it lets one in.
    fn first_of_process(&self, unit: &Unit) -> Option<MongoClientId> {
        let mut members = self.members(unit);
        if members.any(|member| member.is_open() || member.ready_at.is_some()) {
            return None;
        }
        let process = self.only_process(unit)?;
        self.open_clients()
            .filter(|client| client.process == Some(process))
            .filter(|client| self.may_be_one(client, &unit.members))
            .min_by_key(|client| (client.created_at, client.id))
            .map(|client| client.id)
    }

    /// `holder` is of another process, and took it before a mongo client of its own process was there.
    fn was_held_too_early(&self, unit: &Unit, holder: &MongoClient) -> bool {
        let process = self.only_process(unit);
        are_apart(holder.process, process)
            && self.open_clients().any(|client| client.process == process)
    }

    /// The process that all its connections are of, where request ids tell.
    fn only_process(&self, unit: &Unit) -> Option<ProcessId> {
        let members = self.members(unit);
        let processes: BTreeSet<ProcessId> = members.filter_map(|one| one.process).collect();
        processes.first().filter(|_| processes.len() == 1).copied()
    }

    /// The mongo client whose first monitor was opened a little later: a driver may fill its pool without waiting for one
    /// (Java 3.6), and then nothing but the start of its threads says which comes first.
    fn outrun(&self, unit: &Unit) -> Option<MongoClientId> {
        if unit.lacks_monitors || unit.has_said_goodbye {
            return None;
        }
        let clients = self.open_clients();
        clients
            .filter(|client| unit.circle.is_none() || client.home.is_none())
            .filter_map(|client| Some((unit.born(client)?, client)))
            .filter(|(born, _)| unit.first < *born && born.since(unit.first) < HEAD_START)
            .filter(|(_, client)| self.may_be_one(client, &unit.members))
            .filter(|(_, client)| !self.is_foreign_to(unit, client))
            .min_by_key(|(born, client)| (*born, client.id))
            .map(|(_, client)| client.id)
    }

    /// The mongo client that said goodbye while it was opened: a pool that is closed gives up what it still dials.
    fn left_behind(&self, unit: &Unit, register: &Register) -> Option<MongoClientId> {
        let mut members = self.members(unit);
        if unit.circle.is_some() || members.any(Connection::is_open) {
            return None;
        }
        let clients = self.household.clients.iter();
        let gone = clients
            .filter_map(|id| self.clients.get(id))
            .filter(|client| !client.is_open() && client.created_at <= unit.first + JITTER)
            .filter(|client| client.said_goodbye_at.is_some_and(|at| at >= unit.first))
            .filter(|client| self.is_near(unit, client))
            .filter(|client| self.may_be_one(client, &unit.members));
        self.likeliest(gone, unit, register)
    }

    /// Connections opened together belong together; otherwise a pool that is all in use grows.
    fn likeliest<'b>(
        &self,
        candidates: impl Iterator<Item = &'b MongoClient>,
        unit: &Unit,
        register: &Register,
    ) -> Option<MongoClientId> {
        candidates
            .min_by_key(|client| {
                let gap = register.gap(unit, client).filter(|gap| *gap < SETTLING);
                let is_busy = unit.upstreams.iter().any(|upstream| {
                    let pool = client.pools.get(upstream);
                    pool.is_some_and(|pool| pool.busy.len() == pool.open.len())
                });
                let is_at_rest = !is_busy;
                (
                    self.is_foreign_to(unit, client),
                    unit.precedes(client),
                    gap.is_none(),
                    gap,
                    is_at_rest,
                    Reverse(client.created_at),
                    client.id,
                )
            })
            .map(|client| client.id)
    }

    fn is_foreign_to(&self, unit: &Unit, client: &MongoClient) -> bool {
        self.members(unit).any(|member| client.is_foreign(member))
    }

    /// A process that none of the mongo clients is of carried operations with it, so it has one; and its monitors do not
    /// live for long enough to show themselves.
    pub(super) fn is_of_new_process(&self, unit: &Unit) -> bool {
        if unit.circle.is_none() || self.household.unwatched.is_empty() {
            return false;
        }
        let clients = self.household.clients.iter();
        let mut clients = clients.filter_map(|id| self.clients.get(id));
        self.only_process(unit).is_some_and(|process| {
            self.household.unwatched.contains_key(&process)
                && self.household.processes.has_begun(process)
                && clients.all(|client| are_apart(client.process, Some(process)))
        })
    }

    /// The mongo client without sessions whose monitor was opened just before.
    fn founder(&self, unit: &Unit, register: &Register) -> Option<MongoClientId> {
        // A monitor comes first. Only where there is none before may one have been accepted a moment too late.
        let has_earlier = self
            .open_clients()
            .filter(|client| self.may_be_one(client, &unit.members))
            .filter_map(|client| unit.born(client))
            .any(|born| born <= unit.first && unit.first.since(born) <= SETTLING);
        let late = if has_earlier { Duration::ZERO } else { JITTER };
        register
            .homeless
            .iter()
            .filter_map(|id| self.clients.get(id))
            .filter(|client| unit.circle.is_some() || !client.has_pooled())
            .filter_map(|client| Some((unit.born(client)?, client)))
            .filter(|(born, _)| *born <= unit.first + late)
            .filter(|(born, _)| unit.first.since(*born) <= SETTLING)
            .filter(|(_, client)| self.may_be_one(client, &unit.members))
            .filter(|(_, client)| !self.is_foreign_to(unit, client))
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
        // What follows takes time, and concerns few.
        if !unit.lacks_monitors || unit.circle.is_none() || unit.operations < SEPARATE_OPERATIONS {
            return false;
        }
        let carried: u64 = client.pools.values().map(|pool| pool.operations).sum();
        let held = self
            .members(unit)
            .filter(|member| member.mongo_client == Some(client.id))
            .map(|member| member.last.operations);
        let own = carried.saturating_sub(held.sum());
        let gap = register.gap(unit, client);
        let home = self.household.sessions.root(home);
        let has_grown = self.grew_among(unit, client, home);
        // Sessions went round within each, and not from one to the other.
        let are_round = unit.members.len() > 1 && register.is_round(home) && !has_grown;
        let burst = if unit.is_of_legacy_pool {
            LEGACY_BURST
        } else {
            BURST
        };
        let is_in_burst = has_grown || gap.is_some_and(|gap| gap <= burst);
        let enough = if is_in_burst && !are_round && !self.lay_idle(unit, client, home) {
            SEPARATE_OPERATIONS_IN_BURST
        } else {
            SEPARATE_OPERATIONS
        };
        unit.operations >= enough && own >= enough
    }

    /// Connections that are certainly of `home`'s mongo client were opened before and after the first of these: of two
    /// pools that grow at once that is rarer than of one whose workers keep to their sessions.
    fn grew_among(&self, unit: &Unit, client: &MongoClient, home: CircleId) -> bool {
        let pooled = client.pools.values().flat_map(|pool| &pool.open);
        let others = pooled.take(COMPARED_MAX).filter_map(|id| {
            let other = self.connections.get(id)?;
            let circle = self.household.sessions.root(other.circle?);
            (circle == home).then_some(other.opened_at)
        });
        let (mut before, mut after) = (false, false);
        for opened_at in others {
            before |= opened_at < unit.first;
            after |= unit.first < opened_at && opened_at < unit.first + BURST;
        }
        before && after
    }

    /// A connection that is certainly of `home`'s mongo client has done nothing since the first of these was opened. The
    /// legacy pool grows only when all it has are at work, and uses them in turn.
    fn lay_idle(&self, unit: &Unit, client: &MongoClient, home: CircleId) -> bool {
        if !unit.is_of_legacy_pool || self.at.since(unit.first) < KNOWN_AFTER {
            return false;
        }
        let mut pooled = client.pools.values().flat_map(|pool| &pool.open);
        pooled.any(|id| {
            self.connections.get(id).is_some_and(|one| {
                let circle = one
                    .circle
                    .map(|circle| self.household.sessions.root(circle));
                circle == Some(home) && one.last.in_flight == 0 && one.worked_at < unit.first
            })
        })
    }

    /// The mongo client of the same process that began when the first of these was opened, while `holder` lay idle.
    fn grew_instead(&self, unit: &Unit, holder: &MongoClient) -> Option<MongoClientId> {
        let home = self.household.sessions.root(holder.home?);
        if unit.circle == Some(home) || !self.lay_idle(unit, holder, home) {
            return None;
        }
        self.open_clients()
            .filter(|client| client.id != holder.id && self.is_near(unit, client))
            .filter(|client| self.may_be_one(client, &unit.members))
            .map(|client| (client.created_at.distance(unit.first), client.id))
            .filter(|(distance, _)| *distance < LEGACY_BURST)
            .min()
            .map(|(_, id)| id)
    }

    /// Some of these are open, although `client` was closed long before. Monitors tell that better.
    fn has_outlived(&self, unit: &Unit, client: &MongoClient) -> bool {
        let goodbye = client.said_goodbye_at;
        unit.lacks_monitors
            && goodbye.is_some_and(|at| self.at.since(at) >= SETTLING)
            && self.members(unit).any(Connection::is_open)
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

    /// A monitor that has not shown itself yet may have been opened with it. What said goodbye is over: that goes with it.
    pub(super) fn is_undecided(&self, unit: &Unit, register: &Register) -> bool {
        !unit.lacks_monitors
            && !unit.has_said_goodbye
            && self.at.since(unit.first) < SETTLING
            && register.has_unshown_near(unit.first)
    }
}
