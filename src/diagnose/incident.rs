//! What is told of an incident.

use std::sync::Arc;

use super::{Cause, Severity};
use crate::time::Timestamp;
use crate::timeline::{Commands, UpstreamId};

/// An incident's number, rising from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IncidentId(pub u64);

/// A client instance as an incident names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientName {
    /// Peer address.
    pub address: Arc<str>,
    /// Application name; empty when absent.
    pub app: Arc<str>,
}

/// A fact that speaks for or against a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When, where it has a moment.
    pub at: Option<Timestamp>,
    /// The fact, as a sentence without its end.
    pub fact: String,
    /// How many, where it is counted.
    pub count: Option<u64>,
}

/// A cause with its grounds.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedCause {
    /// The cause.
    pub cause: Cause,
    /// From 0 (no ground) to 1 (nothing else is possible).
    pub confidence: f64,
    /// What speaks for it.
    pub evidence: Vec<Evidence>,
    /// What speaks against it.
    pub against: Vec<Evidence>,
}

/// A moment of the course of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What, as a sentence without its end.
    pub what: String,
}

/// Where a command or a setting belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A shell of a host.
    Shell,
    /// MongoDB's shell, connected to the server concerned.
    Mongosh,
    /// The connection string.
    ConnectionString,
    /// The application's code.
    Code,
}

impl Place {
    /// Its name in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Mongosh => "mongosh",
            Self::ConnectionString => "connection_string",
            Self::Code => "code",
        }
    }
}

/// What to check or do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Why and what, as a sentence.
    pub text: String,
    /// Where the command belongs; there where it is.
    pub place: Option<Place>,
    /// What to type or set, where there is such a thing.
    pub command: Option<String>,
}

/// What a driver's log will have said, so that the two can be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The text, as the driver spells it.
    pub message: String,
    /// The instance that logs it.
    pub client: ClientName,
    /// The event on the wire that led to it.
    pub wire_at: Timestamp,
    /// From when the log will have it.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// About how many operations fail with it, where the wire tells; after a forced close 1 stands for whatever was in
    /// the queue, and 0 for a queue that was probably empty.
    pub failed: u64,
    /// What that number was taken from.
    pub basis: String,
    /// How many were written and will never call back.
    pub hanging: u64,
    /// Those by command, as far as they were read.
    pub hanging_commands: Commands,
    /// What made the driver do it.
    pub trigger: String,
}

/// An incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Its number; kept when the first-rank cause changes.
    pub id: IncidentId,
    /// The first-rank cause's, unless the incident is worse than its nature.
    pub severity: Severity,
    /// The first event that belongs to it.
    pub opened_at: Timestamp,
    /// The moment from which the evidence sufficed.
    pub evident_at: Timestamp,
    /// When it was told.
    pub detected_at: Timestamp,
    /// When it was over.
    pub closed_at: Option<Timestamp>,
    /// The older incident that it turned out to be a part of.
    pub merged_into: Option<IncidentId>,
    /// The upstream it began at.
    pub upstream: UpstreamId,
    /// The clients it concerns, sorted.
    pub clients: Vec<ClientName>,
    /// Causes, the best first; never empty.
    pub causes: Vec<RankedCause>,
    /// What makes it worse without having caused it, such as a storm of reconnects.
    pub aggravations: Vec<RankedCause>,
    /// The cause in one sentence with names, counts and times.
    pub summary: String,
    /// The course of events, oldest first; bounded.
    pub timeline: Vec<Moment>,
    /// What to do, the most promising first.
    pub advice: Vec<Advice>,
    /// What the logs of drivers will say.
    pub logged: Vec<Logged>,
}

impl Incident {
    /// The cause at first rank.
    pub fn cause(&self) -> Cause {
        self.causes
            .first()
            .map_or(Cause::Unknown, |first| first.cause)
    }

    /// How sure it is.
    pub fn confidence(&self) -> f64 {
        self.causes.first().map_or(0.0, |first| first.confidence)
    }
}

/// Something changed about an incident.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It was opened.
    Opened(Arc<Incident>),
    /// More is known.
    Updated(Arc<Incident>),
    /// It is over.
    Closed(Arc<Incident>),
}

impl News {
    /// The incident.
    pub const fn incident(&self) -> &Arc<Incident> {
        match self {
            Self::Opened(incident) | Self::Updated(incident) | Self::Closed(incident) => incident,
        }
    }
}
