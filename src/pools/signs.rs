//! Signs that pools were cleared, and that they work again.

use std::time::Duration;

use super::household::Unclaimed;
use super::join::SETTLING;
use super::{
    ClearSign, Connection, InstanceId, MongoClient, MongoClientId, Pools, ReadySign, clear,
};
use crate::clients::processes::are_apart;
use crate::connection::{AuthenticationResult, ErrorKind, Initiator, Phase, Role};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Entry, ErrorReply, Fact, UpstreamId};

/// Servers before 4.2 close their connections when they step down, and drivers clear their pools.
const STEP_DOWN_CLEARS_UP_TO: i32 = 7;

/// A reply and what it says become known at about the same moment.
const JITTER: Duration = Duration::from_millis(50);

/// A client that waited so long for its first answer gave up.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(500);

/// Connections opened before one that broke that are looked at.
const LOOKED_AT_MAX: usize = 256;

impl Pools {
    /// What a fact says of the pools of its instance.
    pub(super) fn read_signs(&mut self, entry: &Entry, instance: InstanceId) {
        let (id, at) = (entry.connection, entry.at);
        match &entry.fact {
            Fact::Failed(error) => {
                if let Some(sign) = self.sign_of(id, error) {
                    self.sign(id, instance, at, sign);
                }
            }
            Fact::Authenticated(authentication) => {
                let is_sign = authentication.result == AuthenticationResult::Failed;
                let connection = self.connections.get(&id);
                if is_sign && connection.is_some_and(|one| one.clears_on_failed_authentication) {
                    self.sign(id, instance, at, ClearSign::AuthenticationFailed);
                }
            }
            // It ended before its hello was read, and whose it was is known only now.
            Fact::Ended(_) | Fact::Introduced { .. } => self.ended(id, instance),
            Fact::HelloAnswered(_) => self.succeeded(id, instance, at),
            Fact::Sampled(sample) => {
                let at = sample.from_server_at;
                self.heard(id, at);
            }
            Fact::Opened(_)
            | Fact::Dialled(_)
            | Fact::DialFailed(_)
            | Fact::Described(_)
            | Fact::Ready(_)
            | Fact::RoleFound(_)
            | Fact::Heartbeat(_)
            | Fact::SessionUsed(_)
            | Fact::SessionsEnded(_)
            | Fact::TransactionStarted
            | Fact::TransactionEnded
            | Fact::TurnedOpaque(_) => {}
        }
    }

    /// Source: Server Discovery and Monitoring specification § Error handling pseudocode.
    fn sign_of(&self, id: ConnectionId, error: &ErrorReply) -> Option<ClearSign> {
        let connection = self.connections.get(&id)?;
        if error.kind == ErrorKind::Write || connection.ignores_state_changes {
            return None;
        }
        let server = self.upstream(connection.upstream)?.server.as_deref();
        let version = server.and_then(|server| server.max_wire_version);
        let is_old = version.is_some_and(|version| version <= STEP_DOWN_CLEARS_UP_TO);
        let clears_anyway =
            error.kind == ErrorKind::WriteConcern && connection.clears_on_failed_write_concern;
        match error.code {
            91 | 11600 => Some(ClearSign::ShuttingDown),
            189 | 10058 | 10107 | 11602 | 13435 | 13436 if is_old || clears_anyway => {
                Some(ClearSign::NotPrimary)
            }
            _ => None,
        }
    }

    fn ended(&mut self, id: ConnectionId, instance: InstanceId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let Some(end) = connection.ended else {
            return;
        };
        let at = end.began_at();
        let is_by_client = end.ending.initiator == Initiator::Client;
        // One that showed itself is one whoever looks, and may have ended before anyone did.
        let is_monitor = connection.role == Role::Monitor
            || (connection.found == Role::Monitor && connection.mongo_client.is_some());
        if connection.hello_answered_at.is_none() {
            let given_up_at = connection.opened_at + GIVEN_UP_AFTER;
            let is_broken = !is_by_client || at >= given_up_at;
            // What a client says while its dial hangs is stuck, its hello along with its farewell. Journals of a time when
            // nobody looked for that do not tell when it was said.
            let is_stuck = end.left_at.is_none()
                && connection
                    .dialled_at
                    .is_none_or(|dialled_at| at.since(dialled_at) < GIVEN_UP_AFTER);
            let at = if is_stuck { at.min(given_up_at) } else { at };
            let clears = connection.clears_on_failed_handshake;
            let upstream = connection.upstream;
            if !is_broken {
                return;
            }
            let owner = self.owner(id, instance);
            // Without monitor this was the check of the server.
            let is_check = owner.is_none_or(|owner| !owner.is_watching(upstream))
                && !self.has_silent_monitor(connection, instance);
            if clears || is_check {
                self.sign(id, instance, at, ClearSign::HandshakeBroke);
            }
        } else if is_monitor {
            let is_given_up = is_by_client && connection.is_overdue();
            if !is_by_client || is_given_up {
                self.sign(id, instance, at, ClearSign::MonitorLost);
            }
            if is_given_up {
                self.gave_up(id, at);
            }
        } else if !is_by_client && matches!(end.ending.phase, Phase::InExchange | Phase::MidMessage)
        {
            self.sign(id, instance, at, ClearSign::ConnectionBroke);
        }
    }

