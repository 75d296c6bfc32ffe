//! What is inferred about the pools of a client.

use std::collections::BTreeMap;

use super::catalogue as c;
use super::families::{Families, float};
use crate::clients::ClientRow;
use crate::live::{ClientKey, MongoClientRow, PoolPicture};
use crate::pools::{ClearTrigger, Inferred};

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
    let inferred = u64::try_from(mongo_clients.len()).ok();
    // Without any evidence of their own, the count of the monitors has to do.
    let inferred = inferred.filter(|count| *count > 0);
    if let Some(count) = inferred.or(row.mongo_clients) {
        families.add(&c::MONGO_CLIENTS_ESTIMATED, &own, float(count));
    }
    let counts = key.as_ref().and_then(|key| picture.counts.get(key));
    let counts = counts.copied().unwrap_or_default();
    families.add(&c::CONNECTION_BURSTS, &own, float(counts.bursts));
    let [upstream, client, app] = own;
    for (trigger, count) in ClearTrigger::ALL.into_iter().zip(counts.clears) {
        let labels = [upstream, client, app, trigger.label()];
        families.add(&c::POOL_CLEARS, &labels, float(count));
    }
    let pools = || mongo_clients.iter().map(|row| &row.pool);
    for (family, sizes) in [
        (
            &c::MAX_POOL_SIZE_INFERRED,
            surest(pools().filter_map(|pool| pool.max_size)),
        ),
        (
            &c::MIN_POOL_SIZE_INFERRED,
            surest(pools().filter_map(|pool| pool.min_size)),
        ),
    ] {
        if let Some(size) = sizes {
            families.add(family, &own, float(size));
        }
    }
    let (active, capacity) = pools()
        .filter_map(|pool| Some((pool.active, pool.max_size?.value)))
        .fold((0, 0), |(active, capacity): (u64, u64), (one, size)| {
            (active.saturating_add(one), capacity.saturating_add(size))
        });
    if capacity > 0 {
        families.add(&c::POOL_SATURATION, &own, float(active) / float(capacity));
    }
}

/// Mongo clients of one application are made by the same code: the surest inference holds for all.
fn surest(sizes: impl Iterator<Item = Inferred<u64>>) -> Option<u64> {
    let order = |a: &Inferred<u64>, b: &Inferred<u64>| {
        let by_confidence = a.confidence.total_cmp(&b.confidence);
        by_confidence.then(a.value.cmp(&b.value))
    };
    sizes.max_by(order).map(|size| size.value)
}
