//! What is known of one connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::closings::Habits;
use super::sessions::CircleId;
use super::{InstanceId, MongoClientId, Numbering};
use crate::clients::numbering::Introduction;
use crate::clients::processes::ProcessId;
use crate::clients::roles::{Sibling, Traits};
use crate::connection::{
    Authentication, ClientMetadata, Ending, Initiator, Manner, OpaqueReason, Phase, Role,
};
use crate::time::Timestamp;
use crate::timeline::{
    Commands, ConnectionId, DialFailure, ErrorReply, Fact, Opened, Sample, UpstreamId,
};

/// An answer that is missing for longer is missed.
const LATE_MIN: Duration = Duration::from_millis(300);

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
    /// What it is used for as far as its siblings tell, too: silent connections may be pooled or monitors. `Unknown`
    /// while that is not decided.
    pub found: Role,
    /// How often it asks for changes, where it is a streaming monitor.
    pub heartbeat: Option<Duration>,
    /// `requestID` of its first message.
    pub first_request_id: Option<i32>,
    /// How its driver chooses request ids.
    pub numbering: Numbering,
    /// Its driver is Node's with the legacy pool, which can log "Pool was force destroyed".
    pub has_legacy_pool: bool,
    /// Its driver never cuts an operation when its client is closed: what ends in the middle of a request was not
    /// closed by the application.
    pub never_cuts: bool,
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
    /// It did no operation after that, as far as that was told.
    pub(super) worked_at: Timestamp,
    /// Requests of the application that its end left unanswered, as far as they were read.
    pub unanswered: Commands,
    /// How it ended.
    pub ended: Option<End>,
    /// Some of its counters before those.
    pub(super) before: Before,
    /// Its pool is cleared by failed authentications.
    pub(super) clears_on_failed_authentication: bool,
    /// Its pool is cleared by connections that break before their first hello is answered.
    pub(super) clears_on_failed_handshake: bool,
    /// Its pool goes on when the server says that it is shutting down.
    pub(super) ignores_state_changes: bool,
    /// Its pool is cleared by a write concern error that tells of a state change, whatever the server's version.
    pub(super) clears_on_failed_write_concern: bool,
    /// Its driver has no pools that are cleared.
    pub(super) never_clears: bool,
    /// What its driver does when connections end.
    pub(super) habits: Habits,
    /// What its handshake tells of its use.
    pub(super) traits: Traits,
    /// Each of its driver's monitors counts requests for itself, from one connection to the next.
    pub(super) monitors_count_apart: bool,
    /// Its driver has one socket a process and server that does everything.
    pub(super) has_single_socket: bool,
    /// Found to be pooled; only its own traffic can prove otherwise.
    pub(super) was_found_pooled: bool,
    /// It ended, and `found` is final.
    pub(super) is_judged: bool,
    /// The process that opened it, where its driver's requests tell.
    pub(super) process: Option<ProcessId>,
    /// The logical sessions it carried.
    pub(super) circle: Option<CircleId>,
    /// Operations that its pool counts.
    pub(super) operations_counted: u64,
    /// Its pool counts it.
    pub(super) is_counted: bool,
    /// Its pool counts it as ready.
    pub(super) is_ready_counted: bool,
    /// Its pool counts it as used.
    pub(super) is_use_counted: bool,
}

/// Counters that are compared with later ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    pub(super) operations: u64,
    pub(super) busy: Duration,
    pub(super) from_server_at: Timestamp,
}

impl From<&Sample> for Before {
    fn from(sample: &Sample) -> Self {
        Self {
            operations: sample.operations,
            busy: sample.busy,
            from_server_at: sample.from_server_at,
        }
    }
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How.
    pub ending: Ending,
    /// When its client left it, where that was before.
    pub left_at: Option<Timestamp>,
}

impl End {
    /// When it ended for its client: before it was read, where the server had to be dialled first.
    pub(super) fn began_at(&self) -> Timestamp {
        self.left_at.map_or(self.at, |left_at| left_at.min(self.at))
    }

