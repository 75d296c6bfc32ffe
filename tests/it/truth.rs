//! The numbers of pools agree with those of the drivers' own monitoring events.
//!
//! A driver reports its pools as CMAP says (Connection Monitoring and Pooling specification § Events); those reports
//! are the reference here, for each driver and on both kinds of server; Java 3.6 has older ones that tell the same
//! counts. Node 3.6 with the legacy topology has none: there the sockets that its own server objects list are the
//! reference for what is open.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Driver, Mongod, MongodOptions, Poolscope, ReplicaSet, eventually};

/// A silent connection is decided after 12 seconds with the default heartbeat, a third of that with a fast one;
/// the rest is for busy machines.
const LIMIT: Duration = Duration::from_secs(40);

/// A heartbeat of one second, so that round-trip monitors speak and silent connections are decided soon.
const FAST: &str = "&heartbeatFrequencyMS=1000";

const POOL_MIN: u64 = 3;

/// What a pool is doing, by either account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pool {
    opened: u64,
    closed: u64,
    active: u64,
    idle: u64,
}

/// Where a driver is tried.
#[derive(Clone, Copy, Debug)]
struct Stage<'a> {
    /// Runs the agents' connections, by way of [`Self::poolscope`].
    server: &'a Mongod,
    poolscope: &'a Poolscope,
    /// A connection string through poolscope that ends in options.
    uri: &'a str,
}

/// A driver's process on a stage.
struct Actor<'a> {
    stage: Stage<'a>,
    driver: Driver,
    agent: Agent,
}

/// One application name, which is also the name of its clients in the agent.
fn app(driver: Driver, scene: &str) -> String {
    format!("{driver:?}-{scene}")
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no count: {value}"))
}

impl<'a> Actor<'a> {
    fn enter(stage: Stage<'a>, driver: Driver) -> Self {
        let agent = Agent::spawn(driver);
        Self {
            stage,
            driver,
            agent,
        }
    }

    /// Opens a client with further options; the application name is returned.
    fn open(&mut self, scene: &str, options: &str) -> String {
        let app = app(self.driver, scene);
        let uri = format!("{}&appName={app}{options}", self.stage.uri);
        self.agent.open(&app, &uri);
        app
    }

    /// Repeats a small operation, some at a time.
    fn run(&mut self, app: &str, count: u64, concurrency: u64) {
        let answer = self.agent.request(json!({
            "do": "run", "name": app, "operation": "find", "count": count, "concurrency": concurrency,
        }));
        assert_eq!(answer["done"], count, "{app}: {answer}");
    }

    /// What the driver says: its pool, and how many clients there are.
    fn said(&mut self, app: &str) -> (Pool, u64) {
        let stats = self.agent.stats(app);
        let clients = number(&stats["clients"]);
        let open = number(&stats["open"]);
        if !self.driver.counts_connections() {
            let pool = Pool {
                idle: open,
                ..Pool::default()
            };
            return (pool, clients);
        }
        let closed = stats["closed"].as_object().unwrap().values();
        let active = number(&stats["checked_out"]);
        let pool = Pool {
            opened: number(&stats["created"]),
            closed: closed.map(number).sum(),
            active,
            idle: open - active,
        };
        (pool, clients)
    }

    /// The row of the application, when there is one.
    fn row(&self, app: &str) -> Option<Value> {
        let mut answer = self.stage.poolscope.api(&format!("clients?client={app}"));
        let rows = answer["clients"].as_array_mut().unwrap();
        assert!(rows.len() <= 1, "{rows:#?}");
        rows.pop()
    }

    /// What poolscope says of the pool; nothing is opened where it says nothing.
    fn seen(&self, app: &str) -> Pool {
        self.row(app).map_or_else(Pool::default, |row| Pool {
            opened: number(&row["pooled"]["opened"]),
            closed: number(&row["pooled"]["closed"]),
            active: number(&row["pooled"]["active"]),
            idle: number(&row["pooled"]["idle"]),
        })
    }

