//! The rows of the API, version 1: what is written as JSON and what the command line reads back.
//!
//! Names are stable within a version: fields may be added, never renamed, and never change their unit. Durations
//! are seconds as numbers and end in `_seconds`; sizes are bytes; moments are RFC 3339 in UTC; words such as states
//! come from closed sets, the labels of the metrics. What is not known is `null`, never left out. `API.md` beside
//! this file describes every field; a test compares the two.
//!
//! **Invariant:** text that a client or a server chose (applications, drivers, users, server names) is data: whoever
//! prints it has to escape it.

mod incidents;
mod pools;

use serde::{Deserialize, Serialize};

pub use incidents::{
    Advice, Evidence, Incident, IncidentClient, Incidents, Logged, Moment, OneIncident, RankedCause,
};

pub use pools::{
    CloseBasis, CloseReasons, Ground, Grounds, Inferred, MongoClient, PoolClear, PoolSize,
};

/// The value of `api_version`.
pub const API_VERSION: &str = "v1";

/// What a request gets that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What would be right; empty when there is nothing to choose from.
    pub allowed: Vec<String>,
}

/// The answer of `/api/v1/clients`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// `v1`.
    pub api_version: String,
    /// The moment of the picture.
    pub at: String,
    /// One row a client instance, by upstream, address and application.
    pub clients: Vec<Client>,
    /// What an operator should know when reading the rows, as sentences; empty when all is well.
    pub warnings: Vec<String>,
}

/// The answer of `/api/v1/connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// `v1`.
    pub api_version: String,
    /// The moment of the picture.
    pub at: String,
    /// Connections that match the filters, including those that the limit cut off.
    pub matched: u64,
    /// One row an open connection, oldest first.
    pub connections: Vec<Connection>,
}

/// The answer of `/api/v1/upstreams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstreams {
    /// `v1`.
    pub api_version: String,
    /// The moment of the picture.
    pub at: String,
    /// One row an upstream, in configured order.
    pub upstreams: Vec<Upstream>,
}

/// The answer of `/api/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `v1`.
    pub api_version: String,
    /// The moment of the picture.
    pub at: String,
    /// Version of poolscope.
    pub version: String,
    /// When it was started.
    pub started_at: String,
    /// Time since then.
    pub uptime_seconds: f64,
    /// It takes new connections.
    pub is_ready: bool,
    /// It was told to stop and lets connections end.
    pub is_draining: bool,
    /// Where this API is served.
    pub web_listen_address: String,
    /// Threads that forward.
    pub workers: u64,
    /// The listeners, in configured order.
    pub listeners: Vec<Listener>,
    /// The limits in force.
    pub limits: Limits,
    /// How far the table of clients is used.
    pub directory: Directory,
    /// Incidents that are open.
    pub incidents_open: u64,
    /// Open connections over all upstreams.
    pub connections: StateCounts,
    /// Connections that could not be decoded, since the start, by reason; zero counts are left out.
    pub opaque_connections: Vec<OpaqueCount>,
    /// What the proxy itself has cost since its start.
    pub cost: Cost,
    /// What an operator should know, as sentences; empty when all is well.
    pub warnings: Vec<String>,
}

/// What the proxy itself has cost since its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time of the process; `null` where the system does not tell.
    pub cpu_seconds: Option<f64>,
    /// The same for each connection accepted.
    pub cpu_seconds_per_connection: Option<f64>,
    /// The same for each request forwarded.
    pub cpu_seconds_per_request: Option<f64>,
    /// Processor time of it spent looking at what was forwarded (sampled).
    pub observe_seconds: f64,
    /// Percent of a worker's time that looking may take; `null` without limit.
    pub observe_budget_percent: Option<u64>,
    /// Delay added to half of the chunks at most, from readable to written (sampled).
    pub forward_delay_p50_seconds: Option<f64>,
    /// Delay added to 99 of 100 chunks at most.
    pub forward_delay_p99_seconds: Option<f64>,
    /// Resident memory of the process.
    pub resident_bytes: Option<u64>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name of its upstream.
    pub upstream: String,
    /// The address it is bound to.
    pub listen: String,
    /// Where it dials.
    pub address: String,
    /// Names under which clients know it.
    pub advertised: Vec<String>,
    /// Names by which the server sends drivers past it; empty when all is well.
    pub bypass_names: Vec<String>,
}

/// The limits in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Client instances with their own row.
    pub max_clients: u64,
    /// Time without a connection after which one is forgotten.
    pub client_ttl_seconds: f64,
    /// Open connections.
    pub max_connections: u64,
    /// Bytes of one message held for reading.
    pub capture_limit_bytes: u64,
    /// Bytes of one message that may come out of its decompression.
    pub inflate_limit_bytes: u64,
    /// Time over which connections are ended.
    pub drain_timeout_seconds: f64,
}

/// How far the table of clients is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Client instances with their own row.
    pub tracked: u64,
    /// How many there may be.
    pub limit: u64,
    /// Connections accounted to `other` because the limit was reached.
    pub overflowed: u64,
    /// Client instances forgotten after their time without connections.
    pub expired: u64,
}

