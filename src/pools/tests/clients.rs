//! Mongo clients are told apart.

use super::stage::*;
use crate::connection::{Initiator, Manner, Phase, Role};
use crate::pools::*;

#[test]
fn one_client_has_its_monitors_and_all_its_connections() {
    let mut stage = Stage::new(1);
    let monitor = stage.open(NODE, 0, 1);
    stage.at(20);
    let pool: Vec<_> = (1..=4)
        .map(|number| stage.pooled(NODE, 0, 1 + i32::from(number), number))
        .collect();
    stage.at(400);
    assert_eq!(stage.clients(), [], "the monitor has not shown itself");
    stage.at(520).stream(monitor);
    stage.at(1000);
    assert_eq!(stage.clients(), [(4, 1)]);
    stage.at(10_500);
    let round_trip = stage.open(NODE, 0, 90);
    stage.at(20_500);
    stage.tell(round_trip, Fact::RoleFound(Role::RoundTripMonitor));
    stage.at(21_000);
    assert_eq!(stage.clients(), [(4, 2)]);
    stage.goodbye(pool[0], &[1, 2, 3, 4]);
    for id in pool.iter().chain([&monitor, &round_trip]) {
        stage.close(*id);
    }
    stage.at(22_000);
    assert_eq!(stage.clients(), []);
    let client = stage.pools.mongo_clients().next().unwrap();
    let pool = &client.pools[&UpstreamId(0)];
    assert_eq!((pool.created, pool.peak, pool.operations), (4, 4, 4));
    stage.at(60_000);
    assert_eq!(stage.pools.mongo_clients().count(), 0, "forgotten");
}

#[test]
fn clients_of_one_process_are_told_apart_by_monitors_and_sessions() {
    let mut stage = Stage::new(1);
    // Two at once: first both monitors, then both pools; the first pool is the second one's, which nobody can know.
    stage.monitor(PYMONGO, 0, 1);
    stage.open(PYMONGO, 0, 2);
    stage.monitor(PYMONGO, 0, 3);
    stage.open(PYMONGO, 0, 4);
    stage.at(10);
    let one = stage.pooled(PYMONGO, 0, 5, 1);
    let other = stage.pooled(PYMONGO, 0, 6, 2);
    stage.at(500);
    assert_eq!(stage.clients(), [(1, 1), (1, 1)]);
    assert_ne!(stage.owner(one), stage.owner(other));
    // A connection with a session of its own is given to one of them, until sessions meet.
    stage.at(5000);
    let third = stage.pooled(PYMONGO, 0, 7, 3);
    stage.at(5500);
    assert!(stage.owner(third).is_some());
    for (session, owner) in [(1, one), (2, other)] {
        let fresh = stage.pooled(PYMONGO, 0, 8, session + 10);
        stage.work(fresh, session, 1);
        stage.at(5600 + u64::from(session) * 400);
        assert_eq!(stage.owner(fresh), stage.owner(owner));
    }
    stage.busy(third, 1);
    stage.work(third, 2, 1);
    stage.at(7000);
    assert_eq!(stage.owner(third), stage.owner(other));
    let owner = stage.pools.connection(third).unwrap().mongo_client.unwrap();
    let pool = &stage.pools.mongo_client(owner).unwrap().pools[&UpstreamId(0)];
    assert_eq!((pool.active, pool.operations), (1, 5));
    assert_eq!(stage.clients(), [(2, 1), (3, 1)]);
}

#[test]
fn clients_made_in_a_row_keep_what_they_opened() {
    let mut stage = Stage::new(1);
    // Workers that keep to a session each: nothing but the order of the first messages tells whose they are.
    let mut grow = |millis: u64, monitor_id: i32, sessions: [u8; 3]| {
        stage.at(millis);
        stage.monitor(GO, 0, monitor_id);
        stage.at(millis + 2);
        let pooled = sessions.map(|session| {
            let request_id = monitor_id + i32::from(session);
            stage.pooled(GO, 0, request_id, session)
        });
        stage.at(millis + 18);
        let last = stage.pooled(GO, 0, monitor_id + 99, sessions[0] + 10);
        let [one, other, third] = pooled;
        [one, other, third, last]
    };
    let one = grow(0, 1, [1, 2, 3]);
    let other = grow(20, 101, [4, 5, 6]);
    let third = grow(40, 201, [7, 8, 9]);
    stage.at(5_000);
    assert_eq!(stage.clients(), [(4, 1), (4, 1), (4, 1)]);
    for pool in [one, other, third] {
        assert!(
            pool.iter()
                .all(|id| stage.owner(*id) == stage.owner(pool[0]))
        );
    }
}

