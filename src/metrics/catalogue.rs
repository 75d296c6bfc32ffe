//! Every metric family there is: the only place for names, types, labels and help.
//!
//! Collectors refer to the statics below and cannot invent a family. `CATALOGUE.md` beside this file is made
//! from the same table and checked by a test; `UPDATE_CATALOGUE=1` rewrites it.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the process or the client's row begins anew.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative buckets, count and sum.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Which chapter of the catalogue a family stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    /// Connections of one client instance.
    Connections,
    /// Traffic of one client instance.
    Traffic,
    /// One upstream; complete even when clients overflow or expire.
    Upstream,
    /// What went wrong, and why.
    Incidents,
    /// The health and cost of the proxy itself.
    Observer,
    /// What the operating system says of the process.
    Process,
}

impl Chapter {
    const ALL: [Self; 6] = [
        Self::Connections,
        Self::Traffic,
        Self::Upstream,
        Self::Incidents,
        Self::Observer,
        Self::Process,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Connections => "Connections of a client",
            Self::Traffic => "Traffic of a client",
            Self::Upstream => "Upstreams, over all clients",
            Self::Incidents => "Incidents",
            Self::Observer => "The proxy itself",
            Self::Process => "The process",
        }
    }
}

/// One metric family.
#[derive(Debug)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What it counts or measures.
    pub unit: &'static str,
    /// Names of all labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    /// Where it stands.
    pub chapter: Chapter,
}

/// The prefix of all names but those of the process.
macro_rules! prefixed {
    ($name:literal) => {
        concat!("poolscope_", $name)
    };
}

macro_rules! families {
    ($($constant:ident = $chapter:ident $kind:ident $name:expr, $unit:literal, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub static $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                chapter: Chapter::$chapter,
            };
        )+

        /// Every family.
        pub static CATALOGUE: &[&Family] = &[$(&$constant),+];
    };
}

