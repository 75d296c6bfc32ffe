//! Recorded timelines and near misses: what the pure core says of each file of `tests/scenarios`, in milliseconds.
//!
//! `<cause>/<name>.jsonl` is a journal, `<cause>/<name>.expect.json` beside it has the alarms that are to be told, in
//! order: `{"incidents":[{"cause":"server_crash","severity":"critical","within_ms":2000,"trigger":"primary crash",
//! "messages":["Pool was force destroyed"],"how_often":["about 60 times"],"began":["127.0.0.1:27017",1795959973143]}]}`,
//! where `severity`, `within_ms`, the time from the evidence to the alarm, `evidence`, what facts for the cause begin with,
//! `trigger`, `messages` and `how_often`, what it says applications log and why, and `began`, at which server and at which
//! millisecond since the epoch, may be left out; so may `"aggravations":["reconnect_storm"]`, what makes it worse, and
//! `"course":"after it lost"`, words of a moment of its course. `"informs":["deploy"]` beside it names every cause that is told as
//! information, and nothing else may be; whoever expects no alarm says it. `near_miss_*` has what resembles the cause that
//! it says it `"misses"`, which is neither told as an alarm nor as information.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poolscope::admin::incident_row;
use poolscope::diagnose::{Cause, Incident, Severity};
use poolscope::journal::{Reader, Replay, Replayed};
use poolscope::time::Timestamp;
use poolscope::timeline::lines::write_mark;
use serde_json::{Value, json};

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

fn amiss(timeline: &Path) -> Option<String> {
    let journal = fs::read(timeline).unwrap();
    let mut replay = Replay::default();
    replay.read(&mut Reader::new(&journal[..])).unwrap();
    told_amiss(&replay.finish(), &expectation(timeline))
}

/// What is wrong with what was said; `None` when nothing is.
fn told_amiss(replayed: &Replayed, expected: &Value) -> Option<String> {
    let informs = informs(replayed);
    if expected["informs"].is_array() && expected["informs"] != json!(informs) {
        return Some(format!(
            "informs of {informs:?} instead of {}",
            expected["informs"]
        ));
    }
    let expected = expected["incidents"].as_array().unwrap();
    let mut alarms: Vec<(&Incident, &str)> = replayed
        .incidents
        .iter()
        .map(|(incident, upstream)| (&**incident, upstream.as_str()))
        .filter(|(incident, _)| incident.severity > Severity::Info)
        .collect();
    alarms.sort_by_key(|(alarm, _)| alarm.id);
    let causes: Vec<&str> = alarms
        .iter()
        .map(|(alarm, _)| alarm.cause().label())
        .collect();
    let wanted: Vec<&str> = expected
        .iter()
        .map(|incident| incident["cause"].as_str().unwrap())
        .collect();
    if causes != wanted {
        let summaries: Vec<&str> = alarms.iter().map(|(alarm, _)| &*alarm.summary).collect();
        return Some(format!("{causes:?} instead of {wanted:?}: {summaries:?}"));
    }
    alarms
        .iter()
        .zip(expected)
        .find_map(|((alarm, upstream), expected)| detail_amiss(alarm, upstream, expected))
}

/// Causes that are told as information, once each.
fn informs(replayed: &Replayed) -> BTreeSet<&'static str> {
    let incidents = replayed.incidents.iter();
    incidents
        .filter(|(incident, _)| incident.severity == Severity::Info)
        .map(|(incident, _)| incident.cause().label())
        .collect()
}

fn detail_amiss(alarm: &Incident, upstream: &str, expected: &Value) -> Option<String> {
    if let Some(severity) = expected["severity"].as_str()
        && alarm.severity.label() != severity
    {
        return Some(format!("severity {}", alarm.severity.label()));
    }
    let amiss = evidence_amiss(alarm, expected)
        .or_else(|| foretold_amiss(alarm, expected))
        .or_else(|| course_amiss(alarm, expected))
        .or_else(|| unfounded(alarm));
    if amiss.is_some() {
        return amiss;
    }
    let began = json!([upstream, alarm.opened_at.as_millis()]);
    if expected["began"].is_array() && expected["began"] != began {
        return Some(format!("began {began} instead of {}", expected["began"]));
    }
    let delay = alarm.detected_at.since(alarm.evident_at).as_millis();
    let within = expected["within_ms"].as_u64().unwrap_or(2000);
    (delay > u128::from(within)).then(|| format!("told {delay} ms after it was evident"))
}

