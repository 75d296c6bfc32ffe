//! What pools go through.

use super::stage::*;
use crate::connection::{ErrorKind, Initiator, Manner, Phase, Role};
use crate::pools::*;

/// A client with this many pooled connections and a monitor that streams; all are there after ten seconds.
pub(super) fn settled(driver: Driver, connections: u8) -> (Stage, ConnectionId, Vec<ConnectionId>) {
    let mut stage = Stage::new(1);
    let monitor = stage.monitor(driver, 0, 1);
    stage.describe(monitor, "rs0");
    stage.at(10);
    let pool = (1..=connections)
        .map(|number| stage.pooled(driver, 0, 1 + i32::from(number), number))
        .collect();
    stage.at(9990).hear(monitor);
    stage.at(10_000);
    (stage, monitor, pool)
}

pub(super) fn pool(stage: &Stage) -> &Pool {
    let client = stage.pools.mongo_clients().next().unwrap();
    &client.pools[&UpstreamId(0)]
}

pub(super) fn reasons(stage: &Stage) -> [u64; 4] {
    let closed = pool(stage).closed;
    [
        CloseReason::Idle,
        CloseReason::Stale,
        CloseReason::Error,
        CloseReason::PoolClosed,
    ]
    .map(|reason| closed.of(reason))
}

#[test]
fn one_outage_is_one_episode() {
    let (mut stage, monitor, pool) = settled(NODE, 3);
    stage.end(pool[0], Initiator::Server, Manner::Reset, Phase::InExchange);
    stage.end(monitor, Initiator::Server, Manner::Fin, Phase::Idle);
    stage.at(10_005);
    stage.close(pool[1]);
    stage.end(pool[2], Initiator::Server, Manner::Fin, Phase::Idle);
    // Checks that fail.
    for (millis, request_id) in [(10_500, 100), (11_000, 101), (11_500, 102)] {
        stage.at(millis);
        let check = stage.dial(NODE, 0, request_id);
        stage.end(check, Initiator::Server, Manner::Fin, Phase::Handshaking);
    }
    stage.at(13_000);
    stage.monitor(NODE, 0, 120);
    stage.at(13_100);
    stage.pooled(NODE, 0, 121, 1);
    stage.at(20_000);
    assert_eq!(
        stage.clears(),
        [(10_000, Some(13_000), ClearTrigger::Network)]
    );
    assert_eq!(reasons(&stage), [0, 1, 2, 0]);
    assert_eq!(super::clears::pool(&stage).clears[0].closed, 3);
    assert_eq!(super::clears::pool(&stage).recycled, 1);
}

#[test]
fn a_shutdown_is_told_by_its_replies() {
    let (mut stage, monitor, pool) = settled(PYMONGO, 2);
    stage.fail(monitor, 11600);
    stage.close(monitor);
    stage.at(10_050);
    for id in pool {
        stage.close(id);
    }
    stage.at(15_000);
    assert_eq!(
        stage.clears(),
        [(10_000, None, ClearTrigger::ServerShutdown)]
    );
    assert_eq!(reasons(&stage), [0, 2, 0, 0]);
}

#[test]
fn a_write_concern_that_fails_in_a_step_down_clears_old_pools_of_pymongo() {
    for (driver, cleared) in [(OLD_PYMONGO, 1), (PYMONGO, 0)] {
        let (mut stage, _, pool) = settled(driver, 2);
        stage.fail(pool[0], 11602);
        assert_eq!(stage.clears(), []);
        stage.fail_with(pool[1], ErrorKind::WriteConcern, 11602);
        assert_eq!(stage.clears().len(), cleared, "{driver:?}");
    }
}

#[test]
fn a_shutdown_reply_that_leaves_the_monitor_alone_ends_with_its_next_answer() {
    let (mut stage, monitor, pool) = settled(NODE, 2);
    stage.fail(pool[0], 11600);
    stage.at(10_010).close(pool[1]);
    stage.at(19_990).hear(monitor);
    stage.at(25_000).fail(pool[0], 10107);
    stage.at(26_000);
    let shutdown = ClearTrigger::ServerShutdown;
    assert_eq!(stage.clears(), [(10_000, Some(19_990), shutdown)]);
}

