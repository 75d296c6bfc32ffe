use super::*;
use crate::clients::Numbering;
use crate::clients::numbering::Introduction;
use crate::clients::processes::Processes;
use crate::connection::ClientMetadata;
use crate::wire::Compressor;

const HEARTBEAT: Duration = Duration::from_secs(10);

fn milli(millis: u64) -> Timestamp {
    Timestamp::default() + Duration::from_millis(millis)
}

fn metadata(driver: &str) -> ClientMetadata {
    let (name, version, platform) = match driver {
        "node6" => ("nodejs", "6.22.0", "Node.js v18, LE"),
        "node36" => (
            "nodejs|Mongoose",
            "3.6.12|5.13",
            "'Node.js v18, LE (unified)",
        ),
        "legacy" => ("nodejs", "3.6.12", "'Node.js v18, LE (legacy)"),
        "rust" => ("mongo-rust-driver", "3.9.1", "rustc 1.90"),
        "pymongo" => ("PyMongo|c", "4.20.0|", "CPython 3.11"),
        "async" => ("PyMongo|c|async", "4.20.0||", "CPython 3.11"),
        "php" => ("mongoc / ext-mongodb:PHP ", "1.23.1 / 1.15", "PHP 8.2"),
        "go" => ("mongo-go-driver", "v1.8.4", "go1.19"),
        "java" => ("mongo-java-driver|legacy", "3.6.3", "Java"),
        "ruby-pool" => ("mongo-ruby-driver", "2.20.0", "Ruby 3.2, x86_64, A"),
        "ruby-push" => ("mongo-ruby-driver", "2.20.0", "Ruby 3.2, x86_64, P"),
        "raw" => ("", "", ""),
        other => panic!("no driver of these tests: {other}"),
    };
    ClientMetadata {
        driver_name: name.to_owned(),
        driver_version: version.to_owned(),
        platform: platform.to_owned(),
        ..ClientMetadata::default()
    }
}

fn sibling(driver: &str, id: u64, opened_ms: u64, told: Role) -> Sibling {
    Sibling {
        id: ConnectionId(id),
        opened_at: milli(opened_ms),
        told,
        is_answered: true,
        answered_at: Some(milli(opened_ms + 1)),
        was_found_pooled: false,
        has_worked: told == Application,
        has_said_goodbye: false,
        is_cut: false,
        heartbeat: None,
        traits: Traits::of(&metadata(driver)),
    }
}

/// Connections of one driver, opened at these milliseconds, with these told roles.
fn siblings(driver: &str, members: &[(u64, Role)]) -> Vec<Sibling> {
    let members = members.iter().zip(1..);
    members
        .map(|((opened_ms, told), id)| sibling(driver, id, *opened_ms, *told))
        .collect()
}

fn family(siblings: &[Sibling]) -> Family {
    Family::new(siblings, hints(siblings), HEARTBEAT)
}

fn hints(siblings: &[Sibling]) -> Hints {
    let mut hints = Hints::default();
    let pooled = siblings.iter().filter(|one| one.told == Application);
    pooled.for_each(|one| hints.pooled(one.traits));
    hints
}

fn roles(siblings: &[Sibling], at_ms: u64) -> Vec<Role> {
    let family = family(siblings);
    let siblings = siblings.iter();
    siblings
        .map(|sibling| family.role(sibling, milli(at_ms)))
        .collect()
}

use Role::{Application, Monitor, RoundTripMonitor as RoundTrip, Unknown};

fn check_live(driver: &str, at_ms: u64, members: &[(u64, Role)], expected: &[Role]) {
    let siblings = siblings(driver, members);
    assert_eq!(roles(&siblings, at_ms), expected, "{driver}");
}

/// All members end at `at_ms`, in every rotation of their order and backwards; the number counted as
/// pooled must not depend on it.
fn check_closed(driver: &str, at_ms: u64, members: &[(u64, Role)], pooled: usize) {
    check_ended(driver, at_ms, &siblings(driver, members), pooled);
}

/// The same with a goodbye on each used connection.
fn check_left(driver: &str, at_ms: u64, members: &[(u64, Role)], pooled: usize) {
    let mut all = siblings(driver, members);
    for one in &mut all {
        one.has_said_goodbye = one.told == Application;
    }
    check_ended(driver, at_ms, &all, pooled);
}

