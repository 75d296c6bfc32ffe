//! The binary as a shell sees it: exit codes, and which stream says what.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::support::{Poolscope, Port, Process, eventually};

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(args).stdin(Stdio::null());
    // What the caller of the tests has set is not part of them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POOLSCOPE_") {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

#[track_caller]
fn check(args: &[&str], code: i32, stdout: &str, stderr: &str) {
    let output = run(args);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    assert_eq!(out.is_empty(), stdout.is_empty(), "{out}");
    assert_eq!(err.is_empty(), stderr.is_empty(), "{err}");
    assert!(out.contains(stdout), "{out}");
    assert!(err.contains(stderr), "{err}");
}

#[test]
fn exit_codes_tell_mistakes_from_failures() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/poolscope.example.yaml");
    check(&["--version"], 0, env!("CARGO_PKG_VERSION"), "");
    check(&["serve", "--help"], 0, "POOLSCOPE_CONNECT_TIMEOUT", "");
    check(
        &["config", "check", "--config", example],
        0,
        "connect_timeout: 5s",
        "",
    );
    check(&["config", "check"], 2, "", "listeners: there is none");
    check(
        &["serve", "--listen", "127.0.0.1:0"],
        2,
        "",
        "flag --listen: has no --upstream",
    );
    check(
        &["serve", "--conect-timeout", "1s"],
        2,
        "",
        "--connect-timeout",
    );
    check(&[], 2, "", "Usage:");
    // Port 1 of the loopback is nobody's.
    check(
        &["clients", "--address", "127.0.0.1:1"],
        1,
        "",
        "poolscope: no poolscope at 127.0.0.1:1: connection refused\n",
    );
}

#[test]
fn a_watch_shows_the_table_again_and_again() {
    let nobody = Port::reserve();
    let poolscope = Poolscope::start(&[nobody.addr()]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command
        .args(["clients", "--watch", "0.2"])
        .args(["--address", &poolscope.web_addr().to_string()])
        .stdin(Stdio::null());
    let watch = Process::start(&mut command);
    eventually(Duration::from_secs(20), || {
        let lines = watch.lines();
        let tables = lines.iter().filter(|line| *line == "no client").count();
        if tables >= 3 {
            Ok(())
        } else {
            Err(lines.join("\n"))
        }
    });
}
