//! Which signals belong to which case.

use std::time::Duration;

use super::stage::{Stage, appeared, credentials, cut, of, probes, refused, slow, wide};
use crate::detect::{Signal, SignalKind};
use crate::diagnose::kinship::{are_kin, tone};
use crate::diagnose::{Case, Cause};

fn case(stage: &Stage, signals: &[Signal]) -> Case {
    let mut case = Case::default();
    for signal in signals {
        case.concern(signal, &stage.pools);
        case.add(signal.clone());
    }
    case
}

#[track_caller]
fn check(stage: &Stage, known: &[Signal], found: Option<Cause>, new: &Signal, expected: bool) {
    let case = case(stage, known);
    let tone = tone(&new.kind);
    assert_eq!(are_kin(&case, found, new, tone, &stage.pools), expected);
}

#[test]
fn servers_are_apart_unless_they_are_members_of_one_set() {
    let mut stage = Stage::new(3);
    let known = [wide(0, 0, cut())];
    let elsewhere = wide(50, 1, refused(2));
    check(&stage, &known, None, &elsewhere, false);
    stage.member(0, "rs");
    check(&stage, &known, None, &elsewhere, false);
    stage.member(1, "rs");
    check(&stage, &known, None, &elsewhere, true);
    stage.member(2, "other");
    check(&stage, &known, None, &wide(50, 2, refused(2)), false);
}

#[test]
fn clients_are_apart_unless_the_whole_server_is_concerned() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let billing = stage.instance("billing", 2, 0);
    let one = [of(0, 0, orders, credentials(3))];
    check(&stage, &one, None, &of(50, 0, orders, slow()), true);
    check(&stage, &one, None, &of(50, 0, billing, slow()), false);
    check(&stage, &one, None, &wide(50, 0, refused(2)), true);
    let all = [wide(0, 0, cut())];
    check(&stage, &all, None, &of(50, 0, billing, slow()), true);
}

#[test]
fn what_belongs_together_comes_within_ten_seconds() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let known = [of(20_000, 0, orders, credentials(3))];
    for (millis, expected) in [
        (9_999, false),
        (10_000, true),
        (30_000, true),
        (30_001, false),
    ] {
        check(
            &stage,
            &known,
            None,
            &of(millis, 0, orders, slow()),
            expected,
        );
    }
}

#[test]
fn lasting_trouble_does_not_swallow_what_begins_later() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let mut heard_lately = of(0, 0, orders, slow());
    heard_lately.seen_at = super::stage::at(14_000);
    let known = [heard_lately];
    let later = of(15_000, 0, orders, refused(3));
    check(&stage, &known, Some(Cause::SlowOperations), &later, false);
    // Not yet found to be lasting, or soon after the beginning: it may be a part of it.
    check(&stage, &known, None, &later, true);
    let soon = of(9_000, 0, orders, refused(3));
    check(&stage, &known, Some(Cause::SlowOperations), &soon, true);
    // More of the same goes on.
    let more = of(15_000, 0, orders, slow());
    check(&stage, &known, Some(Cause::SlowOperations), &more, true);
}

#[test]
fn a_client_that_stays_away_is_an_incident_of_its_own() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let silent = SignalKind::SilentAfterTrouble {
        silent: Duration::from_secs(9),
        others_back: 1,
        logs_in: false,
    };
    let trouble = [wide(0, 0, cut())];
    check(
        &stage,
        &trouble,
        None,
        &of(50, 0, orders, silent.clone()),
        false,
    );
    let silence = [of(0, 0, orders, silent.clone())];
    check(&stage, &silence, None, &wide(50, 0, cut()), false);
    check(&stage, &silence, None, &of(50, 0, orders, silent), true);
}

#[test]
fn a_rollout_is_one_of_an_application_and_takes_its_time() {
    let mut stage = Stage::new(1);
    let one = stage.instance("orders", 1, 0);
    let two = stage.instance("orders", 2, 0);
    let other = stage.instance("billing", 3, 0);
    let known = [of(0, 0, one, appeared())];
    check(&stage, &known, None, &of(55_000, 0, two, appeared()), true);
    check(&stage, &known, None, &of(61_000, 0, two, appeared()), false);
    check(&stage, &known, None, &of(50, 0, other, appeared()), false);
}

#[test]
fn probes_of_one_server_are_one_case_whoever_sends_them() {
    let stage = Stage::new(2);
    let known = [wide(0, 0, probes())];
    check(&stage, &known, None, &wide(500, 0, probes()), true);
    check(&stage, &known, None, &wide(500, 1, probes()), false);
}
