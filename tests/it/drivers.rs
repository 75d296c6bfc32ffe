//! The drivers on which other tests rely do what they are told, and their own counts make sense.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Agent, Driver, Mongod, MongodOptions, ReplicaSet, eventually, eventually_equal, now, root, tool,
};

const LIMIT: Duration = Duration::from_secs(20);
const POOL_SIZE: u64 = 4;

/// Connections checked out and open, as far as the driver tells.
fn counts(agent: &mut Agent) -> (Option<u64>, u64) {
    let stats = agent.stats("app");
    (
        stats["checked_out"].as_u64(),
        stats["open"].as_u64().unwrap(),
    )
}

/// What every operation must answer with an empty collection to begin with.
fn check_operations(agent: &mut Agent, driver: Driver) {
    assert_eq!(agent.run("app", "drop", 1, &json!({})), json!({}));
    let inserted = agent.run(
        "app",
        "insert_many",
        1,
        &json!({ "documents": 30, "bytes": 10 }),
    );
    assert_eq!(inserted, json!({ "inserted": 30 }));
    let all = json!({ "documents": 30, "bytes": 300 });
    assert_eq!(agent.run("app", "find", 3, &json!({ "batch": 7 })), all);
    if matches!(
        driver,
        Driver::PyMongo3 | Driver::PyMongo4 | Driver::PyMongo4Async
    ) {
        assert_eq!(agent.run("app", "exhaust", 3, &json!({ "batch": 7 })), all);
    }
    assert_eq!(
        agent.run("app", "aggregate", 1, &json!({})),
        json!({ "groups": 7 })
    );
    let wrote = json!({ "inserted": 50, "updated": 50, "deleted": 50 });
    assert_eq!(
        agent.run("app", "bulk", 2, &json!({ "documents": 50 })),
        wrote
    );
    assert_eq!(
        agent.run("app", "crud", 5, &json!({})),
        json!({ "checked": 7 })
    );
    assert_eq!(agent.run("app", "types", 1, &json!({}))["equal"], true);
    assert_eq!(
        agent.run("app", "transaction", 1, &json!({})),
        json!({ "committed": true })
    );
    agent.run("app", "ping", 3, &json!({}));
    agent.run("app", "insert", 3, &json!({ "prefix": "acknowledged" }));
    if driver != Driver::Rust {
        agent.run("app", "insert_w0", 20, &json!({}));
    }
}

/// A cursor of that kind yields documents that are inserted after it was opened.
fn check_following_cursor(agent: &mut Agent, kind: &str, already: u64) {
    let args = json!({ "collection": "capped" });
    agent.run("app", "create_capped", 1, &args);
    agent.request(json!({
        "do": "cursor_open", "name": "app", "cursor": kind, "kind": kind, "args": args,
    }));
    agent.run("app", "insert", 3, &args);
    let wanted = already + 3;
    let next = agent.request(json!({ "do": "cursor_next", "cursor": kind, "count": wanted }));
    assert_eq!(next["documents"], wanted, "{kind}");
    agent.request(json!({ "do": "cursor_close", "cursor": kind }));
}

fn check_driver(driver: Driver) {
    let set = ReplicaSet::direct(1);
    let server = &set.members()[0];
    eventually_equal(LIMIT, &0, || server.connections());
    let mut agent = Agent::spawn(driver);
    let pool = if driver == Driver::Node36Legacy {
        "poolSize"
    } else {
        "maxPoolSize"
    };
    agent.open("app", &format!("{}&{pool}={POOL_SIZE}", set.uri()));
    check_operations(&mut agent, driver);
    check_following_cursor(&mut agent, "watch", 0);
    check_following_cursor(&mut agent, "tailable", 1);

    // At rest with three operations in flight, then with none.
    agent.hold("app", 3);
    let (checked_out, open) = counts(&mut agent);
    assert_eq!(checked_out, driver.has_cmap().then_some(3));
    // The legacy pool sends operations into sockets that wait for an answer already.
    let least = if driver.has_cmap() { 3 } else { 1 };
    assert!(
        (least..=POOL_SIZE).contains(&open),
        "{open} connections open"
    );
    assert_eq!(agent.release("app", server)["held"], 3);
    let at_rest = driver.has_cmap().then_some(0);
    eventually_equal(LIMIT, &at_rest, || counts(&mut agent).0);

    let stats = agent.stats("app");
    assert_eq!(stats["clients"], 1);
    if driver.has_cmap() {
        assert_eq!(stats["source"], "cmap");
        assert_eq!(stats["created"], stats["ready"], "{stats}");
        assert_eq!(stats["cleared"], 0, "{stats}");
        // Go does not tell of the handshake, and what it asks next is answered after ten seconds.
        let least = if driver == Driver::Go18 {
            "started"
        } else {
            "succeeded"
        };
        assert!(stats["heartbeats"][least].as_u64() >= Some(1), "{stats}");
    }
    agent.close("app");
    eventually_equal(LIMIT, &0, || counts(&mut agent).1);
    eventually_equal(LIMIT, &0, || server.connections());
}

