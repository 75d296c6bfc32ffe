//! From the picture of a moment to the rows of the API.

mod pools;

use std::net::SocketAddr;
use std::time::Duration;

use super::api;
use super::{ListenerFacts, StatusFacts};
use crate::clients::{
    ClientRow, CloseCounts, ConnectionRow, HistogramRow, Snapshot, StateCounts, UpstreamRow,
};
use crate::connection::{ErrorKind, OpaqueReason, Role, State};
use crate::live::PoolPicture;
use crate::time::Timestamp;
use crate::wire::{Command, error_code_labels};

/// `app@address`, or the address alone when there is no application name.
pub(super) fn client_name(app: &str, address: &str) -> String {
    if app.is_empty() {
        address.to_owned()
    } else {
        format!("{app}@{address}")
    }
}

/// The address clients are told apart by: an IPv4 peer is the same one on a dual-stack listener.
pub(super) fn address_of(row: &ConnectionRow) -> String {
    row.peer.ip().to_canonical().to_string()
}

pub(super) fn clients(
    snapshot: &Snapshot,
    facts: &StatusFacts,
    picture: &PoolPicture,
) -> api::Clients {
    api::Clients {
        api_version: api::API_VERSION.to_owned(),
        at: snapshot.at.to_string(),
        clients: snapshot
            .clients
            .iter()
            .map(|row| client(row, picture))
            .collect(),
        warnings: warnings(snapshot, facts),
    }
}

/// The upstreams of a picture.
pub fn upstreams(snapshot: &Snapshot) -> api::Upstreams {
    api::Upstreams {
        api_version: api::API_VERSION.to_owned(),
        at: snapshot.at.to_string(),
        upstreams: snapshot.upstreams.iter().map(upstream).collect(),
    }
}

pub(super) fn status(
    snapshot: &Snapshot,
    facts: &StatusFacts,
    is_ready: bool,
    incidents_open: usize,
) -> api::Status {
    let mut by_state = StateCounts::default();
    for row in &snapshot.upstreams {
        for (sum, count) in by_state.iter_mut().zip(row.by_state) {
            *sum = sum.saturating_add(count);
        }
    }
    let limits = &facts.limits;
    api::Status {
        api_version: api::API_VERSION.to_owned(),
        at: snapshot.at.to_string(),
        version: facts.version.to_owned(),
        started_at: facts.started_at.to_string(),
        uptime_seconds: seconds(snapshot.at.since(facts.started_at)),
        is_ready,
        is_draining: facts.is_draining,
        web_listen_address: facts.web.to_string(),
        workers: number(facts.workers),
        listeners: facts
            .listeners
            .iter()
            .map(|facts| listener(facts, snapshot))
            .collect(),
        limits: api::Limits {
            max_clients: number(limits.clients_max),
            client_ttl_seconds: seconds(limits.client_ttl),
            max_connections: number(limits.connections_max),
            capture_limit_bytes: number(limits.capture_limit_bytes),
            inflate_limit_bytes: number(limits.inflate_limit_bytes),
            drain_timeout_seconds: seconds(facts.drain_timeout),
        },
        directory: api::Directory {
            tracked: snapshot.directory.tracked,
            limit: snapshot.directory.limit,
            overflowed: snapshot.directory.overflowed,
            expired: snapshot.directory.expired,
        },
        incidents_open: number(incidents_open),
        connections: states(&by_state),
        opaque_connections: opaque(snapshot)
            .map(|(reason, count)| api::OpaqueCount {
                reason: reason.label().to_owned(),
                count,
            })
            .collect(),
        cost: cost(snapshot, facts),
        warnings: warnings(snapshot, facts),
    }
}

