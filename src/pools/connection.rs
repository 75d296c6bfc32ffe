//! What is known of one connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::{InstanceId, MongoClientId};
use crate::connection::{Authentication, Ending, OpaqueReason, Phase, Role};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, DialFailure, ErrorReply, Fact, Opened, Sample, UpstreamId};

/// A connection that is open, or ended a moment ago.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// The upstream it was accepted for.
    pub upstream: UpstreamId,
    /// The client's address.
    pub peer: SocketAddr,
    /// Accepted.
    pub opened_at: Timestamp,
    /// The server accepted the dial.
    pub dialled_at: Option<Timestamp>,
    /// Why it did not.
    pub dial_failure: Option<DialFailure>,
    /// The client introduced itself.
    pub introduced_at: Option<Timestamp>,
    /// Whose it is; known from then on.
    pub instance: Option<InstanceId>,
    /// Which of its mongo clients' it is, where that can be told.
    pub mongo_client: Option<MongoClientId>,
    /// The server answered the first hello.
    pub hello_answered_at: Option<Timestamp>,
    /// It could carry its first ordinary command.
    pub ready_at: Option<Timestamp>,
    /// What its own traffic proves it is used for.
    pub role: Role,
    /// How often it asks for changes, where it is a streaming monitor.
    pub heartbeat: Option<Duration>,
    /// `requestID` of its first message.
    pub first_request_id: Option<i32>,
    /// The server's number for it (`conn<N>` in the server's log).
    pub server_connection_id: Option<i64>,
    /// The newest authentication, and when it ended.
    pub authentication: Option<(Timestamp, Authentication)>,
    /// The newest error in a reply that matters to pools, and when.
    pub last_error: Option<(Timestamp, ErrorReply)>,
    /// It carried `endSessions`.
    pub said_goodbye_at: Option<Timestamp>,
    /// Multi-statement transactions begun and not ended on it.
    pub transactions_open: u32,
    /// It is not decoded any more.
    pub opaque: Option<OpaqueReason>,
    /// Its counters, as told last.
    pub last: Sample,
    /// How it ended.
    pub ended: Option<End>,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How.
    pub ending: Ending,
}

impl End {
    /// A request of the application was unanswered.
    pub const fn was_in_flight(&self) -> bool {
        matches!(self.ending.phase, Phase::InExchange | Phase::MidMessage)
    }
}

impl Connection {
    pub(super) fn new(id: ConnectionId, opened: Opened, at: Timestamp) -> Self {
        Self {
            id,
            upstream: opened.upstream,
            peer: opened.peer,
            opened_at: at,
            dialled_at: None,
            dial_failure: None,
            introduced_at: None,
            instance: None,
            mongo_client: None,
            hello_answered_at: None,
            ready_at: None,
            role: Role::Unknown,
            heartbeat: None,
            first_request_id: None,
            server_connection_id: None,
            authentication: None,
            last_error: None,
            said_goodbye_at: None,
            transactions_open: 0,
            opaque: None,
            last: Sample {
                from_client_at: at,
                from_server_at: at,
                ..Sample::default()
            },
            ended: None,
        }
    }

    pub(super) fn record(&mut self, at: Timestamp, fact: &Fact) {
        match fact {
            Fact::Opened(_) | Fact::SessionUsed(_) => {}
            Fact::Dialled(_) => self.dialled_at = Some(at),
            Fact::DialFailed(failure) => self.dial_failure = Some(*failure),
            Fact::Introduced { request_id, .. } => {
                self.introduced_at = Some(at);
                self.first_request_id = Some(*request_id);
            }
            Fact::Described(server) => {
                self.server_connection_id = server.connection_id.or(self.server_connection_id);
            }
            Fact::HelloAnswered(_) => {
                self.hello_answered_at.get_or_insert(at);
            }
            Fact::Authenticated(authentication) => {
                self.authentication = Some((at, authentication.clone()));
            }
            Fact::Ready(_) => self.ready_at = Some(at),
            Fact::RoleFound(role) => self.role = *role,
            Fact::Heartbeat(interval) => self.heartbeat = Some(*interval),
            Fact::SessionsEnded(_) => self.said_goodbye_at = Some(at),
            Fact::Failed(error) => self.last_error = Some((at, *error)),
            Fact::TransactionStarted => self.transactions_open += 1,
            Fact::TransactionEnded => {
                self.transactions_open = self.transactions_open.saturating_sub(1);
            }
            Fact::TurnedOpaque(reason) => self.opaque = Some(*reason),
            Fact::Sampled(sample) => self.last = *sample,
            Fact::Ended(end) => {
                self.last = end.last;
                self.ended = Some(End {
                    at,
                    ending: end.ending,
                });
            }
        }
    }

    /// It is still open.
    pub const fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Time without a byte from the server, at `at` or when it ended.
    pub fn idle_age(&self, at: Timestamp) -> Duration {
        let until = self.ended.map_or(at, |end| end.at);
        until.since(self.last.from_server_at.max(self.last.from_client_at))
    }
}