#[test]
fn a_pool_may_be_filled_before_its_monitor_is_there() {
    let mut stage = Stage::new(1);
    let early = stage.open(JAVA, 0, 1);
    stage.at(70);
    let monitor = stage.open(JAVA, 0, 2);
    stage.at(450);
    let late = stage.open(JAVA, 0, 10);
    stage.at(600).stream(monitor);
    stage.at(12_500);
    for id in [early, late] {
        stage.tell(id, Fact::RoleFound(Role::Application));
    }
    stage.at(13_000);
    assert_eq!(stage.clients(), [(2, 1)]);
    assert_eq!(stage.owner(early), stage.owner(late));
    // What was opened long before any monitor is of another.
    let mut stage = Stage::new(1);
    let early = stage.open(JAVA, 0, 1);
    stage.at(1_500);
    stage.monitor(JAVA, 0, 5);
    stage.pooled(JAVA, 0, 6, 2);
    stage.at(12_500);
    stage.tell(early, Fact::RoleFound(Role::Application));
    stage.at(13_000);
    assert_eq!(stage.clients(), [(1, 1), (1, 0)]);
}

#[test]
fn an_unused_client_counts_through_its_monitor() {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(RUST, 0, 0);
    stage.at(500);
    assert_eq!(stage.clients(), [(0, 1)]);
    stage.close(monitor);
    stage.at(3500);
    assert_eq!(stage.clients(), []);
}

#[test]
fn leaked_clients_are_counted_each() {
    for driver in [NODE, PYMONGO] {
        let mut stage = Stage::new(1);
        let mut request_id = 0;
        for number in 0..40_u8 {
            let started = u64::from(number) * 30;
            stage.at(started);
            request_id += 1;
            let monitor = stage.open(driver, 0, request_id);
            if driver == PYMONGO {
                stage.stream(monitor);
            }
            stage.at(started + 5);
            request_id += 1;
            stage.pooled(driver, 0, request_id, number);
        }
        if driver == NODE {
            // Each streams half a second later; here at last.
            stage.at(1500);
            for number in 0..40 {
                stage.stream(ConnectionId(2 * number + 1));
            }
        }
        stage.at(4000);
        assert_eq!(stage.clients(), vec![(1, 1); 40], "{driver:?}");
    }
}

#[test]
fn clients_that_come_and_go_are_closed_each() {
    for driver in [NODE, PYMONGO] {
        let mut stage = Stage::new(1);
        let lasting = stage.monitor(driver, 0, 1);
        stage.at(10);
        stage.pooled(driver, 0, 2, 200);
        stage.at(5000);
        let mut request_id = 10;
        for number in 0..20_u8 {
            let started = 5000 + u64::from(number) * 100;
            stage.at(started);
            request_id += 2;
            let monitor = stage.open(driver, 0, request_id);
            if driver == PYMONGO {
                stage.stream(monitor);
            }
            stage.at(started + 5);
            let pooled = stage.pooled(driver, 0, request_id + 1, number);
            stage.at(started + 40);
            stage.goodbye(pooled, &[number]);
            stage.close(pooled);
            stage.close(monitor);
        }
        stage.at(12_000);
        assert_eq!(stage.clients(), [(1, 1)], "{driver:?}");
        assert_eq!(stage.owner(lasting), Some(1));
        let closed = stage
            .pools
            .mongo_clients()
            .filter(|client| !client.is_open());
        assert_eq!(closed.count(), 20, "{driver:?}");
    }
}

