//! From incidents to their rows, and which of them a query asks for.

use super::api::{self, Refusal};
use crate::diagnose::{
    Advice, Cause, ClientName, Evidence, Incident, Logged, Moment, RankedCause, Severity,
};
use crate::time::Timestamp;

/// Incidents in one answer unless the query says otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Incidents in one answer at most; more are not remembered.
const LIMIT_MAX: usize = 10_000;

/// The row of an incident; `upstream` is the name of the one it began at.
pub fn row(incident: &Incident, upstream: &str) -> api::Incident {
    api::Incident {
        id: incident.id.0,
        severity: incident.severity.label().to_owned(),
        opened_at: incident.opened_at.to_string(),
        closed_at: incident.closed_at.map(|at| at.to_string()),
        merged_into: incident.merged_into.map(|id| id.0),
        detected_at: incident.detected_at.to_string(),
        evident_at: incident.evident_at.to_string(),
        upstream: upstream.to_owned(),
        clients: incident.clients.iter().map(client).collect(),
        cause: incident.cause().label().to_owned(),
        confidence: confidence(incident.confidence()),
        causes: incident.causes.iter().map(cause).collect(),
        aggravations: incident.aggravations.iter().map(cause).collect(),
        summary: incident.summary.clone(),
        timeline: incident.timeline.iter().map(moment).collect(),
        advice: incident.advice.iter().map(advice).collect(),
        logged: incident.logged.iter().map(logged).collect(),
    }
}

fn client(name: &ClientName) -> api::IncidentClient {
    api::IncidentClient {
        address: name.address.to_string(),
        app: name.app.to_string(),
    }
}

fn cause(ranked: &RankedCause) -> api::RankedCause {
    api::RankedCause {
        cause: ranked.cause.label().to_owned(),
        confidence: confidence(ranked.confidence),
        evidence: ranked.evidence.iter().map(evidence).collect(),
        against: ranked.against.iter().map(evidence).collect(),
    }
}

/// A confidence is no measurement: more than two digits would pretend that it is.
fn confidence(value: f64) -> f64 {
    (value.clamp(0.0, 1.0) * 100.0).round() / 100.0
}

fn evidence(fact: &Evidence) -> api::Evidence {
    api::Evidence {
        at: fact.at.map(|at| at.to_string()),
        fact: fact.fact.clone(),
        count: fact.count,
    }
}

fn moment(moment: &Moment) -> api::Moment {
    api::Moment {
        at: moment.at.to_string(),
        what: moment.what.clone(),
    }
}

fn advice(advice: &Advice) -> api::Advice {
    api::Advice {
        text: advice.text.clone(),
        place: advice.place.map(|place| place.label().to_owned()),
        command: advice.command.clone(),
    }
}

fn logged(logged: &Logged) -> api::Logged {
    api::Logged {
        message: logged.message.clone(),
        client: client(&logged.client),
        wire_at: logged.wire_at.to_string(),
        from: logged.from.to_string(),
        until: logged.until.map(|until| until.to_string()),
        failed: logged.failed.number(),
        failed_is: logged.failed.kind().to_owned(),
        basis: logged.basis.clone(),
        hanging: logged.hanging,
        hanging_by_command: super::convert::commands(&logged.hanging_commands.ranked()),
        trigger: logged.trigger.clone(),
    }
}

/// Which incidents a query asks for; every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IncidentFilter {
    id: Option<u64>,
    is_open: Option<bool>,
    severity: Option<Severity>,
    cause: Option<Cause>,
    client: Option<String>,
    upstream: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

impl IncidentFilter {
    const NAMES: [&str; 8] = [
        "id", "open", "severity", "cause", "client", "upstream", "since", "limit",
    ];

    /// Reads the parameters of a query; `upstreams` are the names there are.
    pub(super) fn from_query(
        pairs: Vec<(String, String)>,
        upstreams: &[String],
    ) -> Result<Self, Refusal> {
        let mut filter = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "id" => filter.id = Some(id(&value)?),
                "open" => {
                    let word = one_of("word", &value, &["true", "false"], |word| word)?;
                    filter.is_open = Some(word == "true");
                }
                "severity" => {
                    let found = one_of("severity", &value, &SEVERITIES, Severity::label)?;
                    filter.severity = Some(found);
                }
                "cause" => filter.cause = Some(one_of("cause", &value, Cause::ALL, Cause::label)?),
                "client" => filter.client = Some(value),
                "upstream" => {
                    let position = upstreams.iter().position(|known| *known == value);
                    filter.upstream = Some(position.ok_or_else(|| Refusal {
                        error: format!("no upstream is called {value:?}"),
                        allowed: upstreams.to_vec(),
                    })?);
                }
                "since" => {
                    filter.since = Some(value.parse().map_err(|error| Refusal {
                        error: format!("{value:?} is {error}"),
                        allowed: Vec::new(),
                    })?);
                }
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    filter.limit = Some(limit.ok_or_else(|| Refusal {
                        error: format!("{value:?} is not a limit"),
                        allowed: vec![format!("1 to {LIMIT_MAX}")],
                    })?);
                }
                _ => {
                    return Err(Refusal {
                        error: format!("no filter of this path is called {name:?}"),
                        allowed: Self::NAMES.map(str::to_owned).to_vec(),
                    });
                }
            }
        }
        Ok(filter)
    }

    /// Rows to show at most.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }

    /// Whether an incident is asked for.
    pub(super) fn has(&self, incident: &Incident) -> bool {
        self.id.is_none_or(|id| incident.id.0 == id)
            && self
                .is_open
                .is_none_or(|is_open| incident.closed_at.is_none() == is_open)
            && self
                .severity
                .is_none_or(|severity| incident.severity == severity)
            && self.cause.is_none_or(|cause| incident.cause() == cause)
            && self
                .upstream
                .is_none_or(|upstream| usize::from(incident.upstream.0) == upstream)
            && self
                .since
                .is_none_or(|since| incident.closed_at.is_none_or(|at| at >= since))
            && self.client.as_ref().is_none_or(|wanted| {
                incident.clients.iter().any(|client| {
                    *wanted == *client.app
                        || *wanted == *client.address
                        || *wanted == super::convert::client_name(&client.app, &client.address)
                })
            })
    }
}

const SEVERITIES: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

/// The number of an incident.
pub(super) fn id(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal {
        error: format!("{text:?} is not the number of an incident"),
        allowed: Vec::new(),
    })
}

fn one_of<T: Copy>(
    what: &str,
    value: &str,
    all: &[T],
    label: fn(T) -> &'static str,
) -> Result<T, Refusal> {
    let labels = || all.iter().map(|one| label(*one));
    let found = labels().position(|known| known == value);
    found
        .and_then(|position| all.get(position))
        .copied()
        .ok_or_else(|| Refusal {
            error: format!("{value:?} is not a {what}"),
            allowed: labels().map(str::to_owned).collect(),
        })
}
