//! What poolscope infers of pools from a journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poolscope::connection::Initiator;
use poolscope::journal::Reader;
use poolscope::observer::{Observer, Sequencer};
use poolscope::pools::{CloseReason, InstanceId, MongoClientId, Pools};
use poolscope::time::Timestamp;
use poolscope::timeline::ConnectionId;
use poolscope::timeline::lines::Line;

use super::lives::Lives;
use super::scores::{Key, Span, seconds_of};

/// Why connections of the last moment were closed is known so much later, in seconds.
const EXPLAINED_AFTER: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Inferred {
    /// Begin and end (0: none) of episodes, in nanoseconds.
    pub(super) clears: BTreeMap<Key, BTreeSet<[u64; 2]>>,
    /// Pooled connections that the server's side ended.
    ended_by_server: BTreeMap<Key, BTreeSet<ConnectionId>>,
    /// Connections that ended before they said whose they are, by address.
    pub(super) anonymous: BTreeMap<String, BTreeSet<ConnectionId>>,
    /// Closed connections by reason: idle, stale, error, pool closed.
    pub(super) closed: BTreeMap<Key, [u64; 4]>,
    /// Mongo clients that are open at the end.
    pub(super) open: BTreeMap<Key, u64>,
    /// Pooled connections, and whether they are open at the end.
    pub(super) pooled: BTreeMap<Key, BTreeMap<ConnectionId, bool>>,
    /// Servers, of each of which a client has a pool.
    pub(super) servers: usize,
    /// When pools were created, ready and closed.
    pub(super) lives: Lives,
    /// The last moment that something is told of.
    pub(super) until: Timestamp,
}

/// What is inferred from a journal.
pub(super) fn infer(journal: &str) -> Inferred {
    let mut reader = Reader::new(journal.as_bytes());
    let mut observer = Observer::new(Vec::new());
    let mut sequencer = Sequencer::default();
    let mut found = Inferred::default();
    let mut at = Timestamp::default();
    let mut looked_at = Timestamp::default();
    let mut episodes: BTreeMap<(u64, u16, Timestamp), (Key, u64)> = BTreeMap::new();
    let mut closes = Closes::default();
    while let Some(line) = reader.next_line().unwrap() {
        at = match line {
            Line::Header(header) => {
                found.servers = header.upstreams.len();
                observer = Observer::new(header.upstreams);
                continue;
            }
            Line::Mark(at) => at,
            Line::Entry(entry) => {
                let at = entry.at;
                found.until = at;
                sequencer.push(entry);
                at
            }
        };
        sequencer.tell_until(at, &mut observer, &mut Vec::new(), |_| {});
        // They are remembered for longer than that.
        if at.since(looked_at).as_secs() >= 1 {
            looked_at = at;
            look(observer.pools(), &mut episodes);
            found.note_ends(observer.pools());
            found.note_pooled(observer.pools());
            found.lives.note(observer.pools());
            closes.note(observer.pools());
        }
    }
    look(observer.pools(), &mut episodes);
    found.note_ends(observer.pools());
    found.note_pooled(observer.pools());
    found.note_open(observer.pools());
    closes.note(observer.pools());
    // What is open is as it was at the end; only why something was closed becomes known.
    for seconds in 1..=EXPLAINED_AFTER {
        let until = at + Duration::from_secs(seconds);
        sequencer.tell_until(until, &mut observer, &mut Vec::new(), |_| {});
        found.lives.note(observer.pools());
        closes.note(observer.pools());
    }
    found.closed = closes.sums();
    for ((_, _, begin), (key, end)) in episodes {
        found
            .clears
            .entry(key)
            .or_default()
            .insert([begin.as_nanos(), end]);
    }
    found
}

impl Inferred {
    /// Episodes of an instance; what had not ended then is cut off there.
    pub(super) fn episodes(&self, key: &Key, until: f64) -> Vec<Span> {
        let spans = self.clears.get(key).into_iter().flatten();
        let spans = spans.map(|[begin, end]| {
            let end = if *end == 0 { until } else { seconds_of(*end) };
            (seconds_of(*begin), end)
        });
        spans.collect()
    }

