//! What is suspected besides the first cause, and what rules it out.

use std::time::Duration;

use super::stage::{Stage, again, at, of, replies, slow, storm, wide};
use crate::detect::SignalKind;
use crate::diagnose::book::SURE;
use crate::diagnose::{Cause, Incident};

/// Mongo clients that are made again and again.
fn churn() -> SignalKind {
    SignalKind::ClientChurn {
        created: 40,
        closed: 40,
        evident_at: at(100),
        window: Duration::from_secs(5),
        operations_each: 1.0,
    }
}

fn others(incident: &Incident) -> Vec<Cause> {
    let others = incident.causes.iter().skip(1);
    others.map(|other| other.cause).collect()
}

/// Every other cause shares a symptom, and has something against it.
#[track_caller]
fn check_grounds(incident: &Incident) {
    for other in incident.causes.iter().skip(1) {
        assert!(!other.evidence.is_empty(), "{other:?}");
        assert!(!other.against.is_empty(), "{other:?}");
        assert!(other.confidence < SURE, "{other:?}");
    }
    let order = incident.causes.iter().map(|cause| cause.confidence);
    assert!(order.is_sorted_by(|one, next| one >= next));
}

#[test]
fn neighbours_are_ruled_out_by_what_the_server_said() {
    let mut stage = Stage::new(1);
    stage.instance("orders", 1, 0);
    stage.consider(1000, [wide(100, 0, replies(10107, 9))]);
    let incident = &stage.open()[0];
    assert_eq!(incident.cause(), Cause::Failover);
    check_grounds(incident);
    assert_eq!(
        others(incident),
        [Cause::ServerShutdown, Cause::NetworkReset]
    );
    let reset = &incident.causes[2].against[0];
    assert_eq!(
        reset.fact,
        "the server itself said that it is not primary (error 10107)"
    );
    assert_eq!(reset.count, Some(9));
}

#[test]
fn nothing_is_ruled_out_by_what_nobody_saw() {
    let mut stage = Stage::new(1);
    // Nobody is connected: no reply was read, nothing measured.
    stage.consider(1000, [wide(100, 0, slow())]);
    let incident = &stage.open()[0];
    assert_eq!(incident.cause(), Cause::SlowOperations);
    assert_eq!(others(incident), []);
    assert_eq!(incident.causes[0].evidence.len(), 1);
}

#[test]
fn what_makes_it_worse_is_no_suspect() {
    let mut stage = Stage::new(1);
    stage.pooled("orders", 1, 7, 4);
    let instance = stage.pools.instances().next().unwrap().id;
    stage.consider(
        5000,
        [of(100, 0, instance, churn()), of(100, 0, instance, storm())],
    );
    let incident = &stage.open()[0];
    assert_eq!(incident.cause(), Cause::ClientPerRequest);
    check_grounds(incident);
    assert_eq!(others(incident), [Cause::ScaleOut]);
    assert_eq!(incident.aggravations[0].cause, Cause::ReconnectStorm);
}

#[test]
fn connections_that_grow_with_the_mongo_clients_are_evidence() {
    let mut stage = Stage::new(1);
    stage.pooled("orders", 1, 7, 4);
    let instance = stage.pools.instances().next().unwrap().id;
    for session in 8..12 {
        stage.pooled_at(500, "orders", 1, session, 3);
    }
    let churn = again(of(100, 0, instance, churn()), 1000);
    stage.consider(1000, [churn]);
    let evidence = &stage.open()[0].causes[0].evidence;
    let grown = evidence.last().map(|one| (&*one.fact, one.count));
    assert_eq!(
        grown,
        Some(("its open connections grew from 4 to 16", Some(16)))
    );
}

#[test]
fn slow_operations_fill_pools_only_where_one_grew() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    stage.consider(1000, [wide(100, 0, slow())]);
    let summary = stage.open()[0].summary.clone();
    assert!(
        summary.starts_with("Operations of orders@10.1.0.1 at db0 became slow since"),
        "{summary}"
    );
    let grew = SignalKind::PoolGrew {
        from: 2,
        to: 10,
        active: 10,
        is_saturated: true,
    };
    stage.consider(1250, [of(1200, 0, orders, grew)]);
    let summary = stage.open()[0].summary.clone();
    assert!(
        summary.contains(" became slow and fill the pools since"),
        "{summary}"
    );
}
