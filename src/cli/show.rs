//! What the API said, as tables for people.

use super::format::{UNKNOWN, count, driver, duration, number, or_unknown, plural, safe};
use super::table::Align::{Aside, Number, Text};
use super::table::{Cell, render, wrap};
use crate::admin::api;

const LEGEND: &str = "\
POOLS: MongoClient objects, told by their monitors. CONN: all open. ACTIVE, IDLE: in pools.
MON: those that only watch the server. OPS/CONN: operations a pooled one carried. P95: command time.
MAX IDLE: longest current pause of a pooled one.
";

/// Who holds which connections: one table an upstream, the largest holders first.
pub(super) fn clients(clients: &api::Clients, upstreams: &api::Upstreams) -> String {
    let mut text = String::new();
    for upstream in &upstreams.upstreams {
        let mut rows: Vec<&api::Client> = clients
            .clients
            .iter()
            .filter(|row| row.upstream == upstream.upstream)
            .collect();
        rows.sort_by(|a, b| {
            let by_open = b.connections.open.cmp(&a.connections.open);
            by_open.then_with(|| (&a.client, a.id).cmp(&(&b.client, b.id)))
        });
        text.push_str(&heading(upstream, &clients.at));
        if rows.is_empty() {
            text.push_str("no client\n\n");
            continue;
        }
        text.push_str(&clients_table(&rows));
        text.push_str(&undecided(&rows));
        text.push('\n');
    }
    text.push_str(LEGEND);
    text.push_str(&warnings(&clients.warnings));
    text
}

fn heading(upstream: &api::Upstream, at: &str) -> String {
    let server = upstream
        .server
        .as_ref()
        .map_or_else(|| "not heard of yet".to_owned(), server);
    let name = if upstream.upstream == upstream.address {
        safe(&upstream.upstream)
    } else {
        format!("{} ({})", safe(&upstream.upstream), safe(&upstream.address))
    };
    let at = at.get(11..19).unwrap_or(at);
    let route = format!("{} > {name}, {server}, at {at} UTC", safe(&upstream.listen));
    wrap("", &route) + &wrap("", &states(&upstream.connections))
}