#[test]
fn what_a_closed_pool_was_still_dialling_goes_with_it() {
    let mut stage = Stage::new(1);
    let monitor = stage.open(NODE, 0, 1);
    stage.at(5);
    let pooled = stage.pooled(NODE, 0, 2, 1);
    stage.at(15);
    let unused = [3, 4, 5].map(|request_id| stage.open(NODE, 0, request_id));
    stage.at(26).goodbye(pooled, &[1]);
    stage.close(pooled);
    stage.close(monitor);
    stage.at(32);
    for id in unused {
        stage.end(id, Initiator::Client, Manner::Reset, Phase::Idle);
    }
    for millis in [500, 1100, 1600, 2100, 4000] {
        stage.at(millis);
        assert_eq!(stage.clients(), [], "after {millis} ms");
        assert!(
            stage.pools.mongo_clients().count() <= 1,
            "after {millis} ms"
        );
    }
    let client = stage.pools.mongo_clients().next().unwrap();
    assert_eq!(client.pools[&UpstreamId(0)].created, 4);
}

#[test]
fn a_replica_set_client_spans_its_members() {
    let mut stage = Stage::new(3);
    for client in 0..2 {
        let seed = stage.monitor(PYMONGO, 0, client);
        stage.describe(seed, "rs0");
    }
    stage.at(20);
    for _ in 0..2 {
        for upstream in [1, 2] {
            let monitor = stage.monitor(PYMONGO, upstream, 9);
            stage.describe(monitor, "rs0");
        }
    }
    stage.at(500);
    assert_eq!(stage.clients(), [(0, 3), (0, 3)]);
    let primary = stage.pooled(PYMONGO, 0, 1, 1);
    stage.at(1000);
    let secondary = stage.pooled(PYMONGO, 2, 1, 1);
    stage.at(1500);
    assert_eq!(stage.owner(primary), stage.owner(secondary));
    let client = stage.pools.mongo_clients().next().unwrap();
    let used = client.pools.values().filter(|pool| pool.created > 0);
    assert_eq!(used.count(), 2);
}

#[test]
fn servers_without_a_common_set_have_clients_of_their_own() {
    let mut stage = Stage::new(2);
    stage.monitor(PYMONGO, 0, 1);
    stage.monitor(PYMONGO, 1, 1);
    stage.at(500);
    assert_eq!(stage.clients(), [(0, 1), (0, 1)]);
}

#[test]
fn an_outage_does_not_make_another_client() {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(NODE, 0, 1);
    stage.at(10);
    let pooled = stage.pooled(NODE, 0, 2, 1);
    stage.at(9000);
    for id in [monitor, pooled] {
        stage.end(id, Initiator::Server, Manner::Fin, Phase::Idle);
    }
    stage.at(14_000);
    assert_eq!(stage.clients(), [(0, 0)], "it is expected back");
    let monitor = stage.monitor(NODE, 0, 30);
    stage.at(14_010);
    let pooled = stage.pooled(NODE, 0, 31, 1);
    stage.at(15_000);
    assert_eq!(stage.clients(), [(1, 1)]);
    assert_eq!(stage.owner(monitor), Some(1));
    assert_eq!(stage.owner(pooled), Some(1));
}

#[test]
fn a_client_that_stays_away_is_seen_to_be_closed() {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(NODE, 0, 1);
    let pooled = stage.pooled(NODE, 0, 2, 1);
    stage.at(10_000);
    for one in [pooled, monitor] {
        stage.end(one, Initiator::Server, Manner::Reset, Phase::Idle);
    }
    let closed = |stage: &mut Stage, millis| {
        stage.at(millis);
        let mut clients = stage.pools.mongo_clients();
        clients.next().map(|client| client.closed_at.is_some())
    };
    assert_eq!(closed(&mut stage, 39_000), Some(false));
    assert_eq!(closed(&mut stage, 41_000), Some(true));
    assert_eq!(closed(&mut stage, 69_000), Some(true));
    assert_eq!(closed(&mut stage, 71_000), None);
}

#[test]
fn a_process_that_died_and_its_successor_are_two() {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(NODE, 0, 1);
    stage.at(10);
    let pooled = stage.pooled(NODE, 0, 2, 1);
    stage.at(9000);
    stage.close(monitor);
    stage.close(pooled);
    stage.at(9900);
    let monitor = stage.monitor(NODE, 0, 1);
    stage.at(12_500);
    assert_eq!(stage.clients(), [(0, 1)]);
    assert_eq!(stage.owner(monitor), Some(2));
}