fn cost(snapshot: &Snapshot, facts: &StatusFacts) -> api::Cost {
    let cost = &facts.cost;
    let upstreams = snapshot.upstreams.iter();
    let connections: u64 = upstreams.clone().map(|row| row.opened).sum();
    let requests: u64 = upstreams
        .flat_map(|row| &row.requests)
        .map(|(_, count)| count)
        .sum();
    let cpu = cost.cpu.map(seconds);
    api::Cost {
        cpu_seconds: cpu,
        cpu_seconds_per_connection: cpu.and_then(|cpu| per(cpu, connections)),
        cpu_seconds_per_request: cpu.and_then(|cpu| per(cpu, requests)),
        observe_seconds: seconds(cost.observing),
        observe_budget_percent: facts.limits.observe_percent.map(u64::from),
        forward_delay_p50_seconds: cost.forward_delay_p50.map(seconds),
        forward_delay_p99_seconds: cost.forward_delay_p99.map(seconds),
        resident_bytes: cost.resident_bytes,
    }
}

/// `total` for each of `count`; `None` when there is none.
fn per(total: f64, count: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    let count = (count > 0).then_some(count as f64)?;
    Some(total / count)
}

fn listener(facts: &ListenerFacts, snapshot: &Snapshot) -> api::Listener {
    let row = snapshot
        .upstreams
        .iter()
        .find(|row| *row.name == *facts.name);
    api::Listener {
        upstream: facts.name.clone(),
        listen: facts.listen.to_string(),
        address: facts.upstream.clone(),
        advertised: facts.advertised.clone(),
        bypass_names: row.map(|row| row.bypass_names.clone()).unwrap_or_default(),
    }
}

/// What an operator should know, as sentences.
fn warnings(snapshot: &Snapshot, facts: &StatusFacts) -> Vec<String> {
    let mut warnings = facts.warnings.clone();
    for row in &snapshot.upstreams {
        if !row.bypass_names.is_empty() {
            warnings.push(format!(
                "drivers may walk round the proxy: {} names {}, but clients know it as {}",
                row.name,
                row.bypass_names.join(", "),
                row.advertised
            ));
        }
    }
    let reasons: Vec<String> = opaque(snapshot)
        .map(|(reason, count)| format!("{count} {}", reason.label()))
        .collect();
    if !reasons.is_empty() {
        warnings.push(format!(
            "connections forwarded without being understood since the start: {}",
            reasons.join(", ")
        ));
    }
    let directory = &snapshot.directory;
    if directory.overflowed > 0 {
        warnings.push(format!(
            "{} connections were counted as other: the limit of {} clients is reached (max_clients)",
            directory.overflowed, directory.limit
        ));
    }
    warnings
}

fn opaque(snapshot: &Snapshot) -> impl Iterator<Item = (OpaqueReason, u64)> {
    OpaqueReason::ALL
        .into_iter()
        .zip(snapshot.directory.opaque)
        .filter(|(_, count)| *count > 0)
}

/// The row of a client instance.
pub fn client(row: &ClientRow, picture: &PoolPicture) -> api::Client {
    let mongo_clients = pools::mongo_clients(row, picture);
    let inferred = mongo_clients.iter().filter(|one| one.closed_at.is_none());
    let inferred = Some(number(inferred.count())).filter(|count| *count > 0);
    let driver = row.driver.as_ref();
    let operations = operations(&row.requests);
    api::Client {
        id: row.id.0,
        client: client_name(&row.app, &row.address),
        app: row.app.to_string(),
        address: row.address.to_string(),
        upstream: row.upstream_name.to_string(),
        first_seen: row.first_seen.to_string(),
        last_seen: row.last_seen.to_string(),
        driver: driver.map(|driver| api::Driver {
            name: driver.name.clone(),
            version: driver.version.clone(),
            platform: driver.platform.clone(),
            os_type: driver.os_type.clone(),
            os: driver.os.clone(),
            environment: driver.environment.clone(),
        }),
        auth_mechanism: driver.and_then(|d| Some(d.mechanism?.label().to_owned())),
        user: driver.and_then(|driver| driver.user.clone()),
        compressor: driver.and_then(|d| Some(d.compressor?.label().to_owned())),
        mongo_clients_estimated: estimated(inferred, row.mongo_clients),
        connections: states(&row.by_state),
        roles: roles(&row.by_role),
        monitors: Role::ALL
            .into_iter()
            .zip(row.by_role)
            .filter(|(role, _)| role.is_monitor())
            .fold(0, |sum: u64, (_, count)| sum.saturating_add(count)),
        pooled: api::Pooled {
            active: row.pooled_active,
            idle: row.pooled_idle,
            opened: row.pooled_opened,
            closed: row.pooled_closed,
        },
        undecided: row.undecided,
        undecided_ended: row.undecided_ended,
        peak: row.peak,
        opened: row.opened,
        closed: total(row.closed.iter().map(|(_, _, count)| *count)),
        closed_by: closed_by(&row.closed),
        requests: total(row.requests.iter().map(|(_, count)| *count)),
        requests_by_command: commands(&row.requests),
        operations,
        operations_per_connection: ratio(operations, row.pooled_opened),
        in_flight: row.in_flight,
        errors: total(row.errors.iter().map(|(_, _, count)| *count)),
        errors_by_code: errors(&row.errors),
        p50_seconds: row.p50.map(seconds),
        p95_seconds: row.p95.map(seconds),
        p99_seconds: row.p99.map(seconds),
        bytes_to_server: row.bytes[0],
        bytes_to_client: row.bytes[1],
        busy_seconds: seconds(row.busy),
        oldest_connection_seconds: row.oldest.map(seconds),
        longest_idle_seconds: row.longest_idle.map(seconds),
        mean_lifetime_seconds: mean(&row.lifetimes),
        mean_handshake_seconds: mean(&row.handshakes),
        cursors_open: row.cursors_open,
        transactions_open: row.transactions_open,
        authentications: row
            .authentications
            .iter()
            .map(|(mechanism, result, count)| api::AuthenticationCount {
                mechanism: mechanism.label().to_owned(),
                result: result.label().to_owned(),
                count: *count,
            })
            .collect(),
        mongo_clients,
    }
}

