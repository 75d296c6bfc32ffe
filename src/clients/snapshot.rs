//! A picture of everything known at one moment: what the metrics and the API are made from.
//!
//! Rows are sorted by upstream, address and application, so that two pictures of the same facts are equal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientId, ConnectionId, DialFailure, UpstreamId};
use crate::connection::{
    CloseReason, Ending, ErrorKind, Initiator, Mechanism, OpaqueReason, Role, ServerFacts, State,
};
use crate::time::Timestamp;
use crate::wire::{Command, Compressor};

/// Everything known at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The moment.
    pub at: Timestamp,
    /// One row a client instance, `other` last.
    pub clients: Vec<ClientRow>,
    /// One row an open connection, oldest first; empty when the caller did not ask for them.
    pub connections: Vec<ConnectionRow>,
    /// One row an upstream, in configured order.
    pub upstreams: Vec<UpstreamRow>,
    /// The limits of the directory and how far they are used.
    pub directory: DirectoryRow,
}

/// Open connections by state.
pub type StateCounts = [u64; State::ALL.len()];

/// A number of closed connections by who ended them and why; zero counts are left out.
pub type CloseCounts = Vec<(Initiator, CloseReason, u64)>;

/// One client instance: connections of one address and application name to one upstream.
#[derive(Clone, Debug)]
pub struct ClientRow {
    /// Its identity in this process.
    pub id: ClientId,
    /// Which upstream it talks to.
    pub upstream: UpstreamId,
    /// The upstream's name.
    pub upstream_name: Arc<str>,
    /// The peer address, or `other`.
    pub address: Arc<str>,
    /// The sanitised application name; empty until known or when absent, `other` for the overflow.
    pub app: Arc<str>,
    /// First connection.
    pub first_seen: Timestamp,
    /// Last sign of life.
    pub last_seen: Timestamp,
    /// Open connections by state.
    pub by_state: StateCounts,
    /// Open connections by role, in the order of [`Role::ALL`].
    pub by_role: [u64; Role::ALL.len()],
    /// Application connections (pooled ones) that are active.
    pub pooled_active: u64,
    /// Application connections that are idle.
    pub pooled_idle: u64,
    /// Open connections that carried nothing but their handshake, so that nothing tells yet whether they are
    /// pooled or monitors.
    pub undecided: u64,
    /// Connections that ended a moment ago and had carried nothing but their handshake: whether they were pooled is
    /// decided within two seconds, and counted then.
    pub undecided_ended: u64,
    /// Highest number of open connections in the last complete minute.
    pub peak: u64,
    /// Connections accepted.
    pub opened: u64,
    /// Application connections among the opened ones, each counted when that is certain or when it ended;
    /// never falls. Less the closed ones it is the number of open application connections.
    pub pooled_opened: u64,
    /// Connections ended.
    pub closed: CloseCounts,
    /// Application connections among the ended ones, and those that proved to be monitors after all.
    pub pooled_closed: u64,
    /// Lifetimes of ended connections.
    pub lifetimes: HistogramRow,
    /// Requests carried by ended connections.
    pub requests_per_connection: HistogramRow,
    /// Times from accept until ready.
    pub handshakes: HistogramRow,
    /// Command times; its buckets are the ones of the metric.
    pub command_times: HistogramRow,
    /// Median command time; `None` before the first.
    pub p50: Option<Duration>,
    /// 95th percentile.
    pub p95: Option<Duration>,
    /// 99th percentile.
    pub p99: Option<Duration>,
    /// Requests by command; zero counts are left out.
    pub requests: Vec<(Command, u64)>,
    /// Application requests sent and not fully answered.
    pub in_flight: u64,
    /// Errors in replies.
    pub errors: Vec<(ErrorKind, i32, u64)>,
    /// Bytes forwarded to the server and to the client.
    pub bytes: [u64; 2],
    /// Mean round-trip times of the open sockets to the clients and to the servers, where they were sampled.
    pub tcp_rtt: [Option<Duration>; 2],
    /// Segments sent again to the clients and to the servers.
    pub tcp_retransmits: [u64; 2],
    /// Connection time spent with a request in flight, the running ones included.
    pub busy: Duration,
    /// Age of the oldest open connection.
    pub oldest: Option<Duration>,
    /// Longest current idle time of an open, idle application connection.
    pub longest_idle: Option<Duration>,
    /// Cursors open.
    pub cursors_open: u64,
    /// Transactions open.
    pub transactions_open: u64,
    /// Finished authentications.
    pub authentications: Vec<(Mechanism, crate::connection::AuthenticationResult, u64)>,
    /// The newest handshake metadata; `None` before the first.
    pub driver: Option<DriverRow>,
    /// Estimated number of `MongoClient` objects; `None` when the driver has no monitors to count.
    pub mongo_clients: Option<u64>,
}