#[test]
fn drivers_without_monitors_are_told_apart_by_sessions() {
    let mut stage = Stage::new(1);
    // A burst on a new pool: five sessions that have not met.
    let pool: Vec<_> = (1..=5)
        .map(|number| stage.pooled(LEGACY, 0, i32::from(number), number))
        .collect();
    stage.at(1000);
    assert_eq!(stage.clients(), [(5, 0)]);
    let other = stage.pooled(LEGACY, 0, 6, 6);
    stage.work(other, 6, 100);
    for (id, session) in pool.iter().zip([2, 3, 4, 5, 1]) {
        stage.work(*id, session, 20);
    }
    stage.at(2000);
    assert_eq!(stage.clients(), [(5, 0), (1, 0)]);
    assert_ne!(stage.owner(other), stage.owner(pool[0]));
}

#[test]
fn workers_that_keep_to_their_sessions_make_no_client() {
    // Connections, with when they are opened and the session they keep to; one carries nothing.
    let check = |opened: &[(u64, Option<u8>)], expected: &[(usize, usize)]| {
        let mut stage = Stage::new(1);
        let mut workers = Vec::new();
        for ((millis, session), request_id) in opened.iter().zip(1..) {
            stage.at(*millis);
            if let Some(session) = session {
                workers.push((stage.pooled(LEGACY, 0, request_id, *session), *session));
            } else {
                let id = stage.open(LEGACY, 0, request_id);
                stage.tell(id, Fact::RoleFound(Role::Application));
            }
        }
        stage.at(10_000);
        for (id, session) in workers {
            stage.work(id, session, 35);
        }
        stage.at(15_000);
        assert_eq!(stage.clients(), expected, "{opened:?}");
    };
    let [one, two, three] = [1, 2, 3].map(Some);
    // Twice two connections share a session. One pool after the other, or one that grows.
    check(
        &[(0, one), (10, one), (20, two), (30, two)],
        &[(2, 0), (2, 0)],
    );
    check(&[(0, one), (10, two), (20, two), (30, one)], &[(4, 0)]);
    check(&[(0, one), (10, two), (20, one), (30, two)], &[(4, 0)]);
    // The first pool grew just before the second was there, of which one worker keeps to its session.
    check(
        &[
            (0, one),
            (300, one),
            (5_160, None),
            (5_320, two),
            (5_500, two),
            (5_610, three),
            (5_670, two),
        ],
        &[(3, 0), (4, 0)],
    );
    // The second pool grows so slowly that nothing but its others says whose the connection between them is.
    check(
        &[
            (0, one),
            (5_200, one),
            (7_300, two),
            (7_620, three),
            (7_840, two),
        ],
        &[(2, 0), (3, 0)],
    );
}

#[test]
fn a_legacy_pool_that_is_at_work_grows_at_the_pace_of_its_machine() {
    let mut stage = Stage::new(1);
    let first = stage.pooled(LEGACY, 0, 1, 1);
    stage.at(400);
    let second = stage.pooled(LEGACY, 0, 2, 2);
    stage.at(900);
    stage.work(first, 1, 49);
    stage.work(second, 2, 49);
    stage.at(5_000);
    assert_eq!(stage.clients(), [(2, 0)]);
}

#[test]
fn a_legacy_pool_that_lies_idle_does_not_grow() {
    let mut stage = Stage::new(1);
    let first = stage.pooled(LEGACY, 0, 1, 1);
    stage.work(first, 1, 99);
    // The second client's workers keep to their sessions; each circle alone is too little to tell.
    stage.at(2_000);
    let [one, two, three] = [2, 3, 4].map(|id| stage.open(LEGACY, 0, id));
    stage.work(one, 2, 9);
    stage.work(two, 3, 83);
    stage.work(three, 2, 8);
    stage.at(2_100);
    stage.hear(first);
    stage.at(2_900);
    assert_eq!(stage.clients(), [(4, 0)]);
    stage.at(4_000);
    assert_eq!(stage.clients(), [(3, 0), (1, 0)]);
    assert_ne!(stage.owner(two), stage.owner(first));
}