/// Each ends at its time, in this order; so many count as pooled.
fn count_pooled(endings: impl Iterator<Item = (Sibling, u64)>) -> usize {
    let (mut open, times): (Vec<_>, Vec<_>) = endings.unzip();
    let hints = hints(&open);
    let mut departed = Departed::default();
    let mut counted = 0;
    for at_ms in times {
        let ending = open[0];
        let family = Family::new(&open, hints, HEARTBEAT);
        let role = family.final_role(&ending, &departed, milli(at_ms));
        departed.ended(&ending, role, milli(at_ms));
        counted += usize::from(ending.is_pooled(role));
        open.remove(0);
    }
    counted
}

fn check_ended(driver: &str, at_ms: u64, all: &[Sibling], pooled: usize) {
    for start in 0..all.len() {
        for is_backwards in [false, true] {
            let mut open = all.to_vec();
            open.rotate_left(start);
            if is_backwards {
                open.reverse();
            }
            let counted = count_pooled(open.iter().map(|one| (*one, at_ms)));
            assert_eq!(counted, pooled, "{driver} from {start}, {is_backwards}");
        }
    }
}

#[test]
fn connections_opened_in_advance_are_pooled_after_a_silent_heartbeat() {
    let members = [(0, Monitor), (50, Unknown), (90, Unknown), (95, Unknown)];
    check_live(
        "rust",
        5000,
        &members,
        &[Monitor, Unknown, Unknown, Unknown],
    );
    let members = [(0, Monitor), (50, RoundTrip), (90, Unknown), (95, Unknown)];
    check_live(
        "rust",
        10_100,
        &members,
        &[Monitor, RoundTrip, Unknown, Unknown],
    );
    check_live(
        "rust",
        12_097,
        &members,
        &[Monitor, RoundTrip, Application, Application],
    );
}

#[test]
fn node_opens_its_round_trip_connection_one_heartbeat_later() {
    let members = [(0, Monitor), (60, Unknown), (9990, Unknown)];
    check_live("node6", 5000, &members[..2], &[Monitor, Unknown]);
    check_live("node6", 12_100, &members, &[Monitor, Application, Unknown]);
    check_closed("node6", 5000, &members[..2], 1);
    check_closed("node6", 11_000, &members, 1);
    check_closed("node36", 11_000, &members, 1);
    // Its own monitor speaks half a second after its handshake.
    check_live("node6", 400, &[(0, Unknown)], &[Unknown]);
}

#[test]
fn a_pool_closed_before_anyone_spoke_is_counted_whatever_the_order() {
    let with_pool = [(0, Monitor), (40, Unknown), (80, Unknown), (81, Unknown)];
    check_closed("rust", 3000, &with_pool, 2);
    let used = [
        (0, Monitor),
        (40, Unknown),
        (80, Application),
        (81, Unknown),
    ];
    check_closed("rust", 3000, &used, 2);
    let two_clients = [
        (0, Monitor),
        (1, Unknown),
        (100, Monitor),
        (101, Unknown),
        (200, Application),
        (201, Application),
    ];
    check_closed("rust", 3000, &two_clients, 2);
    let told = [(0, Monitor), (40, RoundTrip), (80, Unknown), (81, Unknown)];
    check_closed("rust", 3000, &told, 2);
}

#[test]
fn clients_closed_before_their_monitor_spoke_have_one_monitor_each() {
    check_closed("node6", 300, &[(0, Unknown), (20, Application)], 1);
    let concurrent = [
        (0, Unknown),
        (1, Unknown),
        (20, Application),
        (21, Application),
    ];
    // One client whose process was killed: what its pool opened in advance is no monitor.
    check_closed("node6", 300, &concurrent, 3);
    // Two clients, each of which said goodbye.
    check_left("node6", 300, &concurrent, 2);
    let with_pool = [
        (0, Unknown),
        (20, Application),
        (21, Unknown),
        (22, Unknown),
    ];
    check_closed("node6", 300, &with_pool, 3);
}

#[test]
fn a_pool_may_be_filled_before_the_monitor_is_answered() {
    let mut all = siblings(
        "node36",
        &[
            (2, Application),
            (0, Unknown),
            (3, Application),
            (14, Unknown),
        ],
    );
    all[0].has_said_goodbye = true;
    all[1].answered_at = Some(milli(6));
    check_ended("node36", 80, &all, 3);
    // No other driver does that: what was answered before is missing, and nothing takes its place.
    for one in &mut all {
        one.traits = Traits::of(&metadata("rust"));
    }
    check_ended("rust", 80, &all, 4);
}

