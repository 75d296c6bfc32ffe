//! What servers do to their clients.

use std::time::Duration;

use bson::doc;
use serde_json::json;

use super::stage::{Servers, Stage, pool_option};
use crate::support::{Driver, MongodOptions, epoch_seconds, eventually};

const BEFORE: Duration = Duration::from_secs(3);
const ALARM: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(3);
const ELECTION: Duration = Duration::from_secs(30);
/// Time-outs as a careful operator sets them.
const TIGHT: &str = "socketTimeoutMS=2500&connectTimeoutMS=2000&serverSelectionTimeoutMS=5000";

pub(super) fn tight(driver: Driver) -> &'static str {
    match driver {
        // It has no time-out for sockets.
        Driver::Rust => {
            "connectTimeoutMS=2000&serverSelectionTimeoutMS=5000&heartbeatFrequencyMS=2000"
        }
        Driver::Node36Legacy => "socketTimeoutMS=2500&connectTimeoutMS=2000",
        Driver::PyMongo4
        | Driver::PyMongo4Async
        | Driver::PyMongo3
        | Driver::Node36Unified
        | Driver::Node4
        | Driver::Node6
        | Driver::Node7
        | Driver::Go18
        | Driver::Java36
        | Driver::Mongoc123
        | Driver::Php115 => TIGHT,
    }
}

pub(super) fn crash(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("mongod was killed", &["orders", "billing"]);
    stage.server_mut().kill();
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
    stage.server_mut().restart();
    stage.note("mongod runs again", &json!(null));
    stage.steady(AFTER);
}

pub(super) fn shutdown(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("mongod was told to stop", &["orders", "billing"]);
    stage.server().ask_to_end();
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
    stage.server_mut().restart();
    stage.note("mongod runs again", &json!(null));
    stage.steady(AFTER);
}

/// Waits until one of the members that were secondaries leads.
pub(super) fn await_new_primary(stage: &Stage) {
    let Servers::Set(set) = &stage.servers else {
        unreachable!("only sets elect");
    };
    eventually(ELECTION, || {
        let leads = |member: usize| {
            let hello = set.members()[member].try_command("admin", doc! { "hello": 1 });
            hello.is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
        };
        if leads(1) || leads(2) {
            Ok(())
        } else {
            Err("no new primary")
        }
    });
}

pub(super) fn stepdown(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("the primary was told to step down", &["orders", "billing"]);
    stage.server().command(
        "admin",
        doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 },
    );
    // The command waits for a secondary to catch up; the change itself comes with its end.
    stage.fault_at = epoch_seconds();
    stage.await_alarm(ALARM);
    await_new_primary(stage);
    stage.note("there is a new primary", &json!(null));
    stage.steady(AFTER);
}

pub(super) fn primary_crash(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("the primary was killed", &["orders", "billing"]);
    stage.server_mut().kill();
    stage.await_alarm(ALARM);
    await_new_primary(stage);
    stage.note("there is a new primary", &json!(null));
    stage.steady(AFTER);
}

pub(super) fn primary_shutdown(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("the primary was told to stop", &["orders", "billing"]);
    stage.server().ask_to_end();
    stage.await_alarm(ALARM);
    await_new_primary(stage);
    stage.note("there is a new primary", &json!(null));
    stage.steady(AFTER);
}

pub(super) fn freeze(stage: &mut Stage) {
    freeze_with(stage, "");
}

pub(super) fn freeze_tight(stage: &mut Stage) {
    freeze_with(stage, tight(stage.driver));
}

fn freeze_with(stage: &mut Stage, options: &str) {
    stage.usual_apps(options);
    stage.steady(BEFORE);
    stage.fault("mongod was stopped (SIGSTOP)", &["orders", "billing"]);
    stage.server().freeze();
    stage.await_alarm(ALARM);
    let frozen = epoch_seconds() - stage.fault_at;
    stage.steady(Duration::from_secs(7).saturating_sub(Duration::from_secs_f64(frozen)));
    stage.server().thaw();
    stage.note("mongod goes on", &json!(null));
    stage.steady(AFTER);
}

