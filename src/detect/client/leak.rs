//! Mongo clients that are made one after the other, used when they are new, and left open: a leak too slow for
//! [`super::churn`].
//!
//! ```text
//! made ──▶ used ──▶ rests ─────────────────▶ left behind: the process made others since and used them
//!                     └─ used again ───────▶ needed: one of few, or of a tenant
//! ```
//!
//! A client that an application needs is used again. What is left behind is used in its first seconds and never after,
//! while its process goes on making others: several together are a start, several processes have a client each.
//! Where a driver has no monitors (Node 3.x legacy, PHP), [`held`] finds what stands for a client. Those that number
//! requests by the client (libmongoc, PHP) do not show which clients are of one process: of them it takes more than the
//! processes of a service are, and it is less sure.
//!
//! **Invariant:** at most one record a mongo client that is open, and [`CLOSED_MAX`] moments an instance.

mod growth;
mod held;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use growth::{Growth, Made};
use held::{Clients, Held};

use super::lives::of_one_process;
use super::{Detector, Signal, SignalKind, about, is_of_a_client, make_room, was_troubled};
use crate::detect::{LeakSign, Taken};
use crate::pools::{Connection, InstanceId, Joined, MongoClient, MongoClientId, Numbering, Pools};
use crate::time::Timestamp;
use crate::timeline::{Entry, UpstreamId};

/// Clients are looked at so often: counters are told once a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Told again while it goes on: a case is over when nothing is heard of it for a quarter of a minute.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Clients that an instance closed of which the moments are remembered: the newest.
const CLOSED_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Leak {
    looked_at: Timestamp,
    /// The newest client that was looked at.
    newest: Option<MongoClientId>,
    uses: BTreeMap<MongoClientId, Use>,
    /// Connections that stand for clients.
    held: Held,
    /// When clients were closed.
    closed: BTreeMap<InstanceId, VecDeque<Timestamp>>,
    episodes: BTreeMap<InstanceId, Episode>,
}

/// What a client was seen to carry, and when it carried something last.
#[derive(Clone, Copy, Debug)]
struct Use {
    operations: u64,
    at: Timestamp,
}

#[derive(Debug)]
struct Episode {
    began_at: Timestamp,
    evident_at: Timestamp,
    told_at: Timestamp,
    /// Open clients of the process when it began.
    from: u64,
}

impl Detector for Leak {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        if held::may_stand_for_client(taken.connection) {
            self.see_held(taken.entry, taken.connection);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        if at.since(self.looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at = at;
        self.see_closes(pools);
        self.see_uses(at, pools);
        self.held.look(pools);
        let mut all: BTreeMap<InstanceId, Growth> = BTreeMap::new();
        for (instance, clients) in households(pools) {
            all.insert(instance, self.growth(instance, &clients, pools, at));
        }
        for (instance, clients) in self.held.clients(at, pools) {
            let growth = || self.growth_of_held(instance, &clients, at);
            all.entry(instance).or_insert_with(growth);
        }
        self.episodes.retain(|id, _| all.contains_key(id));
        for (instance, growth) in all {
            self.judge(instance, &growth, at, pools, signals);
        }
    }
}

impl Leak {
    /// Clients that were closed since the last look, those among them that came since, too.
    fn see_closes(&mut self, pools: &Pools) {
        let (uses, newest) = (&self.uses, self.newest);
        let closed = pools.mongo_clients().filter_map(|client| {
            let is_news = uses.contains_key(&client.id) || newest.is_none_or(|id| client.id > id);
            Some((client.instance, client.closed_at.filter(|_| is_news)?))
        });
        let closed: Vec<_> = closed.collect();
        for (instance, at) in closed {
            self.see_close(instance, at);
        }
        self.closed.retain(|id, _| pools.instance(*id).is_some());
        self.newest = pools.mongo_clients().map(|client| client.id).max();
    }

    #[inline(never)]
    fn see_held(&mut self, entry: &Entry, connection: &Connection) {
        if let Some(instance) = self.held.record(entry, connection) {
            self.see_close(instance, entry.at);
        }
    }

    fn see_close(&mut self, instance: InstanceId, at: Timestamp) {
        make_room(&mut self.closed, instance);
        let closed = self.closed.entry(instance).or_default();
        if closed.len() >= CLOSED_MAX {
            closed.pop_front();
        }
        closed.push_back(at);
    }

    fn see_uses(&mut self, at: Timestamp, pools: &Pools) {
        self.uses.retain(|id, _| {
            let client = pools.mongo_client(*id);
            client.is_some_and(MongoClient::is_open)
        });
        for client in pools.mongo_clients().filter(|client| is_told_apart(client)) {
            let operations = client.pools.values().map(|pool| pool.operations).sum();
            let known = self.uses.entry(client.id).or_insert(Use {
                operations: 0,
                at: client.created_at,
            });
            let is_busy = client.pools.values().any(|pool| pool.active > 0);
            if is_busy {
                known.at = at;
            } else if operations > known.operations {
                known.at = asked_at(client, pools).unwrap_or(at);
            }
            known.operations = operations;
        }
    }

    /// How the clients of one process grew.
    fn growth(
        &self,
        instance: InstanceId,
        clients: &[&MongoClient],
        pools: &Pools,
        at: Timestamp,
    ) -> Growth {
        let firsts: Vec<_> = clients
            .iter()
            .map(|client| first_id(client, pools))
            .collect();
        let may_be_processes = firsts.iter().all(Option::is_none);
        let sign = if may_be_processes {
            LeakSign::Number
        } else {
            LeakSign::Monitors
        };
        let made = clients
            .iter()
            .zip(&firsts)
            .zip(of_one_process(&firsts))
            .filter(|((_, first), is_of_one)| *is_of_one && (may_be_processes || first.is_some()))
            .filter_map(|((client, first), _)| self.made(client, *first))
            .collect();
        let closed = self.closed.get(&instance);
        Growth::of(made, closed.into_iter().flatten(), sign, at)
    }

