use super::*;
use crate::connection::Phase;
use crate::detect::testing::{at, ended, pools, ready};
use crate::timeline::{ConnectionId, Entry, Sample};

/// A client of Node's driver with a monitor (1) and two pooled connections (2 and 3), at work until the server's side
/// ends them at 10 s; the server is back at 12 s.
struct Stage {
    pools: Pools,
    detector: Absent,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self {
            pools: pools(),
            detector: Absent::default(),
        };
        stage.monitor(0, 1);
        stage.open(100, 2, "orders", 1);
        stage.open(100, 3, "orders", 1);
        stage
    }

    fn open(&mut self, millis: u64, number: u64, application: &str, host: u8) {
        for fact in ready(host, number, application) {
            self.tell(millis, number, fact);
        }
    }

    fn monitor(&mut self, millis: u64, number: u64) {
        self.open(millis, number, "orders", 1);
        self.tell(millis, number, Fact::RoleFound(Role::Monitor));
    }

    fn tell(&mut self, millis: u64, number: u64, fact: Fact) {
        let entry = Entry {
            at: at(millis),
            connection: ConnectionId(number),
            fact,
        };
        self.pools.record(&entry);
        let taken = Taken::of(&entry, &self.pools).unwrap();
        self.detector.record(&taken, &mut Vec::new());
    }

    fn end(&mut self, millis: u64, number: u64, initiator: Initiator, operations: u64) {
        let last = Sample {
            operations,
            from_client_at: at(millis - 500),
            from_server_at: at(millis - 499),
            ..Sample::default()
        };
        self.tell(millis, number, ended(initiator, Phase::Idle, last));
    }

    fn crash(&mut self, operations: u64) {
        for number in 1..=3 {
            self.end(10_000, number, Initiator::Server, operations);
        }
    }

    /// What is told from the return of the server on: how long the client was silent, and how many monitors it has.
    fn told(&mut self) -> Vec<(Timestamp, Duration, u64, u64)> {
        let mut signals = Vec::new();
        for millis in (12_250..60_000).step_by(250) {
            self.pools.tick(at(millis));
            self.detector.tick(at(millis), &self.pools, &mut signals);
        }
        let told = signals.into_iter().map(|signal| {
            let SignalKind::StaysAway {
                silent,
                lost,
                monitors,
                ..
            } = signal.kind
            else {
                panic!("{signal:?}");
            };
            (signal.at, silent, lost, monitors)
        });
        told.collect()
    }
}

#[test]
fn a_client_whose_monitor_alone_comes_back_stays_away() {
    let mut stage = Stage::new();
    stage.crash(400);
    stage.monitor(12_000, 4);
    let told = stage.told();
    let [(back_at, silent, lost, monitors)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((back_at, lost, monitors), (at(12_000), 2, 1));
    assert!(silent >= AWAY && silent < AWAY + Duration::from_secs(2));
}

#[test]
fn a_client_of_which_nothing_is_left_stays_away_when_others_come_back() {
    let mut stage = Stage::new();
    stage.crash(400);
    stage.open(12_000, 4, "billing", 2);
    let told = stage.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].3, 0);
}

#[test]
fn nobody_else_shows_a_process_that_is_gone() {
    let mut stage = Stage::new();
    stage.crash(400);
    assert_eq!(stage.told(), []);
}

#[test]
fn a_client_that_dials_again_is_back() {
    let mut stage = Stage::new();
    stage.crash(400);
    stage.monitor(12_000, 4);
    stage.open(14_000, 5, "orders", 1);
    stage.tell(14_000, 5, Fact::RoleFound(Role::Application));
    assert_eq!(stage.told(), []);
    // Nor is it known whether it is, while it is not known what it dialled for.
    let mut stage = Stage::new();
    stage.crash(400);
    stage.open(14_000, 5, "orders", 1);
    assert_eq!(stage.told(), []);
}

#[test]
fn a_client_that_was_hardly_at_work_need_not_come_back() {
    let mut stage = Stage::new();
    stage.crash(9);
    stage.monitor(12_000, 4);
    assert_eq!(stage.told(), []);
}

#[test]
fn a_client_that_is_replaced_is_no_absent_one() {
    let mut stage = Stage::new();
    stage.crash(400);
    stage.open(12_000, 4, "billing", 2);
    stage.open(13_000, 5, "orders", 3);
    assert_eq!(stage.told(), []);
}

#[test]
fn an_application_that_closes_its_client_stops() {
    let mut stage = Stage::new();
    for number in 1..=3 {
        stage.end(10_000, number, Initiator::Client, 400);
    }
    stage.open(12_000, 4, "billing", 2);
    assert_eq!(stage.told(), []);
    let mut stage = Stage::new();
    stage.monitor(9000, 6);
    stage.tell(10_500, 6, Fact::SessionsEnded(Vec::new()));
    stage.crash(400);
    stage.open(12_000, 4, "billing", 2);
    assert_eq!(stage.told(), []);
}
