//! Recorded timelines and near misses: what the pure core says of each file of `tests/scenarios`, in milliseconds.
//!
//! `<cause>/<name>.jsonl` is a journal, `<cause>/<name>.expect.json` beside it has the alarms that are to be told, in
//! order: `{"incidents":[{"cause":"server_crash","severity":"critical","within_ms":2000,"foretold":true}]}`, where
//! `severity`, `within_ms`, the time from the evidence to the alarm, and `foretold`, that it says what applications log,
//! may be left out. A near miss expects none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use poolscope::diagnose::{Incident, Severity};
use poolscope::journal::{Reader, Replay};
use serde_json::Value;

use crate::support::root;

/// Files that there must be at least: a test that looks at nothing would pass.
const LEAST: usize = 14;

fn timelines() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in fs::read_dir(root().join("tests/scenarios")).unwrap() {
        let directory = directory.unwrap().path();
        if !directory.is_dir() {
            continue;
        }
        for file in fs::read_dir(directory).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|end| end == "jsonl") {
                found.push(file);
            }
        }
    }
    found.sort();
    found
}

/// What is wrong with what is said of a timeline; `None` when nothing is.
fn amiss(timeline: &Path) -> Option<String> {
    let expected = fs::read_to_string(timeline.with_extension("expect.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let expected = expected["incidents"].as_array().unwrap();
    let journal = fs::read(timeline).unwrap();
    let mut replay = Replay::default();
    replay.read(&mut Reader::new(&journal[..])).unwrap();
    let replayed = replay.finish();
    let mut alarms: Vec<&Incident> = replayed
        .incidents
        .iter()
        .map(|(incident, _)| &**incident)
        .filter(|incident| incident.severity > Severity::Info)
        .collect();
    alarms.sort_by_key(|alarm| alarm.id);
    let causes: Vec<&str> = alarms.iter().map(|alarm| alarm.cause().label()).collect();
    let wanted: Vec<&str> = expected
        .iter()
        .map(|incident| incident["cause"].as_str().unwrap())
        .collect();
    if causes != wanted {
        let summaries: Vec<&str> = alarms.iter().map(|alarm| &*alarm.summary).collect();
        return Some(format!("{causes:?} instead of {wanted:?}: {summaries:?}"));
    }
    alarms
        .iter()
        .zip(expected)
        .find_map(|(alarm, expected)| detail_amiss(alarm, expected))
}

fn detail_amiss(alarm: &Incident, expected: &Value) -> Option<String> {
    if let Some(severity) = expected["severity"].as_str()
        && alarm.severity.label() != severity
    {
        return Some(format!("severity {}", alarm.severity.label()));
    }
    if expected["foretold"] == true && alarm.logged.is_empty() {
        return Some("nothing foretold".to_owned());
    }
    let delay = alarm.detected_at.since(alarm.evident_at).as_millis();
    let within = expected["within_ms"].as_u64().unwrap_or(2000);
    (delay > u128::from(within)).then(|| format!("told {delay} ms after it was evident"))
}

#[test]
fn timelines_are_judged_as_they_should_be() {
    let timelines = timelines();
    assert!(timelines.len() >= LEAST, "only {} files", timelines.len());
    let wrong: Vec<String> = timelines
        .iter()
        .filter_map(|timeline| {
            let name = timeline.strip_prefix(root().join("tests/scenarios"));
            let name = name.unwrap().display().to_string();
            amiss(timeline).map(|what| format!("{name}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_expectation_has_its_timeline_and_near_misses_expect_nothing() {
    let timelines: BTreeSet<PathBuf> = timelines().into_iter().collect();
    for timeline in &timelines {
        let expected = fs::read_to_string(timeline.with_extension("expect.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let name = timeline.file_stem().unwrap().to_str().unwrap();
        if name.starts_with("near_miss") {
            assert_eq!(
                expected["incidents"],
                Value::Array(Vec::new()),
                "{}",
                timeline.display()
            );
        }
        let len = fs::metadata(timeline).unwrap().len();
        assert!(
            len < 300_000,
            "{} has {len} bytes: cut it",
            timeline.display()
        );
    }
}
