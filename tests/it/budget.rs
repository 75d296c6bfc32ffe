//! Looking at the traffic never takes more of a worker's time than it may.

use std::time::Duration;

use serde_json::json;

use crate::support::{Agent, Driver, Mongod, MongodOptions, Poolscope, eventually};

const LIMIT: Duration = Duration::from_secs(40);

fn shed(poolscope: &Poolscope) -> f64 {
    poolscope.sum(
        "poolscope_opaque_connections_total",
        &[("reason", "budget")],
    )
}

#[test]
fn connections_that_cost_too_much_are_forwarded_unread() {
    let mongod = Mongod::start(MongodOptions::default());
    let args = ["--observe-budget", "1%", "--workers", "1"];
    let poolscope = Poolscope::start_with(&[mongod.addr()], &args);
    let mut agent = Agent::spawn(Driver::PyMongo4);
    // Compressed messages are the dearest to look at.
    let uri = format!("{}&compressors=zlib", poolscope.uri("costly"));
    agent.open("costly", &uri);
    agent.run("costly", "insert", 200, &json!({"bytes": 2000}));
    eventually(LIMIT, || {
        let found = agent.run("costly", "find", 50, &json!({}));
        assert_eq!(found["documents"], 200, "{found}");
        if shed(&poolscope) >= 1.0 {
            Ok(())
        } else {
            Err("no connection was shed")
        }
    });
    let before = poolscope.sum("poolscope_unobserved_bytes_total", &[]);
    let found = agent.run("costly", "find", 10, &json!({}));
    assert_eq!(found["documents"], 200, "{found}");
    let after = poolscope.sum("poolscope_unobserved_bytes_total", &[]);
    assert!(
        after > before,
        "bytes of the shed connection are not counted as unobserved"
    );
    let told = |line: &String| line.contains("observe_budget");
    assert!(poolscope.log().iter().any(told), "{:?}", poolscope.log());
}

#[test]
fn with_the_default_budget_nothing_is_shed() {
    let mongod = Mongod::start(MongodOptions::default());
    let poolscope = Poolscope::start(&[mongod.addr()]);
    let mut agent = Agent::spawn(Driver::PyMongo4);
    agent.open("plain", &poolscope.uri("plain"));
    agent.run("plain", "ping", 2000, &json!({}));
    assert!(poolscope.sum("poolscope_observe_seconds_total", &[]) > 0.0);
    assert!(shed(&poolscope) < 1.0);
}
