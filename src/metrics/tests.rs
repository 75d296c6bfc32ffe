use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::catalogue::{CATALOGUE, Kind};
use super::*;
use crate::clients::fixtures::{clean, directory};
use crate::clients::{DialFailure, Recorder, UpstreamId};
use crate::connection::{
    Authentication, AuthenticationResult, ClientMetadata, CursorEffect, Ending, ErrorKind,
    Exchange, Facts, Manner, Mechanism, Observation, OpaqueReason, Phase, ReplyError, Role,
    ServerFacts, ServerRole, State,
};
use crate::diagnose::{Cause, ClientName, IncidentId, RankedCause, Severity};
use crate::live::{ClientCounts, ClientKey, MongoClientRow};
use crate::pools::{Basis, Inferred, Joined, MongoClientId, Pool, Standing};
use crate::timeline::TcpState;
use crate::wire::{Command, Compressor, Direction, ErrorLabels, WireError};

fn second(seconds: u64) -> Timestamp {
    Timestamp::default() + Duration::from_secs(1_700_000_000 + seconds)
}

/// What is inferred, made by hand.
#[derive(Debug, Default)]
struct Inferring {
    incidents: Vec<Arc<Incident>>,
    picture: Arc<PoolPicture>,
}

impl Inference for Inferring {
    fn incidents(&self) -> Vec<Arc<Incident>> {
        self.incidents.clone()
    }

    fn pool_picture(&self, _: Timestamp) -> Arc<PoolPicture> {
        Arc::clone(&self.picture)
    }

    fn lag(&self, _: Timestamp) -> Duration {
        Duration::from_millis(70)
    }
}

/// An incident of these clients.
fn incident(cause: Cause, severity: Severity, clients: &[(&str, &str)]) -> Incident {
    let clients = clients.iter().map(|(address, app)| ClientName {
        address: (*address).into(),
        app: (*app).into(),
    });
    Incident {
        id: IncidentId(1),
        severity,
        opened_at: second(1),
        evident_at: second(1),
        detected_at: second(2),
        closed_at: None,
        merged_into: None,
        upstream: UpstreamId(0),
        clients: clients.collect(),
        causes: vec![RankedCause {
            cause,
            confidence: 0.9,
            evidence: Vec::new(),
            against: Vec::new(),
        }],
        aggravations: Vec::new(),
        summary: String::new(),
        timeline: Vec::new(),
        advice: Vec::new(),
        logged: Vec::new(),
    }
}

/// Two mongo clients of `orders`, a third that is closed, and what happened to their pools.
fn picture() -> PoolPicture {
    let key = ClientKey {
        upstream: UpstreamId(0),
        address: [10, 0, 0, 1].into(),
        app: "orders".into(),
    };
    let row = |id, active, max_size: Option<(u64, f64)>, closed_at| MongoClientRow {
        key: key.clone(),
        id: MongoClientId(id),
        created_at: second(0),
        closed_at,
        joined: Joined::Sessions,
        confidence: 0.9,
        standing: Standing::default(),
        monitors: 1,
        monitors_proven: 1,
        pool: {
            let mut pool = Pool::default();
            pool.active = active;
            pool.max_size = max_size.map(|(value, confidence)| Inferred {
                value,
                confidence,
                basis: Basis::Saturated(Duration::from_secs(9)),
            });
            pool.min_size = Some(Inferred {
                value: 2,
                confidence: 0.5,
                basis: Basis::FilledUp(1),
            });
            pool
        },
    };
    let counts = ClientCounts {
        clears: [0, 3, 0, 1],
        bursts: 2,
        max_size: Some(20),
        min_size: Some(2),
        ..ClientCounts::default()
    };
    PoolPicture {
        at: second(3),
        mongo_clients: vec![
            row(1, 15, Some((20, 0.9)), None),
            row(2, 10, Some((30, 0.4)), None),
            row(3, 100, Some((100, 1.0)), Some(second(2))),
        ],
        counts: [(key.clone(), counts)].into(),
    }
}

