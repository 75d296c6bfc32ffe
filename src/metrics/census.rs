//! The families of clients, upstreams and the proxy itself, made from a snapshot at scrape time.
//!
//! From a client's first sight every state, every direction and the clean closes of every initiator are
//! written, so that `rate()` sees the first event; other combinations appear when used. A client in which
//! nothing was counted yet only shelters connections whose handshake is awaited: it shows its connections by
//! state and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::catalogue as c;
use super::families::{Families, float};
use super::{Health, Sources, pools};
use crate::clients::{ClientRow, DirectoryRow, UpstreamRow};
use crate::config::MetricsDetail;
use crate::connection::{CloseReason, ErrorKind, Initiator, OpaqueReason, ServerRole, State};
use crate::journal::JournalHealth;
use crate::time::Timestamp;
use crate::wire::{Direction, error_code_labels};

/// Adds everything that is known at this moment of clients, upstreams and the proxy itself.
pub(super) fn census(
    families: &mut Families,
    sources: &Sources,
    detail: MetricsDetail,
    at: Timestamp,
) {
    // The picture may take a moment to come; what is counted is read when it is there, so that both are of one.
    let picture = sources.inference.pool_picture(at);
    let snapshot = sources.directory.snapshot(at, false);
    let pools = picture.by_client();
    for row in &snapshot.clients {
        client(families, row, detail);
        pools::client(families, row, &pools, &picture);
    }
    for row in &snapshot.upstreams {
        upstream(families, row);
    }
    directory(families, &snapshot.directory);
    let untracked = sources.directory.untracked_count();
    families.add(&c::UNTRACKED, &[], float(untracked));
    let names: Vec<Arc<str>> = snapshot
        .upstreams
        .iter()
        .map(|row| Arc::clone(&row.name))
        .collect();
    let incidents = sources.inference.incidents();
    sources.tally.show(families, &incidents, &names);
    let lost = sources.directory.observations_lost();
    families.add(&c::OBSERVATIONS_LOST, &[], float(lost));
    let lag = sources.inference.lag(at);
    families.add(&c::OBSERVER_LAG, &[], lag.as_secs_f64());
    health(families, &sources.health);
    let journal = sources.health.journal();
    let written = journal.map_or(0, JournalHealth::written_bytes);
    let errors = journal.map_or(0, JournalHealth::errors);
    families.add(&c::JOURNAL_WRITTEN, &[], float(written));
    families.add(&c::JOURNAL_ERRORS, &[], float(errors));
}

