//! What is inferred of pools: their settings, beside those that were configured; why their connections were closed, how
//! often they were cleared, and bursts of connections, beside what drivers tell.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Driver, Mongod, Poolscope, eventually};

const LIMIT: Duration = Duration::from_mins(1);

/// Drivers that tell when and why they close connections.
const TELLING: [Driver; 8] = [
    Driver::PyMongo4,
    Driver::PyMongo4Async,
    Driver::PyMongo3,
    Driver::Node4,
    Driver::Node6,
    Driver::Node7,
    Driver::Rust,
    Driver::Go18,
];

/// Sockets of a pool.
const POOL: u64 = 3;

/// After so long without use connections are replaced.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// A driver on a stage of its own.
struct Actor {
    driver: Driver,
    app: String,
    agent: Agent,
}

/// A client of each driver, side by side.
fn with_all(scene: &str, options: &str, play: impl Fn(&Poolscope, &mut Actor) + Sync) {
    let server = Mongod::standalone();
    let poolscope = Poolscope::start(&[server.addr()]);
    let (poolscope, play) = (&poolscope, &play);
    std::thread::scope(|scope| {
        for driver in TELLING {
            scope.spawn(move || {
                let app = format!("{}-{scene}", driver.label());
                let mut agent = Agent::spawn(driver);
                let uri = poolscope.uri(&app);
                let uri = format!("{uri}&heartbeatFrequencyMS=1000{options}");
                agent.open("app", &uri);
                play(poolscope, &mut Actor { driver, app, agent });
            });
        }
    });
}

impl Actor {
    /// Operations that take so long, some at a time.
    fn sleep(&mut self, milliseconds: u64, count: u64, concurrency: u64) -> u64 {
        self.agent.submit(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": milliseconds },
            "count": count, "concurrency": concurrency,
        }))
    }

    /// Lets the pool grow to its size.
    fn fill(&mut self) {
        let run = self.sleep(40, 2 * POOL, POOL);
        self.agent.wait(run);
    }

    /// The application's only mongo client.
    fn mongo_client(&self, poolscope: &Poolscope) -> Result<Value, String> {
        let answer = poolscope.api(&format!("clients?client={}", self.app));
        let rows = answer["clients"].as_array().unwrap();
        let clients: Vec<&Value> = rows
            .iter()
            .flat_map(|row| row["mongo_clients"].as_array().unwrap())
            .collect();
        match clients[..] {
            [client] => Ok(client.clone()),
            _ => Err(format!("{}: {clients:#?}", self.app)),
        }
    }

    /// The series of the application in a family; `None` where there is none.
    fn series(&self, poolscope: &Poolscope, family: &str) -> Option<f64> {
        let app = format!("app=\"{}\"", self.app);
        let metrics = poolscope.metrics();
        let mut of_it = metrics.lines().filter(|line| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with('{')) && line.contains(&app)
        });
        let (_, value) = of_it.next()?.rsplit_once(' ')?;
        value.parse().ok()
    }

    /// Waits until a setting is inferred, and is the same in the API and in a family.
    #[track_caller]
    fn await_size(&self, poolscope: &Poolscope, setting: &str, family: &str, expected: u64) {
        eventually(LIMIT, || {
            let client = self.mongo_client(poolscope)?;
            let inferred = &client["pool_size"][setting];
            let series = self.series(poolscope, family);
            let value = inferred["value"].as_f64();
            if value.is_some_and(|value| same(value, expected))
                && series.is_some_and(|series| same(series, expected))
            {
                return Ok(());
            }
            Err(format!(
                "{}: {setting} {inferred}, {family} {series:?}",
                self.app
            ))
        });
    }
}

/// A number of the exposition is this count.
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn same(found: f64, count: u64) -> bool {
    (found - count as f64).abs() < 0.5
}

const MAX_FAMILY: &str = "poolscope_max_pool_size_inferred";
const MIN_FAMILY: &str = "poolscope_min_pool_size_inferred";
const SATURATION: &str = "poolscope_pool_saturation_ratio";

