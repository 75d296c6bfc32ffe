//! Chunks in, facts out: the two decoders of a connection and the dialogue they feed.
//!
//! It must do no IO and read no clock. **Invariant:** whatever a peer sends, the tracker neither fails nor keeps
//! more than its decoders' limits and a bounded number of unanswered requests; a direction that cannot be decoded
//! makes the connection opaque, frees both decoders, and later chunks are not looked at.

use super::dialogue::{Dialogue, Moments};
use super::{Ending, Facts, Initiator, Manner, OpaqueReason, Phase, Role, State};
use crate::time::Timestamp;
use crate::wire::{Decoder, DecoderLimits, Direction, Header, Message, Scratch, Sink, WireError};

/// Follows one connection from accept to end.
#[derive(Debug)]
pub struct Tracker {
    /// For requests and for replies; gone once the connection is opaque.
    decoders: Option<[Decoder; 2]>,
    dialogue: Dialogue,
    /// When the first byte of the request under way was read.
    request_started_at: Timestamp,
    has_client_spoken: bool,
    failure: Option<Box<(Direction, WireError)>>,
}

impl Tracker {
    /// A connection that was accepted at `opened_at` and whose server side is being dialled.
    pub fn new(opened_at: Timestamp, limits: DecoderLimits) -> Self {
        Self {
            decoders: Some(Direction::ALL.map(|direction| Decoder::new(direction, limits))),
            dialogue: Dialogue::new(opened_at),
            request_started_at: opened_at,
            has_client_spoken: false,
            failure: None,
        }
    }

    /// The server side is connected.
    pub fn dialled(&mut self, at: Timestamp, facts: &mut impl Facts) {
        self.dialogue.dialled(at, facts);
    }

    /// A chunk was read at `read_at`, and was handed to the other side's kernel at `written_at`. What opens
    /// compressed messages is lent for the call.
    pub fn chunk(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        read_at: Timestamp,
        written_at: Timestamp,
        facts: &mut impl Facts,
        scratch: &mut Scratch,
    ) {
        if bytes.is_empty() {
            return;
        }
        self.has_client_spoken |= direction == Direction::ToServer;
        let Some([requests, replies]) = self.decoders.as_mut() else {
            return;
        };
        let decoder = match direction {
            Direction::ToServer => requests,
            Direction::ToClient => replies,
        };
        // A request that began in an earlier chunk keeps that chunk's moment.
        if direction == Direction::ToServer && !decoder.is_mid_message() {
            self.request_started_at = read_at;
        }
        let mut reading = Reading {
            dialogue: &mut self.dialogue,
            request_started_at: &mut self.request_started_at,
            direction,
            read_at,
            written_at,
            facts,
        };
        if let Err(error) = decoder.push_with(bytes, &mut reading, scratch) {
            self.failed(direction, error, written_at, facts);
        }
    }

    /// How many of the next bytes of `direction` nobody needs to see: they may pass unread, and are then told by
    /// [`Self::skip`].
    pub fn skippable(&self, direction: Direction) -> usize {
        let decoder = |decoders: &[Decoder; 2]| decoders[direction.index()].skippable();
        self.decoders.as_ref().map_or(0, decoder)
    }

    /// The next `len` bytes of `direction` passed unread; at most [`Self::skippable`].
    pub fn skip(
        &mut self,
        direction: Direction,
        len: usize,
        at: Timestamp,
        facts: &mut impl Facts,
    ) {
        let Some(decoders) = self.decoders.as_mut() else {
            return;
        };
        if let Err(error) = decoders[direction.index()].skip(len) {
            self.failed(direction, error, at, facts);
        }
    }

    /// The connection is not to be looked at any more, for a reason outside it.
    pub fn turn_opaque(&mut self, reason: OpaqueReason, at: Timestamp, facts: &mut impl Facts) {
        self.decoders = None;
        self.dialogue.turned_opaque(reason, at, facts);
    }