/// What makes it worse, and words of a moment of its course.
fn course_amiss(alarm: &Incident, expected: &Value) -> Option<String> {
    let worse = alarm.aggravations.iter();
    let worse: Vec<&str> = worse.map(|one| one.cause.label()).collect();
    if expected["aggravations"].is_array() && expected["aggravations"] != json!(worse) {
        return Some(format!(
            "made worse by {worse:?} instead of {}",
            expected["aggravations"]
        ));
    }
    let words = expected["course"].as_str()?;
    let mut course = alarm.timeline.iter();
    let is_told = course.any(|moment| moment.what.contains(words));
    (!is_told).then(|| format!("nothing of \"{words}\" in its course"))
}

/// Facts must speak for its cause that begin so.
fn evidence_amiss(alarm: &Incident, expected: &Value) -> Option<String> {
    let facts = alarm.causes.first()?.evidence.iter();
    let facts: Vec<&str> = facts.map(|evidence| &*evidence.fact).collect();
    let mut wanted = expected["evidence"].as_array()?.iter();
    let missing = wanted.find(|wanted| {
        let begin = wanted.as_str().unwrap();
        !facts.iter().any(|fact| fact.starts_with(begin))
    })?;
    Some(format!("{missing} is not among {facts:?}"))
}

/// Whoever is told a cause wants to know what it is not, and from what that is known; where nothing known fits there
/// may be nothing to rule out.
fn unfounded(alarm: &Incident) -> Option<String> {
    let mut others = alarm.causes.iter().skip(1);
    let is_founded = alarm.cause() == Cause::Unknown
        || others.any(|other| other.cause != Cause::Unknown && !other.against.is_empty());
    (!is_founded).then(|| format!("nothing is ruled out beside {}", alarm.cause().label()))
}

/// Each message must be foretold, in this order, and with no trigger but the expected one.
fn foretold_amiss(alarm: &Incident, expected: &Value) -> Option<String> {
    let told: Vec<&str> = alarm.logged.iter().map(|logged| &*logged.message).collect();
    if let Some(wanted) = expected["messages"].as_array()
        && told != *wanted
    {
        return Some(format!("{told:?} foretold instead of {wanted:?}"));
    }
    let often: Vec<String> = alarm
        .logged
        .iter()
        .map(|logged| logged.failed.words())
        .collect();
    if let Some(wanted) = expected["how_often"].as_array()
        && often != *wanted
    {
        return Some(format!("{often:?} foretold instead of {wanted:?}"));
    }
    let trigger = expected["trigger"].as_str()?;
    if told.is_empty() {
        return Some("nothing foretold".to_owned());
    }
    let other = alarm
        .logged
        .iter()
        .find(|logged| logged.trigger != trigger)?;
    Some(format!("{} instead of {trigger}", other.trigger))
}

/// Not every recording has what the kernel measures; where it is there it is told.
#[test]
fn slow_operations_are_told_with_the_round_trips_that_were_measured_meanwhile() {
    let mut measured = 0;
    for timeline in timelines() {
        if named(&expectation(&timeline)) != ["slow_operations"] {
            continue;
        }
        let journal = fs::read(&timeline).unwrap();
        let has_asked = String::from_utf8_lossy(&journal).contains("\"tcp\"");
        let mut replay = Replay::default();
        replay.read(&mut Reader::new(&journal[..])).unwrap();
        for (incident, _) in replay.finish().incidents {
            let evidence = &incident.causes[0].evidence;
            let is_told = evidence.iter().any(|one| one.fact.contains("round trips"));
            assert_eq!(is_told, has_asked, "{}: {evidence:?}", timeline.display());
            measured += u64::from(is_told);
        }
    }
    assert!(measured > 0);
}

