//! What poolscope says of real faults: scenario × driver, on real servers, judged by what the drivers saw.
//!
//! `make scenarios` plays the whole matrix and writes `target/scenarios/summary.md`; each case keeps there its
//! journal, what poolscope said, and the truth. A representative part of it is played as ordinary tests.

mod applications;
mod demands;
mod episodes;
mod healthy;
mod inferred;
mod judge;
mod legacy;
mod lives;
mod messages;
mod network;
mod pooled;
mod recorded;
mod replay;
mod report;
mod scores;
mod servers;
mod shape;
mod stage;
mod storms;
mod suffices;
mod table;
mod told;

use std::any::Any;
use std::collections::VecDeque;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use demands::{Extent, Tally, healthy_runs};
use judge::{Verdict, judge};
use replay::Recorded;
use report::{Outcome, Report};
use scores::Scores;
use shape::Shape;
use stage::Place;
use table::{SCENARIOS, Scenario};

use crate::support::{Driver, Network, now, root};

/// A fault on a driver in some surroundings.
#[derive(Clone, Copy, Debug)]
struct CaseId {
    scenario: &'static Scenario,
    driver: Driver,
    shape: Shape,
}

impl CaseId {
    /// `failover/node-7`, or `failover/node-7/crowd` where the surroundings are not the usual ones.
    fn name(self) -> String {
        let name = format!("{}/{}", self.scenario.name, self.driver.label());
        if self.shape == Shape::Usual {
            return name;
        }
        format!("{name}/{}", self.shape.label())
    }

    fn is_asked_for(self) -> bool {
        is_asked_for(&format!("{}/{}", self.scenario.name, self.driver.label()))
    }

    /// Where its files are kept, below the directory of all.
    fn directory(self) -> PathBuf {
        let usual = Path::new(self.scenario.name).join(self.driver.label());
        if self.shape == Shape::Usual {
            return usual;
        }
        Path::new(&format!("in-{}", self.shape.label())).join(usual)
    }
}

/// What a case came to, whether it was played to its end, and its pool figures.
fn play(case: CaseId, directory: &Path) -> (Verdict, Scores) {
    let CaseId {
        scenario,
        driver,
        shape,
    } = case;
    fs::remove_dir_all(directory).ok();
    fs::create_dir_all(directory).unwrap();
    let not_played = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let text: String = text.unwrap_or("a panic").chars().take(200).collect();
        format!("not played: {}", text.replace('\n', " "))
    };
    let place = Place {
        driver,
        shape,
        directory: directory.to_owned(),
    };
    let set = catch_unwind(AssertUnwindSafe(|| (scenario.set)(place)));
    let mut stage = match set {
        Ok(stage) => stage,
        Err(panic) => return (Verdict::not_played(not_played(panic)), Scores::default()),
    };
    let played = catch_unwind(AssertUnwindSafe(|| (scenario.play)(&mut stage)));
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let truth = stage.truth(&case.name());
        let incidents = stage.keep(&truth);
        stage.rest();
        let recorded = Recorded::read(directory).unwrap();
        let log = stage.poolscope.log();
        let verdict = judge(scenario, &truth, &recorded.journal, &incidents, &log);
        (verdict, recorded.scores(&case.name()))
    }));
    let (mut verdict, scores) =
        judged.unwrap_or_else(|panic| (Verdict::not_played(not_played(panic)), Scores::default()));
    if let Err(panic) = played {
        verdict.faults.insert(0, not_played(panic));
        verdict.is_played = false;
    }
    let text = serde_json::to_string_pretty(&verdict.to_json()).unwrap();
    fs::write(directory.join("verdict.json"), text).unwrap();
    (verdict, scores)
}

/// A number in the environment, as `make scenarios RUNS=3` hands it over.
fn setting(name: &str, otherwise: usize) -> usize {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.map_or(otherwise, |value| value.parse().unwrap())
}

/// Nothing was left out: neither cases, by `ONLY`, nor runs of healthy ones, by `HEALTHY_RUNS`.
fn is_everything_asked_for() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("ONLY") && !is_set("HEALTHY_RUNS")
}

/// Of what is judged: of `all`, or of a part of it.
fn extent(all: Extent) -> Extent {
    if is_everything_asked_for() {
        all
    } else {
        Extent::Part
    }
}

/// The cases that were asked for: `ONLY=failover,deploy/node-7` by parts of their names; all without it.
fn cases() -> VecDeque<CaseId> {
    let shapes = shapes();
    let is_possible = Network::is_possible();
    let of_each = SCENARIOS.iter().map(|scenario| {
        let of_it = cases_of(scenario, &shapes).filter(|case| case.is_asked_for());
        let of_it = of_it.filter(|case| is_possible || !scenario.takes_root(case.shape));
        of_it.collect::<Vec<CaseId>>()
    });
    let of_each: Vec<Vec<CaseId>> = of_each.collect();
    let rounds = of_each.iter().map(|of_it| rounds(of_it)).max();
    let mut cases = VecDeque::new();
    for round in 0..rounds.unwrap_or(0) {
        let again = of_each.iter().filter(|of_it| round < self::rounds(of_it));
        cases.extend(again.flatten().copied());
    }
    cases
}

