//! Every scenario lives as a recorded timeline, too, and expects there what its case is judged by.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::table::{Expect, SCENARIOS};
use crate::support::root;

/// What is expected of the timelines of a scenario; near misses are others'.
fn expectations(directory: &Path) -> Vec<Value> {
    let files = fs::read_dir(directory).into_iter().flatten();
    let paths = files.map(|file| file.unwrap().path());
    let of_it = paths.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".expect.json") && !name.starts_with("near_miss")
    });
    of_it
        .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

/// Whether one of them goes on to the last alarm.
fn is_told_to_the_end(expect: Expect, timelines: &[Value]) -> bool {
    let Expect::Alarms(wanted) = expect else {
        return true;
    };
    let mut counts = timelines
        .iter()
        .map(|timeline| timeline["incidents"].as_array().unwrap().len());
    counts.any(|count| count == wanted.len())
}

/// Whether a timeline expects what the table does.
fn is_as(expect: Expect, timeline: &Value) -> bool {
    let alarms = timeline["incidents"].as_array().unwrap();
    let causes: Vec<&str> = alarms
        .iter()
        .map(|alarm| alarm["cause"].as_str().unwrap())
        .collect();
    let informs = |wanted: &str| {
        let informs = timeline["informs"].as_array();
        informs.is_some_and(|causes| causes.iter().any(|cause| cause == wanted))
    };
    match expect {
        Expect::Alarm(wanted) => causes.len() == 1 && wanted.contains(&causes[0]),
        // It may end before all that follows.
        Expect::Alarms(wanted) => !causes.is_empty() && wanted.starts_with(&causes),
        Expect::Info(wanted) => causes.is_empty() && informs(wanted),
        Expect::Quiet => causes.is_empty(),
    }
}

#[test]
fn every_scenario_has_timelines_that_expect_what_it_does() {
    for scenario in SCENARIOS {
        let directory = root().join("tests/scenarios").join(scenario.name);
        let expectations = expectations(&directory);
        assert!(!expectations.is_empty(), "{} has none", scenario.name);
        assert!(
            is_told_to_the_end(scenario.expect, &expectations),
            "none of {} goes on to its last alarm",
            scenario.name
        );
        for timeline in expectations {
            assert!(
                is_as(scenario.expect, &timeline),
                "{} expects {timeline} instead of {:?}",
                scenario.name,
                scenario.expect
            );
        }
    }
}

#[test]
fn a_timeline_that_expects_something_else_is_no_timeline_of_its_scenario() {
    let alarms = |causes: &[&str]| {
        let alarms: Vec<Value> = causes
            .iter()
            .map(|cause| json!({ "cause": cause }))
            .collect();
        json!({ "incidents": alarms, "informs": [] })
    };
    let two = Expect::Alarms(&["server_crash", "wedged_client"]);
    let deploy = json!({ "incidents": [], "informs": ["deploy"] });
    for (expect, timeline, is_right) in [
        (Expect::Alarm(&["failover"]), alarms(&["failover"]), true),
        (
            Expect::Alarm(&["failover"]),
            alarms(&["server_crash"]),
            false,
        ),
        (
            Expect::Alarm(&["failover"]),
            alarms(&["failover", "failover"]),
            false,
        ),
        (Expect::Alarm(&["failover"]), alarms(&[]), false),
        (two, alarms(&["server_crash"]), true),
        (two, alarms(&["wedged_client"]), false),
        (two, alarms(&[]), false),
        (Expect::Info("deploy"), deploy.clone(), true),
        (Expect::Info("scale_out"), deploy.clone(), false),
        (Expect::Info("deploy"), alarms(&[]), false),
        (Expect::Quiet, deploy, true),
        (Expect::Quiet, alarms(&["server_crash"]), false),
    ] {
        assert_eq!(is_as(expect, &timeline), is_right, "{expect:?} {timeline}");
    }
    assert!(!is_told_to_the_end(two, &[alarms(&["server_crash"])]));
}