/// Open connections by state; each connection is in exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    /// All of them.
    pub open: u64,
    /// Accepted, the server is being dialled.
    pub connecting: u64,
    /// The first hello is not answered.
    pub handshaking: u64,
    /// Authentication is under way.
    pub authenticating: u64,
    /// Nothing in flight.
    pub idle: u64,
    /// At least one request in flight.
    pub active: u64,
    /// Watches the server.
    pub monitoring: u64,
    /// Told to end.
    pub draining: u64,
    /// Not decoded.
    pub opaque: u64,
}

/// Open connections by what they are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleCounts {
    /// Not decided.
    pub unknown: u64,
    /// Pooled connections of an application.
    pub application: u64,
    /// Watch the server.
    pub monitor: u64,
    /// Measure round-trip times beside a monitor.
    pub round_trip_monitor: u64,
    /// Sent nothing that means anything.
    pub probe: u64,
    /// Shells and administration tools.
    pub tool: u64,
    /// Members of the replica set.
    pub member: u64,
}

/// One client instance: the connections of one address and application name to one upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its number in this process.
    pub id: u64,
    /// `app@address`; the address alone while there is no application name. The filter takes it.
    pub client: String,
    /// Application name; empty until known or when absent.
    pub app: String,
    /// Peer address without port, or `other`.
    pub address: String,
    /// Name of the upstream.
    pub upstream: String,
    /// First connection.
    pub first_seen: String,
    /// Last sign of life.
    pub last_seen: String,
    /// The newest handshake; `null` before the first.
    pub driver: Option<Driver>,
    /// Mechanism of the newest authentication.
    pub auth_mechanism: Option<String>,
    /// Its user, where that is not secret.
    pub user: Option<String>,
    /// Compressor in use on the newest connection.
    pub compressor: Option<String>,
    /// Estimated number of `MongoClient` objects; `null` when there are no monitors to count.
    pub mongo_clients_estimated: Option<u64>,
    /// Open connections by state.
    pub connections: StateCounts,
    /// Open connections by role.
    pub roles: RoleCounts,
    /// Open monitoring connections of both kinds.
    pub monitors: u64,
    /// Application connections: the pool.
    pub pooled: Pooled,
    /// Open connections that only shook hands: pooled or monitors, which their traffic or time will tell.
    pub undecided: u64,
    /// Connections that ended within the last two seconds and had only shaken hands: whether they were pooled is not
    /// decided, and they are not among the pooled ones yet.
    pub undecided_ended: u64,
    /// Highest number of open connections in the last complete minute.
    pub peak: u64,
    /// Connections accepted.
    pub opened: u64,
    /// Connections ended.
    pub closed: u64,
    /// Connections ended, by who and why; zero counts are left out.
    pub closed_by: Vec<CloseCount>,
    /// Requests, handshakes and authentication included.
    pub requests: u64,
    /// Requests by command; zero counts are left out.
    pub requests_by_command: Vec<CommandCount>,
    /// Requests without handshakes and authentication.
    pub operations: u64,
    /// Operations per application connection opened; `null` before the first.
    pub operations_per_connection: Option<f64>,
    /// Requests sent and not fully answered.
    pub in_flight: u64,
    /// Errors in replies.
    pub errors: u64,
    /// Errors by kind and code; zero counts are left out.
    pub errors_by_code: Vec<ErrorCount>,
    /// Median command time.
    pub p50_seconds: Option<f64>,
    /// 95th percentile of command times.
    pub p95_seconds: Option<f64>,
    /// 99th percentile of command times.
    pub p99_seconds: Option<f64>,
    /// Bytes forwarded to the server.
    pub bytes_to_server: u64,
    /// Bytes forwarded to the client.
    pub bytes_to_client: u64,
    /// Connection time with a request in flight, summed.
    pub busy_seconds: f64,
    /// Age of the oldest open connection.
    pub oldest_connection_seconds: Option<f64>,
    /// Longest current idle time of an idle application connection.
    pub longest_idle_seconds: Option<f64>,
    /// Mean life of ended connections.
    pub mean_lifetime_seconds: Option<f64>,
    /// Mean time from accept until ready.
    pub mean_handshake_seconds: Option<f64>,
    /// Cursors open.
    pub cursors_open: u64,
    /// Transactions open.
    pub transactions_open: u64,
    /// Finished authentications.
    pub authentications: Vec<AuthenticationCount>,
    /// Its `MongoClient` objects as inferred, the open ones first; at most 100.
    pub mongo_clients: Vec<MongoClient>,
}

/// Application connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pooled {
    /// Open with a request in flight.
    pub active: u64,
    /// Open without.
    pub idle: u64,
    /// Accepted so far, each counted when it is certain that it is one; a driver's `ConnectionCreated`.
    pub opened: u64,
    /// Ended so far; a driver's `ConnectionClosed`.
    pub closed: u64,
}

/// Who a client said it is: what the driver wrote, cut and sanitised; empty where it wrote nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Driver chain, such as `PyMongo|c`.
    pub name: String,
    /// Versions of the chain.
    pub version: String,
    /// Language runtime and more.
    pub platform: String,
    /// Kind of operating system.
    pub os_type: String,
    /// Name and version of it.
    pub os: String,
    /// Container, orchestrator, function platform.
    pub environment: String,
}

