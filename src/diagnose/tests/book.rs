//! Opening, joining, absorbing, updating, closing, and the limits.

use super::stage::{
    Stage, again, appeared, at, cleared, credentials, cut, of, probes, refused, storm, wide,
};
use crate::diagnose::book::{CASES_MAX, CLOSED_MAX, QUIET, UNREACHABLE_MAX};
use crate::diagnose::{Cause, Incident, IncidentId, News, Severity};

fn label(news: &News) -> (&'static str, u64, Cause) {
    let kind = match news {
        News::Opened(_) => "opened",
        News::Updated(_) => "updated",
        News::Closed(_) => "closed",
    };
    (kind, news.incident().id.0, news.incident().cause())
}

fn labels(news: &[News]) -> Vec<(&'static str, u64, Cause)> {
    news.iter().map(label).collect()
}

/// Two clients of one server that died.
fn crashed() -> Stage {
    let mut stage = Stage::new(1);
    stage.instance("orders", 1, 0);
    stage.instance("billing", 2, 0);
    let news = stage.consider(100, [wide(0, 0, cut()), wide(50, 0, refused(2))]);
    assert_eq!(labels(&news), [("opened", 1, Cause::ServerCrash)]);
    stage
}

#[test]
fn whoever_read_incidents_reads_them_again_only_when_they_have_changed() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let mut known = stage.book.changes();
    let mut has_changed = |stage: &Stage| {
        let before = std::mem::replace(&mut known, stage.book.changes());
        before != known
    };
    stage.consider(100, [wide(0, 0, cut())]);
    assert!(!has_changed(&stage), "a case is no incident yet");
    stage.consider(200, [wide(50, 0, refused(2))]);
    assert!(has_changed(&stage), "opened");
    stage.consider(300, []);
    assert!(!has_changed(&stage), "nothing happened");
    assert_eq!(stage.consider(400, [of(60, 0, orders, cleared(1))]), []);
    assert!(has_changed(&stage), "no news, and to be read");
    let quiet = u64::try_from(QUIET.as_millis()).unwrap();
    stage.consider(400 + quiet, []);
    assert!(has_changed(&stage), "closed");
    stage.consider(500 + quiet, []);
    assert!(!has_changed(&stage), "it stays closed");
}

#[test]
fn a_case_becomes_an_incident_with_the_first_sure_opinion_and_not_before() {
    let mut stage = Stage::new(1);
    stage.instance("orders", 1, 0);
    assert_eq!(stage.consider(100, [wide(0, 0, cut())]), []);
    assert_eq!(stage.book.incidents().count(), 0);
    let news = stage.consider(200, [wide(50, 0, refused(2))]);
    assert_eq!(labels(&news), [("opened", 1, Cause::ServerCrash)]);
    let incident = news[0].incident();
    assert_eq!(incident.opened_at, at(0), "the first event, not the last");
    assert_eq!(incident.evident_at, at(50));
    assert_eq!(incident.detected_at, at(200));
    assert_eq!(incident.severity, Severity::Critical);
    let apps: Vec<&str> = incident.clients.iter().map(|client| &*client.app).collect();
    assert_eq!(apps, ["orders"], "whoever was connected");
}

#[test]
fn nothing_new_is_no_news_and_a_changed_cause_is() {
    let mut stage = crashed();
    let same = again(wide(50, 0, refused(2)), 400);
    assert_eq!(stage.consider(500, [same]), []);
    // The number changes with each telling; a reader would be told for ever.
    let more = again(wide(50, 0, refused(40)), 600);
    assert_eq!(stage.consider(700, [more]), []);
    let [incident] = &stage.open()[..] else {
        panic!("one incident");
    };
    let dials = incident.causes[0].evidence.iter();
    let counts: Vec<u64> = dials.filter_map(|fact| fact.count).collect();
    assert!(counts.contains(&40), "told anew: {counts:?}");
    assert_eq!(incident.detected_at, at(100), "told first then");
}

#[test]
fn an_aggravation_is_named_beside_the_cause_and_told_as_news() {
    let mut stage = crashed();
    let orders = stage.pools.instances().next().unwrap().id;
    let news = stage.consider(900, [of(700, 0, orders, storm())]);
    assert_eq!(labels(&news), [("updated", 1, Cause::ServerCrash)]);
    let incident = news[0].incident();
    let causes = |ranked: &[crate::diagnose::RankedCause]| -> Vec<Cause> {
        ranked.iter().map(|one| one.cause).collect()
    };
    assert_eq!(causes(&incident.aggravations), [Cause::ReconnectStorm]);
    assert!(!causes(&incident.causes).contains(&Cause::ReconnectStorm));
    assert!(incident.summary.contains("made worse by reconnect_storm"));
}

#[test]
fn a_storm_alone_is_a_cause_of_its_own() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let news = stage.consider(100, [of(0, 0, orders, storm())]);
    assert_eq!(labels(&news), [("opened", 1, Cause::ReconnectStorm)]);
    assert!(news[0].incident().aggravations.is_empty());
}

#[test]
fn what_follows_soon_joins_and_what_comes_late_is_another_incident() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    stage.consider(100, [of(0, 0, orders, credentials(3))]);
    let joined = stage.consider(9_000, [of(8_900, 0, orders, storm())]);
    assert_eq!(labels(&joined), [("updated", 1, Cause::AuthFailures)]);
    // Eleven seconds after the last that was heard.
    let other = stage.consider(20_000, [of(19_950, 0, orders, storm())]);
    assert_eq!(labels(&other), [("opened", 2, Cause::ReconnectStorm)]);
    let ids: Vec<u64> = stage.open().iter().map(|one| one.id.0).collect();
    assert_eq!(ids, [2, 1], "the newest first");
}