fn client(families: &mut Families, row: &ClientRow, detail: MetricsDetail) {
    let own = [&*row.upstream_name, &*row.address, &*row.app];
    let [upstream, client, app] = own;
    for (state, count) in State::ALL.into_iter().zip(row.by_state) {
        let labels = [upstream, client, app, state.label()];
        families.add(&c::CONNECTIONS, &labels, float(count));
    }
    if row.opened == 0 {
        return;
    }
    for (state, count) in [
        (State::Active, row.pooled_active),
        (State::Idle, row.pooled_idle),
    ] {
        let labels = [upstream, client, app, state.label()];
        families.add(&c::POOLED_CONNECTIONS, &labels, float(count));
    }
    let longest_idle = row.longest_idle.unwrap_or_default().as_secs_f64();
    let oldest = row.oldest.unwrap_or_default().as_secs_f64();
    for (family, value) in [
        (&c::CONNECTIONS_PEAK, float(row.peak)),
        (&c::CONNECTIONS_OPENED, float(row.opened)),
        (&c::POOLED_CONNECTIONS_OPENED, float(row.pooled_opened)),
        (&c::POOLED_CONNECTIONS_CLOSED, float(row.pooled_closed)),
        (&c::CONNECTION_MAX_IDLE, longest_idle),
        (&c::CONNECTION_MAX_AGE, oldest),
        (&c::CONNECTION_BUSY, row.busy.as_secs_f64()),
        (&c::REQUESTS_IN_FLIGHT, float(row.in_flight)),
        (&c::CURSORS_OPEN, float(row.cursors_open)),
        (&c::TRANSACTIONS_OPEN, float(row.transactions_open)),
    ] {
        families.add(family, &own, value);
    }
    for (side, rtt, retransmits) in [
        ("client", row.tcp_rtt[0], row.tcp_retransmits[0]),
        ("server", row.tcp_rtt[1], row.tcp_retransmits[1]),
    ] {
        let labels = [upstream, client, app, side];
        if let Some(rtt) = rtt {
            families.add(&c::TCP_RTT, &labels, rtt.as_secs_f64());
        }
        families.add(&c::TCP_RETRANSMITS, &labels, float(retransmits));
    }
    for ((initiator, reason), count) in closes(&row.closed) {
        let labels = [upstream, client, app, initiator.label(), reason.label()];
        families.add(&c::CONNECTIONS_CLOSED, &labels, float(count));
    }
    for (mechanism, result, count) in &row.authentications {
        let labels = [upstream, client, app, mechanism.label(), result.label()];
        families.add(&c::AUTHENTICATIONS, &labels, float(*count));
    }
    client_info(families, row);
    for (command, count) in &row.requests {
        let labels = [upstream, client, app, command.label()];
        families.add(&c::REQUESTS, &labels, float(*count));
    }
    for ((kind, code, name), count) in errors(&row.errors) {
        let labels = [upstream, client, app, kind.label(), code, name];
        families.add(&c::COMMAND_ERRORS, &labels, float(count));
    }
    for (direction, bytes) in Direction::ALL.into_iter().zip(row.bytes) {
        let labels = [upstream, client, app, direction.label()];
        families.add(&c::BYTES, &labels, float(bytes));
    }
    match detail {
        MetricsDetail::Minimal => {}
        MetricsDetail::Standard => {
            families.add_histogram(&c::CONNECTION_LIFETIME, &own, &row.lifetimes);
            families.add_histogram(&c::CONNECTION_REQUESTS, &own, &row.requests_per_connection);
            families.add_histogram(&c::HANDSHAKE_DURATION, &own, &row.handshakes);
            families.add_histogram(&c::COMMAND_DURATION, &own, &row.command_times);
        }
    }
}

fn client_info(families: &mut Families, row: &ClientRow) {
    let unknown = crate::clients::DriverRow::default();
    let driver = row.driver.as_ref().unwrap_or(&unknown);
    let labels = [
        &*row.upstream_name,
        &*row.address,
        &*row.app,
        &driver.name,
        &driver.version,
        &driver.platform,
        &driver.os_type,
        driver
            .compressor
            .map_or("", |compressor| compressor.label()),
        // Metadata can only be read from clients that speak in the clear.
        "false",
    ];
    families.add(&c::CLIENT_INFO, &labels, 1.0);
}

fn upstream(families: &mut Families, row: &UpstreamRow) {
    let own = [&*row.name];
    let [name] = own;
    for (state, count) in State::ALL.into_iter().zip(row.by_state) {
        families.add(
            &c::UPSTREAM_CONNECTIONS,
            &[name, state.label()],
            float(count),
        );
    }
    for (family, count) in [
        (&c::UPSTREAM_CONNECTIONS_OPENED, row.opened),
        (&c::UPSTREAM_ROLE_CHANGES, row.role_changes),
        (&c::UPSTREAM_RESTARTS, row.restarts),
    ] {
        families.add(family, &own, float(count));
    }
    let bypass = u64::try_from(row.bypass_names.len()).unwrap_or(u64::MAX);
    families.add(&c::UPSTREAM_BYPASS_NAMES, &own, float(bypass));
    for ((initiator, reason), count) in closes(&row.closed) {
        let labels = [name, initiator.label(), reason.label()];
        families.add(&c::UPSTREAM_CONNECTIONS_CLOSED, &labels, float(count));
    }
    endings(families, row);
    for (command, count) in &row.requests {
        families.add(
            &c::UPSTREAM_REQUESTS,
            &[name, command.label()],
            float(*count),
        );
    }
    for (command, times) in &row.command_times {
        families.add_histogram(
            &c::UPSTREAM_COMMAND_DURATION,
            &[name, command.label()],
            times,
        );
    }
    for ((kind, code, code_name), count) in errors(&row.errors) {
        let labels = [name, kind.label(), code, code_name];
        families.add(&c::UPSTREAM_COMMAND_ERRORS, &labels, float(count));
    }
    for (direction, sizes) in Direction::ALL.into_iter().zip(&row.message_sizes) {
        families.add_histogram(&c::UPSTREAM_MESSAGE_SIZE, &[name, direction.label()], sizes);
    }
    families.add_histogram(&c::UPSTREAM_CONNECT_DURATION, &own, &row.connect_times);
    for (failure, count) in &row.connect_failures {
        families.add(
            &c::UPSTREAM_CONNECT_FAILURES,
            &[name, failure.label()],
            float(*count),
        );
    }
    server(families, row);
}

