//! Through the proxy everything is as it is directly: the same driver does the same work both ways, on the real
//! server, and gets the same answers; and the observer has read all of it.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole numbers, and those are exact"
)]

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use crate::support::{
    Agent, Driver, Mongod, Poolscope, ReplicaSet, eventually, eventually_equal, number,
};

const LIMIT: Duration = Duration::from_secs(30);
/// The client that goes to the server itself, and the one that goes through the proxy.
const WAYS: [&str; 2] = ["direct", "proxied"];
/// A document as long as the server takes, 16 MiB, less room for its other fields.
const LONG_DOCUMENT: u64 = 16 * 1024 * 1024 - 200;

fn is_pymongo(driver: Driver) -> bool {
    matches!(
        driver,
        Driver::PyMongo3 | Driver::PyMongo4 | Driver::PyMongo4Async
    )
}

/// Compressors that the driver can load, of drivers that are compared. Driver 3.6 hands callbacks to `snappy`, whose version 7 returns promises, and
/// zstd for Node is not among what is installed.
fn compressors(driver: Driver) -> &'static [&'static str] {
    match driver {
        Driver::PyMongo3
        | Driver::PyMongo4
        | Driver::PyMongo4Async
        | Driver::Rust
        | Driver::Go18 => &["snappy", "zlib", "zstd"],
        Driver::Node4 | Driver::Node6 | Driver::Node7 => &["snappy", "zlib"],
        Driver::Node36Legacy | Driver::Node36Unified => &["zlib"],
        Driver::Java36 | Driver::Mongoc123 | Driver::Php115 => &[],
    }
}

/// Does the same under each name, in a collection of that name unless `args` names one, and returns what both were answered.
#[track_caller]
fn same(agent: &mut Agent, names: [&str; 2], operation: &str, args: &Value) -> Value {
    let [expected, found] = names.map(|name| {
        let mut args = args.clone();
        if args["collection"].is_null() {
            args["collection"] = name.into();
        }
        let answer = agent.request(json!({
            "do": "run", "name": name, "operation": operation, "args": args,
        }));
        let mut told = json!({
            "done": answer["done"], "errors": answer["errors"], "result": answer["result"],
        });
        if let Some(result) = told["result"].as_object_mut() {
            // Made by the driver, another one each time.
            result.remove("_id");
        }
        let told = told.to_string().replace(name, "<way>");
        serde_json::from_str::<Value>(&told).unwrap()
    });
    assert_eq!(found, expected, "{operation} {args}");
    found
}

/// The same, where it must succeed.
#[track_caller]
fn same_result(agent: &mut Agent, operation: &str, args: &Value) -> Value {
    let mut told = same(agent, WAYS, operation, args);
    assert_eq!(told["done"], 1, "{operation} {args}: {told}");
    told["result"].take()
}

/// Ordinary work, and work that the server refuses.
fn check_operations(agent: &mut Agent, driver: Driver) {
    same_result(agent, "drop", &json!({}));
    same_result(
        agent,
        "insert_many",
        &json!({ "documents": 30, "bytes": 10 }),
    );
    let all = json!({ "documents": 30, "bytes": 300 });
    let by_seven = json!({ "batch": 7 });
    assert_eq!(same_result(agent, "find", &by_seven), all);
    if is_pymongo(driver) {
        assert_eq!(same_result(agent, "exhaust", &by_seven), all);
    }
    same_result(agent, "find", &json!({ "limit": 3 }));
    same_result(agent, "aggregate", &json!({}));
    same_result(agent, "crud", &json!({}));
    same_result(agent, "bulk", &json!({ "documents": 200 }));
    same_result(agent, "ping", &json!({}));
    assert_eq!(same_result(agent, "types", &json!({}))["equal"], true);
    let once = json!({ "collection": "once", "prefix": "once" });
    agent.run("direct", "insert", 1, &once);
    let again = same(agent, WAYS, "insert", &once);
    assert!(again["errors"].to_string().contains("E11000"), "{again}");
    let nonsense = json!({ "command": { "nonsense": 1 } });
    let refused = same(agent, WAYS, "command", &nonsense);
    assert!(
        refused["errors"].to_string().contains("nonsense"),
        "{refused}"
    );
    if driver != Driver::Rust {
        for _ in 0..10 {
            same_result(agent, "insert_w0", &json!({}));
        }
    }
}

