//! What is inferred about the pools of a client.

use std::collections::BTreeMap;

use super::catalogue as c;
use super::families::{Families, float};
use crate::clients::ClientRow;
use crate::live::{ClientKey, MongoClientRow, PoolPicture};
use crate::pools::ClearTrigger;

/// Adds the inferred families of one client.
pub(super) fn client(
    families: &mut Families,
    row: &ClientRow,
    by_client: &BTreeMap<&ClientKey, Vec<&MongoClientRow>>,
    picture: &PoolPicture,
) {
    if row.opened == 0 {
        return;
    }
    let own = [&*row.upstream_name, &*row.address, &*row.app];
    let key = ClientKey::of(row);
    let mongo_clients: Vec<&MongoClientRow> = key
        .as_ref()
        .and_then(|key| by_client.get(key))
        .into_iter()
        .flatten()
        .copied()
        .filter(|row| row.closed_at.is_none())
        .collect();
    let inferred = u64::try_from(mongo_clients.len()).unwrap_or(u64::MAX);
    // The series is there in any case: it comes and goes with those of the client.
    let estimated = match row.mongo_clients {
        Some(_) if inferred > 0 => inferred,
        by_monitors => by_monitors.unwrap_or(0),
    };
    families.add(&c::MONGO_CLIENTS_ESTIMATED, &own, float(estimated));
    let counts = key.as_ref().and_then(|key| picture.counts.get(key));
    let counts = counts.copied().unwrap_or_default();
    families.add(&c::CONNECTION_BURSTS, &own, float(counts.bursts));
    let [upstream, client, app] = own;
    for (trigger, count) in ClearTrigger::ALL.into_iter().zip(counts.clears) {
        let labels = [upstream, client, app, trigger.label()];
        families.add(&c::POOL_CLEARS, &labels, float(count));
    }
    // What was inferred lasts as long as the client: its next mongo clients are made by the same code.
    for (family, size) in [
        (&c::MAX_POOL_SIZE_INFERRED, counts.max_size),
        (&c::MIN_POOL_SIZE_INFERRED, counts.min_size),
    ] {
        if let Some(size) = size {
            families.add(family, &own, float(size));
        }
    }
    let (active, capacity) = mongo_clients
        .iter()
        .filter_map(|row| Some((row.pool.active, row.pool.max_size?.value)))
        .fold((0, 0), |(active, capacity): (u64, u64), (one, size)| {
            (active.saturating_add(one), capacity.saturating_add(size))
        });
    if capacity > 0 {
        families.add(&c::POOL_SATURATION, &own, float(active) / float(capacity));
    } else if counts.max_size.is_some() {
        families.add(&c::POOL_SATURATION, &own, 0.0);
    }
}
