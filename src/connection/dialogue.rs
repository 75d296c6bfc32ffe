//! The messages of one connection, followed by one state machine.
//!
//! ```text
//!             dialled              hello answered             authenticated
//! Connecting ────────▶ Handshaking ──────┬──────▶ Authenticating ────┐
//!                                        └───────────────────────────┤ ready
//!                                                                    ▼
//!              Monitoring ◀─ role is a monitor ─ Idle ◀──────────▶ Active
//!                                                      in flight
//! any ── told to end ──▶ Draining        any ── undecodable ──▶ Opaque
//! ```
//!
//! The state is computed from what is known and never stored, so that it cannot contradict it. It must neither
//! see bytes nor fail: a message that fits nothing is counted and passed over.

use std::time::Duration;

use bson::raw::RawDocument;

use super::auth::Authenticator;
use super::evidence::{Evidence, is_small_talk};
use super::exchange::{Asked, Outstanding, Pending, Purpose, cursors_to_kill, sessions_to_end};
use super::handshake::{Introduction, fingerprint, server_facts};
use super::{
    AuthenticationResult, CursorEffect, ErrorKind, Facts, Observation, OpaqueReason, Phase,
    ReplyError, Role, State,
};
use crate::time::Timestamp;
use crate::wire::{
    Command, Compressor, Content, Direction, Header, Message, OpCode, Reply, ReplyFields, Request,
};

/// Cursors known to wait for data that one connection remembers.
const AWAITING_CURSORS_MAX: usize = 16;

/// Different logical sessions that a connection tells of without delay. Enough to join it with its siblings; with
/// more, the order in which a busy pool hands out sessions would make every request an observation.
const SESSIONS_TOLD_AT_ONCE: u8 = 8;

/// Time between two logical sessions told of one connection after that.
const SESSIONS_TOLD_EVERY: Duration = Duration::from_secs(1);

/// The server no longer knows the transaction (error code `NoSuchTransaction`).
const NO_SUCH_TRANSACTION: i32 = 251;

/// The server saw the end of the connection while it worked for it (error code `ClientDisconnect`). It says so to
/// a client that is no longer there, most often about the awaitable hello of a monitor that was closed: how the
/// connection ended tells the same, and nobody was refused anything.
///
/// Source: `error_codes.yml` of the server; measured on mongod 6.0.5.
const CLIENT_DISCONNECT: i32 = 279;

/// When a message passed.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "moments are named after what happened, like everywhere"
)]
pub(super) struct Moments {
    /// Its first byte was read.
    pub(super) started_at: Timestamp,
    /// The chunk with its last byte was read.
    pub(super) read_at: Timestamp,
    /// The chunk with its last byte was written to the other side.
    pub(super) written_at: Timestamp,
}

/// What the messages of a connection told so far.
#[derive(Debug)]
pub(super) struct Dialogue {
    opened_at: Timestamp,
    is_dialled: bool,
    is_introduced: bool,
    is_handshaken: bool,
    is_ready: bool,
    is_draining: bool,
    is_opaque: bool,
    compressor: Option<Compressor>,
    evidence: Evidence,
    auth: Authenticator,
    outstanding: Outstanding,
    awaiting_cursors: Vec<i64>,
    /// [`fingerprint`] of what the server said last.
    server: Option<u64>,
    heartbeat_ms: i64,
    /// The logical session told last, when, and how many were.
    session: [u8; 16],
    session_told_at: Timestamp,
    sessions_told: u8,
    requests_count: u64,
    /// What [`Facts::activity_changed`] was told last.
    told: (State, u32),
}

impl Dialogue {
    pub(super) fn new(opened_at: Timestamp) -> Self {
        Self {
            opened_at,
            is_dialled: false,
            is_introduced: false,
            is_handshaken: false,
            is_ready: false,
            is_draining: false,
            is_opaque: false,
            compressor: None,
            evidence: Evidence::default(),
            auth: Authenticator::default(),
            outstanding: Outstanding::default(),
            awaiting_cursors: Vec::new(),
            server: None,
            heartbeat_ms: 0,
            session: [0; 16],
            session_told_at: opened_at,
            sessions_told: 0,
            requests_count: 0,
            told: (State::Connecting, 0),
        }
    }

