//! Where a case is played: servers, poolscope, applications on real drivers, and what they really saw.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bson::{Bson, Document, doc};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::scores::{is_rest_told, is_undecided};
use super::shape::Shape;
use crate::support::{
    Agent, Driver, FaultRelay, Mongod, MongodOptions, Network, Poolscope, ReplicaSet,
    epoch_seconds, eventually, now,
};

/// What is waited for comes within this, be the machine as busy as it may.
const LIMIT: Duration = Duration::from_secs(30);
/// A silent connection has shown what it is after three heartbeats at the latest, and some tolerance.
const DECIDED_WITHIN: Duration = Duration::from_secs(40);
/// An application that does not answer for so long waits for its operations.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// What ended silent is counted within this time, and some tolerance.
const RESTS_WITHIN: Duration = Duration::from_secs(4);
/// How often that is looked at.
const PAUSE: Duration = Duration::from_millis(250);
/// Sockets of a pool whose size is a matter of the play.
pub(super) const POOL: u64 = 4;
/// Who logs in where clients do.
const USER: &str = "reader";
const PASSWORD: &str = "ten-green-bottles";
/// Drivers of neighbours.
const NEIGHBOURS: [Driver; 3] = [Driver::PyMongo4, Driver::Node6, Driver::PyMongo3];

/// The servers.
#[derive(Debug)]
pub(super) enum Servers {
    /// One that belongs to no set.
    Alone(Mongod),
    /// Members of a set, each behind a listener of its own.
    Set(ReplicaSet),
}

/// One process of an application.
#[derive(Debug)]
pub(super) struct App {
    /// Its name, as the driver announces it; instances of one application share it.
    pub(super) name: String,
    /// Its driver.
    pub(super) driver: Driver,
    /// The process.
    pub(super) agent: Agent,
    /// Where poolscope sees it come from.
    pub(super) address: String,
    /// The host between it and poolscope, where it has one of its own.
    pub(super) host: Option<FaultRelay>,
    /// It is not asked any more: it ended, or hangs as it should.
    pub(super) is_gone: bool,
    runs: Vec<u64>,
}

/// What a stage is set for.
#[derive(Debug)]
pub(super) struct Place {
    /// The driver under test.
    pub(super) driver: Driver,
    /// The surroundings.
    pub(super) shape: Shape,
    /// Where everything about the case is kept.
    pub(super) directory: PathBuf,
}

/// A case in play.
#[derive(Debug)]
pub(super) struct Stage {
    /// The driver under test.
    pub(super) driver: Driver,
    /// The surroundings.
    pub(super) shape: Shape,
    /// The servers.
    pub(super) servers: Servers,
    /// What lies between poolscope and a server that is alone, where something does.
    pub(super) between: Option<FaultRelay>,
    /// The network of the application under test, where it has one of its own.
    pub(super) remote: Option<Network>,
    /// The program under test.
    pub(super) poolscope: Poolscope,
    /// Applications, in the order they were started.
    pub(super) apps: Vec<App>,
    /// Where everything about this case is kept.
    pub(super) directory: PathBuf,
    /// Options that the connection string cannot carry, for the application `orders`.
    pub(super) constructor: Value,
    /// What was done.
    pub(super) fault: String,
    /// When that was done, in seconds since the epoch.
    pub(super) injected_at: f64,
    /// When the evidence of it was there; not before that.
    pub(super) fault_at: f64,
    /// Names of the applications it concerned.
    pub(super) affected: Vec<String>,
    /// Remarks for whoever reads the files.
    pub(super) notes: Vec<Value>,
    /// When an alarm was first seen at the interface.
    pub(super) alarm_seen_at: Option<f64>,
    /// What poolscope said of its clients when the drivers were asked.
    pub(super) clients_seen: Value,
}

impl Stage {
    /// A server of its own, straight behind poolscope.
    pub(super) fn alone(place: Place) -> Self {
        Self::with_server(place, MongodOptions::default(), false)
    }

    /// The same with something between poolscope and the server that can misbehave.
    pub(super) fn behind_relay(place: Place) -> Self {
        Self::with_server(place, MongodOptions::default(), true)
    }

