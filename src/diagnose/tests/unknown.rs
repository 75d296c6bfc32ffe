//! What is told when nothing known fits.

use super::stage::{Stage, again, at, credentials, of, replies, wide};
use crate::diagnose::{Cause, Incident, News, Severity};

fn facts(incident: &Incident) -> Vec<&str> {
    let evidence = incident.causes[0].evidence.iter();
    evidence.map(|one| &*one.fact).collect()
}

#[test]
fn a_server_that_answers_everything_with_an_error_is_told_with_the_error() {
    let mut stage = Stage::new(1);
    stage.instance("orders", 1, 0);
    let told = |millis, count| again(wide(0, 0, replies(6, count)), millis);
    assert_eq!(stage.consider(250, [told(250, 12)]), []);
    assert_eq!(stage.consider(2750, [told(2750, 55)]), [], "too early");
    let news = stage.consider(3000, [told(3000, 60)]);
    let [News::Opened(incident)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!(incident.cause(), Cause::Unknown);
    assert_eq!(incident.severity, Severity::Warning);
    assert_eq!((incident.opened_at, incident.evident_at), (at(0), at(3000)));
    assert_eq!(
        facts(incident),
        [
            "60 replies said HostUnreachable (error 6) within 3.0 s: the server cannot reach a host that it needs, such \
             as a shard or another member"
        ]
    );
    let asks = |word: &str| incident.advice.iter().any(|one| one.text.contains(word));
    assert!(asks("shards or members"), "{:?}", incident.advice);
}

#[test]
fn errors_that_come_late_in_numbers_are_evident_when_they_have_come() {
    let mut stage = Stage::new(1);
    stage.instance("orders", 1, 0);
    assert_eq!(stage.consider(3500, [wide(0, 0, replies(89, 9))]), []);
    let news = stage.consider(9000, [again(wide(0, 0, replies(89, 10)), 9000)]);
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].incident().evident_at, at(9000));
}

#[test]
fn what_is_explained_is_not_unknown() {
    let mut stage = Stage::new(1);
    let orders = stage.instance("orders", 1, 0);
    let signals = [
        of(0, 0, orders, credentials(5)),
        again(wide(10, 0, replies(6, 60)), 4000),
    ];
    stage.consider(4000, signals);
    let open = stage.open();
    assert_eq!(open[0].cause(), Cause::AuthFailures);
    assert!(open[0].causes.iter().any(|one| one.cause == Cause::Unknown));
}
