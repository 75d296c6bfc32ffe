//! Whether what poolscope said of a case is what happened.

use poolscope::time::Timestamp;
use serde_json::{Value, json};

use super::legacy::MESSAGE;
use super::stage::is_alarm;
use super::table::{Expect, Scenario};

/// From the first sufficient evidence to the alarm, in seconds.
const DELAY_MAX: f64 = 2.0;
/// The moments of harness, driver and wire of one event lie so far apart on a busy machine, in seconds.
const MOMENTS_APART: f64 = 0.5;
/// A moment of the driver may lie so far outside of the window that was told, in seconds.
const WINDOW_SLACK: f64 = 0.3;
/// What the driver says of operations that a destroyed pool is given.
const MESSAGE_OF_USE: &str = "pool destroyed";
/// "About" so many is right to this part of it.
const ABOUT: f64 = 0.25;

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
        && scenario.is_prompt
        && after_evidence > DELAY_MAX
    {
        is_late = true;
        faults.push(format!(
            "told {after_evidence:.1} s after its evidence sufficed"
        ));
    }
    if let Some(words) = scenario.trigger {
        faults.extend(message_amiss(words, truth, &alarms));
    }
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

/// What the application's own log says must have been foretold, whether its pool was destroyed under operations that
/// were queued, or is used although it is destroyed: text, trigger, time, and how often.
fn message_amiss(words: &[&str], truth: &Value, alarms: &[&Value]) -> Option<String> {
    let events = truth["apps"][0]["events"].as_array().unwrap();
    let said = |message: &str| -> Vec<f64> {
        let events = events.iter().filter(|event| {
            let error = event["error"].as_str();
            error.is_some_and(|error| error.ends_with(message))
        });
        events.map(|event| event["at"].as_f64().unwrap()).collect()
    };
    let forced = said(MESSAGE);
    if forced.is_empty() {
        return Some("the application was never told".to_owned());
    }
    let foretold = |message: &str| -> Vec<&Value> {
        alarms
            .iter()
            .filter_map(|alarm| alarm["logged"].as_array())
            .flatten()
            .filter(|logged| text(logged, "message") == message)
            .collect()
    };
    let logged = foretold(MESSAGE);
    moment_amiss(words, MESSAGE, &forced, &logged)
        .or_else(|| number_amiss(forced.len(), &logged))
        .or_else(|| {
            // What was recorded before applications counted it is silent about it.
            let hanging = truth["apps"][0]["stats"]["hanging"].as_u64()?;
            hanging_amiss(hanging, forced.len(), &logged)
        })
        .or_else(|| {
            let used = said(MESSAGE_OF_USE);
            moment_amiss(words, MESSAGE_OF_USE, &used, &foretold(MESSAGE_OF_USE))
        })
}

/// The first time that the application was told must lie in a window that was foretold for it, with the right trigger.
fn moment_amiss(
    words: &[&str],
    message: &str,
    said: &[f64],
    foretold: &[&Value],
) -> Option<String> {
    let at = *said.first()?;
    let Some(first) = foretold.first() else {
        return Some(format!("\"{message}\" was not foretold"));
    };
    // Without an end it goes on for as long as the application does.
    let until = |logged: &Value| {
        let has_end = !logged["until"].is_null();
        has_end.then(|| moment(&logged["until"]))
    };
    let is_right = |logged: &&Value| {
        let trigger = text(logged, "trigger").to_lowercase();
        let has_word = words.iter().any(|word| trigger.contains(word));
        let is_in_window = moment(&logged["from"]) - WINDOW_SLACK <= at
            && until(logged).is_none_or(|until| at <= until + WINDOW_SLACK);
        has_word && is_in_window && logged["client"]["app"] == "orders"
    };
    (!foretold.iter().any(is_right)).then(|| {
        format!(
            "\"{message}\" at {at:.1} foretold for {:.1} to {:.1?} by {}",
            moment(&first["from"]),
            until(first),
            first["trigger"],
        )
    })
}

/// How often the application was told must be what the number claims.
#[expect(clippy::cast_precision_loss, reason = "operations are few")]
fn number_amiss(said: usize, foretold: &[&Value]) -> Option<String> {
    let is_right = |logged: &&Value| {
        let (said, told) = (said as f64, logged["failed"].as_f64().unwrap());
        let most = told * (1.0 + ABOUT);
        match &*text(logged, "failed_is") {
            "estimate" => told * (1.0 - ABOUT) <= said && said <= most,
            "up_to_about" => said <= most,
            "at_least" => told <= said,
            _ => false,
        }
    };
    let first = foretold.first()?;
    (!foretold.iter().any(is_right)).then(|| {
        format!(
            "\"{MESSAGE}\" {said} times instead of {} ({})",
            first["failed"], first["failed_is"]
        )
    })
}