/// Of a driver that is only there for the scenarios.
fn check_plain_driver(driver: Driver) {
    let server = Mongod::standalone();
    eventually_equal(LIMIT, &0, || server.connections());
    let mut agent = Agent::spawn(driver);
    agent.open("app", &format!("{}&maxPoolSize={POOL_SIZE}", server.uri()));
    agent.run("app", "ping", 3, &json!({}));
    agent.run("app", "insert", 3, &json!({ "bytes": 10 }));
    let all = json!({ "documents": 3, "bytes": 30 });
    assert_eq!(agent.run("app", "find", 3, &json!({ "batch": 2 })), all);
    let pair = agent.run("app", "find", 1, &json!({ "limit": 2 }));
    assert_eq!(pair["documents"], 2);
    let load = agent.submit(json!({
        "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 5 },
        "seconds": 600, "concurrency": POOL_SIZE,
    }));
    let stats = eventually(LIMIT, || {
        let stats = agent.stats("app");
        let clients = stats["clients"].as_u64().unwrap();
        // A process has one of its own.
        let expected = if driver == Driver::Php115 {
            POOL_SIZE
        } else {
            1
        };
        let has_begun = stats["heartbeats"]["succeeded"].as_u64() >= Some(1);
        if clients == expected && has_begun {
            Ok(stats)
        } else {
            Err(stats)
        }
    });
    assert_eq!(stats["heartbeats"]["failed"], 0, "{stats}");
    if driver != Driver::Php115 {
        agent.hold("app", 3);
        assert_eq!(agent.release("app", &server)["held"], 3);
    }
    agent.request(json!({ "do": "stop", "run": load }));
    let answer = agent.wait(load);
    assert_eq!(answer["failed"], 0, "{answer}");
    assert!(answer["done"].as_u64() >= Some(POOL_SIZE), "{answer}");
    agent.close("app");
    eventually_equal(LIMIT, &0, || server.connections());
    let per_request =
        json!({ "do": "per_request", "name": "brief", "uri": server.uri(), "count": 3 });
    assert_eq!(agent.request(per_request)["clients"], 3);
    assert!(server.connections() >= 3);
    agent.process().kill();
    eventually_equal(LIMIT, &0, || server.connections());
}

#[test]
fn java_36_does_as_told() {
    check_plain_driver(Driver::Java36);
}

#[test]
fn mongoc_123_does_as_told() {
    check_plain_driver(Driver::Mongoc123);
}

#[test]
fn php_115_does_as_told() {
    check_plain_driver(Driver::Php115);
}

#[test]
fn pymongo_4_does_as_told() {
    check_driver(Driver::PyMongo4);
}

#[test]
fn pymongo_4_async_does_as_told() {
    check_driver(Driver::PyMongo4Async);
}

#[test]
fn pymongo_3_does_as_told() {
    check_driver(Driver::PyMongo3);
}

#[test]
fn node_36_legacy_does_as_told() {
    check_driver(Driver::Node36Legacy);
}

#[test]
fn node_36_unified_does_as_told() {
    check_driver(Driver::Node36Unified);
}

#[test]
fn node_4_does_as_told() {
    check_driver(Driver::Node4);
}

#[test]
fn node_6_does_as_told() {
    check_driver(Driver::Node6);
}

#[test]
fn node_7_does_as_told() {
    check_driver(Driver::Node7);
}

#[test]
fn rust_does_as_told() {
    check_driver(Driver::Rust);
}

#[test]
fn go_18_does_as_told() {
    check_driver(Driver::Go18);
}