#[test]
fn what_is_no_sign_is_silent() {
    // The time-out of an operation.
    let (mut stage, _, pool) = settled(NODE, 3);
    stage.end(pool[0], Initiator::Client, Manner::Fin, Phase::InExchange);
    // The end of an idle connection.
    stage.end(pool[1], Initiator::Server, Manner::Fin, Phase::Idle);
    // A step-down of a modern server.
    stage.fail(pool[2], 10107);
    stage.at(15_000);
    assert_eq!(stage.clears(), []);
    assert_eq!(reasons(&stage), [0, 0, 2, 0]);

    // A client that closes, and one whose process dies.
    for says_goodbye in [true, false] {
        let (mut stage, monitor, pool) = settled(PYMONGO, 2);
        if says_goodbye {
            stage.goodbye(pool[0], &[1, 2]);
        }
        for id in pool {
            stage.close(id);
        }
        stage.at(10_050).close(monitor);
        stage.at(20_000);
        assert_eq!(stage.clears(), []);
        assert_eq!(reasons(&stage), [0, 0, 0, 2], "{says_goodbye}");
    }
}

#[test]
fn a_monitor_that_is_given_up_takes_its_pool_along() {
    let (mut stage, monitor, pool) = settled(RUST, 3);
    for id in &pool {
        stage.busy(*id, 1);
    }
    stage.at(22_500);
    stage.close(monitor);
    for id in &pool {
        stage.end(*id, Initiator::Client, Manner::Fin, Phase::InExchange);
    }
    let check = stage.dial(RUST, 0, 50);
    stage.at(25_000);
    assert_eq!(stage.clears(), [(22_500, None, ClearTrigger::Network)]);
    stage.tell(check, Fact::HelloAnswered(Duration::from_secs(2)));
    stage.at(30_000);
    // Rust's cancelled operations leave errors on their connections.
    assert_eq!(reasons(&stage), [0, 0, 3, 0]);
    assert_eq!(
        stage.clears(),
        [(22_500, Some(25_000), ClearTrigger::Network)]
    );
}

#[test]
fn a_monitor_that_is_replaced_without_need_is_a_clear_of_unknown_cause() {
    let (mut stage, monitor, pool) = settled(PYMONGO, 3);
    stage.close(monitor);
    stage.close(pool[0]);
    stage.at(10_020).monitor(PYMONGO, 0, 3);
    stage.at(13_000);
    let clears = stage.clears();
    assert_eq!((clears[0].0, clears[0].2), (10_000, ClearTrigger::Unknown));
    assert_eq!(clears.len(), 1);
}

#[test]
fn connections_that_break_in_the_handshake_clear_older_pools_only() {
    for (driver, expected) in [(NODE, 1), (PYMONGO, 0)] {
        let (mut stage, _, _) = settled(driver, 1);
        let fresh = stage.dial(driver, 0, 10);
        stage.end(fresh, Initiator::Server, Manner::Fin, Phase::Handshaking);
        stage.at(12_000);
        assert_eq!(stage.clears().len(), expected, "{driver:?}");
    }
}

#[test]
fn what_was_heard_before_a_pool_was_cleared_again_does_not_make_it_ready() {
    let (mut stage, monitor, pool) = settled(PYMONGO, 2);
    stage.end(pool[0], Initiator::Server, Manner::Fin, Phase::InExchange);
    stage.close(pool[1]);
    stage.close(monitor);
    stage.at(10_200);
    let monitor = stage.monitor(PYMONGO, 0, 10);
    let fresh = stage.pooled(PYMONGO, 0, 11, 3);
    stage.at(10_250).hear(monitor);
    stage.at(10_750);
    stage.end(fresh, Initiator::Server, Manner::Fin, Phase::InExchange);
    // When bytes came last is told once a second.
    stage.at(11_000).sample(monitor);
    stage.close(monitor);
    stage.at(11_300).monitor(PYMONGO, 0, 12);
    let fresh = stage.pooled(PYMONGO, 0, 13, 3);
    stage.at(11_310);
    stage.end(fresh, Initiator::Server, Manner::Fin, Phase::InExchange);
    stage.at(11_800).monitor(PYMONGO, 0, 14);
    stage.at(15_000);
    assert_eq!(
        stage.clears(),
        [(10_000, Some(11_800), ClearTrigger::Network)]
    );
}

