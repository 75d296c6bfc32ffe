//! What is known of one open connection.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ConnectionId;
use super::client::ClientCell;
use super::lock;
use super::roles::{Sibling, Traits};
use crate::connection::{Mechanism, OpaqueReason, Role, State};
use crate::time::{Micros, Timestamp};
use crate::timeline::{Sample, TcpState};
use crate::wire::{Command, Compressor, Direction};

/// Stands for "no moment" where a moment is an atomic.
const NEVER: u64 = u64::MAX;

/// Stands for "no command" where a command is an atomic.
const NO_COMMAND: u16 = u16::MAX;

/// One open connection: atomics written by its own task only, cold facts under a lock of its own.
#[derive(Debug)]
pub(super) struct ConnectionCell {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) opened_at: Timestamp,
    state: AtomicU8,
    state_since: AtomicU64,
    told_role: AtomicU8,
    in_flight: AtomicU32,
    busy_since: AtomicU64,
    /// When the last bytes to the server and to the client were forwarded.
    last_bytes: [AtomicU64; 2],
    /// Nanoseconds of the busy times that are over.
    busy_nanos: AtomicU64,
    last_request_id: AtomicI32,
    /// What the kernel told last of the client's and the server's socket.
    pub(super) tcp: Mutex<Option<[TcpState; 2]>>,
    /// Whoever reasons about it was told of its end.
    pub(super) is_end_told: AtomicBool,
    /// Retransmits the owner has counted.
    pub(super) retransmits_counted: [AtomicU32; 2],
    /// What [`Fact::Sampled`] told last, in short.
    told_sample: AtomicU64,
    pub(super) requests: AtomicU64,
    /// Requests that are neither handshake nor authentication.
    pub(super) operations: AtomicU64,
    /// It is counted as opened in its owner's pool; changed only under the lock of `facts`.
    was_found_pooled: AtomicBool,
    /// When its first hello was answered, or [`NEVER`].
    answered_at: AtomicU64,
    /// It carried `endSessions`.
    has_said_goodbye: AtomicBool,
    /// Its client left before the server had answered its first hello; an answer that comes after that tells nobody.
    is_left_unanswered: AtomicBool,
    /// It ended for its client, and its siblings do without it: what it was for is decided, or waits to be.
    has_departed: AtomicBool,
    /// Nanoseconds; the interval it told as a streaming monitor, or [`NEVER`].
    heartbeat_nanos: AtomicU64,
    pub(super) bytes: [AtomicU64; 2],
    last_command: AtomicU16,
    pub(super) facts: Mutex<ConnectionFacts>,
}

/// Facts that change a few times in the life of a connection.
#[derive(Debug)]
pub(super) struct ConnectionFacts {
    pub(super) owner: Arc<ClientCell>,
    pub(super) server_side: Option<SocketAddr>,
    pub(super) driver: Option<Arc<DriverName>>,
    pub(super) server_connection_id: Option<i64>,
    pub(super) mechanism: Option<Mechanism>,
    pub(super) user: Option<String>,
    pub(super) compressor: Option<Compressor>,
    pub(super) opaque: Option<OpaqueReason>,
    pub(super) traits: Traits,
    membership: Membership,
}

/// What a driver calls itself, cleaned; connections of one client have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DriverName {
    pub(super) name: String,
    pub(super) version: String,
}

/// What the counters of the owner's pool say of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    /// Nothing.
    Outside,
    /// Opened.
    Inside,
    /// The connection ended; nothing more will be said.
    Over,
}

impl ConnectionFacts {
    /// Its driver; empty when that is not known.
    pub(super) fn driver(&self) -> DriverName {
        self.driver.as_deref().cloned().unwrap_or_default()
    }
}

impl ConnectionCell {
    pub(super) fn new(
        id: ConnectionId,
        peer: SocketAddr,
        at: Timestamp,
        owner: Arc<ClientCell>,
    ) -> Self {
        Self {
            id,
            peer,
            opened_at: at,
            state: AtomicU8::new(State::Connecting as u8),
            state_since: AtomicU64::new(at.as_nanos()),
            told_role: AtomicU8::new(Role::Unknown as u8),
            in_flight: AtomicU32::new(0),
            busy_since: AtomicU64::new(NEVER),
            last_bytes: [at, at].map(|at| AtomicU64::new(at.as_nanos())),
            busy_nanos: AtomicU64::new(0),
            last_request_id: AtomicI32::new(0),
            tcp: Mutex::default(),
            is_end_told: AtomicBool::new(false),
            retransmits_counted: Default::default(),
            told_sample: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            was_found_pooled: AtomicBool::new(false),
            answered_at: AtomicU64::new(NEVER),
            has_said_goodbye: AtomicBool::new(false),
            is_left_unanswered: AtomicBool::new(false),
            has_departed: AtomicBool::new(false),
            heartbeat_nanos: AtomicU64::new(NEVER),
            bytes: Default::default(),
            last_command: AtomicU16::new(NO_COMMAND),
            facts: Mutex::new(ConnectionFacts {
                owner,
                server_side: None,
                driver: None,
                server_connection_id: None,
                mechanism: None,
                user: None,
                compressor: None,
                opaque: None,
                traits: Traits::default(),
                membership: Membership::Outside,
            }),
        }
    }