/// The operations that never called back must be as many as was told, and no more than those of which it was left open
/// whether they failed.
#[expect(clippy::cast_precision_loss, reason = "operations are few")]
fn hanging_amiss(hanging: u64, said: usize, foretold: &[&Value]) -> Option<String> {
    let is_right = |logged: &&Value| {
        let failed = logged["failed"].as_f64().unwrap();
        let open = (failed * (1.0 + ABOUT) - said as f64).max(0.0);
        let told = logged["hanging"].as_f64().unwrap();
        (told..=told + open).contains(&(hanging as f64))
    };
    let first = foretold.first()?;
    (!foretold.iter().any(is_right))
        .then(|| format!("{hanging} operations hang instead of {}", first["hanging"]))
}

/// A printed moment in seconds since the epoch.
#[expect(clippy::cast_precision_loss, reason = "microseconds are enough")]
pub(super) fn moment(value: &Value) -> f64 {
    let moment: Timestamp = value.as_str().unwrap().parse().unwrap();
    moment.as_nanos() as f64 / 1e9
}

fn text(value: &Value, field: &str) -> String {
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
        let only_measured = Scenario {
            is_prompt: false,
            ..crash
        };
        check(&only_measured, 9, false);
    }

    /// What is amiss when an application was told `said` times, a second after what poolscope foretold as `logged`.
    fn amiss(said: &[&str], logged: &Value) -> Option<String> {
        let event = |error| json!({ "error": format!("MongoError: {error}"), "at": 1.0 });
        let events: Vec<Value> = said.iter().map(event).collect();
        let truth = json!({ "apps": [{ "events": events, "stats": { "hanging": 17 } }] });
        message_amiss(&["time-out"], &truth, &[&json!({ "logged": logged })])
    }

    fn row(message: &str, failed: u64, failed_is: &str) -> Value {
        json!({
            "message": message, "failed": failed, "failed_is": failed_is, "hanging": 17,
            "trigger": "repeated socket time-outs", "client": { "app": "orders" },
            "from": "1970-01-01T00:00:00.500Z",
            "until": (message == MESSAGE).then_some("1970-01-01T00:00:01.500Z"),
        })
    }

    #[test]
    fn each_message_must_be_foretold_with_a_number_that_holds() {
        let forced = |failed, failed_is| row(MESSAGE, failed, failed_is);
        let used = row(MESSAGE_OF_USE, 0, "unknown");
        let check = |said: &[&str], logged: &[&Value], is_right: bool| {
            let amiss = amiss(said, &json!(logged));
            assert_eq!(amiss.is_none(), is_right, "{said:?} {logged:?}: {amiss:?}");
        };
        check(&[MESSAGE; 3], &[&forced(3, "estimate")], true);
        check(&[MESSAGE; 3], &[&forced(6, "estimate")], false);
        check(&[MESSAGE; 3], &[&forced(6, "up_to_about")], true);
        check(&[MESSAGE; 3], &[&forced(2, "up_to_about")], false);
        check(&[MESSAGE; 3], &[&forced(1, "at_least")], true);
        check(&[MESSAGE; 3], &[&forced(4, "at_least")], false);
        check(&[MESSAGE; 3], &[&forced(3, "unknown")], false);
        let both = [MESSAGE, MESSAGE_OF_USE];
        check(&both, &[&forced(1, "estimate"), &used], true);
        check(&both, &[&forced(1, "estimate")], false);
        check(&[MESSAGE], &[&used], false);
        check(&[MESSAGE_OF_USE], &[&used], false);
    }

    #[test]
    fn what_hangs_is_as_many_as_told_or_was_left_open() {
        let check = |hanging, said, failed, told, is_right: bool| {
            let logged = json!({ "failed": failed, "hanging": told });
            let amiss = hanging_amiss(hanging, said, &[&logged]);
            assert_eq!(amiss.is_none(), is_right, "{amiss:?}");
        };
        check(17, 48, 48, 17, true);
        check(16, 48, 48, 17, false);
        check(17, 48, 65, 0, true);
        check(17, 60, 60, 0, false);
        check(1, 60, 0, 0, false);
    }
}