#[test]
fn who_is_gone_at_once_replaced_no_monitor() {
    let members = [
        (10, Monitor),
        (10, Unknown),
        (11, Application),
        (12, Application),
        (12, Unknown),
    ];
    for driver in ["go", "rust"] {
        check_left(driver, 15, &members, 3);
        check_left(driver, 40, &members, 3);
    }
}

#[test]
fn a_monitor_that_showed_itself_goes_with_the_goodbye_beside_it() {
    let mut all = siblings(
        "node6",
        &[
            (0, Monitor),
            (70, Application),
            (72, Unknown),
            (170, Application),
        ],
    );
    all[3].has_said_goodbye = true;
    let pooled_of = |ended: &[(usize, u64)]| {
        count_pooled(ended.iter().map(|(which, at_ms)| (all[*which], *at_ms)))
    };
    // Although another was opened nearer to the goodbye.
    assert_eq!(pooled_of(&[(0, 1243), (1, 1243), (3, 1243), (2, 1243)]), 3);
    assert_eq!(pooled_of(&[(3, 1243), (1, 1243), (0, 1244), (2, 1244)]), 3);
    // One that ended long before was not of the client that said goodbye.
    assert_eq!(pooled_of(&[(0, 600), (3, 1243), (1, 1243), (2, 1243)]), 2);
}

#[test]
fn a_pool_that_grew_before_the_goodbye_has_the_monitor_it_always_had() {
    let mut all = siblings(
        "node36",
        &[
            (0, Monitor),
            (10_000, RoundTrip),
            (20_000, Application),
            (60_000, Application),
            (60_000, Unknown),
            (60_001, Unknown),
        ],
    );
    all[3].has_said_goodbye = true;
    check_ended("node36", 60_400, &all, 4);
}

#[test]
fn what_is_opened_when_the_monitor_was_lost_is_the_next_attempt() {
    let role_of = |opened_ms, ended_ms| {
        let mut departed = Departed::default();
        departed.ended(&sibling("rust", 1, 0, Monitor), Monitor, milli(5000));
        departed.ended(&sibling("rust", 2, 1, RoundTrip), RoundTrip, milli(5000));
        let open = [sibling("rust", 9, opened_ms, Unknown)];
        family(&open).final_role(&open[0], &departed, milli(ended_ms))
    };
    assert_eq!(role_of(5001, 5300), Monitor);
    assert_eq!(role_of(4998, 5300), Monitor);
    // It was opened before, so it is not in place of that monitor: both went with their process.
    assert_eq!(role_of(4980, 5000), Application);

    let mut departed = Departed::default();
    departed.ended(&sibling("node6", 1, 0, Monitor), Monitor, milli(5000));
    // Attempts that nobody answered make no server known, however long they are there.
    for (id, opened_ms, ended_ms) in [(2, 5001, 8000), (3, 7000, 9000), (4, 9001, 9100)] {
        let open = [Sibling {
            is_answered: false,
            ..sibling("node6", id, opened_ms, Unknown)
        }];
        let role = family(&open).final_role(&open[0], &departed, milli(ended_ms));
        assert_eq!(role, Monitor, "{opened_ms}");
        departed.ended(&open[0], role, milli(ended_ms));
    }
    // Once a monitor is answered, others are pooled.
    let open = [
        sibling("node6", 5, 9500, Monitor),
        sibling("node6", 6, 9520, Unknown),
    ];
    departed.expire(milli(12_000));
    let role = family(&open).final_role(&open[1], &departed, milli(12_000));
    assert_eq!(role, Application);
}

#[test]
fn a_monitor_that_was_replaced_lacks_nothing() {
    // Its pool is cleared each half a second, and with it the monitor is replaced; the round-trip monitor stays.
    let mut departed = Departed::default();
    for (id, opened_ms, ended_ms) in [(1, 0, 5000), (3, 5001, 5500), (4, 5501, 6000)] {
        let monitor = sibling("rust", id, opened_ms, Monitor);
        departed.ended(&monitor, Monitor, milli(ended_ms));
    }
    let open = [
        sibling("rust", 2, 1, RoundTrip),
        sibling("rust", 5, 6001, Monitor),
        sibling("rust", 6, 6020, Unknown),
    ];
    let role = family(&open).final_role(&open[2], &departed, milli(6500));
    assert_eq!(role, Application, "never used before the next clear");
    // What was opened with a monitor that ended since may be its round-trip monitor.
    let open = [sibling("rust", 7, 5520, Unknown)];
    let role = family(&open).final_role(&open[0], &departed, milli(6001));
    assert_eq!(role, RoundTrip);
}

