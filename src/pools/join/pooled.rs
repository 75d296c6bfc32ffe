//! Whose pooled connections are whose, in the order in which they were opened.

use std::collections::{BTreeMap, BTreeSet};

use super::units::{Register, Unit};
use super::{Joiner, SETTLING};
use crate::pools::MongoClientId;
use crate::pools::sessions::CircleId;
use crate::time::Timestamp;

impl Joiner<'_> {
    /// True when some connections wait for what time may tell.
    pub(super) fn place_pooled(&mut self) -> bool {
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
                let owner = if self.is_of_new_process(unit) {
                    Some(self.start(unit.first))
                } else {
                    self.owner(unit, &register)
                };
                *decided = match owner {
                    Some(owner) => Some(owner),
                    None if self.is_undecided(unit, &register) => {
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
        is_waiting |= units
            .iter()
            .any(|unit| unit.is_of_legacy_pool && self.at.since(unit.first) < 2 * SETTLING);
        is_waiting
    }

    fn register(&mut self) -> Register {
        let mut register = Register::default();
        // Thousands may wait for what time tells; each asks for those beside it.
        let unshown = self.unsettled().filter(|one| one.may_be_monitor());
        let unshown = unshown.map(|one| one.opened_at);
        register.unshown = unshown
            .chain(self.household.unshown.iter().copied())
            .collect();
        register.unshown.sort_unstable();
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
        for connection in self.unsettled() {
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
                first_request_id: None,
                births: Vec::new(),
                upstreams: BTreeSet::new(),
                operations: 0,
                has_said_goodbye: false,
                lacks_monitors: connection.traits.lacks_monitors(),
                is_of_legacy_pool: connection.has_legacy_pool,
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
}
