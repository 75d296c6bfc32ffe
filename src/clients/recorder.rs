//! The end of one connection that counts: what its tracker and its relay tell goes to the cells it holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attribution::{driver_row, driver_text};
use super::client::ClientCell;
use super::connection::{ConnectionCell, DriverName};
use super::cursors::TransactionKey;
use super::directory::{Directory, left};
use super::numbering::{Introduction, Numbering};
use super::processes::ProcessId;
use super::roles::Traits;
use super::upstream::UpstreamCell;
use super::{ConnectionId, DialFailure, lock};
use crate::connection::{
    Authentication, ClientMetadata, CursorEffect, Ending, Exchange, Facts, Initiator, Manner,
    Observation, OpaqueReason, Phase, ReplyError, Role, ServerFacts, State,
};
use crate::time::Timestamp;
use crate::timeline::{Commands, Ended, Entry, ErrorReply, Fact, TcpState};
use crate::wire::{Command, Direction, matters_to_pools};

/// Errors alike are told at most this often for one connection.
const ERRORS_TOLD_EVERY: Duration = Duration::from_secs(1);

/// Counts for one connection; owned by its task.
///
/// Dropped without [`Recorder::ended`] it accounts the connection as ended by a failure of the proxy at the
/// moment of its last activity, so that no gauge stays behind.
#[derive(Debug)]
pub struct Recorder {
    directory: Arc<Directory>,
    connection: Arc<ConnectionCell>,
    /// Its owner; until the handshake is read the one that shelters it.
    client: Arc<ClientCell>,
    upstream: Arc<UpstreamCell>,
    /// The connection was counted as opened by `client` and stays with it.
    is_settled: bool,
    /// Hellos seen before that.
    hellos_pending: u64,
    /// The error told last, and how many alike were not told since.
    error_told: Option<(Timestamp, i32)>,
    errors_untold: u32,
    /// What is unanswered, at its end.
    unanswered: Commands,
    /// When its client left it, where that was seen while the server was dialled.
    left_at: Option<Timestamp>,
    has_ended: bool,
}

impl Recorder {
    pub(super) fn new(
        directory: Arc<Directory>,
        connection: Arc<ConnectionCell>,
        client: Arc<ClientCell>,
        upstream: Arc<UpstreamCell>,
    ) -> Self {
        Self {
            directory,
            connection,
            client,
            upstream,
            is_settled: false,
            hellos_pending: 0,
            error_told: None,
            errors_untold: 0,
            unanswered: Commands::default(),
            left_at: None,
            has_ended: false,
        }
    }

    /// The connection's number.
    pub fn id(&self) -> ConnectionId {
        self.connection.id
    }

    /// A request is unanswered: what happens on its sockets matters now.
    pub fn is_busy(&self) -> bool {
        self.connection.in_flight() > 0
    }

    /// The kernel told this of the client's and of the server's socket.
    pub fn sockets_told(&self, states: [TcpState; 2]) {
        self.tcp_told(states);
        self.connection.account_retransmits();
    }

    /// The server accepted the dial, which took `took`; `server_side` is our own address on that socket.
    pub fn dialled(&mut self, at: Timestamp, took: Duration, server_side: Option<SocketAddr>) {
        self.tell(at, Fact::Dialled(took));
        self.upstream.connect_times.record_duration(took);
        lock(&self.connection.facts).server_side = server_side;
        if self.connection.state() == State::Connecting {
            self.activity_changed(at, State::Handshaking, 0);
        }
    }

    /// The client closes its side although the server is still dialled. What it sent before is read later, and so is its
    /// farewell.
    pub fn left_while_dialling(&mut self, at: Timestamp) {
        self.left_at.get_or_insert(at);
    }

    /// The server could not be dialled.
    pub fn dial_failed(&mut self, at: Timestamp, failure: DialFailure) {
        self.tell(at, Fact::DialFailed(failure));
        self.upstream.dial_failed(failure);
    }

