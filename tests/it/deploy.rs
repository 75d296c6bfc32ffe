//! What `deploy/` holds is right: rules and configuration by promtool, the unit by systemd where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Agent, Driver, Mongod, Poolscope, Prometheus, eventually, eventually_equal, promtool, root,
};

const LIMIT: Duration = Duration::from_secs(20);

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn in_checkout(path: &str) -> String {
    root().join(path).display().to_string()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let rules = in_checkout("deploy/prometheus/alerts.yml");
    let config = in_checkout("deploy/prometheus/prometheus.yml");
    let tests = in_checkout("deploy/prometheus/alerts_test.yml");
    let checked = promtool(&["check", "rules", &rules], "").unwrap();
    let alerts = alerts();
    assert!(
        checked.contains(&format!("{} rules found", alerts.len())),
        "{checked}"
    );
    let recording = in_checkout("deploy/prometheus/recording.yml");
    let checked = promtool(&["check", "rules", &recording], "").unwrap();
    assert!(checked.contains("rules found"), "{checked}");
    let recorded = in_checkout("deploy/prometheus/recording_test.yml");
    promtool(&["test", "rules", &recorded], "").unwrap();
    promtool(&["check", "config", &config], "").unwrap();
    promtool(&["test", "rules", &tests], "").unwrap();
}

/// Names of the alerts.
fn alerts() -> BTreeSet<String> {
    let text = read("deploy/prometheus/alerts.yml");
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

#[test]
fn every_alert_is_seen_to_fire_and_to_stay_silent() {
    let tests = read("deploy/prometheus/alerts_test.yml");
    let silent: BTreeSet<_> = tests
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" }")?.split_once("alertname: "))
        .map(|(_, name)| name.to_owned())
        .collect();
    let firing: BTreeSet<_> = tests
        .split("- eval_time:")
        .filter(|case| case.contains("exp_alerts:"))
        .filter_map(|case| case.split_once("alertname: ")?.1.lines().next())
        .map(str::to_owned)
        .collect();
    assert_eq!(silent, alerts(), "of a steady service");
    assert_eq!(firing, alerts(), "of a fault");
}

/// Words that could be names of metrics; those of recorded series have colons.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
}

#[test]
fn every_metric_and_label_of_the_rules_is_in_the_catalogue() {
    let catalogue = read("src/metrics/CATALOGUE.md");
    let families: BTreeMap<&str, &str> = catalogue
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .collect();
    assert!(families.len() >= 50);
    for file in [
        "prometheus/alerts.yml",
        "prometheus/alerts_test.yml",
        "prometheus/recording.yml",
        "prometheus/recording_test.yml",
        "prometheus/prometheus.yml",
        "grafana/poolscope.json",
    ] {
        // A dashboard quotes its quotation marks.
        let text = read(&format!("deploy/{file}")).replace("\\\"", "\"");
        let used: BTreeSet<&str> = words(&text)
            .filter(|word| word.starts_with("poolscope_") || word.starts_with("process_"))
            .collect();
        assert!(
            used.len() >= 5 || file == "prometheus/prometheus.yml",
            "{file}: {used:?}"
        );
        for name in used {
            // A histogram is asked for by its buckets.
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(
                families.contains_key(family),
                "{file}: {name} is not in the catalogue"
            );
        }
        // The labels of a selector, those of the scrape aside, are labels of that family.
        for (name, row) in &families {
            for selector in text.split(&format!("{name}{{")).skip(1) {
                let selector = selector.split('}').next().unwrap();
                for label in selector
                    .split(',')
                    .filter_map(|pair| pair.split(['=', '!']).next())
                {
                    let label = label.trim();
                    let is_known =
                        row.contains(&format!("`{label}`")) || ["instance", "job"].contains(&label);
                    assert!(is_known, "{file}: {name} has no label {label}");
                }
            }
        }
    }
}

/// Every value of this name in a document.
fn values<'a>(value: &'a serde_json::Value, name: &str, found: &mut Vec<&'a str>) {
    for one in value.as_array().into_iter().flatten() {
        values(one, name, found);
    }
    for (key, one) in value.as_object().into_iter().flatten() {
        if key == name {
            found.extend(one.as_str());
        }
        values(one, name, found);
    }
}

