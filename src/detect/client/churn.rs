//! Mongo clients that are made again and again: one for each request.
//!
//! A client has one streaming or polling monitor a server; where a driver has none, its sessions tell. A leak grows
//! by a client a request, churn closes each again. Clients of a storm carry nothing at all, clients of new
//! processes go on working.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, about, is_of_a_client, make_room, was_troubled};
use crate::pools::{InstanceId, MongoClient, Pools};
use crate::time::Timestamp;
use crate::timeline::Entry;

/// Clients made within this are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// So many of them are no start of an application.
const CREATED_MIN: u64 = 8;

/// A client made for a request has done its work after this.
const RIPE: Duration = Duration::from_millis(700);

/// It carries a few operations.
const OPERATIONS_MAX: u64 = 6;

/// The share of clients that carried no more.
const SHARE_MIN: f64 = 0.7;

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// It is over when nothing was made for so long.
const OVER_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Churn {
    episodes: BTreeMap<InstanceId, Episode>,
}

#[derive(Debug)]
struct Episode {
    began_at: Timestamp,
    /// When the client was made that was one too many.
    evident_at: Timestamp,
    told_at: Timestamp,
    /// The newest client that was counted.
    newest_at: Timestamp,
    created: u64,
    closed: u64,
}

/// What an instance's clients of the window did.
#[derive(Debug, Default)]
struct Count {
    created: u64,
    /// When each was made.
    moments: Vec<Timestamp>,
    closed: u64,
    ripe: u64,
    brief: u64,
    operations: u64,
    first_at: Option<Timestamp>,
    newest_at: Timestamp,
    since_told: u64,
    closed_since_told: u64,
}

impl Detector for Churn {
    fn record(&mut self, _: &Entry, _: &Pools, _: &mut Vec<Signal>) {}

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for (instance, count) in self.count(at, pools) {
            let known = self.episodes.contains_key(&instance);
            if !known && !count.is_churn() {
                continue;
            }
            if !known && was_troubled(pools, instance, at) {
                continue;
            }
            make_room(&mut self.episodes, instance);
            let episode = self.episodes.entry(instance).or_insert_with(|| Episode {
                began_at: count.first_at.unwrap_or(at),
                evident_at: count.evident_at().unwrap_or(at),
                told_at: Timestamp::default(),
                newest_at: Timestamp::default(),
                created: 0,
                closed: 0,
            });
            let is_news = count.newest_at > episode.newest_at;
            if !is_news || at.since(episode.told_at) < TELL_EVERY {
                continue;
            }
            episode.created += count.since_told;
            episode.closed += count.closed_since_told;
            episode.newest_at = count.newest_at;
            episode.told_at = at;
            let Some(upstream) = upstream_of(instance, pools) else {
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "counts of operations")]
            let operations_each = count.operations as f64 / count.created.max(1) as f64;
            signals.push(about(
                upstream,
                instance,
                episode.began_at,
                at,
                SignalKind::ClientChurn {
                    created: episode.created.max(count.created),
                    closed: episode.closed.max(count.closed),
                    evident_at: episode.evident_at,
                    window: at.since(episode.began_at),
                    operations_each,
                },
            ));
        }
        self.episodes
            .retain(|_, episode| at.since(episode.newest_at) < OVER_AFTER);
    }
}

impl Churn {
    fn count(&self, at: Timestamp, pools: &Pools) -> BTreeMap<InstanceId, Count> {
        let mut counts: BTreeMap<InstanceId, Count> = BTreeMap::new();
        for client in pools.mongo_clients() {
            let age = at.since(client.created_at);
            if age > WINDOW || !is_of_applications(client, pools) {
                continue;
            }
            let operations: u64 = client.pools.values().map(|pool| pool.operations).sum();
            let count = counts.entry(client.instance).or_default();
            count.created += 1;
            count.moments.push(client.created_at);
            count.operations += operations;
            count.closed += u64::from(client.closed_at.is_some());
            count.first_at = Some(
                count
                    .first_at
                    .map_or(client.created_at, |first| first.min(client.created_at)),
            );
            count.newest_at = count.newest_at.max(client.created_at);
            let newest = self
                .episodes
                .get(&client.instance)
                .map(|known| known.newest_at);
            if newest.is_none_or(|newest| client.created_at > newest) {
                count.since_told += 1;
                count.closed_since_told += u64::from(client.closed_at.is_some());
            }
            if age >= RIPE {
                count.ripe += 1;
                let is_brief =
                    (1..=OPERATIONS_MAX).contains(&operations) && !is_working(client, at, pools);
                count.brief += u64::from(is_brief);
            }
        }
        counts
    }
}

impl Count {
    /// When the client was made that is one too many.
    fn evident_at(&self) -> Option<Timestamp> {
        let mut moments = self.moments.clone();
        moments.sort_unstable();
        let place = usize::try_from(CREATED_MIN).ok()?.checked_sub(1)?;
        moments.get(place).copied()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of clients")]
    fn is_churn(&self) -> bool {
        self.created >= CREATED_MIN
            && self.ripe >= CREATED_MIN / 2
            && self.brief as f64 >= self.ripe as f64 * SHARE_MIN
    }
}

/// An open connection of it carried something a moment ago.
fn is_working(client: &MongoClient, at: Timestamp, pools: &Pools) -> bool {
    client
        .pools
        .values()
        .flat_map(|pool| &pool.open)
        .filter_map(|id| pools.connection(*id))
        .any(|connection| at.since(connection.last.from_client_at) < RIPE)
}

fn is_of_applications(client: &MongoClient, pools: &Pools) -> bool {
    client
        .pools
        .values()
        .flat_map(|pool| &pool.open)
        .chain(&client.monitors)
        .filter_map(|id| pools.connection(*id))
        .all(is_of_a_client)
}

fn upstream_of(instance: InstanceId, pools: &Pools) -> Option<crate::timeline::UpstreamId> {
    pools
        .connections()
        .find(|connection| connection.instance == Some(instance))
        .map(|connection| connection.upstream)
}
