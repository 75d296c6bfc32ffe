//! What is counted for one upstream, complete even when clients overflow or expire.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::client::{ClosedCounts, CommandCounts, ErrorCounts};
use super::latency::{COMMAND_TIMES, Histogram, MESSAGE_SIZES};
use super::{DialFailure, HistogramRow, UpstreamId, lock};
use crate::connection::{Ending, ServerFacts, ServerRole};
use crate::time::Timestamp;
use crate::wire::{Command, Direction};

/// Server processes remembered, so that a balancer that alternates between a few is not taken for restarts.
const PROCESSES_MAX: usize = 16;

/// Names listed as leading round the proxy; a replica set has at most 50 members.
const BYPASS_NAMES_MAX: usize = 64;

/// One upstream as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// The value of the `upstream` label.
    pub name: String,
    /// Where clients connect: an address with port.
    pub listen: String,
    /// `host:port` of the server.
    pub address: String,
    /// Names (`host:port`) under which clients know the listener; empty: derived from `listen`.
    pub advertised: Vec<String>,
}

/// Counters and server facts of one upstream.
#[derive(Debug)]
pub(super) struct UpstreamCell {
    pub(super) id: UpstreamId,
    pub(super) name: Arc<str>,
    pub(super) listen: Arc<str>,
    pub(super) address: Arc<str>,
    pub(super) advertised: Arc<str>,
    pub(super) opened: AtomicU64,
    pub(super) closed: ClosedCounts,
    pub(super) endings: Mutex<BTreeMap<Ending, u64>>,
    pub(super) requests: CommandCounts,
    command_times: Box<[Histogram]>,
    pub(super) errors: ErrorCounts,
    pub(super) message_sizes: [Histogram; 2],
    pub(super) connect_times: Histogram,
    connect_failures: [AtomicU64; DialFailure::ALL.len()],
    pub(super) server: Mutex<Server>,
}

impl UpstreamCell {
    pub(super) fn new(id: UpstreamId, spec: &UpstreamSpec) -> Self {
        let advertised = if spec.advertised.is_empty() {
            spec.listen.as_str().into()
        } else {
            spec.advertised.join(",").into()
        };
        Self {
            id,
            name: spec.name.as_str().into(),
            listen: spec.listen.as_str().into(),
            address: spec.address.as_str().into(),
            advertised,
            opened: AtomicU64::new(0),
            closed: ClosedCounts::default(),
            endings: Mutex::default(),
            requests: CommandCounts::default(),
            command_times: Command::ALL
                .iter()
                .map(|_| Histogram::new(&COMMAND_TIMES))
                .collect(),
            errors: ErrorCounts::default(),
            message_sizes: [
                Histogram::new(&MESSAGE_SIZES),
                Histogram::new(&MESSAGE_SIZES),
            ],
            connect_times: Histogram::new(&COMMAND_TIMES),
            connect_failures: Default::default(),
            server: Mutex::default(),
        }
    }

    pub(super) fn command_time(&self, command: Command) -> Option<&Histogram> {
        self.command_times.get(command.index())
    }

    pub(super) fn message_size(&self, direction: Direction) -> Option<&Histogram> {
        self.message_sizes.get(direction.index())
    }

    pub(super) fn ended(&self, ending: Ending) {
        self.closed.add(ending);
        *lock(&self.endings).entry(ending).or_default() += 1;
    }

