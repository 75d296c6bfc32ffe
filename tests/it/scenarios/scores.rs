//! How well poolscope infers what pools went through, beside the drivers' own events.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use poolscope::connection::Initiator;
use poolscope::journal::Reader;
use poolscope::observer::{Observer, Sequencer};
use poolscope::pools::Pools;
use poolscope::time::Timestamp;
use poolscope::timeline::ConnectionId;
use poolscope::timeline::lines::Line;
use serde_json::Value;

/// Clears of a pool closer to each other than this are one episode, in seconds.
const GAP: f64 = 2.0;
/// The driver tells of a clear so long before or after its signs were on the wire, in seconds.
const SLACK: f64 = 1.0;

/// Counts over one case, or many.
#[derive(Clone, Debug, Default)]
pub(super) struct Scores {
    /// Episodes of cleared pools that a driver told of, and those of them that were inferred.
    clears_true: u64,
    clears_found: u64,
    /// Episodes that were inferred, and those of them that a driver told of.
    clears_inferred: u64,
    clears_confirmed: u64,
    /// Instances, and those whose number of mongo clients was right.
    instances: u64,
    mongo_clients_right: u64,
    /// Instances with pool events, and those whose opened, closed and open connections were right.
    pools: u64,
    pools_right: u64,
    /// Those of the latter whose driver had not told of all sockets that were closed on it.
    pools_unnoticed: u64,
    /// Connections whose close a driver gave a reason for, and those of them with the same reason.
    closes: u64,
    closes_right: u64,
    /// What was not right.
    pub(super) amiss: Vec<String>,
}

/// A client instance: address and application.
type Key = (String, String);
/// When an episode began and ended, in seconds since the epoch.
type Span = (f64, f64);

/// Scores one case.
pub(super) fn score(case: &str, truth: &Value, journal: &str, clients: &Value) -> Scores {
    let inferred = infer(journal);
    let mut scores = Scores::default();
    let mut by_key: BTreeMap<Key, Vec<&Value>> = BTreeMap::new();
    for app in truth["apps"].as_array().unwrap() {
        let text = |field: &str| app[field].as_str().unwrap().to_owned();
        by_key
            .entry((text("address"), text("name")))
            .or_default()
            .push(app);
    }
    for (key, apps) in by_key {
        // Whoever did not answer, or was never connected, is no reference.
        let is_reference = |app: &&Value| match app["stats"]["source"].as_str() {
            Some("cmap") => app["stats"]["ready"].as_u64() > Some(0),
            Some("sdam") => app["stats"]["heartbeats"]["succeeded"].as_u64() > Some(0),
            _ => false,
        };
        if !apps.iter().all(is_reference) {
            continue;
        }
        // Some drivers tell nothing of clears, others nothing of connections.
        let all_tell = |what: &str| apps.iter().all(|app| app["stats"][what].is_u64());
        let name = format!("{case} {}@{}", key.1, key.0);
        if all_tell("cleared") {
            scores.score_clears(&name, &apps, inferred.clears.get(&key));
        }
        scores.score_mongo_clients(&name, &apps, inferred.open.get(&key).copied().unwrap_or(0));
        if all_tell("created") {
            let ended = inferred.ended_by_server.get(&key);
            let ended = ended.map_or(0, BTreeSet::len) as u64;
            scores.score_pools(&name, &apps, &key, clients, ended);
            let reasons = inferred.closed.get(&key).copied().unwrap_or_default();
            scores.score_reasons(&apps, reasons);
        }
    }
    scores
}

