//! Connections or requests clearly fail, and nothing known fits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::book::SURE;
use super::super::super::words::{counted, length};
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::{Case, SignalKind, cuts, fact};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::wire::error_code_labels;

/// Something better may be known by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// Dials that fail, of which one alone is a hiccup.
const FAILED_DIALS: u64 = 3;

/// What a server complains of when something behind it is in trouble, or it is itself; each code with what it says.
/// Other codes that matter to pools have a rule of their own, or are about the request.
const COMPLAINTS: [(i32, &str); 7] = [
    (
        6,
        "the server cannot reach a host that it needs, such as a shard or another member",
    ),
    (
        7,
        "the server finds no address for a host that it needs, such as a shard or another member",
    ),
    (
        89,
        "a host that the server needs, such as a shard or another member, does not answer it in time",
    ),
    (
        202,
        "a host that the server needs, such as a shard or another member, does not answer it in time",
    ),
    (262, "what the server waited for took longer than it waits"),
    (462, "more requests come than the server is set to take"),
    (9001, "a socket broke that the server needs"),
];

/// Complaints that are no hiccup any more: drivers try again once, and a member that is elected is found in seconds.
const COMPLAINTS_MIN: u64 = 10;

/// Complaints that come more rarely, on the average, are the daily life of a large cluster.
const COMPLAINS_EVERY: Duration = Duration::from_secs(2);

/// Nothing known fits.
pub(super) fn unknown(case: &Case, _pools: &Pools, at: Timestamp) -> Option<Opinion> {
    let mut evidence: Vec<Evidence> = cuts(case)
        .iter()
        .filter(|cut| cut.group.in_flight > 0)
        .map(super::Cut::told)
        .collect();
    for (signal, (failure, count)) in case.all(|kind| match kind {
        SignalKind::DialsFail { failure, count, .. } if *count >= FAILED_DIALS => {
            Some((*failure, *count))
        }
        _ => None,
    }) {
        let text = format!("{} failed ({})", counted(count, "dial"), failure.label());
        evidence.push(fact(signal.at, count, text));
    }
    let mut evident_at = case.began_at() + PATIENCE;
    if let Some(complaints) = Complaints::of(case) {
        if evidence.is_empty() {
            evident_at = evident_at.max(complaints.until);
        }
        evidence.extend(complaints.told());
    }
    if evidence.is_empty() || at.since(case.began_at()) < PATIENCE {
        return None;
    }
    Some(Opinion {
        cause: Cause::Unknown,
        confidence: SURE,
        evident_at,
        evidence,
        against: Vec::new(),
    })
}

/// Replies in numbers with which the server complains.
#[derive(Debug)]
struct Complaints {
    by_code: BTreeMap<i32, Complaint>,
    /// The newest that is known.
    until: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Complaint {
    count: u64,
    from: Timestamp,
    until: Timestamp,
}

impl Complaints {
    fn of(case: &Case) -> Option<Self> {
        let mut by_code = BTreeMap::<i32, Complaint>::new();
        for (signal, (code, count)) in case.all(|kind| match kind {
            SignalKind::ErrorReplies { code, count, .. } if says(*code).is_some() => {
                Some((*code, *count))
            }
            _ => None,
        }) {
            let complaint = by_code.entry(code).or_insert(Complaint {
                count: 0,
                from: signal.at,
                until: signal.seen_at,
            });
            complaint.count += count;
            complaint.from = complaint.from.min(signal.at);
            complaint.until = complaint.until.max(signal.seen_at);
        }
        let from = by_code.values().map(|one| one.from).min()?;
        let until = by_code.values().map(|one| one.until).max()?;
        let count: u64 = by_code.values().map(|one| one.count).sum();
        let is_enough = count >= COMPLAINTS_MIN
            && until.since(from).as_secs() <= count.saturating_mul(COMPLAINS_EVERY.as_secs());
        is_enough.then_some(Self { by_code, until })
    }

