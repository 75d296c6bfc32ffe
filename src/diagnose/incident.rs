//! What is told of an incident.

use std::sync::Arc;

use super::words::counted;
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

/// How many operations fail with a message, as far as the wire tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// An estimate.
    About(u64),
    /// So many could have failed with it; others of them had another error, or hang.
    UpToAbout(u64),
    /// A lower bound; with 0 it is open whether there was any.
    AtLeast(u64),
    /// Nothing of it is on the wire: one for each operation that a destroyed pool is given.
    Unknown,
}

impl Failures {
    /// As the API has it; what a later version says of a number is read as unknown.
    pub fn told(number: u64, kind: &str) -> Self {
        [
            Self::About(number),
            Self::UpToAbout(number),
            Self::AtLeast(number),
        ]
        .into_iter()
        .find(|one| one.kind() == kind)
        .unwrap_or(Self::Unknown)
    }

    /// The number; 0 where it is unknown.
    pub const fn number(self) -> u64 {
        match self {
            Self::About(number) | Self::UpToAbout(number) | Self::AtLeast(number) => number,
            Self::Unknown => 0,
        }
    }

    /// What the number is, in the API.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::About(_) => "estimate",
            Self::UpToAbout(_) => "up_to_about",
            Self::AtLeast(_) => "at_least",
            Self::Unknown => "unknown",
        }
    }

    /// Of two instances together; numbers of different kinds have no sum.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::About(one), Self::About(two)) => Self::About(one.saturating_add(two)),
            (Self::UpToAbout(one), Self::UpToAbout(two)) => {
                Self::UpToAbout(one.saturating_add(two))
            }
            (Self::AtLeast(one), Self::AtLeast(two)) => Self::AtLeast(one.saturating_add(two)),
            _ => Self::Unknown,
        }
    }

    /// How often a log has the message, as a sentence has it.
    pub fn words(self) -> String {
        match self {
            Self::About(number) => format!("about {}", counted(number, "time")),
            Self::UpToAbout(number) => format!("up to about {}", counted(number, "time")),
            Self::AtLeast(0) => "only if operations were still queued".to_owned(),
            Self::AtLeast(1) => "at least once".to_owned(),
            Self::AtLeast(number) => format!("at least {}", counted(number, "time")),
            Self::Unknown => "as often as the destroyed pool is used".to_owned(),
        }
    }
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
    /// Until when; `None` for as long as the application uses what was destroyed.
    pub until: Option<Timestamp>,
    /// How many operations fail with it.
    pub failed: Failures,
    /// What that was taken from.
    pub basis: String,
    /// How many at least were written and will never call back.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_failures_says_how_sure_it_is() {
        let check = |failures: Failures, words: &str| {
            assert_eq!(failures.words(), words);
            let back = Failures::told(failures.number(), failures.kind());
            assert_eq!(back, failures);
        };
        check(Failures::About(1), "about 1 time");
        check(Failures::UpToAbout(65), "up to about 65 times");
        check(Failures::AtLeast(0), "only if operations were still queued");
        check(Failures::AtLeast(1), "at least once");
        check(Failures::AtLeast(2), "at least 2 times");
        check(Failures::Unknown, "as often as the destroyed pool is used");
        assert_eq!(Failures::told(7, "of a later version"), Failures::Unknown);
    }

    #[test]
    fn numbers_of_one_kind_have_a_sum() {
        let two = Failures::AtLeast(1).and(Failures::AtLeast(1));
        assert_eq!(two, Failures::AtLeast(2));
        let mixed = Failures::About(60).and(Failures::AtLeast(1));
        assert_eq!(mixed, Failures::Unknown);
    }
}
