//! What people and programs are told when a server breaks: API, events, metrics, log lines and commands, of one
//! fault, beside what the drivers saw.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole numbers, and those are exact"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::doc;
use poolscope::time::Timestamp;
use serde_json::{Value, json};

use crate::support::{Agent, Driver, Mongod, Poolscope, Process, epoch_seconds, eventually};

const LIMIT: Duration = Duration::from_mins(1);
/// From the fault, which is evident at once, until somebody who listens is told, in seconds.
const TOLD_WITHIN: f64 = 2.0;
/// Sockets of a pool.
const POOL: u64 = 3;
/// Columns of a terminal.
const WIDTH: usize = 100;

/// An application under load.
struct App {
    name: &'static str,
    agent: Agent,
}

impl App {
    fn start(name: &'static str, driver: Driver, poolscope: &Poolscope) -> Self {
        let mut agent = Agent::spawn(driver);
        let pool = if driver == Driver::Node36Legacy {
            "poolSize"
        } else {
            "maxPoolSize"
        };
        let uri = poolscope.uri(name);
        agent.open(
            "app",
            &format!("{uri}&{pool}={POOL}&heartbeatFrequencyMS=1000"),
        );
        agent.request(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 40 },
            "count": 2 * POOL, "concurrency": POOL,
        }));
        agent.submit(json!({
            "do": "run", "name": "app", "operation": "find", "args": { "limit": 1 },
            "seconds": 600, "concurrency": POOL, "pause": 25,
        }));
        Self { name, agent }
    }
}

/// Until there is a normal from which a fault can differ.
fn await_load(poolscope: &Poolscope, apps: &[&App]) {
    for app in apps {
        let series = [("app", app.name), ("command", "find")];
        eventually(LIMIT, || {
            match poolscope.sum("poolscope_requests_total", &series) {
                served if served >= 150.0 => Ok(()),
                served => Err(format!("{}: {served} finds", app.name)),
            }
        });
    }
}

/// An event of the stream, with when it came in seconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    name: String,
    id: String,
    data: Value,
    at: f64,
}

/// Listens to `/api/v1/events` as a program without our code would.
struct Ear {
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Ear {
    fn open(addr: SocketAddr, last_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        let last_id = last_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(
            stream,
            "GET /api/v1/events HTTP/1.0\r\nHost: {addr}\r\n{last_id}\r\n"
        )
        .unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let status = lines.next().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        let kind = lines.by_ref().take_while(|line| !line.is_empty());
        let kind: Vec<String> = kind.filter(|line| line.contains("event-stream")).collect();
        assert_eq!(kind.len(), 1, "it says what it is");
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let hearing = Arc::clone(&heard);
        std::thread::spawn(move || {
            let (mut name, mut id, mut data) = (String::new(), String::new(), String::new());
            for line in lines {
                match line.split_once(": ") {
                    Some(("event", value)) => value.clone_into(&mut name),
                    Some(("id", value)) => value.clone_into(&mut id),
                    Some(("data", value)) => value.clone_into(&mut data),
                    _ if line.is_empty() && !name.is_empty() => {
                        hearing.lock().unwrap().push(Heard {
                            name: std::mem::take(&mut name),
                            id: std::mem::take(&mut id),
                            data: serde_json::from_str(&std::mem::take(&mut data)).unwrap(),
                            at: epoch_seconds(),
                        });
                    }
                    _ => {}
                }
            }
        });
        Self { heard }
    }

    fn all(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The first event of this name, when it has come.
    #[track_caller]
    fn wait(&self, name: &str) -> Heard {
        eventually(LIMIT, || {
            let all = self.all();
            let found = all.iter().find(|heard| heard.name == name);
            found
                .cloned()
                .ok_or_else(|| format!("no {name} in {all:#?}"))
        })
    }
}

fn follow(addr: SocketAddr) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command
        .args(["incidents", "--follow", "--address", &addr.to_string()])
        .stdin(Stdio::null());
    Process::start(&mut command)
}

#[track_caller]
fn await_line(process: &Process, wanted: &str) -> String {
    eventually(LIMIT, || {
        let lines = process.lines();
        let found = lines.iter().find(|line| line.contains(wanted));
        found
            .cloned()
            .ok_or_else(|| format!("no {wanted:?} in {lines:#?}"))
    })
}

fn text<'a>(value: &'a Value, place: &str) -> &'a str {
    let text = value[place].as_str();
    text.unwrap_or_else(|| panic!("no text {place} in {value:#}"))
}

fn list<'a>(value: &'a Value, place: &str) -> &'a [Value] {
    let list = value[place].as_array();
    list.unwrap_or_else(|| panic!("no list {place} in {value:#}"))
}

