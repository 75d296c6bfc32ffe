//! Connections of drivers without monitors, where each stands for a client.
//!
//! ```text
//! Node 3.x legacy   a client asks how the server is every 5 to 10 s, by one connection of its pool: as many
//!                   connections as are asked by in that time are as many clients, and a pool at rest is one of them
//! PHP               a client has one connection to a server
//! ```
//!
//! **Invariant:** at most [`HELD_MAX`] records, each of a connection that is open.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Use;
use super::growth::{LEFT_MIN, Made};
use crate::detect::is_of_a_client;
use crate::pools::{Connection, InstanceId, Numbering, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Entry, Fact};

/// Connections of which use is remembered; of more, the ones seen first.
const HELD_MAX: usize = 16_384;

/// A client asks within this, told a second late; one that is younger need not have asked.
const ASKS_WITHIN: Duration = Duration::from_secs(12);

/// Connections that are open.
#[derive(Debug, Default)]
pub(super) struct Held {
    known: BTreeMap<ConnectionId, One>,
}

#[derive(Debug)]
struct One {
    instance: InstanceId,
    uses: Use,
    /// Requests that were no operations.
    hellos: u64,
    /// When the newest of them was sent; when it was opened, before the first.
    asked_at: Timestamp,
}

/// Its driver has no monitors.
pub(super) fn may_stand_for_client(connection: &Connection) -> bool {
    connection.has_legacy_pool || is_php(connection)
}

impl Held {
    /// Takes in what happened to a connection that may stand for a client. Says whose connection ended.
    pub(super) fn record(&mut self, entry: &Entry, connection: &Connection) -> Option<InstanceId> {
        if let Fact::Ended(_) = &entry.fact {
            return self.known.remove(&connection.id).map(|one| one.instance);
        }
        if let Fact::Introduced { .. } = &entry.fact {
            self.enter(connection);
        }
        None
    }

    fn enter(&mut self, connection: &Connection) {
        let Some(instance) = connection.instance else {
            return;
        };
        if connection.is_open() && self.known.len() < HELD_MAX {
            let one = One {
                instance,
                uses: Use {
                    operations: 0,
                    at: connection.opened_at,
                },
                hellos: 0,
                asked_at: connection.opened_at,
            };
            self.known.insert(connection.id, one);
        }
    }

    pub(super) fn look(&mut self, pools: &Pools) {
        self.known.retain(|id, one| {
            let connection = pools.connection(*id);
            connection.is_some_and(|connection| one.look(connection))
        });
    }

    /// Clients of each instance that has enough of them, the oldest first: how each is numbered, and what it is.
    pub(super) fn clients(&self, at: Timestamp, pools: &Pools) -> BTreeMap<InstanceId, Clients> {
        let mut counts: BTreeMap<InstanceId, usize> = BTreeMap::new();
        if self.known.len() < LEFT_MIN {
            return BTreeMap::new();
        }
        for one in self.known.values() {
            *counts.entry(one.instance).or_default() += 1;
        }
        counts.retain(|_, count| *count >= LEFT_MIN);
        let mut all: BTreeMap<InstanceId, Clients> = BTreeMap::new();
        for (id, one) in &self.known {
            let connection = pools.connection(*id);
            let connection = connection.filter(|own| one.is_a_client(own, at));
            if let Some(connection) = connection.filter(|_| counts.contains_key(&one.instance)) {
                let clients = all.entry(one.instance).or_default();
                clients.add(connection, one.uses);
            }
        }
        all
    }
}

impl One {
    /// True while the connection is open.
    fn look(&mut self, connection: &Connection) -> bool {
        let last = &connection.last;
        let hellos = last.requests.saturating_sub(last.operations);
        if hellos > self.hellos {
            self.asked_at = self.asked_at.max(last.from_client_at);
        }
        if last.in_flight > 0 || last.operations > self.uses.operations {
            self.uses.at = self.uses.at.max(last.from_client_at);
        }
        self.hellos = hellos;
        self.uses.operations = last.operations;
        connection.is_open()
    }

    /// It stands for a client, and was used.
    fn is_a_client(&self, connection: &Connection, at: Timestamp) -> bool {
        is_of_a_client(connection)
            && self.uses.operations > 0
            && (is_php(connection) || at.since(self.asked_at) <= ASKS_WITHIN)
    }
}

/// The clients of an instance.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// How each is numbered.
    pub(super) firsts: Vec<Option<(Numbering, i32)>>,
    pub(super) made: Vec<Made>,
    /// Nothing tells of which process each is.
    pub(super) may_be_processes: bool,
}

impl Clients {
    fn add(&mut self, connection: &Connection, uses: Use) {
        let (numbering, first) = (connection.numbering, connection.first_request_id);
        self.may_be_processes |= is_php(connection);
        self.firsts.push(first.map(|id| (numbering, id)));
        self.made.push(Made {
            at: connection.opened_at,
            used_at: uses.at,
            is_used: true,
            begins_process: first.is_some_and(|id| numbering.begins_process(id)),
            connections: 1,
            monitors: 0,
        });
    }
}

fn is_php(connection: &Connection) -> bool {
    connection.numbering == Numbering::Dials
}