    /// The same, where connections stand for them.
    fn growth_of_held(&self, instance: InstanceId, clients: &Clients, at: Timestamp) -> Growth {
        let sign = if clients.may_be_processes {
            LeakSign::Number
        } else {
            LeakSign::Hellos
        };
        let of_one = of_one_process(&clients.firsts);
        let made = clients.made.iter().zip(of_one);
        let made = made.filter(|(_, is_of_one)| *is_of_one);
        let made = made.map(|(made, _)| *made).collect();
        let closed = self.closed.get(&instance);
        Growth::of(made, closed.into_iter().flatten(), sign, at)
    }

    fn made(&self, client: &MongoClient, first: Option<(Numbering, i32)>) -> Option<Made> {
        let used = self.uses.get(&client.id)?;
        let monitors = client.monitors.len();
        Some(Made {
            at: client.created_at,
            used_at: used.at,
            is_used: used.operations > 0,
            begins_process: first.is_some_and(|(numbering, id)| numbering.begins_process(id)),
            connections: count(monitors + client.pooled_open()),
            monitors: count(monitors),
        })
    }

    fn judge(
        &mut self,
        instance: InstanceId,
        growth: &Growth,
        at: Timestamp,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let known = self.episodes.contains_key(&instance);
        let lasts = if known {
            growth.goes_on()
        } else {
            growth.is_leak() && !was_troubled(pools, instance, at)
        };
        let (true, Some(began_at)) = (lasts, growth.began_at()) else {
            self.episodes.remove(&instance);
            return;
        };
        make_room(&mut self.episodes, instance);
        let episode = self.episodes.entry(instance).or_insert_with(|| Episode {
            began_at,
            evident_at: growth.evident_at().min(at),
            told_at: Timestamp::default(),
            from: growth.before(began_at),
        });
        if at.since(episode.told_at) < TELL_EVERY {
            return;
        }
        episode.told_at = at;
        let Some(upstream) = growth_upstream(instance, pools) else {
            return;
        };
        signals.push(about(
            upstream,
            instance,
            episode.began_at,
            at,
            SignalKind::ClientLeak {
                sign: growth.sign(),
                from: episode.from,
                to: growth.open(),
                left: growth.left(),
                closed: growth.closed_since(episode.began_at),
                connections: growth.connections_left(),
                monitors: growth.monitors_left(),
                rested: growth.rested(),
                lasted: growth.newest_at().since(episode.began_at),
                evident_at: episode.evident_at,
            },
        ));
    }
}

/// When a pooled connection of it carried a request last; counters tell of it up to a second later.
fn asked_at(client: &MongoClient, pools: &Pools) -> Option<Timestamp> {
    let pooled = client.pools.values().flat_map(|pool| &pool.open);
    let pooled = pooled.filter_map(|id| pools.connection(*id));
    pooled.map(|one| one.last.from_client_at).max()
}

/// Open clients of each instance that has enough of them, the oldest first.
fn households(pools: &Pools) -> BTreeMap<InstanceId, Vec<&MongoClient>> {
    let mut counts: BTreeMap<InstanceId, usize> = BTreeMap::new();
    let open = || pools.mongo_clients().filter(|client| is_told_apart(client));
    for client in open() {
        *counts.entry(client.instance).or_default() += 1;
    }
    counts.retain(|_, count| *count >= growth::LEFT_MIN);
    let mut all: BTreeMap<InstanceId, Vec<&MongoClient>> = BTreeMap::new();
    if counts.is_empty() {
        return all;
    }
    for client in open().filter(|client| counts.contains_key(&client.instance)) {
        if is_of_applications(client, pools) {
            all.entry(client.instance).or_default().push(client);
        }
    }
    for clients in all.values_mut() {
        clients.sort_by_key(|client| (client.created_at, client.id));
    }
    all
}

/// It is open, and its monitors tell it from others.
fn is_told_apart(client: &MongoClient) -> bool {
    client.is_open() && !client.monitors.is_empty() && client.joined != Joined::Metadata
}

fn open_connections<'a>(
    client: &'a MongoClient,
    pools: &'a Pools,
) -> impl Iterator<Item = &'a Connection> {
    let pooled = client.pools.values().flat_map(|pool| &pool.open);
    let all = pooled.chain(&client.monitors);
    all.filter_map(|id| pools.connection(*id))
}

fn is_of_applications(client: &MongoClient, pools: &Pools) -> bool {
    open_connections(client, pools).all(is_of_a_client)
}

/// The lowest id that one of its open connections began with, where that tells its process.
fn first_id(client: &MongoClient, pools: &Pools) -> Option<(Numbering, i32)> {
    let ids = open_connections(client, pools)
        .filter(|one| one.numbering.is_counted() || one.numbering == Numbering::Drawn)
        .filter_map(|one| Some((one.numbering, one.first_request_id?)));
    ids.min_by_key(|(_, id)| *id)
}

fn growth_upstream(instance: InstanceId, pools: &Pools) -> Option<UpstreamId> {
    let own = |client: &&MongoClient| client.instance == instance && client.is_open();
    let mut own = pools.mongo_clients().filter(own);
    own.find_map(|client| client.pools.keys().next().copied())
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
