//! What drivers tell of their pools, by their own events.

use serde_json::Value;

/// What a driver tells of one event lies no further apart, in seconds.
const AT_ONCE: f64 = 0.2;

/// Reasons of closes: idle, stale, error, pool closed.
pub(super) const REASONS: [&str; 4] = ["idle", "stale", "error", "poolClosed"];

/// When a driver told that a pool was cleared. What a driver tells when its client is closed is no such thing.
pub(super) fn clears(app: &Value) -> Vec<f64> {
    let closed = times(app, "pool_closed");
    let mut clears = times(app, "pool_cleared");
    clears.retain(|at| {
        let goes = closed.iter().any(|closed| (closed - at).abs() < AT_ONCE);
        !goes && !is_farewell(app, *at)
    });
    clears
}

/// Connections that were closed until a moment, by reason. Those of PyMongo 3 that go with their client are told to be
/// stale.
pub(super) fn reasons(app: &Value, until: f64) -> [u64; REASONS.len()] {
    let mut farewells = times(app, "pool_cleared");
    farewells.retain(|at| is_farewell(app, *at));
    let mut counts = [0; REASONS.len()];
    let events = app["events"].as_array().unwrap().iter();
    for event in events.filter(|event| event["event"] == "closed") {
        let at = event["at"].as_f64().unwrap();
        let is_then = |farewell: &f64| (at - farewell).abs() < AT_ONCE;
        let reason = match event["reason"].as_str() {
            Some("stale") if farewells.iter().any(is_then) => Some("poolClosed"),
            reason => reason,
        };
        let place = REASONS.iter().position(|one| Some(*one) == reason);
        if let Some(place) = place.filter(|_| at <= until) {
            counts[place] += 1;
        }
    }
    counts
}

pub(super) fn times(app: &Value, name: &str) -> Vec<f64> {
    let events = app["events"].as_array().unwrap().iter();
    let named = events.filter(|event| event["event"] == name);
    named.map(|event| event["at"].as_f64().unwrap()).collect()
}

/// PyMongo 3 tells a clear where others tell that the pool is closed, and nothing comes after it but another client.
fn is_farewell(app: &Value, at: f64) -> bool {
    let events = app["events"].as_array().unwrap().iter();
    let later = events.filter(|event| event["at"].as_f64() > Some(at));
    let mut next = later.filter_map(|event| event["event"].as_str());
    let next = next.find(|name| matches!(*name, "pool_created" | "created" | "ready"));
    app["driver"] == "pymongo-3.13"
        && (next == Some("pool_created")
            || (next.is_none() && app["stats"]["clients"].as_u64() == Some(0)))
}

/// Connections that are open at a moment as the driver's events tell them. Node tells nothing of connections that were in use, or
/// about to be made, when their client was closed: once the last pool is closed none is left. Nor does it tell of those
/// that were about to be made when their pool was cleared, and are given up for that.
pub(super) fn open(app: &Value, until: f64) -> u64 {
    let gives_up = app["driver"]
        .as_str()
        .is_some_and(|driver| driver.starts_with("node"));
    let mut pools = 0_u64;
    let mut open = Vec::new();
    let mut unready = Vec::new();
    // Told of late, when the next client has used their numbers again.
    let mut leaving = Vec::new();
    for event in events_until(app, until) {
        let connection = &event["connection"];
        match event["event"].as_str().unwrap_or_default() {
            "pool_created" => pools += 1,
            "pool_closed" => {
                pools = pools.saturating_sub(1);
                if pools == 0 {
                    leaving.append(&mut open);
                    leaving.append(&mut unready);
                }
            }
            "pool_cleared" if gives_up => leaving.append(&mut unready),
            "created" => unready.push(connection),
            "ready" => {
                let _ = take(&mut unready, connection) || take(&mut leaving, connection);
                open.push(connection);
            }
            "closed" => {
                let is_leaving = event["reason"] == "poolClosed" && take(&mut leaving, connection);
                let _ = is_leaving
                    || take(&mut open, connection)
                    || take(&mut unready, connection)
                    || take(&mut leaving, connection);
            }
            _ => {}
        }
    }
    (open.len() + unready.len()) as u64
}

/// Takes a connection out of those.
fn take(connections: &mut Vec<&Value>, connection: &Value) -> bool {
    let position = connections.iter().position(|one| *one == connection);
    position
        .map(|position| connections.swap_remove(position))
        .is_some()
}

/// Connections that were closed since a moment. Java's driver does not say when it gave up what it was making.
pub(super) fn closed_since(app: &Value, from: f64) -> u64 {
    let unreported = app["stats"]["closed"]["unreported"].as_u64().unwrap_or(0);
    let late = times(app, "closed").into_iter().filter(|at| *at >= from);
    late.count() as u64 + unreported
}

/// Connections that a driver had begun to make at a moment. Node 3.6 tells of those only that were made, but numbers
/// them all.
pub(super) fn created(app: &Value, until: f64) -> u64 {
    let told = counted(app, "created", until);
    if app["driver"] != "node-3.6-unified" {
        return told;
    }
    let numbers = events_until(app, until).filter_map(|event| {
        let of_error = || event["error"].as_str().and_then(connection_of);
        event["connection"].as_u64().or_else(of_error)
    });
    numbers.max().unwrap_or(0).max(told)
}

/// `MongoNetworkError: connection 5 to 127.0.0.1:27017 closed`.
fn connection_of(error: &str) -> Option<u64> {
    let (_, rest) = error.split_once("connection ")?;
    rest.split_once(" to ")?.0.parse().ok()
}

/// Connections that Node's driver had told to be created and had given up by then before they were ready: it may not
/// have dialled them.
pub(super) fn given_up(app: &Value, until: f64) -> u64 {
    let is_node = app["driver"]
        .as_str()
        .is_some_and(|driver| driver.starts_with("node"));
    let mut unready = Vec::new();
    let mut given_up = 0;
    for event in events_until(app, until).filter(|_| is_node) {
        match event["event"].as_str().unwrap_or_default() {
            "created" => unready.push(&event["connection"]),
            "ready" | "closed" => {
                take(&mut unready, &event["connection"]);
            }
            "pool_closed" | "pool_cleared" => given_up += unready.drain(..).count(),
            _ => {}
        }
    }
    given_up as u64
}

/// How often something was told until a moment.
pub(super) fn counted(app: &Value, name: &str, until: f64) -> u64 {
    let named = events_until(app, until).filter(|event| event["event"] == name);
    named.count() as u64
}

fn events_until(app: &Value, until: f64) -> impl Iterator<Item = &Value> {
    let events = app["events"].as_array().unwrap().iter();
    events.filter(move |event| event["at"].as_f64() <= Some(until))
}
