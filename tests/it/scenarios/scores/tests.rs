use serde_json::{Value, json};

use super::*;
use crate::scenarios::judge::moment;

const AT: f64 = 1_795_947_800.0;

/// An application that tells of two connections, one of them closed since, and of a pool cleared with it.
fn app() -> Value {
    let event = |name: &str, connection: u64, ago: f64| json!({ "event": name, "connection": connection, "at": AT - ago });
    json!({
        "name": "orders", "address": "10.0.0.1", "driver": "node-7",
        "events": [
            event("created", 1, 60.0), event("ready", 1, 60.0), event("created", 2, 60.0), event("ready", 2, 60.0),
            event("pool_cleared", 0, 30.0), event("closed", 2, 30.0),
        ],
        "stats": {
            "source": "cmap", "clients": 1, "cleared": 1, "created": 2, "ready": 2, "closed": { "stale": 1 }, "open": 1,
        },
    })
}

#[track_caller]
fn pools(opened: u64, closed: u64, open: u64, is_right: bool) {
    let app = app();
    let mut scores = Scores::default();
    let live = picture(opened, closed, 0, open);
    scores.score_pools("a case", &[&app], &live, 0);
    scores.score_replayed("a case", &[&app], &live, 0);
    assert_eq!(scores.unmet().is_empty(), is_right, "{:?}", scores.unmet());
}

/// What poolscope tells of the application's pool.
fn picture(opened: u64, closed: u64, active: u64, idle: u64) -> Pooled {
    let pooled = json!({ "opened": opened, "closed": closed, "active": active, "idle": idle });
    let rows = [json!({ "address": "10.0.0.1", "app": "orders", "pooled": pooled })];
    let at = "2026-11-29T10:23:20.000000Z";
    assert!((moment(&json!(at)) - AT).abs() < 0.001);
    let clients = json!({ "at": at, "clients": rows });
    Pooled::live(&clients, &("10.0.0.1".to_owned(), "orders".to_owned())).unwrap()
}

#[test]
fn what_is_in_use_although_the_application_is_at_rest_fails() {
    for (active, idle, is_right) in [(0, 1, true), (1, 0, false), (0, 0, false), (0, 2, false)] {
        let mut scores = Scores::default();
        scores.score_rest("a case", &[&app()], &picture(2, 1, active, idle), 0);
        assert_eq!(scores.unmet().is_empty(), is_right, "{active} {idle}");
    }
}

#[test]
fn what_was_opened_is_open_or_closed() {
    pools(2, 0, 1, false);
    pools(2, 2, 1, false);
}

#[test]
fn each_wrong_count_of_connections_fails() {
    pools(2, 1, 1, true);
    pools(3, 2, 1, false);
    pools(1, 0, 1, false);
    pools(2, 0, 2, false);
    pools(2, 2, 0, false);
}

#[test]
fn each_wrong_number_of_mongo_clients_fails() {
    for (inferred, is_right) in [(0, false), (1, true), (2, false)] {
        let mut scores = Scores::default();
        scores.score_mongo_clients("a case", &[&app()], inferred);
        assert_eq!(scores.unmet().is_empty(), is_right, "{inferred}");
    }
}

#[track_caller]
fn clears(inferred: &[f64], is_right: bool) {
    let mut scores = Scores::default();
    let inferred: Vec<Span> = inferred
        .iter()
        .map(|ago| (AT - ago, AT - ago + 0.1))
        .collect();
    scores.score_clears("a case", &episodes::told(&app(), AT - 20.0), &inferred);
    assert_eq!(scores.unmet().is_empty(), is_right, "{:?}", scores.unmet());
}

#[test]
fn episodes_that_are_missed_or_invented_fail() {
    clears(&[30.0], true);
    clears(&[], false);
    clears(&[30.0, 10.0], false);
    clears(&[10.0], false);
    clears(&[30.0, 25.0], false);
}

#[test]
fn one_in_twenty_closes_may_have_another_reason() {
    let app = app();
    let check = |case: &str, right: u64, wrong: u64, is_met: bool| {
        let mut scores = Scores::default();
        let told = [0, right + wrong, 0, 0];
        scores.score_reasons(case, &app, told, [0, right, wrong, 0], &mut 0);
        assert_eq!(scores.reasons_unmet().is_none(), is_met, "{case}");
    };
    check("server_crash/node-7", 19, 1, true);
    check("server_crash/node-7", 18, 1, false);
    check("pool_capacity/node-7", 0, 1, true);
}

#[test]
fn two_in_a_hundred_episodes_may_be_missed_and_no_count_may_differ() {
    let mut scores = Scores {
        clears_true: 100,
        clears_inferred: 100,
        clears_paired: 98,
        ..Scores::default()
    };
    assert_eq!(scores.unmet(), [""; 0]);
    scores.clears_paired = 97;
    assert_eq!(scores.unmet().len(), 2);
    scores.clears_paired = 98;
    scores.pools = 1000;
    (scores.pools_right, scores.pools_replayed) = (999, 1000);
    assert_eq!(scores.unmet().len(), 1);
}