    /// How many pooled connections of an instance the server's side ended.
    pub(super) fn ended_by_server(&self, key: &Key) -> u64 {
        let ended = self.ended_by_server.get(key);
        ended.map_or(0, BTreeSet::len) as u64
    }

    fn note_ends(&mut self, pools: &Pools) {
        for connection in pools.connections() {
            let is_by_server = connection
                .ended
                .is_some_and(|end| end.ending.initiator == Initiator::Server);
            if !is_by_server {
                continue;
            }
            let key = connection.instance.and_then(|id| key(pools, id));
            if let Some(key) = key.filter(|_| connection.is_pooled()) {
                let ended = self.ended_by_server.entry(key).or_default();
                ended.insert(connection.id);
            } else if connection.introduced_at.is_none() && connection.dialled_at.is_some() {
                let address = connection.peer.ip().to_string();
                let ended = self.anonymous.entry(address).or_default();
                ended.insert(connection.id);
            }
        }
    }

    fn note_pooled(&mut self, pools: &Pools) {
        for connection in pools.connections() {
            let Some(key) = connection.instance.and_then(|id| key(pools, id)) else {
                continue;
            };
            let known = self.pooled.entry(key).or_default();
            if connection.is_pooled() {
                known.insert(connection.id, connection.is_open());
            } else {
                known.remove(&connection.id);
            }
        }
    }

    fn note_open(&mut self, pools: &Pools) {
        for client in pools.mongo_clients().filter(|client| client.is_open()) {
            if let Some(key) = key(pools, client.instance) {
                *self.open.entry(key).or_default() += 1;
            }
        }
    }
}

/// Why connections of each mongo client were closed, whether that is open, and whose it is.
#[derive(Debug, Default)]
struct Closes(BTreeMap<MongoClientId, (Key, bool, [u64; 4])>);

impl Closes {
    fn note(&mut self, pools: &Pools) {
        // What was found to be another's is counted there.
        self.0
            .retain(|id, (_, was_open, _)| !*was_open || pools.mongo_client(*id).is_some());
        for client in pools.mongo_clients() {
            let Some(key) = key(pools, client.instance) else {
                continue;
            };
            let reasons = client.pools.values().map(|pool| pool.closed);
            let sums = reasons.fold([0; 4], |[idle, stale, error, pool_closed], closed| {
                [
                    idle + closed.of(CloseReason::Idle),
                    stale + closed.of(CloseReason::Stale),
                    error + closed.of(CloseReason::Error),
                    pool_closed + closed.of(CloseReason::PoolClosed),
                ]
            });
            self.0.insert(client.id, (key, client.is_open(), sums));
        }
    }

    fn sums(self) -> BTreeMap<Key, [u64; 4]> {
        let mut by_key: BTreeMap<Key, [u64; 4]> = BTreeMap::new();
        for (key, _, reasons) in self.0.into_values() {
            let sums = by_key.entry(key).or_default();
            for (sum, count) in sums.iter_mut().zip(reasons) {
                *sum += count;
            }
        }
        by_key
    }
}

fn key(pools: &Pools, instance: InstanceId) -> Option<Key> {
    let instance = pools.instance(instance)?;
    Some((instance.address.to_string(), instance.app.to_string()))
}

fn look(pools: &Pools, episodes: &mut BTreeMap<(u64, u16, Timestamp), (Key, u64)>) {
    for client in pools.mongo_clients() {
        let Some(key) = key(pools, client.instance) else {
            continue;
        };
        for (upstream, pool) in &client.pools {
            // A sign that is read late moves the begin of an episode that was noted already.
            if let Some(oldest) = pool.clears.first() {
                episodes.retain(|&(id, server, begin), _| {
                    (id, server) != (client.id.0, upstream.0) || begin < oldest.at
                });
            }
            for clear in &pool.clears {
                let end = clear.ready_at.map_or(0, Timestamp::as_nanos);
                episodes.insert((client.id.0, upstream.0, clear.at), (key.clone(), end));
            }
        }
    }
}