#[test]
fn jobs_one_after_the_other_have_two_monitors_each() {
    // Every three seconds a client that opens a pool of two, one of which it never uses, and closes all. Either monitor
    // may be accepted first.
    let mut departed = Departed::default();
    for round in 0..6 {
        let start = round * 3000;
        let (stream, measure) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
        let id = 4 * round;
        let members = [
            sibling("rust", id + 1, start + stream, Monitor),
            sibling("rust", id + 2, start + measure, Unknown),
            sibling("rust", id + 3, start + 5, Unknown),
            sibling("rust", id + 4, start + 6, Application),
        ];
        let end = milli(start + 2000);
        departed.ended(&members[3], Application, end);
        departed.ended(&members[0], Monitor, end);
        let family = family(&members[1..3]);
        let roles = [1, 2].map(|place| {
            let role = family.final_role(&members[place], &departed, end);
            departed.ended(&members[place], role, end);
            role
        });
        assert_eq!(roles, [RoundTrip, Application], "round {round}");
    }
}

#[test]
fn a_short_lived_client_beside_a_long_lived_one_has_its_own_monitor() {
    let open = [
        sibling("node6", 1, 0, Monitor),
        sibling("node6", 2, 60, Application),
        sibling("node6", 3, 10_000, RoundTrip),
        sibling("node6", 4, 60_000, Unknown),
        sibling("node6", 5, 60_020, Application),
    ];
    let role = family(&open).final_role(&open[3], &Departed::default(), milli(60_300));
    assert_eq!(role, Monitor);
}

#[test]
fn clients_one_after_the_other_have_one_monitor_each() {
    let mut departed = Departed::default();
    for round in 0..50 {
        let start = round * 400;
        let mut open = [
            sibling("node6", 2 * round, start, Unknown),
            sibling("node6", 2 * round + 1, start + 20, Application),
        ];
        open[1].has_said_goodbye = true;
        let at = milli(start + 300);
        let monitor = family(&open).final_role(&open[0], &departed, at);
        departed.ended(&open[0], monitor, at);
        assert_eq!(monitor, Monitor, "round {round}");
        departed.ended(&open[1], Application, at);
    }
}

#[test]
fn some_monitors_speak_before_their_client_is_closed_and_some_do_not() {
    let mut departed = Departed::default();
    for round in 0..20 {
        let start = round * 700;
        let spoke = if round % 2 == 0 { Monitor } else { Unknown };
        let mut open = [
            sibling("node6", 2 * round, start, spoke),
            sibling("node6", 2 * round + 1, start + 20, Application),
        ];
        open[1].has_said_goodbye = true;
        let at = milli(start + 600);
        let monitor = family(&open).final_role(&open[0], &departed, at);
        departed.ended(&open[0], monitor, at);
        assert_eq!(monitor, Monitor, "round {round}");
        departed.ended(&open[1], Application, at);
    }
}

#[test]
fn drivers_without_monitors_have_pooled_connections_only() {
    let members = [(0, RoundTrip), (10, Unknown)];
    check_live("legacy", 50, &members, &[Application, Application]);
    check_live("php", 50, &members, &[Application, Application]);
    check_closed("legacy", 50, &members, 2);
    let balanced = ClientMetadata {
        load_balanced: true,
        ..metadata("node6")
    };
    assert!(Traits::of(&balanced).lacks_monitors());
    assert!(!Traits::of(&metadata("node36")).lacks_monitors());
    let old = ClientMetadata {
        driver_version: "3.3.5".to_owned(),
        ..metadata("node6")
    };
    assert!(Traits::of(&old).lacks_monitors());
}

#[test]
fn a_lone_plain_hello_is_a_polling_monitor() {
    let members = [(0, RoundTrip), (30, Application), (40, Unknown)];
    check_live("rust", 5000, &members, &[Monitor, Application, Unknown]);
    check_closed("rust", 5000, &members, 2);
}