/// A document of 16 MiB, 47 MB in one insert, replies of 16 MiB.
fn check_sizes(agent: &mut Agent, driver: Driver) {
    same_result(agent, "drop", &json!({}));
    same_result(agent, "insert", &json!({ "bytes": LONG_DOCUMENT }));
    let long = json!({ "documents": 1, "bytes": LONG_DOCUMENT });
    assert_eq!(same_result(agent, "find", &json!({})), long);
    same_result(agent, "drop", &json!({}));
    let many = json!({ "documents": 47, "bytes": 1_000_000 });
    same_result(agent, "insert_many", &many);
    let all = json!({ "documents": 47, "bytes": 47_000_000 });
    assert_eq!(same_result(agent, "find", &json!({})), all);
    if is_pymongo(driver) {
        assert_eq!(same_result(agent, "exhaust", &json!({ "batch": 7 })), all);
    }
    same_result(agent, "drop", &json!({}));
}

/// A cursor that follows a collection yields what is inserted after it was opened.
fn check_following_cursor(agent: &mut Agent, kind: &str, already: u64) {
    for name in WAYS {
        check_following_cursor_of(agent, name, kind, already);
    }
}

fn check_following_cursor_of(agent: &mut Agent, name: &str, kind: &str, already: u64) {
    let args = json!({ "collection": format!("{name}-capped") });
    agent.run(name, "create_capped", 1, &args);
    agent.request(json!({
        "do": "cursor_open", "name": name, "cursor": kind, "kind": kind, "args": args,
    }));
    agent.run(name, "insert", 3, &args);
    let wanted = already + 3;
    let next = agent.request(json!({ "do": "cursor_next", "cursor": kind, "count": wanted }));
    assert_eq!(next["documents"], wanted, "{kind} {name}");
    agent.request(json!({ "do": "cursor_close", "cursor": kind }));
}

/// The same work, compressed in every way that the driver knows.
fn check_compressors(
    agent: &mut Agent,
    driver: Driver,
    server: &Mongod,
    poolscope: &Poolscope,
    proxy: &str,
) {
    for &compressor in compressors(driver) {
        let names = WAYS.map(|way| format!("{way}-{compressor}"));
        for (name, uri) in names.iter().zip([server.uri().as_str(), proxy]) {
            agent.open(
                name,
                &format!("{uri}&compressors={compressor}&appName={name}"),
            );
        }
        let names = [names[0].as_str(), names[1].as_str()];
        let mut check = |operation, args| {
            let told = same(agent, names, operation, &args);
            assert_eq!(told["done"], 1, "{compressor}: {operation} {args}: {told}");
        };
        check("crud", json!({}));
        check("types", json!({}));
        check("bulk", json!({}));
        // More than the observer opens of one message.
        check("insert_many", json!({ "documents": 60, "bytes": 40_000 }));
        check("find", json!({}));
        check("find", json!({ "batch": 7 }));
        if is_pymongo(driver) {
            check("exhaust", json!({ "batch": 7 }));
        }
        check("drop", json!({}));
        let upstream = server.addr().to_string();
        let info = [
            ("upstream", upstream.as_str()),
            ("app", names[1]),
            ("compressor", compressor),
        ];
        let compressed = poolscope.sum("poolscope_client_info", &info);
        assert_eq!(compressed, 1.0, "{compressor}");
        for name in names {
            agent.close(name);
        }
    }
}

/// How often the server was asked for something, as it counts and as the proxy counts.
const COUNTED: [&str; 7] = [
    "find",
    "getMore",
    "insert",
    "update",
    "delete",
    "aggregate",
    "findAndModify",
];

fn server_counts(server: &Mongod) -> Vec<i64> {
    let status = server.command("admin", doc! { "serverStatus": 1 });
    let commands = status.get_document("metrics").unwrap();
    let commands = commands.get_document("commands").unwrap();
    let total = |name: &&str| {
        let command = commands.get_document(name).unwrap();
        number(command.get("total").unwrap())
    };
    COUNTED.iter().map(total).collect()
}

/// A metric that counts things.
#[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
fn whole(value: f64) -> i64 {
    value as i64
}

fn proxy_counts(poolscope: &Poolscope, app: &str) -> Vec<i64> {
    let total = |name: &&str| {
        let labels = [("app", app), ("command", *name)];
        whole(poolscope.sum("poolscope_requests_total", &labels))
    };
    COUNTED.iter().map(total).collect()
}

fn grown(now: &[i64], before: &[i64]) -> Vec<i64> {
    now.iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect()
}

