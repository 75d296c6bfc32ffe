//! Tables as they are printed, and questions to an instance over a real socket.

use std::sync::Arc;

use clap::CommandFactory as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admin::sample::{Fixed, client as client_row, fixed};
use crate::admin::{self, api};
use crate::clients::DriverRow;
use crate::config::KEYS;
use crate::connection::{CloseReason, Initiator, Role, State};
use crate::telemetry::is_invisible;

/// An instance that shows `source`, asked for `paths`.
fn ask<const N: usize>(source: Fixed, paths: &[String; N]) -> anyhow::Result<[Vec<u8>; N]> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(admin::serve(listener, Arc::new(source), shutdown.clone()));
        let answers = Instance::at(&address).get_all(paths).await;
        shutdown.cancel();
        task.await.unwrap().unwrap();
        answers
    })
}

fn clients_of(source: Fixed) -> (api::Clients, api::Upstreams) {
    let paths = [client::path("clients", &[]), client::path("upstreams", &[])];
    let [clients, upstreams] = ask(source, &paths).unwrap();
    (
        client::decode(&clients).unwrap(),
        client::decode(&upstreams).unwrap(),
    )
}

/// No line is too wide, and none holds what a terminal would act upon.
fn check_harmless(text: &str) {
    for line in text.lines() {
        // What is there to be copied stays on its line, however long.
        let is_command = ["     $ ", "     mongosh> ", "     connection string: "]
            .iter()
            .any(|prompt| line.starts_with(prompt));
        assert!(
            is_command || format::width(line) <= table::page_width(),
            "too wide: {line}"
        );
        let bad = line.chars().find(|c| is_invisible(*c) || *c == '\t');
        assert_eq!(bad, None, "{line:?}");
    }
}

#[test]
fn clients_are_shown_by_upstream_and_size() {
    let (clients, upstreams) = clients_of(fixed());
    let text = show::clients(&clients, &upstreams);
    check_harmless(&text);
    insta::assert_snapshot!("clients", text);
}

