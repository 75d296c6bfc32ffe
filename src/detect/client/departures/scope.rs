//! The closed connections of one mongo client, or of a whole instance, and what they say.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::super::CloseGroup;
use super::super::lives::are_one_process;
use super::super::{Signal, SignalKind, Subject};
use super::burst::Burst;
use super::{ROLLOUT, is_busy, is_monitor, is_own, was_troubled};
use crate::connection::{Manner, Phase};
use crate::pools::{Connection, End, InstanceId, MongoClientId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// `endSessions` comes just before the closes.
const GOODBYE_BEFORE: Duration = Duration::from_secs(2);

/// A reply that comes so long after a close began was not merely on its way.
const OUTLASTS: Duration = Duration::from_millis(20);

/// No byte from the server for so long before a close: it may have been given up.
const SILENCE: Duration = Duration::from_secs(1);

/// The connections of one mongo client, or of a whole instance.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) mongo_client: Option<MongoClientId>,
    pub(super) closed: Vec<&'a Connection>,
    /// Still open.
    pub(super) left: Vec<&'a Connection>,
    /// Open connections of the instance's other mongo clients.
    pub(super) others: Vec<&'a Connection>,
}

impl Scope<'_> {
    /// Monitors were closed, or it said goodbye, and pooled connections are left.
    pub(super) fn may_be_closing(&self) -> bool {
        let is_begun =
            |closed: &&Connection| is_monitor(closed) || closed.said_goodbye_at.is_some();
        self.closed.iter().any(is_begun)
            && !self.left.is_empty()
            && !self.left.iter().any(|left| is_monitor(left))
    }

    /// Only connections with requests under way are left.
    pub(super) fn is_closing(&self) -> bool {
        self.may_be_closing() && self.left.iter().all(|left| is_busy(left))
    }

    /// Connections on which a request was under way when the close began, and which were closed after its reply.
    pub(super) fn outlasted(&self, burst: &Burst) -> u64 {
        self.ends()
            .filter(|(connection, end)| {
                !is_monitor(connection) && has_outlasted(connection, *end, burst)
            })
            .count() as u64
    }

    pub(super) fn has_said_goodbye(&self, burst: &Burst) -> bool {
        let connections = self.closed.iter().chain(&self.left);
        connections
            .filter_map(|connection| connection.said_goodbye_at)
            .any(|said| said + GOODBYE_BEFORE >= burst.began_at)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.left.is_empty() || self.is_closing()
    }

    pub(super) fn upstream(&self) -> Option<UpstreamId> {
        self.closed.first().map(|closed| closed.upstream)
    }

    pub(super) fn group(&self, burst: &Burst) -> CloseGroup {
        let mut group = CloseGroup {
            closed: self.closed.len() as u64,
            of: (self.closed.len() + self.left.len()) as u64,
            monitors_left: self.left.iter().filter(|left| is_monitor(left)).count() as u64,
            span: burst.last_at.since(burst.began_at),
            has_said_goodbye: self.has_said_goodbye(burst),
            ..CloseGroup::default()
        };
        for (connection, end) in self.ends() {
            group.resets += u64::from(end.ending.manner == Manner::Reset);
            group.in_handshake += u64::from(matches!(
                end.ending.phase,
                Phase::Handshaking | Phase::Authenticating
            ));
            if is_monitor(connection) {
                group.monitors += 1;
                continue;
            }
            if end.was_in_flight() {
                group.add_in_flight(connection);
            } else if connection.last.operations > 0 && !has_outlasted(connection, end, burst) {
                group.idle += 1;
            }
            let age = connection.idle_age(end.at);
            let (shortest, longest) = group.idle_ages.unwrap_or((age, age));
            group.idle_ages = Some((shortest.min(age), longest.max(age)));
        }
        group
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = (&Connection, End)> {
        self.closed
            .iter()
            .filter_map(|closed| Some((*closed, closed.ended?)))
    }

    /// Pooled connections that carried something in the second before.
    pub(super) fn load(&self, burst: &Burst) -> u64 {
        self.closed
            .iter()
            .filter(|closed| {
                !is_monitor(closed)
                    && closed.last.operations > 0
                    && burst.began_at.since(closed.last.from_client_at) < Duration::from_secs(1)
            })
            .count() as u64
    }

    pub(super) fn age(&self, burst: &Burst) -> Duration {
        self.closed
            .iter()
            .map(|closed| burst.began_at.since(closed.opened_at))
            .max()
            .unwrap_or_default()
    }

    pub(super) fn transactions(&self) -> u64 {
        self.closed
            .iter()
            .map(|closed| u64::from(closed.transactions_open))
            .sum()
    }

    /// The other end gave up waiting: no byte came for a while on any connection with a request under way, and
    /// what was dialled since has no answer either, or was dialled at once.
    pub(super) fn was_given_up(&self, burst: &Burst, instance: InstanceId, pools: &Pools) -> bool {
        let heard = self
            .closed
            .iter()
            .chain(&self.left)
            .chain(&self.others)
            .filter(|connection| !is_monitor(connection) && connection.hello_answered_at.is_some())
            .map(|connection| connection.last.from_server_at)
            .max();
        let is_silent = heard.is_some_and(|heard| burst.began_at.since(heard) >= SILENCE);
        is_silent
            && pools.connections().any(|connection| {
                is_own(connection, instance)
                    && connection.is_open()
                    && connection.opened_at + SILENCE >= burst.began_at
                    && (connection.hello_answered_at.is_none()
                        || connection.opened_at >= burst.began_at)
            })
    }

    pub(super) fn signal(
        &self,
        at: Timestamp,
        instance: InstanceId,
        burst: &Burst,
        pools: &Pools,
    ) -> Option<Signal> {
        let group = self.group(burst);
        let left_busy = if self.is_closing() {
            self.left.len() as u64
        } else {
            0
        };
        let still_busy = left_busy + self.outlasted(burst);
        let transactions = self.transactions();
        let is_orderly =
            group.has_said_goodbye && group.in_flight == 0 && still_busy == 0 && transactions == 0;
        let is_cut = group.in_flight > 0 && group.closed >= 2;
        let has_worked = self.closed.iter().any(|closed| closed.last.operations > 0);
        if is_orderly || !(self.is_whole() && has_worked || is_cut) {
            return None;
        }
        let is_after_trouble = self.is_reset(burst)
            || was_troubled(pools, instance, burst.began_at)
            || self.was_given_up(burst, instance, pools);
        Some(Signal {
            at: burst.began_at,
            seen_at: at,
            subject: Subject {
                upstream: self.upstream()?,
                instance: Some(instance),
                mongo_client: self.mongo_client.filter(|_| !self.others.is_empty()),
            },
            among: Vec::new(),
            kind: SignalKind::ClientClosed {
                is_whole: self.is_whole(),
                still_busy,
                transactions,
                load: self.load(burst),
                age: self.age(burst),
                is_after_trouble,
                is_replaced: false,
                is_alive: self.is_alive(&group, pools),
                is_legacy: self.closed.iter().any(|closed| closed.has_legacy_pool),
                had_sessions: self.closed.iter().any(|closed| closed.has_sessions()),
                group,
            },
        })
    }

    /// Nearly all of it was reset.
    pub(super) fn is_reset(&self, burst: &Burst) -> bool {
        let group = self.group(burst);
        !group.has_said_goodbye && group.closed >= 2 && group.resets * 4 >= group.closed * 3
    }

    /// Nothing but resets speaks of trouble before it.
    pub(super) fn is_merely_reset(
        &self,
        burst: &Burst,
        instance: InstanceId,
        pools: &Pools,
    ) -> bool {
        self.is_reset(burst)
            && self.is_whole()
            && !was_troubled(pools, instance, burst.began_at)
            && !self.was_given_up(burst, instance, pools)
    }

    /// Whether the process lives, as far as its other connections tell.
    fn is_alive(&self, group: &CloseGroup, pools: &Pools) -> Option<bool> {
        let is_cut = |(closed, end): (&Connection, End)| closed.never_cuts && end.was_in_flight();
        if group.monitors > 0 && self.ends().any(is_cut) {
            return Some(false);
        }
        if self.is_closing() {
            return None;
        }
        if self.mongo_client.is_some() && !self.left.is_empty() {
            // What is left of the client itself is its process's.
            return Some(true);
        }
        let others = if self.others.is_empty() {
            &self.left
        } else {
            &self.others
        };
        let clients: BTreeSet<MongoClientId> = others
            .iter()
            .filter_map(|other| other.mongo_client)
            .collect();
        let one = are_one_process(
            &self.closed,
            others,
            operations(self.mongo_client.into_iter(), pools),
            operations(clients.into_iter(), pools),
        );
        one.filter(|is_one| *is_one)
    }

    /// A client that went entirely.
    pub(super) fn gone(
        &self,
        at: Timestamp,
        instance: InstanceId,
        burst: &Burst,
        pools: &Pools,
    ) -> Option<Signal> {
        let group = self.group(burst);
        let is_orderly =
            group.has_said_goodbye && group.in_flight == 0 && self.outlasted(burst) == 0;
        if !self.is_whole() || !is_orderly || self.is_closing() {
            return None;
        }
        let app = &pools.instance(instance)?.app;
        let others = pools
            .instances()
            .filter(|other| other.id != instance && other.app == *app)
            .filter(|other| at.since(other.last_introduced) < ROLLOUT)
            .count() as u64;
        Some(Signal {
            at: burst.began_at,
            seen_at: at,
            subject: Subject {
                upstream: self.upstream()?,
                instance: Some(instance),
                mongo_client: self.mongo_client,
            },
            among: Vec::new(),
            kind: SignalKind::InstanceGone {
                has_said_goodbye: true,
                in_flight: 0,
                others,
                age: self.age(burst),
            },
        })
    }
}

/// Operations of mongo clients from their beginning.
fn operations(clients: impl Iterator<Item = MongoClientId>, pools: &Pools) -> u64 {
    clients
        .filter_map(|id| pools.mongo_client(id))
        .flat_map(|client| client.pools.values())
        .map(|pool| pool.operations)
        .sum()
}

/// A request was under way on it when the close began, and was answered. A goodbye belongs to the close.
fn has_outlasted(connection: &Connection, end: End, burst: &Burst) -> bool {
    !end.was_in_flight()
        && connection.said_goodbye_at.is_none()
        && connection.last.operations > 0
        && connection.last.from_client_at < burst.began_at
        && connection.last.from_server_at >= burst.began_at + OUTLASTS
}