#[test]
fn what_a_busy_machine_opened_one_by_one_leaves_the_pool_that_lay_idle() {
    let mut stage = Stage::new(1);
    let first = stage.pooled(LEGACY, 0, 1, 1);
    stage.work(first, 1, 99);
    // The workers of the second client keep to their sessions, and one circle carries enough to tell.
    stage.at(4_000);
    let early = stage.pooled(LEGACY, 0, 2, 2);
    stage.at(4_120);
    let telling = stage.pooled(LEGACY, 0, 3, 3);
    stage.at(4_300);
    let late = stage.pooled(LEGACY, 0, 4, 4);
    for (id, session, operations) in [(early, 2, 20), (telling, 3, 40), (late, 4, 20)] {
        stage.work(id, session, operations);
    }
    stage.at(7_000);
    assert_eq!(stage.clients(), [(1, 0), (3, 0)]);
    assert!([early, late].map(|id| stage.owner(id)) == [stage.owner(telling); 2]);
}

#[test]
fn what_outlives_a_goodbye_is_of_another_client() {
    let mut stage = Stage::new(1);
    let closed = stage.pooled(LEGACY, 0, 1, 1);
    stage.at(400);
    let open = stage.pooled(LEGACY, 0, 2, 2);
    stage.at(1_000);
    stage.work(closed, 1, 20);
    stage.work(open, 2, 20);
    stage.at(3_000);
    assert_eq!(stage.clients(), [(2, 0)], "nothing tells");
    stage.goodbye(closed, &[1]);
    stage.close(closed);
    stage.at(6_000);
    assert_eq!(stage.clients(), [(1, 0)]);
    let client = stage.owner(open);
    assert!(client.is_some() && client != stage.owner(closed));
}

#[test]
fn two_processes_have_no_client_in_common() {
    let mut stage = Stage::new(1);
    let one = stage.pooled(LEGACY, 0, 1, 1);
    stage.at(3000);
    let other = stage.pooled(LEGACY, 0, 1, 2);
    stage.at(4000);
    assert_eq!(stage.clients(), [(1, 0), (1, 0)]);
    assert_ne!(stage.owner(one), stage.owner(other));
}

#[test]
fn a_monitor_returns_to_its_process_whatever_else_its_client_was_given() {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(NODE, 0, 1);
    stage.at(10);
    let own = stage.pooled(NODE, 0, 2, 1);
    stage.at(3_000);
    // Processes that count in step: some of what another opened was taken for its own.
    let other = stage.pooled(NODE, 0, 1, 1);
    stage.count(other, 40);
    stage.pooled(NODE, 0, 50, 1);
    stage.at(6_000);
    assert_eq!(stage.clients(), [(3, 1)]);
    stage.close(monitor);
    stage.at(6_100);
    let monitor = stage.monitor(NODE, 0, 20);
    stage.at(7_000);
    assert_eq!(stage.clients(), [(3, 1)]);
    assert_eq!(stage.owner(monitor), stage.owner(own));
}

#[test]
fn a_monitor_that_seemed_to_measure_round_trips_is_its_own_clients() {
    // Whether request ids tell that it is another process's, or its own traffic does.
    for (driver, first_id) in [(NODE, 1), (PYMONGO, 5)] {
        let mut stage = Stage::new(1);
        stage.monitor(driver, 0, 1);
        stage.announces_credentials = true;
        let own = stage.pooled(driver, 0, 2, 1);
        // When the round-trip monitor is due another process starts, and is slow.
        stage.at(10_000);
        stage.announces_credentials = false;
        let monitor = stage.open(driver, 0, first_id);
        stage.at(11_000);
        stage.stream(monitor);
        stage.announces_credentials = true;
        let other = stage.pooled(driver, 0, first_id + 1, 2);
        stage.at(15_000);
        assert_eq!(stage.clients(), [(1, 1), (1, 1)], "{driver:?}");
        assert_eq!(stage.owner(other), stage.owner(monitor), "{driver:?}");
        assert_ne!(stage.owner(other), stage.owner(own), "{driver:?}");
    }
}

