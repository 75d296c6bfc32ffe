//! The table of client instances: tracked ones, and shelters of connections that have not introduced themselves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;

use crate::clients::ClientId;
use crate::clients::attribution::ClientKey;
use crate::clients::client::ClientCell;
use crate::time::Timestamp;

/// Client instances by their keys.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) clients: BTreeMap<ClientKey, Place>,
    pub(super) tracked: usize,
    shelters: usize,
    clients_started: u64,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) cell: Arc<ClientCell>,
    /// Something was counted here; otherwise it is a shelter.
    is_tracked: bool,
}

impl Table {
    pub(super) fn next_client(&mut self) -> ClientId {
        self.clients_started += 1;
        ClientId(self.clients_started)
    }

    /// The place of `key`, made for showing only when there is none yet; `None` when there is no room.
    pub(super) fn shelter(
        &mut self,
        key: ClientKey,
        clients_max: usize,
        at: Timestamp,
    ) -> Option<Arc<ClientCell>> {
        if let Some(place) = self.clients.get(&key) {
            return Some(Arc::clone(&place.cell));
        }
        if self.shelters >= clients_max {
            return None;
        }
        self.shelters += 1;
        Some(self.add(key, false, at))
    }

    /// The place of `key` among the tracked ones; `None` when there is no room.
    pub(super) fn claim(
        &mut self,
        key: ClientKey,
        clients_max: usize,
        at: Timestamp,
    ) -> Option<Arc<ClientCell>> {
        let has_room = self.tracked < clients_max;
        if let Some(place) = self.clients.get_mut(&key) {
            if place.is_tracked {
                return Some(Arc::clone(&place.cell));
            }
            if has_room {
                place.is_tracked = true;
                self.shelters = self.shelters.saturating_sub(1);
                self.tracked += 1;
                return Some(Arc::clone(&place.cell));
            }
            return None;
        }
        if !has_room {
            return None;
        }
        self.tracked += 1;
        Some(self.add(key, true, at))
    }

    fn add(&mut self, key: ClientKey, is_tracked: bool, at: Timestamp) -> Arc<ClientCell> {
        let id = self.next_client();
        let cell = Arc::new(ClientCell::new(id, key.upstream, Some(key.clone()), at));
        self.clients.insert(
            key,
            Place {
                cell: Arc::clone(&cell),
                is_tracked,
            },
        );
        cell
    }

    /// A connection left `cell`: a shelter without connections vanishes.
    pub(super) fn leave(&mut self, cell: &ClientCell) {
        let Some(key) = &cell.key else {
            return;
        };
        if let Slot::Occupied(place) = self.clients.entry(key.clone())
            && !place.get().is_tracked
            && place.get().cell.open_count() == 0
        {
            place.remove();
            self.shelters = self.shelters.saturating_sub(1);
        }
    }
}