impl Scores {
    fn score_clears(&mut self, name: &str, apps: &[&Value], inferred: Option<&BTreeSet<[u64; 2]>>) {
        let told: Vec<Span> = apps.iter().flat_map(|app| told_clears(app)).collect();
        let inferred: Vec<Span> = inferred
            .into_iter()
            .flatten()
            .map(|[begin, end]| {
                (
                    seconds(*begin),
                    if *end == 0 { f64::MAX } else { seconds(*end) },
                )
            })
            .collect();
        let meet = |one: &Span, other: &Span| one.0 - SLACK <= other.1 && other.0 - SLACK <= one.1;
        let found = told
            .iter()
            .filter(|one| inferred.iter().any(|other| meet(one, other)));
        let confirmed = inferred
            .iter()
            .filter(|one| told.iter().any(|other| meet(one, other)));
        let (found, confirmed) = (found.count() as u64, confirmed.count() as u64);
        self.clears_true += told.len() as u64;
        self.clears_found += found;
        self.clears_inferred += inferred.len() as u64;
        self.clears_confirmed += confirmed;
        let missed = told.len() as u64 - found;
        let invented = inferred.len() as u64 - confirmed;
        if missed + invented > 0 {
            self.amiss.push(format!(
                "{name}: {missed} of {} clears missed, {invented} invented",
                told.len()
            ));
        }
    }

    fn score_mongo_clients(&mut self, name: &str, apps: &[&Value], inferred: u64) {
        let told: u64 = apps
            .iter()
            .map(|app| app["stats"]["clients"].as_u64().unwrap())
            .sum();
        self.instances += 1;
        if told == inferred {
            self.mongo_clients_right += 1;
        } else {
            self.amiss.push(format!(
                "{name}: {inferred} mongo clients instead of {told}"
            ));
        }
    }

    fn score_pools(
        &mut self,
        name: &str,
        apps: &[&Value],
        key: &Key,
        clients: &Value,
        ended_by_server: u64,
    ) {
        let rows = clients["clients"].as_array().unwrap();
        let mut rows = rows
            .iter()
            .filter(|row| row["address"] == key.0.as_str() && row["app"] == key.1.as_str())
            .peekable();
        if rows.peek().is_none() {
            return;
        }
        let (mut opened, mut closed, mut open) = (0, 0, 0);
        for row in rows {
            let field = |name: &str| row["pooled"][name].as_u64().unwrap();
            opened += field("opened");
            closed += field("closed");
            open += field("active") + field("idle");
        }
        let sum = |field: &str| -> u64 {
            let counts = apps.iter().map(|app| app["stats"][field].as_u64());
            counts.map(Option::unwrap).sum()
        };
        let told_open: u64 = apps.iter().map(|app| told_open(app)).sum();
        let created: u64 = apps.iter().map(|app| told_created(app)).sum();
        let ready = sum("ready");
        self.pools += 1;
        // A driver may tell of a socket that was closed on it when it wants to use it next (Connection Monitoring
        // and Pooling specification § Checking Out a Connection: a perished connection is closed then).
        let unnoticed = told_open.saturating_sub(open);
        let is_open_right = open <= told_open && unnoticed <= ended_by_server;
        // What never got through its handshake may or may not be known for what it was to be.
        if (ready..=created).contains(&opened) && is_open_right {
            self.pools_unnoticed += u64::from(unnoticed > 0);
            self.pools_right += 1;
        } else {
            self.amiss.push(format!(
                "{name}: {opened} pooled connections opened, {closed} closed, {open} open instead of {ready} ready of \
                 {created} created, {told_open} open"
            ));
        }
    }

    fn score_reasons(&mut self, apps: &[&Value], inferred: [u64; 4]) {
        for (reason, inferred) in ["idle", "stale", "error", "poolClosed"]
            .iter()
            .zip(inferred)
        {
            let told = apps
                .iter()
                .map(|app| app["stats"]["closed"][reason].as_u64());
            let told: u64 = told.map(Option::unwrap_or_default).sum();
            self.closes += told;
            self.closes_right += told.min(inferred);
        }
    }

    pub(super) fn summary(&self) -> String {
        let share = |part: u64, whole: u64| {
            if whole == 0 {
                return "none".to_owned();
            }
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            let share = part as f64 / whole as f64;
            format!("{share:.3} ({part} of {whole})")
        };
        format!(
            "pool clears: recall {}, precision {}; mongo clients per instance exact {}; opened and open as CMAP {}, \
             sockets closed but not noticed by the driver in {} of them; reasons of closes {}",
            share(self.clears_found, self.clears_true),
            share(self.clears_confirmed, self.clears_inferred),
            share(self.mongo_clients_right, self.instances),
            share(self.pools_right, self.pools),
            self.pools_unnoticed,
            share(self.closes_right, self.closes),
        )
    }
}