families! {
    CONNECTIONS = Connections Gauge prefixed!("connections"), "connections",
        ["upstream", "client", "app", "state"],
        "Open client connections by protocol state.";
    POOLED_CONNECTIONS = Connections Gauge prefixed!("pooled_connections"), "connections",
        ["upstream", "client", "app", "state"],
        "Open connections of the application's pools, monitors left out; state is active or idle.";
    CONNECTIONS_PEAK = Connections Gauge prefixed!("connections_peak"), "connections",
        ["upstream", "client", "app"],
        "Highest number of open connections in the last complete minute.";
    CONNECTIONS_OPENED = Connections Counter prefixed!("connections_opened_total"), "connections",
        ["upstream", "client", "app"],
        "Client connections accepted.";
    CONNECTIONS_CLOSED = Connections Counter prefixed!("connections_closed_total"), "connections",
        ["upstream", "client", "app", "initiator", "reason"],
        "Client connections ended, by who ended them and how.";
    POOLED_CONNECTIONS_OPENED = Connections Counter prefixed!("pooled_connections_opened_total"), "connections",
        ["upstream", "client", "app"],
        "Connections of the application's pools opened, each counted when it is certain that it is one: what drivers report as ConnectionCreated.";
    POOLED_CONNECTIONS_CLOSED = Connections Counter prefixed!("pooled_connections_closed_total"), "connections",
        ["upstream", "client", "app"],
        "Connections of the application's pools ended: what drivers report as ConnectionClosed.";
    TCP_RTT = Connections Gauge prefixed!("tcp_rtt_seconds"), "seconds",
        ["upstream", "client", "app", "side"],
        "Mean smoothed round-trip time over the client's open sockets, sampled; side is client or server.";
    TCP_RETRANSMITS = Connections Counter prefixed!("tcp_retransmits_total"), "segments",
        ["upstream", "client", "app", "side"],
        "TCP segments retransmitted by the proxy, sampled and at close.";
    CONNECTION_LIFETIME = Connections Histogram prefixed!("connection_lifetime_seconds"), "seconds",
        ["upstream", "client", "app"],
        "Time from accept to close of client connections.";
    CONNECTION_REQUESTS = Connections Histogram prefixed!("connection_requests"), "requests",
        ["upstream", "client", "app"],
        "Requests carried by a connection over its life, handshake and monitors left out; low values mean poor reuse.";
    CONNECTION_MAX_IDLE = Connections Gauge prefixed!("connection_max_idle_seconds"), "seconds",
        ["upstream", "client", "app"],
        "Longest current idle time of an open connection.";
    CONNECTION_MAX_AGE = Connections Gauge prefixed!("connection_max_age_seconds"), "seconds",
        ["upstream", "client", "app"],
        "Age of the oldest open connection.";
    CONNECTION_BUSY = Connections Counter prefixed!("connection_busy_seconds_total"), "seconds",
        ["upstream", "client", "app"],
        "Connection time spent with at least one request in flight.";
    HANDSHAKE_DURATION = Connections Histogram prefixed!("handshake_duration_seconds"), "seconds",
        ["upstream", "client", "app"],
        "Time from accept until the connection is ready for its first ordinary command.";
    AUTHENTICATIONS = Connections Counter prefixed!("authentications_total"), "attempts",
        ["upstream", "client", "app", "mechanism", "result"],
        "Authentication conversations finished; result is ok, failed or abandoned.";
    MONGO_CLIENTS_ESTIMATED = Connections Gauge prefixed!("mongo_clients_estimated"), "clients",
        ["upstream", "client", "app"],
        "Estimated MongoClient instances behind this client, from its sessions and monitoring connections.";
    CONNECTION_BURSTS = Connections Counter prefixed!("connection_bursts_total"), "bursts",
        ["upstream", "client", "app"],
        "Times the client opened connections that ended within 2 s, without pause: 25 in 5 s at least, six for each that it lost, and four times its own baseline of such; of several clients at an address, what was refused counts with an empty app.";
    POOL_CLEARS = Connections Counter prefixed!("pool_clears_total"), "clears",
        ["upstream", "client", "app", "trigger"],
        "Inferred pool clears, as episodes; trigger is not_primary, network, server_shutdown or unknown.";
    MAX_POOL_SIZE_INFERRED = Connections Gauge prefixed!("max_pool_size_inferred"), "connections",
        ["upstream", "client", "app"],
        "Inferred maxPoolSize of one MongoClient; absent until there is evidence.";
    MIN_POOL_SIZE_INFERRED = Connections Gauge prefixed!("min_pool_size_inferred"), "connections",
        ["upstream", "client", "app"],
        "Inferred minPoolSize of one MongoClient; absent until there is evidence.";
    POOL_SATURATION = Connections Gauge prefixed!("pool_saturation_ratio"), "ratio",
        ["upstream", "client", "app"],
        "Active connections over inferred pool capacity; absent until capacity is inferred.";
    CLIENT_INFO = Connections Gauge prefixed!("client_info"), "info",
        ["upstream", "client", "app", "driver", "driver_version", "platform", "os_type", "compressor", "tls"],
        "Constant 1 with the newest handshake metadata; exactly one series per client and app.";
    REQUESTS = Traffic Counter prefixed!("requests_total"), "requests",
        ["upstream", "client", "app", "command"],
        "Requests seen, including those that expect no reply.";
    REQUESTS_IN_FLIGHT = Traffic Gauge prefixed!("requests_in_flight"), "requests",
        ["upstream", "client", "app"],
        "Requests sent upstream and not yet fully answered.";
    COMMAND_DURATION = Traffic Histogram prefixed!("command_duration_seconds"), "seconds",
        ["upstream", "client", "app"],
        "First request byte received until last reply byte forwarded; awaitable hello and exhaust replies excluded.";
    COMMAND_ERRORS = Traffic Counter prefixed!("command_errors_total"), "errors",
        ["upstream", "client", "app", "kind", "code", "code_name"],
        "Errors in replies; kind is command, write or write_concern.";
    BYTES = Traffic Counter prefixed!("bytes_total"), "bytes",
        ["upstream", "client", "app", "direction"],
        "Bytes forwarded, wire headers included, as seen on the client side.";
    CURSORS_OPEN = Traffic Gauge prefixed!("cursors_open"), "cursors",
        ["upstream", "client", "app"],
        "Cursors opened through the proxy and neither exhausted nor killed.";
    TRANSACTIONS_OPEN = Traffic Gauge prefixed!("transactions_open"), "transactions",
        ["upstream", "client", "app"],
        "Multi-statement transactions started and not ended.";
    UPSTREAM_CONNECTIONS = Upstream Gauge prefixed!("upstream_connections"), "connections",
        ["upstream", "state"],
        "Open connections by state over all clients.";
    UPSTREAM_CONNECTIONS_OPENED = Upstream Counter prefixed!("upstream_connections_opened_total"), "connections",
        ["upstream"],
        "Connections accepted over all clients.";
    UPSTREAM_CONNECTIONS_CLOSED = Upstream Counter prefixed!("upstream_connections_closed_total"), "connections",
        ["upstream", "initiator", "reason"],
        "Connections ended over all clients.";
    CONNECTION_ENDINGS = Upstream Counter prefixed!("connection_endings_total"), "connections",
        ["upstream", "initiator", "manner", "phase"],
        "Connections ended over all clients, by who ended them first, in which manner and in which phase.";
    UPSTREAM_REQUESTS = Upstream Counter prefixed!("upstream_requests_total"), "requests",
        ["upstream", "command"],
        "Requests over all clients.";
    UPSTREAM_COMMAND_DURATION = Upstream Histogram prefixed!("upstream_command_duration_seconds"), "seconds",
        ["upstream", "command"],
        "Command duration by command over all clients.";
    UPSTREAM_COMMAND_ERRORS = Upstream Counter prefixed!("upstream_command_errors_total"), "errors",
        ["upstream", "kind", "code", "code_name"],
        "Errors in replies over all clients.";
    UPSTREAM_MESSAGE_SIZE = Upstream Histogram prefixed!("upstream_message_size_bytes"), "bytes",
        ["upstream", "direction"],
        "Wire message size as sent.";
    UPSTREAM_CONNECT_DURATION = Upstream Histogram prefixed!("upstream_connect_duration_seconds"), "seconds",
        ["upstream"],
        "TCP connect time to the server.";
    UPSTREAM_CONNECT_FAILURES = Upstream Counter prefixed!("upstream_connect_failures_total"), "failures",
        ["upstream", "reason"],
        "Failed server dials: refused, timeout, unreachable, dns, other.";
    UPSTREAM_ROLE = Upstream Gauge prefixed!("upstream_role"), "state set",
        ["upstream", "role"],
        "1 for the role last announced (primary, secondary, arbiter, mongos, standalone, other, unknown), 0 for the rest.";
    UPSTREAM_ROLE_CHANGES = Upstream Counter prefixed!("upstream_role_changes_total"), "changes",
        ["upstream"],
        "Changes of announced role or primary.";
    UPSTREAM_RESTARTS = Upstream Counter prefixed!("upstream_restarts_total"), "restarts",
        ["upstream"],
        "Restarts of the server process, noticed by the process id in its hello replies.";
    UPSTREAM_BYPASS_NAMES = Upstream Gauge prefixed!("upstream_bypass_names"), "names",
        ["upstream"],
        "Names announced by the server that do not lead through this proxy; drivers that discover the replica set walk round the proxy when it is not 0.";
    UPSTREAM_INFO = Upstream Gauge prefixed!("upstream_info"), "info",
        ["upstream", "set_name", "server_version", "max_wire_version"],
        "Constant 1 with what the server announced.";
    INCIDENTS = Incidents Counter prefixed!("incidents_total"), "incidents",
        ["cause", "severity"],
        "Incidents opened by the diagnosis engine, by the cause at first rank when they were opened.";
    INCIDENT_ACTIVE = Incidents Gauge prefixed!("incident_active"), "state",
        ["cause", "severity", "upstream", "client", "app"],
        "1 while an incident is open, one series a client it concerns; the series goes away when it closes.";
    INCIDENT_DURATION = Incidents Histogram prefixed!("incident_duration_seconds"), "seconds",
        ["cause"],
        "Length of closed incidents.";
    INCIDENT_DETECTION_DELAY = Incidents Histogram prefixed!("incident_detection_delay_seconds"), "seconds",
        ["cause"],
        "First contributing event until the incident was opened.";
    DECODE_FAILURES = Observer Counter prefixed!("decode_failures_total"), "failures",
        ["direction", "reason"],
        "Messages the observer gave up on; the bytes were still forwarded.";
    OPAQUE_CONNECTIONS = Observer Counter prefixed!("opaque_connections_total"), "connections",
        ["reason"],
        "Connections no longer decoded: tls, unknown_protocol, decode_failure, panic, budget.";
    UNOBSERVED_BYTES = Observer Counter prefixed!("unobserved_bytes_total"), "bytes",
        ["direction"],
        "Bytes forwarded without being decoded.";
    FORWARD_DELAY = Observer Histogram prefixed!("forward_delay_seconds"), "seconds",
        ["direction"],
        "Delay added per chunk, from readable to written (sampled).";
    OBSERVE_SECONDS = Observer Counter prefixed!("observe_seconds_total"), "seconds",
        [],
        "Time spent decoding and accounting, outside the forwarding path.";
    OBSERVATIONS_LOST = Observer Counter prefixed!("observations_lost_total"), "observations",
        [],
        "Facts that did not reach the observer because it could not keep up; what it believes to be open is corrected within seconds.";
    OBSERVER_LAG = Observer Gauge prefixed!("observer_lag_seconds"), "seconds",
        [],
        "Longest time for which an observation waited for the observer, in the last quarter to half of a minute.";
    JOURNAL_WRITTEN = Observer Counter prefixed!("journal_written_bytes_total"), "bytes",
        [],
        "Bytes written to the journal, where there is one.";
    JOURNAL_ERRORS = Observer Counter prefixed!("journal_errors_total"), "errors",
        [],
        "Errors of writing the journal, where there is one; the first switches it off.";
    ACCEPT_ERRORS = Observer Counter prefixed!("accept_errors_total"), "errors",
        ["reason"],
        "Failed accepts: file_limit, memory, aborted, other.";
    CLIENTS_TRACKED = Observer Gauge prefixed!("clients_tracked"), "clients",
        [],
        "Client and app pairs with their own series.";
    CLIENTS_LIMIT = Observer Gauge prefixed!("clients_limit"), "clients",
        [],
        "Configured max_clients.";
    CLIENT_OVERFLOW = Observer Counter prefixed!("client_overflow_total"), "connections",
        [],
        "Connections accounted to `other` because the limit was reached.";
    CLIENTS_EXPIRED = Observer Counter prefixed!("clients_expired_total"), "clients",
        [],
        "Client and app pairs dropped after client_ttl without connections.";
    UNTRACKED = Observer Counter prefixed!("untracked_cursors_total"), "cursors",
        [],
        "Cursors and transactions not remembered because a client had too many open.";
    EVENT_SUBSCRIBERS = Observer Gauge prefixed!("event_subscribers"), "subscribers",
        [],
        "Live streams of events attached.";
    EXPOSED_SERIES = Observer Gauge prefixed!("exposed_series"), "series",
        [],
        "Series in the last exposition.";
    SCRAPE_DURATION = Observer Histogram prefixed!("scrape_duration_seconds"), "seconds",
        [],
        "Time to build an exposition.";
    BUILD_INFO = Observer Gauge prefixed!("build_info"), "info",
        ["version", "revision", "rustc", "target"],
        "Constant 1 with build facts.";
    PROCESS_CPU = Process Counter "process_cpu_seconds_total", "seconds",
        [],
        "Total user and system CPU time spent.";
    PROCESS_RESIDENT_MEMORY = Process Gauge "process_resident_memory_bytes", "bytes",
        [],
        "Resident memory size.";
    PROCESS_VIRTUAL_MEMORY = Process Gauge "process_virtual_memory_bytes", "bytes",
        [],
        "Virtual memory size.";
    PROCESS_OPEN_FDS = Process Gauge "process_open_fds", "descriptors",
        [],
        "Number of open file descriptors.";
    PROCESS_MAX_FDS = Process Gauge "process_max_fds", "descriptors",
        [],
        "Maximum number of open file descriptors.";
    PROCESS_THREADS = Process Gauge "process_threads", "threads",
        [],
        "Number of operating system threads.";
    PROCESS_START_TIME = Process Gauge "process_start_time_seconds", "seconds",
        [],
        "Start time of the process since the Unix epoch.";
}