#[test]
fn the_go_agent_is_formatted() {
    let output = Command::new(tool("go/package/usr/lib/go-1.19/bin/gofmt"))
        .arg("-l")
        .arg(root().join("tests/drivers/go"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn clients_per_request_are_never_closed() {
    let server = Mongod::standalone();
    let mut agent = Agent::spawn(Driver::PyMongo4);
    let opened = agent.request(json!({
        "do": "per_request", "name": "app", "uri": server.uri(), "count": 5,
    }));
    assert_eq!(opened["clients"], 5);
    let stats = agent.stats("app");
    assert_eq!(stats["open"], 5);
    // Each has a streaming monitor and one that measures round trips.
    eventually_equal(LIMIT, &15, || server.connections());
    agent.process().kill();
    eventually_equal(LIMIT, &0, || server.connections());
}

#[test]
fn acknowledged_inserts_survive_a_crash() {
    let mut set = ReplicaSet::direct(1);
    let mut agent = Agent::spawn(Driver::PyMongo4);
    agent.open(
        "app",
        &format!("{}&w=majority&serverSelectionTimeoutMS=60000", set.uri()),
    );
    let run = agent.submit(json!({
        "do": "run", "name": "app", "operation": "insert", "seconds": 60, "concurrency": 4,
        "args": { "prefix": "doc", "list": true },
    }));
    let inserted = |set: &ReplicaSet| {
        let count = bson::doc! { "count": "items" };
        set.members()[0]
            .command("poolscope", count)
            .get_i32("n")
            .unwrap()
    };
    eventually_equal(LIMIT, &true, || inserted(&set) > 50);
    set.member_mut(0).kill();
    set.member_mut(0).restart();
    set.primary();
    let resumed = inserted(&set);
    eventually_equal(LIMIT, &true, || inserted(&set) > resumed + 50);
    agent.request(json!({ "do": "stop", "run": run }));
    let answer = agent.wait(run);
    let acknowledged = answer["acknowledged"].as_array().unwrap().len();
    assert!(acknowledged > 100, "{acknowledged}");
    for id in answer["acknowledged"].as_array().unwrap() {
        let filter = bson::doc! { "count": "items", "query": { "_id": id.as_str() } };
        let found = set.members()[0].command("poolscope", filter);
        assert_eq!(found.get_i32("n").unwrap(), 1, "{id} is lost");
    }
    let cleared: Value = agent.stats("app")["cleared"].take();
    assert!(cleared.as_u64() >= Some(1), "{cleared}");
}

#[test]
fn every_driver_is_what_it_says() {
    for driver in Driver::ALL {
        let agent = Agent::spawn(driver);
        let started = eventually(LIMIT, || agent.events().first().cloned().ok_or("nothing"));
        let version = started["version"].as_str().unwrap();
        let expected = match driver {
            Driver::PyMongo4 | Driver::PyMongo4Async => "4.20.",
            Driver::PyMongo3 => "3.13.",
            Driver::Node36Legacy | Driver::Node36Unified | Driver::Java36 => "3.6.",
            Driver::Node4 => "4.17.",
            Driver::Node6 => "6.",
            Driver::Node7 => "7.",
            Driver::Rust => "3.",
            Driver::Go18 => "1.8.",
            Driver::Mongoc123 => "1.23.",
            Driver::Php115 => "1.15.",
        };
        assert!(version.starts_with(expected), "{driver:?}: {started}");
    }
}

#[test]
fn a_password_is_demanded_and_tls_is_offered() {
    let server = Mongod::start(MongodOptions {
        auth: true,
        tls: true,
        ..MongodOptions::default()
    });
    for driver in [
        Driver::PyMongo4,
        Driver::PyMongo3,
        Driver::Node36Legacy,
        Driver::Node7,
        Driver::Rust,
    ] {
        let mut agent = Agent::spawn(driver);
        let limits = "serverSelectionTimeoutMS=3000";
        let authority = tool("tls/authority.pem");
        let tls = format!("tls=true&tlsCAFile={}", authority.display());
        agent.open("app", &format!("{}&{limits}&{tls}", server.uri()));
        agent.run("app", "crud", 1, &json!({}));
    }
    let mut stranger = Agent::spawn(Driver::PyMongo4);
    let begin = now();
    stranger.open(
        "app",
        &format!("mongodb://{}/?directConnection=true", server.addr()),
    );
    let answer = stranger.request(json!({ "do": "run", "name": "app", "operation": "crud" }));
    assert_eq!(answer["failed"], 1, "{answer}");
    assert!(
        answer["errors"]
            .to_string()
            .contains("requires authentication"),
        "{answer}"
    );
    assert!(begin.elapsed() < LIMIT);
}

#[test]
fn a_set_of_three_elects_another_primary_and_takes_the_first_one_back() {
    let mut set = ReplicaSet::direct(3);
    assert_eq!(set.primary(), 0);
    let mut agent = Agent::spawn(Driver::Node7);
    agent.open("app", &format!("{}&w=majority", set.uri()));
    agent.run("app", "crud", 3, &json!({}));
    set.member_mut(0).kill();
    assert_ne!(set.primary(), 0);
    agent.run("app", "crud", 3, &json!({}));
    set.member_mut(0).restart();
    // It has the highest priority, so it becomes primary again when it has caught up.
    eventually_equal(LIMIT, &0, || set.primary());
    agent.run("app", "crud", 3, &json!({}));
}

#[test]
fn a_frozen_server_answers_when_it_is_thawed() {
    let server = Mongod::standalone();
    let mut agent = Agent::spawn(Driver::Rust);
    agent.open("app", &server.uri());
    agent.run("app", "ping", 1, &json!({}));
    server.freeze();
    let ping = json!({ "do": "run", "name": "app", "operation": "ping" });
    let pending = agent.submit(ping);
    // The agent itself is alive and waits.
    eventually_equal(LIMIT, &Some(1), || counts(&mut agent).0);
    server.thaw();
    assert_eq!(agent.wait(pending)["done"], 1);
    eventually_equal(LIMIT, &Some(0), || counts(&mut agent).0);
}
