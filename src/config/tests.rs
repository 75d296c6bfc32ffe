//! Whole configurations: precedence, the example file, and what is refused.

use super::*;

const EXAMPLE: &str = include_str!("../../config/poolscope.example.yaml");
const ONE_LISTENER: &str =
    "listeners: [{listen: '127.0.0.1:27018', upstream: '127.0.0.1:27017'}]\n";

fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("poolscope.yaml");
    std::fs::write(&path, file).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags = Layer::from_flags(|flag| {
        let values: Vec<_> = flags
            .iter()
            .filter(|(name, _)| *name == flag)
            .map(|(_, value)| (*value).to_owned())
            .collect();
        (!values.is_empty()).then_some(values)
    });
    Config::load(Some(&path), environment, flags)
}

/// Loads a file with a good listener and `text`, and expects exactly these mistakes, without the directory.
fn check_refused(text: &str, expected: &[&str]) {
    let error = load(text, &[], &[]).expect_err(text);
    let found: Vec<String> = error
        .to_string()
        .lines()
        .map(|line| match line.rsplit_once("poolscope.yaml:") {
            Some((_, rest)) => rest.to_owned(),
            None => line.to_owned(),
        })
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn the_example_is_the_default() {
    let with_example = load(EXAMPLE, &[], &[]).unwrap().config;
    let with_nothing = load(ONE_LISTENER, &[], &[]).unwrap().config;
    assert_eq!(with_example, with_nothing);
    assert_eq!(with_nothing.limits, Limits::default());
    assert_eq!(with_nothing.log.format, LogFormat::default());
    assert_eq!(with_nothing.metrics_detail, MetricsDetail::default());
}

#[test]
fn every_key_stands_in_the_example_with_its_default() {
    for key in KEYS {
        let name = key.path.rsplit('.').next().unwrap();
        let expected = match key.default {
            Some(default) => format!("{name}: {default}"),
            None => format!("{name}:"),
        };
        assert!(
            EXAMPLE
                .lines()
                .any(|line| line.trim_start_matches([' ', '-']).starts_with(&expected)),
            "{expected:?} is missing"
        );
    }
    // Its own place, not only its name: removing the line of a key must change where its value comes from.
    let origins = load(EXAMPLE, &[], &[]).unwrap().origins;
    for key in KEYS.iter().filter(|key| !key.is_of_listener()) {
        assert!(
            matches!(origins.get(key.path), Some(Origin::File { .. })),
            "{} is not set by the example",
            key.path
        );
    }
}

#[test]
fn a_later_source_wins() {
    let file = format!("{ONE_LISTENER}connect_timeout: 1s\nkeepalive: 1m\nmax_clients: 7\n");
    let loaded = load(
        &file,
        &[
            ("POOLSCOPE_CONNECT_TIMEOUT", "2s"),
            ("POOLSCOPE_KEEPALIVE", "2m1s"),
        ],
        &[("connect-timeout", "3s")],
    )
    .unwrap();
    assert_eq!(loaded.config.connect_timeout, Duration::from_secs(3));
    assert_eq!(loaded.config.keepalive, Duration::from_secs(121));
    assert_eq!(loaded.config.limits.clients_max, 7);
    assert_eq!(
        loaded.origins["connect_timeout"],
        Origin::Flag("connect-timeout")
    );
    assert_eq!(
        loaded.origins["keepalive"],
        Origin::Environment("POOLSCOPE_KEEPALIVE")
    );
    assert!(matches!(
        loaded.origins["max_clients"],
        Origin::File {
            line: 4,
            column: 14,
            ..
        }
    ));
    assert_eq!(loaded.origins["client_ttl"], Origin::Default);
}

#[test]
fn listeners_of_a_later_source_replace_all_earlier_ones() {
    let environment = [
        ("POOLSCOPE_LISTEN", "127.0.0.1:1001 127.0.0.1:1002"),
        ("POOLSCOPE_UPSTREAM", "a:1 b:1"),
    ];
    let names = |loaded: Loaded| -> Vec<String> {
        let listeners = loaded.config.listeners.into_iter();
        listeners.map(|listener| listener.name).collect()
    };
    assert_eq!(
        names(load(ONE_LISTENER, &environment, &[]).unwrap()),
        ["a:1", "b:1"]
    );
    let flags = [
        ("listen", "127.0.0.1:0"),
        ("upstream", "c:1"),
        ("name", "third"),
        ("advertised", "mongo-0:27017,mongo-0.local:27017"),
    ];
    let loaded = load(ONE_LISTENER, &environment, &flags).unwrap();
    assert_eq!(
        loaded.config.listeners[0].advertised,
        ["mongo-0:27017", "mongo-0.local:27017"]
    );
    assert_eq!(names(loaded), ["third"]);
}

#[test]
fn an_unknown_variable_is_said_and_not_fatal() {
    let loaded = load(ONE_LISTENER, &[("POOLSCOPE_CONECT_TIMEOUT", "2s")], &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("POOLSCOPE_CONECT_TIMEOUT"));
}

#[test]
fn mistakes_of_the_file_are_told_with_their_place() {
    check_refused(
        &format!("{ONE_LISTENER}web:\n  listen: 127.0.0.1:1\n"),
        &["3:3: unknown field `listen`, expected one of listen_address"],
    );
    check_refused(
        &format!("{ONE_LISTENER}keepalive: 1m\nkeepalive: 2m\n"),
        &["3:1: duplicate mapping key `keepalive` is not allowed here"],
    );
    check_refused(
        &format!("{ONE_LISTENER}web: [\n"),
        &["2:6: expected mapping start"],
    );
    check_refused(
        "",
        &[
            "listeners: there is none; give --listen ADDR with --upstream HOST:PORT, or write listeners in the file",
        ],
    );
    let error = Config::load(Some(Path::new("/nonexistent/x.yaml")), [], Layer::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "/nonexistent/x.yaml: cannot be read: no such file or directory (os error 2)"
    );
}

#[test]
fn impossible_values_are_refused_all_at_once() {
    check_refused(
        &format!(
            "{ONE_LISTENER}connect_timeout: 0s\nkeepalive: 5\ndrain_timeout: 2h\nworkers: 0\nmax_clients: 0\n\
             client_ttl: soon\nmax_connections: -1\ncapture_limit: 16KB\ninflate_limit: 0B\n\
             metrics: {{detail: full}}\nlog: {{level: inof, format: xml}}\nweb:\n  listen_address: localhost:1\nobserve_budget: 0.5\n"
        ),
        &[
            "2:18: connect_timeout: 0s is less than the least possible value, 1ms",
            "3:12: keepalive: \"5\" has no unit; write ms, s, m, h or d behind the number",
            "4:16: drain_timeout: 2h is more than the greatest possible value, 1h",
            "5:10: workers: 0 is less than the least possible value, 1; or write auto",
            "14:19: web.listen_address: \"localhost:1\" is not an address to listen on, such as 127.0.0.1:27018 or [::1]:27018",
            "6:14: max_clients: 0 is less than the least possible value, 1",
            "7:13: client_ttl: \"soon\" is not a duration such as 250ms, 5s or 1m30s",
            "8:18: max_connections: \"-1\" is not a whole number",
            "9:16: capture_limit: \"16KB\" has an unknown unit; write B, KiB, MiB or GiB",
            "10:16: inflate_limit: 0B is less than the least possible value, 1KiB",
            "15:17: observe_budget: \"0.5\" is not a share such as 50%; or write off",
            "11:19: metrics.detail: \"full\" is not a detail; there are minimal and standard",
            "12:14: log.level: \"inof\" is not a level; there are off, error, warn, info, debug and trace, alone or as target=level",
            "12:28: log.format: \"xml\" is not a form of logs; there are human and json",
        ],
    );
}

#[test]
fn a_mistake_does_not_become_right_by_being_covered() {
    let file = format!("{ONE_LISTENER}keepalive: 0s\n");
    let error = load(&file, &[], &[("keepalive", "1m")]).unwrap_err();
    assert!(error.problems()[0].place.ends_with(":2:12"), "{error}");
}

#[test]
fn mistakes_of_environment_and_flags_name_them() {
    let error = load(
        ONE_LISTENER,
        &[("POOLSCOPE_WORKERS", "many")],
        &[("max-clients", "0"), ("listen", "127.0.0.1:1")],
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment POOLSCOPE_WORKERS: \"many\" is not a whole number; or write auto\n\
         flag --max-clients: 0 is less than the least possible value, 1\n\
         flag --listen: has no --upstream to go with it"
    );
}

#[test]
fn listeners_must_fit_together() {
    check_refused(
        "listeners:\n- listen: 127.0.0.1:1\n  upstream: db\n- upstream: db:1\n- listen: db:1\n  upstream: mongodb://db:1\n",
        &[
            "3:13: listeners[].upstream: \"db\" has no port; write host:port",
            "4:3: listener: has no listen",
            "5:11: listeners[].listen: \"db:1\" is not an address to listen on, such as 127.0.0.1:27018 or [::1]:27018",
            "6:13: listeners[].upstream: \"mongodb://db:1\" is a connection string; write one host:port",
        ],
    );
    check_refused(
        "listeners:\n- listen: 127.0.0.1:1\n  upstream: a:1\n- listen: 0.0.0.0:1\n  upstream: b:1\n  advertised: [x]\n- listen: '[::]:1'\n  upstream: c:1\n  name: 'a:1'\n",
        &[
            "6:16: listeners[].advertised: \"x\" has no port; write host:port",
            "9:9: listeners[].name: two upstreams are called \"a:1\"; give one of them a name of its own",
            "4:11: listeners[].listen: 0.0.0.0:1 is taken by the listener on 127.0.0.1:1",
        ],
    );
    check_refused(
        "listeners:\n- listen: 127.0.0.1:9604\n  upstream: a:1\n  name: 'a b'\n",
        &[
            "4:9: listeners[].name: ' ' cannot stand in a name; letters, digits and - _ . : / [ ] can",
        ],
    );
    check_refused(
        "listeners:\n- listen: 127.0.0.1:9604\n  upstream: a:1\n",
        &[
            "2:11: listeners[].listen: the listener on 127.0.0.1:9604 and the web address 127.0.0.1:9604 are the same",
        ],
    );
    check_refused(
        "listeners:\n- listen: 127.0.0.1:1\n  upstream: a:1\nweb:\n  listen_address: 0.0.0.0:1\n",
        &[
            "5:19: web.listen_address: the listener on 127.0.0.1:1 and the web address 0.0.0.0:1 are the same",
        ],
    );
    let many: Vec<String> = (1..=65)
        .map(|n| format!("- {{listen: '127.0.0.1:0', upstream: 'h{n}:1'}}"))
        .collect();
    check_refused(
        &format!("listeners:\n{}\n", many.join("\n")),
        &["66:3: listeners: there are 65, at most 64 are possible"],
    );
}

#[test]
fn an_upstream_that_is_ourselves_is_refused() {
    for (listen, upstream, is_ourselves) in [
        ("127.0.0.1:5", "127.0.0.1:5", true),
        ("127.0.0.1:5", "localhost:5", true),
        ("127.0.0.1:5", "LocalHost:5", true),
        ("127.0.0.1:5", "0.0.0.0:5", true),
        ("127.0.0.1:5", "[::ffff:127.0.0.1]:5", true),
        ("127.0.0.1:5", "127.0.0.1:6", false),
        ("127.0.0.1:5", "127.0.0.2:5", false),
        ("127.0.0.1:5", "10.0.0.1:5", false),
        ("127.0.0.1:5", "mongo:5", false),
        ("127.0.0.1:5", "[::1]:5", false),
        ("0.0.0.0:5", "127.0.0.1:5", true),
        ("0.0.0.0:5", "127.8.8.8:5", true),
        ("0.0.0.0:5", "localhost:5", true),
        ("0.0.0.0:5", "[::1]:5", false),
        ("[::1]:5", "[::1]:5", true),
        ("[::1]:5", "[::]:5", true),
        ("[::]:5", "[::1]:5", true),
        ("[::]:5", "127.0.0.1:5", true),
        ("[::]:5", "localhost:5", true),
        ("10.0.0.1:5", "localhost:5", false),
        ("10.0.0.1:5", "10.0.0.1:5", true),
        ("127.0.0.1:0", "127.0.0.1:5", false),
    ] {
        let file = format!("listeners: [{{listen: '{listen}', upstream: '{upstream}'}}]\n");
        let result = load(&file, &[], &[]);
        assert_eq!(
            result.is_err(),
            is_ourselves,
            "{listen} {upstream}: {result:?}"
        );
    }
    // The listener of another upstream, and the web address, are ourselves as well.
    check_refused(
        "listeners:\n- listen: 127.0.0.1:1\n  upstream: 127.0.0.1:2\n- listen: 127.0.0.1:2\n  upstream: localhost:9604\n",
        &[
            "3:13: listeners[].upstream: 127.0.0.1:2 is our own address 127.0.0.1:2: the proxy would call itself without end",
            "5:13: listeners[].upstream: localhost:9604 is our own address 127.0.0.1:9604: the proxy would call itself without end",
        ],
    );
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let file = "listeners:\n- {listen: '[::1]:5', upstream: '[::1]:6', name: a, advertised: ['x:1', 'y:2']}\n\
                connect_timeout: 1500ms\nworkers: 3\ncapture_limit: 1025B\nlog: {level: 'warn,poolscope=debug', format: json}\n";
    let loaded = load(file, &[], &[]).unwrap();
    let shown = loaded.to_string();
    let again = load(&shown, &[], &[]).unwrap();
    assert_eq!(again.config, loaded.config, "{shown}");
    assert_eq!(
        KEYS.iter()
            .filter(|key| !shown.contains(key.path.rsplit('.').next().unwrap()))
            .count(),
        0,
        "{shown}"
    );
}
