//! Incidents for people: a list, and one of them explained.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::format::{UNKNOWN, count, duration, safe, shorten};
use super::table::Align::{Aside, Number, Text};
use super::table::{Cell, render, wrap};
use crate::admin::api;
use crate::diagnose::{Cause, Failures};
use crate::time::Timestamp;

/// Clients that a line names before it only counts them.
const CLIENTS_NAMED_MAX: usize = 2;
/// Clients that an explanation names.
const CLIENTS_EXPLAINED_MAX: usize = 12;
/// Facts of a cause at a lower rank that are shown for it, and against it.
const FACTS_MAX: usize = 3;
/// What is less likely is not worth its own grounds: what speaks against it is enough.
const LIKELY: f64 = 0.3;
/// Columns of a client's name where several stand in a row.
const CLIENT_WIDTH_MAX: usize = 40;

/// A list: a row an incident, its summary below; and how to learn more of one.
pub(super) fn table(answer: &api::Incidents) -> String {
    if answer.incidents.is_empty() {
        return "no incident\n".to_owned();
    }
    rows(answer) + "`+`: it goes on. `poolscope explain ID` says why, and what to do.\n"
}

/// The list itself.
pub(super) fn rows(answer: &api::Incidents) -> String {
    let columns = [
        ("ID", Number),
        ("SEVERITY", Text),
        ("CAUSE", Text),
        ("SURE", Number),
        ("SINCE", Text),
        ("LASTED", Number),
        ("UPSTREAM", Aside),
        ("CLIENTS", Aside),
    ];
    let rows: Vec<[Cell; 8]> = answer
        .incidents
        .iter()
        .map(|row| {
            let until = row.closed_at.as_deref().unwrap_or(&answer.at);
            let lasted = between(&row.opened_at, until);
            let lasted = lasted.map_or_else(|| UNKNOWN.to_owned(), duration);
            [
                row.id.to_string().into(),
                safe(&row.severity).into(),
                safe(&row.cause).into(),
                percent(row.confidence).into(),
                since(&row.opened_at, &answer.at).into(),
                if row.closed_at.is_some() {
                    lasted.into()
                } else {
                    format!("{lasted}+").into()
                },
                safe(&row.upstream).into(),
                applications(&row.clients).into(),
            ]
        })
        .collect();
    let table = render(columns, &rows, None);
    let mut lines = table.lines();
    let mut text = lines
        .next()
        .map_or_else(String::new, |head| format!("{head}\n"));
    for (line, row) in lines.zip(&answer.incidents) {
        text.push_str(line);
        text.push('\n');
        text.push_str(&wrap("     ", &safe(&row.summary)));
    }
    let shown = u64::try_from(answer.incidents.len()).unwrap_or(u64::MAX);
    if shown < answer.matched {
        let more = format!("the newest {shown} of {}\n", answer.matched);
        text.push_str(&more);
    }
    text
}

/// One line of news, such as `21:24:53 opened #3 critical server_crash (94 %): summary`.
pub(super) fn news(event: &str, row: &api::Incident) -> String {
    let at = match event {
        "incident_closed" => row.closed_at.as_deref().unwrap_or(&row.detected_at),
        _ => &row.detected_at,
    };
    let head = format!(
        "{} {} #{} {} {} ({})",
        clock(at),
        safe(event.strip_prefix("incident_").unwrap_or(event)),
        row.id,
        safe(&row.severity),
        safe(&row.cause),
        percent(row.confidence)
    );
    let who = clients(&row.clients, CLIENTS_NAMED_MAX);
    wrap("", &head) + &wrap("  ", &format!("{who}: {}", safe(&row.summary)))
}

/// Everything about one incident.
pub(super) fn explain(row: &api::Incident) -> String {
    let mut text = heading(row);
    text.push('\n');
    text += &wrap("", &safe(&row.summary));
    course(&mut text, row);
    let mut causes = row.causes.iter();
    if let Some(first) = causes.next() {
        let name = safe(&first.cause);
        section(&mut text, &format!("Why {name}"));
        text += &facts("  + ", &first.evidence);
        text += &facts("  - ", &first.against);
    }
    // That it could be something nobody knows speaks for itself.
    let others: Vec<&api::RankedCause> = causes
        .filter(|cause| cause.cause != Cause::Unknown.label())
        .collect();
    if !others.is_empty() {
        section(
            &mut text,
            "What else it could be, and what speaks against that",
        );
    }
    for cause in others {
        text += &title(cause);
        text += &few("    - ", &cause.against);
        if cause.confidence >= LIKELY {
            text += &few("    + ", &cause.evidence);
        }
    }
    if !row.aggravations.is_empty() {
        section(&mut text, "What makes it worse");
    }
    for cause in &row.aggravations {
        text += &title(cause);
        text += &facts("    + ", &cause.evidence);
        text += &facts("    - ", &cause.against);
    }
    if !row.advice.is_empty() {
        section(&mut text, "What to do");
    }
    for (number, advice) in (1..).zip(&row.advice) {
        text += &wrap(&format!("  {number}. "), &safe(&advice.text));
        let command = advice.command.as_deref();
        text += &command.map_or_else(String::new, |command| {
            // On one line, however long: it is there to be copied.
            format!(
                "     {}{}\n",
                prompt(advice.place.as_deref()),
                safe(command)
            )
        });
    }
    if !row.logged.is_empty() {
        section(&mut text, "What the logs of the applications say");
    }
    for logged in &row.logged {
        text += &log(logged);
    }
    text
}

