//! A case and its verdict, told as an incident.

use super::rules::suspect;
use super::words::{client, clock, counted, length};
use super::{
    Case, Evidence, Incident, IncidentId, Opinion, RankedCause, Severity, advice, course, message,
    summary,
};
use crate::detect::{Signal, SignalKind};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// Clients that did not come back and are told: the first.
const ABSENT_MAX: usize = 8;

/// What rules made of a case: opinions, the best first.
#[derive(Debug)]
pub(super) struct Verdict {
    /// When the evidence for the first sufficed.
    pub(super) evident_at: Timestamp,
    /// Never empty.
    pub(super) causes: Vec<Opinion>,
    /// What makes it worse without having caused it.
    pub(super) aggravations: Vec<Opinion>,
}

/// The incident that a case is, as told for the first time at `at`.
pub(super) fn incident(
    id: IncidentId,
    case: &Case,
    mut verdict: Verdict,
    pools: &Pools,
    at: Timestamp,
) -> Incident {
    suspect(&mut verdict.causes, &verdict.aggravations, case, pools);
    let best = verdict.causes.first().cloned();
    let (opened_at, upstream) = origin(case, best.as_ref());
    let severity = best
        .as_ref()
        .map_or(Severity::Warning, |best| best.cause.severity());
    let mut causes: Vec<RankedCause> = verdict
        .causes
        .into_iter()
        .map(|opinion| ranked(opinion, best.as_ref()))
        .collect();
    if let Some(first) = causes.first_mut() {
        first.evidence.extend(absent(case, pools));
    }
    let mut incident = Incident {
        id,
        severity,
        opened_at,
        evident_at: verdict.evident_at.min(at),
        detected_at: at,
        closed_at: None,
        merged_into: None,
        upstream,
        clients: case.clients(),
        causes,
        aggravations: verdict
            .aggravations
            .into_iter()
            .map(|opinion| ranked(opinion, None))
            .collect(),
        summary: String::new(),
        timeline: course::course(case, pools),
        advice: Vec::new(),
        logged: Vec::new(),
    };
    incident.logged = message::logged(&incident, case, pools);
    incident.advice = advice::advice(&incident, case, pools);
    incident.summary = summary::summary(&incident, case, pools);
    incident
}

/// When and where it began, by what speaks for its cause first. What else the case holds may be older, as what was idle
/// before is, and about another member of the set.
fn origin(case: &Case, best: Option<&Opinion>) -> (Timestamp, UpstreamId) {
    let evidence = best.into_iter().flat_map(|best| &best.evidence);
    let Some(at) = evidence.filter_map(|one| one.at).min() else {
        return (case.began_at(), case.upstream());
    };
    let signals = case.signals();
    let told = signals.iter().find(|signal| signal.at == at);
    let told = told.or_else(|| signals.iter().rfind(|signal| signal.at <= at));
    let upstream = told.map_or(case.upstream(), |signal| signal.subject.upstream);
    (at, upstream)
}

/// Clients that did not come back from it.
fn absent(case: &Case, pools: &Pools) -> Vec<Evidence> {
    let of_client = |signal: &Signal| {
        let SignalKind::StaysAway {
            silent,
            lost,
            monitors,
            others_back,
        } = signal.kind
        else {
            return None;
        };
        let instance = pools.instance(signal.subject.instance?)?;
        let name = client(&instance.app, &instance.address.to_string());
        let process = match monitors {
            0 => "whether its process is there, nothing tells".to_owned(),
            _ => format!(
                "its process is there: {} open",
                counted(monitors, "monitor")
            ),
        };
        Some(Evidence {
            at: Some(signal.at),
            fact: format!(
                "{name} lost {} at work and has neither dialled nor sent anything in the {} since the server is back, while {} came back; {process}",
                counted(lost, "connection"),
                length(silent),
                counted(others_back, "other client"),
            ),
            count: Some(lost),
        })
    };
    let asides = case.asides().iter();
    asides.filter_map(of_client).take(ABSENT_MAX).collect()
}