    /// Waits until both accounts agree, and returns what they say.
    #[track_caller]
    fn agree(&mut self, app: &str) -> Pool {
        eventually(LIMIT, || {
            let (said, _) = self.said(app);
            let seen = self.seen(app);
            let is_equal = if self.driver.counts_connections() {
                said == seen
            } else {
                // Its own account has neither what is over nor what is in use.
                said.idle == seen.active + seen.idle
            };
            if is_equal {
                Ok(seen)
            } else {
                let row = self.row(app);
                Err(format!("{app}: said {said:?}, seen {seen:?}, {row:#?}"))
            }
        })
    }

    /// Waits until every connection is decided, and compares roles, monitors, metrics and the list of connections.
    #[track_caller]
    fn agree_in_full(&mut self, app: &str) -> Pool {
        eventually(LIMIT, || {
            let (_, clients) = self.said(app);
            let row = self.row(app).unwrap();
            let [monitors, round_trip_monitors] = self.driver.monitors().map(|each| each * clients);
            let found = [
                number(&row["roles"]["monitor"]),
                number(&row["roles"]["round_trip_monitor"]),
                number(&row["monitors"]),
                number(&row["undecided"]),
            ];
            let all = monitors + round_trip_monitors;
            if found == [monitors, round_trip_monitors, all, 0] {
                Ok(())
            } else {
                Err(format!("{app}: {clients} clients, {row:#?}"))
            }
        });
        let pool = self.agree(app);
        self.check_clients(app);
        self.check_metrics(app, pool);
        self.check_connections(app, pool);
        pool
    }

    /// The number of MongoClient objects.
    #[track_caller]
    fn check_clients(&mut self, app: &str) {
        let (_, clients) = self.said(app);
        let expected = self.driver.counts_connections().then_some(clients);
        eventually(LIMIT, || {
            let row = self.row(app).unwrap();
            let found = row["mongo_clients_estimated"].as_u64();
            let poolscope = self.stage.poolscope;
            let metric = poolscope.sum("poolscope_mongo_clients_estimated", &[("app", app)]);
            if found == expected && same(metric, expected.unwrap_or(0)) {
                Ok(())
            } else {
                Err(format!(
                    "{app}: {clients} clients, found {found:?} and {metric}"
                ))
            }
        });
    }

    #[track_caller]
    fn check_metrics(&self, app: &str, pool: Pool) {
        let sum = |family: &str, state: Option<&str>| {
            let mut labels = vec![("app", app)];
            labels.extend(state.map(|state| ("state", state)));
            self.stage.poolscope.sum(family, &labels)
        };
        for (family, state, count) in [
            (
                "poolscope_pooled_connections_opened_total",
                None,
                pool.opened,
            ),
            (
                "poolscope_pooled_connections_closed_total",
                None,
                pool.closed,
            ),
            ("poolscope_pooled_connections", Some("active"), pool.active),
            ("poolscope_pooled_connections", Some("idle"), pool.idle),
        ] {
            let found = sum(family, state);
            assert!(
                same(found, count),
                "{app}: {family} {state:?} is {found}, not {count}"
            );
        }
    }

    /// Every open connection has one role; what carried commands is no monitor, and the other way round.
    #[track_caller]
    fn check_connections(&self, app: &str, pool: Pool) {
        let answer = self
            .stage
            .poolscope
            .api(&format!("connections?client={app}"));
        let rows = answer["connections"].as_array().unwrap();
        let pooled = rows.iter().filter(|row| row["role"] == "application");
        assert_eq!(pooled.count() as u64, pool.active + pool.idle, "{rows:#?}");
        for row in rows {
            let is_monitor = row["role"] == "monitor" || row["role"] == "round_trip_monitor";
            let is_monitoring = row["state"] == "monitoring";
            assert_eq!(is_monitor, is_monitoring, "{row:#}");
            if is_monitor {
                assert_eq!(row["last_command"], "hello", "{row:#}");
                // The monitors of Java 3.6 present credentials like its pool.
                let is_known = self.driver == Driver::Java36;
                assert!(is_known || row["auth_mechanism"].is_null(), "{row:#}");
            }
        }
    }