/// Names of the applications a row concerns.
fn apps(row: &Value) -> BTreeSet<&str> {
    let clients = list(row, "clients").iter();
    clients.map(|client| text(client, "app")).collect()
}

/// What a row must be, whatever happened.
#[track_caller]
fn check_row(row: &Value) {
    let causes = list(row, "causes");
    assert_eq!(row["cause"], causes[0]["cause"], "{row:#}");
    assert_eq!(row["confidence"], causes[0]["confidence"], "{row:#}");
    let confidence = |cause: &Value| cause["confidence"].as_f64().unwrap();
    assert!(
        causes.is_sorted_by(|a, b| confidence(a) >= confidence(b)),
        "{row:#}"
    );
    let named: BTreeSet<&str> = causes.iter().map(|cause| text(cause, "cause")).collect();
    assert_eq!(named.len(), causes.len(), "each cause once: {row:#}");
    for (place, cause) in causes.iter().enumerate() {
        assert!((0.0..=1.0).contains(&confidence(cause)), "{cause:#}");
        assert!(!list(cause, "evidence").is_empty(), "{cause:#}");
        if place > 0 {
            assert!(!list(cause, "against").is_empty(), "{cause:#}");
        }
        for fact in list(cause, "evidence").iter().chain(list(cause, "against")) {
            assert!(!text(fact, "fact").is_empty(), "{cause:#}");
        }
    }
    // Moments have one form and one length, so their texts are ordered as they are.
    assert!(text(row, "opened_at") <= text(row, "evident_at"), "{row:#}");
    assert!(
        text(row, "evident_at") <= text(row, "detected_at"),
        "{row:#}"
    );
    if let Some(closed) = row["closed_at"].as_str() {
        assert!(text(row, "opened_at") <= closed, "{row:#}");
    }
    let timeline = list(row, "timeline");
    assert!(
        timeline.is_sorted_by(|a, b| text(a, "at") <= text(b, "at")),
        "{row:#}"
    );
    assert!(!text(row, "summary").is_empty(), "{row:#}");
}

#[track_caller]
fn one_row(poolscope: &Poolscope, cause: &str) -> Value {
    eventually(LIMIT, || {
        let answer = poolscope.api("incidents");
        match list(&answer, "incidents") {
            [row] if row["cause"] == cause => Ok(row.clone()),
            _ => Err(format!("not one incident of {cause}: {answer:#}")),
        }
    })
}

#[track_caller]
fn check_width(shown: &str) {
    for line in shown.lines() {
        // What is there to be copied stays on its line.
        let is_command = line.trim_start().starts_with("$ ");
        assert!(
            is_command || line.chars().count() <= WIDTH,
            "{line}\n{shown}"
        );
    }
}

/// Lines of a log that say `message`.
fn logged(poolscope: &Poolscope, message: &str) -> Vec<String> {
    let mut lines = poolscope.log();
    lines.retain(|line| line.contains(message));
    lines
}