#[test]
fn what_the_pool_does_and_monitors_do_not_decides_at_once() {
    // The pool of asynchronous PyMongo has another name than its monitors.
    let mut members = vec![
        sibling("pymongo", 1, 0, Monitor),
        sibling("pymongo", 2, 5, Unknown),
        sibling("async", 3, 9, Unknown),
        sibling("async", 4, 10, Application),
    ];
    assert_eq!(
        roles(&members, 100),
        [Monitor, RoundTrip, Application, Application]
    );

    // PyMongo's pool offers compressors, its monitors do not.
    let mut offering = metadata("pymongo");
    offering.compressors_offered = vec![Compressor::Zstd];
    members.truncate(2);
    members.push(Sibling {
        traits: Traits::of(&offering),
        ..sibling("pymongo", 3, 9, Unknown)
    });
    assert_eq!(roles(&members, 100), [Monitor, Unknown, Application]);
    members[2].told = Application;
    assert_eq!(roles(&members, 100), [Monitor, RoundTrip, Application]);

    // Monitors never authenticate.
    let mut members = siblings("rust", &[(0, Monitor), (5, Unknown), (9, Application)]);
    members[2].traits.has_authenticated = true;
    assert_eq!(roles(&members, 3000), [Monitor, RoundTrip, Application]);
    // A server that was silent for long leaves it no time before.
    members[1].answered_at = Some(milli(2_900));
    assert_eq!(family(&members).evident(&members[1], milli(3_000)), None);
    assert_eq!(
        family(&members).evident(&members[1], milli(4_900)),
        Some(RoundTrip)
    );
    // While the server is silent, nobody can.
    members[1].is_answered = false;
    assert_eq!(family(&members).evident(&members[1], milli(3000)), None);

    // Nor do they announce it.
    let mut members = siblings("node6", &[(0, Unknown), (5, Unknown), (9, Application)]);
    assert_eq!(roles(&members, 10), [Unknown, Unknown, Application]);
    for pooled in &mut members[1..] {
        pooled.traits.announces_credentials = true;
    }
    assert_eq!(roles(&members, 10), [Monitor, Unknown, Application]);

    // Another client's, which is too early for a round-trip monitor: that comes a heartbeat later.
    let opened = [
        (0, Monitor),
        (5, Application),
        (430, Unknown),
        (9_500, Unknown),
    ];
    let mut members = siblings("node6", &opened);
    members[1].traits.announces_credentials = true;
    assert_eq!(
        roles(&members, 9_600),
        [Monitor, Application, Unknown, RoundTrip]
    );
    let at = milli(9_600);
    let role = family(&members).final_role(&members[2], &Departed::default(), at);
    assert_eq!(role, Monitor);

    let members = [
        sibling("ruby-pool", 1, 0, Unknown),
        sibling("ruby-push", 2, 0, Unknown),
    ];
    assert_eq!(roles(&members, 1), [Application, Monitor]);
}

#[test]
fn the_slowest_monitor_says_how_long_silence_may_last() {
    let told = |id, seconds| Sibling {
        heartbeat: Some(Duration::from_secs(seconds)),
        ..sibling("rust", id, 0, Monitor)
    };
    let members = [
        told(1, 60),
        told(2, 10),
        sibling("rust", 3, 0, Unknown),
        sibling("rust", 4, 0, RoundTrip),
        sibling("rust", 5, 0, RoundTrip),
    ];
    // With the interval of the quicker one, or the one remembered, it is pooled after twelve seconds.
    assert_eq!(roles(&members[1..], 15_000)[1], Application);
    assert_eq!(roles(&members[2..], 15_000)[0], Application);
    assert_eq!(roles(&members, 15_000)[2], Unknown);
    assert_eq!(roles(&members, 72_002)[2], Application);
}

#[test]
fn a_late_round_trip_monitor_is_not_taken_for_pooled() {
    // Nobody measured round trips yet: either silent one may be about to.
    let members = [(0, Monitor), (50, Unknown), (90, Unknown)];
    check_live("rust", 29_000, &members, &[Monitor, Unknown, Unknown]);
    check_live(
        "rust",
        30_100,
        &members,
        &[Monitor, Application, Application],
    );
    // Once found to be pooled it stays that, whoever comes later.
    let mut members = siblings("rust", &[(0, Monitor), (50, RoundTrip), (90, Unknown)]);
    assert_eq!(roles(&members, 12_100)[2], Application);
    members[2].was_found_pooled = true;
    members.push(sibling("rust", 4, 12_200, Monitor));
    assert_eq!(roles(&members, 12_300)[2], Application);
}

#[test]
fn a_tool_is_pooled_when_it_works() {
    let mut tool = sibling("node6", 1, 0, Role::Tool);
    assert!(!tool.is_pooled(Role::Tool));
    tool.has_worked = true;
    assert!(tool.is_pooled(Role::Tool));
    assert!(!tool.is_pooled(RoundTrip));
}

#[test]
fn a_handshake_without_metadata_is_nobodys_pool() {
    check_live("raw", 60_000, &[(0, Unknown)], &[Unknown]);
    check_closed("raw", 60_000, &[(0, Unknown), (1, Unknown)], 0);
}