    /// The client's side began it.
    pub(super) fn is_by_client(&self) -> bool {
        self.ending.initiator == Initiator::Client
    }

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
            found: Role::Unknown,
            heartbeat: None,
            first_request_id: None,
            numbering: Numbering::Unknown,
            has_legacy_pool: false,
            never_cuts: false,
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
            worked_at: at,
            unanswered: Commands::default(),
            ended: None,
            before: Before::default(),
            clears_on_failed_authentication: false,
            clears_on_failed_handshake: false,
            ignores_state_changes: false,
            clears_on_failed_write_concern: false,
            never_clears: false,
            habits: Habits::default(),
            traits: Traits::default(),
            monitors_count_apart: false,
            has_single_socket: false,
            was_found_pooled: false,
            is_judged: false,
            process: None,
            circle: None,
            operations_counted: 0,
            is_counted: false,
            is_ready_counted: false,
            is_use_counted: false,
        }
    }

    pub(super) fn record(&mut self, at: Timestamp, fact: &Fact) {
        match fact {
            Fact::Opened(_) | Fact::SessionUsed(_) => {}
            Fact::Dialled(_) => self.dialled_at = Some(at),
            Fact::DialFailed(failure) => self.dial_failure = Some(*failure),
            Fact::Introduced { client, request_id } => {
                self.introduced_at = Some(at);
                self.traits = Traits::of(client).with_authentication_of(self.traits);
                self.first_request_id = Some(*request_id);
                self.read_habits(client);
            }
            Fact::Described(server) => {
                self.server_connection_id = server.connection_id.or(self.server_connection_id);
            }
            Fact::HelloAnswered(_) => {
                self.hello_answered_at.get_or_insert(at);
            }
            Fact::Authenticated(authentication) => {
                self.authentication = Some((at, authentication.clone()));
                self.traits.has_authenticated = true;
            }
            Fact::Ready(_) => self.ready_at = Some(at),
            Fact::RoleFound(role) => {
                self.role = *role;
                // Whether plain hellos are those of a round-trip monitor, the siblings tell.
                if *role != Role::RoundTripMonitor {
                    self.found = *role;
                }
            }
            Fact::Heartbeat(interval) => self.heartbeat = Some(*interval),
            Fact::SessionsEnded(_) => self.said_goodbye_at = Some(at),
            Fact::Failed(error) => self.last_error = Some((at, *error)),
            Fact::TransactionStarted => self.transactions_open += 1,
            Fact::TransactionEnded => {
                self.transactions_open = self.transactions_open.saturating_sub(1);
            }
            Fact::TurnedOpaque(reason) => self.opaque = Some(*reason),
            Fact::Sampled(sample) => {
                if sample.operations > self.last.operations {
                    self.worked_at = sample.from_server_at;
                }
                self.before = Before::from(&self.last);
                self.last = *sample;
            }
            Fact::Ended(end) => {
                self.before = Before::from(&self.last);
                self.last = end.last;
                self.unanswered = end.unanswered.clone();
                self.ended = Some(End {
                    at,
                    ending: end.ending,
                    left_at: end.left_at,
                });
            }
        }
    }

    /// What the driver does, by its name and version.
    fn read_habits(&mut self, client: &ClientMetadata) {
        let driver = client.driver_name.as_str();
        let is_one_of = |names: &[&str]| names.iter().any(|name| driver.starts_with(name));
        let major = client.driver_version.split(['.', '|']).next();
        let major: u32 = major.and_then(|major| major.parse().ok()).unwrap_or(0);
        self.has_single_socket = driver.contains("ext-mongodb:PHP");
        // `mongoc-server-monitor.c`.
        self.monitors_count_apart = driver.starts_with("mongoc");
        self.numbering = Numbering::of(client);
        self.has_legacy_pool = client.has_legacy_pool();
        self.never_cuts = is_one_of(&["PyMongo"]) && !driver.contains("async");
        let is_node = is_one_of(&["nodejs"]);
        self.never_clears = client.has_legacy_pool();
        self.habits = Habits::of(client);
        self.ignores_state_changes = is_one_of(&["mongo-java-driver"]) && major <= 3;
        // `Topology._handle_error` before PyMongo 4: the error is no `NotPrimaryError`.
        self.clears_on_failed_write_concern = is_one_of(&["PyMongo"]) && major <= 3;
        self.clears_on_failed_authentication =
            (is_node && major >= 4) || is_one_of(&["mongo-go-driver"]);
        // Node's pools of 3.5 to 3.7 leave a failed handshake to whoever waits for the connection.
        self.clears_on_failed_handshake =
            !(client.backpressure || client.load_balanced || (is_node && major <= 3));
    }

    /// It is still open.
    pub const fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// It could carry its first ordinary command; or was introduced or opened, when that is not known.
    pub fn stood_at(&self) -> Timestamp {
        let stood_at = self.ready_at.or(self.introduced_at);
        stood_at.unwrap_or(self.opened_at)
    }

    /// It carried logical sessions.
    pub const fn has_sessions(&self) -> bool {
        self.circle.is_some()
    }

    /// Nothing tells what it is used for; its client may have monitors, and this may be one.
    pub(super) fn may_be_monitor(&self) -> bool {
        self.found == Role::Unknown && !self.traits.lacks_monitors()
    }

    /// It ended before it showed that it was a monitor, and was none of a pool: whose it was, and when.
    pub(super) fn was_to_watch(&self) -> Option<(ProcessId, Timestamp)> {
        let is_it = self.role == Role::Unknown && self.found == Role::Monitor;
        self.process
            .zip(self.ended.map(|end| end.at))
            .filter(|_| is_it)
    }

    /// It belongs to a pool, as far as that is found.
    pub fn is_pooled(&self) -> bool {
        self.sibling().is_pooled(self.found)
    }

    /// Its first message was the first of its process.
    pub(super) fn begins_process(&self) -> bool {
        let first_id = self.first_request_id;
        first_id.is_some_and(|id| self.numbering.begins_process(id))
    }

    /// How it was introduced, where its driver counts request ids for the whole process.
    pub(super) fn introduction(&self) -> Option<Introduction> {
        let request_id = self.first_request_id?;
        Introduction::new(
            self.numbering,
            request_id,
            self.opened_at,
            self.introduced_at?,
        )
    }

    /// It is a monitor and was closed after more silence than it should have heard: the check failed.
    pub(super) fn is_overdue(&self) -> bool {
        let Some(end) = self.ended else {
            return false;
        };
        let last = &self.last;
        let interval = self.heartbeat.unwrap_or_default();
        // A polling monitor waits for its answer only.
        let waits = self.heartbeat.is_some() || last.from_client_at > last.from_server_at;
        let silent = end.at.since(last.from_client_at.max(last.from_server_at));
        waits && silent > interval + (interval / 10).max(LATE_MIN)
    }

    /// Its client closed it in good order.
    pub(super) fn was_closed_by_choice(&self) -> bool {
        self.ended
            .is_some_and(|end| end.is_by_client() && end.ending.manner == Manner::Fin)
    }

    /// Something else than its client ended it. Something on the way resets both sides; a client has no reason to reset
    /// what has nothing to say, unless it does not wait for the answer to its goodbye.
    pub(super) fn was_broken(&self) -> bool {
        self.ended.is_some_and(|end| {
            let was_quiet = matches!(end.ending.phase, Phase::Idle | Phase::Opaque);
            let is_torn = end.ending.manner == Manner::Reset && was_quiet;
            let is_torn = is_torn && self.is_pooled() && self.said_goodbye_at.is_none();
            !end.is_by_client() || is_torn
        })
    }

    /// It carried more than hellos, or authenticated.
    pub(super) fn has_worked(&self) -> bool {
        self.traits.has_authenticated || self.last.operations > 0 || self.circle.is_some()
    }

    /// As its siblings see it.
    pub(super) fn sibling(&self) -> Sibling {
        Sibling {
            id: self.id,
            opened_at: self.opened_at,
            told: self.role,
            is_answered: self.hello_answered_at.is_some() && self.opaque.is_none(),
            answered_at: self.hello_answered_at,
            was_found_pooled: self.was_found_pooled,
            has_worked: self.has_worked(),
            has_said_goodbye: self.said_goodbye_at.is_some(),
            is_cut: self.ended.is_some_and(|end| !end.is_by_client()),
            heartbeat: self.heartbeat,
            traits: self.traits,
        }
    }

    /// How long nothing came from the server before the request was sent that is under way, or was when it ended.
    pub fn pause(&self) -> Duration {
        let last = &self.last;
        last.busy_since
            .map_or(Duration::ZERO, |since| since.since(last.from_server_at))
    }

    /// What was sent to the server is not acknowledged, and was sent again in vain; `None` where the kernel was not
    /// asked. A segment that has just left, such as a FIN, was not sent again yet.
    pub fn is_unacknowledged(&self) -> Option<bool> {
        let [_, server] = self.last.tcp?;
        Some(server.unacked > 0 && server.retransmits > 0)
    }

    /// Time without a byte from the server, at `at` or when it ended.
    pub fn idle_age(&self, at: Timestamp) -> Duration {
        let until = self.ended.map_or(at, |end| end.at);
        until.since(self.last.from_server_at.max(self.last.from_client_at))
    }
}