#[test]
fn a_killed_server_is_told_by_every_output() {
    let mut mongod = Mongod::standalone();
    let poolscope = Poolscope::start(&[mongod.addr()]);
    let in_json = Poolscope::start_with(&[mongod.addr()], &["--log.format", "json"]);
    let mut orders = App::start("orders", Driver::Node7, &poolscope);
    let mut billing = App::start("billing", Driver::PyMongo4, &poolscope);
    let ledger = App::start("ledger", Driver::PyMongo3, &in_json);
    await_load(&poolscope, &[&orders, &billing]);
    await_load(&in_json, &[&ledger]);
    assert_eq!(poolscope.api("incidents")["matched"], 0);
    assert!(poolscope.show(&["incidents"]).contains("no incident"));
    let ear = Ear::open(poolscope.web_addr(), None);
    ear.wait("hello");
    let follower = follow(poolscope.web_addr());
    // It has its place at the stream when it counts as a subscriber.
    eventually(LIMIT, || {
        match poolscope.sum("poolscope_event_subscribers", &[]) {
            2.0 => Ok(()),
            count => Err(format!("{count} subscribers")),
        }
    });

    let killed_at = epoch_seconds();
    mongod.kill();
    let opened = ear.wait("incident_opened");
    let delay = opened.at - killed_at;
    assert!(
        delay <= TOLD_WITHIN,
        "told after {delay} s: {:#}",
        opened.data
    );
    assert_eq!(opened.data["closed_at"], Value::Null);
    let row = one_row(&poolscope, "server_crash");
    check_row(&row);
    assert_eq!(row["severity"], "critical");
    assert_eq!(apps(&row), BTreeSet::from(["billing", "orders"]));
    assert_eq!(row["upstream"], mongod.addr().to_string());
    let id = row["id"].as_u64().unwrap();
    let one = poolscope.api(&format!("incidents/{id}"));
    assert_eq!(one["id"], row["id"]);
    assert_eq!(one["opened_at"], row["opened_at"]);
    let unknown = poolscope.get("/api/v1/incidents/4711");
    assert_eq!(unknown.status, 404, "{unknown:?}");

    let labels = [("cause", "server_crash"), ("severity", "critical")];
    let metrics = poolscope.metrics();
    let sum = |family: &str| Poolscope::sum_in(&metrics, family, &labels);
    assert_eq!(sum("poolscope_incidents_total"), 1.0);
    assert_eq!(sum("poolscope_incident_active"), 2.0, "one a client");
    for app in ["orders", "billing"] {
        let active = [("app", app), ("client", "127.0.0.1")];
        let active = Poolscope::sum_in(&metrics, "poolscope_incident_active", &active);
        assert_eq!(active, 1.0, "{app}");
    }
    let delays = "poolscope_incident_detection_delay_seconds";
    let fast = [("cause", "server_crash"), ("le", "2")];
    let fast = Poolscope::sum_in(&metrics, &format!("{delays}_bucket"), &fast);
    assert_eq!(fast, 1.0, "{metrics}");

    let shown = poolscope.show(&["incidents"]);
    check_width(&shown);
    assert!(
        shown.contains("server_crash") && shown.contains("orders@"),
        "{shown}"
    );
    let shown = poolscope.show(&["explain", &id.to_string()]);
    check_width(&shown);
    println!("{shown}");
    for cause in list(&row, "causes") {
        for fact in list(cause, "evidence") {
            let begin: String = text(fact, "fact").chars().take(20).collect();
            assert!(
                shown.contains(&begin) || cause["cause"] == "unknown",
                "{begin}\n{shown}"
            );
        }
    }
    await_line(&follower, "opened #1 critical server_crash");

    mongod.restart();
    let closed = ear.wait("incident_closed");
    check_row(&closed.data);
    let row = one_row(&poolscope, "server_crash");
    assert_eq!(row["closed_at"], closed.data["closed_at"]);
    assert_ne!(row["closed_at"], Value::Null);
    await_line(&follower, "closed #1 critical server_crash");
    assert!(poolscope.show(&["incidents"]).contains("no incident"));
    let shown = poolscope.show(&["incidents", "--all"]);
    assert!(shown.contains("server_crash"), "{shown}");
    let metrics = poolscope.metrics();
    assert!(
        !metrics.contains("\npoolscope_incident_active{"),
        "{metrics}"
    );
    let lengths = "poolscope_incident_duration_seconds_count";
    assert_eq!(Poolscope::sum_in(&metrics, lengths, &labels[..1]), 1.0);

    check_replay(&ear, poolscope.web_addr());
    check_log(&poolscope, &in_json);
    for app in [&mut orders, &mut billing] {
        check_clear(app, &poolscope);
    }
}

/// Whoever comes back hears the rest, and what cannot be told is said.
#[track_caller]
fn check_replay(ear: &Ear, addr: SocketAddr) {
    let all = ear.all();
    let first = all
        .iter()
        .position(|heard| heard.name == "incident_opened")
        .unwrap();
    let rest: Vec<&str> = all[first + 1..]
        .iter()
        .map(|heard| heard.id.as_str())
        .collect();
    assert!(!rest.is_empty());
    let again = Ear::open(addr, Some(&all[first].id));
    eventually(LIMIT, || {
        let again = again.all();
        let ids: Vec<&str> = again
            .iter()
            .skip(1)
            .map(|heard| heard.id.as_str())
            .collect();
        if again.len() > rest.len() && ids == rest {
            Ok(())
        } else {
            Err(format!("{ids:?} instead of {rest:?}"))
        }
    });
    let stranger = Ear::open(addr, Some("1-1"));
    assert_eq!(stranger.wait("lagged").data["missed"], Value::Null);
}

