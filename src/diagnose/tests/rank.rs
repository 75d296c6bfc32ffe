//! Which cause comes first.

use crate::diagnose::book::{LEAD, SURE, rank};
use crate::diagnose::{Cause, Opinion};
use crate::time::Timestamp;

fn opinion(cause: Cause, confidence: f64) -> Opinion {
    Opinion {
        cause,
        confidence,
        evident_at: Timestamp::default(),
        evidence: Vec::new(),
        against: Vec::new(),
    }
}

#[track_caller]
fn check(opinions: &[(Cause, f64)], held: Option<Cause>, expected: &[Cause]) {
    let all = opinions.iter().map(|&(cause, sure)| opinion(cause, sure));
    let verdict = rank(all.collect(), held).unwrap();
    let causes: Vec<Cause> = verdict.causes.iter().map(|one| one.cause).collect();
    assert_eq!(causes, expected);
}

use Cause::{
    AuthFailures, Deploy, NetworkReset, ReconnectStorm, ServerCrash, ServerFreeze, Unknown,
};

#[test]
fn the_surest_comes_first() {
    check(
        &[(NetworkReset, 0.6), (ServerCrash, 0.9), (ServerFreeze, 0.2)],
        None,
        &[ServerCrash, NetworkReset, ServerFreeze],
    );
}

#[test]
fn the_held_cause_gives_way_only_to_one_that_is_clearly_better() {
    let other = 0.8;
    let close = [(NetworkReset, other), (ServerCrash, other - LEAD / 2.0)];
    check(&close, None, &[NetworkReset, ServerCrash]);
    check(&close, Some(ServerCrash), &[ServerCrash, NetworkReset]);
    let clear = [(NetworkReset, other), (ServerCrash, other - LEAD * 2.0)];
    check(&clear, Some(ServerCrash), &[NetworkReset, ServerCrash]);
}

#[test]
fn what_is_unsure_is_never_first_even_if_it_was_held() {
    let below = SURE - LEAD / 2.0;
    check(
        &[(ServerCrash, below), (NetworkReset, SURE)],
        Some(ServerCrash),
        &[NetworkReset, ServerCrash],
    );
}

#[test]
fn an_alarm_outranks_what_is_healthy_and_the_unknown_outranks_nothing() {
    check(
        &[(Unknown, 0.5), (Deploy, 0.9), (AuthFailures, 0.6)],
        None,
        &[AuthFailures, Deploy, Unknown],
    );
    check(&[(Unknown, 0.9), (Deploy, 0.5)], None, &[Deploy, Unknown]);
    check(
        &[(Unknown, 0.5), (ServerCrash, 0.4)],
        None,
        &[Unknown, ServerCrash],
    );
}

#[test]
fn a_storm_aggravates_what_set_it_off_unless_nothing_did() {
    let both = [(ReconnectStorm, 0.85), (ServerCrash, 0.6)];
    check(&both, None, &[ServerCrash]);
    let all = both.iter().map(|&(cause, sure)| opinion(cause, sure));
    let verdict = rank(all.collect(), None).unwrap();
    assert_eq!(verdict.aggravations[0].cause, ReconnectStorm);
    check(
        &[(ReconnectStorm, 0.85), (ServerCrash, 0.4)],
        None,
        &[ReconnectStorm, ServerCrash],
    );
    // A storm that is not sure is a runner-up like any other.
    check(
        &[(ReconnectStorm, 0.3), (ServerCrash, 0.6)],
        None,
        &[ServerCrash, ReconnectStorm],
    );
}

#[test]
fn equal_confidence_is_ordered_by_cause_so_that_every_machine_says_the_same() {
    check(
        &[(ServerFreeze, 0.7), (ServerCrash, 0.7)],
        None,
        &[ServerCrash, ServerFreeze],
    );
    assert!(rank(Vec::new(), None).is_none());
}