fn exposition(directory: &Arc<Directory>, health: Health, detail: MetricsDetail) -> Exposition {
    exposition_with(
        directory,
        health,
        detail,
        IncidentTally::default(),
        Inferring::default(),
    )
}

fn exposition_with(
    directory: &Arc<Directory>,
    health: Health,
    detail: MetricsDetail,
    tally: IncidentTally,
    inferring: Inferring,
) -> Exposition {
    let build = BuildFacts {
        version: "0.1.0",
        revision: "abc",
        rustc: "1.95.0",
        target: "x86_64-unknown-linux-gnu",
    };
    let clock = || second(100);
    let sources = Sources {
        directory: Arc::clone(directory),
        health: Arc::new(health),
        tally: Arc::new(tally),
        inference: Arc::new(inferring),
    };
    Exposition::new(sources, detail, build, clock)
}

fn used_health() -> Health {
    let health = Health::new();
    health.decode_failed(Direction::ToServer, WireError::Tls);
    health.unobserved(Direction::ToClient, 9);
    health.forwarded(Direction::ToServer, Duration::from_micros(20));
    health.observed_for(Duration::from_millis(3));
    health.accept_failed(AcceptFailure::FileLimit);
    health
}

/// A connection of an application that did everything once.
fn busy_connection(directory: &Arc<Directory>, host: [u8; 4], app: &str) -> Recorder {
    let peer = SocketAddr::from((host, 4000));
    let mut recorder = directory.open(UpstreamId(0), peer, second(0));
    recorder.dialled(second(0), Duration::from_millis(1), None);
    let metadata = ClientMetadata {
        application: app.to_owned(),
        driver_name: "PyMongo|c".to_owned(),
        driver_version: "4.20.0|".to_owned(),
        platform: "CPython \"3.11\"\nFinal".to_owned(),
        os_type: "Linux".to_owned(),
        ..ClientMetadata::default()
    };
    let server = ServerFacts {
        set_name: Some("rs0".to_owned()),
        me: Some("elsewhere:27017".to_owned()),
        role: ServerRole::Primary,
        max_wire_version: Some(17),
        compressor: Some(Compressor::Zstd),
        ..ServerFacts::default()
    };
    recorder.bytes_forwarded(Direction::ToServer, 300, second(0));
    recorder.message_seen(Direction::ToServer, 300);
    recorder.request_seen(second(0), Command::Hello, 1);
    for observation in [
        Observation::HandshakeSeen {
            client: Box::new(metadata),
            request_id: 1,
        },
        Observation::ServerDescribed(Box::new(server)),
        Observation::RoleFound(Role::Application),
        Observation::Authenticated(Authentication {
            mechanism: Mechanism::ScramSha256,
            result: AuthenticationResult::Ok,
            user: Some("admin.app".to_owned()),
        }),
        Observation::Ready {
            after: Duration::from_millis(5),
        },
        Observation::TransactionStarted { lsid: None },
    ] {
        recorder.observed(second(0), observation);
    }
    for command in [
        Command::Find,
        Command::GetMore,
        Command::Insert,
        Command::Update,
    ] {
        recorder.request_seen(second(1), command, 1);
        recorder.exchange_ended(&Exchange {
            command,
            started_at: second(1),
            ended_at: second(1) + Duration::from_millis(2),
            is_ok: true,
            is_timed: true,
            cursor: CursorEffect::None,
        });
    }
    recorder.error_seen(
        second(1),
        &ReplyError {
            kind: ErrorKind::Write,
            command: Command::Insert,
            code: 11_000,
            code_name: None,
            labels: ErrorLabels::default(),
            count: 3,
        },
    );
    recorder.activity_changed(second(1), State::Active, 1);
    let gauge = &recorder;
    for retransmits in [1, 3] {
        let state = TcpState {
            rtt: Duration::from_millis(2).into(),
            retransmits,
            ..TcpState::default()
        };
        gauge.sockets_told([TcpState::default(), state]);
    }
    recorder
}