/// Endings by what the labels tell; whether an authentication had failed before is told by the close reason.
fn endings(families: &mut Families, row: &UpstreamRow) {
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for (ending, count) in &row.endings {
        let key = (ending.initiator, ending.manner, ending.phase);
        *counts.entry(key).or_default() += count;
    }
    for ((initiator, manner, phase), count) in counts {
        let labels = [&*row.name, initiator.label(), manner.label(), phase.label()];
        families.add(&c::CONNECTION_ENDINGS, &labels, float(count));
    }
}

fn server(families: &mut Families, row: &UpstreamRow) {
    let announced = row
        .server
        .as_ref()
        .map_or(ServerRole::Unknown, |facts| facts.role);
    for role in ServerRole::ALL {
        let value = if role == announced { 1.0 } else { 0.0 };
        families.add(&c::UPSTREAM_ROLE, &[&row.name, role.label()], value);
    }
    let Some(facts) = &row.server else {
        return;
    };
    let set_name = facts.set_name.as_deref().unwrap_or_default();
    let wire_version = facts.max_wire_version.map(|version| version.to_string());
    let labels = [
        &*row.name,
        &crate::clients::label_text(set_name),
        row.server_version.as_deref().unwrap_or_default(),
        wire_version.as_deref().unwrap_or_default(),
    ];
    families.add(&c::UPSTREAM_INFO, &labels, 1.0);
}

fn directory(families: &mut Families, row: &DirectoryRow) {
    for (family, count) in [
        (&c::CLIENTS_TRACKED, row.tracked),
        (&c::CLIENTS_LIMIT, row.limit),
        (&c::CLIENT_OVERFLOW, row.overflowed),
        (&c::CLIENTS_EXPIRED, row.expired),
    ] {
        families.add(family, &[], float(count));
    }
    for (reason, count) in OpaqueReason::ALL.into_iter().zip(row.opaque) {
        families.add(&c::OPAQUE_CONNECTIONS, &[reason.label()], float(count));
    }
}

fn health(families: &mut Families, health: &Health) {
    for (direction, reason, count) in health.decode_failures() {
        families.add(
            &c::DECODE_FAILURES,
            &[direction.label(), reason],
            float(count),
        );
    }
    for (direction, count) in health.unobserved_bytes() {
        families.add(&c::UNOBSERVED_BYTES, &[direction.label()], float(count));
    }
    for (direction, delays) in health.forward_delays() {
        families.add_histogram(&c::FORWARD_DELAY, &[direction.label()], &delays);
    }
    let observe_time: Duration = health.observe_time();
    families.add(&c::OBSERVE_SECONDS, &[], observe_time.as_secs_f64());
    for (failure, count) in health.accept_errors() {
        families.add(&c::ACCEPT_ERRORS, &[failure.label()], float(count));
    }
    let subscribers = health.event_subscribers();
    families.add(&c::EVENT_SUBSCRIBERS, &[], float(subscribers));
}

/// Close counts with the zeros that are always shown.
fn closes(counted: &[(Initiator, CloseReason, u64)]) -> BTreeMap<(Initiator, CloseReason), u64> {
    let zeros = Initiator::ALL.map(|initiator| ((initiator, CloseReason::Clean), 0));
    let mut closes = BTreeMap::from(zeros);
    for (initiator, reason, count) in counted {
        *closes.entry((*initiator, *reason)).or_default() += count;
    }
    closes
}

/// Error counts by their labels: codes without a place in the table are added up.
fn errors(
    counted: &[(ErrorKind, i32, u64)],
) -> BTreeMap<(ErrorKind, &'static str, &'static str), u64> {
    let mut errors = BTreeMap::new();
    for (kind, code, count) in counted {
        let (code, name) = error_code_labels(*code);
        *errors.entry((*kind, code, name)).or_default() += count;
    }
    errors
}