    /// Everything that was opened is closed, whatever it was for.
    #[track_caller]
    fn all_is_closed(&self, app: &str, opened: u64) {
        let expected = Pool {
            opened,
            closed: opened,
            ..Pool::default()
        };
        eventually(LIMIT, || {
            let row = self.row(app).unwrap();
            let seen = self.seen(app);
            if seen == expected && row["connections"]["open"] == 0 {
                Ok(())
            } else {
                Err(format!("{app}: {opened} opened, seen {seen:?}, {row:#?}"))
            }
        });
    }

    /// Waits until the driver has filled its pool and takes all of it for usable: Node says nothing of the end of a
    /// connection that was not yet.
    #[track_caller]
    fn wait_until_filled(&mut self, app: &str) {
        if !self.has_min_pool_size() {
            return;
        }
        eventually(LIMIT, || {
            let stats = self.agent.stats(app);
            let open = number(&stats["open"]);
            let is_filled = open >= POOL_MIN && stats["created"] == stats["ready"];
            // Node 3.6 reports a connection when it is usable, and never one that was not when the pool was
            // closed. Beside the pool there is a monitor, and after a heartbeat one that measures round trips.
            let all = self
                .row(app)
                .map_or(0, |row| number(&row["connections"]["open"]));
            let tells_all = self.driver != Driver::Node36Unified || all <= open + 1;
            if is_filled && (tells_all || app.ends_with("prewarmed")) {
                Ok(())
            } else {
                Err(format!("{app}: {all} open, {stats}"))
            }
        });
    }

    /// Whether a pool can be filled in advance; the legacy topology has no option for it.
    fn has_min_pool_size(&self) -> bool {
        self.driver.counts_connections()
    }
}

/// A number of the exposition is this count.
#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn same(found: f64, count: u64) -> bool {
    (found - count as f64).abs() < 0.5
}

/// Runs one scene for all drivers side by side, each in a process of its own.
fn with_all(stage: Stage<'_>, scene: impl Fn(Actor<'_>) + Sync) {
    let scene = &scene;
    std::thread::scope(|scope| {
        let counting = Driver::ABLE.into_iter().chain([Driver::Java36]);
        for driver in counting {
            scope.spawn(move || scene(Actor::enter(stage, driver)));
        }
    });
}

/// One client, several operations at a time; and a pool in use, then at rest.
fn used(actor: &mut Actor<'_>) {
    let app = actor.open("used", FAST);
    actor.run(&app, 40, 4);
    actor.agree(&app);
    actor.agent.hold(&app, 3);
    let held = actor.agree(&app);
    if actor.driver.counts_connections() {
        assert_eq!(held.active, 3, "{app}");
    } else {
        // Its pool sends several operations into one socket.
        assert!((1..=3).contains(&held.active), "{app}: {held:?}");
    }
    let server = actor.stage.server;
    assert_eq!(actor.agent.release(&app, server)["held"], 3);
    eventually(LIMIT, || match actor.agree(&app) {
        pool if pool.active == 0 => Ok(()),
        pool => Err(format!("{app}: {pool:?}")),
    });
}

/// Three clients of one name in one process; at the end all are closed.
fn several(actor: &mut Actor<'_>) {
    let mut app = String::new();
    for _ in 0..3 {
        app = actor.open("several", FAST);
        actor.run(&app, 8, 2);
    }
    let pool = actor.agree_in_full(&app);
    assert!(pool.idle >= 3, "{app}: {pool:?}");
    actor.agent.close(&app);
    let pool = actor.agree(&app);
    actor.all_is_closed(&app, pool.opened);
    actor.check_clients(&app);
}

/// Connections that sat idle for too long are replaced.
fn recycled(actor: &mut Actor<'_>) {
    let app = actor.open("recycled", "&maxIdleTimeMS=300");
    actor.run(&app, 12, 4);
    actor.agree(&app);
    // The pause is the subject: after it every connection has been idle for too long.
    std::thread::sleep(Duration::from_millis(600));
    actor.run(&app, 1, 1);
    let pool = actor.agree(&app);
    // The legacy topology has no such option.
    let is_recycled = pool.closed > 0 || !actor.driver.counts_connections();
    assert!(is_recycled, "{app}: {pool:?}");
}

