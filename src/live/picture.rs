//! What is inferred about mongo clients, published for whoever shows it.
//!
//! The thread that reasons owns the tables, so it takes the picture: at most once a second while somebody asks, and
//! every few seconds otherwise, so that nothing that is counted is forgotten between two looks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clients::ClientRow;
use crate::connection::Role;
use crate::observer::Observer;
use crate::pools::{
    ClearTrigger, Inferred, Joined, MongoClient, MongoClientId, Pool, Pools, Standing,
};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// A picture that is younger need not be taken again.
const FRESH: Duration = Duration::from_secs(1);
/// Time between two pictures while nobody asks; less than what is over is remembered for.
const UNASKED: Duration = Duration::from_secs(10);
/// How long somebody waits for a fresh one: the thread looks up many times in between.
const PATIENCE: Duration = Duration::from_millis(500);
/// Client instances that are counted at most; beyond it those that were silent longest are forgotten.
const COUNTED_MAX: usize = 10_000;

/// Everything inferred about mongo clients, at one moment.
#[derive(Clone, Debug, Default)]
pub struct PoolPicture {
    /// The moment.
    pub at: Timestamp,
    /// One row a mongo client and upstream, by number.
    pub mongo_clients: Vec<MongoClientRow>,
    /// What happened to client instances since the start, as far as it is counted.
    pub counts: BTreeMap<ClientKey, ClientCounts>,
}

impl PoolPicture {
    /// What an observer has inferred by `at`, when nobody looked before.
    pub fn of(observer: &Observer, at: Timestamp) -> Self {
        let mut counted = Counted::default();
        counted.count(observer, at);
        Self {
            at,
            mongo_clients: rows(observer.pools()),
            counts: counted.by_client,
        }
    }

    /// The rows of each client instance.
    pub fn by_client(&self) -> BTreeMap<&ClientKey, Vec<&MongoClientRow>> {
        let mut by_client = BTreeMap::<_, Vec<_>>::new();
        for row in &self.mongo_clients {
            by_client.entry(&row.key).or_default().push(row);
        }
        by_client
    }
}

/// A client instance at an upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey {
    /// The upstream.
    pub upstream: UpstreamId,
    /// Peer address.
    pub address: IpAddr,
    /// Sanitised application name; empty when absent.
    pub app: Arc<str>,
}

impl ClientKey {
    /// The instance that a row of the directory is about; none for the row of those that found no place.
    pub fn of(row: &ClientRow) -> Option<Self> {
        Some(Self {
            upstream: row.upstream,
            address: row.address.parse().ok()?,
            app: Arc::clone(&row.app),
        })
    }
}

/// One mongo client and its pool to one upstream.
#[derive(Clone, Debug)]
pub struct MongoClientRow {
    /// Whose it is.
    pub key: ClientKey,
    /// Its number.
    pub id: MongoClientId,
    /// Its first connection was opened.
    pub created_at: Timestamp,
    /// It was closed.
    pub closed_at: Option<Timestamp>,
    /// What tells it apart.
    pub joined: Joined,
    /// From 0 (a guess) to 1 (proven).
    pub confidence: f64,
    /// What its life is concluded from.
    pub standing: Standing,
    /// Its open monitors of this upstream.
    pub monitors: u64,
    /// Those of them that asked for what only monitors ask for.
    pub monitors_proven: u64,
    /// Its pool; empty when it only watches.
    pub pool: Pool,
}

/// What happened to a client instance since the start, and what was inferred about its pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Episodes of cleared pools, by the position of the trigger in [`ClearTrigger::ALL`].
    pub clears: [u64; ClearTrigger::ALL.len()],
    /// Bursts of new connections.
    pub bursts: u64,
    /// `maxPoolSize` of one mongo client, as inferred last.
    pub max_size: Option<u64>,
    /// `minPoolSize` of one mongo client, as inferred last.
    pub min_size: Option<u64>,
    /// When one of them changed last.
    pub changed_at: Timestamp,
}

/// The picture that was taken last, and whether somebody waits for another.
#[derive(Debug, Default)]
pub(super) struct Easel {
    shown: Mutex<Shown>,
    painted: Condvar,
}

#[derive(Debug, Default)]
struct Shown {
    picture: Arc<PoolPicture>,
    is_wanted: bool,
    /// Somebody paints.
    is_attended: bool,
}

impl Easel {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread will paint from now on.
    pub(super) fn attend(&self) {
        self.shown().is_attended = true;
    }