impl AddAssign for Scores {
    fn add_assign(&mut self, other: Self) {
        self.clears_true += other.clears_true;
        self.clears_found += other.clears_found;
        self.clears_inferred += other.clears_inferred;
        self.clears_confirmed += other.clears_confirmed;
        self.instances += other.instances;
        self.mongo_clients_right += other.mongo_clients_right;
        self.pools += other.pools;
        self.pools_right += other.pools_right;
        self.pools_unnoticed += other.pools_unnoticed;
        self.closes += other.closes;
        self.closes_right += other.closes_right;
        self.amiss.extend(other.amiss);
    }
}

/// Episodes of clears as the driver's events tell them. What a driver tells when its client is closed is none.
fn told_clears(app: &Value) -> Vec<Span> {
    let events = app["events"].as_array().unwrap();
    let times = |name: &str| -> Vec<f64> {
        let named = events.iter().filter(|event| event["event"] == name);
        named.map(|event| event["at"].as_f64().unwrap()).collect()
    };
    let closed = times("pool_closed");
    let is_over = |at: f64| {
        // PyMongo 3 tells a clear where others tell that the pool is closed, and nothing comes after it but another
        // client.
        let tells_clears = app["driver"] == "pymongo-3.13";
        let later = events
            .iter()
            .filter(|event| event["at"].as_f64() > Some(at));
        let mut next = later.filter_map(|event| event["event"].as_str());
        let next = next.find(|name| matches!(*name, "pool_created" | "created" | "ready"));
        tells_clears
            && (next == Some("pool_created")
                || (next.is_none() && app["stats"]["clients"].as_u64() == Some(0)))
    };
    let mut spans: Vec<Span> = Vec::new();
    for at in times("pool_cleared") {
        if closed.iter().any(|closed| (closed - at).abs() < 0.2) || is_over(at) {
            continue;
        }
        match spans.last_mut() {
            Some(last) if at - last.1 <= GAP => last.1 = at,
            _ => spans.push((at, at)),
        }
    }
    spans
}

/// Connections that are open as the driver's events tell them. Node tells nothing of connections that were in use, or
/// about to be made, when their client was closed: once the last pool is closed none is left.
fn told_open(app: &Value) -> u64 {
    let counted = app["stats"]["open"].as_u64().unwrap();
    let mut pools = 0_u64;
    let mut open: Vec<&Value> = Vec::new();
    // Told of late, when the next client has used their numbers again.
    let mut leaving: Vec<&Value> = Vec::new();
    for event in app["events"].as_array().unwrap() {
        let connection = &event["connection"];
        match event["event"].as_str().unwrap_or_default() {
            "pool_created" => pools += 1,
            "pool_closed" => {
                pools = pools.saturating_sub(1);
                if pools == 0 {
                    leaving.append(&mut open);
                }
            }
            "created" => open.push(connection),
            "closed" => {
                let is_leaving = event["reason"] == "poolClosed" && leaving.contains(&connection);
                let from = if is_leaving { &mut leaving } else { &mut open };
                if let Some(position) = from.iter().position(|one| *one == connection) {
                    from.swap_remove(position);
                }
            }
            _ => {}
        }
    }
    counted.min(open.len() as u64)
}

/// Connections that a driver began to make. Node 3.6 tells of those only that were made, but numbers them all.
fn told_created(app: &Value) -> u64 {
    let told = app["stats"]["created"].as_u64().unwrap();
    if app["driver"] != "node-3.6-unified" {
        return told;
    }
    let events = app["events"].as_array().unwrap().iter();
    let numbers = events.filter_map(|event| event["connection"].as_u64());
    numbers.max().unwrap_or(0).max(told)
}

