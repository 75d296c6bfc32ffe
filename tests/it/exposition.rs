//! The exposition of the real binary after real traffic: as the catalogue says, cheap, and without leftovers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::raw::{Answering, hello, op_msg, stated_len};
use crate::support::{
    Agent, Driver, Family, Mongod, Poolscope, Prometheus, Sample, eventually, parse_exposition,
    promtool, root,
};

const LIMIT: Duration = Duration::from_secs(20);

/// What the catalogue says of a family.
#[derive(Clone, Debug)]
struct Entry {
    kind: String,
    labels: BTreeSet<String>,
    /// It belongs to clients, one or more series each.
    is_of_client: bool,
}

/// The catalogue as people read it.
fn catalogue() -> BTreeMap<String, Entry> {
    let path = root().join("src/metrics/CATALOGUE.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let entries: BTreeMap<_, _> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap().trim_end_matches('`').to_owned();
            let kind = cells.next().unwrap().to_owned();
            let labels = cells
                .next()
                .unwrap()
                .split(", ")
                .map(|label| label.trim().trim_matches('`'));
            let labels: BTreeSet<_> = labels
                .filter(|label| !label.is_empty())
                .map(str::to_owned)
                .collect();
            let is_of_client = labels.contains("client");
            (
                name,
                Entry {
                    kind,
                    labels,
                    is_of_client,
                },
            )
        })
        .collect();
    assert!(
        entries.len() >= 50,
        "{} families in the catalogue",
        entries.len()
    );
    entries
}

fn labels_of(sample: &Sample) -> BTreeSet<String> {
    let labels = sample.labels.keys().filter(|label| *label != "le");
    labels.cloned().collect()
}

#[track_caller]
fn check_against_catalogue(families: &BTreeMap<String, Family>) {
    let catalogue = catalogue();
    for (name, family) in families {
        let entry = catalogue
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        assert_eq!(family.kind, entry.kind, "{name}");
        assert!(!family.samples.is_empty(), "{name}");
        for sample in &family.samples {
            assert_eq!(labels_of(sample), entry.labels, "{name}");
        }
    }
}

/// Change this list only with a line in the changelog: dashboards and alerts of others hang on it.
#[test]
fn names_types_and_labels_are_pinned() {
    let mut list = String::new();
    for (name, entry) in catalogue() {
        let labels: Vec<_> = entry.labels.into_iter().collect();
        writeln!(list, "{name} {} {{{}}}", entry.kind, labels.join(",")).unwrap();
    }
    insta::assert_snapshot!(list);
}

/// Two drivers at work, with errors, cursors and compression, one of them still connected afterwards.
fn work(proxy: &Poolscope) -> [Agent; 2] {
    let mut agents = [Agent::spawn(Driver::PyMongo4), Agent::spawn(Driver::Node6)];
    for (agent, app) in agents.iter_mut().zip(["orders", "billing"]) {
        agent.open("app", &format!("{}&compressors=zlib", proxy.uri(app)));
        agent.run(
            "app",
            "insert_many",
            1,
            &json!({ "documents": 30, "bytes": 100 }),
        );
        agent.run("app", "find", 5, &json!({ "batch": 7 }));
        agent.run("app", "ping", 10, &json!({}));
        let id = agent.submit(json!({
            "do": "run", "name": "app", "operation": "command", "count": 1,
            "args": { "command": { "noSuchCommand": 1 }, "on": "admin" },
        }));
        assert_eq!(agent.answer(id)["failed"], 1);
    }
    agents
}

