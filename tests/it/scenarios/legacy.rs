//! The legacy pool of Node 3.6: the ways to "Pool was force destroyed", and the one to silence.

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use super::servers::await_new_primary;
use super::stage::Stage;
use crate::support::epoch_seconds;

/// What the driver says of operations that were in the queue.
pub(super) const MESSAGE: &str = "Pool was force destroyed";
/// What it says of operations that a destroyed pool is given.
pub(super) const MESSAGE_OF_USE: &str = "pool destroyed";

const BEFORE: Duration = Duration::from_secs(3);
const ALARM: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(3);
/// The message comes seconds after what happened on the wire.
const MESSAGE_LIMIT: Duration = Duration::from_secs(25);

/// Reads that take long enough to fill the sockets and the queue behind them.
fn slow_reads(stage: &mut Stage, milliseconds: i32, concurrency: u64) {
    stage.fail_command(
        "alwaysOn",
        doc! {
            "failCommands": ["find"], "blockConnection": true, "blockTimeMS": milliseconds,
            "appName": "orders",
        },
    );
    stage.load(0, "find", concurrency, 0);
    stage.steady(Duration::from_secs(1));
}

/// Waits until the application was told, and keeps when.
fn await_message(stage: &mut Stage) {
    let begin = epoch_seconds();
    while epoch_seconds() - begin < MESSAGE_LIMIT.as_secs_f64() {
        let told: Vec<Value> = stage.apps[0]
            .agent
            .events()
            .into_iter()
            .filter(|event| {
                event["error"]
                    .as_str()
                    .is_some_and(|error| error.contains(MESSAGE))
            })
            .collect();
        if !told.is_empty() {
            stage.note("the application was told", &told[0]);
            return;
        }
        stage.steady(Duration::from_millis(50));
    }
    stage.note("the application was never told", &json!(null));
}

pub(super) fn forced_close(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault("the application closed its client by force", &["orders"]);
    // In one tick of the event loop: what the pool was handed is still in its queue.
    stage.apps[0].agent.submit_at_once([
        json!({
            "do": "run", "name": "app", "operation": "find", "count": 60, "concurrency": 60,
            "args": { "limit": 1 },
        }),
        json!({ "do": "close", "name": "app", "force": true, "later": true }),
    ]);
    stage.open_again(0);
    stage.await_alarm(ALARM);
    await_message(stage);
    stage.steady(AFTER);
}

pub(super) fn primary_crash(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    slow_reads(stage, 200, 60);
    stage.fault("the primary was killed", &["orders", "billing"]);
    stage.server_mut().kill();
    stage.await_alarm(ALARM);
    await_new_primary(stage);
    await_message(stage);
    stage.steady(AFTER);
}

pub(super) fn primary_freeze(stage: &mut Stage) {
    stage.usual_apps("socketTimeoutMS=2500&connectTimeoutMS=2000");
    stage.steady(BEFORE);
    slow_reads(stage, 200, 60);
    stage.fault("the primary was stopped (SIGSTOP)", &["orders", "billing"]);
    stage.server().freeze();
    stage.await_alarm(ALARM);
    await_new_primary(stage);
    await_message(stage);
    stage.steady(AFTER);
    stage.server().thaw();
    stage.steady(AFTER);
}

pub(super) fn repeated_timeouts(stage: &mut Stage) {
    stage.constructor = json!({ "reconnectTries": 2, "reconnectInterval": 300 });
    stage.usual_apps("socketTimeoutMS=1500");
    stage.steady(BEFORE);
    stage.fault(
        "finds take longer than the sockets wait, again and again",
        &["orders"],
    );
    stage.fault_at += 1.5;
    slow_reads(stage, 6000, 60);
    stage.await_alarm(ALARM);
    await_message(stage);
    stage.heal_commands();
    await_wedged(stage);
}

/// Gives up after two attempts to reconnect, and never tries again.
pub(super) fn wedged(stage: &mut Stage) {
    stage.constructor = json!({ "reconnectTries": 2, "reconnectInterval": 300 });
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault(
        "mongod was away for longer than the client tries",
        &["orders", "billing"],
    );
    stage.server_mut().kill();
    stage.await_alarm(ALARM);
    stage.steady(Duration::from_secs(2));
    stage.server_mut().restart();
    stage.note("mongod runs again", &json!(null));
    await_wedged(stage);
}

/// What gave up stays away, although nothing is in its way any more: the driver has no socket left, and it is told.
fn await_wedged(stage: &mut Stage) {
    stage.await_incident(Duration::from_secs(30), |incident| {
        incident["cause"] == "wedged_client"
    });
    stage.steady(AFTER);
    let open = stage.apps[0].agent.stats("app")["open"].clone();
    stage.note("sockets that the driver has in the end", &open);
    assert_eq!(open, 0, "the driver is back");
}