fn ranked(opinion: Opinion, best: Option<&Opinion>) -> RankedCause {
    let contrast = best
        .filter(|best| best.cause != opinion.cause && opinion.against.is_empty())
        .map(|best| contrast(&opinion, best));
    let mut against = opinion.against;
    against.extend(contrast);
    RankedCause {
        cause: opinion.cause,
        confidence: opinion.confidence,
        evidence: opinion.evidence,
        against,
    }
}

/// What nothing contradicts is still no cause when something else was there before it, or explains more.
fn contrast(opinion: &Opinion, best: &Opinion) -> Evidence {
    let name = best.cause.label();
    let first = |opinion: &Opinion| opinion.evidence.iter().filter_map(|one| one.at).min();
    if let (Some(own), Some(before)) = (first(opinion), first(best))
        && before < own
        && let Some(fact) = best.evidence.iter().find(|one| one.at == Some(before))
    {
        return Evidence {
            at: Some(before),
            fact: format!(
                "{name} began before it (this at {}): {}",
                clock(own),
                fact.fact
            ),
            count: fact.count,
        };
    }
    let more = best
        .evidence
        .iter()
        .find(|fact| opinion.evidence.iter().all(|own| own.fact != fact.fact));
    more.map_or_else(
        || Evidence {
            at: None,
            fact: format!(
                "the same facts speak for {name}, and weigh more there ({:.0} % against {:.0} %)",
                best.confidence * 100.0,
                opinion.confidence * 100.0
            ),
            count: None,
        },
        |fact| Evidence {
            fact: format!("speaks for {name} alone: {}", fact.fact),
            ..fact.clone()
        },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Cause;
    use super::*;

    fn opinion(cause: Cause, confidence: f64, facts: &[(u64, &str)]) -> Opinion {
        let evidence = facts.iter().map(|(millis, fact)| Evidence {
            at: Some(Timestamp::default() + Duration::from_millis(*millis)),
            fact: (*fact).to_owned(),
            count: None,
        });
        Opinion {
            cause,
            confidence,
            evident_at: Timestamp::default(),
            evidence: evidence.collect(),
            against: Vec::new(),
        }
    }

    #[track_caller]
    fn check(runner_up: &[(u64, &str)], expected: &str) {
        let best = opinion(
            Cause::IdleCutoff,
            0.86,
            &[(100, "ages agree"), (200, "a RST")],
        );
        let ranked = ranked(opinion(Cause::ServerCrash, 0.3, runner_up), Some(&best));
        let against: Vec<&str> = ranked.against.iter().map(|one| &*one.fact).collect();
        assert_eq!(against, [expected]);
    }

    #[test]
    fn a_runner_up_that_began_later_is_told_so() {
        check(
            &[(150, "a RST")],
            "idle_cutoff began before it (this at 00:00:00.150): ages agree",
        );
    }

    #[test]
    fn a_runner_up_that_explains_less_is_told_what() {
        check(
            &[(100, "a RST")],
            "speaks for idle_cutoff alone: ages agree",
        );
    }

    #[test]
    fn a_runner_up_with_the_same_grounds_is_told_how_much_less_they_weigh() {
        check(
            &[(100, "ages agree"), (200, "a RST")],
            "the same facts speak for idle_cutoff, and weigh more there (86 % against 30 %)",
        );
    }

    #[test]
    fn what_a_rule_holds_against_its_cause_stays_alone() {
        let best = opinion(Cause::IdleCutoff, 0.86, &[(100, "ages agree")]);
        let mut other = opinion(Cause::ServerCrash, 0.3, &[(100, "a RST")]);
        other.against.push(Evidence {
            at: None,
            fact: "the process answered".to_owned(),
            count: None,
        });
        assert_eq!(ranked(other, Some(&best)).against.len(), 1);
    }
}