    /// Its client was answered a moment before on what may have been its monitor, and was there when this one was opened:
    /// a monitor that is given up, because the pool it let be filled is turned away, never shows itself.
    fn has_silent_monitor(&self, connection: &Connection, instance: InstanceId) -> bool {
        let Some(household) = self.households.get(&instance) else {
            return false;
        };
        let before = household.unsettled.range(..connection.id).rev();
        let before = before.filter_map(|id| self.connections.get(id));
        before
            .take(LOOKED_AT_MAX)
            .take_while(|one| connection.opened_at.since(one.opened_at) < SETTLING)
            .any(|one| {
                let was_there = one.ended.is_none_or(|end| connection.opened_at <= end.at);
                one.upstream == connection.upstream
                    && one.role == Role::Unknown
                    && !one.was_found_pooled
                    && one.hello_answered_at.is_some()
                    && was_there
                    && !are_apart(one.process, connection.process)
            })
    }

    fn gave_up(&mut self, id: ConnectionId, at: Timestamp) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let client = connection.mongo_client;
        let client = client.and_then(|client| self.mongo_clients.get_mut(&client));
        let pool = client.and_then(|client| client.pools.get_mut(&connection.upstream));
        if let Some(last) = pool.and_then(|pool| pool.clears.last_mut()) {
            // What its client closes in this moment is closed because of it.
            last.given_up_at = Some(at);
        }
    }

    fn sign(&mut self, id: ConnectionId, instance: InstanceId, at: Timestamp, sign: ClearSign) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if connection.never_clears {
            return;
        }
        let upstream = connection.upstream;
        // What becomes of a connection that is outdated clears nothing more, a failed check does.
        let is_monitor = connection.found.is_monitor() || connection.role == Role::Monitor;
        let opened_at = (!is_monitor).then_some(connection.opened_at);
        let owner = self.owner(id, instance).map(|owner| owner.id);
        if let Some(owner) = owner.and_then(|owner| self.mongo_clients.get_mut(&owner)) {
            owner.sign(upstream, at, sign, opened_at);
        } else if let Some(household) = self.households.get_mut(&instance) {
            household.leave_unclaimed(Unclaimed {
                upstream,
                at,
                sign,
                opened_at: connection.opened_at,
                process: connection.process,
            });
        }
    }

    /// The mongo client of a connection; of one that is nobody's yet, the likeliest. None of another process is, where this
    /// one was seen to begin: its own will be known soon.
    fn owner(&self, id: ConnectionId, instance: InstanceId) -> Option<&MongoClient> {
        let connection = self.connections.get(&id)?;
        if let Some(client) = connection.mongo_client {
            return self.mongo_clients.get(&client);
        }
        let household = self.households.get(&instance)?;
        let has_begun = connection
            .process
            .is_some_and(|process| household.processes.has_begun(process));
        self.clients_at(instance, connection.upstream)
            .filter_map(|id| self.mongo_clients.get(&id))
            .filter(|client| client.created_at <= connection.opened_at)
            .filter(|client| !(has_begun && client.is_foreign(connection)))
            .max_by_key(|client| {
                let is_foreign = client.is_foreign(connection);
                (
                    !is_foreign,
                    !client.is_watching(connection.upstream),
                    client.id,
                )
            })
    }

    /// Open mongo clients of an instance that have to do with an upstream.
    fn clients_at(
        &self,
        instance: InstanceId,
        upstream: UpstreamId,
    ) -> impl Iterator<Item = MongoClientId> {
        let household = self.households.get(&instance);
        let clients = household
            .into_iter()
            .flat_map(|household| &household.clients);
        clients.copied().filter(move |id| {
            self.mongo_clients
                .get(id)
                .is_some_and(|client| client.is_open() && client.pools.contains_key(&upstream))
        })
    }

    /// A plain hello was answered.
    fn succeeded(&mut self, id: ConnectionId, instance: InstanceId, at: Timestamp) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (opened_at, upstream) = (connection.opened_at, connection.upstream);
        let process = connection.process;
        let clients: Vec<_> = self.clients_at(instance, upstream).collect();
        for client in clients {
            if let Some(client) = self.mongo_clients.get_mut(&client) {
                let is_foreign = are_apart(client.process, process);
                let checks = client
                    .watches
                    .get(&upstream)
                    .and_then(|watch| watch.monitor);
                let (since, sign) = if checks == Some(id) {
                    (at, ReadySign::Check)
                } else {
                    (opened_at, ReadySign::Connection)
                };
                if let Some(pool) = client.pools.get_mut(&upstream)
                    && (checks == Some(id) || !is_foreign)
                {
                    clear::succeeded(&mut pool.clears, since, at, sign);
                }
            }
        }
    }

    /// Bytes came from the server; on a monitor they are the answer to a check.
    fn heard(&mut self, id: ConnectionId, at: Timestamp) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if !connection.role.is_monitor() {
            return;
        }
        let failed_at = connection
            .last_error
            .as_ref()
            .map(|(failed_at, _)| *failed_at);
        if failed_at.is_some_and(|failed_at| at <= failed_at + JITTER) {
            return;
        }
        let client = connection.mongo_client;
        if let Some(client) = client.and_then(|client| self.mongo_clients.get_mut(&client))
            && let Some(watch) = client.watches.get(&connection.upstream)
            && watch.monitor == Some(id)
            && let Some(pool) = client.pools.get_mut(&connection.upstream)
        {
            clear::succeeded(&mut pool.clears, at, at, ReadySign::Check);
        }
    }
}
