//! How many instructions looking at one exchange takes, compared with figures that were agreed on.
//!
//! Times depend on the machine and its other guests; instructions, counted by callgrind, do not. Each workload runs
//! in a process of its own in which only [`counted`] is counted: the messages go through decoder, tracker and the
//! real books of a client, as they do behind the relay. The kernel's part and the relay's are not in it.
//!
//! ```text
//! cargo bench --bench instructions               count, compare, fail above the tolerance
//! cargo bench --bench instructions -- --update   count and write benches/instructions/agreed.json
//! ```
//!
//! As a test (without `--bench`) every workload runs once, uncounted, and has to be understood.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that reports to a terminal"
)]
#![expect(
    clippy::unwrap_used,
    reason = "measuring ends where something is not as it has to be"
)]

#[path = "../traffic/mod.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use poolscope::clients::Recorder;
use poolscope::observer::Observer;
use poolscope::time::Timestamp;
use poolscope::timeline::Entry;
use poolscope::wire::Compressor;

use traffic::{Exchanged, Followed};

/// A count this much above the agreed one fails, in percent.
const TOLERANCE_PERCENT: f64 = 5.0;

/// Tells a process to run the workload that follows.
const WORKLOAD_FLAG: &str = "--workload";

/// Something to count.
struct Workload {
    name: &'static str,
    work: Work,
    /// Exchanges or connections counted together, so that what happens only now and then has its share.
    repeats: u64,
}

enum Work {
    /// An exchange passes on an open connection.
    Exchange(fn() -> Exchanged),
    /// The observer is told of connections that one instance opens in a row. What looks at all of them for each shows
    /// itself here. With the request id that introduces each.
    Burst(fn(u16) -> i32),
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "ping",
        work: Work::Exchange(traffic::ping),
        repeats: 100,
    },
    Workload {
        name: "find_1k",
        work: Work::Exchange(|| traffic::find(1024)),
        repeats: 100,
    },
    Workload {
        name: "find_1k_snappy",
        work: Work::Exchange(|| traffic::find(1024).compressed(Compressor::Snappy)),
        repeats: 100,
    },
    Workload {
        name: "find_16m",
        work: Work::Exchange(|| traffic::find(16 * 1024 * 1024)),
        repeats: 2,
    },
    Workload {
        name: "observed_opening",
        work: Work::Burst(traffic::counted),
        repeats: 4_000,
    },
    Workload {
        name: "observed_processes",
        // Each has counted as far as the others.
        work: Work::Burst(|_| 0),
        repeats: 4_000,
    },
];

/// What callgrind counts: it starts on entry and stops on return.
#[inline(never)]
fn counted(followed: &mut Followed<Recorder>, exchanged: &Exchanged) {
    followed.exchange(black_box(exchanged));
}

#[inline(never)]
fn counted_burst(entries: &[Entry], until: Timestamp) -> Observer {
    traffic::observe(black_box(entries), until)
}

/// Runs a workload; panics when it did not go as it should.
fn run(workload: &Workload) {
    match workload.work {
        Work::Exchange(make) => run_exchange(workload, &make()),
        Work::Burst(first_id) => {
            let count = u16::try_from(workload.repeats).unwrap();
            let (entries, until) = traffic::burst(count, first_id);
            let observer = counted_burst(&entries, until);
            let open = observer.pools().connections().filter(|one| one.is_open());
            assert_eq!(open.count(), usize::from(count));
        }
    }
}

/// Panics when the messages are not understood.
fn run_exchange(workload: &Workload, exchanged: &Exchanged) {
    let directory = traffic::directory(250);
    let mut followed = Followed::open(&directory, 0, 16);
    // What is allocated once, or grows, has done so.
    for _ in 0..4 {
        followed.exchange(exchanged);
    }
    for _ in 0..workload.repeats {
        counted(&mut followed, exchanged);
    }
    assert!(
        followed.is_in_order(),
        "{} is not understood",
        workload.name
    );
}

/// Instructions per exchange or connection of a workload.
fn count(workload: &Workload, valgrind: &Path) -> Result<u64, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = scratch.path().join("callgrind.out");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(valgrind)
        // The environment lies on the stack, whose alignment some copies depend on.
        .env_clear()
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*instructions*counted*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([WORKLOAD_FLAG, workload.name])
        .output()
        .map_err(|error| format!("failed to run {}: {error}", valgrind.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let profile = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    let total: u64 = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|total| total.trim().parse().ok())
        .ok_or("callgrind wrote no totals")?;
    if total == 0 {
        return Err("callgrind saw no call of the function that is counted".to_owned());
    }
    Ok(total / workload.repeats)
}

/// The machine's valgrind, or the one that `tests/setup/install valgrind` fetched.
fn valgrind() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/valgrind/valgrind");
    if own.exists() {
        own
    } else {
        PathBuf::from("valgrind")
    }
}

/// Counts everything; true when nothing costs more than agreed.
fn compare(update: bool) -> Result<bool, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/agreed.json");
    let agreed: BTreeMap<String, u64> = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        Err(_) if update => BTreeMap::new(),
        Err(error) => return Err(format!("failed to read {}: {error}", file.display())),
    };
    let valgrind = valgrind();
    let mut counts = BTreeMap::new();
    let mut is_fine = true;
    println!(
        "{:<20}{:>14}{:>14}{:>9}",
        "instructions", "now", "agreed", ""
    );
    for workload in WORKLOADS {
        let now = count(workload, &valgrind)?;
        counts.insert(workload.name.to_owned(), now);
        let Some(agreed) = agreed.get(workload.name) else {
            println!("{:<20}{now:>14}{:>14}", workload.name, "none");
            is_fine = false;
            continue;
        };
        let percent = percent_above(now, *agreed);
        let is_over = percent > TOLERANCE_PERCENT;
        is_fine &= !is_over;
        println!(
            "{:<20}{now:>14}{agreed:>14}{percent:>+8.2}%{}",
            workload.name,
            if is_over { "  too many" } else { "" }
        );
    }
    if update {
        let mut text = serde_json::to_string_pretty(&counts).map_err(|error| error.to_string())?;
        text.push('\n');
        fs::write(&file, text).map_err(|error| error.to_string())?;
        println!("written to {}", file.display());
        return Ok(true);
    }
    Ok(is_fine)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts are far below 2^52 and a percentage is wanted"
)]
fn percent_above(now: u64, agreed: u64) -> f64 {
    100.0 * (now as f64 / agreed as f64 - 1.0)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if let Some(at) = args.iter().position(|arg| arg == WORKLOAD_FLAG) {
        let name = args.get(at + 1).map(String::as_str);
        run(WORKLOADS
            .iter()
            .find(|known| Some(known.name) == name)
            .unwrap());
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        // As a runner of tests asks; nothing here is ignored.
        if !has("--ignored") {
            for workload in WORKLOADS {
                println!("{}: test", workload.name);
            }
        }
        return ExitCode::SUCCESS;
    }
    if !has("--bench") {
        let is_named = |workload: &&Workload| {
            WORKLOADS.iter().all(|known| !has(known.name)) || has(workload.name)
        };
        WORKLOADS.iter().filter(is_named).for_each(run);
        return ExitCode::SUCCESS;
    }
    match compare(has("--update")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "looking costs more than agreed; if that is worth it: cargo bench --bench instructions -- --update"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("failed to count instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
