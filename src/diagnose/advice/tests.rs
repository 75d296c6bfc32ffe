//! Every cause has advice for every driver, and no setting is named that a version does not have.

mod known;

use super::settings::BY_SPECIFICATION;
use super::*;
use crate::time::Timestamp;
use known::KNOWN;

fn scene(drivers: &[Driver]) -> Scene {
    Scene {
        drivers: drivers.iter().copied().collect(),
        idle_age: None,
        answers_with_errors: true,
        address: "10.0.0.5:27018".to_owned(),
        since: "2026-11-24 03:47:52 UTC".to_owned(),
        until: "2026-11-24 03:51:52 UTC".to_owned(),
    }
}

fn idle(drivers: &[Driver], age: Duration, is_pause: bool) -> Scene {
    Scene {
        idle_age: Some(IdleAge { age, is_pause }),
        ..scene(drivers)
    }
}

fn driver(name: &str, version: &str) -> Driver {
    Driver::named(name, version, false)
}

fn legacy_pool() -> Driver {
    Driver::named("nodejs", "3.6.12", true)
}

fn unknown_driver() -> Driver {
    driver("mongo-csharp-driver", "2.19.0")
}

/// All drivers, and all of them together.
fn drivers() -> Vec<Vec<Driver>> {
    let known = KNOWN.map(|one| one.driver());
    let mut all: Vec<Driver> = known.into_iter().chain([unknown_driver()]).collect();
    let mut each: Vec<_> = all.iter().map(|driver| vec![*driver]).collect();
    all.sort();
    each.extend([all, vec![]]);
    each
}

/// All advice for a driver, whatever the cause and the age.
fn all_advice(drivers: &[Driver]) -> Vec<Advice> {
    let ages = [2_500, 60_000, 3_600_000].map(Duration::from_millis);
    let causes = |scene: Scene| {
        let advice = Cause::ALL
            .iter()
            .map(move |cause| for_cause(*cause, &scene));
        advice.flatten()
    };
    let scenes = ages.map(|age| idle(drivers, age, false));
    scenes.into_iter().flat_map(causes).collect()
}

fn commands(advice: &[Advice]) -> Vec<&str> {
    advice
        .iter()
        .filter_map(|one| one.command.as_deref())
        .collect()
}

/// What a piece of advice sets, in a connection string or with a constructor.
fn options(advice: &Advice) -> Vec<&str> {
    let command = advice.command.as_deref().unwrap_or_default();
    let (pairs, between, sign) = match advice.place {
        Some(Place::ConnectionString) => (Some(command), '&', '='),
        _ => (command.strip_prefix("new MongoClient(uri, {"), ',', ':'),
    };
    let pairs = pairs.into_iter().flat_map(|pairs| pairs.split(between));
    pairs
        .filter_map(|pair| Some(pair.split_once(sign)?.0.trim()))
        .collect()
}

#[test]
fn every_cause_has_advice_for_every_driver() {
    for drivers in drivers() {
        for cause in Cause::ALL {
            let advice = for_cause(*cause, &scene(&drivers));
            assert!(!advice.is_empty(), "{cause:?} {drivers:?}");
        }
        for one in all_advice(&drivers) {
            assert!(one.text.ends_with('.'), "{one:?}");
            assert!(!one.text.contains("  "), "{one:?}");
            assert_eq!(one.place.is_some(), one.command.is_some(), "{one:?}");
            let command = one.command.unwrap_or_default();
            assert!(
                !command.contains("  ") && !command.contains('\n'),
                "{command}"
            );
        }
    }
}