#[test]
fn round_trips_and_retransmits_are_told_by_side() {
    let directory = directory(8);
    let recorder = busy_connection(&directory, [10, 0, 0, 1], "orders");
    let exposition = exposition(&directory, Health::new(), MetricsDetail::Standard);
    let text = exposition.render(second(2));
    let value = |family: &str, side: &str| {
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with(family) && line.contains(&format!("side=\"{side}\"")));
        lines
            .next()
            .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    assert_eq!(value("poolscope_tcp_rtt_seconds", "server"), Some(0.002));
    // Nothing was measured there.
    assert_eq!(value("poolscope_tcp_rtt_seconds", "client"), None);
    assert_eq!(
        value("poolscope_tcp_retransmits_total", "server"),
        Some(3.0)
    );
    assert_eq!(
        value("poolscope_tcp_retransmits_total", "client"),
        Some(0.0)
    );
    recorder.ended(clean(), second(3));
    let text = exposition.render(second(4));
    assert!(text.contains("side=\"server\"} 3\n"), "{text}");
}

/// A directory in which everything there is a family for has happened; the recorders keep it so.
fn used_directory() -> (Arc<Directory>, Vec<Recorder>) {
    let directory = directory(2);
    let mut open = Vec::new();
    let ended = busy_connection(&directory, [10, 0, 0, 1], "orders");
    ended.ended(clean(), second(2));
    open.push(busy_connection(&directory, [10, 0, 0, 1], "orders"));
    let mut monitor = busy_connection(&directory, [10, 0, 0, 1], "orders");
    monitor.observed(second(1), Observation::RoleFound(Role::Monitor));
    open.push(monitor);
    let peer = SocketAddr::from(([10, 0, 0, 2], 4000));
    let mut failed = directory.open(UpstreamId(0), peer, second(0));
    failed.dial_failed(second(1), DialFailure::Refused);
    failed.observed(second(0), Observation::TurnedOpaque(OpaqueReason::Tls));
    drop(failed);
    open.push(busy_connection(&directory, [10, 0, 0, 3], "one too many"));
    open.push(directory.open(UpstreamId(0), peer, second(2)));
    (directory, open)
}

/// An exposition in which everything there is a family for has happened.
fn used_exposition(directory: &Arc<Directory>, detail: MetricsDetail) -> Exposition {
    let tally = IncidentTally::default();
    let crash = incident(
        Cause::ServerCrash,
        Severity::Critical,
        &[("10.0.0.1", "orders")],
    );
    tally.opened(&crash);
    tally.closed(&Incident {
        closed_at: Some(second(40)),
        ..crash.clone()
    });
    let inferring = Inferring {
        incidents: vec![Arc::new(crash)],
        picture: Arc::new(picture()),
    };
    exposition_with(directory, used_health(), detail, tally, inferring)
}

/// A sample's labels but `le`, and its value.
type Sample = (BTreeMap<String, String>, f64);

/// Families of a text: their type and samples by family name.
fn parse(text: &str) -> BTreeMap<String, (String, Vec<Sample>)> {
    let mut families: BTreeMap<String, (String, Vec<Sample>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series
            .strip_suffix('}')
            .map_or((series, ""), |series| series.split_once('{').unwrap());
        let mut label_map = BTreeMap::new();
        let mut rest = labels;
        while let Some((label, after)) = rest.split_once("=\"") {
            let end = after
                .char_indices()
                .scan(false, |is_escaped, (at, c)| {
                    let is_end = c == '"' && !*is_escaped;
                    *is_escaped = c == '\\' && !*is_escaped;
                    Some((at, is_end))
                })
                .find_map(|(at, is_end)| is_end.then_some(at))
                .unwrap();
            if label != "le" {
                label_map.insert(label.to_owned(), after[..end].to_owned());
            }
            rest = after[end + 1..].trim_start_matches(',');
        }
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|stem| {
                families
                    .get(*stem)
                    .is_some_and(|(kind, _)| kind == "histogram")
            })
            .unwrap_or(name);
        let (_, samples) = families.get_mut(family).unwrap_or_else(|| panic!("{line}"));
        samples.push((label_map, value.parse().unwrap()));
    }
    families
}

