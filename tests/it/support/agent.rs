//! The programs of `tests/drivers`: real drivers that do as told and report their own events.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Mongod, Network, Process, root, tool};

/// Nothing that a test asks of a driver takes longer.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A driver, and the version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// PyMongo 4.20.
    PyMongo4,
    /// PyMongo 4.20, asynchronous client.
    PyMongo4Async,
    /// PyMongo 3.13.
    PyMongo3,
    /// Node 3.6.12 with the topology that was its default.
    Node36Legacy,
    /// Node 3.6.12 with `useUnifiedTopology`.
    Node36Unified,
    /// Node 4.17.
    Node4,
    /// Node 6.
    Node6,
    /// Node 7.
    Node7,
    /// The crate `mongodb` 3.
    Rust,
    /// Go 1.8.
    Go18,
    /// Java 3.6.
    Java36,
    /// libmongoc 1.23 with a pool.
    Mongoc123,
    /// PHP 1.15, a process for each operation at a time.
    Php115,
}

impl Driver {
    /// Every driver.
    pub(crate) const ALL: [Self; 13] = [
        Self::PyMongo4,
        Self::PyMongo4Async,
        Self::PyMongo3,
        Self::Node36Legacy,
        Self::Node36Unified,
        Self::Node4,
        Self::Node6,
        Self::Node7,
        Self::Rust,
        Self::Go18,
        Self::Java36,
        Self::Mongoc123,
        Self::Php115,
    ];

    /// Those whose agents know every operation of the protocol.
    pub(crate) const ABLE: [Self; 10] = [
        Self::PyMongo4,
        Self::PyMongo4Async,
        Self::PyMongo3,
        Self::Node36Legacy,
        Self::Node36Unified,
        Self::Node4,
        Self::Node6,
        Self::Node7,
        Self::Rust,
        Self::Go18,
    ];

    /// Its name in tables and file names.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::PyMongo4 => "pymongo-4",
            Self::PyMongo4Async => "pymongo-4-async",
            Self::PyMongo3 => "pymongo-3.13",
            Self::Node36Legacy => "node-3.6-legacy",
            Self::Node36Unified => "node-3.6-unified",
            Self::Node4 => "node-4",
            Self::Node6 => "node-6",
            Self::Node7 => "node-7",
            Self::Rust => "rust-3",
            Self::Go18 => "go-1.8",
            Self::Java36 => "java-3.6",
            Self::Mongoc123 => "mongoc-1.23",
            Self::Php115 => "php-1.15",
        }
    }

    /// Whether its pools report CMAP events.
    pub(crate) fn has_cmap(self) -> bool {
        !matches!(
            self,
            Self::Node36Legacy | Self::Java36 | Self::Mongoc123 | Self::Php115
        )
    }

    /// Whether it tells how many connections its pools open, close and hand out, be it by events older than CMAP.
    pub(crate) fn counts_connections(self) -> bool {
        self.has_cmap() || self == Self::Java36
    }

    /// Monitors of each client at a server: those that know its state, and those that measure round trips.
    pub(crate) fn monitors(self) -> [u64; 2] {
        match self {
            Self::Node36Legacy | Self::Php115 => [0, 0],
            Self::Java36 => [1, 0],
            Self::PyMongo4
            | Self::PyMongo4Async
            | Self::PyMongo3
            | Self::Node36Unified
            | Self::Node4
            | Self::Node6
            | Self::Node7
            | Self::Rust
            | Self::Go18
            | Self::Mongoc123 => [1, 1],
        }
    }

    fn command(self) -> Command {
        let drivers = root().join("tests/drivers");
        let python = |line: &str, program: &str| {
            let mut command = Command::new("python3");
            command
                .env("PYTHONPATH", tool("python").join(line))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .arg(drivers.join(program));
            command
        };
        let node = |args: &[&str]| {
            let mut command = Command::new("node");
            command
                .env("NODE_PATH", tool("node/node_modules"))
                .arg("--no-deprecation")
                .arg(drivers.join("agent.js"))
                .args(args);
            command
        };
        match self {
            Self::PyMongo4 => python("pymongo-4", "agent.py"),
            Self::PyMongo4Async => python("pymongo-4", "agent_async.py"),
            Self::PyMongo3 => python("pymongo-3", "agent.py"),
            Self::Node36Legacy => node(&["mongodb-3.6", "legacy"]),
            Self::Node36Unified => node(&["mongodb-3.6", "unified"]),
            Self::Node4 => node(&["mongodb-4"]),
            Self::Node6 => node(&["mongodb-6"]),
            Self::Node7 => node(&["mongodb-7"]),
            Self::Rust => {
                let program = root().join("target/drivers/debug/poolscope-agent");
                assert!(
                    program.exists(),
                    "{} is not there; tests/setup/install builds it",
                    program.display()
                );
                Command::new(program)
            }
            Self::Go18 => Command::new(tool("go-driver/agent")),
            Self::Java36 => Command::new(tool("java-driver/agent")),
            Self::Mongoc123 => Command::new(tool("mongoc-driver/agent")),
            Self::Php115 => {
                let mut command = Command::new(tool("php-driver/agent"));
                command.arg(drivers.join("php/agent.php"));
                command
            }
        }
    }
}

/// What an agent has printed.
#[derive(Debug, Default)]
struct Printed {
    answers: HashMap<u64, Value>,
    events: Vec<Value>,
    ended: bool,
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    driver: Driver,
    process: Process,
    input: ChildStdin,
    printed: Arc<(Mutex<Printed>, Condvar)>,
    last_id: u64,
}

