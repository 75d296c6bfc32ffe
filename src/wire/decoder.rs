//! One direction of a connection: chunks in, messages out.
//!
//! ```text
//!            16 bytes                        last byte
//! header ───────────────▶ message in flight ───────────▶ header …
//!    │ impossible              │ broken
//!    └────────────▶ failed ◀───┘     (for good; nothing is looked at any more)
//! ```
//!
//! A message that lies in one chunk is read in place: nothing is copied or allocated. Between messages a decoder
//! holds no heap memory at all.

use super::in_flight::InFlight;
use super::unpack;
use super::{Direction, HEADER_LEN, Header, MESSAGE_LEN_MAX, OpCode, Scratch, Sink, WireError};

/// What a decoder may spend on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Longest message, in bytes before compression and with its header, whose document is shown whole.
    pub capture_limit_bytes: usize,
    /// Bytes that may come out of one compressed message.
    pub inflate_limit_bytes: usize,
}

impl Default for DecoderLimits {
    /// 16 KiB, enough for every handshake and authentication, and 1 MiB.
    fn default() -> Self {
        Self {
            capture_limit_bytes: 16 * 1024,
            inflate_limit_bytes: 1024 * 1024,
        }
    }
}

impl DecoderLimits {
    /// The most that [`Decoder::held_bytes`] ever says: a document under capture, and the state of a
    /// decompressor with its window, whose pages are touched only as far as bytes come out.
    pub const fn held_bytes_max(self) -> usize {
        self.capture_limit_bytes
            .saturating_add(unpack::HELD_BYTES_MAX)
            .saturating_add(size_of::<InFlight>())
    }
}