    pub(super) fn state(&self) -> State {
        if self.is_opaque {
            State::Opaque
        } else if self.is_draining {
            State::Draining
        } else if !self.is_dialled {
            State::Connecting
        } else if self.auth.is_under_way() && self.is_handshaken {
            State::Authenticating
        } else if !self.is_handshaken {
            State::Handshaking
        } else if !self.is_ready {
            State::Authenticating
        } else if self.evidence.role().is_monitor() {
            State::Monitoring
        } else if self.in_flight() > 0 {
            State::Active
        } else {
            State::Idle
        }
    }

    pub(super) const fn role(&self) -> Role {
        self.evidence.role()
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.outstanding.application_count()
    }

    /// The commands of the requests in flight, oldest first.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = Command> {
        self.outstanding.application_commands()
    }

    /// All that is in flight is a goodbye, `endSessions`: who leaves need not wait for the answer, and Node does not.
    fn has_said_goodbye_last(&self) -> bool {
        let mut goodbyes = 0;
        for command in self.unanswered() {
            if command != Command::EndSessions {
                return false;
            }
            goodbyes += 1;
        }
        goodbyes == self.in_flight()
    }

    pub(super) const fn requests_count(&self) -> u64 {
        self.requests_count
    }

    pub(super) const fn is_opaque(&self) -> bool {
        self.is_opaque
    }

    /// No request waits but an awaitable hello, and no authentication is half done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.outstanding.is_at_rest() && !self.auth.is_under_way()
    }

    /// What it would be doing, were it to end now.
    pub(super) fn phase(&self, is_mid_message: bool) -> Phase {
        if !self.is_dialled {
            Phase::Dialling
        } else if self.is_opaque {
            Phase::Opaque
        } else if !self.is_handshaken {
            Phase::Handshaking
        } else if self.auth.is_under_way() || !self.is_ready {
            Phase::Authenticating
        } else if is_mid_message {
            Phase::MidMessage
        } else if self.in_flight() > 0 && !self.has_said_goodbye_last() {
            Phase::InExchange
        } else {
            Phase::Idle
        }
    }

    pub(super) const fn has_failed_authentication(&self) -> bool {
        self.auth.has_failed_last()
    }

    pub(super) fn dialled(&mut self, at: Timestamp, facts: &mut impl Facts) {
        self.is_dialled = true;
        self.tell_activity(at, facts);
    }

    pub(super) fn drained(&mut self, at: Timestamp, facts: &mut impl Facts) {
        self.is_draining = true;
        self.tell_activity(at, facts);
    }

    pub(super) fn turned_opaque(
        &mut self,
        reason: OpaqueReason,
        at: Timestamp,
        facts: &mut impl Facts,
    ) {
        if self.is_opaque {
            return;
        }
        self.is_opaque = true;
        self.outstanding.clear();
        self.auth.client_went_on();
        self.awaiting_cursors = Vec::new();
        facts.observed(at, Observation::TurnedOpaque(reason));
        self.tell_activity(at, facts);
    }

    /// The client sent nothing that the protocol knows.
    pub(super) fn probe_seen(&mut self, at: Timestamp, facts: &mut impl Facts) {
        let found = self.evidence.probe_seen();
        Self::tell_role(found, at, facts);
    }

    /// The connection ended: an authentication under way will not be decided.
    pub(super) fn ended(&mut self, at: Timestamp, facts: &mut impl Facts) {
        if let Some(abandoned) = self.auth.abandoned() {
            facts.observed(at, Observation::Authenticated(abandoned));
        }
    }

    /// A message was seen to its end.
    pub(super) fn message_ended(
        &mut self,
        direction: Direction,
        message: &Message<'_>,
        moments: Moments,
        facts: &mut impl Facts,
    ) {
        facts.message_seen(direction, message.header.message_len);
        let at = match (direction, &message.content) {
            (Direction::ToServer, Content::Request(request)) => {
                self.request_seen(message, request, moments, facts);
                moments.read_at
            }
            (Direction::ToClient, Content::Reply(reply)) => {
                self.reply_seen(message, reply, moments, facts);
                moments.written_at
            }
            (Direction::ToClient, Content::Skipped) => {
                // It cannot be read, but it answers what its header says.
                let unread = Reply {
                    document: None,
                    fields: &ReplyFields {
                        is_truncated: true,
                        ..ReplyFields::default()
                    },
                };
                self.reply_seen(message, &unread, moments, facts);
                moments.written_at
            }
            (Direction::ToServer, Content::Skipped) if is_legacy_work(message.opcode) => {
                self.take_to_work(moments.read_at, facts);
                moments.read_at
            }
            (Direction::ToServer, Content::Skipped | Content::Reply(_))
            | (Direction::ToClient, Content::Request(_)) => return,
        };
        self.tell_activity(at, facts);
    }

    fn request_seen(
        &mut self,
        message: &Message<'_>,
        request: &Request<'_>,
        moments: Moments,
        facts: &mut impl Facts,
    ) {
        let at = moments.read_at;
        let command = request.command;
        self.requests_count = self.requests_count.saturating_add(1);
        facts.request_seen(at, command, message.header.request_id);
        if let Some(lsid) = request.fields.lsid {
            self.session_used(lsid, at, facts);
        }

        let purpose = if command == Command::Hello {
            self.hello_sent(message.header.request_id, request, at, facts)
        } else if command.is_authentication() {
            self.auth.command_sent(command, request.document);
            Self::tell_role(self.evidence.credentials_seen(), at, facts);
            Purpose::Authentication
        } else {
            self.command_sent(request, at, facts);
            Purpose::Application
        };
        if request.fields.starts_transaction {
            let lsid = request.fields.lsid;
            facts.observed(at, Observation::TransactionStarted { lsid });
        }
        if command == Command::EndSessions
            && let Some(sessions) = request.document.and_then(sessions_to_end)
        {
            facts.observed(at, Observation::SessionsEnded(sessions));
        }
        // Nothing will answer it: unacknowledged writes, the endSessions of newer drivers.
        if message.more_to_come {
            return;
        }
        let killed = match (command, request.document) {
            (Command::KillCursors, Some(document)) => cursors_to_kill(document),
            _ => None,
        };
        let asked = Asked::new(request, purpose, moments.started_at);
        self.outstanding
            .push(Pending::new(message.header.request_id, asked, killed));
    }

    fn hello_sent(
        &mut self,
        request_id: i32,
        request: &Request<'_>,
        at: Timestamp,
        facts: &mut impl Facts,
    ) -> Purpose {
        let fields = request.fields;
        if !self.is_introduced {
            self.is_introduced = true;
            let introduction = Introduction::from_hello(request.document);
            let found = self
                .evidence
                .introduced(&introduction.metadata, introduction.is_internal);
            let seen = Observation::HandshakeSeen {
                client: Box::new(introduction.metadata),
                request_id,
            };
            facts.observed(at, seen);
            Self::tell_role(found, at, facts);
        }
        let credentials = request
            .document
            .map(|document| self.auth.hello_sent(document))
            .unwrap_or_default();
        let wait_ms = fields
            .max_await_time_ms
            .filter(|_| fields.has_topology_version);
        let found = if credentials.is_member {
            self.evidence.member_named()
        } else if fields.lsid.is_some() {
            self.evidence.work_seen()
        } else if credentials.is_speculative || credentials.names_user {
            self.evidence.credentials_seen()
        } else if wait_ms.is_some() {
            self.evidence.streaming_seen()
        } else if self.is_handshaken {
            self.evidence.polling_seen()
        } else {
            None
        };
        Self::tell_role(found, at, facts);
        if let Some(wait_ms) = wait_ms.filter(|ms| *ms > 0 && *ms != self.heartbeat_ms) {
            self.heartbeat_ms = wait_ms;
            let interval = Duration::from_millis(wait_ms.unsigned_abs());
            facts.observed(at, Observation::HeartbeatInterval(interval));
        }
        Purpose::Hello {
            is_awaitable: wait_ms.is_some(),
            is_speculative: credentials.is_speculative,
        }
    }

    /// Tells of a session that was not told last; see [`Observation::SessionUsed`].
    fn session_used(&mut self, lsid: [u8; 16], at: Timestamp, facts: &mut impl Facts) {
        if self.session == lsid {
            return;
        }
        let is_hurried = self.sessions_told < SESSIONS_TOLD_AT_ONCE;
        if !is_hurried && at.since(self.session_told_at) < SESSIONS_TOLD_EVERY {
            return;
        }
        self.session = lsid;
        self.sessions_told = self.sessions_told.saturating_add(1);
        self.session_told_at = at;
        facts.observed(at, Observation::SessionUsed(lsid));
    }

    fn command_sent(&mut self, request: &Request<'_>, at: Timestamp, facts: &mut impl Facts) {
        if is_small_talk(request.command) && request.fields.lsid.is_none() {
            return;
        }
        self.take_to_work(at, facts);
    }

    /// The client uses the connection: whatever was still expected, it takes it to be usable.
    fn take_to_work(&mut self, at: Timestamp, facts: &mut impl Facts) {
        Self::tell_role(self.evidence.work_seen(), at, facts);
        self.auth.client_went_on();
        self.become_ready(at, facts);
    }

    fn reply_seen(
        &mut self,
        message: &Message<'_>,
        reply: &Reply<'_>,
        moments: Moments,
        facts: &mut impl Facts,
    ) {
        let at = moments.written_at;
        let Header {
            request_id,
            response_to,
            ..
        } = message.header;
        let Some((place, asked)) = self.outstanding.find(response_to) else {
            return;
        };
        tell_errors(asked.command, reply.fields, at, facts);
        match asked.purpose {
            Purpose::Hello {
                is_speculative,
                is_awaitable,
            } => {
                if !is_awaitable {
                    // The client may act on it on another connection before the write is known to be done.
                    let heard_at = moments.read_at;
                    let took = heard_at.since(asked.started_at);
                    facts.observed(heard_at, Observation::HelloAnswered(took));
                }
                self.hello_answered(reply, is_speculative, at, facts);
            }
            Purpose::Authentication => self.credentials_answered(asked.command, reply, at, facts),
            Purpose::Application => {
                if ends_transaction(&asked, reply.fields) {
                    let lsid = asked.lsid;
                    facts.observed(at, Observation::TransactionEnded { lsid });
                }
            }
        }
        if message.more_to_come {
            self.outstanding.follow(place, request_id);
            return;
        }
        let Some(pending) = self.outstanding.remove(place) else {
            return;
        };
        let mut exchange = asked.exchange(reply.fields, pending.is_streamed(), at);
        exchange.is_timed &= !self.is_awaiting(exchange.cursor);
        self.remember_awaiting(exchange.cursor);
        facts.exchange_ended(&exchange);
        if exchange.is_ok {
            for id in pending.killed() {
                self.forget_awaiting(*id);
                facts.cursor_killed(at, *id);
            }
        }
    }

    fn hello_answered(
        &mut self,
        reply: &Reply<'_>,
        was_speculative: bool,
        at: Timestamp,
        facts: &mut impl Facts,
    ) {
        let is_ok = reply.fields.ok != Some(false);
        if let Some(document) = reply.document.filter(|_| is_ok) {
            self.server_described(document, reply.fields, at, facts);
        }
        let outcome = self
            .auth
            .hello_answered(is_ok, reply.document, was_speculative);
        if let Some(outcome) = outcome {
            facts.observed(at, Observation::Authenticated(outcome));
        }
        if is_ok {
            self.is_handshaken = true;
            if !self.auth.is_expected() {
                self.become_ready(at, facts);
            }
        }
    }

    fn server_described(
        &mut self,
        document: &RawDocument,
        fields: &ReplyFields,
        at: Timestamp,
        facts: &mut impl Facts,
    ) {
        let server = server_facts(document, fields, self.compressor);
        self.compressor = server.compressor;
        let fingerprint = fingerprint(&server);
        if self.server != Some(fingerprint) {
            self.server = Some(fingerprint);
            facts.observed(at, Observation::ServerDescribed(Box::new(server)));
        }
    }

    fn credentials_answered(
        &mut self,
        command: Command,
        reply: &Reply<'_>,
        at: Timestamp,
        facts: &mut impl Facts,
    ) {
        let outcome = self.auth.command_answered(
            command,
            (reply.fields.ok, reply.fields.code),
            reply.document,
        );
        let Some(outcome) = outcome else {
            return;
        };
        let is_ok = outcome.result == AuthenticationResult::Ok;
        facts.observed(at, Observation::Authenticated(outcome));
        if is_ok {
            self.become_ready(at, facts);
        }
    }

    fn become_ready(&mut self, at: Timestamp, facts: &mut impl Facts) {
        self.is_handshaken = true;
        if self.is_ready {
            return;
        }
        self.is_ready = true;
        let after = at.since(self.opened_at);
        facts.observed(at, Observation::Ready { after });
    }

    fn is_awaiting(&self, cursor: CursorEffect) -> bool {
        match cursor {
            CursorEffect::Continued { id } | CursorEffect::Exhausted { id } => {
                self.awaiting_cursors.contains(&id)
            }
            CursorEffect::Opened { .. } | CursorEffect::None => false,
        }
    }

    fn remember_awaiting(&mut self, cursor: CursorEffect) {
        match cursor {
            CursorEffect::Opened {
                id,
                awaits_data: true,
            } => {
                if self.awaiting_cursors.len() >= AWAITING_CURSORS_MAX {
                    self.awaiting_cursors.remove(0);
                }
                self.awaiting_cursors.push(id);
            }
            CursorEffect::Exhausted { id } => self.forget_awaiting(id),
            CursorEffect::Opened { .. } | CursorEffect::Continued { .. } | CursorEffect::None => {}
        }
    }

    fn forget_awaiting(&mut self, id: i64) {
        self.awaiting_cursors.retain(|known| *known != id);
        if self.awaiting_cursors.is_empty() {
            self.awaiting_cursors = Vec::new();
        }
    }

    fn tell_role(found: Option<Role>, at: Timestamp, facts: &mut impl Facts) {
        if let Some(role) = found {
            facts.observed(at, Observation::RoleFound(role));
        }
    }

    fn tell_activity(&mut self, at: Timestamp, facts: &mut impl Facts) {
        let now = (self.state(), self.in_flight());
        if self.told != now {
            self.told = now;
            facts.activity_changed(at, now.0, now.1);
        }
    }
}

