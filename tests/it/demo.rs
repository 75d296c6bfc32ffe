//! `make demo` as a visitor sees it: the same steps with shorter pauses.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::Process;

/// A minute of demo without most of its pauses, on a busy machine.
const DEMO_LIMIT: Duration = Duration::from_secs(170);

/// The headings of the numbers that are looked at, in the order in which `clients` prints them.
const POOLS: usize = 0;
const CONN: usize = 1;

/// The numbers of one instance in one of the tables, counted from the end of the line, because drivers have
/// spaces in their names.
#[track_caller]
fn numbers<'a>(table: &'a str, client: &str) -> Vec<&'a str> {
    let is_row = |line: &&str| line.split(' ').next() == Some(client);
    let row = table.lines().find(is_row);
    let row = row.unwrap_or_else(|| panic!("{client} has no row in\n{table}"));
    let words: Vec<&str> = row.split_whitespace().collect();
    words[words.len() - columns(table)..].to_vec()
}

/// How many columns of numbers stand right of the driver.
fn columns(table: &str) -> usize {
    let head = table.lines().find(|line| line.starts_with("CLIENT "));
    head.unwrap().split_whitespace().skip(2).count()
}

#[test]
fn the_demo_shows_who_leaks_who_died_and_the_restart() {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demo/run"));
    command
        .env("DEMO_POOLSCOPE", env!("CARGO_BIN_EXE_poolscope"))
        .env("DEMO_SECONDS_SCALE", "0.1")
        .env_remove("DEMO")
        .stdin(Stdio::null());
    let mut demo = Process::start(&mut command);
    let status = demo.wait(DEMO_LIMIT);
    let lines = demo.lines();
    let text = lines.join("\n");
    assert!(status.success(), "{status}\n{text}");
    for line in &lines {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }

    let tables: Vec<&str> = text.split("$ poolscope clients").skip(1).collect();
    assert_eq!(tables.len(), 5, "{text}");
    for table in &tables {
        for client in [
            "checkout@127.0.0.2",
            "checkout@127.0.0.3",
            "web@127.0.0.11",
            "web@127.0.0.12",
            "web@127.0.0.13",
            "catalog@127.0.0.1",
            "ledger@127.0.0.1",
            "reports@127.0.0.1",
        ] {
            assert_eq!(numbers(table, client).len(), columns(table));
        }
    }
    let count = |table: usize, client: &str, column: usize| -> u64 {
        numbers(tables[table], client)[column].parse().unwrap()
    };
    assert_eq!(count(1, "checkout@127.0.0.2", POOLS), 1);
    assert!(count(2, "checkout@127.0.0.2", POOLS) >= 40, "{text}");
    assert_eq!(count(2, "checkout@127.0.0.3", POOLS), 1);
    assert!(count(2, "web@127.0.0.13", CONN) > 0);
    assert_eq!(count(3, "web@127.0.0.13", CONN), 0);
    assert!(count(4, "web@127.0.0.12", CONN) > 0, "{text}");
    assert!(text.contains("1 restart noticed"), "{text}");
    assert!(tables[4].contains("; by server "), "{text}");
}