#[test]
fn the_exposition_is_what_the_catalogue_says() {
    let mongod = Mongod::standalone();
    let proxy = Poolscope::start(&[mongod.addr()]);
    let bare = proxy.metrics();
    promtool(&["check", "metrics"], &bare).unwrap();
    check_against_catalogue(&parse_exposition(&bare));

    let mut agents = work(&proxy);
    agents[1].close("app");
    // The closed connections are on the books when the proxy has seen their ends.
    eventually(LIMIT, || {
        let closed = proxy.sum("poolscope_connections_closed_total", &[("app", "billing")]);
        if closed > 0.0 {
            Ok(())
        } else {
            Err("nothing closed")
        }
    });
    // The kernel is asked about sockets once a second.
    eventually(LIMIT, || {
        let known = proxy.sum("poolscope_tcp_rtt_seconds", &[("app", "orders")]) > 0.0;
        known.then_some(()).ok_or("no round-trip time")
    });
    let text = proxy.metrics();
    promtool(&["check", "metrics"], &text).unwrap();
    let families = parse_exposition(&text);
    check_against_catalogue(&families);

    // Only what did not happen may be missing.
    let missing: Vec<String> = catalogue()
        .into_keys()
        .filter(|name| !families.contains_key(name))
        .collect();
    let excused = [
        "poolscope_authentications_total",
        "poolscope_incident_active",
        "poolscope_incident_detection_delay_seconds",
        "poolscope_incident_duration_seconds",
        "poolscope_max_pool_size_inferred",
        "poolscope_min_pool_size_inferred",
        "poolscope_pool_saturation_ratio",
    ];
    assert!(
        missing.iter().all(|name| excused.contains(&name.as_str())),
        "{missing:?}"
    );
    let apps = |family: &str| -> BTreeSet<&str> {
        families[family]
            .samples
            .iter()
            .filter_map(|sample| Some(sample.labels.get("app")?.as_str()))
            .collect()
    };
    for family in [
        "poolscope_connections",
        "poolscope_command_duration_seconds",
        "poolscope_client_info",
        "poolscope_command_errors_total",
    ] {
        assert_eq!(
            apps(family),
            BTreeSet::from(["billing", "orders"]),
            "{family}"
        );
    }
    check_histograms(&families);
}