    /// The connection is to end at the next message boundary.
    pub fn start_draining(&mut self, at: Timestamp, facts: &mut impl Facts) {
        self.dialogue.drained(at, facts);
    }

    /// Whether the connection may be closed without harm: between messages in both directions, with no request in
    /// flight but an awaitable hello, and no authentication half done. Never true of an opaque one, of which
    /// nothing is known.
    pub fn is_at_rest(&self) -> bool {
        self.decoders.is_some() && !self.is_mid_message() && self.dialogue.is_at_rest()
    }

    /// The connection ended; tells how.
    pub fn ended(
        &mut self,
        initiator: Initiator,
        manner: Manner,
        at: Timestamp,
        facts: &mut impl Facts,
    ) -> Ending {
        let ending = self.first_ended(initiator, manner, at, facts);
        self.dialogue.ended(at, facts);
        ending
    }

    /// One side ended it; the other may still have something to say. Tells how it ended, as seen from this moment.
    pub fn first_ended(
        &mut self,
        initiator: Initiator,
        manner: Manner,
        at: Timestamp,
        facts: &mut impl Facts,
    ) -> Ending {
        let phase = self.dialogue.phase(self.is_mid_message());
        // A client that was turned away before it could speak is no probe.
        let had_its_say = phase != Phase::Dialling && initiator != Initiator::Server;
        if !self.has_client_spoken && had_its_say {
            self.dialogue.probe_seen(at, facts);
        }
        facts.left_unanswered(self.dialogue.unanswered());
        Ending {
            initiator,
            manner,
            phase,
            after_failed_authentication: self.dialogue.has_failed_authentication(),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.dialogue.state()
    }

    /// Whether it is no longer decoded.
    pub const fn is_opaque(&self) -> bool {
        self.dialogue.is_opaque()
    }

    /// What it is used for, as far as its own traffic tells.
    pub const fn role(&self) -> Role {
        self.dialogue.role()
    }

    /// Application requests sent and not fully answered.
    pub const fn in_flight(&self) -> u32 {
        self.dialogue.in_flight()
    }

    /// Requests seen.
    pub const fn requests_count(&self) -> u64 {
        self.dialogue.requests_count()
    }

    /// Where and why decoding ended, when it did.
    pub fn decode_failure(&self) -> Option<(Direction, WireError)> {
        self.failure.as_deref().copied()
    }

    fn is_mid_message(&self) -> bool {
        self.decoders.iter().flatten().any(Decoder::is_mid_message)
    }

    fn failed(
        &mut self,
        direction: Direction,
        error: WireError,
        at: Timestamp,
        facts: &mut impl Facts,
    ) {
        self.failure = Some(Box::new((direction, error)));
        let reason = match error {
            WireError::Tls => OpaqueReason::Tls,
            WireError::UnknownProtocol { .. } => OpaqueReason::UnknownProtocol,
            WireError::MessageLength { .. }
            | WireError::Malformed { .. }
            | WireError::Compression { .. } => OpaqueReason::DecodeFailure,
        };
        if reason == OpaqueReason::UnknownProtocol && direction == Direction::ToServer {
            self.dialogue.probe_seen(at, facts);
        }
        self.turn_opaque(reason, at, facts);
    }
}

/// Passes what a decoder finds in one chunk on to the dialogue, with the moments of the chunk.
struct Reading<'a, F> {
    dialogue: &'a mut Dialogue,
    request_started_at: &'a mut Timestamp,
    direction: Direction,
    read_at: Timestamp,
    written_at: Timestamp,
    facts: &'a mut F,
}

impl<F: Facts> Sink for Reading<'_, F> {
    fn message_started(&mut self, _: &Header) {}

    fn message_ended(&mut self, message: &Message<'_>) {
        let moments = Moments {
            started_at: *self.request_started_at,
            read_at: self.read_at,
            written_at: self.written_at,
        };
        self.dialogue
            .message_ended(self.direction, message, moments, self.facts);
        if self.direction == Direction::ToServer {
            // The next request of this chunk begins in it.
            *self.request_started_at = self.read_at;
        }
    }
}