/// `rs0 primary 6.0.5`, as far as known.
fn server(server: &api::Server) -> String {
    let parts = [
        server.set_name.as_deref(),
        Some(server.role.as_str()),
        server.version.as_deref(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().map(safe).collect();
    parts.join(" ")
}

/// `111 connections: 13 active, 93 idle, ..`; states without connections are left out.
fn states(counts: &api::StateCounts) -> String {
    let by_state: Vec<String> = [
        ("active", counts.active),
        ("idle", counts.idle),
        ("monitoring", counts.monitoring),
        ("connecting", counts.connecting),
        ("handshaking", counts.handshaking),
        ("authenticating", counts.authenticating),
        ("draining", counts.draining),
        ("opaque", counts.opaque),
    ]
    .into_iter()
    .filter(|(_, number)| *number > 0)
    .map(|(state, number)| format!("{} {state}", count(number)))
    .collect();
    let open = plural(counts.open, "connection");
    if by_state.is_empty() {
        open
    } else {
        format!("{open}: {}", by_state.join(", "))
    }
}

/// What stands only in the column of all connections, said where there is any.
fn undecided(rows: &[&api::Client]) -> String {
    let undecided = rows
        .iter()
        .fold(0, |sum: u64, row| sum.saturating_add(row.undecided));
    if undecided == 0 {
        return String::new();
    }
    let text = format!(
        "{} only shook hands so far: pooled or watching, nothing tells yet",
        plural(undecided, "connection")
    );
    wrap("", &text)
}

fn clients_table(rows: &[&api::Client]) -> String {
    let columns = [
        ("CLIENT", Text),
        ("DRIVER", Aside),
        ("POOLS", Number),
        ("CONN", Number),
        ("ACTIVE", Number),
        ("IDLE", Number),
        ("MON", Number),
        ("OPENED", Number),
        ("CLOSED", Number),
        ("OPS/\nCONN", Number),
        ("P95", Number),
        ("ERR", Number),
        ("MAX\nIDLE", Number),
    ];
    let cells: Vec<[Cell; 13]> = rows.iter().map(|row| client_cells(row)).collect();
    render(columns, &cells, Some(&totals(rows)))
}

fn client_cells(row: &api::Client) -> [Cell; 13] {
    [
        client(&row.app, &row.address),
        row.driver
            .as_ref()
            .map_or_else(
                || UNKNOWN.to_owned(),
                |said| driver(&said.name, &said.version),
            )
            .into(),
        or_unknown(row.mongo_clients_estimated, count).into(),
        count(row.connections.open).into(),
        count(row.pooled.active).into(),
        count(row.pooled.idle).into(),
        count(row.monitors).into(),
        count(row.opened).into(),
        count(row.closed).into(),
        or_unknown(row.operations_per_connection, number).into(),
        or_unknown(row.p95_seconds, duration).into(),
        count(row.errors).into(),
        or_unknown(row.longest_idle_seconds, duration).into(),
    ]
}

fn client(app: &str, address: &str) -> Cell {
    let address = safe(address);
    if app.is_empty() {
        Cell::from(address)
    } else {
        Cell::with_tail(&safe(app), &format!("@{address}"))
    }
}

fn totals(rows: &[&api::Client]) -> [Cell; 13] {
    let sum = |value: fn(&api::Client) -> u64| {
        let sum = rows
            .iter()
            .fold(0, |sum: u64, row| sum.saturating_add(value(row)));
        Cell::from(count(sum))
    };
    let clients = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let longest_idle = rows
        .iter()
        .filter_map(|row| row.longest_idle_seconds)
        .max_by(f64::total_cmp);
    [
        Cell::from(plural(clients, "client")),
        Cell::from(""),
        sum(|row| row.mongo_clients_estimated.unwrap_or(0)),
        sum(|row| row.connections.open),
        sum(|row| row.pooled.active),
        sum(|row| row.pooled.idle),
        sum(|row| row.monitors),
        sum(|row| row.opened),
        sum(|row| row.closed),
        // Ratios and percentiles of parts do not add up to those of the whole.
        Cell::from(""),
        Cell::from(""),
        sum(|row| row.errors),
        or_unknown(longest_idle, duration).into(),
    ]
}

fn warnings(warnings: &[String]) -> String {
    warnings
        .iter()
        .map(|warning| wrap("! ", &safe(warning)))
        .collect()
}

/// Open connections.
pub(super) fn connections(answer: &api::Connections) -> String {
    let columns = [
        ("ID", Number),
        ("CLIENT", Text),
        ("ROLE", Text),
        ("STATE", Text),
        ("FOR", Number),
        ("AGE", Number),
        ("QUIET", Number),
        ("REQUESTS", Number),
        ("LAST", Text),
        ("SERVER", Text),
        ("UPSTREAM", Aside),
    ];
    let rows: Vec<[Cell; 11]> = answer
        .connections
        .iter()
        .map(|row| {
            let state = match &row.opaque_reason {
                Some(reason) => format!("{} ({})", row.state, reason),
                None => row.state.clone(),
            };
            [
                row.id.to_string().into(),
                client(&row.app, &row.peer),
                safe(&row.role).into(),
                safe(&state).into(),
                duration(row.state_seconds).into(),
                duration(row.age_seconds).into(),
                duration(row.quiet_seconds).into(),
                count(row.requests).into(),
                or_unknown(row.last_command.as_deref(), safe).into(),
                or_unknown(row.server_connection_id, |id| format!("conn{id}")).into(),
                safe(&row.upstream).into(),
            ]
        })
        .collect();
    let shown = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let matched = plural(answer.matched, "connection");
    let end = if shown < answer.matched {
        format!(
            "the oldest {} of {matched}; --limit shows more\n",
            count(shown)
        )
    } else {
        format!("{matched}\n")
    };
    if rows.is_empty() {
        return end;
    }
    render(columns, &rows, None) + &end
}

/// The servers behind the listeners.
pub(super) fn upstreams(answer: &api::Upstreams) -> String {
    let columns = [
        ("UPSTREAM", Text),
        ("LISTEN", Text),
        ("SERVER", Text),
        ("CONN", Number),
        ("ACTIVE", Number),
        ("IDLE", Number),
        ("MON", Number),
        ("OPENED", Number),
        ("CLOSED", Number),
        ("DIALS\nFAILED", Number),
        ("ERR", Number),
        ("RE-\nSTARTS", Number),
    ];
    let rows: Vec<[Cell; 12]> = answer
        .upstreams
        .iter()
        .map(|row| {
            [
                safe(&row.upstream).into(),
                safe(&row.listen).into(),
                or_unknown(row.server.as_ref(), server).into(),
                count(row.connections.open).into(),
                count(row.connections.active).into(),
                count(row.connections.idle).into(),
                count(row.connections.monitoring).into(),
                count(row.opened).into(),
                count(row.closed).into(),
                count(row.dial_failures).into(),
                count(row.errors).into(),
                count(row.restarts).into(),
            ]
        })
        .collect();
    let bypasses: String = answer
        .upstreams
        .iter()
        .filter(|row| !row.bypass_names.is_empty())
        .map(|row| {
            let names = row.bypass_names.join(", ");
            let text = format!("{} sends drivers past the proxy, to {names}", row.upstream);
            wrap("! ", &safe(&text))
        })
        .collect();
    render(columns, &rows, None) + &bypasses
}

/// The running instance itself.
pub(super) fn status(answer: &api::Status) -> String {
    let condition = if answer.is_draining {
        "draining"
    } else if answer.is_ready {
        "ready"
    } else {
        "starting"
    };
    let limits = &answer.limits;
    let directory = &answer.directory;
    let mut lines = vec![
        ("version", safe(&answer.version)),
        (
            "running",
            format!(
                "{condition}, since {} ({})",
                safe(&answer.started_at),
                duration(answer.uptime_seconds)
            ),
        ),
        ("workers", answer.workers.to_string()),
        ("web", safe(&answer.web_listen_address)),
    ];
    for listener in &answer.listeners {
        let text = format!("{} > {}", listener.listen, listener.address);
        let text = if listener.upstream == listener.address {
            text
        } else {
            format!("{text} ({})", listener.upstream)
        };
        lines.push(("listener", safe(&text)));
    }
    lines.extend([
        (
            "connections",
            format!(
                "{} (at most {})",
                states(&answer.connections),
                limits.max_connections
            ),
        ),
        (
            "clients",
            format!(
                "{} of at most {}, forgotten after {}; {} forgotten so far",
                directory.tracked,
                directory.limit,
                duration(limits.client_ttl_seconds),
                directory.expired
            ),
        ),
        (
            "reading",
            format!(
                "at most {} bytes of a message, {} when it is compressed",
                limits.capture_limit_bytes, limits.inflate_limit_bytes
            ),
        ),
        (
            "drain",
            format!("over {}", duration(limits.drain_timeout_seconds)),
        ),
    ]);
    let lines: String = lines
        .into_iter()
        .map(|(name, value)| wrap(&format!("{name:<12} "), &value))
        .collect();
    lines + &warnings(&answer.warnings)
}
