//! One connection of a capture: what is on the wire, told as a proxy would tell it.
//!
//! ```text
//! SYN ─────────▶ opened          SYN, SYN again, nothing ─▶ dial timed out
//! SYN+ACK ─────▶ dialled         RST instead ─────────────▶ refused
//! data ────────▶ chunk, or, where packets are missing, skipped or opaque
//! FIN ─────────▶ who closed first, told at once; ended when both have, as half-closes may last
//! RST ─────────▶ ended
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::segment::Segment;
use super::sender::Sender;
use super::servers::begins_message;
use super::stream::{Data, Piece, Stream};
use crate::clients::{DialFailure, Recorder};
use crate::connection::{Ending, Initiator, Manner, OpaqueReason, Phase, Tracker};
use crate::time::Timestamp;
use crate::timeline::TcpState;
use crate::wire::{DecoderLimits, Direction, Scratch};

/// A server that has not answered for so long will not: the time after which a proxy gives up by default.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Segments in which the first message of a connection that was open before is looked for.
const SEARCHED_MAX: u32 = 256;

/// Half a connection may stay open for so long without a byte; then its end was not captured.
const HALF_OPEN_LIMIT: Duration = Duration::from_mins(10);

/// A connection that is over is remembered for so long, so that its last packets are not taken for a new one.
const REMEMBERED: Duration = Duration::from_mins(1);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scratch: Scratch,
    /// Bytes that may still be held out of order.
    pub(super) room: usize,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Flow {
    life: Option<Life>,
    streams: [Stream; 2],
    senders: [Sender; 2],
    opened_at: Timestamp,
    last_at: Timestamp,
    /// Number of the client's SYN.
    first_sequence: Option<u32>,
    is_dialled: bool,
}

/// What is told of a connection, until its end.
#[derive(Debug)]
struct Life {
    /// `None` after a panic.
    tracker: Option<Tracker>,
    recorder: Recorder,
    /// Which directions have not shown a message yet, because their beginning was not captured.
    is_searching: [bool; 2],
    searched: u32,
    has_holes: bool,
    first_end: Option<(Initiator, Manner, Timestamp)>,
    is_first_end_told: bool,
    has_finished: [bool; 2],
}

impl Flow {
    /// A connection of which `segment` is the first that was captured.
    pub(super) fn new(
        segment: &Segment<'_>,
        direction: Direction,
        recorder: Recorder,
        at: Timestamp,
    ) -> Self {
        let mut flow = Self {
            life: Some(Life {
                tracker: Some(Tracker::new(at, DecoderLimits::default())),
                recorder,
                is_searching: [!segment.syn; 2],
                searched: 0,
                has_holes: false,
                first_end: None,
                is_first_end_told: false,
                has_finished: [false; 2],
            }),
            streams: Default::default(),
            senders: Default::default(),
            opened_at: at,
            last_at: at,
            first_sequence: (segment.syn && direction == Direction::ToServer)
                .then_some(segment.sequence),
            is_dialled: false,
        };
        if !segment.syn {
            flow.dialled(at, Duration::ZERO);
        }
        flow
    }

    /// Whether `segment` begins another connection between the same ends.
    pub(super) fn is_other(&self, segment: &Segment<'_>, direction: Direction) -> bool {
        segment.syn
            && !segment.ack
            && direction == Direction::ToServer
            && self.first_sequence != Some(segment.sequence)
    }

    /// A segment was captured.
    pub(super) fn saw(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        at: Timestamp,
        shared: &mut Shared,
    ) {
        self.last_at = at;
        if self.life.is_none() {
            return;
        }
        if segment.rst {
            self.reset(direction, at, shared);
            return;
        }
        if segment.syn {
            self.synchronised(segment, direction, at);
        } else if !self.is_dialled && (segment.ack || segment.payload_len > 0) {
            // The answer to the SYN was not captured.
            self.dialled(at, at.since(self.opened_at));
        }
        if segment.ack {
            let other = direction.index() ^ 1;
            if let (Some(stream), Some(sender)) =
                (self.streams.get_mut(other), self.senders.get_mut(other))
            {
                stream.acknowledged(segment.acknowledged);
                sender.acknowledged(at, segment.acknowledged);
                if let Some(sequence) = segment.received_twice {
                    sender.received_twice(at, sequence);
                }
            }
        }
        if !segment.syn {
            self.data(segment, direction, at, shared);
        }
        self.wait(at, shared);
    }

