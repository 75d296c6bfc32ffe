//! What happens between applications, poolscope and servers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;

use super::servers::tight;
use super::stage::{Stage, pool_option};
use crate::support::{Cut, Driver, Faults};

const BEFORE: Duration = Duration::from_secs(3);
const ALARM: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(3);
/// After so long without a byte a connection is cut.
const IDLE: Duration = Duration::from_millis(2500);

/// A host of its own on the loopback.
pub(super) fn host(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 7, last).into()
}

/// Everything between poolscope and the server is reset at once, and works again.
pub(super) fn reset_all(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    stage.fault(
        "all connections to mongod were reset",
        &["orders", "billing"],
    );
    stage.between.as_ref().unwrap().cut_all(Cut::Reset);
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}

/// The connections of one host only.
pub(super) fn reset_one_host(stage: &mut Stage) {
    let app = stage.busy_at("orders", stage.driver, "", Some(host(2)));
    stage.neighbour();
    stage.steady(BEFORE);
    stage.fault("all connections of one host were reset", &["orders"]);
    stage.apps[app].host.as_ref().unwrap().cut_all(Cut::Reset);
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}

fn heartbeat(driver: Driver) -> &'static str {
    // Their checks share sockets with operations.
    if matches!(driver, Driver::Node36Legacy | Driver::Php115) {
        ""
    } else {
        "heartbeatFrequencyMS=1000"
    }
}

fn idle_cutoff(stage: &mut Stage, cut: Cut) {
    let app = stage.start("orders", stage.driver, None);
    let options = [
        pool_option(stage.driver, 4),
        heartbeat(stage.driver).to_owned(),
    ];
    let options = options.join("&");
    stage.open(app, options.trim_end_matches('&'));
    stage.warm_up(app, 4);
    stage.between.as_ref().unwrap().set(Faults {
        idle_cut: Some((IDLE, cut)),
        ..Faults::default()
    });
    for _ in 0..4 {
        stage.steady(IDLE + Duration::from_millis(1200));
        if stage.fault_at == 0.0 {
            stage.fault("connections idle for 2.5 s were cut", &["orders"]);
        }
        // Whatever fails is the driver's to tell.
        let run = stage.apps[app].agent.submit(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 40 },
            "count": 8, "concurrency": 4,
        }));
        stage.apps[app]
            .agent
            .answer_within(run, Duration::from_secs(20));
    }
    let cuts = stage.between.as_ref().unwrap().idle_cuts();
    assert!(!cuts.is_empty(), "nothing was cut");
    // From the first one on there is something to see.
    stage.fault_at = cuts[0];
    stage.note("idle connections were cut", &json!(cuts));
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}

pub(super) fn idle_fin(stage: &mut Stage) {
    idle_cutoff(stage, Cut::Fin);
}

pub(super) fn idle_reset(stage: &mut Stage) {
    idle_cutoff(stage, Cut::Reset);
}

pub(super) fn idle_reset_at_use(stage: &mut Stage) {
    idle_cutoff(stage, Cut::ResetAtUse);
}

/// Something forgets connections that were idle, and swallows what is sent on them from then on.
pub(super) fn idle_drop(stage: &mut Stage) {
    let app = stage.start("orders", stage.driver, None);
    let options = [
        pool_option(stage.driver, 4),
        heartbeat(stage.driver).to_owned(),
    ]
    .join("&");
    let options = format!("{}&socketTimeoutMS=4000", options.trim_end_matches('&'));
    stage.open(app, &options);
    stage.warm_up(app, 4);
    stage.wire(&json!({ "idle_drop": IDLE.as_secs_f64() }));
    for _ in 0..3 {
        stage.steady(IDLE + Duration::from_secs(1));
        if stage.fault_at == 0.0 {
            stage.fault("connections idle for 2.5 s were forgotten", &["orders"]);
        }
        let run = stage.apps[app].agent.submit(json!({
            "do": "run", "name": "app", "operation": "sleep", "args": { "milliseconds": 40 },
            "count": 8, "concurrency": 4,
        }));
        stage.apps[app]
            .agent
            .answer_within(run, Duration::from_secs(20));
    }
    stage.await_alarm(ALARM);
    stage.steady(AFTER);
}

/// Packets vanish.
pub(super) fn blackhole(stage: &mut Stage) {
    blackhole_with(stage, "");
}

pub(super) fn blackhole_tight(stage: &mut Stage) {
    blackhole_with(stage, tight(stage.driver));
}

fn blackhole_with(stage: &mut Stage, options: &str) {
    stage.usual_apps(options);
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "packets to and from mongod vanished",
        &["orders", "billing"],
        &json!({ "loss": 1.0 }),
    );
}

/// Packets fare so until an alarm comes, and some seconds longer.
fn wire_fault(stage: &mut Stage, what: &str, affected: &[&str], faults: &serde_json::Value) {
    stage.fault(what, affected);
    stage.wire(faults);
    stage.await_alarm(Duration::from_secs(12));
    stage.steady(AFTER);
    stage.wire(&json!({}));
    stage.note("packets fare well again", &json!(null));
    stage.steady(AFTER);
}

pub(super) fn loss(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "15 % of the packets vanished",
        &["orders", "billing"],
        &json!({ "loss": 0.15 }),
    );
}

/// Few packets vanish: an operation feels it now and then.
pub(super) fn slight_loss(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "3 % of the packets vanished",
        &["orders", "billing"],
        &json!({ "loss": 0.03 }),
    );
}

pub(super) fn latency(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "packets take 300 ms longer, there and back",
        &["orders", "billing"],
        &json!({ "delay": 0.15 }),
    );
}

/// What lies between is quick to acknowledge, and late to pass on.
pub(super) fn latency_behind_proxy(stage: &mut Stage) {
    stage.usual_apps("heartbeatFrequencyMS=2000");
    stage.steady(BEFORE);
    stage.fault(
        "a proxy before mongod passes everything on 150 ms later",
        &["orders", "billing"],
    );
    let late = Faults {
        delay: Duration::from_millis(150),
        ..Faults::default()
    };
    stage.between.as_ref().unwrap().set(late);
    stage.await_alarm(Duration::from_secs(12));
    stage.steady(2 * AFTER);
    stage.between.as_ref().unwrap().set(Faults::default());
    stage.steady(AFTER);
}

/// Packets to and from the application vanish.
pub(super) fn remote_blackhole(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "packets to and from orders vanished",
        &["orders"],
        &json!({ "loss": 1.0 }),
    );
}

pub(super) fn remote_loss(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "10 % of the packets to and from orders vanished",
        &["orders"],
        &json!({ "loss": 0.1 }),
    );
}

pub(super) fn remote_latency(stage: &mut Stage) {
    stage.usual_apps("");
    stage.steady(BEFORE);
    wire_fault(
        stage,
        "packets to and from orders take 300 ms longer, there and back",
        &["orders"],
        &json!({ "delay": 0.15 }),
    );
}
