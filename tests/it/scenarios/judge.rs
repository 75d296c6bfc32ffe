//! Whether what poolscope said of a case is what happened.

use poolscope::time::Timestamp;
use serde_json::{Value, json};

use super::messages::message_amiss;
use super::stage::is_alarm;
use super::storms::{has_reopened, has_storm};
use super::table::{Expect, Reopening, Scenario};

/// From the first sufficient evidence to the alarm, in seconds.
const DELAY_MAX: f64 = 2.0;
/// The moments of harness, driver and wire of one event lie so far apart on a busy machine, in seconds.
const MOMENTS_APART: f64 = 0.5;

/// What became of a case.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// What is wrong; empty when nothing is.
    pub(super) faults: Vec<String>,
    /// The causes at first rank, alarms only, in the order they were opened.
    pub(super) causes: Vec<String>,
    /// It was played to its end.
    pub(super) is_played: bool,
    /// The first cause is the one that was to be told.
    pub(super) is_cause_right: bool,
    /// From the fault to the alarm, in seconds.
    pub(super) delay: Option<f64>,
    /// From the moment from which the evidence sufficed by other sources to the alarm, in seconds; where it is known.
    pub(super) waited: Option<f64>,
    /// An alarm was told later than is demanded.
    pub(super) is_late: bool,
    /// The cause with which the first alarm was opened, which may have been corrected since; where the log is known.
    pub(super) opened_as: Option<String>,
    /// That was the one that was to be told.
    pub(super) was_right_at_once: bool,
}