/// Buckets rise, the last one is all, and count and sum are there.
#[track_caller]
fn check_histograms(families: &BTreeMap<String, Family>) {
    let histograms = families
        .iter()
        .filter(|(_, family)| family.kind == "histogram");
    let mut seen = 0;
    for (name, family) in histograms {
        let mut series = BTreeMap::<_, Vec<&Sample>>::new();
        for sample in &family.samples {
            let mut labels = sample.labels.clone();
            labels.remove("le");
            series.entry(labels).or_default().push(sample);
        }
        for (labels, samples) in series {
            let buckets: Vec<f64> = samples
                .iter()
                .filter(|sample| sample.labels.contains_key("le"))
                .map(|sample| sample.value)
                .collect();
            let count = samples
                .iter()
                .find(|sample| sample.name.ends_with("_count"))
                .unwrap();
            assert!(samples.iter().any(|sample| sample.name.ends_with("_sum")));
            assert!(buckets.is_sorted(), "{name} {labels:?}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&count.value), "{name} {labels:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} histograms");
}

#[test]
fn a_real_prometheus_scrapes_what_is_exposed() {
    let mongod = Mongod::standalone();
    let proxy = Poolscope::start(&[mongod.addr()]);
    let _agents = work(&proxy);
    let prometheus = Prometheus::start(&[proxy.web_addr()]);
    let value = |expression: &str| {
        prometheus
            .query(expression)
            .first()
            .map(|(_, value)| *value)
    };

    // Counters that rest now, so that any scrape sees the same.
    for (family, app) in [
        ("poolscope_requests_total", "orders"),
        ("poolscope_command_errors_total", "orders"),
        ("poolscope_pooled_connections_opened_total", "billing"),
    ] {
        let series = match family {
            "poolscope_requests_total" => format!("{family}{{app=\"{app}\",command=\"find\"}}"),
            _ => format!("sum({family}{{app=\"{app}\"}})"),
        };
        let labels: &[(&str, &str)] = match family {
            "poolscope_requests_total" => &[("app", app), ("command", "find")],
            _ => &[("app", app)],
        };
        let exposed = proxy.sum(family, labels);
        assert!(exposed > 0.0, "{family}");
        eventually(LIMIT, || match value(&series) {
            Some(scraped) if (scraped - exposed).abs() < f64::EPSILON => Ok(()),
            other => Err(format!(
                "{series} is {other:?}, exposed {exposed}; {:#?}",
                prometheus.log()
            )),
        });
    }
    eventually(LIMIT, || match value("up{job=\"poolscope\"}") {
        Some(1.0) => Ok(()),
        other => Err(format!("up is {other:?}")),
    });
    let scraped = value("scrape_samples_scraped{job=\"poolscope\"}").unwrap();
    let families = parse_exposition(&proxy.metrics());
    // The table of clients is the only part that grows: some 110 samples each.
    println!("{scraped} samples of {} families", families.len());
    assert!(scraped > 300.0 && scraped < 1500.0, "{scraped} samples");
    let told = prometheus.query("poolscope_client_info{app=\"orders\"}");
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0["driver"].as_str().unwrap().starts_with("PyMongo"),
        "{told:?}"
    );
}

/// This process holds both ends of two thousand connections.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
}

fn introduce(addr: SocketAddr, app: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    for (id, document) in [
        (1, hello("hello", app.as_bytes(), b"raw")),
        (2, crate::support::raw::Document::default().int("find", 1)),
    ] {
        stream
            .write_all(&op_msg(id, 0, &document.text("$db", b"shop").bytes()))
            .unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        stream
            .read_exact(&mut vec![0; stated_len(&head) - 16])
            .unwrap();
    }
    stream
}

#[test]
fn two_hundred_and_fifty_clients_are_scraped_in_no_time() {
    raise_descriptor_limit();
    let server = Answering::start();
    let mut proxy = Poolscope::start(&[server.addr()]);
    let addr = proxy.addr();
    let _streams: Vec<TcpStream> = thread::scope(|scope| {
        let parts: Vec<_> = (0..4)
            .map(|part| {
                scope.spawn(move || -> Vec<_> {
                    let numbers = (part..2000).step_by(4);
                    numbers
                        .map(|number| introduce(addr, &format!("service-{}", number % 250)))
                        .collect()
                })
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap())
            .collect()
    });
    assert!((proxy.sum("poolscope_connections", &[]) - 2000.0).abs() < f64::EPSILON);
    assert_eq!(proxy.metric("poolscope_clients_tracked"), Some(250.0));

    let scrapes = 20;
    let before = proxy.process().cpu_time();
    let mut samples = 0;
    for _ in 0..scrapes {
        samples = proxy
            .metrics()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count();
    }
    let each = proxy.process().cpu_time().saturating_sub(before) / scrapes;
    println!("{samples} samples of 250 clients with 2000 connections: {each:?} of CPU a scrape");
    // The claim is about the program as it is shipped; without optimisation it takes several times as long.
    let limit = if cfg!(debug_assertions) { 250 } else { 50 };
    assert!(each < Duration::from_millis(limit), "{each:?} a scrape");
    // What the scrape configuration and the example configuration say.
    assert!(samples < 30_000, "{samples} samples");
    promtool(&["check", "metrics"], &proxy.metrics()).unwrap();
}

/// The families that show `app`.
fn families_of(text: &str, app: &str) -> BTreeSet<String> {
    parse_exposition(text)
        .into_iter()
        .filter(|(_, family)| {
            family
                .samples
                .iter()
                .any(|sample| sample.labels.get("app").is_some_and(|value| value == app))
        })
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn the_series_of_a_gone_client_go_away_together() {
    let server = Answering::start();
    let proxy = Poolscope::start_with(&[server.addr()], &["--client-ttl", "2s"]);
    let stays = introduce(proxy.addr(), "stays");
    let leaves = introduce(proxy.addr(), "leaves");
    drop(leaves);
    eventually(LIMIT, || {
        match proxy.sum("poolscope_connections", &[("app", "leaves")]) {
            0.0 => Ok(()),
            open => Err(format!("{open} open")),
        }
    });
    let complete = families_of(&proxy.metrics(), "leaves");
    let of_client = catalogue()
        .into_values()
        .filter(|entry| entry.is_of_client)
        .count();
    assert!(complete.len() > of_client / 2, "{complete:?}");
    // Every scrape shows all of it or none.
    eventually(LIMIT, || {
        let shown = families_of(&proxy.metrics(), "leaves");
        if shown.is_empty() {
            return Ok(());
        }
        assert_eq!(shown, complete);
        Err("still shown")
    });
    assert_eq!(proxy.metric("poolscope_clients_expired_total"), Some(1.0));
    assert_eq!(proxy.metric("poolscope_clients_tracked"), Some(1.0));
    assert!(!families_of(&proxy.metrics(), "stays").is_empty());
    // What the client did stays in the sums over all clients.
    assert_eq!(
        proxy
            .sum("poolscope_upstream_connections_opened_total", &[])
            .to_bits(),
        2.0_f64.to_bits()
    );
    assert!(proxy.api("clients")["clients"].as_array().unwrap().len() == 1);
    drop(stays);
}
