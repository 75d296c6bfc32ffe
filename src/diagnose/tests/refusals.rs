//! Servers that say no, and what the tables of pools add to that.

use super::stage::{Stage, again, turned_away, wide};
use crate::diagnose::Cause;

#[test]
fn what_pools_want_is_counted_against_what_the_server_kept() {
    let mut stage = Stage::new(2);
    stage.pooled("orders", 1, 1, 7);
    stage.pooled("orders", 2, 2, 4);
    stage.pooled("billing", 2, 3, 3);
    stage.consider(500, [again(wide(300, 0, turned_away(6, 14)), 500)]);
    let open = stage.open();
    assert_eq!(open[0].cause(), Cause::PoolCapacity);
    let facts: Vec<(&str, Option<u64>)> = open[0].causes[0]
        .evidence
        .iter()
        .map(|one| (&*one.fact, one.count))
        .collect();
    assert_eq!(
        facts[2..],
        [(
            "3 instances have 3 open mongo clients with pools of up to 7 connections, as seen at their largest: \
             together they had 14 connections and want more, and the server kept 14 open",
            Some(14)
        )]
    );
}

#[test]
fn pools_of_other_servers_want_nothing_of_this_one() {
    let mut stage = Stage::new(2);
    stage.pooled("orders", 1, 1, 7);
    stage.consider(500, [again(wide(300, 1, turned_away(6, 14)), 500)]);
    assert_eq!(stage.open()[0].causes[0].evidence.len(), 2);
}
