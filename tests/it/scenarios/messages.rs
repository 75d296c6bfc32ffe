//! Whether what poolscope foretold of an application's own log is what the driver told the application.

use serde_json::Value;

use super::judge::{moment, text};
use super::legacy::{MESSAGE, MESSAGE_OF_USE};
use super::table::Owed;

/// A moment of the driver may lie so far outside of the window that was told, in seconds.
const WINDOW_SLACK: f64 = 0.3;
/// "About" so many is right to this part of it.
const ABOUT: f64 = 0.25;

/// What the application's own log says must have been foretold, whether its pool was destroyed under operations that
/// were queued, or is used although it is destroyed: text, trigger, time, and how often.
pub(super) fn message_amiss(owed: Owed, truth: &Value, alarms: &[&Value]) -> Option<String> {
    let events = truth["apps"][0]["events"].as_array().unwrap();
    let said = |message: &str| -> Vec<f64> {
        let events = events.iter().filter(|event| {
            let error = event["error"].as_str();
            error.is_some_and(|error| error.ends_with(message))
        });
        events.map(|event| event["at"].as_f64().unwrap()).collect()
    };
    let (words, forced) = (owed.words, said(MESSAGE));
    let foretold = |message: &str| -> Vec<&Value> {
        alarms
            .iter()
            .filter_map(|alarm| alarm["logged"].as_array())
            .flatten()
            .filter(|logged| text(logged, "message") == message)
            .collect()
    };
    if said(owed.message).is_empty() {
        // An error that the driver has no listener for is all that such a pool ever says.
        let is_mute = events
            .iter()
            .any(|event| event["event"] == "uncaught_exception")
            && foretold(MESSAGE).is_empty()
            && foretold(MESSAGE_OF_USE).is_empty();
        return (!is_mute).then(|| "the application was never told".to_owned());
    }
    let logged = foretold(MESSAGE);
    if forced.is_empty() && logged.iter().any(|logged| logged["failed"] != 0) {
        return Some(format!("\"{MESSAGE}\" was foretold and never came"));
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is amiss when an application was told `said` times, a second after what poolscope foretold as `logged`.
    fn amiss(message: &'static str, said: &[&str], logged: &Value) -> Option<String> {
        let event = |error| json!({ "error": format!("MongoError: {error}"), "at": 1.0 });
        let events: Vec<Value> = said.iter().map(event).collect();
        let truth = json!({ "apps": [{ "events": events, "stats": { "hanging": 17 } }] });
        let owed = Owed {
            message,
            words: &["time-out"],
        };
        message_amiss(owed, &truth, &[&json!({ "logged": logged })])
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
            let amiss = amiss(MESSAGE, said, &json!(logged));
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
    fn a_pool_that_is_only_used_after_its_end_is_held_to_that_message() {
        let used = row(MESSAGE_OF_USE, 0, "unknown");
        let check = |said: &[&str], logged: &[&Value], is_right: bool| {
            let amiss = amiss(MESSAGE_OF_USE, said, &json!(logged));
            assert_eq!(amiss.is_none(), is_right, "{said:?} {logged:?}: {amiss:?}");
        };
        let nine = [MESSAGE_OF_USE; 9];
        check(&nine, &[&used], true);
        check(&nine, &[], false);
        check(&[], &[&used], false);
        check(&nine, &[&row(MESSAGE, 3, "estimate"), &used], false);
        let mut of_another = used.clone();
        of_another["trigger"] = "primary crash".into();
        check(&nine, &[&of_another], false);
        let exception = json!([{ "event": "uncaught_exception", "error": "read ECONNRESET" }]);
        let truth = json!({ "apps": [{ "events": exception, "stats": {} }] });
        let owed = Owed {
            message: MESSAGE_OF_USE,
            words: &["not dialled"],
        };
        for (logged, is_right) in [(json!([]), true), (json!([used]), false)] {
            let amiss = message_amiss(owed, &truth, &[&json!({ "logged": logged })]);
            assert_eq!(amiss.is_none(), is_right, "{amiss:?}");
        }
        let mut late = used;
        late["from"] = "1970-01-01T00:00:02.000Z".into();
        check(&nine, &[&late], false);
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