/// MongoDB's shell shows the last result of a line and none before.
#[test]
fn a_line_for_mongosh_has_one_result() {
    let is_for_mongosh = |one: &&Advice| one.place == Some(Place::Mongosh);
    let mut seen = 0;
    for one in all_advice(&[]).iter().filter(is_for_mongosh) {
        let command = one.command.as_deref().unwrap_or_default();
        let results = command.split("; ").filter(|part| {
            let does_something = ["var ", "sleep("].iter().any(|word| part.starts_with(word));
            !does_something
        });
        let is_caught = command.starts_with("try {");
        assert!(is_caught || results.count() == 1, "{command}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn no_option_is_named_that_the_version_lacks() {
    for one in &KNOWN {
        let driver = one.driver();
        let advice = all_advice(&[driver]);
        let named: BTreeSet<&str> = advice.iter().flat_map(options).collect();
        let known: BTreeSet<&str> = one.options.split(' ').collect();
        // All that it has serves some cause, so that the table lacks nothing either.
        assert_eq!(named, known, "{:?}", one.driver());
    }
}

#[test]
fn what_is_on_by_default_is_said_for_the_version() {
    for one in &KNOWN {
        let driver = one.driver();
        let advice = for_cause(Cause::Failover, &scene(&[driver]));
        let retries: Vec<_> = advice
            .iter()
            .filter(|one| one.text.contains("retried"))
            .collect();
        let has_retries = one.options.contains("retryWrites");
        assert_eq!(retries.len(), usize::from(has_retries), "{driver:?}");
        for said in retries {
            let is_on = said.text.contains("on unless switched off");
            assert_eq!(is_on, one.retries_writes, "{driver:?} {said:?}");
            let lacks = said.text.contains("reads are not retried");
            let command = said.command.as_deref().unwrap_or_default();
            assert_eq!(lacks, !command.contains("retryReads"), "{driver:?}");
        }
    }
}

#[test]
fn calls_are_those_of_the_version() {
    let check = |driver: Driver, has: &str, lacks: &str| {
        let advice = all_advice(&[driver]);
        let commands = commands(&advice).join("\n");
        assert!(commands.contains(has), "{driver:?} lacks {has}");
        assert!(!commands.contains(lacks), "{driver:?} has {lacks}");
    };
    check(driver("PyMongo", "3.13.0"), "max_time_ms", "timeoutMS");
    check(driver("PyMongo|c", "4.1.1"), "max_time_ms", "timeoutMS=");
    check(driver("PyMongo|c", "4.2.0"), "timeoutMS=", "max_time_ms");
    check(driver("nodejs", "7.9.0"), "maxTimeMS", "timeoutMS=");
    check(
        driver("nodejs", "6.22.0"),
        "keepAliveInitialDelay: 30000",
        "tcp_keepalive_time",
    );
    // Their own time, and no option for it; the kernel's, whatever they are told.
    for version in ["6.0.0", "4.17.2", "3.6.12"] {
        check(driver("nodejs", version), "", "keepAliveInitialDelay");
    }
    check(
        driver("nodejs", "3.6.12"),
        "retryReads: true",
        "retryReads=true",
    );
    check(
        driver("mongo-go-driver", "v1.8.4"),
        "SetMaxTime",
        "WithTimeout",
    );
    check(
        driver("mongo-go-driver", "2.0.0"),
        "timeoutMS=",
        "SetMaxTime",
    );
    check(
        driver("mongo-rust-driver", "2.8.2"),
        "FindOptions",
        "shutdown()",
    );
    check(driver("mongo-rust-driver", "3.9.1"), "shutdown()", "drop(");
}

#[test]
fn an_unknown_driver_is_told_nothing_for_sure() {
    let advice = all_advice(&[unknown_driver()]);
    let is_option =
        |one: &&Advice| matches!(one.place, Some(Place::ConnectionString | Place::Code));
    let mut seen = 0;
    for one in advice.iter().filter(is_option) {
        assert!(one.text.contains(BY_SPECIFICATION), "{one:?}");
        assert!(!one.text.contains("unless set"), "{one:?}");
        seen += 1;
    }
    assert!(seen > 0);
    let storm = for_cause(Cause::ReconnectStorm, &scene(&[unknown_driver()]));
    let places: Vec<_> = storm.iter().filter_map(|one| one.place).collect();
    assert_eq!(places, [Place::Shell, Place::Mongosh, Place::Mongosh]);
}

#[test]
fn several_drivers_are_told_apart() {
    let java = |version| driver("mongo-java-driver", version);
    let two = for_cause(Cause::Failover, &scene(&[java("3.6.2"), java("3.12.0")]));
    let texts: Vec<_> = two.iter().map(|one| one.text.as_str()).collect();
    let says = |of: &str| texts.iter().any(|text| text.ends_with(of));
    assert!(says(" For Java's driver 3.6."), "{texts:?}");
    assert!(says(" For Java's driver 3.12."), "{texts:?}");
    let one = for_cause(Cause::Failover, &scene(&[java("3.11.0"), java("3.12.0")]));
    assert!(one.iter().all(|one| !one.text.contains(" For ")), "{one:?}");
}

#[test]
fn what_keeps_idle_connections_is_below_their_age() {
    let number = |command: &str, option: &str| -> Option<u64> {
        let (_, rest) = command.split_once(option)?;
        let digits = rest.split(|sign: char| !sign.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    for seconds in [10, 11, 59, 60, 61, 240, 350, 3_600, 7_200, 86_400] {
        let age = Duration::from_secs(seconds);
        let scene = idle(&[driver("PyMongo|c", "4.20.0|")], age, false);
        let advice = for_cause(Cause::IdleCutoff, &scene);
        let commands = commands(&advice);
        let find = |option: &str| {
            let found: Vec<u64> = commands
                .iter()
                .filter_map(|command| number(command, option))
                .collect();
            assert_eq!(found.len(), 1, "{option} at {seconds} s: {commands:?}");
            found[0]
        };
        let limit = find("maxIdleTimeMS=");
        assert!(limit * 2 <= seconds * 1000 && limit >= 5_000, "{limit}");
        let time = find("tcp_keepalive_time=");
        let every = find("tcp_keepalive_intvl=");
        assert!(time * 2 <= seconds && every <= time, "{time} {every}");
        assert_eq!(find("POOLSCOPE_KEEPALIVE="), time);
    }
}

#[test]
fn an_age_of_seconds_is_not_what_pools_adapt_to() {
    let age = Duration::from_millis(2_500);
    for drivers in drivers() {
        let advice = for_cause(Cause::IdleCutoff, &idle(&drivers, age, false));
        let commands = commands(&advice).join("\n");
        assert!(!commands.contains("maxIdleTimeMS"), "{commands}");
        assert!(!commands.contains("keepalive"), "{commands}");
        let told = advice
            .iter()
            .any(|one| one.text.contains("An age of 2.5 s is too short"));
        assert!(told, "{advice:?}");
    }
}

#[test]
fn a_pause_is_no_age() {
    let pause = Duration::from_mins(30);
    let advice = for_cause(
        Cause::IdleCutoff,
        &idle(&[driver("nodejs", "6.22.0")], pause, true),
    );
    assert!(
        advice
            .iter()
            .any(|one| one.text.contains("some time in it")),
        "{advice:?}"
    );
}

#[test]
fn a_longer_idle_time_is_longer() {
    for (age, expected) in [(2, 600_000), (60, 600_000), (900, 3_600_000)] {
        let scene = idle(
            &[driver("nodejs", "6.22.0")],
            Duration::from_secs(age),
            false,
        );
        let advice = for_cause(Cause::IdleRecycling, &scene);
        let expected = format!("maxIdleTimeMS={expected}&minPoolSize=2");
        assert_eq!(commands(&advice), [expected]);
    }
}

#[test]
fn ages_are_those_of_what_the_incident_is_about() {
    let cut = |by_server, at_first_use, pauses| SignalKind::EqualIdleAge {
        age: Duration::from_mins(1),
        spread: Duration::ZERO,
        closed: 3,
        in_flight: 0,
        by_server,
        at_first_use,
        pauses,
        is_unacknowledged: false,
    };
    let of = |kind: &SignalKind, cause| IdleAge::of(kind, cause).map(|idle| idle.age.as_secs());
    let pauses = Some((Duration::from_secs(90), Duration::from_secs(100)));
    assert_eq!(of(&cut(true, false, pauses), Cause::IdleCutoff), Some(60));
    assert_eq!(of(&cut(false, true, pauses), Cause::IdleCutoff), Some(90));
    // A time-out of the client is no idle time.
    assert_eq!(of(&cut(false, false, None), Cause::IdleCutoff), None);
    let recycled = SignalKind::IdleRecycling {
        age: Duration::from_secs(5),
        closed: 3,
    };
    assert_eq!(of(&recycled, Cause::IdleRecycling), Some(5));
    assert_eq!(of(&recycled, Cause::IdleCutoff), None);
}

#[test]
fn storms_are_told_what_ends_them() {
    for one in &KNOWN {
        let driver = one.driver();
        let advice = for_cause(Cause::ReconnectStorm, &scene(&[driver]));
        let says = |word: &str| advice.iter().any(|one| one.text.contains(word));
        assert!(says("one client for the life of the process"), "{advice:?}");
        assert!(says("wait longer after each failure"), "{driver:?}");
        let commands = commands(&advice).join("\n");
        let has_limit = commands.contains("maxConnecting");
        assert_eq!(
            has_limit,
            one.options.contains("maxConnecting"),
            "{driver:?}"
        );
    }
}

#[test]
fn the_message_is_looked_for_where_its_trigger_puts_it() {
    let logged = |trigger: DestroyTrigger| Logged {
        message: "Pool was force destroyed".to_owned(),
        client: crate::diagnose::ClientName {
            address: "10.0.0.11".into(),
            app: "orders".into(),
        },
        wire_at: Timestamp::default(),
        from: Timestamp::default(),
        until: None,
        failed: crate::diagnose::Failures::Unknown,
        basis: String::new(),
        hanging: 0,
        hanging_commands: crate::timeline::Commands::default(),
        trigger: trigger.label().to_owned(),
    };
    let forced = logged(DestroyTrigger::ForcedClose);
    let crashed = logged(DestroyTrigger::PrimaryCrash);
    let later = |all: &[Logged]| where_to_look(all).contains("later than the event");
    let around = |all: &[Logged]| where_to_look(all).contains("before it or after");
    let both = [forced.clone(), crashed.clone()];
    let (forced, crashed) = ([forced], [crashed]);
    assert!(around(&forced) && !later(&forced));
    assert!(later(&crashed) && !around(&crashed));
    assert!(around(&both) && later(&both));
}

#[test]
fn the_unified_topology_is_named_to_versions_that_have_it() {
    let told = |version| {
        let legacy = Driver::named("nodejs", version, true);
        in_place_of_legacy_pools(&scene(&[legacy])).map(|one| one.command.is_some())
    };
    assert_eq!(told("2.2.36"), Some(false));
    assert_eq!(told("3.6.12"), Some(true));
    assert_eq!(
        in_place_of_legacy_pools(&scene(&[driver("nodejs", "4.0.0")])),
        None
    );
}

#[test]
fn a_legacy_pool_may_have_ended_its_process() {
    let is_named = |driver| {
        let advice = for_cause(Cause::AppCrash, &scene(&[driver]));
        let mut commands = advice.iter().filter_map(|one| one.command.as_deref());
        commands.any(|command| command.contains("uncaughtException"))
    };
    assert!(is_named(legacy_pool()));
    assert!(!is_named(driver("nodejs", "4.17.2")));
}

#[test]
fn commands_name_the_server_at_hand() {
    let advice = for_cause(Cause::NetworkBlackhole, &scene(&[]));
    assert_eq!(
        advice[0].command.as_deref(),
        Some("mtr -rwbzT -P 27018 10.0.0.5")
    );
    let mut six = scene(&[]);
    six.address = "[fd00::5]:27017".to_owned();
    assert_eq!((six.host(), six.port()), ("fd00::5", "27017"));
}

#[test]
fn the_search_finds_every_message_of_a_destroyed_pool() {
    let (_, pattern) = DESTROYED_IN_LOG.split_once("grep -niE '").unwrap();
    let (pattern, _) = pattern.split_once('\'').unwrap();
    let pattern = pattern.to_lowercase();
    // Every `MongoError` of mongodb 3.6.12 that tells of one.
    for message in [
        "Pool was force destroyed",
        "pool destroyed",
        "server instance pool was destroyed",
        "Cannot create connection when pool is destroyed",
        "topology was destroyed",
        "Topology was destroyed",
    ] {
        let line = format!("MongoError: {message}").to_lowercase();
        let mut parts = pattern.split('|');
        assert!(parts.any(|part| line.contains(part)), "{message}");
    }
    assert!(DESTROYED_IN_LOG.ends_with("' application.log"));
}