#[test]
fn exposition_and_catalogue_say_the_same() {
    let (directory, _open) = used_directory();
    let exposition = used_exposition(&directory, MetricsDetail::Standard);
    let text = exposition.render(second(3));
    keep_for_promtool(&text, "used.txt");
    let families = parse(&text);
    for (name, (kind, samples)) in &families {
        let family = CATALOGUE
            .iter()
            .find(|family| family.name == name)
            .unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        assert_eq!(kind, family.kind.label(), "{name}");
        let expected: BTreeSet<&str> = family.labels.iter().copied().collect();
        for (labels, _) in samples {
            let found: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
            assert_eq!(found, expected, "{name}");
        }
        assert!(text.contains(&format!("# HELP {name} {}", family.help)));
    }
    for family in CATALOGUE {
        assert!(
            families.contains_key(family.name),
            "{} is never shown",
            family.name
        );
    }
}

/// Writes an exposition into the directory `EXPOSITION_TO`, when it is set, for `promtool check metrics`.
fn keep_for_promtool(text: &str, name: &str) {
    if let Some(directory) = std::env::var_os("EXPOSITION_TO") {
        std::fs::write(std::path::Path::new(&directory).join(name), text).unwrap();
    }
}

#[test]
fn hostile_names_keep_the_exposition_well_formed_and_small() {
    let directory = directory(50);
    let hostile = [
        "\"} 1\npoolscope_up{x=\"",
        "\\\\\"",
        "\u{202e}\u{0}\u{1b}[31m",
        "# HELP nothing",
        "{}=,",
    ];
    let mut open = Vec::new();
    for (number, name) in (0..6000).zip(hostile.iter().cycle()) {
        let app = format!("{number}{name}{}", "x".repeat(number % 5000));
        open.push(busy_connection(&directory, [10, 0, 0, 1], &app));
    }
    let exposition = exposition(&directory, Health::new(), MetricsDetail::Standard);
    let text = exposition.render(second(3));
    keep_for_promtool(&text, "hostile.txt");
    let families = parse(&text);
    assert_eq!(families["poolscope_client_info"].1.len(), 51);
    assert!(!families.contains_key("poolscope_up"));
    for name in families.keys() {
        assert!(CATALOGUE.iter().any(|family| family.name == name), "{name}");
    }
}

#[test]
fn every_client_is_whole_from_first_sight() {
    let (directory, _open) = used_directory();
    let exposition = exposition(&directory, Health::new(), MetricsDetail::Standard);
    let families = parse(&exposition.render(second(3)));
    let of_orders = |name: &str| {
        let (_, samples) = &families[name];
        let of_app = samples
            .iter()
            .filter(|(labels, _)| labels.get("app").is_some_and(|app| app == "orders"));
        of_app.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_orders("poolscope_connections").len(), State::ALL.len());
    let closed = of_orders("poolscope_connections_closed_total");
    let initiators: Vec<_> = closed
        .iter()
        .map(|(labels, value)| (labels["initiator"].as_str(), *value))
        .collect();
    assert_eq!(
        initiators,
        [("client", 1.0), ("server", 0.0), ("proxy", 0.0)]
    );
    assert_eq!(of_orders("poolscope_bytes_total").len(), 2);
    let info = of_orders("poolscope_client_info");
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].0["driver"], "PyMongo|c");
    assert_eq!(info[0].0["platform"], "CPython '3.11'_Final");
    let errors = of_orders("poolscope_command_errors_total");
    assert_eq!(errors[0].0["code_name"], "DuplicateKey");
    assert_eq!(errors[0].1.to_bits(), 9.0_f64.to_bits());
}

