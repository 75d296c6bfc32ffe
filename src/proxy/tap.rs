//! What looks at the bytes after they were forwarded.
//!
//! The tap owns the connection's tracker and recorder. A panic while looking makes the connection opaque;
//! counting of bytes and of the ending goes on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::budget::{Budget, thread_time};
use super::relay::Watcher;
use super::tcp_info;
use crate::clients::{ConnectionId, DialFailure, Recorder};
use crate::connection::{Initiator, Manner, OpaqueReason, Phase, Tracker};
use crate::metrics::Health;
use crate::time::Timestamp;
use crate::wire::{Direction, Scratch};

/// One chunk in so many is measured for the forward delay and the cost of looking. An odd number: requests and replies
/// take turns, and every second chunk would always be of the same direction.
const SAMPLE_EVERY: u32 = 17;

thread_local! {
    /// What opens compressed messages, lent to whichever connection of the thread is looked at. A panic leaves it
    /// usable: what was taken out of it is dropped, and nothing borrows it beyond one look.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Looks at one connection.
#[derive(Debug)]
pub(super) struct Tap {
    /// `None` after a panic: its state cannot be trusted.
    tracker: Option<Tracker>,
    recorder: Recorder,
    health: Arc<Health>,
    budget: Budget,
    chunks: u32,
    is_failure_counted: bool,
}

impl Tap {
    pub(super) fn new(recorder: Recorder, opened_at: Timestamp, shared: &Shared) -> Self {
        Self {
            tracker: Some(Tracker::new(opened_at, shared.decoder_limits)),
            recorder,
            health: Arc::clone(&shared.health),
            budget: Budget::new(shared.observe_budget),
            chunks: 0,
            is_failure_counted: false,
        }
    }

    pub(super) fn dialled(
        &mut self,
        at: Timestamp,
        took: Duration,
        server_side: Option<SocketAddr>,
    ) {
        self.recorder.dialled(at, took, server_side);
        self.look(at, |tracker, recorder| tracker.dialled(at, recorder));
    }

    /// The client closes its side although the server is still dialled.
    pub(super) fn left_while_dialling(&mut self, at: Timestamp) {
        self.recorder.left_while_dialling(at);
    }

    /// The connection's number.
    pub(super) fn id(&self) -> ConnectionId {
        self.recorder.id()
    }

    /// A request is unanswered: what happens on the sockets matters now.
    pub(super) fn is_busy(&self) -> bool {
        self.recorder.is_busy()
    }

    /// Asks the kernel about the client's socket and the server's.
    pub(super) fn sample(&self, sockets: [BorrowedFd<'_>; 2]) {
        let states = sockets.map(tcp_info::tcp_state);
        if states.iter().any(Option::is_some) {
            self.recorder
                .sockets_told(states.map(Option::unwrap_or_default));
        }
    }

    pub(super) fn dial_failed(&mut self, at: Timestamp, failure: DialFailure) {
        self.recorder.dial_failed(at, failure);
    }

    /// Closes the books.
    pub(super) fn ended(
        mut self,
        initiator: Initiator,
        manner: Manner,
        at: Timestamp,
        peer: SocketAddr,
    ) {
        let mut ending = crate::connection::Ending {
            initiator,
            manner,
            phase: Phase::Opaque,
            after_failed_authentication: false,
        };
        self.look(at, |tracker, recorder| {
            ending = tracker.ended(initiator, manner, at, recorder);
        });
        tracing::debug!(
            conn = self.recorder.id().0,
            %peer,
            initiator = ending.initiator.label(),
            manner = ending.manner.label(),
            phase = ending.phase.label(),
            "connection ended"
        );
        self.recorder.ended(ending, at);
    }

    /// Lets the tracker look, and lives through its panic.
    fn look(&mut self, at: Timestamp, look: impl FnOnce(&mut Tracker, &mut Recorder)) {
        let Some(tracker) = self.tracker.as_mut() else {
            return;
        };
        let recorder = &mut self.recorder;
        if guarded(|| look(tracker, recorder)).is_some() {
            return;
        }
        self.tracker = None;
        // A fresh tracker tells the fact in the one way all readers of facts know.
        let mut replacement = Tracker::new(at, crate::wire::DecoderLimits::default());
        replacement.turn_opaque(OpaqueReason::Panic, at, &mut self.recorder);
    }

    /// Looks no more at this connection: the worker's time for looking is used up.
    fn shed(&mut self, at: Timestamp) {
        if self.tracker.as_ref().is_none_or(Tracker::is_opaque) {
            return;
        }
        tracing::warn!(
            conn = self.recorder.id().0,
            "connection is no longer decoded: looking took more of the worker's time than observe_budget allows"
        );
        self.look(at, |tracker, recorder| {
            tracker.turn_opaque(OpaqueReason::Budget, at, recorder);
        });
    }

    /// `len` bytes passed; counted when nobody looked at them. Bytes that need not be seen are among them once the
    /// other direction has made the connection opaque.
    fn count_unobserved(&mut self, direction: Direction, len: u64) {
        if self.tracker.as_ref().is_none_or(Tracker::is_opaque) {
            self.health.unobserved(direction, len);
            self.count_decode_failure();
        }
    }

    fn count_decode_failure(&mut self) {
        if self.is_failure_counted {
            return;
        }
        if let Some((direction, error)) = self.tracker.as_ref().and_then(Tracker::decode_failure) {
            self.is_failure_counted = true;
            self.health.decode_failed(direction, error);
            tracing::debug!(
                conn = self.recorder.id().0,
                direction = direction.label(),
                %error,
                "connection is no longer decoded"
            );
        }
    }
}

impl Watcher for Tap {
    fn first_ended(
        &mut self,
        initiator: Initiator,
        manner: Manner,
        at: Timestamp,
        sockets: [BorrowedFd<'_>; 2],
    ) {
        let mut ending = None;
        self.look(at, |tracker, recorder| {
            ending = Some(tracker.first_ended(initiator, manner, at, recorder));
        });
        if let Some(ending) = ending {
            // A client that lost patience with a path and one that lost it with the server differ in nothing else.
            self.sample(sockets);
            self.recorder.first_ended(ending, at);
        }
    }

    fn saw(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        read_at: Timestamp,
        written_at: Timestamp,
    ) {
        self.chunks = self.chunks.wrapping_add(1);
        let before = self.chunks.is_multiple_of(SAMPLE_EVERY).then(thread_time);
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.recorder.bytes_forwarded(direction, len, written_at);
        self.look(written_at, |tracker, recorder| {
            SCRATCH.with_borrow_mut(|scratch| {
                tracker.chunk(direction, bytes, read_at, written_at, recorder, scratch);
            });
        });
        self.count_unobserved(direction, len);
        if let Some(before) = before {
            let looked = thread_time().saturating_sub(before) * SAMPLE_EVERY;
            self.health.forwarded(direction, written_at.since(read_at));
            self.health.observed_for(looked);
            if self.budget.is_exceeded_by(looked, written_at) {
                self.shed(written_at);
            }
        }
    }

    fn skippable(&self, direction: Direction) -> usize {
        self.tracker
            .as_ref()
            .map_or(0, |tracker| tracker.skippable(direction))
    }

    fn skipped(&mut self, direction: Direction, count: usize, written_at: Timestamp) {
        let len = u64::try_from(count).unwrap_or(u64::MAX);
        self.recorder.bytes_forwarded(direction, len, written_at);
        self.look(written_at, |tracker, recorder| {
            tracker.skip(direction, count, written_at, recorder);
        });
        self.count_unobserved(direction, len);
    }

    fn drain_called(&mut self, at: Timestamp) {
        self.look(at, |tracker, recorder| tracker.start_draining(at, recorder));
    }

    fn is_at_rest(&self) -> bool {
        self.tracker.as_ref().is_some_and(Tracker::is_at_rest)
    }
}

/// Runs `look`; `None` when it panicked.
fn guarded<R>(look: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(look)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{Directory, DirectoryLimits, UpstreamId, UpstreamSpec};
    use crate::wire::DecoderLimits;

    fn tap(health: &Arc<Health>) -> Tap {
        let limits = DirectoryLimits {
            clients_max: 10,
            client_ttl: Duration::from_mins(1),
        };
        let upstream = UpstreamSpec {
            name: "db".to_owned(),
            listen: "127.0.0.1:1".to_owned(),
            address: "127.0.0.1:2".to_owned(),
            advertised: Vec::new(),
        };
        let directory = Arc::new(Directory::new(limits, vec![upstream]));
        let opened_at = Timestamp::from_nanos(1_000_000_000);
        let peer = "10.0.0.1:1".parse().unwrap();
        Tap {
            tracker: Some(Tracker::new(opened_at, DecoderLimits::default())),
            recorder: directory.open(UpstreamId(0), peer, opened_at),
            health: Arc::clone(health),
            budget: Budget::new(None),
            chunks: 0,
            is_failure_counted: false,
        }
    }

    #[test]
    fn bytes_that_need_not_be_seen_are_unobserved_once_nobody_looks() {
        let health = Arc::new(Health::new());
        let mut tap = tap(&health);
        let at = Timestamp::from_nanos(2_000_000_000);
        let unobserved = || -> Vec<u64> {
            let counts = health.unobserved_bytes();
            counts.map(|(_, bytes)| bytes).collect()
        };
        // The head of a long OP_INSERT, whose documents nobody needs to see.
        let mut head = Vec::new();
        for word in [1_000_000_i32, 1, 0, 2002] {
            head.extend(word.to_le_bytes());
        }
        tap.saw(Direction::ToServer, &head, at, at);
        assert!(tap.skippable(Direction::ToServer) >= 100);
        tap.skipped(Direction::ToServer, 40, at);
        assert_eq!(unobserved(), [0, 0]);
        // No message is as long: the server's bytes are none.
        tap.saw(Direction::ToClient, &[0x7f; 16], at, at);
        tap.skipped(Direction::ToServer, 60, at);
        assert_eq!(unobserved(), [60, 16]);
    }

    #[test]
    fn the_delay_of_both_directions_is_sampled_where_they_take_turns() {
        let health = Arc::new(Health::new());
        let mut tap = tap(&health);
        let at = Timestamp::from_nanos(2_000_000_000);
        for _ in 0..4 * SAMPLE_EVERY {
            tap.saw(Direction::ToServer, &[0; 4], at, at);
            tap.saw(Direction::ToClient, &[0; 4], at, at);
        }
        let sampled: Vec<u64> = health
            .forward_delays()
            .map(|(_, delays)| delays.count)
            .collect();
        assert_eq!(sampled, [4, 4]);
    }

    #[test]
    fn a_panic_is_an_answer_like_any_other() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("broken decoder") }), None);
    }
}