#[test]
fn a_monitor_is_not_dialled_more_often_than_its_interval() {
    // A server at its limit refuses what a pool waits for, hundreds of times a second, once the monitor is lost.
    let mut departed = Departed::default();
    departed.ended(&sibling("node6", 1, 0, Monitor), Monitor, milli(10_000));
    let mut counted = 0;
    for (id, opened_ms) in (2..).zip([10_010, 10_012, 10_014, 10_016, 10_018, 10_520]) {
        let mut attempt = sibling("node6", id, opened_ms, Unknown);
        attempt.is_answered = false;
        let siblings = [attempt];
        let at = milli(opened_ms + 2);
        let role = family(&siblings).final_role(&attempt, &departed, at);
        departed.ended(&attempt, role, at);
        counted += usize::from(role == Monitor);
    }
    // One and its retry, and another half a second later.
    assert_eq!(counted, 3);
}

#[test]
fn what_a_process_lost_is_no_concern_of_the_others() {
    let introduction = |millis| {
        let at = milli(millis);
        Introduction::new(Numbering::CountedApart, 1, at, at).unwrap()
    };
    let mut processes = Processes::default();
    let [one, other] = [1_000, 5_000].map(|millis| processes.introduced(introduction(millis)));
    let of = |process, mut sibling: Sibling| {
        sibling.traits.process = Some(process);
        sibling
    };
    // One has lost its monitor a second before; the other's was answered, and let a pool be filled that is turned away.
    let mut departures = Departures::default();
    let lost = of(one, sibling("node36", 1, 9_000, Unknown));
    departures.ended(&lost, Monitor, milli(9_050));
    let there = of(other, sibling("node36", 2, 10_000, Unknown));
    let refused = |process, id, opened_ms| {
        let mut refused = of(process, sibling("node36", id, opened_ms, Unknown));
        (refused.is_answered, refused.is_cut) = (false, true);
        refused.answered_at = None;
        refused
    };
    let all = [
        there,
        refused(other, 3, 10_010),
        refused(one, 4, 10_011),
        refused(other, 5, 10_012),
    ];
    let families = Families::new(&all, Hints::default(), HEARTBEAT);
    let roles = all.map(|one| families.final_role(&one, &departures, milli(10_020)));
    // The first that a process opens is its monitor.
    assert_eq!(roles, [Monitor, Application, Monitor, Application]);
}

#[test]
fn who_still_tries_has_lost_its_monitor_however_long_ago() {
    for driver in ["node36", "node6", "pymongo", "go", "rust"] {
        let mut departed = Departed::default();
        departed.ended(&sibling(driver, 1, 0, Monitor), Monitor, milli(10_000));
        let mut judged = |opened_ms: u64| {
            let mut attempt = sibling(driver, opened_ms, opened_ms, Unknown);
            (attempt.is_answered, attempt.is_cut) = (false, true);
            attempt.answered_at = None;
            let at = milli(opened_ms + 2);
            departed.expire(at);
            let used = sibling(driver, 2, 10, Application);
            let role = family(&[used, attempt]).final_role(&attempt, &departed, at);
            departed.ended(&attempt, role, at);
            role
        };
        // A server at its limit turns its client away each half second, for five minutes.
        let roles: Vec<Role> = (21..620).map(|half| judged(half * 505)).collect();
        assert!(roles.iter().all(|role| *role == Monitor), "{driver}");
        // What follows long after the last attempt is not told from a pool that grows.
        judged(400_000);
        assert_eq!(judged(400_505), Application, "{driver}");
    }
}

#[test]
fn a_monitor_makes_one_attempt_at_a_time() {
    // A server that was frozen: its monitor is given up, and two connections are dialled at once. One of them is answered
    // in the last moment, when the other is given up for the monitor that follows.
    let mut departed = Departed::default();
    departed.ended(&sibling("go", 1, 0, Monitor), Monitor, milli(10_000));
    let mut unanswered = sibling("go", 2, 10_000, Unknown);
    unanswered.is_answered = false;
    unanswered.answered_at = None;
    let answered = Sibling {
        answered_at: Some(milli(11_990)),
        ..sibling("go", 3, 10_001, Unknown)
    };
    let all = [
        sibling("go", 4, 20, RoundTrip),
        unanswered,
        answered,
        sibling("go", 5, 12_000, Monitor),
    ];
    let mut judged = |one: &Sibling, ended_ms| {
        let role = family(&all).final_role(one, &departed, milli(ended_ms));
        departed.ended(one, role, milli(ended_ms));
        role
    };
    assert_eq!(judged(&unanswered, 12_000), Monitor);
    assert_eq!(judged(&answered, 12_006), Application);
}