#[test]
fn what_turns_out_to_be_one_incident_keeps_the_older_number() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let billing = stage.instance("billing", 2, 0);
    let apart = stage.consider(
        100,
        [
            of(0, 0, orders, credentials(3)),
            of(10, 0, billing, credentials(3)),
        ],
    );
    assert_eq!(
        labels(&apart),
        [
            ("opened", 1, Cause::AuthFailures),
            ("opened", 2, Cause::AuthFailures)
        ]
    );
    // The whole server: both have a part in it.
    let news = stage.consider(300, [wide(200, 0, refused(2))]);
    let closed: Vec<u64> = news
        .iter()
        .filter(|news| matches!(news, News::Closed(_)))
        .map(|news| news.incident().id.0)
        .collect();
    assert_eq!(closed, [2]);
    let open = stage.open();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].id, IncidentId(1));
    assert_eq!(open[0].clients.len(), 2);
    // Whoever was told of it still finds it.
    let absorbed = stage.book.incidents().find(|one| one.id == IncidentId(2));
    assert_eq!(absorbed.unwrap().closed_at, Some(at(300)));
    assert_eq!(absorbed.unwrap().merged_into, Some(IncidentId(1)));
}

#[test]
fn healthy_change_neither_raises_an_alarm_nor_hides_one() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    // By then it is clear that the new process stays.
    let news = stage.consider(
        2100,
        [
            wide(0, 0, probes()),
            wide(10, 0, cut()),
            wide(60, 0, refused(2)),
            of(100, 0, orders, appeared()),
        ],
    );
    let severity = |one: &News| (one.incident().cause(), one.incident().severity);
    let mut told: Vec<_> = news.iter().map(severity).collect();
    told.sort_by_key(|(cause, _)| *cause);
    assert_eq!(
        told,
        [
            (Cause::ScaleOut, Severity::Info),
            (Cause::ServerCrash, Severity::Critical),
            (Cause::HealthChecks, Severity::Info),
        ]
    );
}

#[test]
fn an_incident_is_over_when_nothing_was_heard_of_it_for_a_while() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let first = of(0, 0, orders, credentials(3));
    stage.consider(100, [first.clone()]);
    stage.consider(5_000, [again(first, 5_000)]);
    let quiet = u64::try_from(QUIET.as_millis()).unwrap();
    assert_eq!(stage.consider(5_000 + quiet - 1, []), []);
    let news = stage.consider(5_000 + quiet, []);
    assert_eq!(labels(&news), [("closed", 1, Cause::AuthFailures)]);
    let incident = news[0].incident();
    assert_eq!(
        incident.closed_at,
        Some(at(5_000)),
        "the last that was heard"
    );
    assert!(stage.open().is_empty());
    assert_eq!(stage.book.incidents().count(), 1, "it is remembered");
}

#[test]
fn a_server_that_cannot_be_reached_keeps_its_incident_open_for_a_while() {
    let mut stage = crashed();
    stage.unreachable(60, 0);
    let most = u64::try_from(UNREACHABLE_MAX.as_millis()).unwrap();
    assert_eq!(stage.consider(most, []), []);
    let news = stage.consider(most + 100, []);
    assert_eq!(labels(&news), [("closed", 1, Cause::ServerCrash)]);
}

#[test]
fn what_was_said_stays_while_nothing_explains_it_better() {
    let mut stage = Stage::new(1);
    stage.instance("orders", 1, 0);
    // Two refused dials alone are 55 % of a crash; one alone is nothing any more.
    let news = stage.consider(100, [wide(0, 0, refused(2))]);
    assert_eq!(labels(&news), [("opened", 1, Cause::ServerCrash)]);
    assert_eq!(stage.consider(200, [wide(0, 0, refused(1))]), []);
    let open = stage.open();
    assert_eq!(open[0].cause(), Cause::ServerCrash);
    assert!(open[0].confidence() >= 0.5);
}

#[test]
fn open_and_closed_incidents_are_bounded() {
    let mut stage = Stage::new(1);
    let mut most_open = 0;
    let many = (CASES_MAX + CLOSED_MAX + 40) as u64;
    let mut closed = Vec::new();
    for number in 0..many {
        let host = u8::try_from(number % 250).unwrap();
        let app = format!("app{}", number / 250);
        let instance = stage.instance(&app, host, 0);
        let news = stage.consider(number, [of(number, 0, instance, credentials(3))]);
        closed.extend(
            news.iter()
                .filter(|news| matches!(news, News::Closed(_)))
                .map(|news| news.incident().id.0),
        );
        most_open = most_open.max(stage.open().len());
    }
    assert_eq!(most_open, CASES_MAX);
    let oldest: Vec<u64> = (1..=many - CASES_MAX as u64).collect();
    assert_eq!(
        closed, oldest,
        "those heard of longest ago go, and are told"
    );
    let kept = stage.book.incidents().count();
    assert_eq!(kept, CASES_MAX + CLOSED_MAX);
    let ids: Vec<u64> = stage.book.incidents().map(|one| one.id.0).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "the newest first");
    let is_over = |incident: &&std::sync::Arc<Incident>| incident.closed_at.is_some();
    assert_eq!(stage.book.incidents().filter(is_over).count(), CLOSED_MAX);
}