/// A number of ended connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseCount {
    /// Who ended them first.
    pub initiator: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A number of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandCount {
    /// The command, or `other`.
    pub command: String,
    /// How many.
    pub count: u64,
}

/// A number of errors in replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// Where in the reply.
    pub kind: String,
    /// The server's code; 0 when the reply had none.
    pub code: i32,
    /// Its name in the server's table; `none` without a code, `unknown` for one that is not in our table.
    pub code_name: String,
    /// How many.
    pub count: u64,
}

/// A number of finished authentications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationCount {
    /// The mechanism.
    pub mechanism: String,
    /// How they ended.
    pub result: String,
    /// How many.
    pub count: u64,
}

/// A number of connections that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpaqueCount {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A number of failed dials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialFailureCount {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A number of ended connections, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingCount {
    /// Who ended them first.
    pub initiator: String,
    /// How it showed.
    pub manner: String,
    /// What the connection was doing.
    pub phase: String,
    /// The last authentication on it had failed.
    pub after_failed_authentication: bool,
    /// How many.
    pub count: u64,
}

/// One open connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Its number in this process, rising from 1.
    pub id: u64,
    /// Number of the client instance it is accounted to.
    pub client_id: u64,
    /// `app@address`, as in the rows of clients.
    pub client: String,
    /// Application name.
    pub app: String,
    /// Address and port of the peer.
    pub peer: String,
    /// Our own address and port towards the server: `remote` in the server's log; `null` while dialling.
    pub server_side: Option<String>,
    /// Name of the upstream.
    pub upstream: String,
    /// Its state.
    pub state: String,
    /// Time in that state.
    pub state_seconds: f64,
    /// What it is used for.
    pub role: String,
    /// When it was accepted.
    pub opened_at: String,
    /// Time since then.
    pub age_seconds: f64,
    /// Time since the last byte passed.
    pub quiet_seconds: f64,
    /// Requests seen.
    pub requests: u64,
    /// Requests sent and not fully answered.
    pub in_flight: u64,
    /// Bytes forwarded to the server.
    pub bytes_to_server: u64,
    /// Bytes forwarded to the client.
    pub bytes_to_client: u64,
    /// Command of the newest request.
    pub last_command: Option<String>,
    /// Driver chain; empty before the handshake.
    pub driver_name: String,
    /// Versions of the chain.
    pub driver_version: String,
    /// `connectionId` of the server: `conn<N>` in its log.
    pub server_connection_id: Option<i64>,
    /// Mechanism it authenticated with.
    pub auth_mechanism: Option<String>,
    /// User, where not secret.
    pub user: Option<String>,
    /// Compressor negotiated.
    pub compressor: Option<String>,
    /// Why it is not decoded, when it is not.
    pub opaque_reason: Option<String>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub upstream: String,
    /// Where clients connect.
    pub listen: String,
    /// Where it is dialled.
    pub address: String,
    /// The name clients know this listener by.
    pub advertised: String,
    /// What the server said last; `null` before the first hello.
    pub server: Option<Server>,
    /// Names by which the server sends drivers past the proxy; empty when all is well.
    pub bypass_names: Vec<String>,
    /// Open connections by state, over all clients.
    pub connections: StateCounts,
    /// Connections accepted.
    pub opened: u64,
    /// Connections ended.
    pub closed: u64,
    /// Connections ended, by who and why; zero counts are left out.
    pub closed_by: Vec<CloseCount>,
    /// Connections ended, in full; zero counts are left out.
    pub endings: Vec<EndingCount>,
    /// Failed dials.
    pub dial_failures: u64,
    /// Failed dials by reason; zero counts are left out.
    pub dial_failures_by_reason: Vec<DialFailureCount>,
    /// Mean time of dials.
    pub mean_connect_seconds: Option<f64>,
    /// Requests, handshakes and authentication included.
    pub requests: u64,
    /// Requests by command; zero counts are left out.
    pub requests_by_command: Vec<CommandCount>,
    /// Command times by command, for commands that were timed.
    pub command_times: Vec<CommandTime>,
    /// Errors in replies.
    pub errors: u64,
    /// Errors by kind and code; zero counts are left out.
    pub errors_by_code: Vec<ErrorCount>,
    /// Changes of announced role or primary.
    pub role_changes: u64,
    /// Restarts of the server process that were noticed.
    pub restarts: u64,
}

/// Times of one command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandTime {
    /// The command, or `other`.
    pub command: String,
    /// How many were timed.
    pub count: u64,
    /// Their mean.
    pub mean_seconds: f64,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The role it announced.
    pub role: String,
    /// Name of the replica set.
    pub set_name: Option<String>,
    /// The name it has for itself.
    pub me: Option<String>,
    /// The primary as it knows it.
    pub primary: Option<String>,
    /// Members of the set as it knows them.
    pub members: Vec<String>,
    /// Its version, when a client asked for it.
    pub version: Option<String>,
    /// `maxWireVersion`.
    pub max_wire_version: Option<i32>,
}