#[test]
fn a_driver_that_waits_to_check_again_does_not_replace_its_monitor_at_once() {
    // A monitor that was there for eleven milliseconds is given up because a pooled connection broke; a millisecond before,
    // the pool was still growing.
    let role = |driver: &str| {
        let mut departed = Departed::default();
        let broken = Sibling {
            is_cut: true,
            ..sibling(driver, 2, 10_004, Application)
        };
        departed.ended(&broken, Application, milli(10_010));
        let monitor = sibling(driver, 1, 10_000, Monitor);
        departed.ended(&monitor, Monitor, milli(10_011));
        let ending = sibling(driver, 3, 10_010, Unknown);
        let open = [sibling(driver, 9, 20, RoundTrip), ending];
        family(&open).final_role(&ending, &departed, milli(10_013))
    };
    assert_eq!(role("rust"), Application);
    assert_eq!(role("node36"), Application);
    // Others check again at once.
    assert_eq!(role("go"), Monitor);
}

#[test]
fn half_a_second_lies_between_checks_although_what_broke_is_read_late() {
    // A pool is filled as soon as its monitor is answered, and turned away; the monitor is given up for that, and ends
    // before those that were turned away do.
    let role = |driver: &str, opened_ms: u64| {
        let mut departed = Departed::default();
        let monitor = sibling(driver, 1, 10_000, Unknown);
        departed.ended(&monitor, Monitor, milli(10_013));
        let mut ending = sibling(driver, 3, opened_ms, Unknown);
        (ending.is_answered, ending.is_cut) = (false, true);
        ending.answered_at = None;
        let open = [sibling(driver, 9, 20, Application), ending];
        family(&open).final_role(&ending, &departed, milli(opened_ms + 6))
    };
    for driver in ["node36", "rust"] {
        assert_eq!(role(driver, 10_012), Application, "{driver}");
        assert_eq!(role(driver, 10_520), Monitor, "{driver}");
    }
    // Others check again at once.
    assert_eq!(role("go", 10_013), Monitor);
}

#[test]
fn who_was_never_answered_had_nothing_to_be_silent_about() {
    // The network swallows everything: the monitor is given up, and so are its next two attempts, the first of which is
    // read to end only when the network is back.
    let heartbeat = Some(Duration::from_millis(500));
    let mut departed = Departed::default();
    departed.ended(&sibling("rust", 1, 0, Monitor), Monitor, milli(10_000));
    let mut attempts = siblings("rust", &[(10_001, Unknown), (12_003, Unknown)]);
    for attempt in &mut attempts {
        attempt.is_answered = false;
        attempt.answered_at = None;
    }
    let open = Sibling {
        heartbeat,
        ..sibling("rust", 9, 12_500, Monitor)
    };
    let all = [attempts[0], attempts[1], open];
    for attempt in &attempts {
        let end = milli(16_000);
        let role = family(&all).final_role(attempt, &departed, end);
        departed.ended(attempt, role, end);
        assert_eq!(role, Monitor);
    }
}

#[test]
fn what_outlives_a_monitor_by_far_may_have_been_opened_before_its_end_was_read() {
    let role = |ended_ms: u64| {
        let mut departed = Departed::default();
        departed.ended(&sibling("pymongo", 1, 0, Monitor), Monitor, milli(10_000));
        let mut next = sibling("pymongo", 2, 9_994, Unknown);
        next.is_answered = false;
        let open = [sibling("pymongo", 9, 20, RoundTrip), next];
        family(&open).final_role(&next, &departed, milli(ended_ms))
    };
    assert_eq!(role(10_200), Monitor);
    // A process that is killed while its pool grows.
    assert_eq!(role(10_003), Application);
}

#[test]
fn a_pool_that_waits_in_vain_beside_its_monitor_has_no_further_monitor() {
    // A frozen server: the pool gives a connection up, and opens another in the same moment.
    let role = |is_answered: bool| {
        let silent = Sibling {
            is_answered,
            ..sibling("node6", 2, 20_000, Unknown)
        };
        let monitor = sibling("node6", 1, 0, Monitor);
        let open = [monitor, sibling("node6", 3, 10_000, RoundTrip), silent];
        family(&open).final_role(&silent, &Departed::default(), milli(21_998))
    };
    assert_eq!(role(false), Application);
    // A client of a moment, closed before it did anything.
    assert_eq!(role(true), Monitor);
}