/// Where a command belongs, as those who type it know the place.
fn prompt(place: Option<&str>) -> &'static str {
    match place {
        Some("shell") => "$ ",
        Some("mongosh") => "mongosh> ",
        Some("connection_string") => "connection string: ",
        Some("code") => "code: ",
        Some(_) | None => "",
    }
}

/// What it is, how sure, since when, and whom it concerns.
fn heading(row: &api::Incident) -> String {
    let state = match &row.closed_at {
        None => "it goes on".to_owned(),
        Some(closed) => {
            let lasted = between(&row.opened_at, closed).map_or_else(String::new, |seconds| {
                format!(", after {}", duration(seconds))
            });
            let merged = row
                .merged_into
                .map_or_else(String::new, |id| format!("; it is a part of #{id}"));
            format!("over at {}{lasted}{merged}", clock(closed))
        }
    };
    let told = between(&row.opened_at, &row.detected_at).map_or_else(String::new, |seconds| {
        format!("; told {} after it began", duration(seconds))
    });
    let what = format!(
        "#{} {} {}, {} sure",
        row.id,
        safe(&row.severity),
        safe(&row.cause),
        percent(row.confidence)
    );
    let when = format!("since {}, {state}{told}", safe(&row.opened_at));
    let who = clients(&row.clients, CLIENTS_EXPLAINED_MAX);
    wrap("", &what)
        + &wrap("", &when)
        + &wrap(
            "",
            &format!("upstream {}, clients {who}", safe(&row.upstream)),
        )
}

/// The course of events; nothing where nothing is known.
fn course(text: &mut String, row: &api::Incident) {
    if row.timeline.is_empty() {
        return;
    }
    section(text, "What happened");
    for moment in &row.timeline {
        let after = between(&row.opened_at, &moment.at)
            .map_or_else(String::new, |seconds| format!("{seconds:>+8.3}s"));
        let mark = format!("  {} {after}  ", clock(&moment.at));
        *text += &wrap(&mark, &safe(&moment.what));
    }
}

/// Where to look for which line in whose log.
fn log(logged: &api::Logged) -> String {
    let hanging = if logged.hanging == 0 {
        String::new()
    } else {
        format!(
            "; at least {} more {} back{}",
            count(logged.hanging),
            if logged.hanging == 1 {
                "operation never calls"
            } else {
                "operations never call"
            },
            commands(&logged.hanging_by_command)
        )
    };
    let from = clock(&logged.from);
    let when = logged.until.as_deref().map_or_else(
        || format!("from {from} on"),
        |until| format!("between {from} and {}", clock(until)),
    );
    let said = format!(
        "\"{}\" in the log of {}, {}, {when}{hanging}",
        safe(&logged.message),
        client(&logged.client),
        Failures::told(logged.failed, &logged.failed_is).words(),
    );
    let why = format!(
        "set off at {} on the wire: {}",
        clock(&logged.wire_at),
        safe(&logged.trigger)
    );
    let basis = format!("how often is taken from the {}", safe(&logged.basis));
    wrap("  ", &said) + &wrap("    ", &why) + &wrap("    ", &basis)
}

/// ` (find ×2, update)`, or nothing where none was read.
fn commands(counts: &[api::CommandCount]) -> String {
    let one = |counted: &api::CommandCount| match counted.count {
        1 => safe(&counted.command),
        count => format!("{} ×{count}", safe(&counted.command)),
    };
    let all: Vec<String> = counts.iter().map(one).collect();
    if all.is_empty() {
        return String::new();
    }
    format!(" ({})", all.join(", "))
}

fn section(text: &mut String, title: &str) {
    text.extend(["\n", title, "\n"]);
}

fn title(cause: &api::RankedCause) -> String {
    let name = safe(&cause.cause);
    format!("  {name} ({})\n", percent(cause.confidence))
}

