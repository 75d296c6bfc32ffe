//! How a connection ended: who began it, in which manner, and what it was doing.

use serde::{Deserialize, Serialize};

/// Who ended a connection first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    /// The client's side closed, reset or timed out first.
    Client,
    /// The server's side did.
    Server,
    /// The proxy did: drain, limit, or an error of its own.
    Proxy,
}

impl Initiator {
    /// Every initiator.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Proxy];

    /// The value of the `initiator` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Proxy => "proxy",
        }
    }
}

/// In which manner the end showed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// An orderly close.
    Fin,
    /// A reset.
    Reset,
    /// Keepalive, user time-out or connect time-out ran out.
    TimedOut,
    /// The server's address refused the connection.
    Refused,
    /// The server's address could not be resolved or reached.
    Unreachable,
    /// The proxy is shutting down.
    Drained,
    /// The proxy was at a limit.
    Limited,
    /// The proxy failed.
    Internal,
}

impl Manner {
    /// The stable name in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Drained => "drained",
            Self::Limited => "limited",
            Self::Internal => "internal",
        }
    }
}

/// What the connection was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The server was being dialled.
    Dialling,
    /// The first hello was not answered (or never sent).
    Handshaking,
    /// Authentication was under way, or had failed last.
    Authenticating,
    /// Nothing was in flight.
    Idle,
    /// A request of the application was unanswered, other than its goodbye (`endSessions`).
    InExchange,
    /// A message had begun and not ended, in either direction.
    MidMessage,
    /// The connection was no longer decoded.
    Opaque,
}

impl Phase {
    /// It could carry ordinary commands.
    pub const fn has_stood(self) -> bool {
        match self {
            Self::Idle | Self::InExchange | Self::MidMessage | Self::Opaque => true,
            Self::Dialling | Self::Handshaking | Self::Authenticating => false,
        }
    }

    /// The stable name in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dialling => "dialling",
            Self::Handshaking => "handshaking",
            Self::Authenticating => "authenticating",
            Self::Idle => "idle",
            Self::InExchange => "in_exchange",
            Self::MidMessage => "mid_message",
            Self::Opaque => "opaque",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ending {
    /// Who ended it first.
    pub initiator: Initiator,
    /// In which manner.
    pub manner: Manner,
    /// What it was doing.
    pub phase: Phase,
    /// The last authentication on it had failed.
    pub after_failed_authentication: bool,
}

/// The `reason` label of closed connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CloseReason {
    /// FIN with nothing in flight.
    Clean,
    /// FIN with a request unanswered.
    InFlight,
    /// RST.
    Reset,
    /// Ended before it was ready.
    Handshake,
    /// Ended after its authentication failed.
    AuthFailed,
    /// The server could not be dialled.
    ConnectFailed,
    /// The dial took too long.
    ConnectTimeout,
    /// Keepalive or user time-out.
    DeadPeer,
    /// The proxy is shutting down.
    Drain,
    /// The proxy was at a limit.
    Limit,
    /// The proxy failed.
    Internal,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Clean,
        Self::InFlight,
        Self::Reset,
        Self::Handshake,
        Self::AuthFailed,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::DeadPeer,
        Self::Drain,
        Self::Limit,
        Self::Internal,
    ];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::InFlight => "in_flight",
            Self::Reset => "reset",
            Self::Handshake => "handshake",
            Self::AuthFailed => "auth_failed",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::DeadPeer => "dead_peer",
            Self::Drain => "drain",
            Self::Limit => "limit",
            Self::Internal => "internal",
        }
    }

    /// Position in [`CloseReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Ending {
    /// The one word the metrics have for this ending.
    pub const fn reason(&self) -> CloseReason {
        match (self.manner, self.phase) {
            (Manner::Drained, _) => CloseReason::Drain,
            (Manner::Limited, _) => CloseReason::Limit,
            (Manner::Internal, _) => CloseReason::Internal,
            (Manner::TimedOut, Phase::Dialling) => CloseReason::ConnectTimeout,
            (Manner::Refused | Manner::Unreachable, _) => CloseReason::ConnectFailed,
            (Manner::TimedOut, _) => CloseReason::DeadPeer,
            (Manner::Fin | Manner::Reset, _) if self.after_failed_authentication => {
                CloseReason::AuthFailed
            }
            (
                Manner::Fin | Manner::Reset,
                Phase::Dialling | Phase::Handshaking | Phase::Authenticating,
            ) => CloseReason::Handshake,
            (Manner::Reset, _) => CloseReason::Reset,
            (Manner::Fin, Phase::InExchange | Phase::MidMessage) => CloseReason::InFlight,
            (Manner::Fin, Phase::Idle | Phase::Opaque) => CloseReason::Clean,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manner: Manner, phase: Phase, reason: CloseReason) {
        let ending = Ending {
            initiator: Initiator::Client,
            manner,
            phase,
            after_failed_authentication: false,
        };
        assert_eq!(ending.reason(), reason, "{manner:?} while {phase:?}");
    }

    #[test]
    fn every_ending_has_the_reason_an_operator_expects() {
        check(Manner::Fin, Phase::Idle, CloseReason::Clean);
        check(Manner::Fin, Phase::InExchange, CloseReason::InFlight);
        check(Manner::Fin, Phase::MidMessage, CloseReason::InFlight);
        check(Manner::Fin, Phase::Handshaking, CloseReason::Handshake);
        check(Manner::Reset, Phase::Idle, CloseReason::Reset);
        check(Manner::Reset, Phase::Authenticating, CloseReason::Handshake);
        check(Manner::Refused, Phase::Dialling, CloseReason::ConnectFailed);
        check(
            Manner::TimedOut,
            Phase::Dialling,
            CloseReason::ConnectTimeout,
        );
        check(Manner::TimedOut, Phase::Idle, CloseReason::DeadPeer);
        check(Manner::Drained, Phase::InExchange, CloseReason::Drain);
    }
}
