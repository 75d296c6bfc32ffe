//! Pools that open much again: a part of the course of trouble, and no ground for anything.

use super::stage::{Stage, again, cut, of, refused, reopened, wide};
use crate::diagnose::{Cause, Incident};

fn told(incident: &Incident) -> Vec<&str> {
    let moments = incident.timeline.iter().map(|moment| &*moment.what);
    moments.filter(|what| what.contains(" lost ")).collect()
}

/// The server dies under so many clients, and each opens again what it lost, so many times, a second later.
fn crash(clients: u8, lost: u64, times: u64) -> Stage {
    let mut stage = Stage::new(1);
    let instances: Vec<_> = (1..=clients)
        .map(|host| stage.instance("orders", host, 0))
        .collect();
    stage.consider(500, [wide(0, 0, cut()), wide(50, 0, refused(2))]);
    for (millis, instance) in (1000..).step_by(100).zip(instances) {
        let signal = again(of(millis, 0, instance, reopened(lost, times)), 3500);
        assert_eq!(stage.consider(3500, [signal]), [], "nobody is told anew");
    }
    stage
}

#[test]
fn what_is_opened_again_stands_in_the_course_and_is_no_storm() {
    let stage = crash(1, 10, 3);
    let [incident] = &stage.open()[..] else {
        panic!("{:?}", stage.open());
    };
    let words = "orders@10.1.0.1 opens 30 connections to db0 within 500 ms after it lost 10: 3.0 for each; hardly any before";
    assert_eq!(told(incident), [words]);
    assert_eq!(incident.cause(), Cause::ServerCrash);
    assert!(incident.aggravations.is_empty());
    assert!(
        incident
            .causes
            .iter()
            .all(|one| one.cause != Cause::ReconnectStorm)
    );
}

#[test]
fn many_instances_are_told_together() {
    assert_eq!(told(&crash(4, 10, 1).open()[0]).len(), 4);
    let stage = crash(12, 10, 2);
    // The last of them begins 1.1 s after the first, and takes half a second.
    let words = "12 instances open 240 connections to db0 within 1.6 s after they lost 120: 2.0 for each; 0.1 a second before";
    assert_eq!(told(&stage.open()[0]), [words]);
}

#[test]
fn what_is_opened_again_is_no_trouble_by_itself() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    assert_eq!(
        stage.consider(3000, [of(0, 0, orders, reopened(10, 9))]),
        []
    );
    assert_eq!(stage.book.incidents().count(), 0);
}