#[test]
fn the_expressions_of_the_dashboard_are_understood_by_prometheus() {
    let dashboard = serde_json::from_str(&read("deploy/grafana/poolscope.json")).unwrap();
    let mut expressions = Vec::new();
    values(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() >= 12, "{expressions:?}");
    let rules = expressions.iter().zip(0..).map(|(expression, number)| {
        // What Grafana fills in.
        let expression = expression.replace("$__rate_interval", "5m");
        json!({ "record": format!("panel:{number}"), "expr": expression })
    });
    let rules: Vec<_> = rules.collect();
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dashboard.yml");
    // JSON is YAML, too.
    fs::write(&file, rules.to_string()).unwrap();
    let checked = promtool(&["check", "rules", &file.display().to_string()], "").unwrap();
    let found = format!("{} rules found", expressions.len());
    assert!(checked.contains(&found), "{checked}");
    let mut titles = Vec::new();
    values(&dashboard, "title", &mut titles);
    for panel in ["What goes wrong now", "Pooled connections", "Pool clears"] {
        assert!(titles.contains(&panel), "{titles:?}");
    }
}

/// The expression of each alert, on one line.
fn expressions() -> BTreeMap<String, String> {
    let text = read("deploy/prometheus/alerts.yml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let (name, rest) = rule.split_once('\n').unwrap();
        let expression = rest.split_once("expr: ").unwrap().1;
        let expression = expression.split("\n        for:").next().unwrap();
        let expression = expression.split("\n        labels:").next().unwrap();
        let words: Vec<&str> = expression
            .trim_start_matches(">-")
            .split_whitespace()
            .collect();
        (name.to_owned(), words.join(" "))
    });
    rules.collect()
}

#[test]
fn an_alert_turns_true_over_the_real_thing_and_the_others_do_not() {
    let mut mongod = Mongod::standalone();
    let proxy = Poolscope::start(&[mongod.addr()]);
    let prometheus = Prometheus::start(&[proxy.web_addr()]);
    let expressions = expressions();
    assert_eq!(
        expressions.keys().cloned().collect::<BTreeSet<_>>(),
        alerts()
    );
    let is_up = || {
        prometheus
            .query("up{job=\"poolscope\"}")
            .first()
            .map(|(_, value)| *value)
    };
    eventually_equal(LIMIT, &Some(1.0), is_up);
    let firing = || -> Vec<&str> {
        let firing = expressions
            .iter()
            .filter(|(_, expression)| !prometheus.query(expression).is_empty());
        firing.map(|(name, _)| name.as_str()).collect()
    };
    let mut agent = Agent::spawn(Driver::PyMongo4);
    agent.open("app", &proxy.uri("orders"));
    agent.submit(json!({
        "do": "run", "name": "app", "operation": "find", "seconds": 600, "concurrency": 4, "pause": 25,
    }));
    eventually(LIMIT, || {
        match proxy.sum("poolscope_requests_total", &[("command", "find")]) {
            served if served >= 200.0 => Ok(()),
            served => Err(format!("{served} finds")),
        }
    });
    assert_eq!(firing(), Vec::<&str>::new());

    // One alert, which names the cause, although dials fail and connections broke as well.
    mongod.kill();
    let failures = "sum(rate(poolscope_upstream_connect_failures_total[2m])) > 0";
    eventually_equal(LIMIT, &(1, vec!["PoolscopeIncidentCritical"]), || {
        (prometheus.query(failures).len(), firing())
    });
    let alert = prometheus.query(&expressions["PoolscopeIncidentCritical"]);
    assert_eq!(alert[0].0["cause"], "server_crash", "{alert:?}");
    let instances = alert.iter().map(|(_, instances)| format!("{instances}"));
    assert_eq!(instances.collect::<Vec<_>>(), ["1"], "{alert:?}");
}

const UNIT: &str = "deploy/systemd/poolscope.service";

