//! What applications do to themselves.

use std::time::Duration;

use serde_json::json;

use super::stage::{POOL, Stage, pool_option};
use crate::support::{Driver, MongodOptions, epoch_seconds, now};

const BEFORE: Duration = Duration::from_secs(3);
const ALARM: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(3);

pub(super) fn auth_options() -> MongodOptions {
    MongodOptions {
        auth: true,
        ..MongodOptions::default()
    }
}

/// A wrong password: the application tries again and again.
pub(super) fn wrong_password(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    let mut request = stage.open_request(app, "serverSelectionTimeoutMS=2000");
    let uri = request["uri"].as_str().unwrap().to_owned();
    request["uri"] = uri
        .replacen("mongodb://", "mongodb://admin:wrong@", 1)
        .replacen("/?", "/?authSource=admin&", 1)
        .into();
    stage.steady(Duration::from_secs(1));
    stage.fault("the application has a wrong password", &["orders"]);
    // Evident with the first refusal.
    let mut is_refused = false;
    let begin = now();
    while begin.elapsed() < Duration::from_secs(5) {
        let agent = &mut stage.apps[app].agent;
        let opened = agent.submit(request.clone());
        let answer = agent
            .answer_within(opened, Duration::from_secs(20))
            .unwrap();
        if answer["ok"] == true {
            let run = agent.submit(json!({
                "do": "run", "name": "app", "operation": "find", "count": 4, "concurrency": 2,
            }));
            agent.answer_within(run, Duration::from_secs(20));
        }
        if !is_refused {
            is_refused = true;
            let told = agent
                .events()
                .into_iter()
                .find(|event| event["event"] == "operation_failed");
            let told = told.and_then(|event| event["at"].as_f64());
            stage.fault_at = told.unwrap_or_else(epoch_seconds);
        }
        stage.await_alarm(Duration::from_millis(300));
    }
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}

/// A client for each request, never closed.
pub(super) fn client_leak(stage: &mut Stage) {
    per_request(stage, &FAST, false);
}

/// The same at a pace at which nothing but what the clients do afterwards shows it.
pub(super) fn client_leak_slow(stage: &mut Stage) {
    let requests = if matches!(stage.driver, Driver::Mongoc123 | Driver::Php115) {
        &SLOW_AND_MANY
    } else {
        &SLOW
    };
    per_request(stage, requests, false);
}

/// A client for each request, closed after it.
pub(super) fn client_churn(stage: &mut Stage) {
    per_request(stage, &FAST, true);
}

/// How many requests come, and how often.
struct Requests {
    count: u64,
    pause_ms: u64,
    /// The alarm is waited for so long.
    alarm: Duration,
}

const FAST: Requests = Requests {
    count: 40,
    pause_ms: 100,
    alarm: Duration::from_secs(15),
};
const SLOW: Requests = Requests {
    count: 14,
    pause_ms: 4000,
    alarm: Duration::from_mins(1),
};
/// Where clients may be processes of their own, only so many show it.
const SLOW_AND_MANY: Requests = Requests {
    count: 80,
    pause_ms: 1500,
    alarm: Duration::from_mins(3),
};

fn per_request(stage: &mut Stage, requests: &Requests, closes: bool) {
    let app = stage.start("orders", stage.driver, None);
    stage.neighbour();
    stage.steady(BEFORE);
    let what = if closes {
        "closes it"
    } else {
        "leaves it open"
    };
    stage.fault(
        &format!("each request makes a client and {what}"),
        &["orders"],
    );
    let mut request = stage.open_request(app, "");
    request["do"] = "per_request".into();
    request["count"] = requests.count.into();
    request["pause"] = requests.pause_ms.into();
    request["close"] = closes.into();
    let run = stage.apps[app].agent.submit(request);
    stage.await_alarm(requests.alarm);
    stage.apps[app]
        .agent
        .answer_within(run, requests.alarm + Duration::from_secs(15));
    stage.await_alarm(Duration::from_secs(4));
    stage.steady(AFTER);
}

/// How many operations to have under way when a client is closed: more than the pool has sockets, so that some wait
/// in its queue, but for drivers whose `endSessions` waits its turn in that queue before they close anything. With a
/// full pool their operations are through by then, and nothing on the wire is lost.
fn under_way_at_a_close(driver: Driver, many: u64) -> u64 {
    if matches!(driver, Driver::Node36Unified | Driver::Node4) {
        POOL - 1
    } else {
        many
    }
}

/// Closes its client by force with operations under way, and goes on with another one.
pub(super) fn forced_close(stage: &mut Stage) {
    let app = stage.busy("orders", stage.driver, "");
    stage.neighbour();
    stage.steady(BEFORE);
    let count = under_way_at_a_close(stage.driver, 4 * POOL);
    stage.load_with(app, "sleep", count, 0, &json!({ "milliseconds": 1500 }));
    stage.steady(Duration::from_millis(400));
    stage.fault("the application closed its client by force", &["orders"]);
    stage.apps[app]
        .agent
        .submit(json!({ "do": "close", "name": "app", "force": true }));
    stage.open_again(app);
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}

/// Jobs begin operations, wait for none of them, and close their client.
pub(super) fn unawaited(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    stage.neighbour();
    stage.steady(BEFORE);
    for job in 0..3 {
        stage.open(app, &pool_option(stage.driver, POOL));
        stage.warm_up(app, POOL);
        let agent = &mut stage.apps[app].agent;
        agent.submit(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 400 },
            "count": 24, "concurrency": 24,
        }));
        stage.steady(Duration::from_millis(100));
        if job == 0 {
            stage.fault(
                "clients were closed while nobody waited for their operations",
                &["orders"],
            );
        }
        let agent = &mut stage.apps[app].agent;
        let close = agent.submit(json!({ "do": "close", "name": "app" }));
        agent.answer_within(close, Duration::from_secs(20));
        stage.await_alarm(Duration::from_secs(1));
    }
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
    stage.assert_failures(app);
}

/// A process ends without a word.
pub(super) fn app_crash(stage: &mut Stage) {
    let app = stage.busy("orders", stage.driver, "");
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("the application was killed", &["orders"]);
    stage.kill_app(app);
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}
