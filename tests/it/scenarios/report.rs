//! The matrix as tables.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::CaseId;
use super::demands::OFTEN;
use super::judge::Verdict;
use super::shape::Shape;
use super::table::{SCENARIOS, Scenario};
use crate::support::{Driver, Network, root};

/// What one run of a case came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    scenario: String,
    driver: String,
    shape: String,
    faults: Vec<String>,
    is_cause_right: bool,
    was_right_at_once: bool,
    delay: Option<f64>,
    took: f64,
}

impl Outcome {
    pub(super) fn new(case: CaseId, verdict: Verdict, took: Duration) -> Self {
        Self {
            scenario: case.scenario.name.to_owned(),
            driver: case.driver.label().to_owned(),
            shape: case.shape.label().to_owned(),
            faults: verdict.faults,
            is_cause_right: verdict.is_cause_right,
            was_right_at_once: verdict.was_right_at_once,
            delay: verdict.delay,
            took: took.as_secs_f64(),
        }
    }

    /// Of a healthy scenario: every run counts.
    fn is_healthy(&self) -> bool {
        let mut scenarios = SCENARIOS.iter();
        let scenario = scenarios.find(|scenario| scenario.name == self.scenario);
        scenario.is_some_and(Scenario::is_healthy)
    }

    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    /// Which case it is of.
    fn key(&self) -> (&str, &str, &str) {
        (&self.scenario, &self.driver, &self.shape)
    }

    fn to_json(&self, commit: &str) -> Value {
        json!({
            "scenario": self.scenario, "driver": self.driver, "shape": self.shape, "faults": self.faults,
            "is_cause_right": self.is_cause_right, "was_right_at_once": self.was_right_at_once, "delay": self.delay, "took": self.took,
            "commit": commit,
        })
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "ok  " } else { "BAD " };
        write!(f, "{word} {}/{}/{}", self.scenario, self.driver, self.shape)?;
        if let Some(delay) = self.delay {
            write!(f, ", told after {delay:.2} s")?;
        }
        for fault in &self.faults {
            write!(f, "; {fault}")?;
        }
        write!(f, " [{:.0} s]", self.took)
    }
}

/// The outcomes of this matrix; `results.jsonl` has those of earlier ones, too.
#[derive(Debug)]
pub(super) struct Report {
    directory: PathBuf,
    commit: String,
    outcomes: Vec<Outcome>,
}

