//! A case and its verdict, told as an incident.

use super::{
    Case, Evidence, Incident, IncidentId, Opinion, RankedCause, Severity, advice, message, summary,
};
use crate::pools::Pools;
use crate::time::Timestamp;

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
    verdict: Verdict,
    pools: &Pools,
    at: Timestamp,
) -> Incident {
    let first = verdict
        .causes
        .first()
        .map(|best| (best.cause, best.confidence));
    let severity = first.map_or(Severity::Warning, |(cause, _)| cause.severity());
    let causes: Vec<RankedCause> = verdict
        .causes
        .into_iter()
        .map(|opinion| ranked(opinion, first))
        .collect();
    let mut incident = Incident {
        id,
        severity,
        opened_at: case.began_at(),
        evident_at: verdict.evident_at.min(at),
        detected_at: at,
        closed_at: None,
        upstream: case.upstream(),
        clients: case.clients(),
        causes,
        aggravations: verdict
            .aggravations
            .into_iter()
            .map(|opinion| ranked(opinion, None))
            .collect(),
        summary: String::new(),
        timeline: summary::course(case, pools),
        advice: Vec::new(),
        logged: Vec::new(),
    };
    incident.logged = message::logged(&incident, case, pools);
    incident.advice = advice::advice(&incident, case, pools);
    incident.summary = summary::summary(&incident, case, pools);
    incident
}

/// A runner-up with nothing against it is one because another explains more.
fn ranked(opinion: Opinion, first: Option<(super::Cause, f64)>) -> RankedCause {
    let Opinion {
        cause,
        confidence,
        evidence,
        mut against,
        ..
    } = opinion;
    if let Some((best, best_confidence)) = first
        && best != cause
        && against.is_empty()
    {
        against.push(Evidence {
            at: None,
            fact: format!(
                "{} explains the first event better ({best_confidence:.2} against {confidence:.2})",
                best.label()
            ),
            count: None,
        });
    }
    RankedCause {
        cause,
        confidence,
        evidence,
        against,
    }
}
