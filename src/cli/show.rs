//! What the API said, as tables for people.

use super::format::{UNKNOWN, brief, count, driver, duration, number, or_unknown, plural, safe};
use super::table::Align::{Aside, Number, Spare, Text};
use super::table::{Cell, render, wrap};
use crate::admin::api;
use crate::connection::{CloseReason, Initiator};

const LEGEND: &str = "POOLS: MongoClient objects; --pools lists them (-: none to tell). CONN: all open connections. ACTIVE, IDLE: \
     in pools. MON: those that only watch the server. CLOSED BY C/S/P: first by client, server, proxy. ABRUPT: of \
     these, all but orderly ends. OPS/CONN: operations a pooled one carried. P95: command time.";
/// A space at which no line is broken.
const TIED: char = '\u{a0}';
/// How the reason of an orderly end is called, as in the API.
const ORDERLY: [&str; 2] = [CloseReason::Clean.label(), CloseReason::Drain.label()];

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
        text.push_str(&heading(upstream, &rows, &clients.at));
        if rows.is_empty() {
            text.push_str("no client\n\n");
            continue;
        }
        text.push_str(&clients_table(&rows));
        text.push_str(&undecided(&rows));
        text.push('\n');
    }
    text.push_str(&wrap("", LEGEND));
    text.push_str(&warnings(&clients.warnings));
    text
}

fn heading(upstream: &api::Upstream, rows: &[&api::Client], at: &str) -> String {
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
    // From the rows rather than from the upstream, which was asked a moment later.
    let open = states(&open_by_state(rows), sum(rows, |row| row.undecided));
    wrap("", &route) + &wrap("", &open) + &endings(rows)
}

fn sum(rows: &[&api::Client], value: impl Fn(&api::Client) -> u64) -> u64 {
    rows.iter()
        .fold(0, |sum, row| sum.saturating_add(value(row)))
}

fn open_by_state(rows: &[&api::Client]) -> api::StateCounts {
    let sum = |value: fn(&api::StateCounts) -> u64| sum(rows, |row| value(&row.connections));
    api::StateCounts {
        open: sum(|counts| counts.open),
        connecting: sum(|counts| counts.connecting),
        handshaking: sum(|counts| counts.handshaking),
        authenticating: sum(|counts| counts.authenticating),
        idle: sum(|counts| counts.idle),
        active: sum(|counts| counts.active),
        monitoring: sum(|counts| counts.monitoring),
        draining: sum(|counts| counts.draining),
        opaque: sum(|counts| counts.opaque),
    }
}

/// Ended connections of some kinds.
fn closed(rows: &[&api::Client], is_meant: impl Fn(&api::CloseCount) -> bool) -> u64 {
    let counts = rows.iter().flat_map(|row| &row.closed_by);
    counts
        .filter(|one| is_meant(one))
        .fold(0, |sum, one| sum.saturating_add(one.count))
}