/// A client that is closed before anything about its silent connections can be known.
fn short_lived(actor: &mut Actor<'_>) {
    let min = format!("&minPoolSize={POOL_MIN}");
    let app = actor.open("short", &min);
    actor.run(&app, 4, 2);
    actor.wait_until_filled(&app);
    actor.agent.close(&app);
    let pool = actor.agree(&app);
    actor.all_is_closed(&app, pool.opened);
}

/// A client for each request, closed after it: most end before their monitors have said anything.
fn one_per_request(actor: &mut Actor<'_>) {
    let mut app = String::new();
    for _ in 0..5 {
        app = actor.open("brief", "");
        actor.run(&app, 2, 1);
        actor.agent.close(&app);
    }
    let pool = actor.agree(&app);
    assert!(pool.opened >= 5, "{app}: {pool:?}");
    actor.all_is_closed(&app, pool.opened);
    actor.check_clients(&app);
}

/// The process is killed while some of its pool is in use and some of its connections are undecided.
fn killed(mut actor: Actor<'_>) {
    let app = actor.open("killed", &format!("&minPoolSize={POOL_MIN}"));
    actor.run(&app, 4, 2);
    actor.wait_until_filled(&app);
    actor.agent.submit(json!({
        "do": "run", "name": app, "operation": "find", "seconds": 60, "concurrency": 2,
    }));
    let (said, _) = actor.said(&app);
    actor.agent.process().kill();
    eventually(LIMIT, || match actor.row(&app).unwrap() {
        row if row["connections"]["open"] == 0 => Ok(()),
        row => Err(format!("{row:#}")),
    });
    let opened = if actor.driver.counts_connections() {
        said.opened
    } else {
        actor.seen(&app).opened
    };
    actor.all_is_closed(&app, opened);
}

/// All scenes of one driver. The pool that is filled in advance stands unused meanwhile.
fn play(mut actor: Actor<'_>, prewarmed_options: &str) {
    let prewarmed = actor.has_min_pool_size().then(|| {
        let options = format!("&minPoolSize={POOL_MIN}{prewarmed_options}");
        let app = actor.open("prewarmed", &options);
        if actor.driver == Driver::PyMongo4Async {
            // It connects when it is first used.
            actor.run(&app, 1, 1);
        }
        app
    });
    used(&mut actor);
    several(&mut actor);
    recycled(&mut actor);
    short_lived(&mut actor);
    one_per_request(&mut actor);
    if let Some(app) = prewarmed {
        actor.wait_until_filled(&app);
        let pool = actor.agree_in_full(&app);
        let expected = Pool {
            opened: POOL_MIN,
            idle: POOL_MIN,
            ..Pool::default()
        };
        assert_eq!(pool, expected, "{app}");
    }
    let app = app(actor.driver, "used");
    actor.agree_in_full(&app);
    killed(actor);
}

#[test]
fn pools_are_those_of_the_drivers_on_a_replica_set() {
    let mut set = ReplicaSet::start(1);
    let poolscope = Poolscope::start(&set.addrs());
    set.initiate(&poolscope.advertised());
    let uri = set.uri();
    let stage = Stage {
        server: &set.members()[0],
        poolscope: &poolscope,
        uri: &uri,
    };
    with_all(stage, |actor| play(actor, FAST));
}

#[test]
fn pools_are_those_of_the_drivers_on_a_standalone() {
    let server = Mongod::standalone();
    let poolscope = Poolscope::start(&[server.addr()]);
    let uri = format!("mongodb://{}/?w=1", poolscope.addr());
    let stage = Stage {
        server: &server,
        poolscope: &poolscope,
        uri: &uri,
    };
    // With the heartbeat drivers have by default, silence decides after twelve seconds.
    with_all(stage, |actor| play(actor, ""));
}