/// What is inferred has more evidence than monitors; but it is cut where there are very many. Without monitors it is
/// too weak for a figure that stands alone: clients that share nothing may be one, and are listed with that doubt.
fn estimated(inferred: Option<u64>, by_monitors: Option<u64>) -> Option<u64> {
    let by_monitors = by_monitors?;
    Some(match inferred {
        Some(inferred) if inferred >= pools::MONGO_CLIENTS_MAX => inferred.max(by_monitors),
        Some(inferred) => inferred,
        None => by_monitors,
    })
}

pub(super) fn connection(row: &ConnectionRow, at: Timestamp) -> api::Connection {
    api::Connection {
        id: row.id.0,
        client_id: row.client.0,
        client: client_name(&row.app, &address_of(row)),
        app: row.app.to_string(),
        peer: SocketAddr::new(row.peer.ip().to_canonical(), row.peer.port()).to_string(),
        server_side: row.server_side.map(|address| address.to_string()),
        upstream: row.upstream_name.to_string(),
        state: row.state.label().to_owned(),
        state_seconds: seconds(at.since(row.state_since)),
        role: row.role.label().to_owned(),
        opened_at: row.opened_at.to_string(),
        age_seconds: seconds(at.since(row.opened_at)),
        quiet_seconds: seconds(at.since(row.last_activity)),
        requests: row.requests,
        in_flight: u64::from(row.in_flight),
        bytes_to_server: row.bytes[0],
        bytes_to_client: row.bytes[1],
        last_command: row.last_command.map(|command| command.label().to_owned()),
        driver_name: row.driver.clone(),
        driver_version: row.driver_version.clone(),
        server_connection_id: row.server_connection_id,
        auth_mechanism: row.mechanism.map(|mechanism| mechanism.label().to_owned()),
        user: row.user.clone(),
        compressor: row
            .compressor
            .map(|compressor| compressor.label().to_owned()),
        opaque_reason: row.opaque.map(|reason| reason.label().to_owned()),
    }
}