/// The proxy sees every request that the server gets.
fn check_counts(
    agent: &mut Agent,
    driver: Driver,
    server: &Mongod,
    poolscope: &Poolscope,
    app: &str,
) {
    let before = (server_counts(server), proxy_counts(poolscope, app));
    let args = json!({ "collection": "counted" });
    agent.run("proxied", "crud", 5, &args);
    agent.run("proxied", "bulk", 3, &args);
    agent.run(
        "proxied",
        "insert_many",
        1,
        &json!({ "collection": "counted", "documents": 30 }),
    );
    agent.run(
        "proxied",
        "find",
        3,
        &json!({ "collection": "counted", "batch": 7 }),
    );
    agent.run("proxied", "aggregate", 2, &args);
    if driver != Driver::Rust {
        agent.run("proxied", "insert_w0", 20, &args);
    }
    let proxied = grown(&proxy_counts(poolscope, app), &before.1);
    assert!(proxied.iter().all(|count| *count > 0), "{proxied:?}");
    // The server may be behind with what it does not acknowledge.
    eventually_equal(LIMIT, &proxied, || grown(&server_counts(server), &before.0));
}

/// Clients that wait at the server for news of the topology.
fn streaming_monitors(server: &Mongod) -> i64 {
    let status = server.command("admin", doc! { "serverStatus": 1 });
    let connections = status.get_document("connections").unwrap();
    number(connections.get("awaitingTopologyChanges").unwrap())
}

/// All that passed was decoded.
fn assert_all_was_read(poolscope: &Poolscope) {
    for family in [
        "poolscope_opaque_connections_total",
        "poolscope_decode_failures_total",
        "poolscope_unobserved_bytes_total",
    ] {
        assert_eq!(
            poolscope.sum(family, &[]),
            0.0,
            "{family}: {:#?}",
            poolscope.log()
        );
    }
}

/// One driver against one server, `direct` and by `proxy`.
fn check_server(
    agent: &mut Agent,
    driver: Driver,
    server: &Mongod,
    poolscope: &Poolscope,
    proxy: &str,
    app: &str,
) {
    let monitors = i64::from(driver != Driver::Node36Legacy);
    // A ping, since not every driver connects before it is used.
    agent.open("direct", &server.uri());
    agent.run("direct", "ping", 1, &json!({}));
    eventually_equal(LIMIT, &monitors, || streaming_monitors(server));
    agent.open("proxied", &format!("{proxy}&appName={app}"));
    agent.run("proxied", "ping", 1, &json!({}));
    eventually_equal(LIMIT, &(2 * monitors), || streaming_monitors(server));
    check_operations(agent, driver);
    check_following_cursor(agent, "tailable", 1);
    check_sizes(agent, driver);
    check_compressors(agent, driver, server, poolscope, proxy);
    check_counts(agent, driver, server, poolscope, app);
}

fn check_driver(driver: Driver) {
    let standalone = Mongod::standalone();
    let mut set = ReplicaSet::start(1);
    let poolscope = Poolscope::start(&[standalone.addr(), set.addrs()[0]]);
    set.initiate(&poolscope.advertised()[1..]);
    let mut agent = Agent::spawn(driver);

    let proxy = format!("mongodb://{}/?directConnection=true", poolscope.addr());
    check_server(&mut agent, driver, &standalone, &poolscope, &proxy, "alone");
    for way in WAYS {
        agent.close(way);
    }

    let member = &set.members()[0];
    check_server(&mut agent, driver, member, &poolscope, &set.uri(), "set");
    check_following_cursor(&mut agent, "watch", 0);
    for _ in 0..5 {
        same_result(&mut agent, "transaction", &json!({}));
    }
    for way in WAYS {
        agent.close(way);
    }

    assert_all_was_read(&poolscope);
    // What the server says to the monitors that left is no trouble of theirs.
    let errors = poolscope.sum(
        "poolscope_upstream_command_errors_total",
        &[("code", "279")],
    );
    assert_eq!(errors, 0.0);
}

#[test]
fn pymongo_4_finds_no_difference() {
    check_driver(Driver::PyMongo4);
}

#[test]
fn pymongo_4_async_finds_no_difference() {
    check_driver(Driver::PyMongo4Async);
}

#[test]
fn pymongo_3_finds_no_difference() {
    check_driver(Driver::PyMongo3);
}

#[test]
fn node_36_legacy_finds_no_difference() {
    check_driver(Driver::Node36Legacy);
}

