//! The kinds of facts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{command_name, duration_nanos};
use super::{Commands, DialFailure, Opened, SessionId, TcpState};
use crate::connection::{
    Authentication, ClientMetadata, Ending, ErrorKind, Observation, OpaqueReason, Role, ServerFacts,
};
use crate::time::Timestamp;
use crate::wire::Command;

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// It was accepted.
    Opened(Opened),
    /// The server accepted the dial, which took so long.
    Dialled(#[serde(with = "duration_nanos")] Duration),
    /// The server could not be dialled; the end follows.
    DialFailed(DialFailure),
    /// The client introduced itself.
    Introduced {
        /// As it said.
        client: Box<ClientMetadata>,
        /// `requestID` of its first message: most drivers count them process-wide.
        request_id: i32,
    },
    /// The server described itself; repeated only when something of it changed.
    Described(Box<ServerFacts>),
    /// A plain hello (the handshake, or a round-trip measurement) was answered after so long.
    HelloAnswered(#[serde(with = "duration_nanos")] Duration),
    /// An authentication conversation ended.
    Authenticated(Authentication),
    /// It can carry its first ordinary command, so long after its accept.
    Ready(#[serde(with = "duration_nanos")] Duration),
    /// Its own traffic decided what it is used for.
    RoleFound(Role),
    /// The interval at which the client checks the server.
    Heartbeat(#[serde(with = "duration_nanos")] Duration),
    /// A request carried this logical session; repeats are left out, and many different ones are told only now
    /// and then.
    SessionUsed(SessionId),
    /// `endSessions`: the client is being closed, and these sessions were its own.
    SessionsEnded(Vec<SessionId>),
    /// A reply held an error that matters to pools; of many alike only some are told, with their count.
    Failed(ErrorReply),
    /// A multi-statement transaction began.
    TransactionStarted,
    /// It was committed or aborted, or is gone.
    TransactionEnded,
    /// It can no longer be decoded.
    TurnedOpaque(OpaqueReason),
    /// Its counters changed since they were told last.
    Sampled(Sample),
    /// A side ended it, the first to do so. Nothing is told of it afterwards but whose it was, where the hello came too
    /// late.
    Ended(Box<Ended>),
}

/// An error in replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// Where in the reply it stood.
    pub kind: ErrorKind,
    /// The command that was answered.
    #[serde(with = "command_name")]
    pub command: Command,
    /// The code; 0 when the reply had none.
    pub code: i32,
    /// How many such replies since the last that was told.
    pub count: u32,
}

/// The counters of a connection at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Requests sent so far.
    pub requests: u64,
    /// Those that are neither handshake nor authentication.
    pub operations: u64,
    /// Requests of the application sent and not fully answered.
    pub in_flight: u32,
    /// Since when at least one is; `None` when none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_since: Option<Timestamp>,
    /// Time with at least one in flight, so far, the running time left out.
    #[serde(with = "duration_nanos")]
    pub busy: Duration,
    /// The last bytes from the client; the moment of accept when there were none.
    pub from_client_at: Timestamp,
    /// The last bytes from the server; the moment of accept when there were none.
    pub from_server_at: Timestamp,
    /// `requestID` of the newest request.
    pub request_id: i32,
    /// What the kernel tells of the client's socket and of the server's, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<[TcpState; 2]>,
}

/// How a connection ended, and what it had done until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Who ended it, how, and while it was doing what.
    #[serde(flatten)]
    pub ending: Ending,
    /// Its last counters. `busy_since` is still there when a request was unanswered.
    pub last: Sample,
    /// The requests of the application that were unanswered, as far as they were read to their end.
    #[serde(default, skip_serializing_if = "Commands::is_empty")]
    pub unanswered: Commands,
    /// When its client left it, where that was before: while the server is dialled nothing is read, and so neither is the
    /// client's farewell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<Timestamp>,
}

impl From<&Observation> for Fact {
    fn from(observation: &Observation) -> Self {
        match observation {
            Observation::HandshakeSeen { client, request_id } => Self::Introduced {
                client: client.clone(),
                request_id: *request_id,
            },
            Observation::ServerDescribed(server) => Self::Described(server.clone()),
            Observation::Authenticated(authentication) => {
                Self::Authenticated(authentication.clone())
            }
            Observation::Ready { after } => Self::Ready(*after),
            Observation::RoleFound(role) => Self::RoleFound(*role),
            Observation::HeartbeatInterval(interval) => Self::Heartbeat(*interval),
            Observation::HelloAnswered(took) => Self::HelloAnswered(*took),
            Observation::SessionUsed(id) => Self::SessionUsed(SessionId(*id)),
            Observation::SessionsEnded(ids) => {
                Self::SessionsEnded(ids.iter().copied().map(SessionId).collect())
            }
            Observation::TransactionStarted { .. } => Self::TransactionStarted,
            Observation::TransactionEnded { .. } => Self::TransactionEnded,
            Observation::TurnedOpaque(reason) => Self::TurnedOpaque(*reason),
        }
    }
}