    pub(super) fn with_server(place: Place, options: MongodOptions, has_relay: bool) -> Self {
        let server = Mongod::start_in(options, place.shape.server_delay().map(slow_network));
        let remote = place.shape.application_delay().map(slow_network);
        let between = has_relay.then(|| FaultRelay::before(server.addr()));
        let upstream = between.as_ref().map_or(server.addr(), FaultRelay::addr);
        if !server.has_auth() {
            seed(&server);
        }
        Self::around(place, Servers::Alone(server), between, remote, &[upstream])
    }

    /// A server in a network of its own, behind a wire that can lose and delay packets.
    pub(super) fn behind_wire(place: Place) -> Self {
        let server = Mongod::start_in(MongodOptions::default(), Some(Network::start()));
        seed(&server);
        let upstream = server.addr();
        let servers = Servers::Alone(server);
        Self::around(place, servers, None, None, &[upstream])
    }

    /// The application under test in a network of its own, behind such a wire.
    pub(super) fn with_remote_application(place: Place) -> Self {
        let server = Mongod::start(MongodOptions::default());
        seed(&server);
        let (upstream, servers) = (server.addr(), Servers::Alone(server));
        let remote = Some(Network::start());
        Self::around(place, servers, None, remote, &[upstream])
    }

    /// How packets fare from now on.
    pub(super) fn wire(&mut self, faults: &Value) {
        match &mut self.remote {
            Some(remote) => remote.set(faults),
            None => self.server_mut().network_mut().set(faults),
        }
    }

    /// Three members of a set, each behind a listener of its own.
    pub(super) fn set(place: Place) -> Self {
        let set = ReplicaSet::start_with(
            3,
            &[
                "--setParameter",
                "shutdownTimeoutMillisForSignaledShutdown=2000",
            ],
        );
        let upstreams = set.addrs();
        let mut stage = Self::around(place, Servers::Set(set), None, None, &upstreams);
        let advertised = stage.poolscope.advertised();
        let Servers::Set(set) = &mut stage.servers else {
            unreachable!("it was made a moment ago");
        };
        set.initiate(&advertised);
        seed(&set.members()[0]);
        stage
    }

