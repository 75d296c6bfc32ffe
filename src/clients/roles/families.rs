//! The same for each process by itself, where handshakes tell which one opened a connection.
//!
//! Several processes of one application may share an address. What one of them lost, attempts or says goodbye to is no
//! concern of the others: each has monitors of its own, and a pool that these alone let it fill.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Departed, Family, Hints, Sibling};
use crate::clients::processes::{PROCESSES_MAX, ProcessId};
use crate::connection::Role;
use crate::time::Timestamp;

/// What the connections of one client instance tell of each other, process by process. Those of which no process is known
/// are one family.
#[derive(Debug)]
pub(crate) struct Families {
    by_process: BTreeMap<Option<ProcessId>, Family>,
    /// Of whoever is alone.
    alone: Family,
}

impl Families {
    /// As [`Family::new`].
    pub(crate) fn new<'a>(
        siblings: impl IntoIterator<Item = &'a Sibling>,
        hints: Hints,
        remembered_heartbeat: Duration,
    ) -> Self {
        let mut members: BTreeMap<_, Vec<&Sibling>> = BTreeMap::new();
        for sibling in siblings {
            let process = sibling.traits.process;
            members.entry(process).or_default().push(sibling);
        }
        let family = |siblings: Vec<&Sibling>| Family::new(siblings, hints, remembered_heartbeat);
        Self {
            by_process: members
                .into_iter()
                .map(|(process, siblings)| (process, family(siblings)))
                .collect(),
            alone: family(Vec::new()),
        }
    }

    /// As [`Family::role`].
    pub(crate) fn role(&self, sibling: &Sibling, at: Timestamp) -> Role {
        self.of(sibling).role(sibling, at)
    }

    /// As [`Family::final_role`].
    pub(crate) fn final_role(
        &self,
        ending: &Sibling,
        departures: &Departures,
        at: Timestamp,
    ) -> Role {
        let nothing = Departed::default();
        let departed = departures.of(ending).unwrap_or(&nothing);
        self.of(ending).final_role(ending, departed, at)
    }

    /// As [`Family::leave`].
    pub(crate) fn leave(&mut self, sibling: &Sibling) {
        if let Some(family) = self.by_process.get_mut(&sibling.traits.process) {
            family.leave(sibling);
        }
    }

    fn of(&self, sibling: &Sibling) -> &Family {
        let own = self.by_process.get(&sibling.traits.process);
        own.unwrap_or(&self.alone)
    }
}

/// Monitors that ended a moment ago, process by process. Bounded; those of which nothing is left are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// A node of the map has room for eleven, and most clients are one process: boxes keep it small.
    by_process: BTreeMap<Option<ProcessId>, Box<Departed>>,
}

impl Departures {
    /// As [`Departed::expire`].
    pub(crate) fn expire(&mut self, at: Timestamp) {
        self.by_process.retain(|_, departed| {
            departed.expire(at);
            !departed.is_empty()
        });
    }

    /// As [`Departed::ended`].
    pub(crate) fn ended(&mut self, connection: &Sibling, role: Role, at: Timestamp) {
        let process = connection.traits.process;
        if !self.by_process.contains_key(&process) && self.by_process.len() > PROCESSES_MAX {
            let oldest = self.by_process.keys().flatten().next().copied();
            self.by_process.remove(&oldest);
        }
        let own = self.by_process.entry(process).or_default();
        own.ended(connection, role, at);
    }

    /// `None` of a process that nothing departed from.
    fn of(&self, connection: &Sibling) -> Option<&Departed> {
        let own = self.by_process.get(&connection.traits.process);
        own.map(Box::as_ref)
    }
}