#[test]
fn many_large_clients_fit_a_hundred_columns() {
    let mut source = fixed();
    let driver = DriverRow {
        name: "mongo-java-driver|reactive-streams|spring-data".to_owned(),
        version: "5.1.0-SNAPSHOT|4.2".to_owned(),
        ..DriverRow::default()
    };
    source.snapshot.clients = (0..250)
        .map(|n| {
            let app = format!("reporting-service-with-a-long-name-{n}");
            let address = format!("10.244.{n}.{n}");
            let mut row = client_row(n, 0, &app, &address, [n * 991, n * 99_991], driver.clone());
            row.opened = n * 99_999_991;
            row.mongo_clients = Some(n * 17);
            row.p95 = Some(Duration::from_micros(n * n * 1001));
            row.longest_idle = Some(Duration::from_secs(n * n * 7));
            row.requests
                .push((crate::wire::Command::Find, n * 9_999_999_991));
            row
        })
        .collect();
    let (clients, upstreams) = clients_of(source);
    let text = show::clients(&clients, &upstreams);
    check_harmless(&text);
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("@10.244."))
        .collect();
    assert_eq!(rows.len(), 250);
    assert!(rows[0].contains("@10.244.249.249"), "the largest is first");
    let ends: Vec<usize> = rows.iter().map(|row| format::width(row)).collect();
    assert!(
        ends.iter().all(|end| *end == ends[0]),
        "numbers end in one column"
    );
    insta::assert_snapshot!(
        "many_clients",
        text.lines().take(8).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn those_who_said_nothing_and_left_share_a_row() {
    let mut source = fixed();
    source.snapshot.clients = (0..3)
        .map(|n| {
            let address = format!("10.0.0.{n}");
            let mut row = client_row(n, 0, "", &address, [0, 0], DriverRow::default());
            row.by_state = [0; State::ALL.len()];
            row.by_role = [0; Role::ALL.len()];
            row.opened = 20_000;
            row.closed = vec![
                (Initiator::Client, CloseReason::Handshake, 19_000),
                (Initiator::Proxy, CloseReason::ConnectFailed, 1000),
            ];
            row
        })
        .chain([client_row(
            9,
            0,
            "web",
            "10.0.0.9",
            [1, 1],
            DriverRow::default(),
        )])
        .collect();
    let (clients, upstreams) = clients_of(source);
    let text = show::clients(&clients, &upstreams);
    check_harmless(&text);
    insta::assert_snapshot!("silent", text);
}

#[test]
fn an_instance_without_clients_says_so() {
    let mut source = fixed();
    source.snapshot.clients.clear();
    let (clients, upstreams) = clients_of(source);
    let text = show::clients(&clients, &upstreams);
    assert_eq!(text.matches("no client\n").count(), 2);
}

#[test]
fn connections_upstreams_and_status_are_shown() {
    let [answer] = ask(fixed(), &[client::path("connections", &[])]).unwrap();
    let text = show::connections(&client::decode(&answer).unwrap());
    check_harmless(&text);
    insta::assert_snapshot!("connections", text);

    let limited = client::path("connections", &[("limit", Some("1".to_owned()))]);
    let [answer] = ask(fixed(), &[limited]).unwrap();
    let text = show::connections(&client::decode(&answer).unwrap());
    assert!(
        text.ends_with("the oldest 1 of 4 connections; --limit shows more\n"),
        "{text}"
    );

    let [answer] = ask(fixed(), &[client::path("upstreams", &[])]).unwrap();
    let text = show::upstreams(&client::decode(&answer).unwrap());
    check_harmless(&text);
    insta::assert_snapshot!("upstreams", text);

    let [answer] = ask(fixed(), &[client::path("status", &[])]).unwrap();
    let text = show::status(&client::decode(&answer).unwrap());
    check_harmless(&text);
    insta::assert_snapshot!("status", text);
}

#[test]
fn incidents_are_listed_and_explained() {
    let [answer] = ask(fixed(), &[client::path("incidents", &[])]).unwrap();
    let answer: api::Incidents = client::decode(&answer).unwrap();
    let text = incidents::table(&answer);
    check_harmless(&text);
    insta::assert_snapshot!("incidents", text);

    let mut explained = String::new();
    for row in &answer.incidents {
        let text = incidents::explain(row);
        check_harmless(&text);
        explained.extend([text.as_str(), "\n========\n"]);
        let news = incidents::news("incident_opened", row);
        check_harmless(&news);
        explained.extend([news.as_str(), "========\n"]);
    }
    insta::assert_snapshot!("explained", explained);
}

/// Everything that is printed, on pages of several widths.
#[test]
fn pages_of_every_width_are_kept_to() {
    let (clients, upstreams) = clients_of(fixed());
    let paths = ["connections", "upstreams", "status", "incidents"];
    let paths = paths.map(|path| client::path(path, &[]));
    let [connections, servers, status, incidents] = ask(fixed(), &paths).unwrap();
    let incidents: api::Incidents = client::decode(&incidents).unwrap();
    for columns in [80, 100, 200] {
        table::set_width(columns);
        assert_eq!(table::page_width(), columns);
        for text in [
            show::clients(&clients, &upstreams),
            pools::pools(&clients),
            show::connections(&client::decode(&connections).unwrap()),
            show::upstreams(&client::decode(&servers).unwrap()),
            show::status(&client::decode(&status).unwrap()),
            incidents::table(&incidents),
        ] {
            check_harmless(&text);
            if columns > 80 {
                assert!(!text.contains("left out, the page"), "{text}");
            }
        }
        for row in &incidents.incidents {
            check_harmless(&incidents::explain(row));
            check_harmless(&incidents::news("incident_opened", row));
        }
    }
    // Nobody prints on a stamp, and a page without end helps nobody.
    for (asked, expected) in [(0, 80), (79, 80), (5000, 240)] {
        table::set_width(asked);
        assert_eq!(table::page_width(), expected);
    }
    table::set_width(80);
    let narrow = pools::pools(&clients);
    table::set_width(100);
    let usual = pools::pools(&clients);
    insta::assert_snapshot!("pools", format!("{usual}========\n{narrow}"));
}

#[test]
fn mongo_clients_that_leak_share_a_row() {
    let (mut clients, _) = clients_of(fixed());
    let row = clients.clients.iter_mut();
    let row = row
        .filter(|row| row.mongo_clients.iter().any(|one| one.closed_at.is_none()))
        .last()
        .unwrap();
    let mut all = row.mongo_clients.iter();
    let one = all.rfind(|one| one.closed_at.is_none()).unwrap();
    let one = one.clone();
    row.mongo_clients = vec![one; 60];
    let name = row.client.clone();
    let text = pools::pools(&clients);
    check_harmless(&text);
    assert!(text.contains(&format!("+52 {name}")), "{text}");
}

#[test]
fn filters_survive_the_way_to_the_instance() {
    let filters = [
        ("client", Some("a&b=c#ä @".to_owned())),
        ("state", None),
        ("role", Some("tool".to_owned())),
    ];
    assert_eq!(
        client::path("connections", &filters),
        "/api/v1/connections?client=a%26b%3Dc%23%C3%A4%20%40&role=tool"
    );
    let wrong = client::path("connections", &[("state", Some("busy".to_owned()))]);
    let error = ask(fixed(), &[wrong]).unwrap_err().to_string();
    assert!(
        error.starts_with("\"busy\" is not a state; there are connecting, "),
        "{error}"
    );
}

#[test]
fn a_journal_that_cannot_be_replayed_says_once_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal");
    let check = |expected: &str| {
        let error = replay::replay(std::slice::from_ref(&file), Output::Table, |_| ()).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!("{}: {expected}", file.display())
        );
    };
    check("cannot be read: No such file or directory (os error 2)");
    std::fs::write(&file, "").unwrap();
    check("is empty");
    std::fs::write(&file, "{\"poolscope_journal\":99,\"upstreams\":[]}\n").unwrap();
    check("cannot be understood: it has version 99, and this poolscope reads versions up to 1");
}