#[test]
fn the_legacy_pool_is_never_cleared() {
    let mut stage = Stage::new(1);
    let pool: Vec<_> = (1..=3)
        .map(|number| stage.pooled(LEGACY, 0, i32::from(number), number))
        .collect();
    stage.at(5000);
    for id in pool {
        stage.end(id, Initiator::Server, Manner::Reset, Phase::InExchange);
    }
    stage.at(10_000);
    assert_eq!(stage.clears(), []);
    assert_eq!(reasons(&stage), [0, 0, 3, 0]);
}

#[test]
fn idle_connections_that_are_closed_and_replaced_tell_the_limit() {
    let (mut stage, _, pool) = settled(PYMONGO, 4);
    for (number, id) in (0_u8..).zip(pool) {
        let millis = 14_000 + u64::from(number) * 1000;
        stage.at(millis - 3050).work(id, 1, 1);
        stage.at(millis).close(id);
        stage.at(millis + 500);
        stage.pooled(PYMONGO, 0, 9, 1);
    }
    stage.at(20_000);
    assert_eq!(stage.clears(), []);
    assert_eq!(reasons(&stage), [4, 0, 0, 0]);
    let pool = super::clears::pool(&stage);
    assert_eq!(pool.max_idle.unwrap().value.as_millis(), 3050);
    assert!(pool.recycled >= 3, "{}", pool.recycled);
    let at = start() + Duration::from_secs(20);
    assert!(pool.recycled_per_minute(at) > 0.5);
    assert!(pool.recycled_per_thousand_operations(at).unwrap() > 100.0);
    assert!(pool.sockets_per_second(at) > 0.1);
}

#[test]
fn a_pool_that_is_all_in_use_and_does_not_grow_is_at_its_limit() {
    let (mut stage, _, pool) = settled(RUST, 10);
    for id in &pool {
        stage.busy(*id, 1);
    }
    for millis in (11_000..20_000).step_by(1000) {
        stage.at(millis);
        for id in &pool {
            stage.busy(*id, 1);
        }
    }
    let seen = super::clears::pool(&stage);
    assert_eq!(seen.max_size.unwrap().value, 10);
    assert!(seen.max_size.unwrap().confidence > 0.7);
    assert!(seen.saturated_since.is_some());
    stage.busy(pool[0], 0);
    assert_eq!(super::clears::pool(&stage).saturated_since, None);
}

#[test]
fn connections_nobody_asked_for_tell_the_minimum() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    stage.at(20);
    for number in 2..5 {
        stage.open(NODE, 0, number);
    }
    stage.at(10_500);
    let round_trip = stage.open(NODE, 0, 20);
    stage.at(20_500);
    stage.tell(round_trip, Fact::RoleFound(Role::RoundTripMonitor));
    stage.at(21_000);
    let seen = pool(&stage);
    assert_eq!(seen.open.len(), 3);
    assert_eq!(seen.min_size.unwrap().value, 3);
    assert!(seen.min_size.unwrap().confidence > 0.5);
}

#[test]
fn a_monitor_that_is_reset_on_its_way_and_made_anew_is_a_clear() {
    let (mut stage, monitor, pool) = settled(NODE, 2);
    for id in pool {
        stage.end(id, Initiator::Client, Manner::Reset, Phase::InExchange);
    }
    stage.end(monitor, Initiator::Client, Manner::Reset, Phase::Idle);
    stage.at(10_020);
    stage.monitor(NODE, 0, 120);
    stage.at(10_030).pooled(NODE, 0, 121, 1);
    stage.at(15_000);
    assert_eq!(
        stage.clears(),
        [(10_000, Some(10_020), ClearTrigger::Network)]
    );

    // One that does not come back was its process.
    let (mut stage, monitor, pool) = settled(NODE, 2);
    for id in pool {
        stage.end(id, Initiator::Client, Manner::Reset, Phase::InExchange);
    }
    stage.end(monitor, Initiator::Client, Manner::Reset, Phase::Idle);
    stage.at(15_000);
    assert_eq!(stage.clears(), []);
}

