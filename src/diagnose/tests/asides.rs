//! Cleared pools: a part of the course of trouble, and no ground for anything.

use super::stage::{
    Stage, again, appeared, at, cleared, credentials, cut, no_reuse, of, refused, storm, wide,
};
use crate::diagnose::asides::ASIDES_MAX;
use crate::diagnose::book::QUIET;
use crate::diagnose::{Cause, Incident, News};

fn clears(incident: &Incident) -> Vec<&str> {
    let moments = incident.timeline.iter().map(|moment| &*moment.what);
    moments.filter(|what| what.contains("clear")).collect()
}

/// The server dies under two clients; told a second later.
fn crash(stage: &mut Stage) {
    let news = stage.consider(1000, [wide(0, 0, cut()), wide(50, 0, refused(2))]);
    let [News::Opened(incident)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!(incident.cause(), Cause::ServerCrash);
}

#[test]
fn a_cleared_pool_stands_in_the_course_of_what_it_went_with() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    stage.instance("billing", 2, 0);
    // It may be told before the trouble is.
    assert_eq!(stage.consider(300, [of(20, 0, orders, cleared(0))]), []);
    crash(&mut stage);
    let words = "orders@10.1.0.1 clears its pool to db0 (network: a connection broke with a request under way)";
    assert_eq!(clears(&stage.open()[0]), [words]);
    let more = again(of(20, 0, orders, cleared(3)), 1200);
    assert_eq!(stage.consider(1250, [more]), [], "nobody is told anew");
    let incident = &stage.open()[0];
    assert_eq!(
        clears(incident),
        [format!("{words}, and 3 connections go with it")]
    );
    let told = incident.timeline.iter();
    let moments: Vec<_> = told.map(|moment| moment.at).collect();
    assert_eq!(moments, [at(0), at(20), at(50)], "in its place");
}

#[test]
fn a_cleared_pool_opens_nothing_and_is_no_ground() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    for millis in (0..60_000).step_by(250) {
        let signal = again(of(millis, 0, orders, cleared(5)), millis + 250);
        assert_eq!(stage.consider(millis + 250, [signal]), []);
    }
    assert_eq!(stage.book.incidents().count(), 0);
    // Nor does it belong to healthy change.
    stage.consider(60_000, [of(60_000, 0, orders, appeared())]);
    assert!(stage.open().iter().all(|one| clears(one).is_empty()));
}

#[test]
fn a_cleared_pool_keeps_nothing_open() {
    let quiet = u64::try_from(QUIET.as_millis()).unwrap();
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    crash(&mut stage);
    assert_eq!(stage.consider(9000, [of(8500, 0, orders, cleared(1))]), []);
    assert_eq!(stage.consider(50 + quiet - 1, []), []);
    let news = stage.consider(50 + quiet, []);
    let [News::Closed(incident)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!(incident.closed_at, Some(at(50)));
    assert_eq!(clears(incident).len(), 1, "told until the end");
}

#[test]
fn pools_of_others_and_of_other_times_are_no_part_of_it() {
    let mut stage = Stage::new(2);
    let orders = stage.instance("orders", 1, 0);
    let billing = stage.instance("billing", 2, 0);
    stage.consider(100, [of(0, 0, orders, credentials(3))]);
    stage.consider(
        400,
        [
            of(50, 0, billing, cleared(1)),
            of(50, 1, orders, cleared(1)),
            of(10_001, 0, orders, cleared(1)),
        ],
    );
    assert_eq!(clears(&stage.open()[0]), Vec::<&str>::new());
    stage.consider(700, [of(9000, 0, orders, cleared(1))]);
    assert_eq!(clears(&stage.open()[0]).len(), 1);
}

#[test]
fn what_waits_is_a_part_of_trouble_that_comes_near_it_later() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    crash(&mut stage);
    stage.consider(11_000, [of(10_500, 0, orders, cleared(1))]);
    assert_eq!(clears(&stage.open()[0]).len(), 0, "too late for it");
    stage.consider(11_250, [again(wide(50, 0, refused(9)), 11_200)]);
    assert_eq!(clears(&stage.open()[0]).len(), 1, "it goes on");
}

#[test]
fn what_waits_is_a_part_of_trouble_of_a_set_that_is_known_later() {
    let mut stage = Stage::new(2);
    let orders = stage.instance("orders", 1, 1);
    crash(&mut stage);
    stage.consider(1500, [of(100, 1, orders, cleared(1))]);
    stage.member(0, "rs0");
    stage.consider(1750, []);
    assert_eq!(
        clears(&stage.open()[0]).len(),
        0,
        "one of them may be alone"
    );
    stage.member(1, "rs0");
    stage.consider(2000, []);
    assert_eq!(clears(&stage.open()[0]).len(), 1);
}

#[test]
fn of_many_cleared_pools_the_first_are_told() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    crash(&mut stage);
    let many = u64::try_from(ASIDES_MAX).unwrap() + 50;
    let signals: Vec<_> = (0..many)
        .map(|number| of(100 + number, 0, orders, cleared(1)))
        .collect();
    stage.consider(2000, signals);
    let incident = &stage.open()[0];
    let told = clears(incident);
    assert_eq!(told.len(), 17);
    assert_eq!(
        told[16],
        "more pools are cleared from here on: 48 at the least"
    );
}

#[test]
fn connections_that_are_not_used_again_stand_in_the_course_however_many_pools_are_cleared() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    // Alone it is nothing to tell of.
    assert_eq!(stage.consider(300, [of(10, 0, orders, no_reuse())]), []);
    stage.consider(500, [of(0, 0, orders, storm())]);
    let clears: Vec<_> = (0..30)
        .map(|number| of(100 + number, 0, orders, cleared(1)))
        .collect();
    stage.consider(800, clears);
    let incident = &stage.open()[0];
    assert_eq!(incident.cause(), Cause::ReconnectStorm);
    let mut told = incident.timeline.iter();
    let told = told.find(|moment| moment.what.contains("again:")).unwrap();
    assert_eq!(told.at, at(10));
    assert_eq!(
        told.what,
        "orders@10.1.0.1 does not use connections again: 12 connections within 1.4 s for 12 operations"
    );
}