/// The keys of the unit's section `[Service]`; each may come several times.
fn service() -> BTreeMap<String, Vec<String>> {
    let text = read(UNIT);
    let section = text.split_once("[Service]\n").unwrap().1;
    let section = section.split("\n[").next().unwrap();
    let mut keys = BTreeMap::<String, Vec<String>>::new();
    for line in section
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (key, value) = line.split_once('=').unwrap();
        keys.entry(key.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    keys
}

fn seconds(text: &str) -> u64 {
    let number = text.trim_end_matches('s').parse();
    number.unwrap_or_else(|_| panic!("{text} in seconds"))
}

#[test]
fn the_unit_is_hardened() {
    let keys = service();
    for (key, value) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectProc", "invisible"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("SystemCallArchitectures", "native"),
        ("LimitCORE", "0"),
        ("UMask", "0077"),
        ("KillSignal", "SIGTERM"),
        ("Restart", "on-failure"),
    ] {
        assert_eq!(keys.get(key), Some(&vec![value.to_owned()]), "{key}");
    }
    assert_eq!(keys["SystemCallFilter"][0], "@system-service");
}

fn poolscope(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_poolscope"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn the_unit_starts_what_there_is_and_gives_it_time_to_drain() {
    let keys = service();
    let example = in_checkout("config/poolscope.example.yaml");
    let in_force = poolscope(&["config", "check", "--config", &example]);
    let in_force = String::from_utf8(in_force.stdout).unwrap();
    let value = |key: &str| {
        let mut lines = in_force.lines().map(str::trim);
        let value = lines
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
            .unwrap_or_else(|| panic!("no {key} in {in_force}"));
        value.split_whitespace().next().unwrap().to_owned()
    };
    assert!(seconds(&keys["TimeoutStopSec"][0]) > seconds(&value("drain_timeout")));
    let descriptors: u64 = keys["LimitNOFILE"][0].parse().unwrap();
    let connections: u64 = value("max_connections").parse().unwrap();
    assert!(
        descriptors > 2 * connections,
        "{descriptors} for {connections} connections"
    );

    // The check before the start runs as it stands there; the start itself is accepted as far as its flags go,
    // and stops at an address that is none of this machine.
    let command = |key: &str| {
        let words: Vec<String> = keys[key][0].split(' ').map(str::to_owned).collect();
        let (program, args) = words.split_first().unwrap();
        assert_eq!(program, "/usr/local/bin/poolscope");
        args.iter()
            .map(|arg| arg.replace("/etc/poolscope/poolscope.yaml", &example))
            .collect::<Vec<_>>()
    };
    let before = command("ExecStartPre");
    let checked = poolscope(&before.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(checked.status.success(), "{checked:?}");
    let mut start = command("ExecStart");
    start.extend(
        [
            "--listen",
            "192.0.2.1:27018",
            "--upstream",
            "127.0.0.1:27017",
        ]
        .map(str::to_owned),
    );
    let started = poolscope(&start.iter().map(String::as_str).collect::<Vec<_>>());
    let error = String::from_utf8_lossy(&started.stderr);
    assert_eq!(
        started.status.code(),
        Some(1),
        "a usage error would be 2: {error}"
    );
    assert!(
        error.contains("failed to listen on 192.0.2.1:27018"),
        "{error}"
    );
}

#[test]
fn systemd_accepts_the_unit_where_there_is_systemd() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        println!("not shown here: this machine has no systemd-analyze");
        return;
    }
    // It wants to find what the unit starts.
    let unit = read(UNIT).replace("/usr/local/bin/poolscope", env!("CARGO_BIN_EXE_poolscope"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("poolscope.service");
    fs::write(&path, unit).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(analyze)
            .args(args)
            .arg(&path)
            .output()
            .unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(all).unwrap())
    };
    assert_eq!(run(&["--man=no", "verify"]), (true, String::new()));
    // Tenths of its scale from 0, locked up, to 10, unprotected.
    let (is_well, report) = run(&["security", "--offline=true", "--no-pager", "--threshold=15"]);
    assert!(is_well, "{report}");
}
