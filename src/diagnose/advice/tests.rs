//! Every cause has advice for every family of drivers.

use super::*;

fn scene(families: &[Family]) -> Scene {
    Scene {
        families: families.iter().copied().collect(),
        answers_with_errors: true,
        address: "10.0.0.5:27018".to_owned(),
        since: "2026-11-24 03:47:52 UTC".to_owned(),
        until: "2026-11-24 03:51:52 UTC".to_owned(),
    }
}

#[test]
fn every_cause_has_advice_for_every_family() {
    for cause in Cause::ALL {
        for family in Family::ALL
            .map(|family| vec![family])
            .into_iter()
            .chain([Family::ALL.to_vec()])
        {
            let advice = for_cause(*cause, &scene(&family));
            assert!(!advice.is_empty(), "{cause:?}");
            for one in advice {
                assert!(one.text.ends_with('.'), "{one:?}");
                assert_eq!(one.place.is_some(), one.command.is_some(), "{one:?}");
                let command = one.command.unwrap_or_default();
                assert!(
                    !command.contains("  ") && !command.contains('\n'),
                    "{command}"
                );
            }
        }
    }
}

#[test]
fn options_are_those_of_the_driver() {
    let told = |family| {
        let advice = for_cause(Cause::SocketTimeout, &scene(&[family]));
        advice[0].command.clone().unwrap()
    };
    assert!(told(Family::PyMongo).contains("timeoutMS"));
    assert!(told(Family::PyMongo3).contains("max_time_ms"));
    // Node 4 refuses `timeoutMS`, 6 and 7 ignore it.
    assert!(!told(Family::Node).contains("timeoutMS="));
    assert!(told(Family::Go).contains("context"));
}

#[test]
fn a_legacy_pool_may_have_ended_its_process() {
    let is_named = |family| {
        let advice = for_cause(Cause::AppCrash, &scene(&[family]));
        let mut commands = advice.iter().filter_map(|one| one.command.as_deref());
        commands.any(|command| command.contains("uncaughtException"))
    };
    assert!(is_named(Family::NodeLegacy));
    assert!(!is_named(Family::Node));
}

#[test]
fn commands_name_the_server_at_hand() {
    let advice = for_cause(Cause::NetworkBlackhole, &scene(&[]));
    assert_eq!(
        advice[0].command.as_deref(),
        Some("mtr -rwbzT -P 27018 10.0.0.5")
    );
    let mut six = scene(&[]);
    six.address = "[fd00::5]:27017".to_owned();
    assert_eq!((six.host(), six.port()), ("fd00::5", "27017"));
}

#[test]
fn the_search_finds_every_message_of_a_destroyed_pool() {
    let (_, pattern) = DESTROYED_IN_LOG.split_once("grep -niE '").unwrap();
    let (pattern, _) = pattern.split_once('\'').unwrap();
    let pattern = pattern.to_lowercase();
    // Every `MongoError` of mongodb 3.6.12 that tells of one.
    for message in [
        "Pool was force destroyed",
        "pool destroyed",
        "server instance pool was destroyed",
        "Cannot create connection when pool is destroyed",
        "topology was destroyed",
        "Topology was destroyed",
    ] {
        let line = format!("MongoError: {message}").to_lowercase();
        let mut parts = pattern.split('|');
        assert!(parts.any(|part| line.contains(part)), "{message}");
    }
    assert!(DESTROYED_IN_LOG.ends_with("' application.log"));
}