/// No other cause is ruled out by what was seen.
fn unfounded(alarm: &Value) -> Option<String> {
    let causes = alarm["causes"].as_array()?;
    let is_founded = alarm["cause"] == "unknown"
        || causes.iter().skip(1).any(|other| {
            other["cause"] != "unknown"
                && other["against"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
        });
    (!is_founded).then(|| format!("nothing is ruled out beside {}", text(alarm, "cause")))
}

/// Judges a case.
pub(super) fn judge(
    scenario: &Scenario,
    truth: &Value,
    journal: &str,
    incidents: &[Value],
    log: &[String],
) -> Verdict {
    let mut faults = Vec::new();
    // The newest comes first.
    let alarms: Vec<&Value> = incidents
        .iter()
        .rev()
        .filter(|&incident| is_alarm(incident))
        .collect();
    let causes: Vec<String> = alarms.iter().map(|alarm| text(alarm, "cause")).collect();
    let is_cause_right = match scenario.expect {
        Expect::Alarm(wanted) => causes
            .first()
            .is_some_and(|cause| wanted.contains(&cause.as_str())),
        Expect::Alarms(wanted) => causes == wanted,
        Expect::Info(_) | Expect::Quiet => causes.is_empty(),
    };
    if !is_cause_right {
        faults.push(match scenario.expect {
            Expect::Alarm(_) | Expect::Alarms(_) if causes.is_empty() => "no alarm".to_owned(),
            Expect::Alarm(_) | Expect::Alarms(_) => format!("cause {}", causes.join(" + ")),
            Expect::Info(_) | Expect::Quiet => format!("alarm {}", causes.join(" + ")),
        });
    } else if matches!(scenario.expect, Expect::Alarm(_)) && causes.len() > 1 {
        faults.push(format!("also {}", causes[1..].join(" + ")));
    }
    faults.extend(alarms.iter().filter_map(|alarm| unfounded(alarm)));
    if let Expect::Info(wanted) = scenario.expect
        && !incidents.iter().any(|incident| incident["cause"] == wanted)
    {
        faults.push(format!("no {wanted}"));
    }

    let fault_at = truth["fault_at"].as_f64().unwrap();
    let mut is_late = false;
    for alarm in &alarms {
        let waited = moment(&alarm["detected_at"]) - moment(&alarm["evident_at"]);
        if waited > DELAY_MAX {
            is_late = true;
            let cause = text(alarm, "cause");
            faults.push(format!("{cause} told {waited:.1} s after it was evident"));
        }
    }
    let delay = alarms
        .first()
        .map(|alarm| moment(&alarm["detected_at"]) - fault_at);
    if let Some(delay) = delay
        && is_cause_right
    {
        let injected_at = truth["injected_at"]
            .as_f64()
            .unwrap_or(fault_at)
            .min(fault_at);
        let too_early = injected_at - fault_at - delay;
        if too_early > MOMENTS_APART {
            faults.push(format!("{too_early:.1} s before the fault"));
        }
        faults.extend(clients_amiss(truth, alarms[0]));
    }
    let sufficient_at = scenario.suffices.moment(truth, journal);
    let after_evidence = sufficient_at
        .zip(alarms.first())
        .filter(|_| is_cause_right)
        .map(|(sufficient_at, alarm)| moment(&alarm["detected_at"]) - sufficient_at);
    if let Some(after_evidence) = after_evidence
        && after_evidence > DELAY_MAX
    {
        is_late = true;
        faults.push(format!(
            "told {after_evidence:.1} s after its evidence sufficed"
        ));
    }
    if let Some(owed) = scenario.owed {
        faults.extend(message_amiss(owed, truth, &alarms));
    }
    faults.extend(reopening_amiss(scenario.reopening, &alarms));
    let opened_as = alarms.first().and_then(|alarm| opened_as(alarm, log));
    let was_right_at_once = match scenario.expect {
        Expect::Alarm(wanted) | Expect::Alarms(wanted) => opened_as
            .as_deref()
            .is_some_and(|cause| wanted.contains(&cause)),
        Expect::Info(_) | Expect::Quiet => causes.is_empty(),
    };
    Verdict {
        faults,
        causes,
        is_played: true,
        is_cause_right,
        delay,
        waited: after_evidence,
        is_late,
        opened_as,
        was_right_at_once,
    }
}

/// The cause in the line of the log that says that an alarm was opened.
fn opened_as(alarm: &Value, log: &[String]) -> Option<String> {
    let id = format!("incident opened incident={} cause=\"", alarm["id"]);
    let opened = log.iter().find_map(|line| line.split_once(&id))?;
    let (cause, _) = opened.1.split_once('"')?;
    Some(cause.to_owned())
}

/// The applications of the incident must be those that the fault concerned.
fn clients_amiss(truth: &Value, alarm: &Value) -> Option<String> {
    let mut told: Vec<String> = alarm["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|client| text(client, "app"))
        // Members of a set have no name.
        .filter(|app| !app.is_empty())
        .collect();
    told.sort();
    told.dedup();
    let mut affected: Vec<&str> = truth["affected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|app| app.as_str().unwrap())
        .collect();
    affected.sort_unstable();
    (told != affected).then(|| format!("clients {told:?} instead of {affected:?}"))
}

/// What was opened again must be told as what it is.
fn reopening_amiss(reopening: Reopening, alarms: &[&Value]) -> Option<String> {
    let first = alarms.first()?;
    let (has_storm, has_reopened) = (has_storm(first), has_reopened(first));
    match reopening {
        Reopening::Storm if !has_storm => Some("no storm makes it worse".to_owned()),
        Reopening::Course if has_storm => Some("made worse by a storm".to_owned()),
        Reopening::Course if !has_reopened => Some("silent about what was opened again".to_owned()),
        Reopening::Any | Reopening::Storm | Reopening::Course => None,
    }
}

/// A printed moment in seconds since the epoch.
#[expect(clippy::cast_precision_loss, reason = "microseconds are enough")]
pub(super) fn moment(value: &Value) -> f64 {
    let moment: Timestamp = value.as_str().unwrap().parse().unwrap();
    moment.as_nanos() as f64 / 1e9
}

pub(super) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

impl Verdict {
    /// A case that could not be played to its end, and why.
    pub(super) fn not_played(why: String) -> Self {
        Self {
            faults: vec![why],
            causes: Vec::new(),
            is_played: false,
            is_cause_right: false,
            delay: None,
            waited: None,
            is_late: false,
            opened_as: None,
            was_right_at_once: false,
        }
    }

    /// As it is written into files.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "faults": self.faults, "causes": self.causes, "is_cause_right": self.is_cause_right,
            "delay": self.delay, "waited": self.waited, "opened_as": self.opened_as,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::SCENARIOS;
    use super::*;

    fn named(name: &str) -> Scenario {
        *SCENARIOS.iter().find(|one| one.name == name).unwrap()
    }

    /// A crash and an alarm so many seconds after it; whether that is late, and was waited for.
    #[track_caller]
    fn check(scenario: &Scenario, after: u32, is_late: bool) {
        let Expect::Alarm(causes) = scenario.expect else {
            panic!("{} is healthy", scenario.name)
        };
        let told_at = format!("2026-11-29T10:00:{:02}.000000Z", 10 + after);
        let alarm = json!({
            "severity": "critical", "cause": causes[0], "detected_at": told_at, "evident_at": told_at,
            "clients": [{ "app": "orders" }],
        });
        let fault_at = moment(&json!("2026-11-29T10:00:10.000000Z"));
        let truth = json!({ "fault_at": fault_at, "affected": ["orders"], "apps": [] });
        let verdict = judge(scenario, &truth, "", &[alarm], &[]);
        assert_eq!(verdict.is_late, is_late, "{verdict:?}");
        assert_eq!(verdict.faults.is_empty(), !is_late, "{verdict:?}");
        assert!(verdict.waited.is_some(), "{verdict:?}");
    }

    #[test]
    fn an_alarm_long_after_its_evidence_sufficed_is_late_whatever_poolscope_says_of_it() {
        let crash = named("server_crash");
        check(&crash, 2, false);
        check(&crash, 3, true);
        // A silence of 1.5 s comes first.
        let freeze = named("server_freeze");
        check(&freeze, 3, false);
        check(&freeze, 4, true);
    }

    #[test]
    fn what_is_opened_again_is_a_storm_or_is_none() {
        let course = |what: &str| json!([{ "what": what }]);
        let storm = json!({ "aggravations": [{ "cause": "reconnect_storm" }], "timeline": [] });
        let told = course("orders@10.0.0.1 opens 20 connections within 0.5 s after it lost 20");
        let told = json!({ "aggravations": [], "timeline": told });
        let silent = json!({ "aggravations": [], "timeline": course("db answers again") });
        for (reopening, alarm, is_right) in [
            (Reopening::Any, &silent, true),
            (Reopening::Storm, &storm, true),
            (Reopening::Storm, &told, false),
            (Reopening::Course, &told, true),
            (Reopening::Course, &silent, false),
            (Reopening::Course, &storm, false),
        ] {
            let amiss = reopening_amiss(reopening, &[alarm]);
            assert_eq!(amiss.is_none(), is_right, "{reopening:?} {alarm}");
        }
    }
}
