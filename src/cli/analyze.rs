//! What a packet capture shows.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use super::format::plural;
use super::replay;
use super::table::wrap;
use super::{Output, show};
use crate::admin::{api, client_row, incident_row, upstream_rows};
use crate::capture::{Findings, analyze as analyze_files};

/// The answer in JSON: rows as those of the API.
#[derive(Debug, Serialize)]
struct Answer {
    api_version: String,
    /// The first moment; `null` when there is no packet.
    from: Option<String>,
    /// The last moment.
    until: Option<String>,
    /// Packets in the files.
    packets: u64,
    /// Those that belong to connections with servers.
    packets_used: u64,
    /// Those whose headers could not be read.
    packets_unreadable: u64,
    /// Connections with servers.
    connections: u64,
    /// Of these, begun before the capture.
    connections_begun_before: u64,
    /// Of these, with packets that were not captured, where that hid something.
    connections_with_holes: u64,
    warnings: Vec<String>,
    upstreams: Vec<api::Upstream>,
    clients: Vec<api::Client>,
    incidents: Vec<api::Incident>,
}

/// Analyses `files` and shows what was found.
pub(super) fn analyze(
    files: &[PathBuf],
    servers: &[SocketAddr],
    output: Output,
) -> anyhow::Result<String> {
    let answer = answer(&analyze_files(files, servers)?);
    match output {
        Output::Table => Ok(table(&answer)),
        Output::Json => {
            let mut text = serde_json::to_string_pretty(&answer).context("cannot write JSON")?;
            text.push('\n');
            Ok(text)
        }
    }
}

/// The addresses of a server given as `HOST:PORT`.
pub(super) fn resolve(servers: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for server in servers {
        let addrs = server
            .to_socket_addrs()
            .with_context(|| format!("--server {} is no HOST:PORT", server.escape_debug()))?;
        let canonical = addrs.map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
        found.extend(canonical);
    }
    Ok(found)
}

fn answer(findings: &Findings) -> Answer {
    let counts = findings.counts;
    let span = findings.span;
    let incidents = findings.incidents.iter();
    let clients = findings.snapshot.clients.iter();
    Answer {
        api_version: api::API_VERSION.to_owned(),
        from: span.map(|(from, _)| from.to_string()),
        until: span.map(|(_, until)| until.to_string()),
        packets: counts.packets,
        packets_used: counts.used,
        packets_unreadable: counts.unreadable,
        connections: counts.connections,
        connections_begun_before: counts.begun_before,
        connections_with_holes: counts.with_holes,
        warnings: findings.warnings.clone(),
        upstreams: upstream_rows(&findings.snapshot).upstreams,
        clients: clients
            .map(|row| client_row(row, &findings.pools))
            .collect(),
        incidents: incidents
            .map(|(incident, upstream)| incident_row(incident, upstream))
            .collect(),
    }
}

fn table(answer: &Answer) -> String {
    let (Some(from), Some(until)) = (&answer.from, &answer.until) else {
        return "no packet\n".to_owned();
    };
    let read = format!(
        "{}, {} of {} with servers, from {from} to {until}",
        plural(answer.packets, "packet"),
        answer.packets_used,
        plural(answer.connections, "connection"),
    );
    let clients = api::Clients {
        api_version: answer.api_version.clone(),
        at: until.clone(),
        clients: answer.clients.clone(),
        warnings: answer.warnings.clone(),
    };
    let upstreams = api::Upstreams {
        api_version: answer.api_version.clone(),
        at: until.clone(),
        upstreams: answer.upstreams.clone(),
    };
    let incidents = api::Incidents {
        api_version: answer.api_version.clone(),
        at: until.clone(),
        matched: u64::try_from(answer.incidents.len()).unwrap_or(u64::MAX),
        incidents: answer.incidents.clone(),
    };
    format!(
        "{}\n{}\n{}",
        wrap("", &read),
        show::clients(&clients, &upstreams),
        replay::table(&incidents)
    )
}