#[test]
fn every_trigger_of_the_message_has_a_timeline_that_tells_it_from_the_others() {
    let mut missing = vec![
        "forced close",
        "primary crash",
        "primary freeze",
        "repeated socket time-outs",
    ];
    for timeline in timelines() {
        let expected = fs::read_to_string(timeline.with_extension("expect.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        for incident in expected["incidents"].as_array().unwrap() {
            missing.retain(|trigger| incident["trigger"] != *trigger);
        }
    }
    assert!(missing.is_empty(), "no timeline for {missing:?}");
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

fn expectation(timeline: &Path) -> Value {
    let text = fs::read_to_string(timeline.with_extension("expect.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn is_near_miss(timeline: &Path) -> bool {
    let name = timeline.file_stem().unwrap().to_str().unwrap();
    name.starts_with("near_miss")
}

/// Which causes an expectation names, as alarms or as information.
fn named(expected: &Value) -> Vec<&str> {
    let alarms = expected["incidents"].as_array().unwrap().iter();
    let alarms = alarms.map(|incident| &incident["cause"]);
    let informs = expected["informs"].as_array().into_iter().flatten();
    alarms
        .chain(informs)
        .map(|cause| cause.as_str().unwrap())
        .collect()
}

#[test]
fn timelines_are_short_and_say_what_they_inform_of_where_nobody_is_alarmed() {
    for timeline in timelines() {
        let name = timeline.display();
        let expected = expectation(&timeline);
        let is_quiet = expected["incidents"].as_array().unwrap().is_empty();
        assert!(
            !is_quiet || expected["informs"].is_array(),
            "{name} does not say what it informs of"
        );
        assert_eq!(
            is_near_miss(&timeline),
            expected["misses"].is_string(),
            "{name}"
        );
        let len = fs::metadata(&timeline).unwrap().len();
        assert!(len < 300_000, "{name} has {len} bytes: cut it");
    }
}

#[test]
fn every_cause_is_told_of_a_timeline_and_not_of_one_that_resembles_it() {
    let (misses, hits): (Vec<PathBuf>, Vec<PathBuf>) = timelines()
        .into_iter()
        .partition(|timeline| is_near_miss(timeline));
    let hits: Vec<Value> = hits.iter().map(|hit| expectation(hit)).collect();
    let told: BTreeSet<&str> = hits.iter().flat_map(named).collect();
    let misses: Vec<Value> = misses.iter().map(|miss| expectation(miss)).collect();
    let mut resembled = BTreeSet::new();
    for expected in &misses {
        let cause = expected["misses"].as_str().unwrap();
        assert!(!named(expected).contains(&cause), "{expected}");
        resembled.insert(cause);
    }
    let all: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.label()).collect();
    assert_eq!(told, all);
    assert_eq!(resembled, all);
}

/// Everything that is said of a journal to which time passed for so long before anything happened.
fn told_when_watched_before(journal: &str, before: Duration) -> Vec<Value> {
    let (header, rest) = journal.split_once('\n').unwrap();
    let first: Value = serde_json::from_str(rest.lines().next().unwrap()).unwrap();
    let began_at = Timestamp::from_nanos(first["at"].as_u64().unwrap()) - before;
    let text = format!("{header}\n{}{rest}", write_mark(began_at));
    let mut replay = Replay::default();
    replay.read(&mut Reader::new(text.as_bytes())).unwrap();
    let incidents = replay.finish().incidents;
    let rows = incidents
        .iter()
        .map(|(incident, upstream)| incident_row(incident, upstream));
    rows.map(|row| serde_json::to_value(row).unwrap()).collect()
}

/// A proxy runs before its first connection comes, and its journal may begin in the middle of what it saw.
#[test]
fn what_is_told_and_when_does_not_depend_on_when_the_watching_began() {
    let mut count = 0;
    for scenario in ["idle_cutoff_drop", "client_leak_slow"] {
        let of_it = |timeline: &PathBuf| timeline.parent().unwrap().ends_with(scenario);
        for timeline in timelines().into_iter().filter(of_it) {
            count += 1;
            let journal = fs::read_to_string(&timeline).unwrap();
            let expected = told_when_watched_before(&journal, Duration::ZERO);
            for millis in [250, 500, 750, 5000] {
                let told = told_when_watched_before(&journal, Duration::from_millis(millis));
                assert_eq!(told, expected, "{} {millis} ms", timeline.display());
            }
        }
    }
    assert!(count >= 7, "{count} timelines");
}

#[test]
fn information_that_is_not_told_or_not_asked_for_is_amiss() {
    let timeline = root().join("tests/scenarios/deploy/node-7.jsonl");
    let journal = fs::read(timeline).unwrap();
    let mut replay = Replay::default();
    replay.read(&mut Reader::new(&journal[..])).unwrap();
    let replayed = replay.finish();
    for (informs, is_right) in [
        (json!(["deploy"]), true),
        (json!([]), false),
        (json!(["scale_out"]), false),
        (json!(["deploy", "health_checks"]), false),
    ] {
        let expected = json!({ "incidents": [], "informs": informs });
        assert_eq!(
            told_amiss(&replayed, &expected).is_none(),
            is_right,
            "{expected}"
        );
    }
}
