//! Recorded timelines whose pools were cleared: the clears stand in the course of the incident that they went with.

use std::fs;

use poolscope::diagnose::Cause;
use poolscope::journal::{Reader, Replay};

use crate::support::root;

/// The cause of the first alarm of a recording, and the moments of its course that are clears.
fn cleared(recording: &str) -> (Cause, Vec<String>) {
    let path = root().join("tests/scenarios").join(recording);
    let journal = fs::read(path).unwrap();
    let mut replay = Replay::default();
    replay.read(&mut Reader::new(&journal[..])).unwrap();
    let replayed = replay.finish();
    let (incident, _) = replayed.incidents.first().unwrap();
    let moments = incident.timeline.iter();
    let clears = moments.filter(|moment| moment.what.contains(" clears its pool to "));
    let clears = clears.map(|moment| moment.what.clone()).collect();
    (incident.cause(), clears)
}

#[test]
fn a_pool_that_is_cleared_by_a_crash_stands_in_its_course() {
    let (cause, clears) = cleared("server_crash/node-7.jsonl");
    assert_eq!(cause, Cause::ServerCrash);
    let words =
        "clears its pool to 127.0.0.1:27193 (network: a connection broke with a request under way)";
    assert_eq!(
        clears,
        ["billing", "orders"].map(|app| format!("{app}@127.0.0.1 {words}"))
    );
}

#[test]
fn a_pool_that_is_cleared_by_a_shutdown_says_so() {
    let (cause, clears) = cleared("primary_shutdown/pymongo-4.jsonl");
    assert_eq!(cause, Cause::ServerShutdown);
    let words = "clears its pool to 127.0.0.1:21124 (server_shutdown: a reply said that the server is shutting down)";
    assert_eq!(
        clears,
        ["billing", "orders"].map(|app| format!("{app}@127.0.0.1 {words}"))
    );
}

#[test]
fn beside_a_legacy_pool_only_the_others_are_cleared() {
    let (cause, clears) = cleared("server_crash/node-3.6-legacy.jsonl");
    assert_eq!(cause, Cause::ServerCrash);
    assert_eq!(
        clears,
        [
            "billing@127.0.0.1 clears its pool to 127.0.0.1:21460 (network: a connection broke with a request under \
             way), and 4 connections go with it"
        ]
    );
}