#[derive(Debug, Default)]
struct InferredPools {
    /// Begin and end (0: none) of episodes, in nanoseconds.
    clears: BTreeMap<Key, BTreeSet<[u64; 2]>>,
    /// Pooled connections that the server's side ended.
    ended_by_server: BTreeMap<Key, BTreeSet<ConnectionId>>,
    /// Closed connections by reason: idle, stale, error, pool closed.
    closed: BTreeMap<Key, [u64; 4]>,
    /// Mongo clients that are open at the end.
    open: BTreeMap<Key, u64>,
}

/// What is inferred from a journal.
fn infer(journal: &str) -> InferredPools {
    let mut reader = Reader::new(journal.as_bytes());
    let mut observer = Observer::new(Vec::new());
    let mut sequencer = Sequencer::default();
    let mut found = InferredPools::default();
    let mut looked_at = Timestamp::default();
    let mut episodes: BTreeMap<(u64, u16, Timestamp), (Key, u64)> = BTreeMap::new();
    let mut closed = BTreeMap::new();
    while let Some(line) = reader.next_line().unwrap() {
        let at = match line {
            Line::Header(header) => {
                observer = Observer::new(header.upstreams);
                continue;
            }
            Line::Mark(at) => at,
            Line::Entry(entry) => {
                let at = entry.at;
                sequencer.push(entry);
                at
            }
        };
        sequencer.tell_until(at, &mut observer, &mut Vec::new(), |_| {});
        // They are remembered for longer than that.
        if at.since(looked_at).as_secs() >= 1 {
            looked_at = at;
            look(observer.pools(), &mut episodes);
            note_ends(observer.pools(), &mut found.ended_by_server, &mut closed);
        }
    }
    look(observer.pools(), &mut episodes);
    note_ends(observer.pools(), &mut found.ended_by_server, &mut closed);
    for ((key, _), reasons) in closed {
        let sums = found.closed.entry(key).or_default();
        for (sum, count) in sums.iter_mut().zip(reasons) {
            *sum += count;
        }
    }
    for ((_, _, begin), (key, end)) in episodes {
        found
            .clears
            .entry(key)
            .or_default()
            .insert([begin.as_nanos(), end]);
    }
    for client in observer
        .pools()
        .mongo_clients()
        .filter(|client| client.is_open())
    {
        if let Some(instance) = observer.pools().instance(client.instance) {
            let key = (instance.address.to_string(), instance.app.to_string());
            *found.open.entry(key).or_default() += 1;
        }
    }
    found
}

fn note_ends(
    pools: &Pools,
    by_server: &mut BTreeMap<Key, BTreeSet<ConnectionId>>,
    closed: &mut BTreeMap<(Key, u64), [u64; 4]>,
) {
    let key = |instance| {
        let instance = pools.instance(instance)?;
        Some((instance.address.to_string(), instance.app.to_string()))
    };
    for connection in pools.connections().filter(|one| one.is_pooled()) {
        let is_by_server = connection
            .ended
            .is_some_and(|end| end.ending.initiator == Initiator::Server);
        if let Some(key) = connection.instance.and_then(key)
            && is_by_server
        {
            by_server.entry(key).or_default().insert(connection.id);
        }
    }
    for client in pools.mongo_clients() {
        let Some(key) = key(client.instance) else {
            continue;
        };
        let reasons = client.pools.values().map(|pool| pool.closed);
        let sums = reasons.fold([0; 4], |[idle, stale, error, pool_closed], closed| {
            [
                idle + closed.idle,
                stale + closed.stale,
                error + closed.error,
                pool_closed + closed.pool_closed,
            ]
        });
        closed.insert((key, client.id.0), sums);
    }
}

fn look(pools: &Pools, episodes: &mut BTreeMap<(u64, u16, Timestamp), (Key, u64)>) {
    for client in pools.mongo_clients() {
        let Some(instance) = pools.instance(client.instance) else {
            continue;
        };
        let key = (instance.address.to_string(), instance.app.to_string());
        for (upstream, pool) in &client.pools {
            for clear in &pool.clears {
                let end = clear.ready_at.map_or(0, Timestamp::as_nanos);
                episodes.insert((client.id.0, upstream.0, clear.at), (key.clone(), end));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds are enough")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