#[test]
fn node_36_unified_finds_no_difference() {
    check_driver(Driver::Node36Unified);
}

#[test]
fn node_4_finds_no_difference() {
    check_driver(Driver::Node4);
}

#[test]
fn node_6_finds_no_difference() {
    check_driver(Driver::Node6);
}

#[test]
fn node_7_finds_no_difference() {
    check_driver(Driver::Node7);
}

#[test]
fn rust_finds_no_difference() {
    check_driver(Driver::Rust);
}

#[test]
fn go_18_finds_no_difference() {
    check_driver(Driver::Go18);
}

/// Two hundred clients, each with its pool and its monitors, work side by side.
#[test]
fn two_hundred_clients_work_at_once() {
    let server = Mongod::standalone();
    let poolscope = Poolscope::start(&[server.addr()]);
    let drivers = [
        Driver::PyMongo4,
        Driver::Node36Legacy,
        Driver::Node7,
        Driver::Rust,
    ];
    let mut agents = drivers.map(Agent::spawn);
    let each = |agents: &mut [Agent], request: &dyn Fn(usize, usize) -> Value| {
        let submitted: Vec<(usize, u64)> = agents
            .iter_mut()
            .enumerate()
            .flat_map(|(index, agent)| {
                let submit = |client| (index, agent.submit(request(index, client)));
                (0..50).map(submit).collect::<Vec<_>>()
            })
            .collect();
        for (index, id) in submitted {
            let answer = agents[index].wait(id);
            assert!(answer["failed"].as_u64().unwrap_or(0) == 0, "{answer}");
        }
    };
    each(&mut agents, &|index, client| {
        let uri = poolscope.uri(&format!("{:?}", drivers[index]));
        json!({ "do": "open", "name": format!("client-{client}"), "uri": uri })
    });
    each(&mut agents, &|_, client| {
        json!({
            "do": "run", "name": format!("client-{client}"), "operation": "crud", "count": 4,
            "concurrency": 2,
        })
    });
    for driver in drivers {
        let app = format!("{driver:?}");
        let labels = [("app", app.as_str()), ("command", "findAndModify")];
        assert_eq!(
            poolscope.sum("poolscope_requests_total", &labels),
            200.0,
            "{app}"
        );
    }
    // While nobody comes or goes, both count the same connections.
    eventually(LIMIT, || {
        let ours = whole(poolscope.sum("poolscope_upstream_connections", &[]));
        let theirs = server.connections();
        if ours == theirs && ours >= 400 {
            Ok(())
        } else {
            Err(format!("{ours} and {theirs}"))
        }
    });
    assert_all_was_read(&poolscope);
}

/// Connections that the server has from this application, monitors among them.
fn connections_of(server: &Mongod, app: &str) -> i64 {
    let current = doc! { "$currentOp": { "allUsers": true, "idleConnections": true } };
    let pipeline = [
        current,
        doc! { "$match": { "appName": app } },
        doc! { "$count": "n" },
    ];
    let reply = server.command(
        "admin",
        doc! {
            "aggregate": 1, "pipeline": pipeline.to_vec(), "cursor": {},
            // Secondaries are asked as well.
            "$readPreference": { "mode": "nearest" },
        },
    );
    let cursor = reply.get_document("cursor").unwrap();
    let batch = cursor.get_array("firstBatch").unwrap();
    batch.first().map_or(0, |count| {
        number(count.as_document().unwrap().get("n").unwrap())
    })
}

