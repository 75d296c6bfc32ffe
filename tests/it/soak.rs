//! `make soak` in short: what it holds poolscope to holds here, too, with a tenth of the load for half a minute.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::Process;

/// Half a minute of load, and building what makes it, on a busy machine.
const SOAK_LIMIT: Duration = Duration::from_secs(170);

/// Memory of a process that has just started settles less than that of one that has run for minutes.
const GROWTH_PERCENT_MAX: &str = "10";

#[test]
fn many_clients_are_counted_exactly_without_loss_or_false_alarm() {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/soak/run"));
    command
        .args(["--poolscope", env!("CARGO_BIN_EXE_poolscope")])
        .args(["--out", env!("CARGO_TARGET_TMPDIR")])
        .args(["--minutes", "0.6", "--start", "3", "--every", "2"])
        .args(["--instances", "50", "--connections", "500"])
        .args(["--ops", "500", "--rollouts", "0.3"])
        .args(["--growth-max", GROWTH_PERCENT_MAX])
        .stdin(Stdio::null());
    let mut soak = Process::start(&mut command);
    let status = soak.wait(SOAK_LIMIT);
    let text = soak.lines().join("\n");
    assert!(status.success(), "{status}\n{text}");
    // It did look, and there was something to see.
    for row in [
        "| connections | 500 | 500 |",
        "| mongo clients | 50 | 50 |",
        "| observations lost | 0 | 0 |",
    ] {
        assert!(text.contains(row), "no {row} in\n{text}");
    }
    assert!(!text.contains(" 0 instances gave way"), "{text}");
}