#[test]
fn the_size_a_pool_is_limited_to_is_inferred_when_it_is_saturated() {
    let options = format!("&maxPoolSize={POOL}");
    with_all("limited", &options, |poolscope, actor| {
        actor.fill();
        eventually(LIMIT, || match actor.mongo_client(poolscope)? {
            client if client["pool_size"]["open"] == POOL => Ok(()),
            client => Err(format!("{}: {client:#}", actor.app)),
        });
        // Its pool has as many sockets as it may have, and nobody had to wait for one of them.
        let client = actor.mongo_client(poolscope).unwrap();
        for setting in ["max_inferred", "min_inferred"] {
            assert!(client["pool_size"][setting].is_null(), "{client:#}");
        }
        assert!(client["max_idle_seconds_inferred"].is_null(), "{client:#}");
        for family in [MAX_FAMILY, MIN_FAMILY, SATURATION] {
            assert_eq!(actor.series(poolscope, family), None, "{}", actor.app);
        }
        // Twice as many operations as it has sockets for.
        let slow = actor.sleep(4000, 4 * POOL, 2 * POOL);
        actor.await_size(poolscope, "max_inferred", MAX_FAMILY, POOL);
        eventually(LIMIT, || match actor.series(poolscope, SATURATION) {
            Some(ratio) if same(ratio, 1) => Ok(()),
            ratio => Err(format!("{}: saturated to {ratio:?}", actor.app)),
        });
        assert_eq!(actor.agent.wait(slow)["done"], 4 * POOL, "{}", actor.app);
        eventually(LIMIT, || match actor.series(poolscope, SATURATION) {
            Some(ratio) if same(ratio, 0) => Ok(()),
            ratio => Err(format!("{}: still saturated to {ratio:?}", actor.app)),
        });
        actor.await_size(poolscope, "max_inferred", MAX_FAMILY, POOL);
    });
}

#[test]
fn the_size_a_pool_is_filled_up_to_is_inferred() {
    let options = format!("&minPoolSize={POOL}");
    with_all("filled", &options, |poolscope, actor| {
        if actor.driver == Driver::PyMongo4Async {
            // It connects when it is first used.
            actor.agent.run("app", "find", 1, &json!({ "limit": 1 }));
        }
        actor.await_size(poolscope, "min_inferred", MIN_FAMILY, POOL);
        let client = actor.mongo_client(poolscope).unwrap();
        assert!(client["pool_size"]["max_inferred"].is_null(), "{client:#}");
        assert!(client["max_idle_seconds_inferred"].is_null(), "{client:#}");
    });
}

/// Closes as a driver tells them: idle, stale, error, pool closed. PyMongo 3 tells of those that go with their client that
/// they were stale.
fn told(actor: &mut Actor) -> [u64; 4] {
    let stats = actor.agent.stats("app");
    let of = |reason: &str| stats["closed"][reason].as_u64().unwrap_or(0);
    let [idle, stale, error, pool_closed] = ["idle", "stale", "error", "poolClosed"].map(of);
    if actor.driver == Driver::PyMongo3 && stats["clients"] == 0 {
        return [idle, 0, error, stale + pool_closed];
    }
    [idle, stale, error, pool_closed]
}

/// The same as poolscope tells them, each with what it is concluded from.
fn inferred(client: &Value) -> [u64; 4] {
    let rows = client["closed_because"].as_array().unwrap();
    for row in rows {
        let confidence = row["confidence"].as_f64().unwrap();
        assert!(confidence > 0.0 && confidence <= 1.0, "{row:#}");
        assert!(!row["evidence"].as_str().unwrap().is_empty(), "{row:#}");
    }
    ["idle", "stale", "error", "pool_closed"].map(|reason| {
        let of_it = rows.iter().filter(|row| row["reason"] == reason);
        let count = of_it.map(|row| row["count"].as_u64().unwrap()).sum();
        assert_eq!(client["closed"][reason], count, "{client:#}");
        count
    })
}