#[test]
fn what_measures_round_trips_after_its_client_died_is_that_of_another() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    let own = stage.pooled(NODE, 0, 2, 1);
    stage.at(2_000);
    let others = [stage.monitor(NODE, 0, 1), stage.pooled(NODE, 0, 2, 2)];
    // Just then the first process begins to measure, as if it were the one that grows.
    stage.at(2_030);
    let round_trip = stage.open(NODE, 0, 5);
    stage.tell(round_trip, Fact::RoleFound(Role::RoundTripMonitor));
    stage.at(2_500);
    let other_round_trip = stage.open(NODE, 0, 4);
    stage.tell(other_round_trip, Fact::RoleFound(Role::RoundTripMonitor));
    stage.at(5_000);
    assert_eq!(stage.owner(round_trip), stage.owner(others[0]));
    for one in others.into_iter().chain([other_round_trip]) {
        stage.close(one);
    }
    stage.at(10_000);
    assert_eq!(stage.clients(), [(1, 2)]);
    assert_eq!(stage.owner(round_trip), stage.owner(own));
}

#[test]
fn sessions_held_by_the_only_client_go_to_that_of_their_process() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    let one = stage.pooled(NODE, 0, 2, 1);
    stage.at(3_000);
    // Another process, whose monitor is let in late.
    let early = stage.pooled(NODE, 0, 1, 2);
    stage.count(early, 30);
    stage.at(6_000);
    assert_eq!(stage.owner(early), stage.owner(one));
    stage.close(early);
    stage.monitor(NODE, 0, 32);
    stage.at(6_010);
    let other = stage.pooled(NODE, 0, 33, 3);
    stage.at(6_020);
    let known = stage.pooled(NODE, 0, 34, 2);
    stage.at(9_000);
    assert_eq!(stage.clients(), [(1, 1), (2, 1)]);
    assert_eq!(stage.owner(known), stage.owner(other));
}

#[test]
fn a_process_whose_monitors_never_last_has_a_client_of_its_own() {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(NODE, 0, 1);
    stage.at(10);
    let own = stage.pooled(NODE, 0, 2, 1);
    stage.at(5000);
    stage.pooled(NODE, 0, 5, 1);
    // Another process at a server at its limit: its monitor is given up as often as its pool is cleared.
    stage.at(6000);
    let attempt = stage.open(NODE, 0, 1);
    stage.at(6040);
    let broken = stage.pooled(NODE, 0, 4, 2);
    stage.count(broken, 25);
    stage.at(6060);
    stage.close(attempt);
    stage.at(6300);
    stage.close(broken);
    stage.at(7000);
    let other = stage.pooled(NODE, 0, 30, 2);
    stage.at(10_000);
    assert_eq!(stage.clients(), [(2, 1), (1, 0)]);
    assert_ne!(stage.owner(own), stage.owner(other));
    // The first that lasts is its own, although the other client has lost one.
    stage.close(monitor);
    stage.at(10_100);
    let monitor = stage.monitor(NODE, 0, 40);
    stage.at(10_500);
    assert_eq!(stage.owner(monitor), stage.owner(other));
}

#[test]
fn what_a_process_was_refused_before_it_was_let_in_makes_no_client() {
    let mut stage = Stage::new(1);
    let monitor = stage.open(NODE, 0, 1);
    stage.at(20);
    let other = stage.pooled(NODE, 0, 2, 1);
    stage.at(40);
    stage.close(monitor);
    stage.at(5_000);
    stage.pooled(NODE, 0, 500, 1);
    // Another process. A server at its limit lets its monitors in, and turns away what follows them.
    for attempt in 0..3_u8 {
        stage.at(6_000 + 150 * u64::from(attempt));
        let monitor = stage.open(NODE, 0, 1 + i32::from(attempt));
        stage.at(6_015 + 150 * u64::from(attempt));
        stage.close(monitor);
    }
    stage.at(6_320);
    let refused = [5, 6, 7, 8].map(|request_id| {
        let refused = stage.dial(NODE, 0, request_id);
        stage.end(refused, Initiator::Server, Manner::Fin, Phase::Handshaking);
        refused
    });
    stage.at(6_400);
    let monitor = stage.open(NODE, 0, 9);
    stage.at(6_410);
    let own = stage.pooled(NODE, 0, 10, 2);
    stage.at(7_700);
    stage.pooled(NODE, 0, 600, 1);
    stage.at(8_300);
    stage.close(monitor);
    stage.at(12_000);
    assert_eq!(stage.clients(), [(3, 0), (1, 0)]);
    assert_ne!(stage.owner(own), stage.owner(other));
    let last = refused.into_iter().next_back().unwrap();
    assert_eq!(stage.owner(last), stage.owner(own));
}

