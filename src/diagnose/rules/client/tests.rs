use std::time::Duration;

use super::super::super::{Case, Cause};
use super::super::Opinion;
use super::RULES;
use crate::detect::{CloseGroup, LeakSign, Signal, SignalKind, Subject};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

const AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// A process that goes on has shown it by then.
const LATER: Duration = Duration::from_secs(1);

fn signal(kind: SignalKind) -> Signal {
    Signal {
        at: AT,
        seen_at: AT,
        subject: Subject {
            upstream: UpstreamId(0),
            instance: Some(InstanceId(1)),
            mongo_client: None,
        },
        among: Vec::new(),
        kind,
    }
}

/// Every opinion of the rules of this floor that is worth naming, the best first.
fn opinions(kinds: Vec<SignalKind>) -> Vec<(Cause, f64)> {
    opinions_at(AT + LATER, kinds)
}

fn opinions_at(now: Timestamp, kinds: Vec<SignalKind>) -> Vec<(Cause, f64)> {
    let mut case = Case::default();
    for kind in kinds {
        case.add(signal(kind));
    }
    let pools = Pools::new(Vec::new());
    let mut all: Vec<(Cause, f64)> = RULES
        .iter()
        .filter_map(|rule| rule(&case, &pools, now))
        .map(|opinion| (opinion.cause, opinion.confidence))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

fn best(kinds: Vec<SignalKind>) -> Option<Cause> {
    let (cause, confidence) = *opinions(kinds).first()?;
    (confidence >= 0.5).then_some(cause)
}

/// What is said of a client that ended its connections.
struct Farewell {
    in_flight: u64,
    monitors: u64,
    says_goodbye: bool,
    still_busy: u64,
    load: u64,
    age: Duration,
    is_after_trouble: bool,
    is_alive: Option<bool>,
    is_legacy: bool,
}

/// A busy service of four connections and two monitors that was there for a minute.
const SERVICE: Farewell = Farewell {
    in_flight: 3,
    monitors: 2,
    says_goodbye: false,
    still_busy: 0,
    load: 4,
    age: Duration::from_mins(1),
    is_after_trouble: false,
    is_alive: None,
    is_legacy: false,
};

impl Farewell {
    fn told(self) -> SignalKind {
        SignalKind::ClientClosed {
            group: CloseGroup {
                closed: 4 + self.monitors,
                of: 4 + self.monitors,
                monitors: self.monitors,
                in_flight: self.in_flight,
                requests_lost: self.in_flight,
                has_said_goodbye: self.says_goodbye,
                span: Duration::from_millis(5),
                ..CloseGroup::default()
            },
            is_whole: true,
            still_busy: self.still_busy,
            transactions: 0,
            load: self.load,
            age: self.age,
            is_after_trouble: self.is_after_trouble,
            is_replaced: false,
            is_alive: self.is_alive,
            is_legacy: self.is_legacy,
            had_sessions: false,
        }
    }
}

#[test]
fn a_client_cut_in_the_middle_of_its_work_is_a_process_that_died() {
    assert_eq!(best(vec![SERVICE.told()]), Some(Cause::AppCrash));
    let replaced = Farewell {
        is_alive: Some(false),
        ..SERVICE
    };
    assert_eq!(best(vec![replaced.told()]), Some(Cause::AppCrash));
}

#[test]
fn whether_the_process_goes_on_is_waited_for() {
    let sure = |now| {
        let opinions = opinions_at(now, vec![SERVICE.told()]);
        opinions
            .into_iter()
            .filter(|(_, confidence)| *confidence >= 0.5)
            .count()
    };
    assert_eq!(sure(AT + Duration::from_millis(300)), 0);
    assert_eq!(sure(AT + LATER), 2, "ranked then");
}

#[test]
fn a_client_whose_monitors_go_on_was_not_closed() {
    let lives = Farewell {
        is_alive: Some(true),
        ..SERVICE
    };
    let mut told = lives.told();
    if let SignalKind::ClientClosed {
        group, is_whole, ..
    } = &mut told
    {
        group.monitors = 0;
        group.monitors_left = 2;
        *is_whole = false;
    }
    assert_eq!(best(vec![told]), None, "time-outs leave monitors alone");
}

#[test]
fn between_two_operations_a_busy_process_may_die_too() {
    let between = Farewell {
        in_flight: 0,
        ..SERVICE
    };
    assert_eq!(best(vec![between.told()]), Some(Cause::AppCrash));
}

#[test]
fn a_process_that_lives_on_tore_its_pool_down() {
    for says_goodbye in [false, true] {
        let closed = Farewell {
            is_alive: Some(true),
            says_goodbye,
            ..SERVICE
        };
        assert_eq!(best(vec![closed.told()]), Some(Cause::DriverPoolDestroyed));
    }
}

#[test]
fn a_goodbye_is_no_crash() {
    let closed = Farewell {
        says_goodbye: true,
        ..SERVICE
    };
    assert!(
        opinions(vec![closed.told()])
            .iter()
            .all(|(cause, _)| *cause != Cause::AppCrash)
    );
}

#[test]
fn a_short_lived_client_that_leaves_work_behind_was_not_awaited() {
    let job = Farewell {
        says_goodbye: true,
        in_flight: 0,
        still_busy: 3,
        age: Duration::from_millis(700),
        ..SERVICE
    };
    assert_eq!(best(vec![job.told()]), Some(Cause::UnhandledAsyncCleanup));
}

#[test]
fn what_clients_do_in_trouble_is_not_their_own_doing() {
    let aftermath = Farewell {
        is_after_trouble: true,
        is_alive: Some(true),
        ..SERVICE
    };
    assert_eq!(best(vec![aftermath.told()]), None);
}

#[test]
fn a_client_whose_requests_timed_out_neither_died_nor_closed() {
    let timed_out = SignalKind::EqualIdleAge {
        age: Duration::from_millis(1500),
        spread: Duration::from_millis(4),
        closed: 4,
        in_flight: 4,
        by_server: false,
        at_first_use: false,
        pauses: None,
        is_unacknowledged: false,
    };
    assert_eq!(best(vec![SERVICE.told(), timed_out]), None);
}

#[test]
fn an_idle_script_that_ends_without_a_word_alarms_nobody() {
    let script = Farewell {
        in_flight: 0,
        load: 1,
        monitors: 0,
        age: Duration::from_millis(800),
        ..SERVICE
    };
    assert_eq!(best(vec![script.told()]), None);
}

#[test]
fn a_legacy_pool_that_grew_when_it_went_had_a_queue() {
    let growing = |in_handshake| {
        let mut kind = Farewell {
            in_flight: 0,
            monitors: 0,
            is_legacy: true,
            is_alive: Some(true),
            ..SERVICE
        }
        .told();
        if let SignalKind::ClientClosed { group, .. } = &mut kind {
            group.in_handshake = in_handshake;
        }
        let all = opinions(vec![kind]);
        let found = all
            .iter()
            .find(|(cause, _)| *cause == Cause::DriverPoolDestroyed);
        found.map(|(_, confidence)| *confidence).unwrap()
    };
    assert!(growing(0) >= 0.5);
    assert!(growing(1) > growing(0));
}

#[test]
fn the_first_process_of_an_application_is_nothing_to_tell_of() {
    let came = |others| {
        let came = SignalKind::InstanceAppeared { others };
        opinions_at(AT + Duration::from_secs(2), vec![came])
    };
    assert_eq!(came(0), []);
    assert_eq!(came(1)[0].0, Cause::ScaleOut);
}

#[test]
fn a_client_that_stays_away_is_surer_when_others_came_back() {
    let silent = |others_back| {
        let all = opinions(vec![SignalKind::SilentAfterTrouble {
            silent: Duration::from_secs(9),
            others_back,
            logs_in: false,
        }]);
        assert_eq!(all[0].0, Cause::WedgedClient);
        all[0].1
    };
    assert!(silent(0) >= 0.5);
    assert!(silent(2) > silent(0));
}

/// Of eleven clients that one process made within 41 s, eight lie idle.
fn leak() -> SignalKind {
    leak_told_by(LeakSign::Monitors)
}

fn leak_told_by(sign: LeakSign) -> SignalKind {
    SignalKind::ClientLeak {
        sign,
        from: 1,
        to: 11,
        left: 8,
        closed: 0,
        connections: 24,
        monitors: 16,
        rested: Duration::from_secs(12),
        lasted: Duration::from_secs(41),
        evident_at: AT,
    }
}

fn no_reuse() -> SignalKind {
    SignalKind::NoReuse {
        opened: 12,
        closed: 3,
        operations: 12,
        needless: 11,
        window: Duration::from_millis(1400),
    }
}

/// What is thought of the first cause.
fn first(kinds: Vec<SignalKind>, aside: Option<SignalKind>) -> Option<Opinion> {
    let mut case = Case::default();
    for kind in kinds {
        case.add(signal(kind));
    }
    if let Some(aside) = aside {
        case.accompany(&signal(aside));
    }
    let pools = Pools::new(Vec::new());
    RULES.iter().find_map(|rule| rule(&case, &pools, AT))
}

/// The evidence for it.
fn evidence(kinds: Vec<SignalKind>, aside: Option<SignalKind>) -> Vec<String> {
    let evidence = first(kinds, aside).map(|opinion| opinion.evidence);
    let facts = evidence.into_iter().flatten().map(|one| one.fact);
    facts.collect()
}

#[test]
fn clients_left_behind_slowly_are_a_client_for_each_request() {
    assert_eq!(best(vec![leak()]), Some(Cause::ClientPerRequest));
    assert_eq!(
        evidence(vec![leak()], None),
        [
            "open mongo clients of one process grew from 1 to 11 within 41.0 s",
            "8 of them were used when they were new and never since: they lie idle for 12.0 s at the least",
            "none was closed meanwhile",
            "the idle ones hold 24 connections, of which 16 watch servers",
        ]
    );
}

#[test]
fn what_tells_clients_without_monitors_is_evidence() {
    for (sign, told, grown) in [
        (
            LeakSign::Hellos,
            "each of these connections carries hellos",
            "open mongo clients of one process grew",
        ),
        (
            LeakSign::Number,
            "they are more than the processes of a service",
            "open mongo clients grew",
        ),
    ] {
        let facts = evidence(vec![leak_told_by(sign)], None);
        assert!(
            facts.first().is_some_and(|fact| fact.starts_with(grown)),
            "{facts:?}"
        );
        assert!(
            facts.last().is_some_and(|fact| fact.starts_with(told)),
            "{facts:?}"
        );
    }
}

#[test]
fn clients_that_may_be_processes_are_a_less_sure_leak() {
    let told = |sign| first(vec![leak_told_by(sign)], None).unwrap();
    let (sure, less) = (told(LeakSign::Hellos), told(LeakSign::Number));
    assert!(sure.confidence > less.confidence && less.confidence >= 0.5);
    let rival = |opinion: &Opinion| {
        opinion
            .against
            .iter()
            .any(|one| one.fact.starts_with("processes that start"))
    };
    assert!(rival(&less) && !rival(&sure));
}

#[test]
fn connections_that_are_not_used_again_are_evidence_and_no_ground() {
    assert_eq!(evidence(Vec::new(), Some(no_reuse())), [""; 0]);
    let told = "connections are not used again: 12 opened within 1.4 s carried 12 operations, 1.0 each; 11 of them came when another was at hand or had been closed, and 3 were closed again";
    let churn = SignalKind::ClientChurn {
        created: 12,
        closed: 12,
        evident_at: AT,
        window: Duration::from_millis(1400),
        operations_each: 1.0,
    };
    let storm = SignalKind::ReconnectBurst {
        from: None,
        opened: 400,
        lost: 5,
        lasted: Duration::from_secs(4),
        baseline: 0.1,
    };
    for kind in [leak(), churn, storm] {
        let facts = evidence(vec![kind], Some(no_reuse()));
        assert_eq!(facts.last().map(String::as_str), Some(told));
    }
}