#[test]
fn closes_of_idle_connections_are_told_with_their_reason() {
    let max_idle = MAX_IDLE.as_millis();
    let options = format!("&maxPoolSize={POOL}&maxIdleTimeMS={max_idle}");
    with_all("recycled", &options, |poolscope, actor| {
        for _ in 0..3 {
            actor.fill();
            // The pause is the subject: after it every connection has been idle for too long.
            std::thread::sleep(MAX_IDLE + Duration::from_millis(200));
        }
        actor.fill();
        let closed = told(actor);
        assert!(closed[0] >= 2 * POOL, "{}: {closed:?}", actor.app);
        eventually(LIMIT, || {
            let client = actor.mongo_client(poolscope)?;
            let (told, inferred) = (told(actor), inferred(&client));
            let value = client["max_idle_seconds_inferred"]["value"].as_f64();
            // Drivers close what was idle for too long when they look at it, or use the pool again.
            let limit = MAX_IDLE.as_secs_f64();
            // PyMongo 3 sweeps once a second as well: what it closes may be of too many ages to tell.
            let may_lack = actor.driver == Driver::PyMongo3;
            let is_right = value.map_or(may_lack, |value| (limit..limit + 1.0).contains(&value));
            if told == inferred && is_right {
                return Ok(());
            }
            let app = &actor.app;
            Err(format!(
                "{app}: {inferred:?} instead of {told:?}, idle for {value:?}"
            ))
        });
        // What was idle for too long was not closed for the goodbye that follows.
        std::thread::sleep(MAX_IDLE + Duration::from_millis(200));
        actor.fill();
        actor.agent.close("app");
        let told = told(actor);
        assert!(told[0] > 0 && told[3] > 0, "{}: {told:?}", actor.app);
        eventually(LIMIT, || {
            let inferred = inferred(&actor.mongo_client(poolscope)?);
            if told == inferred {
                return Ok(());
            }
            Err(format!("{}: {inferred:?} instead of {told:?}", actor.app))
        });
    });
}

#[test]
fn closes_of_connections_that_go_with_their_client_are_told_with_their_reason() {
    let options = format!("&maxPoolSize={POOL}");
    with_all("closed", &options, |poolscope, actor| {
        actor.fill();
        let client = eventually(LIMIT, || actor.mongo_client(poolscope));
        assert_eq!(inferred(&client), [0; 4], "{client:#}");
        actor.agent.close("app");
        assert_eq!(told(actor), [0, 0, 0, POOL], "{}", actor.app);
        eventually(LIMIT, || {
            let client = actor.mongo_client(poolscope)?;
            match inferred(&client) {
                [0, 0, 0, POOL] => Ok(()),
                inferred => Err(format!("{}: {inferred:?}, {client:#}", actor.app)),
            }
        });
    });
}

const CLEARS: &str = "poolscope_pool_clears_total";
const BURSTS: &str = "poolscope_connection_bursts_total";

/// An application with load, in a pool that has grown to its size.
fn busy(poolscope: &Poolscope, driver: Driver) -> Actor {
    let app = format!("{}-busy", driver.label());
    let mut agent = Agent::spawn(driver);
    let uri = poolscope.uri(&app);
    let uri = format!("{uri}&heartbeatFrequencyMS=1000&maxPoolSize={POOL}");
    agent.open("app", &uri);
    let mut actor = Actor { driver, app, agent };
    actor.fill();
    actor.agent.submit(json!({
        "do": "run", "name": "app", "operation": "find", "args": { "limit": 1 },
        "seconds": 600, "concurrency": POOL, "pause": 25,
    }));
    actor
}

fn count(stats: &Value, field: &str) -> u64 {
    let count = stats[field].as_u64();
    count.unwrap_or_else(|| panic!("no {field}: {stats}"))
}