    /// The state as the tracker told it.
    pub(super) fn state(&self) -> State {
        State::ALL
            .get(usize::from(self.state.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or(State::Connecting)
    }

    pub(super) fn state_since(&self) -> Timestamp {
        Timestamp::from_nanos(self.state_since.load(Ordering::Relaxed))
    }

    /// The role as the tracker told it.
    pub(super) fn told_role(&self) -> Role {
        Role::ALL
            .get(usize::from(self.told_role.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn set_told_role(&self, role: Role) {
        self.told_role.store(role as u8, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The state or the requests in flight changed; gives the busy time that ended with it.
    pub(super) fn activity_changed(&self, at: Timestamp, state: State, in_flight: u32) -> Duration {
        if self.state.swap(state as u8, Ordering::Relaxed) != state as u8 {
            self.state_since.store(at.as_nanos(), Ordering::Relaxed);
        }
        let before = self.in_flight.swap(in_flight, Ordering::Relaxed);
        match (before, in_flight) {
            (0, 1..) => {
                self.busy_since.store(at.as_nanos(), Ordering::Relaxed);
                Duration::ZERO
            }
            (1.., 0) => self.stop_being_busy(at),
            (0, 0) | (1.., 1..) => Duration::ZERO,
        }
    }

    /// Ends the running busy time and gives its length.
    pub(super) fn stop_being_busy(&self, at: Timestamp) -> Duration {
        match self.busy_since.swap(NEVER, Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            since => {
                let busy = at.since(Timestamp::from_nanos(since));
                self.busy_nanos
                    .fetch_add(super::latency::nanos(busy), Ordering::Relaxed);
                busy
            }
        }
    }

    /// Length of the busy time that is still running.
    pub(super) fn busy_for(&self, at: Timestamp) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            since => at.since(Timestamp::from_nanos(since)),
        }
    }

    pub(super) fn last_activity(&self) -> Timestamp {
        let [to_server, to_client] = self.last_moments();
        to_server.max(to_client)
    }

    /// When the last bytes to the server and to the client were forwarded.
    fn last_moments(&self) -> [Timestamp; 2] {
        [&self.last_bytes[0], &self.last_bytes[1]]
            .map(|at| Timestamp::from_nanos(at.load(Ordering::Relaxed)))
    }

    pub(super) fn active_at(&self, direction: Direction, at: Timestamp) {
        self.last_bytes[direction.index()].store(at.as_nanos(), Ordering::Relaxed);
    }

    /// Its counters at this moment.
    pub(super) fn sample(&self) -> Sample {
        let [from_client_at, from_server_at] = self.last_moments();
        let busy_since = match self.busy_since.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(Timestamp::from_nanos(since)),
        };
        Sample {
            requests: self.requests.load(Ordering::Relaxed),
            operations: self.operations.load(Ordering::Relaxed),
            in_flight: self.in_flight(),
            busy_since,
            busy: Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed)),
            from_client_at,
            from_server_at,
            request_id: self.last_request_id.load(Ordering::Relaxed),
            tcp: *lock(&self.tcp),
        }
    }

    /// Its counters, when they changed since this was asked last.
    pub(super) fn changed_sample(&self) -> Option<Sample> {
        if self.is_end_told.load(Ordering::Relaxed) {
            return None;
        }
        let sample = self.sample();
        let mut hasher = std::hash::DefaultHasher::new();
        let mut told = sample;
        for state in told.tcp.iter_mut().flatten() {
            // The time since an acknowledgement grows on every idle socket; it says something where one is awaited.
            if state.unacked == 0 {
                state.since_ack = Micros::ZERO;
            }
        }
        told.hash(&mut hasher);
        let hash = hasher.finish();
        (self.told_sample.swap(hash, Ordering::Relaxed) != hash).then_some(sample)
    }

    pub(super) fn request_seen(&self, command: Command, request_id: i32) {
        self.last_request_id.store(request_id, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        if command != Command::Hello && !command.is_authentication() {
            self.operations.fetch_add(1, Ordering::Relaxed);
        }
        if command == Command::EndSessions {
            self.has_said_goodbye.store(true, Ordering::Relaxed);
        }
        let index = u16::try_from(command.index()).unwrap_or(NO_COMMAND);
        self.last_command.store(index, Ordering::Relaxed);
    }

    pub(super) fn last_command(&self) -> Option<Command> {
        Command::ALL
            .get(usize::from(self.last_command.load(Ordering::Relaxed)))
            .copied()
    }

    /// A plain hello was answered; the first one counts.
    pub(super) fn hello_answered(&self, at: Timestamp) {
        if self.answered_at.load(Ordering::Relaxed) == NEVER {
            self.answered_at.store(at.as_nanos(), Ordering::Relaxed);
        }
    }

    pub(super) fn set_heartbeat(&self, interval: Duration) {
        let nanos = super::latency::nanos(interval);
        self.heartbeat_nanos.store(nanos, Ordering::Relaxed);
    }

    /// The interval it told as a streaming monitor.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        match self.heartbeat_nanos.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// It was found to belong to the pool of its owner, or not to, when `told` was what its own traffic proved:
    /// counted as opened there once, and as closed should it prove to be a monitor after all. Neither counter ever
    /// falls, and their difference is the number of open connections found to belong to the pool.
    ///
    /// Pictures are taken side by side, so a finding may be older than what was counted: one whose ground has
    /// changed is ignored, and that nothing was known yet takes nothing back.
    ///
    /// True when it is counted as open there.
    pub(super) fn found_pooled(&self, is_pooled: bool, told: Role) -> bool {
        let mut facts = lock(&self.facts);
        if self.told_role() == told {
            match (facts.membership, is_pooled) {
                (Membership::Outside, true) => self.join_pool(&mut facts),
                (Membership::Inside, false) if told != Role::Unknown => self.leave_pool(&mut facts),
                (Membership::Outside, false) | (Membership::Inside | Membership::Over, _) => {}
            }
        }
        facts.membership == Membership::Inside
    }

    /// Its client closed it: what the server still says tells nobody anything.
    pub(super) fn left_by_client(&self) {
        if !self.is_answered() {
            self.is_left_unanswered.store(true, Ordering::Relaxed);
        }
    }

    /// It ended for its client; true when that is news.
    pub(super) fn depart(&self) -> bool {
        !self.has_departed.swap(true, Ordering::Relaxed)
    }

    /// It ended for its client, whose other connections are no siblings of it any more.
    pub(super) fn has_departed(&self) -> bool {
        self.has_departed.load(Ordering::Relaxed)
    }

    /// It ended, and was or was not pooled for good.
    pub(super) fn ended_pooled(&self, is_pooled: bool) {
        let mut facts = lock(&self.facts);
        if facts.membership == Membership::Outside && is_pooled {
            self.join_pool(&mut facts);
        }
        if facts.membership == Membership::Inside {
            self.leave_pool(&mut facts);
        }
        facts.membership = Membership::Over;
    }

    fn join_pool(&self, facts: &mut ConnectionFacts) {
        facts.membership = Membership::Inside;
        self.was_found_pooled.store(true, Ordering::Relaxed);
        facts.owner.pooled_opened.fetch_add(1, Ordering::Relaxed);
    }

    fn leave_pool(&self, facts: &mut ConnectionFacts) {
        facts.membership = Membership::Outside;
        self.was_found_pooled.store(false, Ordering::Relaxed);
        facts.owner.pooled_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// What the decision about roles needs to know of it.
    pub(super) fn sibling(&self) -> Sibling {
        let traits = lock(&self.facts).traits;
        self.sibling_with(traits)
    }

    /// Its first hello was answered while its client was there, and what follows is read: of what is not decoded,
    /// silence says nothing.
    fn is_answered(&self) -> bool {
        let state = self.state();
        !self.is_left_unanswered.load(Ordering::Relaxed)
            && !matches!(
                state,
                State::Connecting | State::Handshaking | State::Opaque
            )
    }

    pub(super) fn sibling_with(&self, traits: Traits) -> Sibling {
        Sibling {
            id: self.id,
            opened_at: self.opened_at,
            told: self.told_role(),
            is_answered: self.is_answered(),
            answered_at: match self.answered_at.load(Ordering::Relaxed) {
                NEVER => None,
                nanos => Some(Timestamp::from_nanos(nanos)),
            },
            was_found_pooled: self.was_found_pooled.load(Ordering::Relaxed),
            has_worked: traits.has_authenticated || self.operations.load(Ordering::Relaxed) > 0,
            has_said_goodbye: self.has_said_goodbye.load(Ordering::Relaxed),
            is_cut: false,
            heartbeat: self.heartbeat(),
            traits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_states_and_roles_are_their_positions() {
        for (position, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, position);
        }
        for (position, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, position);
        }
    }
}