    /// Time passed. False when the connection may be forgotten.
    pub(super) fn is_needed(&mut self, at: Timestamp, shared: &mut Shared) -> bool {
        if !self.is_dialled
            && at.since(self.opened_at) >= DIAL_LIMIT
            && let Some(life) = &mut self.life
        {
            life.recorder.dial_failed(at, DialFailure::Timeout);
            self.end(Initiator::Server, Manner::TimedOut, at, shared);
        }
        self.wait(at, shared);
        let silent = at.since(self.last_at);
        let Some(life) = &mut self.life else {
            return silent < REMEMBERED;
        };
        if let Some(states) = sender_states(&self.senders, at) {
            life.recorder.tcp_told(states);
        }
        if let Some((initiator, manner, ended_at)) = life.first_end
            && silent >= HALF_OPEN_LIMIT
        {
            self.end(initiator, manner, ended_at, shared);
        }
        true
    }

    /// Another connection took its place: its end, unless it began, was not captured.
    pub(super) fn replaced(mut self, shared: &mut Shared) {
        if let Some((initiator, manner, at)) = self.life.as_ref().and_then(|life| life.first_end) {
            self.end(initiator, manner, at, shared);
        }
        self.clear(shared);
    }

    /// It is still open, and packets of it are missing.
    pub(super) fn has_holes(&self) -> Option<bool> {
        self.life.as_ref().map(|life| life.has_holes)
    }

    fn synchronised(&mut self, segment: &Segment<'_>, direction: Direction, at: Timestamp) {
        let [to_server, to_client] = &mut self.streams;
        if direction == Direction::ToServer {
            to_server.begin(segment.sequence.wrapping_add(1));
        } else if segment.ack {
            to_client.begin(segment.sequence.wrapping_add(1));
            to_server.begin(segment.acknowledged);
            if !self.is_dialled {
                self.dialled(at, at.since(self.opened_at));
            }
        }
    }

    fn dialled(&mut self, at: Timestamp, took: Duration) {
        self.is_dialled = true;
        if let Some(life) = &mut self.life {
            life.recorder.dialled(at, took, None);
            life.look(at, |tracker, recorder| tracker.dialled(at, recorder));
        }
    }

    fn data(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        at: Timestamp,
        shared: &mut Shared,
    ) {
        let index = direction.index();
        let (Some(stream), Some(sender), Some(life)) = (
            self.streams.get_mut(index),
            self.senders.get_mut(index),
            &mut self.life,
        ) else {
            return;
        };
        if segment.payload_len > 0 {
            sender.sent(at, segment.sequence, segment.payload_len);
        }
        if segment.payload_len == 0 && !segment.fin {
            // What is acknowledged can be told only from a beginning.
            if !stream.has_begun() {
                stream.begin(segment.sequence);
            }
            return;
        }
        let bytes = if life.is_opaque() {
            &[]
        } else {
            segment.payload
        };
        let data = Data {
            at,
            sequence: segment.sequence,
            bytes,
            len: segment.payload_len,
            fin: segment.fin,
        };
        let Shared { scratch, room } = shared;
        stream.push(data, room, |at, piece| {
            life.take(direction, piece, at, scratch);
        });
        self.tell_first_end();
        self.finish_when_both_ended(shared);
    }

    fn wait(&mut self, at: Timestamp, shared: &mut Shared) {
        let Some(life) = &mut self.life else {
            return;
        };
        let Shared { scratch, room } = &mut *shared;
        for (stream, direction) in self.streams.iter_mut().zip(Direction::ALL) {
            stream.wait(at, room, |at, piece| {
                life.take(direction, piece, at, scratch);
            });
        }
        self.tell_first_end();
        self.finish_when_both_ended(shared);
    }

    /// One side has nothing more to say. What it left unanswered is known in this moment only: the other side may take its
    /// time, and go on.
    fn tell_first_end(&mut self) {
        if let Some(life) = &mut self.life
            && let Some((initiator, manner, at)) = life.first_end
            && !std::mem::replace(&mut life.is_first_end_told, true)
        {
            if let Some(states) = sender_states(&self.senders, at) {
                life.recorder.tcp_told(states);
            }
            life.first_ended(initiator, manner, at);
        }
    }

    fn finish_when_both_ended(&mut self, shared: &mut Shared) {
        if let Some(life) = &self.life
            && life.has_finished == [true; 2]
            && let Some((initiator, manner, at)) = life.first_end
        {
            self.end(initiator, manner, at, shared);
        }
    }

    fn reset(&mut self, direction: Direction, at: Timestamp, shared: &mut Shared) {
        let Some(life) = &mut self.life else {
            return;
        };
        if !self.is_dialled && direction == Direction::ToClient {
            life.recorder.dial_failed(at, DialFailure::Refused);
            self.end(Initiator::Server, Manner::Refused, at, shared);
            return;
        }
        let (initiator, manner, at) =
            life.first_end
                .unwrap_or((initiator(direction), Manner::Reset, at));
        self.end(initiator, manner, at, shared);
    }

    fn end(&mut self, initiator: Initiator, manner: Manner, at: Timestamp, shared: &mut Shared) {
        if let Some(life) = self.life.take() {
            life.ended(initiator, manner, at);
        }
        self.clear(shared);
    }

