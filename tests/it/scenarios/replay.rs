//! Judging recorded cases again, without playing them: the journal of each is told to the brain of this checkout.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use poolscope::admin::incident_row;
use poolscope::journal::{Reader, Replay};
use poolscope::time::Timestamp;
use poolscope::timeline::lines::write_mark;
use serde_json::{Value, json};

use super::demands::{Extent, Tally};
use super::judge::{judge, moment};
use super::scores::{Scores, score};
use super::shape::Shape;
use super::stage::is_alarm;
use super::storms::REOPENED;
use super::table::Reopening;
use super::{CaseId, extent};
use crate::support::root;

/// Timelines of one scenario that are exported.
const EXPORTED: usize = 2;

/// A timeline that is exported ends so long after its last alarm, in seconds.
const AFTERMATH: f64 = 2.5;

/// What was lost is opened again, or dialled in vain for long enough, within this, in seconds.
const UNTIL_REOPENED: f64 = 8.0;

/// The journal of a case up to the moment at which it was judged: what follows is its stage being cleared.
pub(super) fn until(journal: &str, judged_at: f64) -> String {
    let judged_at = nanos(judged_at);
    let mut text: String = journal
        .split_inclusive('\n')
        .take_while(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            line.ends_with('\n') && value["at"].as_u64().is_none_or(|at| at <= judged_at)
        })
        .collect();
    text.push_str(&write_mark(Timestamp::from_nanos(judged_at)));
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds since the epoch"
)]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// A journal without the connections of a set's members to each other: half of what happens, and no concern of
/// applications.
fn without_members(journal: &str) -> String {
    let is_member = |line: &Value| {
        let driver = line["introduced"]["client"]["driver_name"].as_str();
        let is_internal = |name: &str| {
            name.starts_with("NetworkInterfaceTL") || name == "MongoDB Internal Client"
        };
        driver.is_some_and(is_internal)
    };
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let members: BTreeSet<u64> = journal
        .lines()
        .map(parse)
        .filter(is_member)
        .filter_map(|line| line["conn"].as_u64())
        .collect();
    let stays = |line: &&str| {
        let connection = parse(line)["conn"].as_u64();
        connection.is_none_or(|connection| !members.contains(&connection))
    };
    journal.split_inclusive('\n').filter(stays).collect()
}

/// The incidents that are found in a journal, as the interface would answer them.
pub(super) fn incidents(journal: &str) -> Vec<Value> {
    let mut replay = Replay::default();
    replay.read(&mut Reader::new(journal.as_bytes())).unwrap();
    replay
        .finish()
        .incidents
        .iter()
        .map(|(incident, upstream)| serde_json::to_value(incident_row(incident, upstream)).unwrap())
        .collect()
}

/// Where the recorded cases are: `SCENARIOS=<directory>`, or those of this checkout.
fn recorded() -> PathBuf {
    let elsewhere = std::env::var_os("SCENARIOS").filter(|path| !path.is_empty());
    elsewhere.map_or_else(|| root().join("target/scenarios"), PathBuf::from)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What is kept of a case that was played.
pub(super) struct Recorded {
    /// What harness and drivers saw.
    truth: Value,
    /// Up to the moment at which it was judged.
    pub(super) journal: String,
    /// The answer of `/api/v1/clients`.
    clients: Value,
    /// The same, and what drivers tell, when all load had ended.
    rest: Option<Value>,
}

impl Recorded {
    /// `None` where nothing, or only a part, was kept.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let value = |name: &str| Some(serde_json::from_str(&read(&directory.join(name))?).unwrap());
        let truth: Value = value("truth.json")?;
        let judged_at = truth["judged_at"].as_f64();
        let judged_at = judged_at.unwrap_or_else(|| modified(&directory.join("truth.json")));
        Some(Self {
            journal: until(&read(&directory.join("journal"))?, judged_at),
            clients: value("clients.json")?,
            rest: value("rest.json"),
            truth,
        })
    }

    /// How well what happened to its pools was inferred.
    pub(super) fn scores(&self, case: &str) -> Scores {
        let rest = self.rest.as_ref();
        score(case, &self.truth, &self.journal, &self.clients, rest)
    }
}

/// Prints a line for each recorded case, and fails where what is demanded of all together is not reached; `ONLY` as for
/// the matrix.
#[test]
#[ignore = "needs recorded cases; `make scenarios` records them"]
fn rejudge() {
    let (mut count, mut right, mut good) = (0, 0, 0);
    let mut tally = Tally::new(extent(Extent::AllRecorded));
    let mut out = std::io::stdout().lock();
    for case in super::asked_for(&Shape::ALL) {
        let (name, scenario) = (case.name(), case.scenario);
        let directory = recorded().join(case.directory());
        let Some(recorded) = Recorded::read(&directory) else {
            continue;
        };
        let incidents = incidents(&recorded.journal);
        let verdict = judge(
            scenario,
            &recorded.truth,
            &recorded.journal,
            &incidents,
            &[],
        );
        tally.add(&name, scenario, &verdict, recorded.scores(&name));
        count += 1;
        right += u32::from(verdict.is_cause_right);
        good += u32::from(verdict.faults.is_empty());
        let text = serde_json::to_string_pretty(&incidents).unwrap();
        fs::write(directory.join("replayed.json"), text).ok();
        let delay = verdict
            .delay
            .map_or(String::new(), |delay| format!(" ({delay:.2} s)"));
        let word = if verdict.faults.is_empty() {
            "ok "
        } else {
            "BAD"
        };
        writeln!(out, "{word} {name}{delay}: {}", verdict.faults.join("; ")).unwrap();
    }
    writeln!(
        out,
        "{count} cases: the right cause in {right}, everything right in {good}"
    )
    .unwrap();
    writeln!(out, "{}", tally.told()).unwrap();
    drop(out);
    assert!(count > 0, "no case is recorded in {}", recorded().display());
    tally.assert_met();
}

