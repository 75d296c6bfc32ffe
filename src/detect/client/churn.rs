//! Mongo clients that are made again and again: one for each request.
//!
//! A client has one streaming or polling monitor a server; where a driver has none, its sessions tell. A leak grows
//! by a client a request, churn closes each again. Clients of a storm carry nothing at all, clients of new
//! processes go on working.
//!
//! A driver without monitors (Node 3.x legacy) shows no clients of its own kind. There it tells that a pool uses the
//! connections it has before it opens another: connections of one process that come while those before them lie idle,
//! and that carry next to nothing, are of one client each.
//!
//! PHP has no monitors either, and a process for each thing it does at a time. When much is to be done at once, many
//! processes make a client each; one that comes while others of its service lie idle is another matter.

mod count;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use count::{CREATED_MIN, Count, Made};

use super::lives::of_one_process;
use super::{
    Detector, Signal, SignalKind, Taken, about, is_of_a_client, is_own, make_room, was_troubled,
};
use crate::pools::{
    Connection, Instance, InstanceId, MongoClient, MongoClientId, Numbering, Pools,
};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact};

/// Clients made within this are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// It is over when nothing was made for so long.
const OVER_AFTER: Duration = Duration::from_secs(15);

/// A connection of which nothing was heard for so long lies idle, and a pool would have used it.
const IDLE: Duration = Duration::from_millis(50);

/// The same where a process of its own may have been started for it, which takes its time.
const IDLE_OF_PROCESSES: Duration = Duration::from_millis(500);

/// So many needless connections show that those which came with them were not needed either.
const NEEDLESS_TELLING: usize = 4;

/// Counters are told once a second: what connections did at a moment is known after this.
const KNOWN_AFTER: Duration = Duration::from_millis(1200);

/// Connections that wait for that; of more, some are not looked at.
const FRESH_MAX: usize = 1024;

