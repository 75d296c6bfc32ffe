//! What the proxy writes down, and what `poolscope replay` makes of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::raw::Answering;
use crate::support::{Agent, Driver, Mongod, Poolscope, eventually};

/// An incident is over after a quarter of a minute of quiet; the rest is for busy machines.
const LIMIT: Duration = Duration::from_secs(90);

/// The files of a journal, the oldest first.
fn files(journal: &Path) -> Vec<PathBuf> {
    let name = journal.file_name().unwrap().to_str().unwrap();
    let directory = fs::read_dir(journal.parent().unwrap()).unwrap();
    let mut numbered: Vec<(u32, PathBuf)> = directory
        .map(|file| file.unwrap().path())
        .filter_map(|path| {
            let end = path.file_name()?.to_str()?.strip_prefix(name)?.to_owned();
            let number = end.strip_prefix('.').map_or(Ok(0), str::parse);
            Some((number.ok()?, path))
        })
        .collect();
    numbered.sort();
    numbered.into_iter().rev().map(|(_, path)| path).collect()
}

/// What `poolscope replay` prints.
#[track_caller]
fn replay(files: &[PathBuf], args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_poolscope"))
        .arg("replay")
        .args(args)
        .args(files)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn replayed(files: &[PathBuf]) -> Value {
    serde_json::from_str(&replay(files, &["--json"])).unwrap()
}

/// A real crash under a real driver, until its incidents are over; a replay has to tell the same at any time after.
fn crash(args: &[&str]) -> (Poolscope, TempDir, PathBuf, Value) {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let mut mongod = Mongod::standalone();
    let args = [&["--journal.path", journal.to_str().unwrap()], args].concat();
    let proxy = Poolscope::start_with(&[mongod.addr()], &args);
    let mut agent = Agent::spawn(Driver::PyMongo4);
    agent.open(
        "app",
        &format!("{}&heartbeatFrequencyMS=500", proxy.uri("orders")),
    );
    agent.run("app", "ping", 20, &json!({}));
    mongod.kill();
    eventually(LIMIT, || {
        let told = proxy.api("incidents");
        match told["incidents"].as_array().unwrap().len() {
            0 => Err("no incident"),
            _ => Ok(()),
        }
    });
    mongod.restart();
    agent.run("app", "ping", 20, &json!({}));
    eventually(LIMIT, || {
        let told = proxy.api("incidents");
        let mut rows = told["incidents"].as_array().unwrap().iter();
        if rows.all(|row| !row["closed_at"].is_null()) {
            Ok(())
        } else {
            Err(told)
        }
    });
    let told = proxy.api("incidents");
    // The file is read while it is written: what is missing is at most what is not flushed.
    eventually(LIMIT, || {
        let again = replayed(&files(&journal));
        if again["incidents"] == told["incidents"] {
            Ok(())
        } else {
            Err(format!("told {told:#}\nreplayed {again:#}"))
        }
    });
    (proxy, directory, journal, told)
}

#[test]
fn a_replay_finds_what_the_proxy_found() {
    let (mut proxy, _directory, journal, told) = crash(&[]);
    let crash = told["incidents"].as_array().unwrap().iter();
    let crash: Vec<&Value> = crash.filter(|row| row["cause"] == "server_crash").collect();
    assert_eq!(crash.len(), 1, "{told:#}");
    assert_eq!(crash[0]["clients"][0]["app"], "orders");
    assert!(crash[0]["confidence"].as_f64().unwrap() >= 0.5, "{told:#}");

    // As people see it.
    let text = replay(&files(&journal), &[]);
    assert!(
        text.contains("server_crash") && text.contains("What happened"),
        "{text}"
    );

    // A crash of the proxy itself loses nothing of what was over.
    proxy.process().kill();
    assert_eq!(replayed(&files(&journal))["incidents"], told["incidents"]);
    let whole = fs::read(&journal).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    let [.., before, last] = ends[..] else {
        panic!("{} lines", ends.len());
    };
    for len in [before + 2, usize::midpoint(before, last), last - 1, last] {
        let cut = journal.with_extension("cut");
        fs::write(&cut, &whole[..len]).unwrap();
        assert_eq!(
            replayed(&[cut])["incidents"],
            told["incidents"],
            "{len} bytes"
        );
    }
    // In the midst of a file a broken line is no end: it says where.
    let broken = journal.with_extension("broken");
    let half = [&whole[..before - 3], &whole[before..]].concat();
    fs::write(&broken, half).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_poolscope"))
        .arg("replay")
        .arg(&broken)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("line {}", ends.len() - 1)), "{said}");
}