    /// A picture that is fresh at `now`, or the last one when none comes soon. May block for half a second.
    pub(super) fn look(&self, now: Timestamp) -> Arc<PoolPicture> {
        let mut shown = self.shown();
        if shown.is_attended && now.since(shown.picture.at) >= FRESH {
            shown.is_wanted = true;
            (shown, _) = self
                .painted
                .wait_timeout_while(shown, PATIENCE, |shown| shown.is_wanted)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Arc::clone(&shown.picture)
    }

    /// Paints when it is time to.
    pub(super) fn paint(&self, now: Timestamp, observer: &Observer, counted: &mut Counted) {
        let (is_wanted, age) = {
            let shown = self.shown();
            (shown.is_wanted, now.since(shown.picture.at))
        };
        if !(is_wanted || age >= UNASKED) {
            return;
        }
        counted.count(observer, now);
        let picture = Arc::new(PoolPicture {
            at: now,
            mongo_clients: rows(observer.pools()),
            counts: counted.by_client.clone(),
        });
        let mut shown = self.shown();
        shown.picture = picture;
        shown.is_wanted = false;
        self.painted.notify_all();
    }
}

/// One row a mongo client and upstream.
fn rows(pools: &Pools) -> Vec<MongoClientRow> {
    let mut rows = Vec::new();
    for client in pools.mongo_clients() {
        let mut monitors = BTreeMap::<UpstreamId, (u64, u64)>::new();
        for monitor in client
            .monitors
            .iter()
            .filter_map(|id| pools.connection(*id))
        {
            let (all, proven) = monitors.entry(monitor.upstream).or_default();
            *all += 1;
            *proven += u64::from(monitor.role == Role::Monitor);
        }
        let mut upstreams: Vec<UpstreamId> = client
            .pools
            .keys()
            .chain(monitors.keys())
            .copied()
            .collect();
        upstreams.sort_unstable();
        upstreams.dedup();
        for upstream in upstreams {
            let Some(key) = key(pools, client, upstream) else {
                continue;
            };
            let (monitors, monitors_proven) = monitors.get(&upstream).copied().unwrap_or_default();
            rows.push(MongoClientRow {
                key,
                id: client.id,
                created_at: client.created_at,
                closed_at: client.closed_at,
                joined: client.joined,
                confidence: client.confidence,
                standing: client.standing(),
                monitors,
                monitors_proven,
                pool: client
                    .pools
                    .get(&upstream)
                    .map(|pool| pool.as_ref().clone())
                    .unwrap_or_default(),
            });
        }
    }
    rows
}

fn key(pools: &Pools, client: &MongoClient, upstream: UpstreamId) -> Option<ClientKey> {
    let instance = pools.instance(client.instance)?;
    Some(ClientKey {
        upstream,
        address: instance.address,
        app: Arc::clone(&instance.app),
    })
}

/// Adds up what the tables of the pools forget with those it happened to.
#[derive(Debug, Default)]
pub(super) struct Counted {
    by_client: BTreeMap<ClientKey, ClientCounts>,
    /// The newest clear of each pool that was counted.
    clears: BTreeMap<(MongoClientId, UpstreamId), Timestamp>,
    /// Bursts of each client that were counted.
    bursts: BTreeMap<ClientKey, u64>,
}

impl Counted {
    fn count(&mut self, observer: &Observer, now: Timestamp) {
        let pools = observer.pools();
        self.clears
            .retain(|(id, _), _| pools.mongo_client(*id).is_some());
        for client in pools.mongo_clients() {
            for (upstream, pool) in &client.pools {
                let Some(key) = key(pools, client, *upstream) else {
                    continue;
                };
                let seen = self.clears.entry((client.id, *upstream)).or_default();
                let new: Vec<_> = pool
                    .clears
                    .iter()
                    .filter(|clear| clear.at > *seen)
                    .collect();
                for clear in new {
                    *seen = (*seen).max(clear.at);
                    let counts = self.by_client.entry(key.clone()).or_default();
                    counts.changed_at = now;
                    if let Some(count) = counts.clears.get_mut(clear.sign.trigger() as usize) {
                        *count += 1;
                    }
                }
            }
        }
        self.count_bursts(observer, now);
        self.keep_sizes(pools, now);
        while self.by_client.len() > COUNTED_MAX {
            let oldest = self.by_client.iter().min_by_key(|(_, one)| one.changed_at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            self.by_client.remove(&oldest);
        }
    }

    /// Keeps the surest sizes of each client's open pools; those that are closed say nothing against them.
    fn keep_sizes(&mut self, pools: &Pools, now: Timestamp) {
        let mut surest = BTreeMap::<ClientKey, [Option<Inferred<u64>>; 2]>::new();
        for client in pools.mongo_clients() {
            for (upstream, pool) in &client.pools {
                let sizes = [pool.max_size, pool.min_size];
                if client.closed_at.is_some() || sizes == [None; 2] {
                    continue;
                }
                let Some(key) = key(pools, client, *upstream) else {
                    continue;
                };
                let kept = surest.entry(key).or_default();
                for (kept, size) in kept.iter_mut().zip(sizes) {
                    *kept = surer(*kept, size);
                }
            }
        }
        for (key, sizes) in surest {
            let counts = self.by_client.entry(key).or_default();
            let [max_size, min_size] = sizes.map(|size| size.map(|size| size.value));
            counts.max_size = max_size.or(counts.max_size);
            counts.min_size = min_size.or(counts.min_size);
            counts.changed_at = now;
        }
    }

    /// A burst that a client had before it was forgotten and found again is not counted twice: its count begins
    /// anew, and only what is above the last one is new.
    fn count_bursts(&mut self, observer: &Observer, now: Timestamp) {
        let mut told = BTreeMap::<ClientKey, u64>::new();
        for (upstream, address, app, count) in observer.bursts() {
            let key = ClientKey {
                upstream,
                address,
                app,
            };
            *told.entry(key).or_default() += count;
        }
        for (key, count) in &told {
            let new = count.saturating_sub(self.bursts.get(key).copied().unwrap_or_default());
            if new > 0 {
                let counts = self.by_client.entry(key.clone()).or_default();
                counts.bursts += new;
                counts.changed_at = now;
            }
        }
        self.bursts = told;
    }
}

/// Mongo clients of one application are made by the same code: the surest inference holds for all.
fn surer(a: Option<Inferred<u64>>, b: Option<Inferred<u64>>) -> Option<Inferred<u64>> {
    let order = |a: &Inferred<u64>, b: &Inferred<u64>| {
        let by_confidence = a.confidence.total_cmp(&b.confidence);
        by_confidence.then(a.value.cmp(&b.value))
    };
    [a, b].into_iter().flatten().max_by(order)
}
