//! The HTTP side over real loopback sockets, shown a picture made by hand.

mod events;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::sample::{Fixed, fixed};
use super::server::{Bounds, serve_within};
use super::*;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(source: Fixed, bounds: Bounds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_within(
            bounds,
            listener,
            Arc::new(source),
            shutdown.clone(),
        ));
        Self {
            address,
            shutdown,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request on a connection of its own; the status and the whole answer.
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, answer) = self.ask("GET", path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/json"), "{head}");
        (status, serde_json::from_str(body).unwrap())
    }
}

async fn server() -> Server {
    Server::start(fixed(), Bounds::default()).await
}

#[tokio::test]
async fn plain_paths_answer_as_scrapers_and_orchestrators_expect() {
    let server = server().await;
    let (status, answer) = server.ask("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(answer.ends_with("# HELP poolscope_build_info Constant 1.\n"));
    for (path, body) in [("/-/healthy", "healthy\n"), ("/-/ready", "ready\n")] {
        let (status, answer) = server.ask("GET", path).await;
        assert_eq!(status, 200);
        assert!(answer.ends_with(body));
    }
    let (status, answer) = server.ask("GET", "/").await;
    assert_eq!(status, 200);
    for path in ["/metrics", "/api/v1/clients", "/api/v1/status"] {
        assert!(answer.contains(path), "{path}");
    }
    let (status, answer) = server.ask("HEAD", "/metrics").await;
    assert_eq!(status, 200);
    assert!(answer.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_draining_proxy_is_healthy_but_not_ready() {
    let mut source = fixed();
    source.facts.is_draining = true;
    let server = Server::start(source, Bounds::default()).await;
    let (status, answer) = server.ask("GET", "/-/ready").await;
    assert_eq!(status, 503);
    assert!(answer.ends_with("draining\n"));
    assert_eq!(server.ask("GET", "/-/healthy").await.0, 200);
    let (_, status) = server.json("/api/v1/status").await;
    assert_eq!(status["is_draining"], true);
    assert_eq!(status["is_ready"], false);
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_a_reason() {
    let server = server().await;
    let (status, refusal) = server.json("/api/v2/clients").await;
    assert_eq!(
        (status, &refusal["error"]),
        (404, &"there is nothing here; see /".into())
    );
    assert_eq!(server.ask("POST", "/metrics").await.0, 405);
    for (path, allowed) in [
        ("/api/v1/connections?state=busy", "active"),
        ("/api/v1/connections?role=app", "application"),
        ("/api/v1/connections?upstream=x", "mongo-1"),
        ("/api/v1/connections?limit=0", "1 to 100000"),
        ("/api/v1/connections?limit=many", "1 to 100000"),
        ("/api/v1/connections?status=idle", "state"),
        ("/api/v1/clients?state=idle", "client"),
        ("/api/v1/incidents?severity=fatal", "critical"),
        ("/api/v1/incidents?cause=gremlins", "server_crash"),
        ("/api/v1/incidents?open=yes", "true"),
        ("/api/v1/incidents?upstream=x", "mongo-1"),
        ("/api/v1/incidents?limit=0", "1 to 10000"),
        ("/api/v1/incidents?state=open", "open"),
    ] {
        let (status, refusal) = server.json(path).await;
        assert_eq!(status, 400, "{path}");
        let list = refusal["allowed"].as_array().unwrap();
        assert!(list.contains(&allowed.into()), "{path}: {refusal}");
    }
    let long = format!("/api/v1/clients?client={}", "x".repeat(3000));
    assert_eq!(server.ask("GET", &long).await.0, 414);
    let huge = format!("/{}", "x".repeat(40_000));
    assert!([414, 431].contains(&server.ask("GET", &huge).await.0));
}

#[tokio::test]
async fn the_page_of_paths_names_every_filter() {
    let server = server().await;
    let (_, page) = server.ask("GET", "/").await;
    for path in [
        "/api/v1/clients",
        "/api/v1/connections",
        "/api/v1/incidents",
    ] {
        let line = page.lines().find(|line| line.starts_with(path)).unwrap();
        let named: Vec<&str> = line
            .split(' ')
            .filter(|word| word.starts_with('?'))
            .collect();
        let (_, refusal) = server.json(&format!("{path}?nonsense=1")).await;
        let allowed = refusal["allowed"].as_array().unwrap().iter();
        let allowed: Vec<String> = allowed
            .map(|filter| format!("?{}=", filter.as_str().unwrap()))
            .collect();
        assert_eq!(named, allowed, "{path}");
    }
}

#[tokio::test]
async fn filters_select_rows() {
    let server = server().await;
    for (query, expected) in [
        ("", vec![1, 7, 8, 9]),
        ("?client=orders", vec![1, 7]),
        ("?client=10.0.0.11", vec![1, 7]),
        ("?client=orders@10.0.0.11", vec![1, 7]),
        ("?client=10.0.0.77", vec![9]),
        ("?client=order", vec![]),
        ("?client=orders&state=active", vec![7]),
        ("?role=application", vec![7, 8]),
        ("?upstream=mongo-1", vec![]),
        ("?upstream=mongo-0&limit=2", vec![1, 7]),
    ] {
        let (status, answer) = server.json(&format!("/api/v1/connections{query}")).await;
        assert_eq!(status, 200, "{query}");
        let rows = answer["connections"].as_array().unwrap();
        let ids: Vec<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, expected, "{query}");
    }
    let (_, answer) = server.json("/api/v1/connections?limit=2").await;
    assert_eq!(answer["matched"], 4);
    let (_, answer) = server.json("/api/v1/clients?upstream=mongo-1").await;
    assert_eq!(answer["clients"].as_array().unwrap().len(), 1);
    let (_, answer) = server.json("/api/v1/clients?client=billing").await;
    assert_eq!(answer["clients"][0]["address"], "10.0.0.12");
}

#[tokio::test]
async fn a_row_says_what_the_picture_said() {
    let server = server().await;
    let (_, answer) = server.json("/api/v1/clients").await;
    assert_eq!(answer["api_version"], "v1");
    assert_eq!(answer["at"], "2026-11-23T21:26:28.000Z");
    let row: api::Client = serde_json::from_value(answer["clients"][0].clone()).unwrap();
    assert_eq!(row.client, "orders@10.0.0.11");
    assert_eq!((row.connections.open, row.connections.idle), (103, 90));
    assert_eq!((row.pooled.idle, row.undecided), (88, 2));
    assert_eq!((row.opened, row.closed, row.monitors), (5125, 5022, 1));
    let codes = row.errors_by_code.iter();
    let codes: Vec<_> = codes.map(|row| (row.code, &*row.code_name)).collect();
    assert_eq!(
        codes,
        [(10_107, "NotWritablePrimary"), (11_000, "DuplicateKey")]
    );
    assert_eq!(row.closed_by.len(), 2, "zero counts are left out");
    assert_eq!(row.operations, 1_020_000);
    assert_eq!(row.operations_per_connection, Some(200.0));
    assert_eq!(row.p95_seconds, Some(0.001_234));
    assert_eq!(row.mean_lifetime_seconds, Some(10.0));
    assert_eq!(row.errors, 43);
    let silent: api::Client = serde_json::from_value(answer["clients"][3].clone()).unwrap();
    assert_eq!(silent.client, "10.0.0.99");
    assert_eq!(
        (silent.operations_per_connection, silent.driver),
        (None, None)
    );
    let warnings = answer["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[tokio::test]
async fn incidents_are_found_by_what_is_asked_for() {
    let server = server().await;
    for (query, expected) in [
        ("", vec![3, 2, 1]),
        ("?open=true", vec![3]),
        ("?open=false", vec![2, 1]),
        ("?severity=info", vec![1]),
        ("?cause=auth_failures", vec![2]),
        ("?cause=unknown", vec![]),
        ("?client=orders", vec![3]),
        ("?client=web@10.0.0.22", vec![1]),
        ("?client=10.0.0.12&severity=critical", vec![3]),
        ("?upstream=mongo-0", vec![3, 1]),
        ("?since=2026-11-23T21:20:00Z", vec![3, 2]),
        ("?since=2026-11-23T21:25:00Z", vec![3]),
        ("?id=2", vec![2]),
        ("?limit=1", vec![3]),
    ] {
        let (status, answer) = server.json(&format!("/api/v1/incidents{query}")).await;
        assert_eq!(status, 200, "{query}");
        let rows = answer["incidents"].as_array().unwrap();
        let ids: Vec<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, expected, "{query}");
    }
    let (_, answer) = server.json("/api/v1/incidents?limit=1").await;
    assert_eq!(answer["matched"], 3);
    for since in ["yesterday", "2026-11-23T21:20:00", "2026-02-30T00:00:00Z"] {
        let (status, refusal) = server
            .json(&format!("/api/v1/incidents?since={since}"))
            .await;
        assert_eq!(status, 400, "{refusal}");
    }
}

#[tokio::test]
async fn an_incident_is_answered_by_its_number() {
    let server = server().await;
    let (status, one) = server.json("/api/v1/incidents/3").await;
    assert_eq!(status, 200);
    assert_eq!((&one["api_version"], &one["id"]), (&"v1".into(), &3.into()));
    let (_, all) = server.json("/api/v1/incidents?id=3").await;
    let one: api::OneIncident = serde_json::from_value(one).unwrap();
    let row: api::Incident = serde_json::from_value(all["incidents"][0].clone()).unwrap();
    assert_eq!(one.incident, row);
    assert_eq!((row.cause.as_str(), row.confidence), ("server_crash", 0.94));
    assert_eq!(row.upstream, "mongo-0");

    let (status, refusal) = server.json("/api/v1/incidents/4").await;
    assert_eq!(status, 404);
    assert_eq!(refusal["error"], "no incident 4 is remembered");
    assert_eq!(refusal["allowed"], serde_json::json!(["3", "2", "1"]));
    for path in ["x", "-1", "3x", "99999999999999999999999"] {
        let (status, refusal) = server.json(&format!("/api/v1/incidents/{path}")).await;
        assert_eq!(status, 400, "{path}: {refusal}");
    }
    assert_eq!(server.ask("GET", "/api/v1/incidents/3?x=1").await.0, 400);
}

#[tokio::test]
async fn without_incidents_the_list_is_empty() {
    let mut source = fixed();
    source.incidents.clear();
    let server = Server::start(source, Bounds::default()).await;
    let (status, answer) = server.json("/api/v1/incidents").await;
    assert_eq!((status, &answer["matched"]), (200, &0.into()));
    assert_eq!(answer["incidents"], serde_json::json!([]));
}

/// Every field name below `value`, as a documentation would name it.
fn field_names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                field_names(value, names);
            }
        }
        Value::Array(rows) => rows.iter().for_each(|row| field_names(row, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The sections of `API.md` by heading, with the names in the first column of their tables.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let mut sections: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in include_str!("API.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            sections.push((heading.to_owned(), BTreeSet::new()));
        } else if let Some(name) = line.strip_prefix("| `")
            && let Some((name, _)) = name.split_once('`')
        {
            // `connections.open` documents `open` where it stands below `connections`.
            let names = &mut sections.last_mut().unwrap().1;
            names.extend(
                name.split('.')
                    .map(|part| part.trim_end_matches("[]").to_owned()),
            );
        }
    }
    sections
}

#[tokio::test]
async fn the_documentation_names_every_field_and_no_other() {
    let server = server().await;
    let documented = documented();
    assert_eq!(documented.len(), 7, "sections of API.md");
    for path in ["clients", "connections", "incidents", "upstreams", "status"] {
        let (_, answer) = server.json(&format!("/api/v1/{path}")).await;
        let mut names = BTreeSet::new();
        field_names(&answer, &mut names);
        let heading = format!("`/api/v1/{path}`");
        let (_, described) = documented
            .iter()
            .find(|(found, _)| *found == heading)
            .expect(&heading);
        assert_eq!(described, &names, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_let_go_and_frees_its_place() {
    let bounds = Bounds {
        connections_max: 2,
        head_timeout: Duration::from_millis(200),
        ..Bounds::default()
    };
    let server = Server::start(fixed(), bounds).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /metrics HTTP/1.1\r\nho")
        .await
        .unwrap();
    // Both places are taken; the third waits until the deadline of the others has passed.
    let (status, _) = server.ask("GET", "/metrics").await;
    assert_eq!(status, 200);
    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let ended = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection is still open");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let bounds = Bounds {
        connections_max: 1,
        write_timeout: Duration::from_millis(200),
        ..Bounds::default()
    };
    let mut source = fixed();
    let row = source.snapshot.clients[0].clone();
    // More than the socket buffers of both sides hold.
    source.snapshot.clients = vec![row; 8_000];
    let server = Server::start(source, bounds).await;
    let mut greedy = server.connect().await;
    let request = b"GET /api/v1/clients HTTP/1.1\r\nhost: x\r\n\r\n";
    greedy.write_all(request).await.unwrap();
    // There is one place, so an answer means that the greedy one has lost it.
    assert_eq!(server.ask("GET", "/-/healthy").await.0, 200);
    drop(greedy);
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_task() {
    let server = server().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 16];
    idle.read_exact(&mut head).await.unwrap();
    server.shutdown.cancel();
    timeout(DEADLINE, server.task).await.unwrap().unwrap();
    let mut rest = Vec::new();
    timeout(DEADLINE, idle.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn names_nesting_and_units_stay() {
    let server = server().await;
    for (path, list) in [
        ("clients", "clients"),
        ("connections", "connections"),
        ("incidents", "incidents"),
        ("upstreams", "upstreams"),
        ("status", "listeners"),
    ] {
        let (_, mut answer) = server.json(&format!("/api/v1/{path}")).await;
        answer[list].as_array_mut().unwrap().truncate(1);
        let text = serde_json::to_string_pretty(&answer).unwrap();
        insta::assert_snapshot!(path, text);
    }
}
