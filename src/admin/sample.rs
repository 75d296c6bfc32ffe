//! A picture made by hand, for the tests of the API and of the tables.

pub(crate) mod incidents;

use std::sync::Arc;
use std::time::Duration;

use super::{Events, ListenerFacts, Source, StatusFacts};
use crate::clients::{
    ClientId, ClientRow, ConnectionId, ConnectionRow, DialFailure, DirectoryRow, DriverRow,
    HistogramRow, Snapshot, UpstreamId, UpstreamRow,
};
use crate::config::Limits;
use crate::connection::{
    AuthenticationResult, CloseReason, Ending, ErrorKind, Initiator, Manner, Mechanism,
    OpaqueReason, Phase, Role, ServerFacts, ServerRole, State,
};
use crate::diagnose::Incident;
use crate::live::PoolPicture;
use crate::metrics::Cost;
use crate::time::Timestamp;
use crate::wire::{Command, Compressor};

/// 2026-11-23T21:26:28Z.
pub(crate) const AT: Timestamp = Timestamp::from_nanos(1_795_469_188_000_000_000);

const BOUNDS: &[f64] = &[0.001, 0.01, 0.1];

/// A source that always shows the same.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) snapshot: Snapshot,
    pub(crate) incidents: Vec<Arc<Incident>>,
    pub(crate) picture: Arc<PoolPicture>,
    pub(crate) events: Arc<Events>,
    pub(crate) facts: StatusFacts,
}

impl Source for Fixed {
    fn snapshot(&self, with_connections: bool) -> Snapshot {
        let mut snapshot = self.snapshot.clone();
        if !with_connections {
            snapshot.connections.clear();
        }
        snapshot
    }

    fn exposition(&self) -> String {
        "# HELP poolscope_build_info Constant 1.\n".to_owned()
    }

    fn now(&self) -> Timestamp {
        AT
    }

    fn incidents(&self) -> Vec<Arc<Incident>> {
        self.incidents.clone()
    }

    fn pool_picture(&self) -> Arc<PoolPicture> {
        Arc::clone(&self.picture)
    }

    fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    fn is_ready(&self) -> bool {
        !self.facts.is_draining
    }

    fn status(&self) -> StatusFacts {
        self.facts.clone()
    }
}

/// Two upstreams, five clients (one of them hostile), four connections.
pub(crate) fn fixed() -> Fixed {
    Fixed {
        snapshot: Snapshot {
            at: AT,
            clients: vec![
                orders(),
                client(
                    2,
                    0,
                    "billing",
                    "10.0.0.12",
                    [1, 2],
                    driver("nodejs|Mongoose", "6.8.0|8.1"),
                ),
                hostile(),
                client(4, 0, "", "10.0.0.99", [0, 0], DriverRow::default()),
                client(
                    5,
                    1,
                    "réports-中文",
                    "2001:db8::17",
                    [4, 1],
                    driver("mongo-rust-driver", "3.2.1"),
                ),
            ],
            connections: connections(),
            upstreams: vec![upstream(0), upstream(1)],
            directory: DirectoryRow {
                tracked: 5,
                limit: 250,
                overflowed: 12,
                expired: 3,
                opaque: [2, 0, 1, 0, 0],
            },
        },
        incidents: incidents::incidents(),
        picture: Arc::new(incidents::picture()),
        events: Arc::new(Events::new("0.1.0", AT, Arc::default())),
        facts: StatusFacts {
            version: "0.1.0",
            started_at: AT - Duration::from_secs(3 * 3600 + 62),
            listeners: vec![listener("mongo-0", 27018), listener("mongo-1", 27019)],
            web: "127.0.0.1:9604".parse().unwrap(),
            workers: 4,
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(25),
            is_draining: false,
            cost: Cost {
                cpu: Some(Duration::from_millis(12_340)),
                resident_bytes: Some(23 << 20),
                observing: Duration::from_millis(1_230),
                forward_delay_p50: Some(Duration::from_micros(25)),
                forward_delay_p99: Some(Duration::from_micros(250)),
            },
            warnings: vec![
                "environment POOLSCOPE_X: no key has this variable; it is not used".to_owned(),
            ],
        },
    }
}

fn listener(name: &str, port: u16) -> ListenerFacts {
    ListenerFacts {
        name: name.to_owned(),
        listen: ([127, 0, 0, 1], port).into(),
        upstream: format!("{name}:27017"),
        advertised: vec![format!("127.0.0.1:{port}")],
    }
}