    fn around(
        place: Place,
        servers: Servers,
        between: Option<FaultRelay>,
        remote: Option<Network>,
        upstreams: &[SocketAddr],
    ) -> Self {
        let Place {
            driver,
            directory,
            shape,
        } = place;
        let journal = directory.join("journal");
        let journal = journal.to_str().unwrap();
        let args = ["--journal.path", journal];
        let args = if Poolscope::takes(args[0]) {
            &args[..]
        } else {
            &[]
        };
        let near = remote
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST.into(), Network::near_addr);
        let poolscope = Poolscope::start_at(near, upstreams, args);
        Self {
            driver,
            shape,
            servers,
            between,
            remote,
            poolscope,
            apps: Vec::new(),
            directory,
            constructor: Value::Null,
            fault: String::new(),
            injected_at: 0.0,
            fault_at: 0.0,
            affected: Vec::new(),
            notes: Vec::new(),
            alarm_seen_at: None,
            clients_seen: Value::Null,
        }
    }

    /// The server that is alone, or the first member, which begins as the primary.
    pub(super) fn server(&self) -> &Mongod {
        match &self.servers {
            Servers::Alone(server) => server,
            Servers::Set(set) => &set.members()[0],
        }
    }

    /// The same, to be ended.
    pub(super) fn server_mut(&mut self) -> &mut Mongod {
        match &mut self.servers {
            Servers::Alone(server) => server,
            Servers::Set(set) => set.member_mut(0),
        }
    }

    /// A connection string through poolscope at `addr`, or to the set.
    fn uri(&self, name: &str, addr: SocketAddr, options: &str) -> String {
        let mut uri = match &self.servers {
            Servers::Alone(_) => format!("mongodb://{addr}/?directConnection=true"),
            Servers::Set(set) => set.uri(),
        };
        if self.shape.authenticates() {
            let login = format!("mongodb://{USER}:{PASSWORD}@");
            uri = uri
                .replacen("mongodb://", &login, 1)
                .replacen("/?", "/?authSource=admin&", 1);
        }
        uri = format!("{uri}&appName={name}");
        if options.is_empty() {
            return uri;
        }
        format!("{uri}&{options}")
    }

    /// Starts a process of an application; nothing is opened yet.
    pub(super) fn start(&mut self, name: &str, driver: Driver, host: Option<IpAddr>) -> usize {
        let host = host.map(|source| (source, FaultRelay::from(source, self.poolscope.addr())));
        let address = match (&host, &self.remote) {
            (Some((source, _)), _) => source.to_string(),
            (None, Some(remote)) if name == "orders" => remote.addr().to_string(),
            (None, Some(remote)) => remote.near_addr().to_string(),
            (None, None) => "127.0.0.1".to_owned(),
        };
        let network = self.remote.as_ref().filter(|_| name == "orders");
        self.apps.push(App {
            name: name.to_owned(),
            driver,
            agent: Agent::spawn_in(driver, network),
            address,
            host: host.map(|(_, relay)| relay),
            is_gone: false,
            runs: Vec::new(),
        });
        self.apps.len() - 1
    }

    /// The request that opens a client of an application.
    pub(super) fn open_request(&self, app: usize, options: &str) -> Value {
        let app = &self.apps[app];
        let addr = app
            .host
            .as_ref()
            .map_or(self.poolscope.addr(), FaultRelay::addr);
        let uri = self.uri(&app.name, addr, options);
        let mut request = json!({ "do": "open", "name": "app", "uri": uri, "events": true });
        if app.name == "orders" && !self.constructor.is_null() {
            request["options"] = self.constructor.clone();
        }
        request
    }

    /// Opens a client of an application.
    pub(super) fn open(&mut self, app: usize, options: &str) {
        let request = self.open_request(app, options);
        self.apps[app].agent.request(request);
    }

    /// Begins a load that goes on until it is stopped.
    pub(super) fn load(&mut self, app: usize, operation: &str, concurrency: u64, pause: u64) {
        self.load_with(app, operation, concurrency, pause, &json!({ "limit": 1 }));
    }

    pub(super) fn load_with(
        &mut self,
        app: usize,
        operation: &str,
        concurrency: u64,
        pause: u64,
        args: &Value,
    ) {
        let app = &mut self.apps[app];
        let run = app.agent.submit(json!({
            "do": "run", "name": "app", "operation": operation, "args": args,
            "seconds": 600, "concurrency": concurrency, "pause": pause,
        }));
        app.runs.push(run);
    }

    /// Runs so many operations to their end, each keeping its socket for some milliseconds.
    pub(super) fn burst(&mut self, app: usize, count: u64, concurrency: u64) {
        self.apps[app].agent.request(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 40 },
            "count": count, "concurrency": concurrency,
        }));
    }

    /// Ends the load of an application.
    pub(super) fn stop_load(&mut self, app: usize) {
        let app = &mut self.apps[app];
        for run in std::mem::take(&mut app.runs) {
            app.agent.request(json!({ "do": "stop", "run": run }));
            let answer = app.agent.answer(run);
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }

    /// An application with its usual load: reads, and a write now and then.
    pub(super) fn busy(&mut self, name: &str, driver: Driver, options: &str) -> usize {
        self.busy_at(name, driver, options, None)
    }

    pub(super) fn busy_at(
        &mut self,
        name: &str,
        driver: Driver,
        options: &str,
        host: Option<IpAddr>,
    ) -> usize {
        let app = self.start(name, driver, host);
        let shape = if name == "orders" {
            self.shape
        } else {
            Shape::Usual
        };
        let options = [pool_option(driver, shape.pool()).as_str(), options]
            .into_iter()
            .filter(|option| !option.is_empty())
            .collect::<Vec<_>>()
            .join("&");
        self.open(app, &options);
        self.warm_up(app, shape.pool());
        self.read(app, shape);
        if shape.writes() {
            self.load(app, "insert", 1, 100);
        }
        app
    }

    fn read(&mut self, app: usize, shape: Shape) {
        let (readers, pause) = shape.readers();
        self.load(app, "find", readers, pause);
    }

    /// Lets the pool grow to its usual size.
    pub(super) fn warm_up(&mut self, app: usize, size: u64) {
        self.burst(app, 2 * size, size);
    }

    /// The usual cast: the driver under test, and its neighbour.
    pub(super) fn usual_apps(&mut self, options: &str) {
        self.busy("orders", self.driver, options);
        self.neighbour();
    }

    /// Another application, which shares the server with the one under test; as many instances as the surroundings
    /// have.
    pub(super) fn neighbour(&mut self) {
        for driver in NEIGHBOURS.into_iter().take(self.shape.neighbours()) {
            self.busy("billing", driver, "");
        }
    }

    /// Time in which nothing happens but the load: what comes before a fault, so that there is a normal.
    #[expect(clippy::unused_self, reason = "it reads as part of the play")]
    pub(super) fn steady(&self, time: Duration) {
        thread::sleep(time);
    }

    /// The fault happens now: call it right before what makes it.
    pub(super) fn fault(&mut self, what: &str, affected: &[&str]) {
        what.clone_into(&mut self.fault);
        // Some surroundings have no neighbour.
        let has_neighbour = self.apps.iter().any(|app| app.name == "billing");
        let names = affected.iter().map(|&name| name.to_owned());
        self.affected = names
            .filter(|name| has_neighbour || name != "billing")
            .collect();
        self.fault_at = epoch_seconds();
        self.injected_at = self.fault_at;
    }

    /// Makes the server treat commands in a way of its own (the fail point `failCommand`).
    pub(super) fn fail_command(&self, mode: impl Into<Bson>, data: Document) {
        self.server().command(
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data },
        );
    }

    /// Ends what [`Self::fail_command`] began.
    pub(super) fn heal_commands(&self) {
        self.server().command(
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": "off" },
        );
    }

    /// Incidents as poolscope tells them.
    pub(super) fn incidents(&self) -> Vec<Value> {
        let answer = self.poolscope.api("incidents");
        answer["incidents"].as_array().unwrap().clone()
    }

    /// Waits until there is an alarm, or the time has passed.
    pub(super) fn await_alarm(&mut self, limit: Duration) {
        self.await_incident(limit, is_alarm);
    }

    pub(super) fn await_incident(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) {
        let begin = now();
        while begin.elapsed() < limit {
            if self.incidents().iter().any(&wanted) {
                self.alarm_seen_at.get_or_insert_with(epoch_seconds);
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The application makes a new client half a second after it closed the one it had: its process lives. Until
    /// then nothing tells it from one that ended.
    pub(super) fn open_again(&mut self, app: usize) {
        self.steady(Duration::from_millis(500));
        let request = self.open_request(app, &pool_option(self.driver, self.shape.pool()));
        let opened = self.apps[app].agent.submit(request);
        self.apps[app].agent.answer_within(opened, LIMIT);
        self.read(app, self.shape);
        self.fault_at = epoch_seconds();
    }

    /// A case in which an application loses operations is none unless it lost some.
    pub(super) fn assert_failures(&self, app: usize) {
        let events = self.apps[app].agent.events();
        let failed = events
            .iter()
            .any(|event| event["event"] == "operation_failed");
        assert!(failed, "no operation of the application failed");
    }

    /// Bare connections that say nothing.
    pub(super) fn probe(&self) {
        drop(TcpStream::connect(self.poolscope.addr()).unwrap());
    }

    /// Ends a process as a crash would.
    pub(super) fn kill_app(&mut self, app: usize) {
        self.apps[app].is_gone = true;
        self.apps[app].agent.process().signal(Signal::KILL);
    }

    /// Closes the client of an application and ends its process, as a service that is stopped does.
    pub(super) fn stop_app(&mut self, app: usize) {
        self.stop_load(app);
        self.apps[app].agent.close("app");
        let stats = self.apps[app].agent.stats("app");
        self.note("stats_at_close", &json!({ "app": app, "stats": stats }));
        self.apps[app].is_gone = true;
        let exit = self.apps[app].agent.submit(json!({ "do": "exit" }));
        self.apps[app].agent.answer_within(exit, LIMIT);
    }

    pub(super) fn note(&mut self, what: &str, value: &Value) {
        self.notes
            .push(json!({ "at": epoch_seconds(), "what": what, "value": value }));
    }

    /// What really happened, as drivers and harness saw it. Where a connection that is silent makes a difference to what
    /// poolscope sees, once it has shown what it is.
    pub(super) fn truth(&mut self, case: &str) -> Value {
        let begin = now();
        let mut truth = self.truth_of_now(case);
        while is_undecided(&truth, &self.clients_seen) && begin.elapsed() < DECIDED_WITHIN {
            thread::sleep(PAUSE);
            truth = self.truth_of_now(case);
        }
        truth
    }

    fn truth_of_now(&mut self, case: &str) -> Value {
        // First what poolscope sees: what the drivers told by then is among what they are asked for afterwards.
        self.clients_seen = self.poolscope.api("clients");
        let apps = self.apps_now();
        json!({
            "case": case, "fault": self.fault, "injected_at": self.injected_at, "fault_at": self.fault_at, "affected": self.affected,
            "judged_at": epoch_seconds(), "alarm_seen_at": self.alarm_seen_at, "notes": self.notes, "apps": apps,
        })
    }

    /// What the drivers tell.
    fn apps_now(&mut self) -> Vec<Value> {
        let told = self.apps.iter_mut().map(|app| {
            let stats = if app.is_gone {
                Value::Null
            } else {
                let id = app.agent.submit(json!({ "do": "stats", "name": "app" }));
                let answer = app.agent.answer_within(id, ANSWERED_WITHIN);
                answer.unwrap_or_default()
            };
            json!({
                "name": app.name, "driver": app.driver.label(), "address": app.address,
                "events": app.agent.events(), "stats": stats, "is_gone": app.is_gone, "is_at_rest": app.runs.is_empty(),
            })
        });
        told.collect()
    }

    /// Ends all load, where the fault lets operations come to an end, and keeps what is told of pools then: now and not
    /// before it is known what was in use.
    pub(super) fn rest(&mut self) {
        for app in self.apps.iter_mut().filter(|app| !app.is_gone) {
            for run in &app.runs {
                app.agent.submit(json!({ "do": "stop", "run": run }));
            }
            app.runs
                .retain(|run| app.agent.answer_within(*run, ANSWERED_WITHIN).is_none());
        }
        let begin = now();
        loop {
            let clients = self.poolscope.api("clients");
            let rest = json!({ "clients": clients, "apps": self.apps_now() });
            if is_rest_told(&rest) || begin.elapsed() > RESTS_WITHIN {
                let text = serde_json::to_string_pretty(&rest).unwrap();
                fs::write(self.directory.join("rest.json"), text).unwrap();
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    /// What happened until then is in the journal, which is written now and then.
    fn await_journal(&self, until: f64) {
        let path = self.directory.join("journal");
        eventually(LIMIT, || {
            let journal = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let whole = journal.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let last = whole.lines().last().unwrap_or_default();
            let last: Value = serde_json::from_str(last).map_err(|error| error.to_string())?;
            match last["at"].as_f64() {
                Some(nanos) if nanos / 1e9 >= until => Ok(()),
                at => Err(format!("the journal has come to {at:?}")),
            }
        });
    }

    /// Keeps what poolscope says and logged; returns the incidents.
    pub(super) fn keep(&mut self, truth: &Value) -> Vec<Value> {
        self.await_journal(truth["judged_at"].as_f64().unwrap());
        let incidents = self.poolscope.api("incidents");
        let write = |name: &str, value: &Value| {
            let text = serde_json::to_string_pretty(value).unwrap();
            fs::write(self.directory.join(name), text).unwrap();
        };
        write("truth.json", truth);
        write("incidents.json", &incidents);
        write("clients.json", &self.clients_seen);
        let log = self.poolscope.log().join("\n");
        fs::write(self.directory.join("poolscope.log"), log).unwrap();
        incidents["incidents"].as_array().unwrap().clone()
    }
}

/// Whether an incident is worse than information.
pub(super) fn is_alarm(incident: &Value) -> bool {
    incident["severity"] != "info"
}

/// The option of the connection string that limits a pool.
pub(super) fn pool_option(driver: Driver, size: u64) -> String {
    if driver == Driver::Node36Legacy {
        format!("poolSize={size}")
    } else {
        format!("maxPoolSize={size}")
    }
}

/// Something to read.
/// A network behind a wire on which packets take so long.
fn slow_network(delay: Duration) -> Network {
    let mut network = Network::start();
    network.set(&json!({ "delay": delay.as_secs_f64() }));
    network
}

/// Something to be read, and a user, who need not log in.
fn seed(server: &Mongod) {
    server.command(
        "admin",
        doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"] },
    );
    server.command(
        "poolscope",
        doc! { "insert": "items", "documents": [{ "_id": "seed" }] },
    );
}
