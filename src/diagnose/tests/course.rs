//! What the course of an incident says of clients that end connections.

use std::time::Duration;

use super::stage::{Stage, cut, of, slow, wide};
use crate::detect::{CloseGroup, SignalKind};
use crate::diagnose::Incident;

/// A client ended four connections in trouble.
fn closed() -> SignalKind {
    SignalKind::ClientClosed {
        group: CloseGroup {
            closed: 4,
            of: 4,
            ..CloseGroup::default()
        },
        is_whole: true,
        still_busy: 0,
        transactions: 0,
        load: 4,
        age: Duration::from_mins(1),
        is_after_trouble: true,
        is_replaced: false,
        is_alive: None,
        is_legacy: false,
        had_sessions: true,
    }
}

fn ends(incident: &Incident) -> Vec<&str> {
    let moments = incident.timeline.iter().map(|moment| &*moment.what);
    moments.filter(|what| what.contains(" ends ")).collect()
}

#[test]
fn what_one_mongo_client_ends_is_not_told_of_the_whole_instance() {
    let mut stage = Stage::new(1);
    stage.pooled("orders", 1, 7, 4);
    let instance = stage.pools.instances().next().unwrap().id;
    let mut signal = of(1000, 0, instance, closed());
    let whole = of(900, 0, instance, closed());
    signal.subject.mongo_client = stage.pools.mongo_clients().next().map(|client| client.id);
    assert!(signal.subject.mongo_client.is_some());
    stage.consider(2000, [wide(800, 0, slow()), whole, signal.clone()]);
    assert_eq!(
        ends(&stage.open()[0]),
        [
            "orders@10.1.0.1 ends all 4 connections without a goodbye",
            "orders@10.1.0.1 ends all 4 connections of one mongo client without a goodbye",
        ]
    );
    stage.pooled_at(2100, "orders", 1, 7, 5);
    stage.consider(2500, [signal]);
    assert_eq!(
        ends(&stage.open()[0])[1],
        "orders@10.1.0.1 ends 4 connections of one mongo client, which goes on, without a goodbye"
    );
}

#[test]
fn connections_of_all_instances_are_not_told_as_those_of_one() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let SignalKind::ServerClosed { group, .. } = cut() else {
        unreachable!();
    };
    let one = SignalKind::ServerClosed {
        group: CloseGroup {
            closed: 1,
            of: 12,
            in_flight: 1,
            ..group
        },
        instances: 1,
        instances_before: 2,
        followed: 0,
        is_client_side: false,
    };
    stage.consider(900, [wide(800, 0, slow()), of(850, 0, orders, one)]);
    let incident = &stage.open()[0];
    assert!(
        incident.timeline.iter().any(|moment| moment.what
            == "1 of 12 connections to db0, of orders@10.1.0.1, ended from the server's side, with a request under way"),
        "{:?}",
        incident.timeline
    );
}
