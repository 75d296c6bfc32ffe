//! Instances of an application that come and go, as they should.
//!
//! What comes to stay belongs to a rollout. A script that runs every minute, a job, or a worker that serves a few
//! requests and ends comes as well, and goes again: nothing was replaced by it, and nothing added.

use std::time::Duration;

use super::super::super::words::counted;
use super::super::super::{Case, Cause, Evidence};
use super::super::Opinion;
use super::fact;
use crate::detect::{Signal, SignalKind};
use crate::pools::Pools;
use crate::time::Timestamp;

/// A process that is still there after this may have come to stay.
const STAYS: Duration = Duration::from_secs(2);

/// A process has said hello within this of its first dial.
const START: Duration = Duration::from_secs(1);

/// One that leaves sooner had not come to stay.
const SHORT: Duration = Duration::from_mins(1);

/// Processes of an application that came, and those that left.
#[derive(Debug)]
struct Movements<'a> {
    /// They have been there for long enough to have come to stay, the first to come first.
    arrived: Vec<&'a Signal>,
    /// They said goodbye, and at least every other of them was replaced by one that stayed.
    left: Vec<&'a Signal>,
    /// When it was clear that one had come to stay.
    evident_at: Timestamp,
}

/// `None` where nobody came to stay.
fn movements(case: &Case, at: Timestamp) -> Option<Movements<'_>> {
    let new = case.signals().iter().filter(
        |signal| matches!(signal.kind, SignalKind::InstanceAppeared { others } if others > 0),
    );
    let arrived: Vec<&Signal> = new.filter(|signal| at.since(signal.at) >= STAYS).collect();
    let first = arrived.first()?;
    let gone = case.all(|kind| {
        let SignalKind::InstanceGone { age, .. } = kind else {
            return None;
        };
        Some(*age)
    });
    let gone: Vec<(&Signal, Duration)> = gone.collect();
    let came_since = gone.iter().filter(|(signal, age)| {
        let began_at = signal.at - *age;
        // What came a moment ago is not counted among those that came, either.
        *age < SHORT && began_at + START >= first.at && at.since(began_at) >= STAYS
    });
    let stayed = arrived.len().saturating_sub(came_since.count());
    let are_replaced = stayed > 0 && stayed * 2 >= gone.len();
    let evident_at = first.at + STAYS;
    are_replaced.then_some(Movements {
        arrived,
        left: gone.into_iter().map(|(signal, _)| signal).collect(),
        evident_at,
    })
}

fn told(signals: &[&Signal], whom: &str, what: &str) -> Option<Evidence> {
    let first = signals.first()?;
    let count = signals.len() as u64;
    Some(fact(
        first.at,
        count,
        format!("{} {what}", counted(count, whom)),
    ))
}

/// Instances were replaced.
pub(super) fn deploy(case: &Case, _pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let Movements {
        arrived,
        left,
        evident_at,
    } = movements(case, at)?;
    let evident_at = evident_at.max(left.first()?.at);
    Some(Opinion {
        cause: Cause::Deploy,
        confidence: 0.9,
        evident_at,
        evidence: [
            told(&arrived, "new process", "of the application connected"),
            told(&left, "client", "said goodbye with nothing under way"),
        ]
        .into_iter()
        .flatten()
        .collect(),
        against: Vec::new(),
    })
}

/// Instances were added.
pub(super) fn scale_out(case: &Case, _pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let Movements {
        arrived,
        left,
        evident_at,
    } = movements(case, at)?;
    let (confidence, against) = if left.is_empty() {
        (0.7, Vec::new())
    } else {
        (
            0.3,
            told(&left, "client", "left meanwhile")
                .into_iter()
                .collect(),
        )
    };
    Some(Opinion {
        cause: Cause::ScaleOut,
        confidence,
        evident_at,
        evidence: told(&arrived, "new process", "of the application connected")
            .into_iter()
            .collect(),
        against,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Subject;
    use crate::pools::InstanceId;
    use crate::timeline::UpstreamId;

    const AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    fn signal(seconds: u64, kind: SignalKind) -> Signal {
        Signal {
            at: AT + Duration::from_secs(seconds),
            seen_at: AT + Duration::from_secs(seconds),
            subject: Subject {
                upstream: UpstreamId(0),
                instance: Some(InstanceId(1)),
                mongo_client: None,
            },
            among: Vec::new(),
            kind,
        }
    }

    fn came(seconds: u64) -> Signal {
        signal(seconds, SignalKind::InstanceAppeared { others: 1 })
    }

    fn left(seconds: u64, age: u64) -> Signal {
        let kind = SignalKind::InstanceGone {
            has_said_goodbye: true,
            in_flight: 0,
            others: 1,
            age: Duration::from_secs(age),
        };
        signal(seconds, kind)
    }

    /// What is surest after so many seconds, with its evidence.
    fn told(seconds: u64, signals: &[Signal]) -> Option<(Cause, Vec<u64>)> {
        let mut case = Case::default();
        for signal in signals {
            case.add(signal.clone());
        }
        let (pools, at) = (Pools::new(Vec::new()), AT + Duration::from_secs(seconds));
        let opinions = [deploy(&case, &pools, at), scale_out(&case, &pools, at)];
        let opinions = opinions.into_iter().flatten();
        let best = opinions.max_by(|a, b| a.confidence.total_cmp(&b.confidence))?;
        let counts = best.evidence.iter().filter_map(|one| one.count).collect();
        Some((best.cause, counts))
    }

    #[test]
    fn what_comes_to_stay_while_others_leave_is_a_deployment() {
        let all = [came(0), left(1, 500), came(2), left(3, 500)];
        assert_eq!(told(5, &all), Some((Cause::Deploy, vec![2, 2])));
        assert_eq!(told(5, &all[..1]), Some((Cause::ScaleOut, vec![1])));
        assert_eq!(told(5, &all[1..2]), None);
    }

    #[test]
    fn whether_one_stays_is_known_after_a_while() {
        assert_eq!(told(1, &[came(0), left(1, 500)]), None);
        assert!(told(2, &[came(0), left(1, 500)]).is_some());
    }

    #[test]
    fn what_comes_and_goes_replaces_nothing() {
        // A script every three seconds that takes one; nobody had seen the first of them come.
        let scripts: Vec<Signal> = (1..20)
            .flat_map(|number| [came(3 * number), left(3 * number + 1, 1)])
            .collect();
        let first = [left(0, 0)];
        for seconds in 1..70 {
            let known = first.iter().chain(&scripts);
            let known = known.filter(|one| one.at <= AT + Duration::from_secs(seconds));
            let known: Vec<Signal> = known.cloned().collect();
            assert_eq!(told(seconds, &known), None, "{seconds}");
        }
    }

    #[test]
    fn one_that_gives_up_at_its_start_does_not_hide_a_deployment() {
        let all = [
            came(0),
            left(1, 500),
            came(2),
            left(3, 1),
            came(4),
            left(5, 500),
        ];
        assert_eq!(told(7, &all), Some((Cause::Deploy, vec![3, 3])));
    }

    #[test]
    fn a_service_that_was_started_a_moment_ago_may_be_deployed_again() {
        let all = [came(0), came(4), left(5, 6), came(6), left(7, 7)];
        assert_eq!(told(8, &all), Some((Cause::Deploy, vec![3, 2])));
    }

    #[test]
    fn one_that_was_there_for_long_was_replaced_whenever_it_came() {
        let all = [came(0), came(90), left(91, 90), left(95, 500)];
        assert_eq!(told(95, &all), Some((Cause::Deploy, vec![2, 2])));
    }
}