    fn clear(&mut self, shared: &mut Shared) {
        for stream in &mut self.streams {
            stream.clear(&mut shared.room);
        }
    }
}

/// What the kernels of the client and of the server would tell.
fn sender_states(senders: &[Sender; 2], at: Timestamp) -> Option<[TcpState; 2]> {
    let state = |direction: Direction| {
        let sender = senders.get(direction.index());
        sender.map(|sender| sender.state(at))
    };
    Some([state(Direction::ToClient)?, state(Direction::ToServer)?])
}

impl Life {
    fn is_opaque(&self) -> bool {
        self.tracker.as_ref().is_none_or(Tracker::is_opaque)
    }

    /// Takes in what a stream gave out.
    fn take(
        &mut self,
        direction: Direction,
        piece: Piece<'_>,
        at: Timestamp,
        scratch: &mut Scratch,
    ) {
        match piece {
            Piece::Bytes(bytes) => self.bytes(direction, bytes, at, scratch),
            Piece::Lost(len) => self.lost(direction, len, at),
            Piece::Fin => {
                self.first_end
                    .get_or_insert((initiator(direction), Manner::Fin, at));
                if let Some(has_finished) = self.has_finished.get_mut(direction.index()) {
                    *has_finished = true;
                }
            }
        }
    }

    fn bytes(&mut self, direction: Direction, bytes: &[u8], at: Timestamp, scratch: &mut Scratch) {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.recorder.bytes_forwarded(direction, len, at);
        if self.is_opaque() || !self.has_found(direction, bytes, at) {
            return;
        }
        self.look(at, |tracker, recorder| {
            tracker.chunk(direction, bytes, at, at, recorder, scratch);
        });
    }

    /// Whether the direction is decoded, from these bytes on at the latest.
    fn has_found(&mut self, direction: Direction, bytes: &[u8], at: Timestamp) -> bool {
        let Some(is_searching) = self.is_searching.get_mut(direction.index()) else {
            return false;
        };
        if *is_searching && begins_message(bytes, direction) {
            *is_searching = false;
        }
        if *is_searching {
            self.searched = self.searched.saturating_add(1);
            if self.searched >= SEARCHED_MAX {
                self.turn_opaque(at);
            }
            return false;
        }
        true
    }

    /// Bytes were not captured. Within values that nobody reads that does no harm.
    fn lost(&mut self, direction: Direction, len: u64, at: Timestamp) {
        self.recorder.bytes_forwarded(direction, len, at);
        if self.is_opaque() {
            return;
        }
        self.has_holes = true;
        if self.is_searching.get(direction.index()) == Some(&true) {
            return;
        }
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        while left > 0 {
            let skippable = self
                .tracker
                .as_ref()
                .map_or(0, |tracker| tracker.skippable(direction));
            let skipped = left.min(skippable);
            if skipped == 0 {
                self.turn_opaque(at);
                return;
            }
            self.look(at, |tracker, recorder| {
                tracker.skip(direction, skipped, at, recorder);
            });
            left -= skipped;
        }
    }

    fn turn_opaque(&mut self, at: Timestamp) {
        self.look(at, |tracker, recorder| {
            tracker.turn_opaque(OpaqueReason::DecodeFailure, at, recorder);
        });
    }

    fn first_ended(&mut self, initiator: Initiator, manner: Manner, at: Timestamp) {
        let mut ending = None;
        self.look(at, |tracker, recorder| {
            ending = Some(tracker.first_ended(initiator, manner, at, recorder));
        });
        if let Some(ending) = ending {
            self.recorder.first_ended(ending, at);
        }
    }

    fn ended(mut self, initiator: Initiator, manner: Manner, at: Timestamp) {
        let mut ending = Ending {
            initiator,
            manner,
            phase: Phase::Opaque,
            after_failed_authentication: false,
        };
        self.look(at, |tracker, recorder| {
            ending = tracker.ended(initiator, manner, at, recorder);
        });
        self.recorder.ended(ending, at);
    }

    /// Lets the tracker look, and lives through its panic, as the proxy's tap does.
    fn look(&mut self, at: Timestamp, look: impl FnOnce(&mut Tracker, &mut Recorder)) {
        let Some(tracker) = self.tracker.as_mut() else {
            return;
        };
        let recorder = &mut self.recorder;
        if catch_unwind(AssertUnwindSafe(|| look(tracker, recorder))).is_ok() {
            return;
        }
        self.tracker = None;
        let mut replacement = Tracker::new(at, DecoderLimits::default());
        replacement.turn_opaque(OpaqueReason::Panic, at, &mut self.recorder);
    }
}

const fn initiator(direction: Direction) -> Initiator {
    match direction {
        Direction::ToServer => Initiator::Client,
        Direction::ToClient => Initiator::Server,
    }
}