fn driver(name: &str, version: &str) -> DriverRow {
    DriverRow {
        name: name.to_owned(),
        version: version.to_owned(),
        platform: "x".to_owned(),
        os_type: "Linux".to_owned(),
        os: "Debian 12".to_owned(),
        environment: "docker kubernetes".to_owned(),
        compressor: Some(Compressor::Zstd),
        mechanism: Some(Mechanism::ScramSha256),
        user: Some("admin.app".to_owned()),
    }
}

pub(crate) fn histogram(count: u64, sum: f64) -> HistogramRow {
    HistogramRow {
        bounds: BOUNDS,
        counts: vec![count; BOUNDS.len()],
        count,
        sum,
    }
}

/// A client with these active and idle connections, and one monitor.
pub(crate) fn client(
    id: u64,
    upstream: u16,
    app: &str,
    address: &str,
    [active, idle]: [u64; 2],
    driver: DriverRow,
) -> ClientRow {
    let mut by_state = [0; State::ALL.len()];
    by_state[State::Active.index()] = active;
    by_state[State::Idle.index()] = idle;
    by_state[State::Monitoring.index()] = 1;
    let mut by_role = [0; Role::ALL.len()];
    by_role[1] = active + idle;
    by_role[2] = 1;
    ClientRow {
        id: ClientId(id),
        upstream: UpstreamId(upstream),
        upstream_name: format!("mongo-{upstream}").into(),
        address: address.into(),
        app: app.into(),
        first_seen: AT - Duration::from_hours(2),
        last_seen: AT - Duration::from_millis(20),
        by_state,
        by_role,
        pooled_active: active,
        pooled_idle: idle,
        undecided: 0,
        undecided_ended: 0,
        peak: active + idle + 1,
        opened: active + idle + 1,
        pooled_opened: active + idle,
        closed: Vec::new(),
        pooled_closed: 0,
        lifetimes: HistogramRow::default(),
        requests_per_connection: HistogramRow::default(),
        handshakes: histogram(active + idle, 0.5),
        command_times: histogram(0, 0.0),
        p50: None,
        p95: None,
        p99: None,
        requests: vec![(Command::Hello, 20)],
        in_flight: active,
        errors: Vec::new(),
        bytes: [1000, 2000],
        tcp_rtt: [Some(Duration::from_micros(40)), None],
        tcp_retransmits: [0, 1],
        busy: Duration::from_millis(1500),
        oldest: Some(Duration::from_hours(2)),
        longest_idle: (idle > 0).then_some(Duration::from_secs(95)),
        cursors_open: 0,
        transactions_open: 0,
        authentications: Vec::new(),
        driver: (!driver.name.is_empty()).then_some(driver),
        mongo_clients: Some(1),
    }
}

fn orders() -> ClientRow {
    let mut row = client(
        1,
        0,
        "orders",
        "10.0.0.11",
        [12, 88],
        driver("PyMongo|c", "4.9.1"),
    );
    row.opened = 5123;
    row.pooled_opened = 5100;
    row.closed = vec![
        (Initiator::Client, CloseReason::Clean, 5000),
        (Initiator::Server, CloseReason::Reset, 22),
        (Initiator::Proxy, CloseReason::Drain, 0),
    ];
    row.pooled_closed = 5000;
    row.lifetimes = histogram(5022, 50_220.0);
    row.requests = vec![
        (Command::Hello, 9000),
        (Command::SaslStart, 5100),
        (Command::Find, 1_000_000),
        (Command::Insert, 20_000),
    ];
    row.errors = vec![
        (ErrorKind::Command, 10_107, 3),
        (ErrorKind::Write, 11_000, 40),
    ];
    row.p50 = Some(Duration::from_micros(640));
    row.p95 = Some(Duration::from_micros(1234));
    row.p99 = Some(Duration::from_millis(87));
    row.authentications = vec![
        (Mechanism::ScramSha256, AuthenticationResult::Ok, 5098),
        (Mechanism::ScramSha256, AuthenticationResult::Failed, 2),
    ];
    row.mongo_clients = Some(3);
    // Two more shook hands a moment ago.
    row.undecided = 2;
    row.by_state[State::Idle.index()] += 2;
    row.by_role[0] += 2;
    row.opened += 2;
    row.cursors_open = 2;
    row.transactions_open = 1;
    row
}