#[test]
fn a_round_trip_monitor_whose_end_is_noticed_late_went_with_its_monitor() {
    // The server died; a driver that measures every ten seconds notices seconds later, when another monitor is there.
    let mut departed = Departed::default();
    let end = milli(13_000);
    departed.ended(&sibling("pymongo", 6, 10_000, Monitor), Monitor, end);
    departed.ended(
        &sibling("pymongo", 8, 10_020, Application),
        Application,
        end,
    );
    departed.expire(milli(20_000));
    let silent = sibling("pymongo", 7, 10_015, Unknown);
    let open = [sibling("pymongo", 30, 17_800, Monitor)];
    assert_eq!(family(&open).final_role(&silent, &departed, end), RoundTrip);
    // What ended with nothing of the kind is pooled.
    let late = milli(19_000);
    let silent = sibling("pymongo", 31, 12_000, Unknown);
    assert_eq!(
        family(&open).final_role(&silent, &departed, late),
        Application
    );
}

/// A pool is cleared again and again: each time its client gives the monitor up and dials another. Once a connection was
/// opened beside the round-trip monitor, which stays; it ends unused.
fn ended_beside_short_monitors(opened_ms: u64, is_cut: bool) -> Role {
    let mut departed = Departed::default();
    for (opened_ms, ended_ms) in [(10_000, 14_000), (14_001, 15_795), (16_059, 16_096)] {
        let monitor = sibling("go", opened_ms, opened_ms, Monitor);
        departed.ended(&monitor, Monitor, milli(ended_ms));
    }
    let broken = Sibling {
        is_cut,
        ..sibling("go", 2, 10_005, Application)
    };
    departed.ended(&broken, Application, milli(16_095));
    let round_trip = sibling("go", 1, 10_001, Unknown);
    let ending = sibling("go", 40, opened_ms, Unknown);
    let open = [round_trip, ending, sibling("go", 50, 16_558, Monitor)];
    family(&open).final_role(&ending, &departed, milli(16_561))
}

#[test]
fn what_is_opened_beside_a_short_monitor_is_pooled() {
    assert_eq!(ended_beside_short_monitors(16_065, false), Application);
    assert_eq!(ended_beside_short_monitors(16_097, false), Monitor);
}

#[test]
fn no_monitor_is_replaced_before_there_is_a_reason() {
    // Its end is read later than the dial of the next.
    assert_eq!(ended_beside_short_monitors(16_093, false), Monitor);
    assert_eq!(ended_beside_short_monitors(16_093, true), Application);
    assert_eq!(ended_beside_short_monitors(16_095, true), Monitor);
}

#[test]
fn a_pool_beside_a_polling_monitor_is_no_next_monitor() {
    let mut departed = Departed::default();
    let lost = sibling("java", 1, 0, RoundTrip);
    departed.ended(&lost, Monitor, milli(20_000));
    let polling = sibling("java", 5, 20_010, RoundTrip);
    let ending = sibling("java", 9, 22_000, Unknown);
    let role = |open: &[Sibling]| family(open).final_role(&ending, &departed, milli(31_000));
    assert_eq!(role(&[polling, ending]), Application);
    assert_eq!(role(&[ending]), Monitor);
}

#[test]
fn a_pool_that_grows_as_its_monitor_is_replaced_measures_nothing() {
    let mut departed = Departed::default();
    for (opened_ms, ended_ms) in [(10_000, 14_000), (14_001, 14_846), (14_846, 15_154)] {
        let monitor = sibling("go", opened_ms, opened_ms, Monitor);
        departed.ended(&monitor, Monitor, milli(ended_ms));
    }
    let round_trip = sibling("go", 1, 9_999, Unknown);
    let ending = sibling("go", 17, 14_826, Unknown);
    let role = family(&[round_trip, ending]).final_role(&ending, &departed, milli(14_850));
    assert_eq!(role, Application);
}

#[test]
fn clients_one_after_the_other_do_not_take_each_others_monitors() {
    // The second's round-trip monitor is heard to end before its monitor is.
    let mut departed = Departed::default();
    departed.ended(&sibling("rust", 40, 1290, Monitor), Monitor, milli(1303));
    let silent = sibling("rust", 41, 1292, Unknown);
    let round_trip = sibling("rust", 45, 1407, RoundTrip);
    departed.ended(&round_trip, RoundTrip, milli(1410));
    departed.ended(&sibling("rust", 43, 1405, Monitor), Monitor, milli(1410));
    let role = family(&[silent]).final_role(&silent, &departed, milli(1304));
    assert_eq!(role, RoundTrip);
}