/// Who a client said it is, sanitised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverRow {
    /// Driver chain.
    pub name: String,
    /// Versions of the chain.
    pub version: String,
    /// Language runtime and more, as the driver wrote it.
    pub platform: String,
    /// Kind of operating system.
    pub os_type: String,
    /// Name and version of the operating system.
    pub os: String,
    /// `env`: function platform, container runtime, orchestrator; empty parts left out.
    pub environment: String,
    /// Compressor in use on its newest connection.
    pub compressor: Option<Compressor>,
    /// Mechanism of its newest authentication.
    pub mechanism: Option<Mechanism>,
    /// User of its newest authentication, where it is not secret.
    pub user: Option<String>,
}

/// A cumulative histogram ready for exposition: `counts[i]` observations were at most `bounds[i]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramRow {
    /// Upper bounds, ascending, in the unit of the metric.
    pub bounds: &'static [f64],
    /// Cumulative counts, one a bound.
    pub counts: Vec<u64>,
    /// All observations.
    pub count: u64,
    /// Their sum, in the unit of the metric.
    pub sum: f64,
}

/// One open connection.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Its identity in this process.
    pub id: ConnectionId,
    /// The client instance it is accounted to.
    pub client: ClientId,
    /// Which upstream it goes to.
    pub upstream_name: Arc<str>,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// Our own port on the server's side: `remote` in the server's log.
    pub server_side: Option<SocketAddr>,
    /// Sanitised application name.
    pub app: Arc<str>,
    /// Its state.
    pub state: State,
    /// Since when.
    pub state_since: Timestamp,
    /// What it is used for.
    pub role: Role,
    /// When it was accepted.
    pub opened_at: Timestamp,
    /// When the last byte passed.
    pub last_activity: Timestamp,
    /// Requests seen.
    pub requests: u64,
    /// Application requests in flight.
    pub in_flight: u32,
    /// Bytes forwarded to the server and to the client.
    pub bytes: [u64; 2],
    /// The command of the newest request.
    pub last_command: Option<Command>,
    /// Driver chain.
    pub driver: String,
    /// Driver versions.
    pub driver_version: String,
    /// `connectionId` of the server: `conn<N>` in its log.
    pub server_connection_id: Option<i64>,
    /// Mechanism it authenticated with.
    pub mechanism: Option<Mechanism>,
    /// User, where not secret.
    pub user: Option<String>,
    /// Compressor negotiated.
    pub compressor: Option<Compressor>,
    /// Why it is opaque, when it is.
    pub opaque: Option<OpaqueReason>,
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct UpstreamRow {
    /// Its identity in this process.
    pub id: UpstreamId,
    /// Its configured name.
    pub name: Arc<str>,
    /// Where it listens for clients.
    pub listen: Arc<str>,
    /// Where it dials.
    pub address: Arc<str>,
    /// The name clients know this listener by.
    pub advertised: Arc<str>,
    /// Open connections by state.
    pub by_state: StateCounts,
    /// Connections accepted.
    pub opened: u64,
    /// Connections ended.
    pub closed: CloseCounts,
    /// Endings in full: who, how, in which phase; sorted.
    pub endings: Vec<(Ending, u64)>,
    /// Requests by command.
    pub requests: Vec<(Command, u64)>,
    /// Command times by command.
    pub command_times: Vec<(Command, HistogramRow)>,
    /// Errors in replies.
    pub errors: Vec<(ErrorKind, i32, u64)>,
    /// Message sizes by direction.
    pub message_sizes: [HistogramRow; 2],
    /// Dial times.
    pub connect_times: HistogramRow,
    /// Failed dials, every reason named.
    pub connect_failures: Vec<(DialFailure, u64)>,
    /// What the server said last.
    pub server: Option<ServerFacts>,
    /// The server's own version is not on the wire unless a client asks for it (`buildInfo`).
    pub server_version: Option<String>,
    /// Changes of announced role or primary.
    pub role_changes: u64,
    /// Restarts of the server process noticed by its `topologyVersion.processId`.
    pub restarts: u64,
    /// The server names itself (or its members) by an address that is not ours: drivers that discover the
    /// replica set will walk round the proxy. Empty when all is well.
    pub bypass_names: Vec<String>,
}

/// Limits of the directory and how far they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRow {
    /// Client instances with their own row.
    pub tracked: u64,
    /// The configured limit.
    pub limit: u64,
    /// Connections accounted to `other` because the limit was reached.
    pub overflowed: u64,
    /// Client instances dropped after the configured time without connections.
    pub expired: u64,
    /// Connections opaque, by reason, in the order of [`OpaqueReason::ALL`].
    pub opaque: [u64; OpaqueReason::ALL.len()],
}