/// Drivers that learn of three members from the set itself go through the proxy to each of them.
#[test]
fn nothing_bypasses_the_proxy_of_a_set_of_three() {
    let mut set = ReplicaSet::start(3);
    let poolscope = Poolscope::start(&set.addrs());
    set.initiate(&poolscope.advertised());
    // A single seed: the others are found.
    let seed = format!("mongodb://{}/?replicaSet=rs&w=majority", poolscope.addr());
    let members = set.members();
    let upstreams: Vec<String> = set.addrs().iter().map(ToString::to_string).collect();
    for driver in [
        Driver::PyMongo4,
        Driver::PyMongo3,
        Driver::Node36Unified,
        Driver::Node7,
        Driver::Rust,
    ] {
        let app = format!("{driver:?}");
        let mut agent = Agent::spawn(driver);
        agent.open("app", &format!("{seed}&appName={app}"));
        agent.open(
            "reader",
            &format!("{seed}&appName={app}&readPreference=secondary"),
        );
        agent.run("app", "drop", 1, &json!({}));
        agent.run("app", "crud", 3, &json!({}));
        agent.run("app", "bulk", 3, &json!({}));
        agent.run(
            "app",
            "insert_many",
            1,
            &json!({ "documents": 30, "bytes": 10 }),
        );
        agent.run("app", "transaction", 2, &json!({}));
        check_following_cursor_of(&mut agent, "app", "watch", 0);
        let all = json!({ "documents": 34, "bytes": 300 });
        eventually_equal(LIMIT, &all, || {
            agent.run("reader", "find", 1, &json!({ "batch": 7 }))
        });
        agent.run("reader", "find", 20, &json!({}));
        let labels = |upstream| [("upstream", upstream), ("app", app.as_str())];
        for (member, upstream) in members.iter().zip(&upstreams) {
            eventually(LIMIT, || {
                let ours = whole(poolscope.sum("poolscope_connections", &labels(upstream)));
                let theirs = connections_of(member, &app);
                if ours == theirs && ours >= 2 {
                    Ok(())
                } else {
                    Err(format!("{app} at {upstream}: {ours} and {theirs}"))
                }
            });
        }
        let read = |upstream: &String| {
            let labels = [
                ("upstream", upstream.as_str()),
                ("app", &app),
                ("command", "find"),
            ];
            poolscope.sum("poolscope_requests_total", &labels)
        };
        assert!(
            upstreams[1..].iter().map(read).sum::<f64>() >= 20.0,
            "{app}"
        );
        agent.close("app");
        agent.close("reader");
    }
    assert_eq!(poolscope.sum("poolscope_upstream_bypass_names", &[]), 0.0);
    assert_all_was_read(&poolscope);
}

/// What follows an exhaust cursor, 300 writes without answer and a code with scope on one connection is
/// counted and measured like anything else.
#[test]
fn twenty_finds_are_twenty_finds_whatever_came_before() {
    let server = Mongod::standalone();
    let poolscope = Poolscope::start(&[server.addr()]);
    for driver in Driver::ABLE {
        let app = format!("{driver:?}");
        let size = if driver == Driver::Node36Legacy {
            "poolSize"
        } else {
            "maxPoolSize"
        };
        let mut agent = Agent::spawn(driver);
        // Monitors that check now and then would be measured too.
        let uri = poolscope.uri(&app);
        agent.open("app", &format!("{uri}&{size}=1&heartbeatFrequencyMS=60000"));
        agent.run("app", "drop", 1, &json!({}));
        agent.run(
            "app",
            "insert_many",
            1,
            &json!({ "documents": 30, "bytes": 10 }),
        );
        let one = [("app", app.as_str())];
        let counts = || {
            let by_command = |family, command| {
                whole(poolscope.sum(family, &[("app", app.as_str()), ("command", command)]))
            };
            let timed = "poolscope_upstream_command_duration_seconds_count";
            [
                by_command("poolscope_requests_total", "find"),
                whole(poolscope.sum(timed, &[("command", "find")])),
                whole(poolscope.sum("poolscope_command_duration_seconds_count", &one)),
            ]
        };
        let mut check = |operation: &str, count, args: Value| {
            agent.run("app", operation, count, &args);
            agent.run("app", "ping", 1, &json!({}));
            at_rest(&poolscope, &app);
            let before = counts();
            agent.run("app", "find", 20, &json!({ "limit": 3 }));
            at_rest(&poolscope, &app);
            assert_eq!(
                grown(&counts(), &before),
                [20; 3],
                "{app} after {operation}"
            );
        };
        if is_pymongo(driver) {
            check("exhaust", 1, json!({ "batch": 7 }));
        }
        if driver != Driver::Rust {
            check("insert_w0", 300, json!({}));
            let inserts = [("app", app.as_str()), ("command", "insert")];
            assert_eq!(poolscope.sum("poolscope_requests_total", &inserts), 301.0);
        }
        check("types", 3, json!({}));
        if driver.has_cmap() {
            assert_eq!(agent.stats("app")["created"], 1, "{app}");
        }
        agent.close("app");
    }
    assert_all_was_read(&poolscope);
}

/// Nothing of the application is in flight: the last reply was looked at.
fn at_rest(poolscope: &Poolscope, app: &str) {
    eventually_equal(LIMIT, &0, || {
        whole(poolscope.sum("poolscope_requests_in_flight", &[("app", app)]))
    });
}