/// A timeline and what must be said of it.
struct Timeline {
    driver: String,
    journal: String,
    expected: Value,
}

/// What a good case tells until a moment after its last alarm; `None` of one that is not good.
fn timeline(case: CaseId) -> Option<Timeline> {
    let directory = recorded().join(case.directory());
    let truth: Value = serde_json::from_str(&read(&directory.join("truth.json"))?).unwrap();
    let judged_at = truth["judged_at"].as_f64()?;
    let whole = until(&read(&directory.join("journal"))?, judged_at);
    let found = incidents(&whole);
    if !judge(case.scenario, &truth, &whole, &found, &[])
        .faults
        .is_empty()
    {
        return None;
    }
    // What comes long after the last alarm tells nothing new.
    let alarms = found.iter().filter(|&incident| is_alarm(incident));
    let last = alarms
        .map(|incident| moment(&incident["detected_at"]))
        .fold(0.0, f64::max);
    let reopening = case.scenario.reopening;
    let aftermath = match reopening {
        Reopening::Any => AFTERMATH,
        Reopening::Storm | Reopening::Course => UNTIL_REOPENED,
    };
    let cut = if last > 0.0 {
        judged_at.min(last + aftermath)
    } else {
        judged_at
    };
    let journal = without_members(&until(&whole, cut));
    let told = incidents(&journal);
    if !judge(case.scenario, &truth, &journal, &told, &[]).is_cause_right {
        return None;
    }
    let alarms = told.iter().rev().filter(|&incident| is_alarm(incident));
    let expected = alarms.map(|incident| {
        let logged = incident["logged"].as_array().unwrap();
        let messages: Vec<&Value> = logged.iter().map(|logged| &logged["message"]).collect();
        if let Some(first) = logged.first() {
            let trigger = &first["trigger"];
            json!({ "cause": incident["cause"], "trigger": trigger, "messages": messages })
        } else {
            json!({ "cause": incident["cause"] })
        }
    });
    let mut expected = json!({ "incidents": expected.collect::<Vec<_>>() });
    match reopening {
        Reopening::Any => {}
        Reopening::Storm => expected["incidents"][0]["aggravations"] = json!(["reconnect_storm"]),
        Reopening::Course => {
            expected["incidents"][0]["aggravations"] = json!([]);
            expected["incidents"][0]["course"] = json!(REOPENED);
        }
    }
    if case.scenario.is_healthy() {
        let informs = told.iter().filter(|&incident| !is_alarm(incident));
        let informs: BTreeSet<&str> = informs
            .filter_map(|incident| incident["cause"].as_str())
            .collect();
        expected["informs"] = json!(informs);
    }
    let driver = if case.shape == Shape::Usual {
        case.driver.label().to_owned()
    } else {
        format!("{}-{}", case.driver.label(), case.shape.label())
    };
    Some(Timeline {
        driver,
        journal,
        expected,
    })
}

/// Writes good cases as timelines to `tests/scenarios/<scenario>/<driver>.jsonl`, the shortest of each scenario, with
/// what must be said of them beside it; `ONLY` and `SHAPES` as for the matrix.
#[test]
#[ignore = "writes into the checkout; needs recorded cases"]
fn export() {
    let mut by_scenario: BTreeMap<&str, Vec<Timeline>> = BTreeMap::new();
    for case in super::asked_for(&super::shapes()) {
        let timelines = by_scenario.entry(case.scenario.name).or_default();
        timelines.extend(timeline(case));
    }
    let mut out = std::io::stdout().lock();
    for (scenario, mut timelines) in by_scenario {
        timelines.sort_by_key(|timeline| timeline.journal.len());
        let target = root().join("tests/scenarios").join(scenario);
        for timeline in timelines.into_iter().take(EXPORTED) {
            let Timeline {
                driver,
                journal,
                expected,
            } = timeline;
            writeln!(out, "{scenario}/{driver}: {} bytes", journal.len()).unwrap();
            fs::create_dir_all(&target).unwrap();
            fs::write(target.join(format!("{driver}.jsonl")), journal).unwrap();
            let path = target.join(format!("{driver}.expect.json"));
            fs::write(path, format!("{expected}\n")).unwrap();
        }
    }
}

/// When a file was written, in seconds since the epoch.
fn modified(path: &Path) -> f64 {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let since = modified.duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}
