//! The applications of a play, on real drivers, and what they do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{LIMIT, PASSWORD, Servers, Stage, USER};
use crate::scenarios::shape::Shape;
use crate::support::{Agent, Driver, FaultRelay, epoch_seconds};

/// Drivers of neighbours.
const NEIGHBOURS: [Driver; 3] = [Driver::PyMongo4, Driver::Node6, Driver::PyMongo3];

/// One process of an application.
#[derive(Debug)]
pub(crate) struct App {
    /// Its name, as the driver announces it; instances of one application share it.
    pub(crate) name: String,
    /// Its driver.
    pub(crate) driver: Driver,
    /// The process.
    pub(crate) agent: Agent,
    /// Where poolscope sees it come from.
    pub(crate) address: String,
    /// The host between it and poolscope, where it has one of its own.
    pub(crate) host: Option<FaultRelay>,
    /// It is not asked any more: it ended, or hangs as it should.
    pub(crate) is_gone: bool,
    /// Loads that go on until they are stopped.
    pub(super) runs: Vec<u64>,
}

impl Stage {
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
    pub(crate) fn start(&mut self, name: &str, driver: Driver, host: Option<IpAddr>) -> usize {
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
    pub(crate) fn open_request(&self, app: usize, options: &str) -> Value {
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
    pub(crate) fn open(&mut self, app: usize, options: &str) {
        let request = self.open_request(app, options);
        self.apps[app].agent.request(request);
    }

    /// Begins a load that goes on until it is stopped.
    pub(crate) fn load(&mut self, app: usize, operation: &str, concurrency: u64, pause: u64) {
        self.load_with(app, operation, concurrency, pause, &json!({ "limit": 1 }));
    }

    pub(crate) fn load_with(
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
    pub(crate) fn burst(&mut self, app: usize, count: u64, concurrency: u64) {
        self.apps[app].agent.request(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 40 },
            "count": count, "concurrency": concurrency,
        }));
    }

    /// Ends the load of an application.
    pub(crate) fn stop_load(&mut self, app: usize) {
        let app = &mut self.apps[app];
        for run in std::mem::take(&mut app.runs) {
            app.agent.request(json!({ "do": "stop", "run": run }));
            let answer = app.agent.answer(run);
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }

    /// An application with its usual load: reads, and a write now and then.
    pub(crate) fn busy(&mut self, name: &str, driver: Driver, options: &str) -> usize {
        self.busy_at(name, driver, options, None)
    }

    pub(crate) fn busy_at(
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
    pub(crate) fn warm_up(&mut self, app: usize, size: u64) {
        self.burst(app, 2 * size, size);
    }

    /// The usual cast: the driver under test, and its neighbour.
    pub(crate) fn usual_apps(&mut self, options: &str) {
        self.busy("orders", self.driver, options);
        self.neighbour();
    }

    /// Another application, which shares the server with the one under test; as many instances as the surroundings
    /// have.
    pub(crate) fn neighbour(&mut self) {
        for driver in NEIGHBOURS.into_iter().take(self.shape.neighbours()) {
            self.busy("billing", driver, "");
        }
    }

    /// The application makes a new client half a second after it closed the one it had: its process lives. Until
    /// then nothing tells it from one that ended.
    pub(crate) fn open_again(&mut self, app: usize) {
        self.steady(Duration::from_millis(500));
        let request = self.open_request(app, &pool_option(self.driver, self.shape.pool()));
        let opened = self.apps[app].agent.submit(request);
        self.apps[app].agent.answer_within(opened, LIMIT);
        self.read(app, self.shape);
        self.fault_at = epoch_seconds();
    }

    /// A case in which an application loses operations is none unless it lost some.
    pub(crate) fn assert_failures(&self, app: usize) {
        let events = self.apps[app].agent.events();
        let failed = events
            .iter()
            .any(|event| event["event"] == "operation_failed");
        assert!(failed, "no operation of the application failed");
    }

    /// Ends a process as a crash would.
    pub(crate) fn kill_app(&mut self, app: usize) {
        self.apps[app].is_gone = true;
        self.apps[app].agent.process().signal(Signal::KILL);
    }

    /// Closes the client of an application and ends its process, as a service that is stopped does.
    pub(crate) fn stop_app(&mut self, app: usize) {
        self.stop_load(app);
        self.apps[app].agent.close("app");
        let stats = self.apps[app].agent.stats("app");
        self.note("stats_at_close", &json!({ "app": app, "stats": stats }));
        self.apps[app].is_gone = true;
        let exit = self.apps[app].agent.submit(json!({ "do": "exit" }));
        self.apps[app].agent.answer_within(exit, LIMIT);
    }
}

/// The option of the connection string that limits a pool.
pub(crate) fn pool_option(driver: Driver, size: u64) -> String {
    if driver == Driver::Node36Legacy {
        format!("poolSize={size}")
    } else {
        format!("maxPoolSize={size}")
    }
}