/// `31 closed: by client 22 clean, 3 in_flight; by server 6 reset`.
fn endings(rows: &[&api::Client]) -> String {
    let ended = |initiator: Initiator, reason: CloseReason| {
        closed(rows, |one| {
            one.initiator == initiator.label() && one.reason == reason.label()
        })
    };
    let by: Vec<String> = Initiator::ALL
        .into_iter()
        .filter_map(|initiator| {
            let reasons: Vec<String> = CloseReason::ALL
                .into_iter()
                .map(|reason| (ended(initiator, reason), reason))
                .filter(|(number, _)| *number > 0)
                .map(|(number, reason)| format!("{}{TIED}{}", count(number), reason.label()))
                .collect();
            let told = format!("by {} {}", initiator.label(), reasons.join(", "));
            (!reasons.is_empty()).then_some(told)
        })
        .collect();
    if by.is_empty() {
        return String::new();
    }
    let total = count(sum(rows, |row| row.closed));
    wrap("", &format!("{total} closed: {}", by.join("; "))).replace(TIED, " ")
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

/// `111 open: 13 active, 93 idle, ..`; states without connections are left out. Those that only shook hands rest
/// as idle ones do, and are told apart.
fn states(counts: &api::StateCounts, undecided: u64) -> String {
    let by_state: Vec<String> = [
        ("active", counts.active),
        ("idle", counts.idle.saturating_sub(undecided)),
        ("undecided", undecided),
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
    let open = format!("{} open", count(counts.open));
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
        ("OPENED", Spare),
        ("CLOSED BY\nC/S/P", Number),
        ("ABRUPT", Spare),
        ("OPS/\nCONN", Number),
        ("P95", Number),
        ("ERR", Number),
    ];
    // Whoever came and went without a word has nothing to tell them apart but the address.
    let (silent, told): (Vec<&api::Client>, Vec<&api::Client>) = rows
        .iter()
        .copied()
        .partition(|row| row.driver.is_none() && row.connections.open == 0);
    let mut cells: Vec<[Cell; 13]> = told.iter().map(|row| client_cells(row)).collect();
    if let [row] = silent[..] {
        cells.push(client_cells(row));
    } else if !silent.is_empty() {
        let name = format!("{} unnamed, gone", silent.len());
        cells.push(sums(name, &silent));
    }
    let clients = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    render(
        columns,
        &cells,
        Some(&sums(plural(clients, "client"), rows)),
    )
}

fn client_cells(row: &api::Client) -> [Cell; 13] {
    let mut cells = sums(String::new(), &[row]);
    cells[0] = client(&row.app, &row.address);
    cells[1] = row
        .driver
        .as_ref()
        .map_or_else(
            || UNKNOWN.to_owned(),
            |said| driver(&said.name, &said.version),
        )
        .into();
    cells[10] = or_unknown(row.operations_per_connection, number).into();
    cells[11] = or_unknown(row.p95_seconds, duration).into();
    cells
}

/// Several rows as one. Ratios and percentiles of parts do not add up to those of the whole.
fn sums(name: String, rows: &[&api::Client]) -> [Cell; 13] {
    let cell = |value: fn(&api::Client) -> u64| Cell::from(count(sum(rows, value)));
    let closed_by = Initiator::ALL
        .map(|initiator| brief(closed(rows, |one| one.initiator == initiator.label())));
    let abrupt = closed(rows, |one| !ORDERLY.contains(&one.reason.as_str()));
    let pools = rows.iter().filter_map(|row| row.mongo_clients_estimated);
    let pools = pools.reduce(u64::saturating_add);
    [
        Cell::from(name),
        Cell::from(""),
        or_unknown(pools, count).into(),
        cell(|row| row.connections.open),
        cell(|row| row.pooled.active),
        cell(|row| row.pooled.idle),
        cell(|row| row.monitors),
        cell(|row| row.opened),
        closed_by.join("/").into(),
        count(abrupt).into(),
        Cell::from(""),
        Cell::from(""),
        cell(|row| row.errors),
    ]
}

/// An instance; its address is kept when the name is cut.
pub(super) fn client(app: &str, address: &str) -> Cell {
    let address = safe(address);
    if app.is_empty() {
        Cell::from(address)
    } else {
        Cell::with_tail(&safe(app), &format!("@{address}"))
    }
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
        ("REQUESTS", Spare),
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
        ("RE-\nSTARTS", Spare),
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
                states(&answer.connections, 0),
                limits.max_connections
            ),
        ),
        ("incidents", format!("{} open", answer.incidents_open)),
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
        ("cost", cost(&answer.cost)),
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

fn cost(cost: &api::Cost) -> String {
    let known = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), duration);
    let budget = cost.observe_budget_percent.map_or_else(
        || "no limit".to_owned(),
        |percent| format!("at most {percent}% of a worker"),
    );
    format!(
        "{} of CPU ({} a connection, {} a request), {} of it looking ({budget}); chunks delayed by {}, 1 of 100 by \
         {} or more; {} resident",
        known(cost.cpu_seconds),
        known(cost.cpu_seconds_per_connection),
        known(cost.cpu_seconds_per_request),
        duration(cost.observe_seconds),
        known(cost.forward_delay_p50_seconds),
        known(cost.forward_delay_p99_seconds),
        cost.resident_bytes
            .map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
    )
}
