//! What is open, told again to a witness that missed some of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ConnectionId;
use super::connection::ConnectionCell;
use super::directory::Directory;
use super::lock;
use crate::connection::{ClientMetadata, Role, State};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, Opened};

impl Directory {
    /// The connections open right now.
    pub fn open_connections(&self) -> BTreeSet<ConnectionId> {
        self.connections.iter().map(|cell| cell.id).collect()
    }

    /// What the connection was found to be used for by its own traffic; `None` when it is not open.
    pub fn told_role(&self, id: ConnectionId) -> Option<Role> {
        self.connections.get(&id).map(|cell| cell.told_role())
    }

    /// What is known of an open connection, as it would have been told, as far as it is remembered: nothing of its
    /// sessions, and of its client no more than what is shown. Everything at the moment `at`, because time does not
    /// run backwards for a witness.
    pub fn retell(&self, id: ConnectionId, at: Timestamp) -> Vec<Entry> {
        let Some(cell) = self.connections.get(&id) else {
            return Vec::new();
        };
        let facts = facts_of(&cell);
        let entry = |fact| Entry {
            at,
            connection: id,
            fact,
        };
        facts.into_iter().map(entry).collect()
    }
}

fn facts_of(cell: &ConnectionCell) -> Vec<Fact> {
    let known = lock(&cell.facts);
    let mut facts = vec![Fact::Opened(Opened {
        upstream: known.owner.upstream,
        peer: cell.peer,
    })];
    let state = cell.state();
    if state != State::Connecting {
        facts.push(Fact::Dialled(Duration::ZERO));
    }
    let driver = known.driver();
    if !driver.name.is_empty() {
        let key = known.owner.key.as_ref();
        let client = ClientMetadata {
            application: key.map_or_else(String::new, |key| key.app.to_string()),
            driver_name: driver.name,
            driver_version: driver.version,
            ..ClientMetadata::default()
        };
        facts.push(Fact::Introduced {
            client: Box::new(client),
            request_id: 0,
        });
    }
    match state {
        State::Idle | State::Active | State::Monitoring | State::Draining => {
            facts.push(Fact::Ready(Duration::ZERO));
        }
        State::Connecting | State::Handshaking | State::Authenticating | State::Opaque => {}
    }
    if cell.told_role() != Role::Unknown {
        facts.push(Fact::RoleFound(cell.told_role()));
    }
    if let Some(interval) = cell.heartbeat() {
        facts.push(Fact::Heartbeat(interval));
    }
    if let Some(reason) = known.opaque {
        facts.push(Fact::TurnedOpaque(reason));
    }
    drop(known);
    facts.push(Fact::Sampled(cell.sample()));
    facts
}
