//! What came of a play: what poolscope tells, what drivers and harness saw, and the files that keep both.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{LIMIT, Stage};
use crate::scenarios::scores::{is_rest_told, is_undecided};
use crate::support::{epoch_seconds, eventually, now};

/// A silent connection has shown what it is after three heartbeats at the latest, and some tolerance.
const DECIDED_WITHIN: Duration = Duration::from_secs(40);
/// An application that does not answer for so long waits for its operations.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// What ended silent is counted within this time, and some tolerance.
const RESTS_WITHIN: Duration = Duration::from_secs(4);
/// How often that is looked at.
const PAUSE: Duration = Duration::from_millis(250);

impl Stage {
    /// Incidents as poolscope tells them.
    pub(crate) fn incidents(&self) -> Vec<Value> {
        let answer = self.poolscope.api("incidents");
        answer["incidents"].as_array().unwrap().clone()
    }

    /// Waits until there is an alarm, or the time has passed.
    pub(crate) fn await_alarm(&mut self, limit: Duration) {
        self.await_incident(limit, is_alarm);
    }

    pub(crate) fn await_incident(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) {
        let begin = now();
        while begin.elapsed() < limit {
            if self.incidents().iter().any(&wanted) {
                self.alarm_seen_at.get_or_insert_with(epoch_seconds);
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What really happened, as drivers and harness saw it. Where a connection that is silent makes a difference to what
    /// poolscope sees, once it has shown what it is.
    pub(crate) fn truth(&mut self, case: &str) -> Value {
        let begin = now();
        let mut truth = self.truth_of_now(case);
        while is_undecided(&truth, &self.clients_seen) && begin.elapsed() < DECIDED_WITHIN {
            thread::sleep(PAUSE);
            truth = self.truth_of_now(case);
        }
        truth
    }

    fn truth_of_now(&mut self, case: &str) -> Value {
        // First what poolscope sees: what the drivers told by then is among what they are asked for afterwards.
        self.clients_seen = self.poolscope.api("clients");
        let apps = self.apps_now();
        json!({
            "case": case, "fault": self.fault, "injected_at": self.injected_at, "fault_at": self.fault_at, "affected": self.affected,
            "judged_at": epoch_seconds(), "alarm_seen_at": self.alarm_seen_at, "notes": self.notes, "apps": apps,
        })
    }

    /// What the drivers tell.
    fn apps_now(&mut self) -> Vec<Value> {
        let told = self.apps.iter_mut().map(|app| {
            let stats = if app.is_gone {
                Value::Null
            } else {
                let id = app.agent.submit(json!({ "do": "stats", "name": "app" }));
                let answer = app.agent.answer_within(id, ANSWERED_WITHIN);
                answer.unwrap_or_default()
            };
            json!({
                "name": app.name, "driver": app.driver.label(), "address": app.address,
                "events": app.agent.events(), "stats": stats, "is_gone": app.is_gone, "is_at_rest": app.runs.is_empty(),
            })
        });
        told.collect()
    }

    /// Ends all load, where the fault lets operations come to an end, and keeps what is told of pools then: now and not
    /// before it is known what was in use.
    pub(crate) fn rest(&mut self) {
        for app in self.apps.iter_mut().filter(|app| !app.is_gone) {
            for run in &app.runs {
                app.agent.submit(json!({ "do": "stop", "run": run }));
            }
            app.runs
                .retain(|run| app.agent.answer_within(*run, ANSWERED_WITHIN).is_none());
        }
        let begin = now();
        loop {
            let clients = self.poolscope.api("clients");
            let rest = json!({ "clients": clients, "apps": self.apps_now() });
            let waited = begin.elapsed();
            let may_be_decided = waited < DECIDED_WITHIN && is_undecided(&rest, &rest["clients"]);
            if is_rest_told(&rest) || (waited > RESTS_WITHIN && !may_be_decided) {
                let text = serde_json::to_string_pretty(&rest).unwrap();
                fs::write(self.directory.join("rest.json"), text).unwrap();
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    /// What happened until then is in the journal, which is written now and then.
    fn await_journal(&self, until: f64) {
        let path = self.directory.join("journal");
        eventually(LIMIT, || {
            let journal = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            let whole = journal.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let last = whole.lines().last().unwrap_or_default();
            let last: Value = serde_json::from_str(last).map_err(|error| error.to_string())?;
            match last["at"].as_f64() {
                Some(nanos) if nanos / 1e9 >= until => Ok(()),
                at => Err(format!("the journal has come to {at:?}")),
            }
        });
    }

    /// Keeps what poolscope says and logged; returns the incidents.
    pub(crate) fn keep(&mut self, truth: &Value) -> Vec<Value> {
        self.await_journal(truth["judged_at"].as_f64().unwrap());
        let incidents = self.poolscope.api("incidents");
        let write = |name: &str, value: &Value| {
            let text = serde_json::to_string_pretty(value).unwrap();
            fs::write(self.directory.join(name), text).unwrap();
        };
        write("truth.json", truth);
        write("incidents.json", &incidents);
        write("clients.json", &self.clients_seen);
        let log = self.poolscope.log().join("\n");
        fs::write(self.directory.join("poolscope.log"), log).unwrap();
        incidents["incidents"].as_array().unwrap().clone()
    }
}

/// Whether an incident is worse than information.
pub(crate) fn is_alarm(incident: &Value) -> bool {
    incident["severity"] != "info"
}