/// Decodes one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    direction: Direction,
    limits: DecoderLimits,
    bytes_seen: u64,
    header: [u8; HEADER_LEN],
    header_len: u8,
    /// A header was accepted, so the direction speaks the protocol.
    is_recognised: bool,
    /// Rarely there, so it must not make every decoder larger.
    failure: Option<Box<WireError>>,
    in_flight: Option<Box<InFlight>>,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new(direction: Direction, limits: DecoderLimits) -> Self {
        Self {
            direction,
            limits,
            bytes_seen: 0,
            header: [0; HEADER_LEN],
            header_len: 0,
            is_recognised: false,
            failure: None,
            in_flight: None,
        }
    }

    /// Decodes the next bytes of the direction and shows `sink` what begins and ends in them.
    ///
    /// Fails when the bytes cannot be a message; every later call then returns the same error without looking.
    pub fn push(&mut self, chunk: &[u8], sink: &mut impl Sink) -> Result<(), WireError> {
        self.push_with(chunk, sink, &mut Scratch::default())
    }

    /// Does the same with memory that is lent for the call.
    pub fn push_with(
        &mut self,
        chunk: &[u8],
        sink: &mut impl Sink,
        scratch: &mut Scratch,
    ) -> Result<(), WireError> {
        let offset = self.bytes_seen;
        self.bytes_seen = offset.saturating_add(to_u64(chunk.len()));
        if let Some(failure) = self.failure.as_deref() {
            return Err(*failure);
        }
        let result = self.decode(chunk, offset, sink, scratch);
        if let Err(failure) = result {
            self.failure = Some(Box::new(failure));
            self.in_flight = None;
            self.header_len = 0;
        }
        result
    }

    /// How many of the next bytes nobody needs to see: they lie in a value of no interest, or behind all that is
    /// of interest in their message. They may be moved without entering this process, and told by [`Self::skip`].
    pub fn skippable(&self) -> usize {
        self.in_flight
            .as_ref()
            .map_or(0, |message| message.skippable())
    }

    /// The next `len` bytes went by unseen.
    ///
    /// More than [`Self::skippable`] are a mistake of the caller: nothing that follows could be read, so the
    /// direction fails.
    pub fn skip(&mut self, len: usize) -> Result<(), WireError> {
        let offset = self.bytes_seen;
        self.bytes_seen = offset.saturating_add(to_u64(len));
        if let Some(failure) = self.failure.as_deref() {
            return Err(*failure);
        }
        match self.in_flight.as_mut() {
            Some(message) if len <= message.skippable() => {
                message.skip(len);
                Ok(())
            }
            _ => {
                let failure = WireError::Malformed {
                    what: "skipped bytes",
                    offset,
                };
                self.failure = Some(Box::new(failure));
                self.in_flight = None;
                Err(failure)
            }
        }
    }

    /// Whether a message began and has not ended.
    pub fn is_mid_message(&self) -> bool {
        self.header_len > 0 || self.in_flight.is_some()
    }

    /// Bytes pushed so far, also after a failure.
    pub fn bytes_seen(&self) -> u64 {
        self.bytes_seen
    }

    /// Heap bytes held: 0 between messages, at most [`DecoderLimits::held_bytes_max`].
    pub fn held_bytes(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |message| {
            message.held_bytes().saturating_add(size_of::<InFlight>())
        })
    }

    fn decode(
        &mut self,
        chunk: &[u8],
        mut offset: u64,
        sink: &mut impl Sink,
        scratch: &mut Scratch,
    ) -> Result<(), WireError> {
        let mut rest = chunk;
        if let Some(mut message) = self.in_flight.take() {
            let (piece, behind) = rest.split_at(message.left().min(rest.len()));
            message.push(piece, scratch)?;
            if message.left() > 0 {
                message.keep(piece);
                self.in_flight = Some(message);
                return Ok(());
            }
            sink.message_ended(&message.finish(piece, scratch)?);
            rest = behind;
            offset = offset.saturating_add(to_u64(piece.len()));
        }
        while let Some((bytes, behind)) = self.take_header(rest) {
            offset = offset.saturating_add(to_u64(rest.len().saturating_sub(behind.len())));
            let start = offset.saturating_sub(to_u64(HEADER_LEN));
            let header = self.check_header(&bytes, start)?;
            sink.message_started(&header);
            let mut message = InFlight::new(header, start, self.direction, self.limits);
            let (piece, behind) = behind.split_at(message.left().min(behind.len()));
            message.push(piece, scratch)?;
            if message.left() > 0 {
                message.keep(piece);
                self.in_flight = Some(Box::new(message));
                return Ok(());
            }
            sink.message_ended(&message.finish(piece, scratch)?);
            rest = behind;
            offset = offset.saturating_add(to_u64(piece.len()));
        }
        Ok(())
    }

    /// The next header and what is behind it; keeps the beginning of an incomplete one.
    #[inline]
    fn take_header<'a>(&mut self, rest: &'a [u8]) -> Option<([u8; HEADER_LEN], &'a [u8])> {
        if self.header_len == 0
            && let Some((header, behind)) = rest.split_first_chunk()
        {
            return Some((*header, behind));
        }
        if rest.is_empty() {
            return None;
        }
        let room = self
            .header
            .get_mut(usize::from(self.header_len)..)
            .unwrap_or_default();
        let count = room.len().min(rest.len());
        let (part, behind) = rest.split_at(count);
        for (slot, byte) in room.iter_mut().zip(part) {
            *slot = *byte;
        }
        if count < room.len() {
            self.header_len = self
                .header_len
                .saturating_add(u8::try_from(count).unwrap_or(u8::MAX));
            return None;
        }
        self.header_len = 0;
        Some((self.header, behind))
    }

    /// The header in `bytes`, which began at `offset`, if it can be one.
    #[inline]
    fn check_header(&mut self, bytes: &[u8; HEADER_LEN], offset: u64) -> Result<Header, WireError> {
        let header = parse_header(bytes);
        if self.is_recognised {
            return header.map_err(|message_len| WireError::MessageLength {
                message_len,
                offset,
            });
        }
        match header {
            Ok(header) if header.opcode.is_known() => {
                self.is_recognised = true;
                Ok(header)
            }
            Ok(_) | Err(_) => Err(unrecognised(bytes)),
        }
    }
}

/// The fields of a header, or the length that no message can have.
///
/// Source of the limits: measured on mongod 6.0.5, which ends the connection over a length below 16 or above
/// 48,000,000.
fn parse_header(bytes: &[u8; HEADER_LEN]) -> Result<Header, i32> {
    let [message_len, request_id, response_to, opcode] = words(bytes);
    let len = u32::try_from(message_len)
        .ok()
        .filter(|len| (to_u32(HEADER_LEN)..=MESSAGE_LEN_MAX).contains(len))
        .ok_or(message_len)?;
    Ok(Header {
        message_len: len,
        request_id,
        response_to,
        opcode: OpCode::from_wire(opcode),
    })
}

/// What the first bytes of a direction are when they are no header.
fn unrecognised(bytes: &[u8; HEADER_LEN]) -> WireError {
    // A TLS record: content type 22, handshake, and major version 3 (RFC 8446 § 5.1).
    if bytes.starts_with(&[0x16, 0x03]) {
        return WireError::Tls;
    }
    let [message_len, _, _, opcode] = words(bytes);
    WireError::UnknownProtocol {
        message_len,
        opcode,
    }
}

fn words(bytes: &[u8; HEADER_LEN]) -> [i32; 4] {
    let (words, _) = bytes.as_chunks::<4>();
    let mut fields = [0; 4];
    for (field, word) in fields.iter_mut().zip(words) {
        *field = i32::from_le_bytes(*word);
    }
    fields
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