/// The catalogue as a page of Markdown.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metric catalogue\n\n\
         Made from `catalogue.rs`; change it there. Labels of all families of a client are `upstream`, `client`\n\
         (peer address, or `other`) and `app` (application name of the handshake, sanitised).\n",
    );
    for chapter in Chapter::ALL {
        let heading = format!(
            "\n## {}\n\n| name | type | labels | unit | help |\n|---|---|---|---|---|\n",
            chapter.title()
        );
        page.push_str(&heading);
        for family in CATALOGUE.iter().filter(|family| family.chapter == chapter) {
            let labels: Vec<String> = family
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let line = format!(
                "| `{}` | {} | {} | {} | {} |\n",
                family.name,
                family.kind.label(),
                labels.join(", "),
                family.unit,
                family.help
            );
            page.push_str(&line);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/CATALOGUE.md");
        if std::env::var_os("UPDATE_CATALOGUE").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert!(
            page == markdown(),
            "src/metrics/CATALOGUE.md is stale: run this test with UPDATE_CATALOGUE=1"
        );
    }

    #[test]
    fn names_follow_the_rules() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len(), "a name stands twice");
        for family in CATALOGUE {
            let name = family.name;
            let is_counter = family.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert_eq!(name.ends_with("_info"), family.unit == "info", "{name}");
            let stem = name.trim_end_matches("_total");
            assert_eq!(
                stem.ends_with("_seconds"),
                family.unit == "seconds",
                "{name}"
            );
            assert!(family.help.ends_with('.'), "{name}");
            assert!(family.labels.iter().all(|label| *label != "le"), "{name}");
        }
    }
}
