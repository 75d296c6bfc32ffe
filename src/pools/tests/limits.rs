//! Servers at their limit, which turn clients away before they answer.

use super::stage::*;
use crate::pools::*;

/// Two processes behind one address, as Node 3.6 with the unified topology is: a client is checked, and lets its pool be
/// filled; some of that is turned away, for which it gives up its monitor, to check again half a second later. Each counts
/// its handshakes.
fn turned_away() -> Stage {
    let mut stage = Stage::new(1);
    let answered = |stage: &mut Stage, opened_ms, ended_ms, request_id, turned_away: &[i32]| {
        let monitor = stage.at(opened_ms).open(UNIFIED, 0, request_id);
        stage.at(opened_ms + 10);
        for request_id in turned_away {
            stage.refuse(UNIFIED, 0, *request_id);
        }
        stage.at(ended_ms).close(monitor);
    };
    let monitor = stage.at(400).open(UNIFIED, 0, 1);
    stage.at(440).pooled(UNIFIED, 0, 2, 1);
    stage.pooled(UNIFIED, 0, 3, 1);
    stage.refuse(UNIFIED, 0, 4);
    stage.at(3_550).close(monitor);
    answered(&mut stage, 3_880, 3_940, 1, &[2, 3, 4]);
    // Both have counted four; the one that has waited longer is the first to check again.
    answered(&mut stage, 4_070, 4_086, 5, &[6]);
    answered(&mut stage, 4_480, 4_500, 5, &[6, 7]);
    answered(&mut stage, 4_600, 4_690, 7, &[8]);
    // Checks that are turned away: one of either.
    stage.at(5_020).refuse(UNIFIED, 0, 8);
    stage.at(5_200).refuse(UNIFIED, 0, 9);
    // There is room for one more of either.
    for (millis, request_id, session) in [(5_540, 9, 2), (5_710, 10, 3)] {
        let monitor = stage.at(millis).open(UNIFIED, 0, request_id);
        stage
            .at(millis + 10)
            .pooled(UNIFIED, 0, request_id + 1, session);
        stage.refuse(UNIFIED, 0, request_id + 2);
        stage.at(millis + 60).close(monitor);
    }
    stage.at(9_000);
    stage
}

#[test]
fn whose_is_what_a_server_at_its_limit_turned_away_is_told_by_counts_and_turns() {
    let stage = turned_away();
    let clients = stage.pools.mongo_clients();
    let pools = clients.map(|client| {
        let pool = &client.pools[&UpstreamId(0)];
        (pool.created, pool.open.len())
    });
    assert_eq!(pools.collect::<Vec<_>>(), [(7, 3), (7, 1)]);
}

#[test]
fn a_check_that_is_turned_away_clears_the_pool_of_its_process_and_a_pool_that_is_clears_nothing() {
    let stage = turned_away();
    let clients = stage.pools.mongo_clients();
    let clears: Vec<_> = clients.map(clears_of).collect();
    let network = ClearTrigger::Network;
    assert_eq!(
        clears,
        [
            [(5_200, Some(5_710), network)],
            [(5_020, Some(5_550), network)],
        ]
    );
}