/// One line at the beginning and one at the end, in both forms.
#[track_caller]
fn check_log(human: &Poolscope, in_json: &Poolscope) {
    for message in ["incident opened", "incident closed"] {
        let [line] = &logged(human, message)[..] else {
            panic!("not once {message:?}: {:#?}", human.log());
        };
        for word in ["INFO", "cause=\"server_crash\"", "orders@127.0.0.1"] {
            let bare = word.replace('"', "");
            assert!(line.contains(word) || line.contains(&bare), "{line}");
        }
        let line = eventually(LIMIT, || match &logged(in_json, message)[..] {
            [line] => Ok(line.clone()),
            other => Err(format!("not once {message:?}: {other:#?}")),
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        let said = line.to_string();
        for word in ["server_crash", "critical", "ledger@127.0.0.1"] {
            assert!(said.contains(word), "{line:#}");
        }
    }
}

/// The outage is one episode of the pool, as its driver said, and figures agree once it is over.
#[track_caller]
fn check_clear(app: &mut App, poolscope: &Poolscope) {
    eventually(LIMIT, || {
        let said = app.agent.stats("app");
        let answer = poolscope.api(&format!("clients?client={}", app.name));
        let clients: Vec<&Value> = list(&answer, "clients")
            .iter()
            .flat_map(|row| list(row, "mongo_clients"))
            .filter(|client| client["closed_at"].is_null())
            .collect();
        let [client] = clients[..] else {
            return Err(format!("not one mongo client: {answer:#}"));
        };
        let episodes = list(client, "pool_clears");
        let is_equal = said["cleared"].as_u64() >= Some(1)
            && episodes.len() == 1
            && episodes[0]["ready_at"].is_string()
            && client["pool_size"]["open"] == said["open"]
            && client["created"] == said["created"];
        if is_equal {
            Ok(())
        } else {
            Err(format!("{}: {said}\n{client:#}", app.name))
        }
    });
}

#[test]
fn a_follower_outlives_the_process_it_follows() {
    let mut mongod = Mongod::standalone();
    let mut poolscope = Poolscope::start(&[mongod.addr()]);
    let follower = follow(poolscope.web_addr());
    let subscribed = |poolscope: &Poolscope| {
        eventually(LIMIT, || {
            match poolscope.sum("poolscope_event_subscribers", &[]) {
                1.0 => Ok(()),
                count => Err(format!("{count} subscribers")),
            }
        });
    };
    subscribed(&poolscope);
    poolscope.restart();
    subscribed(&poolscope);
    let app = App::start("orders", Driver::PyMongo4, &poolscope);
    await_load(&poolscope, &[&app]);
    mongod.kill();
    await_line(&follower, "opened #1 critical server_crash");
}

/// Closes a client by force with operations in its queue: the log of the application will say so, and when.
#[test]
fn what_an_application_will_have_logged_is_told() {
    let mongod = Mongod::standalone();
    mongod.command(
        "poolscope",
        doc! { "insert": "items", "documents": [{ "_id": "seed" }] },
    );
    let poolscope = Poolscope::start(&[mongod.addr()]);
    let mut app = App::start("orders", Driver::Node36Legacy, &poolscope);
    await_load(&poolscope, &[&app]);
    app.agent.submit_at_once([
        json!({
            "do": "run", "name": "app", "operation": "find", "count": 60, "concurrency": 60,
            "args": { "limit": 1 },
        }),
        json!({ "do": "close", "name": "app", "force": true, "later": true }),
    ]);
    // The pause is the subject: an application that does without its client for a moment.
    std::thread::sleep(Duration::from_millis(500));
    let uri = poolscope.uri("orders");
    let again = app
        .agent
        .submit(json!({ "do": "open", "name": "app", "uri": uri }));
    app.agent.answer_within(again, LIMIT);
    app.agent.submit(json!({
        "do": "run", "name": "app", "operation": "find", "args": { "limit": 1 },
        "seconds": 600, "concurrency": POOL, "pause": 25,
    }));
    let row = eventually(LIMIT, || {
        let answer = poolscope.api("incidents");
        let rows = list(&answer, "incidents");
        let row = rows.iter().find(|row| !list(row, "logged").is_empty());
        row.cloned()
            .ok_or_else(|| format!("nothing logged: {answer:#}"))
    });
    check_row(&row);
    let logged = &list(&row, "logged")[0];
    assert!(text(logged, "from") <= text(logged, "until"), "{row:#}");
    assert_eq!(text(&logged["client"], "app"), "orders");
    let said: Vec<Value> = app.agent.events();
    let moment = |place| {
        let moment: Timestamp = text(logged, place).parse().unwrap();
        Duration::from_millis(moment.as_millis()).as_secs_f64()
    };
    let is_said = |event: &Value| {
        let error = event["error"].as_str();
        let at = event["at"].as_f64().unwrap_or_default();
        error.is_some_and(|error| error.contains(text(logged, "message")))
            && (moment("from")..=moment("until")).contains(&at)
    };
    assert!(said.iter().any(is_said), "{logged:#}\n{said:#?}");
    let hanging = list(logged, "hanging_by_command");
    let count = |one: &Value| one["count"].as_u64().unwrap();
    assert_eq!(
        hanging.iter().map(count).sum::<u64>(),
        logged["hanging"].as_u64().unwrap(),
        "{logged:#}"
    );
    assert!(
        hanging.iter().all(|one| text(one, "command") == "find"),
        "{logged:#}"
    );
    let shown = poolscope.show(&["explain", &row["id"].to_string()]);
    check_width(&shown);
    println!("{shown}");
    assert!(
        shown.contains(&format!("\"{}\"", text(logged, "message"))),
        "{shown}"
    );
}
