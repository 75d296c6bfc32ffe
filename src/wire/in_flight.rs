//! A message between its header and its end.

use super::body::Body;
use super::token::{Carry, Input};
use super::unpack::{Failure, Unpack};
use super::{
    Compressor, DecoderLimits, Direction, HEADER_LEN, Header, MESSAGE_LEN_MAX, Message, OpCode,
    Scratch, WireError,
};

/// The envelope of an `OP_COMPRESSED`.
///
/// ```text
/// offset  width  field
///      0      4  originalOpcode
///      4      4  uncompressedSize, of the body without its header
///      8      1  compressorId
///      9      …  the compressed body
/// ```
///
/// Source: specifications repository, `compression/OP_COMPRESSED.md` § `OP_COMPRESSED`.
#[derive(Debug)]
enum Envelope {
    /// Its nine bytes are incomplete.
    Head(Carry),
    Open(Unpack),
}

/// What is known of a message so far.
#[derive(Debug)]
pub(super) struct InFlight {
    header: Header,
    /// Where the header begins in its direction.
    offset: u64,
    /// Bytes of the body that were not seen.
    left: usize,
    direction: Direction,
    limits: DecoderLimits,
    opcode: OpCode,
    compressor: Option<Compressor>,
    body: Body,
    envelope: Option<Envelope>,
}

impl InFlight {
    /// A message whose `header` was found at `offset` of its direction.
    pub(super) fn new(
        header: Header,
        offset: u64,
        direction: Direction,
        limits: DecoderLimits,
    ) -> Self {
        let len = usize::try_from(header.message_len).unwrap_or(usize::MAX);
        let left = len.saturating_sub(HEADER_LEN);
        let is_capturing = len <= limits.capture_limit_bytes;
        Self {
            header,
            offset,
            left,
            direction,
            limits,
            opcode: header.opcode,
            compressor: None,
            body: Body::new(header.opcode, direction, left, is_capturing),
            envelope: (header.opcode == OpCode::Compressed).then(|| Envelope::Head(Carry::new())),
        }
    }

    /// Bytes of the body that were not seen.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    /// How many of the next bytes nobody needs to see: never the last one, which ends the message.
    pub(super) fn skippable(&self) -> usize {
        let before_last = self.left.saturating_sub(1);
        match &self.envelope {
            None => self.body.skippable(self.left).min(before_last),
            Some(Envelope::Open(unpack)) if unpack.is_closed() => before_last,
            Some(Envelope::Open(_) | Envelope::Head(_)) => 0,
        }
    }

    /// The next `len` bytes went by unseen; at most [`Self::skippable`].
    pub(super) fn skip(&mut self, len: usize) {
        self.left = self.left.saturating_sub(len);
        if self.envelope.is_none() {
            self.body.skip(len);
        }
    }

    /// Reads `piece`, the next bytes of the body and none beyond it.
    pub(super) fn push(&mut self, piece: &[u8], scratch: &mut Scratch) -> Result<(), WireError> {
        self.left = self.left.saturating_sub(piece.len());
        match &mut self.envelope {
            None => self.body.push(piece).map_err(|fault| {
                let pos = HEADER_LEN.saturating_add(fault.pos);
                self.malformed(fault.what, pos)
            }),
            Some(Envelope::Open(unpack)) => {
                unpack.push(piece, &mut self.body, scratch);
                Ok(())
            }
            Some(Envelope::Head(carry)) => {
                let mut input = Input::new(piece, 0, piece.len());
                let Some(head) = carry.array::<9>(&mut input) else {
                    return Ok(());
                };
                let mut unpack = self.open(head, scratch)?;
                unpack.push(input.rest(), &mut self.body, scratch);
                self.envelope = Some(Envelope::Open(unpack));
                Ok(())
            }
        }
    }