#[test]
fn what_is_inferred_shows_with_the_client_it_is_about() {
    let (directory, _open) = used_directory();
    let exposition = used_exposition(&directory, MetricsDetail::Standard);
    let text = exposition.render(second(3));
    let own = "upstream=\"db\",client=\"10.0.0.1\",app=\"orders\"";
    for expected in [
        format!("poolscope_mongo_clients_estimated{{{own}}} 2"),
        format!("poolscope_max_pool_size_inferred{{{own}}} 20"),
        format!("poolscope_min_pool_size_inferred{{{own}}} 2"),
        format!("poolscope_pool_saturation_ratio{{{own}}} 0.5"),
        format!("poolscope_connection_bursts_total{{{own}}} 2"),
        format!("poolscope_pool_clears_total{{{own},trigger=\"network\"}} 3"),
        format!("poolscope_pool_clears_total{{{own},trigger=\"not_primary\"}} 0"),
        format!("poolscope_pool_clears_total{{{own},trigger=\"unknown\"}} 1"),
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}");
    }
}

#[test]
fn what_is_inferred_stays_as_long_as_the_client() {
    let (directory, _open) = used_directory();
    let mut picture = picture();
    for row in &mut picture.mongo_clients {
        row.closed_at = Some(second(2));
    }
    let exposition = exposition_with(
        &directory,
        used_health(),
        MetricsDetail::Standard,
        IncidentTally::default(),
        Inferring {
            incidents: Vec::new(),
            picture: Arc::new(picture),
        },
    );
    let text = exposition.render(second(3));
    let own = "upstream=\"db\",client=\"10.0.0.1\",app=\"orders\"";
    for expected in [
        format!("poolscope_mongo_clients_estimated{{{own}}} 1"),
        format!("poolscope_max_pool_size_inferred{{{own}}} 20"),
        format!("poolscope_min_pool_size_inferred{{{own}}} 2"),
        format!("poolscope_pool_saturation_ratio{{{own}}} 0"),
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}");
    }
}

#[test]
fn incidents_are_counted_and_the_open_ones_shown() {
    let directory = directory(10);
    let tally = IncidentTally::default();
    let crash = [("10.0.0.1", "orders"), ("10.0.0.2", "billing")];
    let crash = incident(Cause::ServerCrash, Severity::Critical, &crash);
    let worse = incident(Cause::AuthFailures, Severity::Critical, &[]);
    let over = Incident {
        closed_at: Some(second(31)),
        ..incident(Cause::Deploy, Severity::Info, &[("10.0.0.3", "web")])
    };
    for incident in [&crash, &worse, &over] {
        tally.opened(incident);
    }
    tally.closed(&over);
    let inferring = Inferring {
        incidents: [&crash, &crash, &worse, &over]
            .map(|one| Arc::new(one.clone()))
            .to_vec(),
        ..Inferring::default()
    };
    let exposition = exposition_with(
        &directory,
        Health::new(),
        MetricsDetail::Standard,
        tally,
        inferring,
    );
    let text = exposition.render(second(3));
    let has = |line: &str| text.lines().any(|found| found == line);
    for (cause, severity, count) in [
        ("server_crash", "critical", 1),
        ("auth_failures", "critical", 1),
        ("auth_failures", "warning", 0),
        ("deploy", "info", 1),
        ("unknown", "warning", 0),
    ] {
        let line = format!(
            "poolscope_incidents_total{{cause=\"{cause}\",severity=\"{severity}\"}} {count}"
        );
        assert!(has(&line), "{line}");
    }
    let families = parse(&text);
    let (_, active) = &families["poolscope_incident_active"];
    let shown: Vec<_> = active
        .iter()
        .map(|(labels, _)| (&*labels["cause"], &*labels["client"], &*labels["app"]))
        .collect();
    assert_eq!(
        shown,
        [
            ("auth_failures", "", ""),
            ("server_crash", "10.0.0.1", "orders"),
            ("server_crash", "10.0.0.2", "billing"),
        ]
    );
    assert!(has(
        "poolscope_incident_duration_seconds_sum{cause=\"deploy\"} 30"
    ));
    let delay = "poolscope_incident_detection_delay_seconds";
    assert!(has(&format!(
        "{delay}_bucket{{cause=\"server_crash\",le=\"0.5\"}} 0"
    )));
    assert!(has(&format!(
        "{delay}_bucket{{cause=\"server_crash\",le=\"1\"}} 1"
    )));
}