impl Report {
    /// With the outcomes of earlier matrices where `KEEP` is set: the newest of each case, and all of healthy ones.
    pub(super) fn open() -> Self {
        let directory = root().join("target/scenarios");
        fs::create_dir_all(&directory).unwrap();
        let commit = Command::new("git")
            .args(["rev-parse", "--short", "HEAD"])
            .current_dir(root())
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let mut report = Self {
            directory,
            commit: commit.unwrap_or_default(),
            outcomes: Vec::new(),
        };
        if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty()) {
            report.outcomes = report.newest();
        }
        report
    }

    fn newest(&self) -> Vec<Outcome> {
        let text = fs::read_to_string(self.directory.join("results.jsonl")).unwrap_or_default();
        let mut newest = BTreeMap::new();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            let faults = value["faults"].as_array().unwrap();
            let outcome = Outcome {
                scenario: field("scenario"),
                driver: field("driver"),
                shape: field("shape"),
                faults: faults
                    .iter()
                    .map(|fault| fault.as_str().unwrap().to_owned())
                    .collect(),
                is_cause_right: value["is_cause_right"] == true,
                was_right_at_once: value["was_right_at_once"] == true,
                delay: value["delay"].as_f64(),
                took: value["took"].as_f64().unwrap_or_default(),
            };
            let runs: &mut Vec<Outcome> = newest
                .entry((field("scenario"), field("driver"), field("shape")))
                .or_default();
            if !outcome.is_healthy() {
                runs.clear();
            }
            runs.push(outcome);
        }
        newest.into_values().flatten().collect()
    }

    /// Takes an outcome in, and writes everything anew.
    pub(super) fn add(&mut self, outcome: Outcome) {
        let path = self.directory.join("results.jsonl");
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        writeln!(file, "{}", outcome.to_json(&self.commit)).unwrap();
        // A case that is played again makes what was known of it before void.
        if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty()) {
            self.outcomes
                .retain(|old| old.is_healthy() || old.key() != outcome.key());
        }
        self.outcomes.push(outcome);
        fs::write(self.directory.join("summary.md"), self.summary()).unwrap();
    }

    /// Puts the table into the README, between its marks.
    pub(super) fn publish(&self) {
        const BEGIN: &str = "<!-- scenarios: begin -->\n";
        const END: &str = "<!-- scenarios: end -->";
        let path = root().join("README.md");
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let table = self.summary();
        fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    }

    /// The table, and below it what is amiss.
    pub(super) fn summary(&self) -> String {
        let total = self.outcomes.len();
        let count = |is_such: fn(&Outcome) -> bool| {
            let such = self.outcomes.iter().filter(|one| is_such(one));
            such.count()
        };
        let right = count(|one| one.is_cause_right);
        let at_once = count(|one| one.was_right_at_once);
        let good = count(Outcome::is_good);
        let mut text = format!(
            "{total} runs: the right cause at first rank in {right}, from the first word on in {at_once}, everything as \
             it should be in {good}.\n\n"
        );
        text.push_str(&self.healthy());
        text.push_str(&self.shapes());
        text.push_str("| scenario |");
        for driver in Driver::ALL {
            // There are many of them: narrow columns.
            write!(text, " {} |", driver.label().replacen('-', "<br>", 1)).unwrap();
        }
        text.push_str(" told after (median, most) | runs |\n|---|");
        text.push_str(&"---|".repeat(Driver::ALL.len() + 2));
        text.push('\n');
        let mut notes = Vec::new();
        let mut skipped = Vec::new();
        for scenario in SCENARIOS {
            let of_scenario: Vec<&Outcome> = self
                .outcomes
                .iter()
                .filter(|one| one.scenario == scenario.name)
                .collect();
            if of_scenario.is_empty() {
                if scenario.takes_root(Shape::Usual) && !Network::is_possible() {
                    skipped.push(format!("`{}`", scenario.name));
                }
                continue;
            }
            write!(text, "| `{}` |", scenario.name).unwrap();
            for driver in Driver::ALL {
                let runs = of_scenario
                    .iter()
                    .filter(|one| one.driver == driver.label());
                let cell = cell(&runs.copied().collect::<Vec<_>>(), &mut notes);
                write!(text, " {cell} |").unwrap();
            }
            let delays = delays(&of_scenario);
            writeln!(text, " {delays} | {} |", of_scenario.len()).unwrap();
        }
        for (number, note) in (1..).zip(&notes) {
            let gap = if number == 1 { "\n" } else { "" };
            writeln!(text, "{gap}{number}. {note}").unwrap();
        }
        if !skipped.is_empty() {
            let names = skipped.join(", ");
            writeln!(
                text,
                "\nNot played, because a network of their own takes root and `/dev/net/tun`: {names}."
            )
            .unwrap();
        }
        text
    }

    /// How often nothing was wrong, and how often nobody was alarmed then; once everything was played.
    fn healthy(&self) -> String {
        let runs_of = |name: &str| {
            let runs = self.outcomes.iter().filter(|one| one.scenario == name);
            runs.count()
        };
        let least = OFTEN.into_iter().map(runs_of).min().unwrap_or(0);
        if least == 0 {
            return String::new();
        }
        let healthy = self.outcomes.iter().filter(|one| one.is_healthy());
        let quiet = healthy.clone().filter(|one| one.is_cause_right).count();
        format!(
            "Healthy: {} runs, at least {least} of each of {}; {quiet} of them alarmed nobody.\n\n",
            healthy.count(),
            OFTEN.map(|name| format!("`{name}`")).join(", "),
        )
    }

    /// How it went in which surroundings, where there were several.
    fn shapes(&self) -> String {
        let told = Shape::ALL.into_iter().filter_map(|shape| {
            let all = self.outcomes.iter();
            let runs: Vec<_> = all.filter(|one| one.shape == shape.label()).collect();
            let right = runs.iter().filter(|one| one.is_cause_right).count();
            (!runs.is_empty()).then(|| format!("{} {right} of {}", shape.label(), runs.len()))
        });
        let told: Vec<String> = told.collect();
        if told.len() < 2 {
            return String::new();
        }
        format!("By surroundings: {}.\n\n", told.join(", "))
    }
}

/// A check mark, or the number of a note that says what was amiss; nothing where nothing was played.
fn cell(runs: &[&Outcome], notes: &mut Vec<String>) -> String {
    let Some(first) = runs.first() else {
        return String::new();
    };
    let bad = runs.iter().filter(|one| !one.is_good());
    let faults: Vec<String> = bad
        .map(|one| {
            let faults = one.faults.join("; ");
            if one.shape == Shape::Usual.label() {
                faults
            } else {
                format!("{}: {faults}", one.shape)
            }
        })
        .collect();
    if faults.is_empty() {
        return "✓".to_owned();
    }
    let good = runs.len() - faults.len();
    let mut distinct = faults;
    distinct.sort();
    distinct.dedup();
    notes.push(format!(
        "`{}` on {}: {}",
        first.scenario,
        first.driver,
        distinct.join(" / ")
    ));
    let note = notes.len();
    match runs.len() {
        1 => format!("✗ ({note})"),
        count => format!("{good}/{count} ({note})"),
    }
}

fn delays(outcomes: &[&Outcome]) -> String {
    let mut delays: Vec<f64> = outcomes
        .iter()
        .filter(|one| one.is_cause_right)
        .filter_map(|one| one.delay)
        .collect();
    delays.sort_by(f64::total_cmp);
    match delays.last() {
        Some(most) => format!("{:.1} s, {most:.1} s", delays[delays.len() / 2]),
        None => String::new(),
    }
}