#[test]
fn a_monitor_of_another_process_takes_no_place_in_trouble() {
    let mut stage = Stage::new(1);
    // Two processes that start together; what breaks the one keeps the other from showing itself in time.
    stage.at(200);
    let one = stage.monitor(GO, 0, 1);
    stage.at(205);
    stage.pooled(GO, 0, 3, 1);
    stage.at(210);
    let other = stage.open(GO, 0, 1);
    stage.at(260);
    stage.stream(other);
    stage.at(300);
    stage.end(one, Initiator::Server, Manner::Fin, Phase::Idle);
    stage.at(320);
    stage.close(other);
    stage.at(900);
    assert_eq!(stage.clients(), [(1, 0), (0, 0)]);
}

#[test]
fn a_round_trip_monitor_outlives_its_monitor() {
    let mut stage = Stage::new(1);
    // The two connections that do not authenticate are monitors; which is which, only the first of them has shown.
    stage.at(50);
    let monitor = stage.monitor(GO, 0, 1);
    stage.at(52);
    stage.open(GO, 0, 2);
    stage.announces_credentials = true;
    stage.at(60);
    stage.pooled(GO, 0, 5, 1);
    stage.at(150);
    stage.close(monitor);
    stage.at(1_000);
    assert_eq!(stage.clients(), [(1, 0)]);
}

#[test]
fn the_first_message_of_a_process_continues_no_monitor() {
    let mut stage = Stage::new(1);
    // Each process of PyMongo begins with the same number.
    let first = 1_804_289_383;
    let old = stage.monitor(PYMONGO, 0, first);
    stage.at(10);
    stage.pooled(PYMONGO, 0, 5, 1);
    stage.at(1_000);
    let new = stage.open(PYMONGO, 0, first);
    stage.at(1_020);
    stage.close(old);
    stage.at(1_030);
    stage.stream(new);
    stage.at(2_000);
    assert_eq!(stage.clients(), [(1, 0), (0, 1)]);
}

#[test]
fn monitors_that_count_for_themselves_are_told_apart_when_they_take_turns() {
    let mut stage = Stage::new(1);
    let first = stage.monitor(MONGOC, 0, 0);
    stage.count(first, 1);
    stage.at(10);
    let pooled = stage.pooled(MONGOC, 0, 1, 1);
    stage.at(500);
    stage.close(first);
    // What the first had counted is counted again: it is another's.
    stage.at(510);
    let other = stage.monitor(MONGOC, 0, 1);
    stage.count(other, 2);
    stage.at(1000);
    stage.close(other);
    stage.at(1500);
    let again = stage.monitor(MONGOC, 0, 3);
    stage.count(again, 4);
    stage.at(5000);
    assert_eq!(stage.owner(again), stage.owner(pooled));
    assert_ne!(stage.owner(other), stage.owner(pooled));
}

#[test]
fn single_sockets_are_a_client_each() {
    let mut stage = Stage::new(1);
    for number in 1..=4 {
        stage.pooled(PHP, 0, 1, number);
        stage.at(u64::from(number) * 1000);
    }
    assert_eq!(stage.clients(), [(1, 0); 4]);
}

#[test]
fn polling_monitors_split_what_was_held_to_be_one() {
    let mut stage = Stage::new(1);
    let one = stage.open(JAVA, 0, 1);
    let other = stage.open(JAVA, 0, 2);
    stage.at(10);
    let pools = [stage.pooled(JAVA, 0, 3, 1), stage.pooled(JAVA, 0, 4, 2)];
    stage.at(5000);
    assert_eq!(stage.clients().len(), 1, "nothing tells yet");
    stage.at(10_000);
    for monitor in [one, other] {
        stage.tell(monitor, Fact::RoleFound(Role::RoundTripMonitor));
    }
    stage.at(11_000);
    assert_eq!(stage.clients(), [(1, 1), (1, 1)]);
    assert_ne!(stage.owner(pools[0]), stage.owner(pools[1]));
}

