//! Applications that dial without pause, and what resembles them.

use std::time::Duration;

use serde_json::{Value, json};

use super::network::host;
use super::stage::{Stage, is_alarm, pool_option};
use crate::support::{Driver, FaultRelay};

const BEFORE: Duration = Duration::from_secs(3);
const ALARM: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(3);
/// How long a worker of an application that has its patience cut waits for a server.
const IMPATIENT: u64 = 100;
/// One that lets its driver look for a server twice.
const PATIENT: u64 = 700;
/// Less than drivers wait before they look for a server again.
const HASTY: u64 = 210;
/// Sources of which none dials often enough to stand out.
const SOURCES: u8 = 14;
/// Sockets of a pool that has much to open again.
const LARGE_POOL: u64 = 20;

/// A driver finds a server that is back within this.
const BACK: Duration = Duration::from_secs(30);

/// Clients made without pause: each worker makes another as soon as the one it has fails.
fn hammer(uri: &str, workers: u64) -> Value {
    json!({
        "do": "hammer", "name": "app", "uri": uri, "events": true, "operation": "find",
        "args": { "limit": 1 }, "concurrency": workers, "pause": 25,
    })
}

/// A connection string that waits for a server no longer than that, and for a set that is not there where `is_wrong`.
fn impatient(stage: &Stage, app: usize, milliseconds: u64, is_wrong: bool) -> String {
    let pool = pool_option(stage.driver, 1);
    let options = format!("{pool}&serverSelectionTimeoutMS={milliseconds}&connectTimeoutMS=1000");
    let request = stage.open_request(app, &options);
    let uri = request["uri"].as_str().unwrap();
    if is_wrong {
        // As after a copy of somebody else's settings: the server is none of that set, and no driver uses it.
        return uri.replacen("directConnection=true", "replicaSet=staging", 1);
    }
    uri.to_owned()
}

fn stop(stage: &mut Stage, app: usize, run: u64) {
    let agent = &mut stage.apps[app].agent;
    agent.request(json!({ "do": "stop", "run": run }));
    agent.answer_within(run, Duration::from_secs(20));
}

/// An application is given a set's name that no server has, and tries again at once, with a client of its own each time.
pub(super) fn wrong_set(stage: &mut Stage) {
    stage.neighbour();
    let app = stage.start("orders", stage.driver, None);
    stage.steady(BEFORE);
    let uri = impatient(stage, app, IMPATIENT, true);
    let request = hammer(&uri, 4);
    stage.fault(
        "four workers make a client each as soon as the last one found no server of its set",
        &["orders"],
    );
    let run = stage.apps[app].agent.submit(request);
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
    stop(stage, app, run);
    stage.steady(AFTER);
}

/// The same on many hosts, of which none dials often.
pub(super) fn wrong_set_on_many(stage: &mut Stage) {
    stage.neighbour();
    let app = stage.start("orders", stage.driver, None);
    let hosts: Vec<FaultRelay> = (0..SOURCES)
        .map(|number| FaultRelay::from(host(20 + number), stage.poolscope.addr()))
        .collect();
    stage.steady(BEFORE);
    let uri = impatient(stage, app, PATIENT, true);
    stage.fault(
        "a worker on each of many hosts makes a client as soon as the last one found no server of its set",
        &["orders"],
    );
    let near = stage.poolscope.addr().to_string();
    let runs: Vec<u64> = hosts
        .iter()
        .map(|host| {
            let uri = uri.replacen(&near, &host.addr().to_string(), 1);
            let request = hammer(&uri, 1);
            stage.apps[app].agent.submit(request)
        })
        .collect();
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
    for run in runs {
        stop(stage, app, run);
    }
    stage.steady(AFTER);
}

/// A server dies under an application that makes another client as soon as one fails.
pub(super) fn crash_under_hammers(stage: &mut Stage) {
    stage.neighbour();
    let app = stage.start("orders", stage.driver, None);
    let uri = impatient(stage, app, HASTY, false);
    let request = hammer(&uri, 7);
    let run = stage.apps[app].agent.submit(request);
    stage.steady(BEFORE);
    stage.fault(
        "mongod was killed, and workers make a client each as soon as the last one failed",
        &["orders", "billing"],
    );
    stage.server_mut().kill();
    stage.await_alarm(ALARM);
    stage.await_incident(ALARM, |incident| is_alarm(incident) && has_storm(incident));
    stage.steady(AFTER);
    stage.server_mut().restart();
    stage.note("mongod runs again", &json!(null));
    stage.steady(AFTER);
    stop(stage, app, run);
    stage.steady(AFTER);
}

/// A large pool loses everything, and opens as much again once the server is back.
pub(super) fn reopened(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    stage.open(app, &pool_option(stage.driver, LARGE_POOL));
    stage.warm_up(app, LARGE_POOL);
    stage.load_with(app, "sleep", LARGE_POOL, 5, &json!({ "milliseconds": 50 }));
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("mongod was told to stop", &["orders", "billing"]);
    stage.server().ask_to_end();
    stage.await_alarm(ALARM);
    stage.server_mut().restart();
    stage.note("mongod runs again", &json!(null));
    stage.await_incident(BACK, has_reopened);
    stage.steady(AFTER);
}

/// A storm makes an incident worse.
pub(super) fn has_storm(incident: &Value) -> bool {
    let mut worse = incident["aggravations"].as_array().into_iter().flatten();
    worse.any(|aggravation| aggravation["cause"] == "reconnect_storm")
}

/// What is said of connections that one instance opened again.
pub(super) const REOPENED: &str = " after it lost ";

/// The course of an incident tells of connections that were opened again.
pub(super) fn has_reopened(incident: &Value) -> bool {
    let course = incident["timeline"].as_array().into_iter().flatten();
    let mut told = course.filter_map(|moment| moment["what"].as_str());
    told.any(|what| what.contains(REOPENED))
}

/// Drivers with which one can hammer at a server that is away. `PyMongo` lets nobody: however short the time-out, it
/// first waits for half a second, as it does between two looks. Rust has a connection more to lose for each client.
pub(super) const RELENTLESS: &[Driver] = &[Driver::Node36Unified, Driver::Node4, Driver::Node7];

/// Drivers whose agents can hammer.
pub(super) const HAMMERS: &[Driver] = &[
    Driver::PyMongo4,
    Driver::Node36Unified,
    Driver::Node4,
    Driver::Node7,
    Driver::Rust,
];