#[test]
fn a_journal_of_many_files_tells_the_same() {
    let small = ["--journal.max-size", "64KiB", "--journal.max-files", "100"];
    let (mut proxy, _directory, journal, told) = crash(&small);
    // What follows goes into new files, and changes nothing of what was.
    let addr = proxy.addr();
    eventually(LIMIT, || {
        for _ in 0..20 {
            drop(TcpStream::connect(addr).unwrap());
        }
        match files(&journal).len() {
            count @ ..3 => Err(format!("{count} files")),
            _ => Ok(()),
        }
    });
    assert!(proxy.terminate(LIMIT).success());
    // The driver and the server are gone by then, so the newest come on top of what was told.
    let again = replayed(&files(&journal));
    let again = again["incidents"].as_array().unwrap();
    assert!(
        again.ends_with(told["incidents"].as_array().unwrap()),
        "{again:#?}"
    );
    // Each file is a journal of its own.
    for file in files(&journal) {
        replayed(&[file]);
    }
}

/// The kernel ends a process that writes more than its limit of file sizes, unless it watches for that.
#[test]
fn a_journal_that_cannot_grow_leaves_the_traffic_alone() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let server = Answering::start();
    let proxy = Poolscope::start_under(
        &["--fsize=20000"],
        &[server.addr()],
        &["--journal.path", journal.to_str().unwrap()],
    );
    traffic_goes_on_without_journal(&proxy);
    // What was written until then is a journal that ends in the midst of a line.
    assert!(fs::metadata(&journal).unwrap().len() <= 20_000);
    replayed(&[journal]);
}

/// A disk of 64 KiB, mounted where only the proxy sees it.
#[test]
fn a_journal_on_a_full_disk_leaves_the_traffic_and_the_next_start_alone() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let at = directory.path().to_str().unwrap();
    let on_small_disk = |and_then: &str| {
        let mount =
            format!("mount -t tmpfs -o size=64k small {at} && {and_then} exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &mount]);
        command
    };
    let is_possible = on_small_disk("").arg("true").output();
    if !is_possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this kernel lets nobody but root mount a disk");
        return;
    }
    let server = Answering::start();
    let args = ["--journal.path", journal.to_str().unwrap()];
    let proxy = Poolscope::start_by(on_small_disk(""), &[server.addr()], &args);
    traffic_goes_on_without_journal(&proxy);
    drop(proxy);

    // Started again, it finds no space at all.
    let fill = format!("{{ cat /dev/zero > {at}/other 2>/dev/null; true; }} &&");
    let proxy = Poolscope::start_by(on_small_disk(&fill), &[server.addr()], &args);
    traffic_goes_on_without_journal(&proxy);
}

/// Connections come until the disk is full: one that was there before, and new ones, are served as ever; the error is
/// counted, logged once and shown.
fn traffic_goes_on_without_journal(proxy: &Poolscope) {
    let mut stays = TcpStream::connect(proxy.addr()).unwrap();
    let mut ask = || {
        let ping = crate::support::raw::Document::default()
            .int("ping", 1)
            .text("$db", b"admin")
            .bytes();
        let message = crate::support::raw::op_msg(1, 0, &ping);
        stays.write_all(&message).unwrap();
        let mut head = [0; 16];
        stays.read_exact(&mut head).unwrap();
        let len = crate::support::raw::stated_len(&head);
        stays.read_exact(&mut vec![0; len - 16]).unwrap();
    };
    ask();
    eventually(LIMIT, || {
        for _ in 0..20 {
            drop(TcpStream::connect(proxy.addr()).unwrap());
        }
        match proxy.metric("poolscope_journal_errors_total") {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?} errors")),
        }
    });
    ask();
    drop(TcpStream::connect(proxy.addr()).unwrap());
    assert_eq!(proxy.metric("poolscope_journal_errors_total"), Some(1.0));
    let warnings = proxy.api("status")["warnings"].to_string();
    assert!(warnings.contains("switched off"), "{warnings}");
    // What it writes comes to us on its own way.
    eventually(LIMIT, || {
        let log = proxy.log();
        let warned = log.iter().filter(|line| line.contains("switched off"));
        match warned.count() {
            1 => Ok(()),
            _ => Err(format!("{log:#?}")),
        }
    });
}