#[test]
fn a_crash_counts_as_one_clear_of_each_pool_and_as_no_burst() {
    let mut server = Mongod::standalone();
    let poolscope = Poolscope::start(&[server.addr()]);
    let mut actors = TELLING.map(|driver| busy(&poolscope, driver));
    for actor in &actors {
        // What a connection was for is known once its client's monitors have shown themselves.
        eventually(LIMIT, || match actor.mongo_client(&poolscope)? {
            client if client["monitors"] == 2 && client["pool_size"]["open"] == POOL => Ok(()),
            client => Err(format!("{}: {client:#}", actor.app)),
        });
        let app = [("app", &*actor.app)];
        assert!(same(poolscope.sum(CLEARS, &app), 0), "{}", actor.app);
    }
    server.kill();
    for actor in &mut actors {
        eventually(LIMIT, || match actor.agent.stats("app") {
            stats if count(&stats, "cleared") > 0 => Ok(()),
            stats => Err(format!("{}: {stats}", actor.app)),
        });
    }
    server.restart();
    for actor in &mut actors {
        let stats = eventually(LIMIT, || match actor.agent.stats("app") {
            stats if count(&stats, "open") == POOL => Ok(stats),
            stats => Err(format!("{}: {stats}", actor.app)),
        });
        // Some drivers tell of each check that failed.
        let tells_each = matches!(
            actor.driver,
            Driver::Node4 | Driver::PyMongo3 | Driver::Go18
        );
        assert!(tells_each || count(&stats, "cleared") == 1, "{stats}");
        // Each socket of the pool was replaced, and nothing was dialled beside, but what the server that was away refused.
        let failures = stats["checkout_failed"].as_object();
        let failures = failures.into_iter().flat_map(|failures| failures.values());
        let refused: u64 = failures.filter_map(Value::as_u64).sum();
        let created = count(&stats, "created");
        assert!(
            (2 * POOL..=2 * POOL + refused).contains(&created),
            "{}: {stats}",
            actor.app
        );
        let of_app = |trigger| [("app", &*actor.app), ("trigger", trigger)];
        eventually(LIMIT, || {
            let clears = ["network", "not_primary", "server_shutdown", "unknown"]
                .map(|trigger| poolscope.sum(CLEARS, &of_app(trigger)));
            let bursts = poolscope.sum(BURSTS, &of_app("network")[..1]);
            let is_right = same(clears[0], 1) && clears[1..].iter().all(|sum| same(*sum, 0));
            if is_right && same(bursts, 0) {
                return Ok(());
            }
            let client = actor.mongo_client(&poolscope)?;
            Err(format!(
                "{}: {clears:?} clears, {bursts} bursts, {client:#}",
                actor.app
            ))
        });
    }
}

#[test]
fn a_client_for_each_request_counts_as_a_burst_of_its_own() {
    let server = Mongod::standalone();
    for driver in [Driver::PyMongo4, Driver::Node7, Driver::Rust] {
        // What is dialled from one address is looked at together.
        let poolscope = Poolscope::start(&[server.addr()]);
        let neighbour = busy(&poolscope, Driver::PyMongo4);
        let mut agent = Agent::spawn(driver);
        let app = format!("{}-brief", driver.label());
        let uri = poolscope.uri(&app);
        let bursts = |app: &str| poolscope.sum(BURSTS, &[("app", app)]);
        eventually(LIMIT, || {
            agent.open("app", &uri);
            agent.run("app", "find", 1, &json!({ "limit": 1 }));
            agent.close("app");
            match bursts(&app) {
                count if same(count, 1) => Ok(()),
                count => Err(format!("{app}: {count} bursts")),
            }
        });
        // A client opens a pooled connection, a monitor, and at times another that measures round trips.
        let created = count(&agent.stats("app"), "created");
        assert!(3 * created >= 25, "{app}: {created}");
        assert!(same(bursts(&neighbour.app), 0), "{}", neighbour.app);
    }
}