    /// What the kernel tells of the client's socket and of the server's; told on with the next sample.
    pub fn tcp_told(&self, states: [TcpState; 2]) {
        *lock(&self.connection.tcp) = Some(states);
    }

    /// A chunk of `count` bytes was forwarded.
    pub fn bytes_forwarded(&mut self, direction: Direction, count: u64, at: Timestamp) {
        self.connection.active_at(direction, at);
        if let Some(bytes) = self.connection.bytes.get(direction.index()) {
            bytes.fetch_add(count, Ordering::Relaxed);
        }
        // Until then nothing is counted for the shelter: the bytes move to the owner with the connection.
        if self.is_settled
            && let Some(bytes) = self.client.bytes.get(direction.index())
        {
            bytes.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// A side ended the connection, the first to do so. Whoever reasons about it hears of the end now, with what was
    /// in flight: the other side may take its time.
    pub fn first_ended(&self, ending: Ending, at: Timestamp) {
        self.tell_end(ending, at);
        if ending.initiator != Initiator::Client {
            return;
        }
        self.connection.left_by_client();
        if self.is_settled {
            left(&self.connection, &self.client, ending.initiator, at);
        }
    }

    /// The connection ended.
    pub fn ended(mut self, ending: Ending, at: Timestamp) {
        self.finish(ending, at);
    }

    fn finish(&mut self, ending: Ending, at: Timestamp) {
        self.has_ended = true;
        self.tell_end(ending, at);
        self.settle(at, "");
        self.connection.account_retransmits();
        let busy = self.connection.stop_being_busy(at);
        self.busy(busy);
        self.upstream.ended(ending);
        self.client.closed.add(ending);
        self.directory
            .depart(&self.connection, &self.client, ending.initiator, at);
    }

    fn tell_end(&self, ending: Ending, at: Timestamp) {
        let last = self.connection.sample();
        if self.connection.is_end_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let ended = Ended {
            ending,
            last,
            unanswered: self.unanswered.clone(),
            left_at: self
                .left_at
                .filter(|_| ending.initiator == Initiator::Client),
        };
        self.tell(at, Fact::Ended(Box::new(ended)));
    }

    /// Finds the owner of the connection, who counts it as opened and keeps it for life.
    fn settle(&mut self, at: Timestamp, app: &str) {
        if self.is_settled {
            return;
        }
        self.is_settled = true;
        let owner =
            self.directory
                .settle(&self.connection, &self.client, self.upstream.id, app, at);
        self.client = owner;
        self.client
            .requests
            .add(Command::Hello, self.hellos_pending);
        for (owned, carried) in self.client.bytes.iter().zip(&self.connection.bytes) {
            owned.fetch_add(carried.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Passes a fact on to whoever reasons about it.
    fn tell(&self, at: Timestamp, fact: Fact) {
        // What comes after the end of it changes nothing any more, but for whose it was: a server at its limit closes
        // before it could have read a hello.
        let is_over = self.connection.is_end_told.load(Ordering::Relaxed);
        if is_over && !matches!(fact, Fact::Ended(_) | Fact::Introduced { .. }) {
            return;
        }
        if let Some(witness) = &self.directory.witness {
            witness.saw(Entry {
                at,
                connection: self.connection.id,
                fact,
            });
        }
    }

    /// Passes an error on, unless the same was told a moment ago.
    fn tell_error(&mut self, at: Timestamp, error: &ReplyError) {
        let is_same = self.error_told.is_some_and(|(told_at, code)| {
            code == error.code && at.since(told_at) < ERRORS_TOLD_EVERY
        });
        self.errors_untold = self.errors_untold.saturating_add(error.count);
        if is_same {
            return;
        }
        self.error_told = Some((at, error.code));
        let count = std::mem::take(&mut self.errors_untold);
        let ReplyError {
            kind,
            command,
            code,
            ..
        } = *error;
        self.tell(
            at,
            Fact::Failed(ErrorReply {
                kind,
                command,
                code,
                count,
            }),
        );
    }

    fn busy(&self, duration: Duration) {
        if !duration.is_zero() {
            self.client
                .busy_nanos
                .fetch_add(super::latency::nanos(duration), Ordering::Relaxed);
        }
    }

    fn introduced(&mut self, at: Timestamp, metadata: &ClientMetadata, request_id: i32) {
        self.settle(at, &metadata.application);
        let mut traits = Traits::of(metadata);
        traits.process = self.process(at, metadata, request_id);
        let mut row = driver_row(metadata);
        {
            let name = DriverName {
                name: row.name.clone(),
                version: row.version.clone(),
            };
            let name = self.client.shared(name);
            let mut facts = lock(&self.connection.facts);
            facts.driver = Some(name);
            facts.traits = traits.with_authentication_of(facts.traits);
        }
        if row.name.is_empty() {
            return;
        }
        if traits.has_monitors() {
            self.client.has_monitors.store(true, Ordering::Relaxed);
        }
        let mut driver = lock(&self.client.driver);
        if let Some(known) = driver.take() {
            row.compressor = known.compressor;
            row.mechanism = known.mechanism;
            row.user = known.user;
        }
        *driver = Some(row);
    }

    /// The process of its client that it was opened by, where handshakes have a count of their own: others count their
    /// operations, too, which is not kept here.
    fn process(
        &self,
        at: Timestamp,
        metadata: &ClientMetadata,
        request_id: i32,
    ) -> Option<ProcessId> {
        let opened_at = self.connection.opened_at;
        let numbering = Numbering::of(metadata);
        let introduction = Introduction::new(numbering, request_id, opened_at, at);
        let introduction = introduction.filter(|one| one.is_counted_apart)?;
        Some(lock(&self.client.processes).introduced(introduction))
    }

    fn server_described(&self, at: Timestamp, server: ServerFacts) {
        {
            let mut facts = lock(&self.connection.facts);
            facts.server_connection_id = server.connection_id.or(facts.server_connection_id);
            facts.compressor = server.compressor.or(facts.compressor);
        }
        if server.compressor.is_some()
            && let Some(driver) = lock(&self.client.driver).as_mut()
        {
            driver.compressor = server.compressor;
        }
        self.directory.server_described(&self.upstream, at, server);
    }

    fn authenticated(&self, authentication: Authentication) {
        let Authentication {
            mechanism,
            result,
            user,
        } = authentication;
        let user = user.as_deref().map(driver_text);
        *lock(&self.client.authentications)
            .entry((mechanism, result))
            .or_default() += 1;
        {
            let mut facts = lock(&self.connection.facts);
            facts.mechanism = Some(mechanism);
            facts.user.clone_from(&user);
            facts.traits.has_authenticated = true;
        }
        self.learn_from_pool();
        let mut driver = lock(&self.client.driver);
        let driver = driver.get_or_insert_default();
        driver.mechanism = Some(mechanism);
        if user.is_some() {
            driver.user = user;
        }
    }

    /// Remembers the habits of the client's pool from a connection that is proven to belong to it.
    fn learn_from_pool(&self) {
        if self.connection.told_role() == Role::Application {
            let traits = lock(&self.connection.facts).traits;
            lock(&self.client.hints).pooled(traits);
        }
    }

    fn turned_opaque(&mut self, at: Timestamp, reason: OpaqueReason) {
        // Its handshake will never be read, so nobody else can become its owner.
        self.settle(at, "");
        lock(&self.connection.facts).opaque = Some(reason);
        self.directory.turned_opaque(reason);
    }

    /// Follows a cursor; true when the exchange waited for data rather than for the server.
    fn follow_cursor(&self, exchange: &Exchange) -> bool {
        let at = exchange.ended_at;
        let mut cursors = lock(&self.client.cursors);
        match exchange.cursor {
            CursorEffect::None => false,
            CursorEffect::Opened { id, awaits_data } => {
                if !cursors.opened(at, id, awaits_data) {
                    self.directory.untracked_one();
                }
                false
            }
            CursorEffect::Continued { id } => cursors.continued(at, id),
            CursorEffect::Exhausted { id } => cursors.gone(id),
        }
    }
}

impl Facts for Recorder {
    fn message_seen(&mut self, direction: Direction, wire_len: u32) {
        if let Some(sizes) = self.upstream.message_size(direction) {
            sizes.record(u64::from(wire_len));
        }
    }

    fn request_seen(&mut self, at: Timestamp, command: Command, request_id: i32) {
        self.connection.request_seen(command, request_id);
        self.upstream.requests.add(command, 1);
        if !self.is_settled && command == Command::Hello {
            self.hellos_pending += 1;
            return;
        }
        // A first command other than a hello: this client will never introduce itself.
        self.settle(at, "");
        self.client.requests.add(command, 1);
    }

    fn cursor_killed(&mut self, _at: Timestamp, id: i64) {
        lock(&self.client.cursors).gone(id);
    }

    fn exchange_ended(&mut self, exchange: &Exchange) {
        let awaited_data = exchange.cursor != CursorEffect::None && self.follow_cursor(exchange);
        if !exchange.is_timed || awaited_data {
            return;
        }
        let took = exchange.ended_at.since(exchange.started_at);
        if let Some(times) = self.upstream.command_time(exchange.command) {
            times.record_duration(took);
        }
        if self.is_settled {
            self.client.command_times.record(took);
        }
    }

    fn error_seen(&mut self, at: Timestamp, error: &ReplyError) {
        if matters_to_pools(error.code) {
            self.tell_error(at, error);
        }
        self.upstream
            .errors
            .add(error.kind, error.code, error.count);
        if self.is_settled {
            self.client.errors.add(error.kind, error.code, error.count);
        }
    }

    fn activity_changed(&mut self, at: Timestamp, state: State, in_flight: u32) {
        let busy = self.connection.activity_changed(at, state, in_flight);
        self.busy(busy);
    }

    fn left_unanswered(&mut self, commands: impl Iterator<Item = Command>) {
        self.unanswered = commands.collect();
    }

    fn observed(&mut self, at: Timestamp, observation: Observation) {
        if self.directory.witness.is_some() {
            self.tell(at, Fact::from(&observation));
        }
        match observation {
            Observation::HandshakeSeen { client, request_id } => {
                self.introduced(at, &client, request_id);
            }
            Observation::ServerDescribed(server) => self.server_described(at, *server),
            Observation::Authenticated(authentication) => {
                self.settle(at, "");
                self.authenticated(authentication);
            }
            Observation::Ready { after } => {
                self.settle(at, "");
                self.client.handshakes.record_duration(after);
            }
            Observation::RoleFound(role) => {
                self.connection.set_told_role(role);
                self.learn_from_pool();
            }
            Observation::HeartbeatInterval(interval) => {
                self.connection.set_heartbeat(interval);
                self.client.set_heartbeat(interval);
            }
            Observation::HelloAnswered(_) => self.connection.hello_answered(at),
            Observation::SessionUsed(_) | Observation::SessionsEnded(_) => {}
            Observation::TransactionStarted { lsid } => {
                let key = TransactionKey::new(lsid, self.connection.id);
                if !lock(&self.client.transactions).started(at, key) {
                    self.directory.untracked_one();
                }
            }
            Observation::TransactionEnded { lsid } => {
                let key = TransactionKey::new(lsid, self.connection.id);
                lock(&self.client.transactions).ended(key);
            }
            Observation::TurnedOpaque(reason) => self.turned_opaque(at, reason),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let phase = match self.connection.state() {
            State::Connecting => Phase::Dialling,
            State::Handshaking => Phase::Handshaking,
            State::Authenticating => Phase::Authenticating,
            State::Idle | State::Monitoring | State::Draining => Phase::Idle,
            State::Active => Phase::InExchange,
            State::Opaque => Phase::Opaque,
        };
        let ending = Ending {
            initiator: Initiator::Proxy,
            manner: Manner::Internal,
            phase,
            after_failed_authentication: false,
        };
        let at = self.connection.last_activity();
        self.finish(ending, at);
    }
}
