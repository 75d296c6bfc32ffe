//! How sure each inference is follows from what was seen.

use super::stage::*;
use crate::connection::{Initiator, Manner, Phase, Role};
use crate::pools::*;

fn client(stage: &Stage) -> &MongoClient {
    stage.pools.mongo_clients().next().unwrap()
}

fn pool(stage: &Stage) -> &Pool {
    &client(stage).pools[&UpstreamId(0)]
}

/// A mongo client whose connections end in some way, looked at when it is taken for closed.
fn closed(driver: Driver, says_goodbye: bool, by: Initiator) -> Ground {
    let mut stage = Stage::new(1);
    let monitor = (driver != LEGACY).then(|| stage.monitor(driver, 0, 1));
    stage.at(20);
    let pooled = stage.pooled(driver, 0, 2, 1);
    stage.at(1000);
    assert_eq!(client(&stage).standing().closed(), None, "it is open");
    if says_goodbye {
        stage.goodbye(pooled, &[1]);
    }
    for id in [pooled].into_iter().chain(monitor) {
        stage.end(id, by, Manner::Fin, Phase::Idle);
    }
    // What was lost for good is remembered for no longer than it was waited for.
    let mut moments = (1..=160).map(|step| 1000 + step * 250);
    let found = moments.find_map(|millis| {
        stage.at(millis);
        client(&stage).standing().closed()
    });
    found.expect("it is taken for closed")
}

#[test]
fn a_goodbye_is_surer_than_a_silence() {
    let (client, server) = (Initiator::Client, Initiator::Server);
    let told = [
        closed(NODE, true, client),
        closed(NODE, false, client),
        closed(NODE, false, server),
        closed(LEGACY, false, client),
        closed(LEGACY, false, server),
    ];
    for pair in told.windows(2) {
        assert!(pair[0].confidence > pair[1].confidence, "{pair:#?}");
        assert_ne!(pair[0].evidence, pair[1].evidence);
    }
    assert!(told[0].evidence.contains("endSessions"));
}

#[test]
fn a_pool_is_ready_when_its_check_is_answered() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    stage.at(20);
    stage.pooled(NODE, 0, 2, 1);
    stage.at(1000);
    let watched = pool(&stage).ground_of_ready().unwrap();
    let born = client(&stage).standing().created();
    let mut stage = Stage::new(1);
    stage.pooled(LEGACY, 0, 2, 1);
    stage.at(1000);
    let unwatched = pool(&stage).ground_of_ready().unwrap();
    assert!(watched.confidence > unwatched.confidence);
    assert_ne!(watched.evidence, unwatched.evidence);
    assert!(born.confidence > client(&stage).standing().created().confidence);
}

#[test]
fn use_proves_what_silence_suggests() {
    let mut stage = Stage::new(1);
    stage.monitor(JAVA, 0, 1);
    stage.at(20);
    stage.pooled(JAVA, 0, 2, 1);
    let silent = stage.open(JAVA, 0, 3);
    stage.at(12_500);
    stage.tell(silent, Fact::RoleFound(Role::Application));
    stage.at(13_000);
    let before = pool(&stage).ground_of_created().unwrap();
    assert_eq!((pool(&stage).created, pool(&stage).used), (2, 1));
    assert!(before.evidence.starts_with("1 of 2 carried"), "{before:?}");
    stage.work(silent, 1, 1);
    stage.at(14_000);
    let after = pool(&stage).ground_of_created().unwrap();
    assert_eq!(pool(&stage).used, 2);
    assert!(after.confidence > before.confidence);
    // What turns out to be another's takes its share with it.
    let evidence = pool(&stage).ground_of_operations().unwrap().evidence;
    assert!(
        evidence.starts_with("2 operations on 2 connections"),
        "{evidence}"
    );
}