/// Needless connections of one instance that are remembered: the newest.
const NEEDLESS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Churn {
    episodes: BTreeMap<InstanceId, Episode>,
    /// Connections that came a moment ago.
    fresh: VecDeque<ConnectionId>,
    /// Connections that came while others of the same process lay idle.
    needless: BTreeMap<InstanceId, VecDeque<ConnectionId>>,
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

impl Detector for Churn {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        if !matches!(entry.fact, Fact::Introduced { .. }) {
            return;
        }
        let instance = connection.instance.and_then(|id| pools.instance(id));
        let lacks_monitors = connection.has_legacy_pool || instance.is_some_and(Instance::is_php);
        if lacks_monitors && is_of_a_client(connection) && self.fresh.len() < FRESH_MAX {
            self.fresh.push_back(connection.id);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        self.look_at_fresh(at, pools);
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
        self.needless.retain(|_, needless| {
            needless.retain(|id| {
                let connection = pools.connection(*id);
                connection.is_some_and(|connection| at.since(connection.opened_at) <= WINDOW)
            });
            !needless.is_empty()
        });
    }
}

impl Churn {
    /// Looks at connections once what their siblings did when they came is known.
    fn look_at_fresh(&mut self, at: Timestamp, pools: &Pools) {
        while let Some(connection) = self.fresh.front().copied() {
            let known = pools.connection(connection);
            if known.is_some_and(|known| at.since(known.opened_at) < KNOWN_AFTER) {
                return;
            }
            self.fresh.pop_front();
            let Some(connection) = known else {
                continue;
            };
            let Some(instance) = connection.instance else {
                continue;
            };
            if !is_needless(connection, instance, pools) {
                continue;
            }
            make_room(&mut self.needless, instance);
            let needless = self.needless.entry(instance).or_default();
            if needless.len() >= NEEDLESS_MAX {
                needless.pop_front();
            }
            needless.push_back(connection.id);
        }
    }

    fn count(&self, at: Timestamp, pools: &Pools) -> BTreeMap<InstanceId, Count> {
        let mut counts: BTreeMap<InstanceId, Count> = BTreeMap::new();
        let made = || {
            let all = pools.mongo_clients();
            all.filter(|client| at.since(client.created_at) <= WINDOW)
        };
        if made().next().is_none() && self.needless.is_empty() {
            return counts;
        }
        let mut households: BTreeMap<InstanceId, Vec<&MongoClient>> = BTreeMap::new();
        for client in made() {
            households.entry(client.instance).or_default().push(client);
        }
        // What follows takes time, and concerns few.
        households.retain(|instance, clients| {
            clients.len() >= CREATED_MIN || self.episodes.contains_key(instance)
        });
        let ids = first_ids(&households, pools);
        for (instance, mut clients) in households {
            clients.retain(|client| {
                is_of_applications(client, pools) && !self.may_be_needed(client, pools)
            });
            // Processes that come and go have a client each; one process has many.
            clients.sort_by_key(|client| (client.created_at, client.id));
            let numbers: Vec<_> = clients
                .iter()
                .map(|one| ids.get(&one.id).copied())
                .collect();
            let newest = self.newest_of(instance);
            let count = counts.entry(instance).or_default();
            count.may_be_processes = numbers
                .iter()
                .flatten()
                .any(|(numbering, _)| matches!(numbering, Numbering::Dials | Numbering::Unknown));
            count.are_needless = pools.instance(instance).is_some_and(Instance::is_php);
            for (client, is_of_one) in clients.into_iter().zip(of_one_process(&numbers)) {
                if is_of_one {
                    count.add(&Made::of(client, at, pools), at, newest);
                }
            }
        }
        for (instance, needless) in &self.needless {
            let mut count = Count::default();
            for connection in needless.iter().filter_map(|id| pools.connection(*id)) {
                let made = Made {
                    at: connection.opened_at,
                    operations: connection.last.operations,
                    is_closed: connection.ended.is_some(),
                    is_working: connection.last.in_flight > 0,
                };
                count.add(&made, at, self.newest_of(*instance));
            }
            let known = counts.entry(*instance).or_default();
            if count.created > known.created {
                *known = count;
            }
        }
        counts
    }

    /// It is of a process of its own that came when all others had something to do, and it stays.
    fn may_be_needed(&self, client: &MongoClient, pools: &Pools) -> bool {
        let is_php = pools
            .instance(client.instance)
            .is_some_and(Instance::is_php);
        let needless = self.needless.get(&client.instance);
        let is_telling = needless.is_some_and(|needless| needless.len() >= NEEDLESS_TELLING);
        let mut connections = client.pools.values().flat_map(|pool| &pool.open);
        is_php
            && client.closed_at.is_none()
            && !is_telling
            && !connections.any(|id| needless.is_some_and(|needless| needless.contains(id)))
    }

    fn newest_of(&self, instance: InstanceId) -> Option<Timestamp> {
        let episode = self.episodes.get(&instance)?;
        Some(episode.newest_at)
    }
}

/// It came while a connection of the same process had done its work and lay idle, to be used no more, and no monitor is
/// there that would tell clients apart. A pool that grows uses what it has: everything is at work when it dials. A
/// process counts its request ids through all of them; those of PHP have one each.
fn is_needless(connection: &Connection, instance: InstanceId, pools: &Pools) -> bool {
    let is_php = pools.instance(instance).is_some_and(Instance::is_php);
    let is_counted = connection.has_legacy_pool && connection.numbering.is_counted();
    let since = connection.opened_at;
    let idle = if is_php { IDLE_OF_PROCESSES } else { IDLE };
    let mut has_idle = false;
    for other in pools.connections() {
        let is_before = other.opened_at < since && other.id != connection.id;
        if !is_before || !is_own(other, instance) || !other.is_open() {
            continue;
        }
        if other.numbering != connection.numbering {
            continue;
        }
        let is_older = !is_counted || other.first_request_id < connection.first_request_id;
        if other.role.is_monitor() || !is_older {
            return false;
        }
        has_idle |= other.last.operations > 0
            && other.last.in_flight == 0
            && since.since(other.last.from_server_at) >= idle;
    }
    has_idle
}

/// How the clients of these instances are numbered: by the lowest id that a connection of theirs began with.
fn first_ids(
    households: &BTreeMap<InstanceId, Vec<&MongoClient>>,
    pools: &Pools,
) -> BTreeMap<MongoClientId, (Numbering, i32)> {
    let mut ids: BTreeMap<MongoClientId, (Numbering, i32)> = BTreeMap::new();
    if households.is_empty() {
        return ids;
    }
    for connection in pools.connections() {
        if let (Some(client), Some(id)) = (connection.mongo_client, connection.first_request_id) {
            let known = ids.entry(client).or_insert((connection.numbering, id));
            known.1 = known.1.min(id);
        }
    }
    ids
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