/// The series of these open incidents.
fn active_series(incidents: &[Arc<Incident>]) -> Vec<Sample> {
    let inferring = Inferring {
        incidents: incidents.to_vec(),
        ..Inferring::default()
    };
    let tally = IncidentTally::default();
    let exposition = exposition_with(
        &directory(10),
        Health::new(),
        MetricsDetail::Standard,
        tally,
        inferring,
    );
    let mut families = parse(&exposition.render(second(3)));
    let (_, active) = families.remove("poolscope_incident_active").unwrap();
    active
}

#[test]
fn an_incident_of_many_clients_stays_small() {
    let names: Vec<String> = (0..10_000)
        .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
        .collect();
    let clients: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "shop")).collect();
    let incidents = [Cause::ServerCrash, Cause::Failover]
        .map(|cause| Arc::new(incident(cause, cause.severity(), &clients)));
    let active = active_series(&incidents);
    assert_eq!(active.len(), 2 * 251);
    let others = active
        .iter()
        .filter(|(labels, _)| labels["client"] == "other");
    assert_eq!(others.count(), 2);
}

#[test]
fn incidents_of_different_clients_share_their_places() {
    let names: Vec<String> = (0..400).map(|n| format!("10.0.1.{n}")).collect();
    let clients: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "shop")).collect();
    let (some, others) = clients.split_at(200);
    let incidents = [(Cause::ServerCrash, some), (Cause::Failover, others)]
        .map(|(cause, clients)| Arc::new(incident(cause, cause.severity(), clients)));
    let active = active_series(&incidents);
    let of = |cause: &str| {
        let own = active.iter().filter(|(labels, _)| labels["cause"] == cause);
        let of_others = own
            .clone()
            .filter(|(labels, _)| labels["client"] == "other");
        (own.count(), of_others.count())
    };
    assert_eq!(of("server_crash"), (200, 0));
    assert_eq!(of("failover"), (51, 1));
}