/// How often the cases of a scenario are played: healthy ones so often that each scenario has the runs that are
/// demanded of it.
fn rounds(of_it: &[CaseId]) -> usize {
    let runs = setting("RUNS", 1);
    let Some(first) = of_it.first().filter(|case| case.scenario.is_healthy()) else {
        return runs;
    };
    let least = if is_everything_asked_for() {
        healthy_runs(first.scenario.name)
    } else {
        0
    };
    setting("HEALTHY_RUNS", runs.max(least.div_ceil(of_it.len())))
}

fn cases_of(scenario: &'static Scenario, shapes: &[Shape]) -> impl Iterator<Item = CaseId> {
    let shapes = shapes.iter().filter(|shape| scenario.is_for(**shape));
    let drivers = move |&shape: &Shape| {
        let drivers = scenario.drivers.iter();
        drivers.map(move |&driver| CaseId {
            scenario,
            driver,
            shape,
        })
    };
    shapes.flat_map(drivers)
}

/// The cases that `ONLY` names, once each.
fn asked_for(shapes: &[Shape]) -> impl Iterator<Item = CaseId> {
    let all = SCENARIOS
        .iter()
        .flat_map(move |scenario| cases_of(scenario, shapes));
    all.filter(|case| case.is_asked_for())
}

/// The surroundings that were asked for: `SHAPES=single,quiet` or `SHAPES=all`; the usual ones without it.
fn shapes() -> Vec<Shape> {
    let asked = std::env::var("SHAPES").unwrap_or_default();
    match &*asked {
        "" => vec![Shape::Usual],
        "all" => Shape::ALL.to_vec(),
        names => names
            .split(',')
            .map(|name| Shape::named(name).unwrap_or_else(|| panic!("no shape {name}")))
            .collect(),
    }
}

/// Whether `ONLY` names a case; all without it.
fn is_asked_for(name: &str) -> bool {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut parts = only.split(',').filter(|part| !part.is_empty());
    only.is_empty() || parts.any(|part| matches(name, part))
}

/// `failover` is a scenario, `failover/node-7` a case, `*/node-7` a driver, `server_*` several scenarios.
fn matches(name: &str, wanted: &str) -> bool {
    let (scenario, driver) = name.split_once('/').unwrap();
    let (wanted_scenario, wanted_driver) = wanted.split_once('/').unwrap_or((wanted, "*"));
    let is_like = |text: &str, wanted: &str| match wanted.strip_suffix('*') {
        Some(begin) => text.starts_with(begin),
        None => text == wanted,
    };
    is_like(scenario, wanted_scenario) && is_like(driver, wanted_driver)
}

#[test]
#[ignore = "takes an hour; `make scenarios` plays it"]
fn matrix() {
    let waiting = Mutex::new(cases());
    let report = Mutex::new(Report::open());
    let tally = Mutex::new(Tally::new(extent(Extent::AllPlayed)));
    let begin = now();
    let work = || {
        loop {
            let Some(case) = waiting.lock().unwrap().pop_front() else {
                return;
            };
            let directory = root().join("target/scenarios").join(case.directory());
            let case_begin = now();
            let (verdict, scores) = play(case, &directory);
            let mut all = tally.lock().unwrap();
            all.add(&case.name(), case.scenario, &verdict, scores);
            drop(all);
            let outcome = Outcome::new(case, verdict, case_begin.elapsed());
            if !outcome.is_good() {
                let kept = directory.with_file_name(format!("{}.failed", case.driver.label()));
                fs::remove_dir_all(&kept).ok();
                copy(&directory, &kept);
            }
            println!("{outcome} ({} left)", waiting.lock().unwrap().len());
            report.lock().unwrap().add(outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..setting("JOBS", 2) {
            scope.spawn(work);
        }
    });
    let report = report.into_inner().unwrap();
    if setting("README", 0) > 0 {
        report.publish();
    }
    println!("{}\nin {:.0?}", report.summary(), begin.elapsed());
    // What was found is written by now, whatever is demanded of it.
    let tally = tally.into_inner().unwrap();
    println!("{}", tally.told());
    tally.assert_met();
}

fn copy(from: &PathBuf, to: &PathBuf) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Plays one case as a test.
#[track_caller]
fn check(name: &str, driver: Driver) {
    check_in(Shape::Usual, name, driver);
}

#[track_caller]
fn check_in(shape: Shape, name: &str, driver: Driver) {
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .unwrap();
    assert!(
        scenario.drivers.contains(&driver),
        "{name} is not for {driver:?}"
    );
    let directory = tempfile::tempdir().unwrap();
    let case = CaseId {
        scenario,
        driver,
        shape,
    };
    let (verdict, _) = play(case, &directory.path().join("case"));
    let incidents = fs::read_to_string(directory.path().join("case/incidents.json"));
    assert!(
        verdict.faults.is_empty(),
        "{name}/{driver:?}: {verdict:?}\n{incidents:?}"
    );
}

#[test]
fn each_healthy_scenario_is_played_as_often_as_is_demanded() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.is_healthy()) {
        let of_it: Vec<CaseId> = cases_of(scenario, &[Shape::Usual]).collect();
        let runs = of_it.len() * rounds(&of_it);
        let least = healthy_runs(scenario.name);
        assert!(runs >= least, "{}: {runs} of {least}", scenario.name);
    }
}