#[test]
fn a_check_that_is_cancelled_over_a_dead_pool_is_a_clear() {
    let (mut stage, monitor, pool) = settled(RUST, 2);
    for id in pool {
        stage.end(id, Initiator::Server, Manner::Fin, Phase::Idle);
    }
    stage.at(11_200).close(monitor);
    stage.at(11_700);
    stage.monitor(RUST, 0, 120);
    stage.at(11_710).pooled(RUST, 0, 121, 1);
    stage.at(16_000);
    assert_eq!(
        stage.clears(),
        [(11_200, Some(11_700), ClearTrigger::Unknown)]
    );
}

#[test]
fn a_handshake_that_is_given_up_clears_when_it_is_unless_its_dial_hung() {
    // The server is frozen, and its kernel accepts.
    let (mut stage, _, _) = settled(NODE, 2);
    stage.at(12_000);
    let frozen = stage.dial(NODE, 0, 8);
    stage.at(14_000);
    stage.end(frozen, Initiator::Client, Manner::Fin, Phase::Handshaking);
    stage.at(14_500);
    assert_eq!(stage.clears()[0].0, 14_000);
    // Nothing gets through: all that the client said is read when the dial is through, a second after it gave up.
    let (mut stage, _, _) = settled(NODE, 2);
    stage.at(12_000);
    let hung = stage.accept_only(0);
    stage.at(15_000);
    stage.tell(hung, Fact::Dialled(Duration::from_secs(3)));
    stage.introduce(hung, NODE, 8);
    stage.end(hung, Initiator::Client, Manner::Fin, Phase::Handshaking);
    stage.at(15_500);
    assert_eq!(stage.clears()[0].0, 12_500, "at the earliest");
}

#[test]
fn a_handshake_that_is_given_up_while_its_dial_hangs_clears_when_its_client_left() {
    let cleared_at = |left_at: u64| {
        let (mut stage, _, _) = settled(NODE, 2);
        stage.at(12_000);
        let hung = stage.accept_only(0);
        stage.at(15_000);
        stage.tell(hung, Fact::Dialled(Duration::from_secs(3)));
        stage.introduce(hung, NODE, 8);
        stage.left_at = Some(start() + Duration::from_millis(left_at));
        stage.end(hung, Initiator::Client, Manner::Fin, Phase::Handshaking);
        stage.at(15_500);
        stage.clears().first().map(|(at, ..)| *at)
    };
    assert_eq!(cleared_at(14_000), Some(14_000));
    assert_eq!(cleared_at(14_999), Some(14_999));
    assert_eq!(cleared_at(12_200), None, "it did not wait for long");
}

#[test]
fn a_pool_is_ready_again_with_the_next_monitor_although_the_old_ones_end_is_read_after_it() {
    let (mut stage, monitor, pool) = settled(GO, 3);
    stage.monitor(GO, 0, 30);
    stage.at(10_001);
    stage.close(monitor);
    stage.close(pool[0]);
    stage.at(16_000);
    assert_eq!(
        stage.clears(),
        [(10_001, Some(10_001), ClearTrigger::Unknown)]
    );
}

#[test]
fn an_outage_clears_an_idle_pool_however_young_it_is() {
    for driver in [NODE, GO, RUST, PYMONGO, OLD_PYMONGO] {
        // Before anyone looked, and after that.
        for crash in [100, 300] {
            let mut stage = Stage::new(1);
            let monitor = stage.monitor(driver, 0, 1);
            stage.at(10);
            let pool = [2, 3].map(|request_id| stage.pooled(driver, 0, request_id, 1));
            stage.at(crash);
            for id in pool.into_iter().chain([monitor]) {
                stage.end(id, Initiator::Server, Manner::Fin, Phase::Idle);
            }
            stage.at(3_000);
            stage.monitor(driver, 0, 20);
            stage.at(3_100);
            stage.pooled(driver, 0, 21, 1);
            stage.at(9_000);
            assert_eq!(
                stage.clears(),
                [(crash, Some(3_000), ClearTrigger::Network)],
                "{driver:?}"
            );
            assert_eq!(stage.clients(), [(1, 1)], "{driver:?}");
        }
    }
}