    fn told(&self) -> impl Iterator<Item = Evidence> {
        self.by_code.iter().map(|(code, complaint)| {
            let (_, name) = error_code_labels(*code);
            fact(
                complaint.from,
                complaint.count,
                format!(
                    "{} said {name} (error {code}) within {}: {}",
                    counted(complaint.count, "reply"),
                    length(complaint.until.since(complaint.from)),
                    says(*code).unwrap_or_default()
                ),
            )
        })
    }
}

fn says(code: i32) -> Option<&'static str> {
    let known = COMPLAINTS.iter().find(|(known, _)| *known == code);
    known.map(|(_, says)| *says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{CloseGroup, Signal, Subject};
    use crate::timeline::{DialFailure, UpstreamId};

    const AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    /// The evidence, where there is an opinion: moments after the beginning, counts and facts.
    fn told(seen_after: Duration, kinds: &[SignalKind]) -> Vec<(Duration, Option<u64>, String)> {
        let mut case = Case::default();
        for (millis, kind) in (0..).zip(kinds) {
            case.add(Signal {
                at: AT + Duration::from_millis(millis),
                seen_at: AT + seen_after,
                subject: Subject {
                    upstream: UpstreamId(0),
                    instance: None,
                    mongo_client: None,
                },
                among: Vec::new(),
                kind: kind.clone(),
            });
        }
        let opinion = |at| unknown(&case, &Pools::new(Vec::new()), at);
        assert_eq!(opinion(AT + PATIENCE - Duration::from_millis(1)), None);
        let Some(opinion) = opinion(AT + PATIENCE.max(seen_after)) else {
            return Vec::new();
        };
        assert_eq!((opinion.cause, opinion.confidence), (Cause::Unknown, SURE));
        let all = opinion.evidence.into_iter();
        all.map(|one| (one.at.unwrap().since(AT), one.count, one.fact))
            .collect()
    }

    fn broke(in_flight: u64) -> SignalKind {
        SignalKind::ServerClosed {
            group: CloseGroup {
                closed: 3,
                of: 9,
                in_flight,
                ..CloseGroup::default()
            },
            instances: 1,
            instances_before: 1,
            followed: 0,
            is_client_side: false,
        }
    }

    const fn dials(count: u64) -> SignalKind {
        SignalKind::DialsFail {
            failure: DialFailure::Timeout,
            count,
            instances: 1,
        }
    }

    const fn replies(code: i32, count: u64) -> SignalKind {
        SignalKind::ErrorReplies {
            code,
            count,
            instances: 1,
        }
    }

    #[track_caller]
    fn check(seen_after: Duration, kinds: &[SignalKind], expected: &[(u64, &str)]) {
        let all = told(seen_after, kinds);
        let all: Vec<(u64, &str)> = all
            .iter()
            .map(|(after, count, fact)| {
                assert_eq!(*after, Duration::ZERO);
                (count.unwrap(), &**fact)
            })
            .collect();
        assert_eq!(all, expected);
    }

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn connections_that_broke_in_use_are_evidence_and_idle_ones_are_not() {
        let fact = "3 of 9 connections ended from the server's side within 1 ms, by FIN, 2 with a request in flight";
        check(SOON, &[broke(2)], &[(3, fact)]);
        check(SOON, &[broke(0)], &[]);
    }

    #[test]
    fn dials_that_fail_are_evidence_from_three_on() {
        check(SOON, &[dials(3)], &[(3, "3 dials failed (timeout)")]);
        check(SOON, &[dials(2)], &[]);
    }

    #[test]
    fn each_code_is_told_with_what_it_means() {
        for (code, says) in COMPLAINTS {
            let all = told(SOON, &[replies(code, COMPLAINTS_MIN)]);
            let [(_, Some(COMPLAINTS_MIN), fact)] = &all[..] else {
                panic!("{code}: {all:?}");
            };
            let (_, name) = error_code_labels(code);
            assert!(fact.starts_with(&format!("10 replies said {name} (error {code})")));
            assert!(fact.ends_with(says) && name != "unknown", "{fact}");
            // Readers are told which codes are heard.
            let page = include_str!("../../CAUSES.md");
            assert!(page.contains(&format!("`{name}` ({code})")), "{code}");
        }
    }

    #[test]
    fn codes_count_together_and_are_told_apart() {
        let all = told(SOON, &[replies(89, 4), replies(6, 6)]);
        let counts: Vec<_> = all.iter().map(|(_, count, _)| count.unwrap()).collect();
        assert_eq!(counts, [6, 4], "by code");
        check(SOON, &[replies(89, 4), replies(6, 5)], &[]);
    }

    #[test]
    fn a_trickle_of_errors_is_daily_life() {
        let trickle = Duration::from_secs(21);
        check(trickle, &[replies(6, COMPLAINTS_MIN)], &[]);
        assert_eq!(told(trickle, &[replies(6, COMPLAINTS_MIN + 1)]).len(), 1);
    }

    #[test]
    fn other_errors_are_not_its_business() {
        for code in [11, 50, 91, 134, 189, 251, 391, 8000, 10107, 11600] {
            check(SOON, &[replies(code, 500)], &[]);
        }
    }
}
