//! The rows of incidents.

use serde::{Deserialize, Serialize};

use super::CommandCount;

/// The answer of `/api/v1/incidents`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    /// `v1`.
    pub api_version: String,
    /// The moment of the answer.
    pub at: String,
    /// Incidents that match the filters, including those that the limit cut off.
    pub matched: u64,
    /// One row an incident, newest first.
    pub incidents: Vec<Incident>,
}

/// The answer of `/api/v1/incidents/{id}`: the row with the head of every answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneIncident {
    /// `v1`.
    pub api_version: String,
    /// The moment of the answer.
    pub at: String,
    /// The row.
    #[serde(flatten)]
    pub incident: Incident,
}

/// An incident: what happened to whom, why, and how sure that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number in this process, rising from 1; kept when the cause at first rank changes.
    pub id: u64,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// The first event that belongs to it.
    pub opened_at: String,
    /// When it was over; `null` while it is not.
    pub closed_at: Option<String>,
    /// The older incident that it turned out to be a part of; `null` otherwise.
    pub merged_into: Option<u64>,
    /// When it was told first.
    pub detected_at: String,
    /// From when on the evidence sufficed.
    pub evident_at: String,
    /// Name of the upstream it began at.
    pub upstream: String,
    /// The client instances it concerns.
    pub clients: Vec<IncidentClient>,
    /// The cause at first rank.
    pub cause: String,
    /// How sure it is, from 0 to 1.
    pub confidence: f64,
    /// Every cause that was considered and has some ground, the best first.
    pub causes: Vec<RankedCause>,
    /// What makes it worse without having caused it.
    pub aggravations: Vec<RankedCause>,
    /// The cause in one sentence.
    pub summary: String,
    /// The course of events, oldest first.
    pub timeline: Vec<Moment>,
    /// What to do, the most promising first.
    pub advice: Vec<Advice>,
    /// What the logs of drivers will say.
    pub logged: Vec<Logged>,
}

/// A client instance as an incident names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentClient {
    /// Peer address without port.
    pub address: String,
    /// Application name; empty when absent.
    pub app: String,
}

/// A cause with its grounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankedCause {
    /// The cause.
    pub cause: String,
    /// From 0 (no ground) to 1 (nothing else is possible).
    pub confidence: f64,
    /// What speaks for it.
    pub evidence: Vec<Evidence>,
    /// What speaks against it.
    pub against: Vec<Evidence>,
}

/// A fact that speaks for or against a cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When, where it has a moment.
    pub at: Option<String>,
    /// The fact.
    pub fact: String,
    /// How many, where it is counted.
    pub count: Option<u64>,
}

/// A moment of the course of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: String,
    /// What.
    pub what: String,
}

/// What to check or do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Why and what, as a sentence.
    pub text: String,
    /// Where the command belongs: `shell`, `mongosh`, `connection_string`, `code`.
    pub place: Option<String>,
    /// What to type or set.
    pub command: Option<String>,
}

/// What a driver's log will have said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// The text, as the driver spells it.
    pub message: String,
    /// The instance that logs it.
    pub client: IncidentClient,
    /// The event on the wire that led to it.
    pub wire_at: String,
    /// From when the log will have it.
    pub from: String,
    /// Until when; `null` for as long as the application uses what was destroyed.
    pub until: Option<String>,
    /// How many operations fail with it, as far as the wire tells; 0 where it is unknown.
    pub failed: u64,
    /// What `failed` is: `estimate`, `up_to_about`, `at_least`, `unknown`.
    pub failed_is: String,
    /// What that was taken from.
    pub basis: String,
    /// How many at least were written and will never call back.
    pub hanging: u64,
    /// Those by command, as far as they were read; zero counts are left out.
    pub hanging_by_command: Vec<CommandCount>,
    /// What made the driver do it.
    pub trigger: String,
}
