//! Every error code that matters to pools, said by a real server: counted as the application counts, and understood.

use std::time::Duration;

use bson::doc;
use serde_json::json;

use crate::support::{Agent, Driver, Mongod, Poolscope, eventually};

const LIMIT: Duration = Duration::from_mins(1);

/// What a server says of itself when it stops.
const SHUTDOWN: [i32; 2] = [91, 11600];
/// And when it is no primary any more.
const NOT_PRIMARY: [i32; 4] = [189, 10107, 11602, 13435];
/// Of others, of its network and of time: trouble, and nothing that this alone explains.
const UNEXPLAINED: [i32; 7] = [6, 7, 89, 202, 262, 462, 9001];

/// Says `code` to every read of an application for as long as it takes, then compares.
fn check(server: &Mongod, code: i32, cause: &str) {
    let app = format!("code-{code}");
    let poolscope = Poolscope::start(&[server.addr()]);
    let mut agent = Agent::spawn(Driver::PyMongo4);
    agent.open(
        "app",
        &format!(
            "{}&retryReads=false&maxPoolSize=2&heartbeatFrequencyMS=500",
            poolscope.uri(&app)
        ),
    );
    let run = |seconds: u64| {
        json!({
            "do": "run", "name": "app", "operation": "find", "args": { "limit": 1 },
            "seconds": seconds, "concurrency": 2, "pause": 25,
        })
    };
    let answer = agent.request(run(1));
    assert_eq!(answer["failed"], 0, "{code}: {answer}");
    let fail = |mode| {
        server.command(
            "admin",
            doc! {
                "configureFailPoint": "failCommand", "mode": mode,
                "data": { "failCommands": ["find"], "errorCode": code, "appName": &app },
            },
        );
    };
    fail("alwaysOn");
    let answer = agent.request(run(5));
    fail("off");
    let failed = answer["failed"].as_f64().unwrap();
    // After some of them the driver looks at the server first, every half second.
    assert!(failed >= 3.0, "{code}: {answer}");
    let label = code.to_string();
    eventually(LIMIT, || {
        let series = [("app", app.as_str()), ("code", label.as_str())];
        match poolscope.sum("poolscope_command_errors_total", &series) {
            #[expect(clippy::float_cmp, reason = "both are counts")]
            counted if counted == failed => Ok(()),
            counted => Err(format!("{code}: {counted} counted, {failed} failed")),
        }
    });
    eventually(LIMIT, || {
        let answer = poolscope.api("incidents");
        let rows = answer["incidents"].as_array().unwrap();
        let alarms = rows.iter().filter(|row| row["severity"] != "info");
        let causes: Vec<&str> = alarms.map(|row| row["cause"].as_str().unwrap()).collect();
        if causes == [cause] {
            Ok(())
        } else {
            Err(format!("{code}: {causes:?} instead of {cause}: {answer:#}"))
        }
    });
}

#[test]
fn codes_of_a_server_that_stops_or_steps_down_are_counted_and_understood() {
    let server = Mongod::standalone();
    for code in SHUTDOWN {
        check(&server, code, "server_shutdown");
    }
    for code in NOT_PRIMARY {
        check(&server, code, "failover");
    }
}

#[test]
fn codes_that_explain_nothing_are_counted_and_told_as_unknown() {
    let server = Mongod::standalone();
    for code in UNEXPLAINED {
        check(&server, code, "unknown");
    }
}