fn upstream(row: &UpstreamRow) -> api::Upstream {
    api::Upstream {
        upstream: row.name.to_string(),
        listen: row.listen.to_string(),
        address: row.address.to_string(),
        advertised: row.advertised.to_string(),
        server: row.server.as_ref().map(|server| api::Server {
            role: server.role.label().to_owned(),
            set_name: server.set_name.clone(),
            me: server.me.clone(),
            primary: server.primary.clone(),
            members: server.members.clone(),
            version: row.server_version.clone(),
            max_wire_version: server.max_wire_version,
        }),
        bypass_names: row.bypass_names.clone(),
        connections: states(&row.by_state),
        opened: row.opened,
        closed: total(row.closed.iter().map(|(_, _, count)| *count)),
        closed_by: closed_by(&row.closed),
        endings: row
            .endings
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(ending, count)| api::EndingCount {
                initiator: ending.initiator.label().to_owned(),
                manner: ending.manner.label().to_owned(),
                phase: ending.phase.label().to_owned(),
                after_failed_authentication: ending.after_failed_authentication,
                count: *count,
            })
            .collect(),
        dial_failures: total(row.connect_failures.iter().map(|(_, count)| *count)),
        dial_failures_by_reason: row
            .connect_failures
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| api::DialFailureCount {
                reason: reason.label().to_owned(),
                count: *count,
            })
            .collect(),
        mean_connect_seconds: mean(&row.connect_times),
        requests: total(row.requests.iter().map(|(_, count)| *count)),
        requests_by_command: commands(&row.requests),
        command_times: row
            .command_times
            .iter()
            .filter_map(|(command, times)| {
                Some(api::CommandTime {
                    command: command.label().to_owned(),
                    count: times.count,
                    mean_seconds: mean(times)?,
                })
            })
            .collect(),
        errors: total(row.errors.iter().map(|(_, _, count)| *count)),
        errors_by_code: errors(&row.errors),
        role_changes: row.role_changes,
        restarts: row.restarts,
    }
}

fn states(counts: &StateCounts) -> api::StateCounts {
    let mut row = api::StateCounts {
        open: total(counts.iter().copied()),
        ..api::StateCounts::default()
    };
    for (state, count) in State::ALL.into_iter().zip(*counts) {
        let field = match state {
            State::Connecting => &mut row.connecting,
            State::Handshaking => &mut row.handshaking,
            State::Authenticating => &mut row.authenticating,
            State::Idle => &mut row.idle,
            State::Active => &mut row.active,
            State::Monitoring => &mut row.monitoring,
            State::Draining => &mut row.draining,
            State::Opaque => &mut row.opaque,
        };
        *field = count;
    }
    row
}

fn roles(counts: &[u64; Role::ALL.len()]) -> api::RoleCounts {
    let mut row = api::RoleCounts::default();
    for (role, count) in Role::ALL.into_iter().zip(*counts) {
        let field = match role {
            Role::Unknown => &mut row.unknown,
            Role::Application => &mut row.application,
            Role::Monitor => &mut row.monitor,
            Role::RoundTripMonitor => &mut row.round_trip_monitor,
            Role::Probe => &mut row.probe,
            Role::Tool => &mut row.tool,
            Role::Member => &mut row.member,
        };
        *field = count;
    }
    row
}

fn closed_by(counts: &CloseCounts) -> Vec<api::CloseCount> {
    counts
        .iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(initiator, reason, count)| api::CloseCount {
            initiator: initiator.label().to_owned(),
            reason: reason.label().to_owned(),
            count: *count,
        })
        .collect()
}

pub(super) fn commands(counts: &[(Command, u64)]) -> Vec<api::CommandCount> {
    counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(command, count)| api::CommandCount {
            command: command.label().to_owned(),
            count: *count,
        })
        .collect()
}

fn errors(counts: &[(ErrorKind, i32, u64)]) -> Vec<api::ErrorCount> {
    counts
        .iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(kind, code, count)| api::ErrorCount {
            kind: kind.label().to_owned(),
            code: *code,
            code_name: error_code_labels(*code).1.to_owned(),
            count: *count,
        })
        .collect()
}

/// Requests that an application asked for: everything but handshakes and authentication.
fn operations(requests: &[(Command, u64)]) -> u64 {
    total(
        requests
            .iter()
            .filter(|(command, _)| *command != Command::Hello && !command.is_authentication())
            .map(|(_, count)| *count),
    )
}

fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio of counts; beyond 2^53 nobody misses the last digit"
)]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a mean over a count; beyond 2^53 nobody misses the last digit"
)]
fn mean(histogram: &HistogramRow) -> Option<f64> {
    (histogram.count > 0).then(|| histogram.sum / histogram.count as f64)
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