pub(super) fn closing(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("mongod closes a connection now and then", &["orders"]);
    for _ in 0..8 {
        stage.fail_command(
            doc! { "times": 1 },
            doc! { "failCommands": ["find"], "closeConnection": true, "appName": "orders" },
        );
        stage.await_alarm(Duration::from_millis(700));
        stage.steady(Duration::from_millis(300));
    }
    stage.await_alarm(Duration::from_secs(3));
    stage.heal_commands();
    stage.steady(AFTER);
}

/// Replies that make drivers clear their pools although the server stays as it is.
fn error_replies(stage: &mut Stage, code: i32) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    let what = format!("finds were answered with error {code}");
    stage.fault(&what, &["orders", "billing"]);
    for _ in 0..4 {
        stage.fail_command(
            doc! { "times": 4 },
            doc! { "failCommands": ["find"], "errorCode": code },
        );
        stage.await_alarm(Duration::from_millis(500));
        stage.steady(Duration::from_millis(300));
    }
    stage.await_alarm(Duration::from_secs(3));
    stage.heal_commands();
    stage.steady(AFTER);
}

pub(super) fn replies_shutdown(stage: &mut Stage) {
    error_replies(stage, 11600);
}

pub(super) fn replies_not_primary(stage: &mut Stage) {
    error_replies(stage, 10107);
}

pub(super) fn replies_stepped_down(stage: &mut Stage) {
    error_replies(stage, 189);
}

/// A host behind the server does not answer it in time, every other time: nothing that a client can see explains it.
pub(super) fn replies_from_behind(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault(
        "every other find was answered with error 202",
        &["orders", "billing"],
    );
    stage.fail_command(
        doc! { "activationProbability": 0.5 },
        doc! { "failCommands": ["find"], "errorCode": 202 },
    );
    stage.await_alarm(ALARM);
    stage.steady(Duration::from_secs(1));
    stage.heal_commands();
    stage.steady(AFTER);
}

/// Reads answer late enough for the pool to grow to its limit, and beyond what it can serve.
pub(super) fn slow_operations(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    stage.open(app, &pool_option(stage.driver, 10));
    stage.warm_up(app, 2);
    stage.load(app, "find", 2, 25);
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("finds of orders take 1.2 s", &["orders"]);
    stage.fail_command(
        "alwaysOn",
        doc! {
            "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 1200, "appName": "orders",
        },
    );
    // What came every 25 ms keeps coming: more of it is under way at once.
    stage.load(app, "find", 20, 5);
    stage.await_alarm(Duration::from_secs(12));
    stage.steady(AFTER);
    stage.heal_commands();
    stage.steady(AFTER);
}

/// A time-out of the client that some of its operations cannot meet, while others pass.
pub(super) fn socket_timeout(stage: &mut Stage) {
    stage.busy("orders", stage.driver, "socketTimeoutMS=1500");
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault(
        "finds of orders take 4 s, its sockets time out after 1.5 s",
        &["orders"],
    );
    stage.fail_command(
        "alwaysOn",
        doc! {
            "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 4000, "appName": "orders",
        },
    );
    // No operation fails before that.
    stage.fault_at += 1.5;
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
    stage.heal_commands();
    stage.steady(AFTER);
}

pub(super) fn capacity_options() -> MongodOptions {
    MongodOptions {
        args: vec!["--maxConns".to_owned(), "24".to_owned()],
        ..MongodOptions::default()
    }
}

/// Three instances want more connections together than the server accepts.
pub(super) fn capacity(stage: &mut Stage) {
    stage.neighbour();
    stage.steady(BEFORE);
    let driver = stage.driver;
    stage.fault(
        "two instances want 20 connections each of a server that has 24",
        &["orders"],
    );
    let options = format!("{}&serverSelectionTimeoutMS=3000", pool_option(driver, 20));
    let options = if driver == Driver::Node36Legacy {
        pool_option(driver, 20)
    } else {
        options
    };
    for _ in 0..2 {
        let app = stage.start("orders", driver, None);
        let request = stage.open_request(app, &options);
        // It may well be turned away.
        let opened = stage.apps[app].agent.submit(request);
        let answer = stage.apps[app]
            .agent
            .answer_within(opened, Duration::from_secs(5));
        if answer.is_some_and(|answer| answer["ok"] == true) {
            stage.load_with(app, "sleep", 20, 5, &json!({ "milliseconds": 300 }));
        } else {
            stage.apps[app].is_gone = true;
        }
    }
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}