#[test]
fn who_is_not_there_is_named_in_one_line() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let check = |address: &str, expected: &str| {
        let paths = [client::path("status", &[])];
        let error = runtime.block_on(Instance::at(address).get_all(&paths));
        assert_eq!(format!("{:#}", error.unwrap_err()), expected);
    };
    // A port that was bound and let go again is refused.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap().to_string();
    drop(listener);
    check(
        &gone,
        &format!("no poolscope at {gone}: connection refused"),
    );
    check(
        "127.0.0.1",
        "no poolscope at 127.0.0.1: invalid socket address",
    );

    // Somebody who speaks something else.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 16];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"+PONG\r\n\r\n").unwrap();
    });
    let error = runtime.block_on(Instance::at(&other).get_all(&[client::path("status", &[])]));
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.starts_with(&format!("{other} answers, but not as poolscope does: ")),
        "{error}"
    );
    thread.join().unwrap();
}

#[test]
fn the_command_line_is_consistent_and_has_every_key() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    let serve = command.find_subcommand_mut("serve").unwrap();
    let help = serve.render_long_help().to_string();
    let help: Vec<&str> = help.split_whitespace().collect();
    let help = help.join(" ");
    for key in KEYS {
        assert!(help.contains(&format!("--{} ", key.flag)), "--{}", key.flag);
        assert!(help.contains(&format!("[env: {}]", key.env)), "{}", key.env);
    }
    assert!(help.contains("POOLSCOPE_CONFIG"));
}

#[test]
fn flags_reach_the_configuration() {
    let arguments = [
        "poolscope",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "a:1",
        "--listen",
        "[::1]:0",
        "--upstream",
        "b:1",
        "--web.listen-address",
        "127.0.0.1:0",
        "--max-clients",
        "7",
    ];
    let Command::Serve(flags) = Cli::try_parse_from(arguments).unwrap().command else {
        panic!("serve was asked for");
    };
    let config = flags.load().unwrap().config;
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[1].upstream, "b:1");
    assert_eq!(config.limits.clients_max, 7);
    assert!(
        Cli::try_parse_from(["poolscope", "serve", "--workers", "1", "--workers", "2"]).is_err()
    );
    assert!(Cli::try_parse_from(["poolscope", "clients", "--watch", "0"]).is_err());
}
