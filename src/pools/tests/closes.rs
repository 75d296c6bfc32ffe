//! Why connections were closed: idle, stale, error or pool closed.

use super::clears::{pool, reasons, settled};
use super::stage::*;
use crate::connection::{Initiator, Manner, Phase, Role};
use crate::pools::{ClearTrigger, Fact};

const OLD_NODE: Driver = ("nodejs", "4.17.2", "Node.js v20.0.0, LE");

#[test]
fn idle_sockets_that_break_with_a_clear_are_stale_where_nobody_looked_at_them() {
    // Node's event loop sees the socket close before its pool is asked for it.
    for (driver, expected) in [
        (PYMONGO, [0, 2, 1, 0]),
        (RUST, [0, 2, 1, 0]),
        (NODE, [0, 0, 3, 0]),
    ] {
        let (mut stage, monitor, pool) = settled(driver, 3);
        stage.end(pool[0], Initiator::Server, Manner::Reset, Phase::InExchange);
        for id in &pool[1..] {
            stage.end(*id, Initiator::Server, Manner::Fin, Phase::Idle);
        }
        stage.end(monitor, Initiator::Server, Manner::Fin, Phase::Idle);
        stage.at(20_000);
        assert_eq!(reasons(&stage), expected, "{driver:?}");
    }

    // Without a clear the next use of each is an error.
    let (mut stage, _, pool) = settled(PYMONGO, 3);
    for id in pool {
        stage.end(id, Initiator::Server, Manner::Fin, Phase::Idle);
    }
    stage.at(20_000);
    assert_eq!(reasons(&stage), [0, 0, 3, 0]);
}

#[test]
fn what_ended_before_its_hello_was_read_is_of_its_pool_all_the_same() {
    let (mut stage, monitor, _) = settled(GO, 2);
    let round_trip = stage.open(GO, 0, 40);
    stage.tell(round_trip, Fact::RoleFound(Role::RoundTripMonitor));
    let refused: Vec<_> = (0..3).map(|_| stage.accept(0)).collect();
    for id in &refused {
        stage.end(*id, Initiator::Server, Manner::Fin, Phase::Handshaking);
    }
    // The client had written its hellos, and they are read on their way.
    for (id, request_id) in refused.iter().zip(50..) {
        stage.introduce(*id, GO, request_id);
    }
    stage.at(15_000);
    for id in refused {
        assert_eq!(stage.owner(id), stage.owner(monitor));
    }
    let pool = pool(&stage);
    assert_eq!((pool.created, pool.open.len()), (5, 2));
    assert_eq!(reasons(&stage), [0, 0, 3, 0]);
    let clears = [(10_000, None, ClearTrigger::Network)];
    assert_eq!(stage.clears(), clears);
}

#[test]
fn each_clear_of_an_episode_makes_a_generation() {
    for is_cleared_again in [true, false] {
        let (mut stage, _, pool) = settled(PYMONGO, 2);
        stage.end(pool[0], Initiator::Server, Manner::Fin, Phase::InExchange);
        stage.close(pool[1]);
        stage.at(10_200);
        let fresh: Vec<_> = (1..=2)
            .map(|number| stage.pooled(PYMONGO, 0, 20, number))
            .collect();
        stage.at(11_900);
        if is_cleared_again {
            stage.end(fresh[0], Initiator::Server, Manner::Fin, Phase::InExchange);
        }
        stage.close(fresh[1]);
        stage.at(20_000);
        let expected = if is_cleared_again {
            [0, 2, 2, 0]
        } else {
            [1, 1, 1, 0]
        };
        assert_eq!(reasons(&stage), expected);
    }
}

#[test]
fn what_becomes_of_an_outdated_connection_clears_nothing_more() {
    let (mut stage, _, pool) = settled(PYMONGO, 2);
    stage.end(pool[0], Initiator::Server, Manner::Fin, Phase::InExchange);
    stage.at(12_000);
    let fresh = stage.pooled(PYMONGO, 0, 20, 1);
    stage.at(14_000);
    stage.end(pool[1], Initiator::Server, Manner::Fin, Phase::InExchange);
    stage.at(18_000);
    stage.close(fresh);
    stage.at(22_000);
    assert_eq!(reasons(&stage), [1, 0, 2, 0]);
}

#[test]
fn a_clear_is_told_of_a_client_that_is_not_known_yet() {
    for is_refused in [true, false] {
        let mut stage = Stage::new(1);
        // It has not shown yet that it is a monitor.
        let monitor = stage.open(OLD_NODE, 0, 1);
        stage.at(10);
        let pooled = stage.pooled(OLD_NODE, 0, 2, 1);
        stage.at(200);
        let refused = stage.dial(OLD_NODE, 0, 3);
        if is_refused {
            stage.end(refused, Initiator::Server, Manner::Fin, Phase::Handshaking);
        }
        stage.at(260).close(pooled);
        stage.at(1000).stream(monitor);
        stage.at(1010).pooled(OLD_NODE, 0, 9, 1);
        stage.at(10_000);
        let expected = if is_refused {
            [0, 1, 1, 0]
        } else {
            [1, 0, 0, 0]
        };
        assert_eq!(reasons(&stage), expected);
    }
}