/// The removed opcodes that carried an application's work to servers before 5.1.
const fn is_legacy_work(opcode: OpCode) -> bool {
    matches!(
        opcode,
        OpCode::Insert | OpCode::Update | OpCode::Delete | OpCode::GetMore | OpCode::KillCursors
    )
}

/// Whether a reply says that the transaction of its request is over.
fn ends_transaction(asked: &Asked, reply: &ReplyFields) -> bool {
    let is_last = matches!(
        asked.command,
        Command::CommitTransaction | Command::AbortTransaction
    );
    let is_gone = reply.ok == Some(false)
        && (reply.code == Some(NO_SUCH_TRANSACTION)
            || reply.error_labels.contains("TransientTransactionError"));
    is_last || (asked.is_in_transaction && is_gone)
}

fn tell_errors(command: Command, reply: &ReplyFields, at: Timestamp, facts: &mut impl Facts) {
    let error = |kind, code, count| ReplyError {
        kind,
        command,
        code,
        code_name: None,
        labels: reply.error_labels,
        count,
    };
    if reply.ok == Some(false) && reply.code != Some(CLIENT_DISCONNECT) {
        let error = ReplyError {
            code_name: reply.code_name,
            ..error(ErrorKind::Command, reply.code.unwrap_or_default(), 1)
        };
        facts.error_seen(at, &error);
    }
    for (code, count) in reply.write_errors.iter() {
        facts.error_seen(at, &error(ErrorKind::Write, code, count));
    }
    if reply.write_errors.others > 0 {
        let others = error(ErrorKind::Write, 0, reply.write_errors.others);
        facts.error_seen(at, &others);
    }
    if let Some(code) = reply.write_concern_error {
        facts.error_seen(at, &error(ErrorKind::WriteConcern, code, 1));
    }
}