    /// Reads the head of the envelope and gets ready for what is in it.
    fn open(&mut self, head: [u8; 9], scratch: &mut Scratch) -> Result<Unpack, WireError> {
        let [o0, o1, o2, o3, s0, s1, s2, s3, id] = head;
        self.opcode = OpCode::from_wire(i32::from_le_bytes([o0, o1, o2, o3]));
        if self.opcode == OpCode::Compressed {
            return Err(self.malformed("envelope in an envelope", HEADER_LEN));
        }
        // A server refuses what would be longer than a message may be.
        let len_max = usize::try_from(MESSAGE_LEN_MAX).unwrap_or(usize::MAX);
        let stated_len = usize::try_from(i32::from_le_bytes([s0, s1, s2, s3]))
            .ok()
            .filter(|len| len.saturating_add(HEADER_LEN) <= len_max)
            .ok_or_else(|| self.malformed("uncompressed size", HEADER_LEN.saturating_add(4)))?;
        let compressor = Compressor::from_wire(id).ok_or(WireError::Compression {
            compressor: "unknown",
            offset: self.offset,
        })?;
        self.compressor = Some(compressor);
        let is_capturing = stated_len.saturating_add(HEADER_LEN) <= self.limits.capture_limit_bytes;
        self.body = Body::new(self.opcode, self.direction, stated_len, is_capturing);
        if self.body.is_settled() {
            return Ok(Unpack::closed());
        }
        Ok(Unpack::new(
            compressor,
            stated_len,
            self.limits.inflate_limit_bytes,
            scratch,
        ))
    }

    /// Keeps what must outlive `piece`, the bytes pushed last, because the message goes on.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        if self.envelope.is_none() {
            self.body.keep(piece);
        }
    }

    /// The message ended with `piece`, the bytes pushed last.
    pub(super) fn finish<'a>(
        &'a mut self,
        piece: &'a [u8],
        scratch: &mut Scratch,
    ) -> Result<Message<'a>, WireError> {
        let (result, piece) = match &mut self.envelope {
            None => (self.body.finish().map_err(Failure::Malformed), piece),
            Some(Envelope::Open(unpack)) => (unpack.finish(&mut self.body, scratch), &[][..]),
            Some(Envelope::Head(_)) => return Err(self.malformed("envelope", HEADER_LEN)),
        };
        if let Err(failure) = result {
            return Err(self.failure(failure));
        }
        let flags = self.body.flags();
        Ok(Message {
            header: self.header,
            opcode: self.opcode,
            compressor: self.compressor,
            more_to_come: flags.is_more_to_come(),
            exhaust_allowed: flags.is_exhaust_allowed(),
            checksum_present: flags.is_checksum_present(),
            content: self.body.content(piece),
        })
    }

    /// Heap bytes held, besides the message's own fixed part.
    pub(super) fn held_bytes(&self) -> usize {
        let unpacking = match &self.envelope {
            Some(Envelope::Open(unpack)) => unpack.held_bytes(),
            Some(Envelope::Head(_)) | None => 0,
        };
        self.body.held_bytes().saturating_add(unpacking)
    }

    fn failure(&self, failure: Failure) -> WireError {
        match (failure, self.compressor) {
            (Failure::Malformed(fault), None) => {
                self.malformed(fault.what, HEADER_LEN.saturating_add(fault.pos))
            }
            // A position among uncompressed bytes is none in the direction: the message's own is.
            (Failure::Malformed(fault), Some(_)) => self.malformed(fault.what, 0),
            (Failure::Broken, compressor) => WireError::Compression {
                compressor: compressor.map_or("unknown", Compressor::label),
                offset: self.offset,
            },
        }
    }

    /// A fault `pos` bytes behind the beginning of the header.
    fn malformed(&self, what: &'static str, pos: usize) -> WireError {
        let pos = u64::try_from(pos).unwrap_or(u64::MAX);
        WireError::Malformed {
            what,
            offset: self.offset.saturating_add(pos),
        }
    }
}
