//! Incidents for people: a list, and one of them explained.

use super::format::{UNKNOWN, duration, safe, shorten};
use super::table::Align::{Aside, Number, Text};
use super::table::{Cell, render, wrap};
use crate::admin::api;
use crate::time::Timestamp;

/// Clients that a line names before it only counts them.
const CLIENTS_NAMED_MAX: usize = 2;
/// Clients that an explanation names.
const CLIENTS_EXPLAINED_MAX: usize = 12;
/// Columns of a client's name where several stand in a row.
const CLIENT_WIDTH_MAX: usize = 40;

/// A list: a row an incident, its summary below.
pub(super) fn table(answer: &api::Incidents) -> String {
    if answer.incidents.is_empty() {
        return "no incident\n".to_owned();
    }
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
                clients(&row.clients, CLIENTS_NAMED_MAX).into(),
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
    text.push_str("`+`: it goes on. `poolscope explain ID` says why, and what to do.\n");
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
    let state = match &row.closed_at {
        None => "it goes on".to_owned(),
        Some(closed) => {
            let lasted = between(&row.opened_at, closed).map_or_else(String::new, |seconds| {
                format!(", after {}", duration(seconds))
            });
            format!("over at {}{lasted}", clock(closed))
        }
    };
    let mut text = wrap(
        "",
        &format!(
            "#{} {} {} ({}), since {}, {state}",
            row.id,
            safe(&row.severity),
            safe(&row.cause),
            percent(row.confidence),
            safe(&row.opened_at),
        ),
    );
    let who = clients(&row.clients, CLIENTS_EXPLAINED_MAX);
    text += &wrap("", &format!("{} with {who}", safe(&row.upstream)));
    text.push('\n');
    text += &wrap("", &safe(&row.summary));

    section(&mut text, "What happened");
    for moment in &row.timeline {
        let after = between(&row.opened_at, &moment.at)
            .map_or_else(String::new, |seconds| format!("{seconds:>+8.3}s"));
        let mark = format!("  {} {after}  ", clock(&moment.at));
        text += &wrap(&mark, &safe(&moment.what));
    }
    for (place, cause) in row.causes.iter().enumerate() {
        if place == 0 {
            section(&mut text, &format!("Why {}", safe(&cause.cause)));
            text += &grounds(cause);
        } else {
            if place == 1 {
                section(&mut text, "What it is less likely to be");
            }
            text += &title(cause);
            text += &grounds(cause);
        }
    }
    for (place, cause) in row.aggravations.iter().enumerate() {
        if place == 0 {
            section(&mut text, "What makes it worse");
        }
        text += &title(cause);
        text += &grounds(cause);
    }
    for (number, advice) in (1..).zip(&row.advice) {
        if number == 1 {
            section(&mut text, "What to do");
        }
        text += &wrap(&format!("  {number}. "), &safe(&advice.text));
        // On one line, however long: it is there to be copied.
        let command = advice.command.as_ref();
        text += &command.map_or_else(String::new, |command| format!("       {}\n", safe(command)));
    }
    for (place, logged) in row.logged.iter().enumerate() {
        if place == 0 {
            section(&mut text, "What the logs say");
        }
        let hanging = if logged.hanging == 0 {
            String::new()
        } else {
            format!("; {} more operations never call back", logged.hanging)
        };
        let said = format!(
            "{} \"{}\", about {} times between {} and {}{hanging}. It was set off at {} on the wire: {}",
            client(&logged.client),
            safe(&logged.message),
            logged.failed,
            clock(&logged.from),
            clock(&logged.until),
            clock(&logged.wire_at),
            safe(&logged.trigger)
        );
        text += &wrap("  ", &said);
    }
    text
}

fn section(text: &mut String, title: &str) {
    text.extend(["\n", title, "\n"]);
}

fn title(cause: &api::RankedCause) -> String {
    let name = safe(&cause.cause);
    format!("  {name} ({})\n", percent(cause.confidence))
}

/// What speaks for a cause, and against it.
fn grounds(cause: &api::RankedCause) -> String {
    let facts = |mark, facts: &[api::Evidence]| -> String {
        let lines = facts.iter().map(|fact| {
            let count = fact.count.map(|count| format!("×{count}"));
            let at = fact.at.as_deref().map(clock);
            let beside: Vec<String> = [count, at].into_iter().flatten().collect();
            let beside = match beside[..] {
                [] => String::new(),
                _ => format!(" ({})", beside.join(", ")),
            };
            wrap(mark, &format!("{}{beside}", safe(&fact.fact)))
        });
        lines.collect()
    };
    facts("    + ", &cause.evidence) + &facts("    - ", &cause.against)
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
fn clock(moment: &str) -> String {
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

fn between(from: &str, until: &str) -> Option<f64> {
    let from: Timestamp = from.parse().ok()?;
    let until: Timestamp = until.parse().ok()?;
    Some(if until >= from {
        until.since(from).as_secs_f64()
    } else {
        -from.since(until).as_secs_f64()
    })
}
