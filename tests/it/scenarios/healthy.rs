//! What looks like trouble and is none.

use std::time::Duration;

use serde_json::json;

use super::network::host;
use super::stage::{POOL, Stage, pool_option};

const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(3);

pub(super) fn steady(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(Duration::from_secs(12));
}

pub(super) fn graceful_close(stage: &mut Stage) {
    let app = stage.busy("orders", stage.driver, "");
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("the application was stopped in good order", &[]);
    stage.stop_app(app);
    stage.steady(Duration::from_secs(6));
}

pub(super) fn deploy(stage: &mut Stage) {
    let driver = stage.driver;
    let mut old = Vec::new();
    for number in 0..2 {
        old.push(stage.busy_at("orders", driver, "", Some(host(10 + number))));
    }
    stage.steady(BEFORE);
    stage.fault(
        "two instances were replaced one after the other",
        &["orders"],
    );
    for (number, app) in (0..).zip(old) {
        stage.busy_at("orders", driver, "", Some(host(20 + number)));
        stage.stop_app(app);
        stage.steady(Duration::from_secs(1));
    }
    stage.steady(Duration::from_secs(6));
}

pub(super) fn scale_out(stage: &mut Stage) {
    let driver = stage.driver;
    stage.busy_at("orders", driver, "", Some(host(10)));
    stage.steady(BEFORE);
    stage.fault("two instances were added", &["orders"]);
    for number in 0..2 {
        stage.busy_at("orders", driver, "", Some(host(20 + number)));
    }
    stage.steady(Duration::from_secs(6));
}

pub(super) fn idle_recycling(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    let options = format!("{}&maxIdleTimeMS=1500", pool_option(stage.driver, POOL));
    stage.open(app, &options);
    stage.warm_up(app, POOL);
    stage.neighbour();
    stage.fault("sockets idle for 1.5 s are replaced", &[]);
    for _ in 0..5 {
        stage.steady(Duration::from_millis(2500));
        stage.burst(app, 2 * POOL, POOL);
    }
    stage.steady(AFTER);
}

pub(super) fn health_checks(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(Duration::from_secs(2));
    stage.fault("bare connections come every 200 ms", &[]);
    for _ in 0..40 {
        stage.probe();
        stage.steady(Duration::from_millis(200));
    }
    stage.steady(AFTER);
}

/// Instances are replaced behind one address: nothing but what goes over the wire tells old from new.
pub(super) fn deploy_at_one_address(stage: &mut Stage) {
    let driver = stage.driver;
    let old: Vec<usize> = (0..2).map(|_| stage.busy("orders", driver, "")).collect();
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault(
        "two instances were replaced one after the other, behind one address",
        &["orders"],
    );
    for app in old {
        stage.busy("orders", driver, "");
        stage.stop_app(app);
        stage.steady(Duration::from_secs(1));
    }
    stage.steady(Duration::from_secs(6));
}

/// An autoscaler takes instances away, each stopped in good order.
pub(super) fn scale_in(stage: &mut Stage) {
    let driver = stage.driver;
    let apps: Vec<usize> = (0..3)
        .map(|number| stage.busy_at("orders", driver, "", Some(host(10 + number))))
        .collect();
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("two of three instances were taken away", &[]);
    for app in apps.into_iter().take(2) {
        stage.stop_app(app);
        stage.steady(Duration::from_secs(1));
    }
    stage.steady(Duration::from_secs(6));
}

/// A job that runs again and again in one process: a client, two seconds of work, a close in good order.
pub(super) fn batch_job(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    stage.neighbour();
    stage.steady(Duration::from_secs(1));
    stage.fault("a job runs every three seconds", &[]);
    for _ in 0..6 {
        stage.open(app, &pool_option(stage.driver, POOL));
        stage.apps[app].agent.request(json!({
            "do": "run", "name": "app", "operation": "find", "seconds": 2, "concurrency": POOL,
            "pause": 20, "args": { "limit": 1 },
        }));
        stage.apps[app].agent.close("app");
        stage.steady(Duration::from_secs(1));
    }
    stage.steady(AFTER);
}

/// Ten instances start at once behind one address, do a little, and wait for work.
pub(super) fn start_of_many(stage: &mut Stage) {
    stage.neighbour();
    stage.steady(BEFORE);
    let apps: Vec<usize> = (0..10)
        .map(|_| stage.start("orders", stage.driver, None))
        .collect();
    stage.fault("ten instances started at once", &[]);
    let opened: Vec<(usize, u64)> = apps
        .into_iter()
        .map(|app| {
            let request = stage.open_request(app, &pool_option(stage.driver, POOL));
            (app, stage.apps[app].agent.submit(request))
        })
        .collect();
    for (app, open) in opened {
        let agent = &mut stage.apps[app].agent;
        agent.wait(open);
        agent.run("app", "find", 2, &json!({ "limit": 1 }));
    }
    stage.steady(Duration::from_secs(12));
}

/// New settings: a process closes its client in good order and opens another, a few times.
pub(super) fn reload(stage: &mut Stage) {
    let app = stage.busy("orders", stage.driver, "");
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("settings were loaded again, and the client with them", &[]);
    for _ in 0..3 {
        stage.stop_load(app);
        stage.apps[app].agent.close("app");
        stage.open(app, &pool_option(stage.driver, POOL));
        stage.warm_up(app, POOL);
        stage.load(app, "find", POOL, 25);
        stage.steady(Duration::from_secs(3));
    }
    stage.steady(AFTER);
}

/// A process for each piece of work, as scripts are: it opens a client, reads, closes in good order, and ends.
pub(super) fn short_processes(stage: &mut Stage) {
    let ready: Vec<usize> = (0..14)
        .map(|_| stage.start("orders", stage.driver, None))
        .collect();
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("a script runs every half second", &[]);
    for app in ready {
        stage.open(app, &pool_option(stage.driver, POOL));
        let agent = &mut stage.apps[app].agent;
        agent.run("app", "find", 3, &json!({ "limit": 1 }));
        agent.close("app");
        agent.submit(json!({ "do": "exit" }));
        stage.apps[app].is_gone = true;
        stage.steady(Duration::from_millis(500));
    }
    stage.steady(Duration::from_secs(5));
}
