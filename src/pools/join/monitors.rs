//! Whose monitors are whose.

use super::{JITTER, Joiner, SETTLING};
use crate::connection::Role;
use crate::pools::{Connection, MongoClient, MongoClientId};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

impl Joiner<'_> {
    pub(super) fn place_monitors(&mut self) {
        self.correct_round_trips();
        self.correct_monitors();
        self.correct_successors();
        // Those that have shown themselves go first: what only is unlike a pooled connection may belong to one of them.
        let mut homeless: Vec<(bool, Timestamp, ConnectionId)> = self
            .unsettled()
            .filter(|one| one.found == Role::Monitor && one.mongo_client.is_none())
            // One that ended without having shown itself does not prove a mongo client of its own.
            .filter(|one| one.is_open() || one.role != Role::Unknown)
            .map(|one| (one.role == Role::Unknown, one.opened_at, one.id))
            .collect();
        homeless.sort_unstable();
        for (_, _, id) in homeless {
            let Some(monitor) = self.connections.get(&id) else {
                continue;
            };
            if self.may_measure_for_lost(monitor) {
                continue;
            }
            let opened_at = monitor.opened_at;
            let owner = self
                .lacking_monitor(monitor)
                .unwrap_or_else(|| self.start(opened_at));
            self.give(id, owner);
        }
    }

    /// It has not shown what it is, and may measure round trips for a mongo client that lost its monitor since.
    fn may_measure_for_lost(&self, monitor: &Connection) -> bool {
        let mut clients = self.open_clients();
        monitor.role == Role::Unknown
            && clients.any(|client| {
                let watch = client.watches.get(&monitor.upstream);
                !client.is_foreign(monitor)
                    && watch.is_some_and(|watch| {
                        watch.monitor.is_none()
                            && watch.since <= monitor.opened_at + JITTER
                            && watch.lost_at >= Some(monitor.opened_at)
                    })
            })
    }

    /// What was taken for a polling monitor is a round-trip monitor once a streaming one is beside it.
    fn correct_round_trips(&mut self) {
        let corrected: Vec<ConnectionId> = self
            .unsettled()
            .filter(|one| one.is_open() && one.found == Role::RoundTripMonitor)
            .filter(|one| one.mongo_client.is_some())
            .map(|one| one.id)
            .collect();
        for id in corrected {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            let client = connection.mongo_client;
            let client = client.and_then(|client| self.clients.get_mut(&client));
            if let Some(client) = client
                && client.correct(connection.upstream, id)
                && client.watched().is_empty()
                && !client.has_pooled()
            {
                // It was all that spoke for this mongo client.
                let client = client.id;
                connection.mongo_client = None;
                self.clients.remove(&client);
                self.household.clients.remove(&client);
            }
        }
    }

    /// What was taken for a round-trip monitor shows that it is the monitor of a mongo client of its own.
    fn correct_monitors(&mut self) {
        let taken = |one: &&Connection| {
            let client = one
                .mongo_client
                .and_then(|client| self.clients.get(&client));
            let watch = client.and_then(|client| client.watches.get(&one.upstream));
            watch.is_some_and(|watch| watch.round_trip == Some(one.id))
        };
        let open = self.unsettled().filter(|one| one.is_open());
        let shown = open.filter(|one| one.role == Role::Monitor);
        let corrected: Vec<ConnectionId> = shown.filter(taken).map(|one| one.id).collect();
        self.take_back(&corrected);
    }

    /// What was opened after a goodbye is the next mongo client's, if whose goodbye that was became known only since.
    fn correct_successors(&mut self) {
        let successors: Vec<ConnectionId> = self
            .household
            .clients
            .iter()
            .filter_map(|id| self.clients.get(id))
            .filter_map(|client| Some((client.said_goodbye_at?, &client.monitors)))
            .flat_map(|(goodbye, monitors)| monitors.iter().map(move |id| (goodbye, id)))
            .filter_map(|(goodbye, id)| Some((goodbye, self.connections.get(id)?)))
            .filter(|(goodbye, monitor)| *goodbye < monitor.opened_at)
            .map(|(_, monitor)| monitor.id)
            .collect();
        self.take_back(&successors);
    }

    /// A mongo client that closed all else was not the one whose round trips are measured still, if another lacks that.
    fn correct_left_behind(&mut self) {
        let left_behind: Vec<ConnectionId> = self
            .open_clients()
            .filter(|client| has_left(client))
            .filter(|client| {
                let (ended_at, was_own_will) = client.last_end.unwrap_or_default();
                was_own_will && self.at.since(ended_at) >= SETTLING
            })
            .flat_map(|client| client.watches.values())
            .filter_map(|watch| self.connections.get(&watch.round_trip?))
            .filter(|one| {
                self.open_clients()
                    .any(|client| lacks_round_trip(client, one))
            })
            .map(|one| one.id)
            .collect();
        self.take_back(&left_behind);
    }

    /// They are nobody's for now.
    fn take_back(&mut self, ids: &[ConnectionId]) {
        for id in ids {
            if let Some(connection) = self.connections.get_mut(id)
                && let Some(client) = connection.mongo_client
                && let Some(client) = self.clients.get_mut(&client)
            {
                client.yield_up(connection);
            }
        }
    }

    /// The mongo client that lacks just this monitor, one of the same process if there is any.
    fn lacking_monitor(&self, monitor: &Connection) -> Option<MongoClientId> {
        let of_process = self.lacking_monitor_among(monitor, |client| !client.is_foreign(monitor));
        // Which process opened it may have been guessed wrong, unless it was the first that its process opened.
        of_process.or_else(|| {
            let may_be_wrong = !monitor.begins_process();
            self.lacking_monitor_among(monitor, |client| may_be_wrong && client.is_foreign(monitor))
        })
    }

    fn lacking_monitor_among(
        &self,
        monitor: &Connection,
        is_asked: impl Fn(&MongoClient) -> bool,
    ) -> Option<MongoClientId> {
        let upstream = monitor.upstream;
        let lacking = || {
            self.open_clients()
                .filter(|client| is_asked(client))
                .filter(|client| !client.is_watching(upstream))
                .filter(|client| client.said_goodbye_at.is_none())
        };
        // The first message of a process: whoever was there before is of another.
        let begins_process = monitor.begins_process();
        let is_older = |client: &&MongoClient| client.created_at + JITTER < monitor.opened_at;
        let lacking = || lacking().filter(|client| !(begins_process && is_older(client)));
        let mut returning = lacking().filter(|client| {
            if client.had_quit(monitor.opened_at) {
                return false;
            }
            let watch = client.watches.get(&upstream);
            let watch = watch.filter(|watch| watch.may_be_continued_by(monitor));
            let lost_at = watch.and_then(|watch| watch.lost_at);
            // In trouble the old one may linger while the new one is already there.
            let is_in_trouble = client.pools.values().any(|pool| pool.is_cleared());
            let may_linger = is_in_trouble && !client.is_foreign(monitor);
            // Some of its pooled connections may have been guessed; which process opened each is known better.
            let is_of_process = client.process.is_some() && client.process == monitor.process;
            lost_at.is_some_and(|at| may_linger || at <= monitor.opened_at + JITTER)
                && (is_of_process || self.may_be_one(client, &[monitor.id]))
        });
        if let Some(client) = returning.next() {
            return Some(client.id);
        }
        let mut discovering = lacking().filter(|client| {
            !client.watches.contains_key(&upstream)
                && client
                    .watches
                    .keys()
                    .any(|other| self.are_kin(*other, upstream))
                && self.may_be_one(client, &[monitor.id])
        });
        if let Some(client) = discovering.next() {
            return Some(client.id);
        }
        lacking()
            .filter(|client| client.watches.is_empty() && !self.lacks_monitors(client))
            .filter(|client| self.may_be_one(client, &[monitor.id]))
            .min_by_key(|client| {
                let distance = client.created_at.distance(monitor.opened_at);
                (distance, client.id)
            })
            .map(|client| client.id)
    }

    pub(super) fn place_round_trips(&mut self) {
        self.correct_left_behind();
        let mut homeless: Vec<(Timestamp, ConnectionId)> = self
            .unsettled()
            .filter(|one| one.found == Role::RoundTripMonitor && one.mongo_client.is_none())
            .map(|one| (one.opened_at, one.id))
            .collect();
        homeless.sort_unstable();
        for (_, id) in homeless {
            let Some(connection) = self.connections.get(&id) else {
                continue;
            };
            let clients = self.household.clients.iter();
            let owner = clients
                .filter_map(|id| self.clients.get(id))
                .filter(|client| may_measure_for(client, connection))
                .filter_map(|client| Some((client.watches.get(&connection.upstream)?, client)))
                .min_by_key(|(watch, client)| {
                    (
                        has_left(client),
                        client.is_foreign(connection),
                        watch.since,
                        client.id,
                    )
                })
                .map(|(_, client)| client.id);
            if let Some(owner) = owner {
                self.give(id, owner);
            }
        }
    }
}

/// Nothing of it is open, but what may measure round trips.
fn has_left(client: &MongoClient) -> bool {
    client.pooled_open() == 0 && client.watched().is_empty()
}

/// The connection may measure round trips for `client`, as far as that has nothing that does.
fn may_measure_for(client: &MongoClient, connection: &Connection) -> bool {
    // What a process opens first is no round-trip monitor of another's.
    let is_others = client.is_foreign(connection) && connection.begins_process();
    let watch = client.watches.get(&connection.upstream);
    !is_others
        && !client.had_quit(connection.opened_at)
        && watch.is_some_and(|watch| {
            watch.round_trip.is_none() && watch.since <= connection.opened_at + SETTLING
        })
}

/// It watches the server of the connection, which may measure round trips for it, and has nothing else that does.
fn lacks_round_trip(client: &MongoClient, connection: &Connection) -> bool {
    client.is_watching(connection.upstream) && may_measure_for(client, connection)
}