#[test]
fn a_client_that_closes_everything_itself_was_closed_without_a_word() {
    for is_broken in [false, true] {
        let (mut stage, monitor, pool) = settled(PYMONGO, 3);
        stage.close(monitor);
        stage.at(10_700);
        if is_broken {
            stage.end(pool[0], Initiator::Server, Manner::Reset, Phase::Idle);
        } else {
            stage.close(pool[0]);
        }
        stage.close(pool[1]);
        stage.close(pool[2]);
        // The next client of its process.
        stage.at(11_200).monitor(PYMONGO, 0, 30);
        stage.at(11_210).pooled(PYMONGO, 0, 31, 7);
        stage.at(20_000);
        let [_, _, _, pool_closed] = reasons(&stage);
        assert_eq!(pool_closed, if is_broken { 0 } else { 3 });
    }
}

#[test]
fn a_check_that_is_cancelled_while_the_rest_breaks_is_a_clear() {
    let (mut stage, monitor, pool) = settled(RUST, 3);
    stage.end(pool[0], Initiator::Server, Manner::Reset, Phase::Idle);
    stage.at(10_001).close(monitor);
    stage.at(10_003);
    stage.end(pool[1], Initiator::Server, Manner::Reset, Phase::Idle);
    stage.end(pool[2], Initiator::Server, Manner::Reset, Phase::Idle);
    stage.at(10_010).monitor(RUST, 0, 30);
    stage.at(10_020).pooled(RUST, 0, 31, 1);
    stage.at(16_000);
    assert_eq!(stage.clears().len(), 1);
    assert_eq!(reasons(&stage), [0, 3, 0, 0]);
}

#[test]
fn a_check_that_is_cancelled_among_resets_on_the_way_is_a_clear() {
    // Resets go to both sides, so that they come from the client's, too; only the monitor is closed by its client.
    for monitor_is_last in [false, true] {
        let (mut stage, monitor, pool) = settled(RUST, 3);
        let (early, late) = pool.split_at(if monitor_is_last { 3 } else { 1 });
        for id in early {
            stage.end(*id, Initiator::Client, Manner::Reset, Phase::Idle);
        }
        stage.at(10_002).close(monitor);
        for id in late {
            stage.end(*id, Initiator::Client, Manner::Reset, Phase::Idle);
        }
        stage.at(10_503).monitor(RUST, 0, 30);
        stage.at(10_505).pooled(RUST, 0, 31, 1);
        stage.at(16_000);
        assert_eq!(stage.clears().len(), 1);
        assert_eq!(reasons(&stage), [0, 3, 0, 0]);
    }
}

#[test]
fn sockets_that_something_on_the_way_resets_were_not_idle_for_too_long() {
    for (driver, expected) in [(PYMONGO, [0, 2, 0, 0]), (NODE, [0, 0, 2, 0])] {
        let (mut stage, monitor, pool) = settled(driver, 2);
        for id in pool.into_iter().chain([monitor]) {
            stage.end(id, Initiator::Client, Manner::Reset, Phase::Idle);
        }
        stage.at(10_020).monitor(driver, 0, 120);
        stage.at(10_030).pooled(driver, 0, 121, 1);
        stage.at(20_000);
        assert_eq!(reasons(&stage), expected, "{driver:?}");
    }
}

#[test]
fn what_is_in_use_when_its_client_is_closed_is_broken_first_where_the_driver_does_that() {
    for (driver, expected) in [(NODE, [0, 0, 1, 2]), (OLD_NODE, [0, 0, 0, 3])] {
        let (mut stage, monitor, pool) = settled(driver, 3);
        stage.end(pool[0], Initiator::Client, Manner::Fin, Phase::InExchange);
        stage.goodbye(pool[1], &[1]);
        // Its goodbye is never answered.
        stage.end(pool[1], Initiator::Client, Manner::Fin, Phase::InExchange);
        stage.close(pool[2]);
        stage.close(monitor);
        stage.at(20_000);
        assert_eq!(reasons(&stage), expected, "{driver:?}");
    }
}

#[test]
fn what_was_idle_for_too_long_just_before_a_goodbye_was_not_closed_for_it() {
    let (mut stage, monitor, pool) = settled(NODE, 3);
    stage.at(20_000).close(pool[0]);
    stage.at(21_000);
    stage.goodbye(pool[1], &[1, 2, 3]);
    for one in [pool[1], pool[2], monitor] {
        stage.close(one);
    }
    stage.at(25_000);
    let [idle, _, _, pool_closed] = reasons(&stage);
    assert_eq!([idle, pool_closed], [1, 2]);
}