#[test]
fn a_steady_load_alarms_nobody() {
    check("steady", Driver::PyMongo3);
}

/// Node 6 closes its sockets before the answer to its goodbye can come.
#[test]
fn jobs_far_from_their_server_alarm_nobody() {
    if Network::is_possible() {
        check_in(Shape::Distant, "batch_job", Driver::Node6);
    }
}

#[test]
fn a_rolling_deploy_alarms_nobody() {
    check("deploy", Driver::Node7);
}

#[test]
fn a_killed_server_is_a_crash() {
    check("server_crash", Driver::Node7);
}

#[test]
fn a_server_that_is_told_to_stop_shuts_down() {
    check("server_shutdown", Driver::Node36Unified);
}

#[test]
fn a_primary_that_steps_down_is_a_failover() {
    check("failover", Driver::Rust);
}

#[test]
fn a_stopped_process_is_a_freeze() {
    check("server_freeze", Driver::PyMongo4);
}

#[test]
fn connections_closed_by_a_server_that_stays_are_told_from_a_crash() {
    check("server_closing", Driver::PyMongo4Async);
}

#[test]
fn resets_of_one_host_are_told_from_a_crash() {
    check("network_reset_one_host", Driver::Node4);
}

#[test]
fn slow_operations_are_told_from_a_freeze() {
    check("slow_operations", Driver::Node6);
}

#[test]
fn a_primary_that_is_killed_is_a_crash() {
    check("primary_crash", Driver::Go18);
}

#[test]
fn idle_connections_that_are_cut_are_told_from_what_a_server_closes() {
    check("idle_cutoff_reset", Driver::Java36);
}

#[test]
fn resets_of_all_are_told_from_a_crash() {
    check("network_reset", Driver::Mongoc123);
}

#[test]
fn killed_processes_are_told_from_those_that_are_stopped() {
    check("app_crash", Driver::Php115);
}

#[test]
fn wrong_passwords_are_told() {
    check("auth_failures", Driver::PyMongo3);
}

/// The legacy pool destroys itself for four reasons; a close by force is told in `incidents`.
#[test]
fn a_legacy_pool_destroyed_by_a_crash_says_so() {
    check("force_destroyed_by_crash", Driver::Node36Legacy);
}

#[test]
fn a_legacy_pool_destroyed_by_a_freeze_says_so() {
    check("force_destroyed_by_freeze", Driver::Node36Legacy);
}

#[test]
fn a_legacy_pool_destroyed_by_timeouts_says_so() {
    check("force_destroyed_by_timeouts", Driver::Node36Legacy);
}

#[test]
fn a_legacy_pool_that_never_comes_back_is_wedged() {
    check("wedged_client", Driver::Node36Legacy);
}

#[test]
fn pools_beyond_what_a_server_accepts_are_told() {
    check("pool_capacity", Driver::Node7);
}

#[test]
fn a_path_that_swallows_everything_is_told_from_a_freeze() {
    if Network::is_possible() {
        check("network_blackhole", Driver::PyMongo3);
    }
}

#[test]
fn clients_made_for_a_request_each_are_told() {
    check("client_leak", Driver::Mongoc123);
}

#[test]
fn a_client_that_nobody_waits_for_when_it_closes_is_told() {
    check("unhandled_async_cleanup", Driver::Node7);
}

#[test]
fn a_time_out_of_the_application_is_told_from_a_slow_server() {
    check("socket_timeout", Driver::Java36);
}

#[test]
fn a_close_in_good_order_alarms_nobody() {
    check("graceful_close", Driver::Node4);
}

#[test]
fn probes_alarm_nobody() {
    check("health_checks", Driver::Rust);
}

#[test]
fn pools_that_replace_what_was_idle_alarm_nobody() {
    check("idle_recycling", Driver::Go18);
}

#[test]
fn more_instances_alarm_nobody() {
    check("scale_out", Driver::PyMongo4);
}