#[test]
fn rates_are_surer_of_a_client_that_has_lived() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    stage.at(20);
    let first = stage.pooled(NODE, 0, 2, 1);
    let look = |stage: &Stage, millis: u64| {
        let at = start() + Duration::from_millis(millis);
        let since = client(stage).created_at;
        let sockets = pool(stage).ground_of_sockets(since, at).unwrap();
        let recycled = pool(stage).ground_of_recycling(since, at).unwrap();
        [sockets, recycled]
    };
    stage.at(6_000);
    let young = look(&stage, 6_000);
    assert!(young[0].evidence.contains("6 s, all of its life"));
    stage.at(61_000);
    let old = look(&stage, 301_000);
    for (young, old) in young.iter().zip(&old) {
        assert!(young.confidence < old.confidence, "{young:?} {old:?}");
    }
    // What replaces is as sure as the close of what it replaced.
    stage.close(first);
    stage.at(70_000);
    stage.pooled(NODE, 0, 3, 1);
    stage.at(71_000);
    let replaced = look(&stage, 302_000)[1].clone();
    assert!(
        replaced.evidence.contains("1 of them after"),
        "{replaced:?}"
    );
    assert!(replaced.confidence < old[1].confidence);
    // Two were opened, and one of them was wanted beside those there had been.
    let at = start() + Duration::from_secs(72);
    assert!((pool(&stage).grown_per_minute(at) - 0.2).abs() < 1e-9);
}

#[test]
fn a_pool_that_may_be_about_to_grow_is_not_surely_saturated() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    stage.at(20);
    let all = [2, 3].map(|number| stage.pooled(NODE, 0, number, 1));
    stage.at(1000);
    let at = |millis: u64| start() + Duration::from_millis(millis);
    assert_eq!(pool(&stage).ground_of_saturation(at(1000)), None);
    for id in all {
        stage.busy(id, 1);
    }
    let early = pool(&stage).ground_of_saturation(at(1500)).unwrap();
    stage.at(9000);
    stage.busy(all[0], 1);
    let late = pool(&stage).ground_of_saturation(at(9000)).unwrap();
    assert!(late.confidence > early.confidence, "{early:?} {late:?}");
    assert!(late.evidence.contains("at each of 2 looks in 8.0 s"));
    stage.busy(all[0], 0);
    assert_eq!(pool(&stage).ground_of_saturation(at(9000)), None);
    assert_eq!(pool(&stage).saturated_looks, 0);
}

#[test]
fn a_distribution_of_many_uses_is_surer() {
    let mut pool = Pool::default();
    assert_eq!(pool.ground_of_idle_times(), None);
    let mut look = |uses| {
        pool.rested(Duration::from_secs(1), uses);
        pool.ground_of_idle_times().unwrap()
    };
    let [one, few, many] = [1, 1, 1000].map(&mut look);
    assert!(one.confidence < few.confidence && few.confidence < many.confidence);
    assert_eq!(
        many.evidence,
        "1002 uses: 2 measured singly, 1000 as the mean of several between two looks"
    );
}

#[test]
fn monitors_that_ask_as_such_are_proven() {
    assert_eq!(Ground::of_monitors(0, 0), None);
    let [half, all] = [1, 2].map(|proven| Ground::of_monitors(2, proven).unwrap());
    assert!(half.confidence < all.confidence);
}

#[test]
fn what_joins_connections_is_told() {
    let mut stage = Stage::new(1);
    stage.monitor(NODE, 0, 1);
    stage.at(20);
    stage.pooled(NODE, 0, 2, 1);
    stage.at(1000);
    let alone = client(&stage).standing();
    assert!(alone.is_alone && alone.has_sessions && alone.is_watched);
    let told = alone.joined(1, 1);
    assert!(
        told.contains("1 pooled connection and 1 open monitor"),
        "{told}"
    );
    assert!(told.contains("common logical sessions"), "{told}");
    stage.monitor(NODE, 0, 3);
    stage.at(2000);
    assert!(client(&stage).standing().joined(1, 1).contains("others of"));
}