    pub(super) fn dial_failed(&self, failure: DialFailure) {
        if let Some(count) = self.connect_failures.get(failure as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Command times of commands that were timed at least once.
    pub(super) fn command_time_rows(&self) -> Vec<(Command, HistogramRow)> {
        Command::ALL
            .iter()
            .zip(&self.command_times)
            .map(|(command, times)| (*command, times.row()))
            .filter(|(_, row)| row.count > 0)
            .collect()
    }

    /// Every reason, the ones that never happened included: a rate sees the first failure only from a zero.
    pub(super) fn connect_failure_rows(&self) -> Vec<(DialFailure, u64)> {
        DialFailure::ALL
            .into_iter()
            .zip(&self.connect_failures)
            .map(|(failure, count)| (failure, count.load(Ordering::Relaxed)))
            .collect()
    }
}

/// What the server behind an upstream said, and how often that changed.
#[derive(Debug, Default)]
pub(super) struct Server {
    at: Timestamp,
    pub(super) facts: Option<ServerFacts>,
    processes: VecDeque<[u8; 12]>,
    /// The last role and primary that were announced at all: gaps during an election are no change.
    role: Option<ServerRole>,
    primary: Option<String>,
    pub(super) role_changes: u64,
    pub(super) restarts: u64,
    pub(super) bypass_names: Vec<String>,
}

impl Server {
    /// The server described itself on some connection.
    ///
    /// Descriptions of several connections race; one that is older, by its moment or by the counter of the same
    /// server process (SDAM specification § Topology version), says nothing new.
    pub(super) fn described(&mut self, at: Timestamp, facts: ServerFacts, names: &ListenerNames) {
        if at < self.at
            || self
                .facts
                .as_ref()
                .is_some_and(|known| is_stale(&facts, known))
        {
            return;
        }
        if let Some(version) = facts.topology_version {
            let is_new = !self.processes.contains(&version.process_id);
            if is_new {
                if !self.processes.is_empty() {
                    self.restarts += 1;
                }
                if self.processes.len() >= PROCESSES_MAX {
                    self.processes.pop_front();
                }
                self.processes.push_back(version.process_id);
            }
        }
        self.note_role(&facts);
        let is_renamed = self
            .facts
            .as_ref()
            .is_none_or(|known| known.me != facts.me || known.members != facts.members);
        if is_renamed {
            self.bypass_names = names.strangers(&facts);
        }
        self.at = at;
        self.facts = Some(facts);
    }

    fn note_role(&mut self, facts: &ServerFacts) {
        let role = Some(facts.role).filter(|role| *role != ServerRole::Unknown);
        let is_new_role = self.role.is_some() && role.is_some() && self.role != role;
        let is_new_primary =
            self.primary.is_some() && facts.primary.is_some() && self.primary != facts.primary;
        if is_new_role || is_new_primary {
            self.role_changes += 1;
        }
        self.role = role.or(self.role);
        if facts.primary.is_some() {
            self.primary.clone_from(&facts.primary);
        }
    }
}

fn is_stale(facts: &ServerFacts, known: &ServerFacts) -> bool {
    match (facts.topology_version, known.topology_version) {
        (Some(new), Some(old)) => new.process_id == old.process_id && new.counter < old.counter,
        (None, _) | (_, None) => false,
    }
}

/// The names under which clients reach any of our listeners.
#[derive(Debug, Default)]
pub(super) struct ListenerNames {
    /// Lower case `host:port`.
    names: Vec<String>,
    /// Ports on which we listen on every address: any host name may be ours.
    open_ports: Vec<u16>,
}

impl ListenerNames {
    pub(super) fn new(upstreams: &[UpstreamSpec]) -> Self {
        let mut found = Self::default();
        for spec in upstreams {
            let configured = spec.advertised.iter().map(|name| lowered(name));
            found.names.extend(configured);
            if !spec.advertised.is_empty() {
                continue;
            }
            found.names.push(lowered(&spec.listen));
            let Ok(listen) = spec.listen.parse::<SocketAddr>() else {
                continue;
            };
            if listen.ip().is_unspecified() {
                found.open_ports.push(listen.port());
            } else if listen.ip().is_loopback() {
                found.names.push(format!("localhost:{}", listen.port()));
            }
        }
        found
    }

    /// Names the server announced that do not lead through us, each once, in order.
    fn strangers(&self, facts: &ServerFacts) -> Vec<String> {
        let mut strangers: Vec<String> = Vec::new();
        for name in facts.me.iter().chain(&facts.members) {
            let shown = super::attribution::driver_text(name);
            if !self.contains(name) && !strangers.contains(&shown) {
                strangers.push(shown);
            }
            if strangers.len() >= BYPASS_NAMES_MAX {
                break;
            }
        }
        strangers
    }

    fn contains(&self, name: &str) -> bool {
        let name = lowered(name);
        let port = name
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        self.names.contains(&name) || port.is_some_and(|port| self.open_ports.contains(&port))
    }
}

/// Host names compare without regard to case (SDAM specification § Normalizing hostnames).
fn lowered(name: &str) -> String {
    name.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TopologyVersion;

    fn spec(listen: &str, advertised: &[&str]) -> UpstreamSpec {
        UpstreamSpec {
            name: "db".to_owned(),
            listen: listen.to_owned(),
            address: "10.0.0.9:27017".to_owned(),
            advertised: advertised.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn check(specs: &[UpstreamSpec], me: &str, members: &[&str], expected: &[&str]) {
        let facts = ServerFacts {
            me: Some(me.to_owned()),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            ..ServerFacts::default()
        };
        assert_eq!(ListenerNames::new(specs).strangers(&facts), expected);
    }

    #[test]
    fn names_that_lead_round_the_proxy_are_found() {
        let loopback = [spec("127.0.0.1:27018", &[])];
        check(&loopback, "LocalHost:27018", &["127.0.0.1:27018"], &[]);
        check(&loopback, "db1:27017", &["db1:27017"], &["db1:27017"]);
        check(&loopback, "localhost:27017", &[], &["localhost:27017"]);

        let named = [
            spec("0.0.0.0:27018", &["Proxy-A:27018"]),
            spec("0.0.0.0:27019", &["proxy-b:27019"]),
        ];
        check(
            &named,
            "proxy-a:27018",
            &["proxy-a:27018", "PROXY-B:27019"],
            &[],
        );
        check(&named, "proxy-a:27018", &["c:27018"], &["c:27018"]);

        let wildcard = [spec("[::]:27018", &[])];
        check(&wildcard, "anything:27018", &["b:27017"], &["b:27017"]);
        check(
            &[spec("[::1]:27018", &[])],
            "[::1]:27018",
            &["localhost:27018"],
            &[],
        );
    }

    fn facts(role: ServerRole, process: u8, counter: i64) -> ServerFacts {
        ServerFacts {
            role,
            topology_version: Some(TopologyVersion {
                process_id: [process; 12],
                counter,
            }),
            ..ServerFacts::default()
        }
    }

    #[test]
    fn changes_of_role_and_process_are_counted_once() {
        let names = ListenerNames::default();
        let mut server = Server::default();
        let mut moment = Timestamp::default();
        let mut describe = |role, process, counter| {
            moment = moment + std::time::Duration::from_millis(1);
            server.described(moment, facts(role, process, counter), &names);
            (server.role_changes, server.restarts)
        };
        assert_eq!(describe(ServerRole::Secondary, 1, 1), (0, 0));
        assert_eq!(describe(ServerRole::Primary, 1, 2), (1, 0));
        assert_eq!(describe(ServerRole::Primary, 1, 2), (1, 0));
        assert_eq!(describe(ServerRole::Secondary, 1, 1), (1, 0), "stale");
        assert_eq!(describe(ServerRole::Primary, 2, 0), (1, 1));
        assert_eq!(describe(ServerRole::Primary, 1, 2), (1, 1), "seen before");
        assert_eq!(describe(ServerRole::Unknown, 2, 1), (1, 1));
        assert_eq!(describe(ServerRole::Secondary, 2, 2), (2, 1));
    }
}