#[test]
fn a_shelter_shows_its_connections_and_nothing_else() {
    let directory = directory(10);
    let peer = SocketAddr::from(([10, 0, 0, 1], 4000));
    let _waiting = directory.open(UpstreamId(0), peer, second(0));
    let exposition = exposition(&directory, Health::new(), MetricsDetail::Standard);
    let families = parse(&exposition.render(second(1)));
    let with_client: Vec<_> = families
        .iter()
        .filter(|(_, (_, samples))| {
            samples
                .iter()
                .any(|(labels, _)| labels.contains_key("client"))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(with_client, ["poolscope_connections"]);
}

#[test]
fn minimal_detail_leaves_out_the_histograms_of_clients() {
    let (directory, _open) = used_directory();
    let exposition = used_exposition(&directory, MetricsDetail::Minimal);
    let families = parse(&exposition.render(second(3)));
    for family in CATALOGUE {
        let is_left_out = family.kind == Kind::Histogram && family.labels.contains(&"client");
        assert_eq!(
            families.contains_key(family.name),
            !is_left_out,
            "{}",
            family.name
        );
    }
}

#[test]
fn the_number_of_series_shows_in_the_next_exposition() {
    let (directory, _open) = used_directory();
    let exposition = exposition(&directory, Health::new(), MetricsDetail::Standard);
    let first = exposition.render(second(3));
    let series = first.lines().filter(|line| !line.starts_with('#')).count();
    let second_text = exposition.render(second(4));
    assert!(second_text.contains(&format!("\npoolscope_exposed_series {series}\n")));
    assert!(second_text.contains("\npoolscope_scrape_duration_seconds_count 1\n"));
    assert!(second_text.contains("\npoolscope_observer_lag_seconds 0.07\n"));
}

/// `config check` promises these numbers before there is anything to count.
#[test]
fn a_busy_client_has_about_as_many_series_as_promised() {
    let directory = directory(1);
    let mut recorder = busy_connection(&directory, [10, 0, 0, 1], "orders");
    let commands: Vec<Command> = Command::ALL.iter().copied().take(20).collect();
    for command in &commands {
        recorder.request_seen(second(1), *command, 1);
        recorder.exchange_ended(&Exchange {
            command: *command,
            started_at: second(1),
            ended_at: second(2),
            is_ok: true,
            is_timed: true,
            cursor: CursorEffect::None,
        });
    }
    for ending in [
        clean(),
        Ending {
            manner: Manner::Reset,
            ..clean()
        },
        Ending {
            phase: Phase::InExchange,
            ..clean()
        },
    ] {
        busy_connection(&directory, [10, 0, 0, 1], "orders").ended(ending, second(5));
    }
    let count = |detail, has: &str, lacks: &str| {
        let text = exposition(&directory, used_health(), detail).render(second(6));
        let is_meant =
            |line: &&str| !line.starts_with('#') && line.contains(has) && !line.contains(lacks);
        text.lines().filter(is_meant).count()
    };
    let check = |counted: usize, promised: usize| {
        assert!(
            counted <= promised && counted * 10 >= promised * 8,
            "{counted} series, {promised} promised"
        );
    };
    check(
        count(MetricsDetail::Standard, "client=\"", "nothing"),
        SERIES_PER_CLIENT,
    );
    check(
        count(MetricsDetail::Minimal, "client=\"", "nothing"),
        SERIES_PER_CLIENT_MINIMAL,
    );
    check(
        count(MetricsDetail::Standard, "upstream=\"", "client=\""),
        SERIES_PER_UPSTREAM,
    );
    check(
        count(MetricsDetail::Standard, "", "upstream=\""),
        SERIES_OF_ITSELF,
    );
}

/// The kernel's clock of a thread's CPU time is coarse: several rounds are measured together.
const ROUNDS: u32 = 10;

/// The bound is generous because tests are not optimised and share their machine; the time is printed.
#[test]
fn two_hundred_and_fifty_clients_are_scraped_quickly() {
    let directory = directory(250);
    let mut open = Vec::new();
    for client in 0..250_u8 {
        for _ in 0..8 {
            let app = format!("service-{client}");
            open.push(busy_connection(&directory, [10, 0, 1, client], &app));
        }
        let ended = busy_connection(&directory, [10, 0, 1, client], &format!("service-{client}"));
        ended.ended(clean(), second(5));
    }
    assert_eq!(directory.connection_count(), 2000);
    let exposition = exposition(&directory, Health::new(), MetricsDetail::Standard);
    let mut series = 0;
    let measured = |work: &mut dyn FnMut()| {
        let started_at = cpu_time();
        (0..ROUNDS).for_each(|_| work());
        cpu_time().saturating_sub(started_at) / ROUNDS
    };
    let snapshot = measured(&mut || {
        assert_eq!(directory.snapshot(second(6), true).connections.len(), 2000);
    });
    let scrape = measured(&mut || {
        let text = exposition.render(second(6));
        series = text.lines().filter(|line| !line.starts_with('#')).count();
    });
    println!("{series} series: {scrape:?} a scrape; {snapshot:?} a snapshot");
    assert!(series > 20_000, "{series}");
    assert!(scrape < Duration::from_millis(500), "{scrape:?}");
}

/// CPU time of this thread (other tests run beside it), from its scheduler statistics.
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = statistics.split(' ').next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}