/// A client, another half a second after the first gave up its monitors, and what the first was still waiting for.
fn one_after_the_other(has_failed: bool) -> (Stage, [ConnectionId; 2]) {
    let mut stage = Stage::new(1);
    stage.announces_credentials = true;
    let pooled = |stage: &mut Stage, request_id: i32, session: u8| {
        let one = stage.pooled(PYMONGO, 0, request_id, session);
        stage.busy(one, 1);
        one
    };
    let watched = |stage: &mut Stage, request_id: i32| {
        stage.announces_credentials = false;
        let monitor = stage.monitor(PYMONGO, 0, request_id);
        let round_trip = stage.open(PYMONGO, 0, request_id + 1);
        stage.tell(round_trip, Fact::RoleFound(Role::RoundTripMonitor));
        stage.announces_credentials = true;
        [monitor, round_trip]
    };
    let monitors = watched(&mut stage, 1);
    stage.at(10);
    let old = [pooled(&mut stage, 3, 1), pooled(&mut stage, 4, 2)];
    stage.work(old[0], 2, 1);
    stage.at(8_000);
    if has_failed {
        let broken = stage.pooled(PYMONGO, 0, 5, 1);
        stage.end(broken, Initiator::Server, Manner::Reset, Phase::Idle);
    }
    for monitor in monitors {
        stage.close(monitor);
    }
    stage.at(8_550);
    let [monitor, _] = watched(&mut stage, 20);
    stage.at(8_570);
    pooled(&mut stage, 22, 3);
    stage.at(9_100);
    for one in old {
        stage.busy(one, 0);
        stage.close(one);
    }
    stage.at(16_000);
    (stage, [old[0], monitor])
}

#[test]
fn who_closed_its_monitors_does_not_open_them_again() {
    let (stage, [old, monitor]) = one_after_the_other(false);
    assert_eq!(stage.clients(), [(1, 2)]);
    assert_ne!(stage.owner(old), stage.owner(monitor));
    let clients: Vec<_> = stage.pools.mongo_clients().collect();
    let closed = clients.iter().map(|client| {
        let pools = client.pools.values();
        let closed = pools.map(|pool| (pool.created, pool.closed.of(CloseReason::PoolClosed)));
        closed.collect::<Vec<_>>()
    });
    assert_eq!(closed.collect::<Vec<_>>(), [[(2, 2)], [(1, 0)]]);
    assert_eq!(clients[0].closed_at, Some(start() + Duration::from_secs(8)));
}

#[test]
fn who_gave_up_its_monitors_after_trouble_opens_them_again() {
    let (stage, [old, monitor]) = one_after_the_other(true);
    assert_eq!(stage.clients(), [(1, 2)]);
    assert_eq!(stage.owner(old), stage.owner(monitor));
}

#[test]
fn what_is_opened_after_a_goodbye_is_of_the_next_client() {
    let mut stage = Stage::new(1);
    let first = stage.monitor(RUST, 0, 1);
    stage.at(260);
    // It is closed before anyone looked at what it used, and the next is there.
    let pooled = stage.pooled(RUST, 0, 3, 1);
    stage.at(300);
    stage.goodbye(pooled, &[1]);
    stage.close(pooled);
    stage.close(first);
    stage.at(310);
    let next = stage.monitor(RUST, 0, 5);
    stage.at(5_000);
    assert_eq!(stage.clients(), [(0, 1)]);
    assert_eq!(stage.owner(pooled), stage.owner(first));
    assert_ne!(stage.owner(next), stage.owner(first));
}

#[test]
fn an_instance_is_forgotten_at_the_same_moment_whenever_the_watching_began() {
    let forgotten_at = |watched_before: u64| {
        let mut stage = Stage::new(1);
        let began_at = start() - Duration::from_millis(watched_before);
        stage.pools.tick(began_at);
        let id = stage.open(NODE, 0, 1);
        stage.close(id);
        (900..940).find(|second| {
            stage.at(second * 1000);
            stage.pools.instances().count() == 0
        })
    };
    let at = forgotten_at(0);
    assert!(at.is_some());
    for watched_before in [1000, 3000, 5000, 9000] {
        assert_eq!(forgotten_at(watched_before), at, "{watched_before} ms");
    }
}