#[test]
fn pools_that_authenticate_are_told_from_monitors_that_do_not() {
    let server = Mongod::start(MongodOptions {
        auth: true,
        ..MongodOptions::default()
    });
    let poolscope = Poolscope::start(&[server.addr()]);
    let addr = poolscope.addr();
    let user = Mongod::USER;
    let right = Mongod::PASSWORD.replace(' ', "%20");
    let uri = format!("mongodb://{user}:{right}@{addr}/?directConnection=true");
    let wrong = format!("mongodb://{user}:wrong@{addr}/?directConnection=true");
    let stage = Stage {
        server: &server,
        poolscope: &poolscope,
        uri: &uri,
    };
    with_all(stage, |mut actor| {
        authenticated(&mut actor);
        if actor.driver == Driver::Java36 {
            // Its monitors are refused first, and nothing tells their attempts from those of a pool.
            return;
        }
        let Actor {
            stage,
            driver,
            agent,
        } = actor;
        let stage = Stage {
            uri: &wrong,
            ..stage
        };
        refused(&mut Actor {
            stage,
            driver,
            agent,
        });
    });
}

fn authentications(row: &Value, result: &str) -> u64 {
    let rows = row["authentications"].as_array().unwrap();
    rows.iter()
        .filter(|row| row["result"] == result)
        .map(|row| number(&row["count"]))
        .sum()
}

/// Every pooled connection authenticates, and no monitor but those of Java 3.6.
fn authenticated(actor: &mut Actor<'_>) {
    let app = actor.open("authenticated", FAST);
    actor.run(&app, 12, 3);
    let pool = actor.agree_in_full(&app);
    let row = actor.row(&app).unwrap();
    let of_monitors = u64::from(actor.driver == Driver::Java36);
    assert_eq!(
        authentications(&row, "ok"),
        pool.opened + of_monitors,
        "{row:#}"
    );
    assert_eq!(
        row["authentications"].as_array().unwrap().len(),
        1,
        "{row:#}"
    );
    // The database of the user comes first; Java 3.6 names it outside of the commands that are read.
    let database = if actor.driver == Driver::Java36 {
        ""
    } else {
        "admin."
    };
    assert_eq!(row["user"], format!("{database}{}", Mongod::USER));
    let path = format!("connections?client={app}&role=application");
    for connection in actor.stage.poolscope.api(&path)["connections"]
        .as_array()
        .unwrap()
    {
        // Java 3.6 is older than the other mechanism.
        let mechanism = if actor.driver == Driver::Java36 {
            "SCRAM-SHA-1"
        } else {
            "SCRAM-SHA-256"
        };
        assert_eq!(connection["auth_mechanism"], mechanism, "{connection:#}");
    }
}

/// A wrong password: each attempt is a connection of the pool that was opened and closed.
fn refused(actor: &mut Actor<'_>) {
    let app = app(actor.driver, "refused");
    let uri = format!(
        "{}&appName={app}&serverSelectionTimeoutMS=2000",
        actor.stage.uri
    );
    // Some drivers find out when they connect, others when they are used.
    let id = actor
        .agent
        .submit(json!({ "do": "open", "name": app, "uri": uri }));
    actor.agent.answer(id);
    let id = actor
        .agent
        .submit(json!({ "do": "run", "name": app, "operation": "find" }));
    let answer = actor.agent.answer(id);
    assert!(answer["ok"] == false || answer["failed"] == 1, "{answer}");
    let id = actor.agent.submit(json!({ "do": "close", "name": app }));
    actor.agent.answer(id);
    let opened = if actor.driver == Driver::Node36Unified {
        // It reports a connection as created when it has authenticated, so these never were.
        let stats = actor.agent.stats(&app);
        assert_eq!(stats["created"], 0, "{app}: {stats}");
        let failed = stats["checkout_failed"].as_object().unwrap().values();
        failed.map(number).sum()
    } else {
        actor.agree(&app).opened
    };
    assert!(opened > 0, "{app}");
    actor.all_is_closed(&app, opened);
    let row = actor.row(&app).unwrap();
    assert_eq!(authentications(&row, "failed"), opened, "{row:#}");
    assert_eq!(authentications(&row, "ok"), 0, "{row:#}");
}