impl Agent {
    /// Starts the agent of a driver.
    pub(crate) fn spawn(driver: Driver) -> Self {
        Self::spawn_in(driver, None)
    }

    /// The same in a network of its own.
    pub(crate) fn spawn_in(driver: Driver, network: Option<&Network>) -> Self {
        let mut command = driver.command();
        if let Some(network) = network {
            let mut there = network.command(command.get_program());
            there.args(command.get_args());
            for (name, value) in command.get_envs() {
                there.env(name, value.unwrap_or_default());
            }
            command = there;
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start_quiet(&mut command);
        let (input, output) = process.take_pipes();
        let printed = Arc::<(Mutex<Printed>, Condvar)>::default();
        let reader = Arc::clone(&printed);
        std::thread::spawn(move || {
            let (printed, changed) = &*reader;
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let value: Value = serde_json::from_str(&line).unwrap();
                let mut printed = printed.lock().unwrap();
                match value["id"].as_u64() {
                    Some(id) => drop(printed.answers.insert(id, value)),
                    None => printed.events.push(value),
                }
                changed.notify_all();
            }
            printed.lock().unwrap().ended = true;
            changed.notify_all();
        });
        Self {
            driver,
            process,
            input,
            printed,
            last_id: 0,
        }
    }

    /// Sends a request without waiting for the answer; returns its id.
    pub(crate) fn submit(&mut self, request: Value) -> u64 {
        self.submit_at_once([request]);
        self.last_id
    }

    /// Sends requests that the program reads in one go; the last has the id that [`Self::submit`] would return.
    pub(crate) fn submit_at_once<const N: usize>(&mut self, requests: [Value; N]) -> u64 {
        let mut lines = String::new();
        for mut request in requests {
            self.last_id += 1;
            request["id"] = self.last_id.into();
            lines.push_str(&request.to_string());
            lines.push('\n');
        }
        let written = self.input.write_all(lines.as_bytes());
        written
            .and_then(|()| self.input.flush())
            .unwrap_or_else(|error| {
                let (driver, said) = (self.driver, self.process.lines());
                panic!("{driver:?} takes no request ({error}): {said:#?}")
            });
        self.last_id
    }

    /// The answer to a request, be it good or bad.
    #[track_caller]
    pub(crate) fn answer(&self, id: u64) -> Value {
        let (printed, changed) = &*self.printed;
        let (mut printed, _) = changed
            .wait_timeout_while(printed.lock().unwrap(), ANSWER_LIMIT, |printed| {
                !printed.answers.contains_key(&id) && !printed.ended
            })
            .unwrap();
        printed.answers.remove(&id).unwrap_or_else(|| {
            let (driver, lines) = (self.driver, self.process.lines());
            panic!("{driver:?} does not answer request {id}: {lines:#?}")
        })
    }

    /// The answer to a request, if it comes in time.
    pub(crate) fn answer_within(&self, id: u64, limit: Duration) -> Option<Value> {
        let (printed, changed) = &*self.printed;
        let (mut printed, _) = changed
            .wait_timeout_while(printed.lock().unwrap(), limit, |printed| {
                !printed.answers.contains_key(&id) && !printed.ended
            })
            .unwrap();
        printed.answers.remove(&id)
    }

    /// The answer to a request; a bad one ends the test.
    #[track_caller]
    pub(crate) fn wait(&self, id: u64) -> Value {
        let answer = self.answer(id);
        assert_eq!(answer["ok"], true, "{:?}: {answer}", self.driver);
        answer
    }

    /// Sends a request and waits for its good answer.
    #[track_caller]
    pub(crate) fn request(&mut self, request: Value) -> Value {
        let id = self.submit(request);
        self.wait(id)
    }

    /// Opens a client.
    #[track_caller]
    pub(crate) fn open(&mut self, name: &str, uri: &str) {
        self.request(json!({ "do": "open", "name": name, "uri": uri }));
    }

    /// Repeats an operation and returns the last result; any failure ends the test.
    #[track_caller]
    pub(crate) fn run(&mut self, name: &str, operation: &str, count: u64, args: &Value) -> Value {
        let mut answer = self.request(json!({
            "do": "run", "name": name, "operation": operation, "count": count, "args": args,
        }));
        assert_eq!(answer["done"], count, "{:?}: {answer}", self.driver);
        answer["result"].take()
    }

    /// Checks out connections with operations that stay at the server.
    #[track_caller]
    pub(crate) fn hold(&mut self, name: &str, concurrency: u64) {
        self.request(json!({ "do": "hold", "name": name, "concurrency": concurrency }));
    }

    /// Ends what [`Self::hold`] began, by way of a direct connection to the server.
    #[track_caller]
    pub(crate) fn release(&mut self, name: &str, server: &Mongod) -> Value {
        self.request(json!({ "do": "release", "name": name, "control": server.uri() }))
    }

    /// What the driver's own events say.
    #[track_caller]
    pub(crate) fn stats(&mut self, name: &str) -> Value {
        self.request(json!({ "do": "stats", "name": name }))
    }

    /// Closes a client, or all of that name.
    #[track_caller]
    pub(crate) fn close(&mut self, name: &str) {
        self.request(json!({ "do": "close", "name": name }));
    }

    /// The events printed so far, `started` first.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.printed.0.lock().unwrap().events.clone()
    }

    /// The process, to be killed or frozen.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