/// Facts, each behind `mark`, with what they do not say themselves: how many, and when.
fn facts(mark: &str, facts: &[api::Evidence]) -> String {
    let lines = facts.iter().map(|fact| {
        // That there was one of it, or none, the sentence says itself.
        let count = fact
            .count
            .filter(|count| *count > 1 && !says(&fact.fact, *count));
        let count = count.map(|count| format!("×{count}"));
        let at = fact.at.as_deref().map(clock);
        let beside: Vec<String> = [count, at].into_iter().flatten().collect();
        let beside = match beside[..] {
            [] => String::new(),
            _ => format!(" ({})", beside.join(", ")),
        };
        wrap(mark, &format!("{}{beside}", safe(&fact.fact)))
    });
    lines.collect()
}

/// The first of many facts, and how many more there are.
fn few(mark: &str, all: &[api::Evidence]) -> String {
    let (shown, rest) = all.split_at(all.len().min(FACTS_MAX));
    let rest = u64::try_from(rest.len()).unwrap_or(u64::MAX);
    let mut text = facts(mark, shown);
    if rest > 0 {
        text += &wrap(mark, &format!("and {} more (--json has all)", count(rest)));
    }
    text
}

/// Whether a sentence holds a number.
fn says(fact: &str, number: u64) -> bool {
    let number = number.to_string();
    let mut words = fact.split(|char: char| !char.is_ascii_alphanumeric());
    words.any(|word| word == number)
}

/// `orders (4), billing`: a short form of many clients.
fn applications(all: &[api::IncidentClient]) -> String {
    if all.len() <= CLIENTS_NAMED_MAX {
        return clients(all, CLIENTS_NAMED_MAX);
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    for client in all {
        *counts.entry(&client.app).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| Reverse(count));
    let named = counts.iter().map(|&(app, count)| {
        let name = if app.is_empty() { "unnamed" } else { app };
        let name = shorten(&safe(name), CLIENT_WIDTH_MAX, 0);
        match count {
            1 => name,
            _ => format!("{name} ({count})"),
        }
    });
    named.collect::<Vec<_>>().join(", ")
}

fn client(client: &api::IncidentClient) -> String {
    let name = if client.app.is_empty() {
        safe(&client.address)
    } else {
        format!("{}@{}", safe(&client.app), safe(&client.address))
    };
    let tail = client.address.len() + 1;
    shorten(&name, CLIENT_WIDTH_MAX, tail.min(CLIENT_WIDTH_MAX / 2))
}

fn clients(all: &[api::IncidentClient], named_max: usize) -> String {
    if all.is_empty() {
        return "all clients".to_owned();
    }
    let named: Vec<String> = all.iter().take(named_max).map(client).collect();
    let named = named.join(", ");
    match all.len().saturating_sub(named_max) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn percent(confidence: f64) -> String {
    format!("{:.0} %", confidence * 100.0)
}

/// Time of day, to the millisecond.
pub(super) fn clock(moment: &str) -> String {
    safe(moment.get(11..23).unwrap_or(moment))
}

/// The time of day today, the day as well otherwise.
fn since(moment: &str, now: &str) -> String {
    let is_today = moment.get(..10) == now.get(..10);
    let shown = if is_today {
        moment.get(11..19)
    } else {
        moment.get(..16)
    };
    safe(shown.unwrap_or(moment))
}

/// Seconds from one moment to another.
pub(super) fn between(from: &str, until: &str) -> Option<f64> {
    let from: Timestamp = from.parse().ok()?;
    let until: Timestamp = until.parse().ok()?;
    Some(if until >= from {
        until.since(from).as_secs_f64()
    } else {
        -from.since(until).as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_an_end_or_a_number_is_told_as_such() {
        let logged = api::Logged {
            message: "pool destroyed".to_owned(),
            client: api::IncidentClient {
                address: "10.0.0.11".to_owned(),
                app: "orders".to_owned(),
            },
            wire_at: "2026-11-24T21:24:53.500Z".to_owned(),
            from: "2026-11-24T21:24:53.500Z".to_owned(),
            until: None,
            failed: 0,
            failed_is: "unknown".to_owned(),
            basis: "driver's rule".to_owned(),
            hanging: 0,
            hanging_by_command: Vec::new(),
            trigger: "forced close".to_owned(),
        };
        let check = |logged: &api::Logged, begin: &str| {
            let said = log(logged).replace("\n  ", " ");
            assert!(said.starts_with(begin), "{said}");
        };
        check(
            &logged,
            "  \"pool destroyed\" in the log of orders@10.0.0.11, as often as the destroyed pool is used, from 21:24:53.500 on",
        );
        let forced = api::Logged {
            until: Some("2026-11-24T21:24:55.000Z".to_owned()),
            failed: 1,
            failed_is: "at_least".to_owned(),
            ..logged
        };
        check(
            &forced,
            "  \"pool destroyed\" in the log of orders@10.0.0.11, at least once, between 21:24:53.500 and 21:24:55.000",
        );
    }
}