fn hostile() -> ClientRow {
    let app = "a\n\u{1b}[2J\u{202e}\"orders\"\t".to_owned() + &"x".repeat(60);
    client(
        3,
        0,
        &app,
        "10.0.0.66",
        [0, 3],
        driver("e\u{1b}]0;vil\u{7}driver", "1\n2"),
    )
}

fn connections() -> Vec<ConnectionRow> {
    let row = |id: u64, app: &str, peer: &str, state, role, age: u64| ConnectionRow {
        id: ConnectionId(id),
        client: ClientId(1),
        upstream_name: "mongo-0".into(),
        peer: peer.parse().unwrap(),
        server_side: Some("10.0.0.5:40123".parse().unwrap()),
        app: app.into(),
        state,
        state_since: AT - Duration::from_millis(250),
        role,
        opened_at: AT - Duration::from_secs(age),
        last_activity: AT - Duration::from_millis(250),
        requests: 4711,
        in_flight: u32::from(state == State::Active),
        bytes: [10, 20],
        last_command: Some(Command::Find),
        driver: "PyMongo|c".to_owned(),
        driver_version: "4.9.1".to_owned(),
        server_connection_id: Some(1042),
        mechanism: Some(Mechanism::ScramSha256),
        user: Some("admin.app".to_owned()),
        compressor: Some(Compressor::Snappy),
        opaque: None,
    };
    let mut opaque = row(
        9,
        "",
        "[::ffff:10.0.0.77]:6",
        State::Opaque,
        Role::Unknown,
        3,
    );
    opaque.opaque = Some(OpaqueReason::Tls);
    opaque.server_side = None;
    opaque.last_command = None;
    vec![
        row(
            1,
            "orders",
            "10.0.0.11:50001",
            State::Monitoring,
            Role::Monitor,
            7200,
        ),
        row(
            7,
            "orders",
            "10.0.0.11:50002",
            State::Active,
            Role::Application,
            95,
        ),
        row(
            8,
            "b\u{1b}[31m\nad",
            "[2001:db8::17]:50003",
            State::Idle,
            Role::Application,
            4,
        ),
        opaque,
    ]
}

fn upstream(id: u16) -> UpstreamRow {
    let mut by_state = [0; State::ALL.len()];
    by_state[State::Active.index()] = 13;
    by_state[State::Idle.index()] = 93;
    by_state[State::Monitoring.index()] = 4;
    by_state[State::Opaque.index()] = 1;
    let name: Arc<str> = format!("mongo-{id}").into();
    UpstreamRow {
        id: UpstreamId(id),
        name: Arc::clone(&name),
        listen: format!("127.0.0.1:{}", 27018 + id).into(),
        address: format!("{name}:27017").into(),
        advertised: format!("127.0.0.1:{}", 27018 + id).into(),
        by_state,
        opened: 5200,
        closed: vec![(Initiator::Client, CloseReason::Clean, 5089)],
        endings: vec![(
            Ending {
                initiator: Initiator::Client,
                manner: Manner::Fin,
                phase: Phase::Idle,
                after_failed_authentication: false,
            },
            5089,
        )],
        requests: vec![(Command::Hello, 9100), (Command::Find, 1_000_000)],
        command_times: vec![
            (Command::Find, histogram(1_000_000, 900.0)),
            (Command::Insert, HistogramRow::default()),
        ],
        errors: vec![(ErrorKind::Command, 10_107, 3)],
        message_sizes: [histogram(1, 1.0), histogram(1, 1.0)],
        connect_times: histogram(5200, 2.6),
        connect_failures: vec![(DialFailure::Refused, 4), (DialFailure::Dns, 0)],
        server: (id == 0).then(|| ServerFacts {
            connection_id: Some(1042),
            set_name: Some("rs0".to_owned()),
            me: Some("mongo-0.internal:27017".to_owned()),
            members: vec!["mongo-0.internal:27017".to_owned()],
            primary: Some("mongo-0.internal:27017".to_owned()),
            role: ServerRole::Primary,
            topology_version: None,
            max_wire_version: Some(17),
            compressor: Some(Compressor::Snappy),
            set_version: Some(1),
        }),
        server_version: (id == 0).then(|| "6.0.5".to_owned()),
        role_changes: 1,
        restarts: 0,
        bypass_names: if id == 0 {
            vec!["mongo-0.internal:27017".to_owned()]
        } else {
            Vec::new()
        },
    }
}
