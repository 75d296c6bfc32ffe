//! Tokens that a split may cut: fixed-width numbers and keys.
//!
//! A token that lies in one piece of input is read in place; only one that is cut is carried over, and never
//! more of it than [`Carry::LEN_MAX`] bytes. What is read does not depend on where the cut is.

/// What is wrong in a message body, and where: `pos` counts from the body's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) pos: usize,
}

/// The unread part of a piece of a body, with its position in the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    rest: &'a [u8],
    /// Position behind the last byte of `rest`.
    end: usize,
}

impl<'a> Input<'a> {
    /// The bytes of `piece`, whose first byte is at `pos`, up to position `end`.
    pub(super) fn new(piece: &'a [u8], pos: usize, end: usize) -> Self {
        let rest = piece.get(..end.saturating_sub(pos)).unwrap_or(piece);
        Self {
            rest,
            end: pos.wrapping_add(rest.len()),
        }
    }

    /// Ends at position `end` already.
    pub(super) fn end_at(&mut self, end: usize) {
        *self = Self::new(self.rest, self.pos(), end);
    }

    /// Position of the next byte. Bytes that are there end where `end` says, so nothing wraps.
    #[inline]
    pub(super) const fn pos(&self) -> usize {
        self.end.wrapping_sub(self.rest.len())
    }

    /// What was not read.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes, or nothing when fewer are there.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (token, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(token)
    }

    /// The next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// As many bytes as are there, at most `len`.
    #[inline]
    fn take_up_to(&mut self, len: usize) -> &'a [u8] {
        self.take(len.min(self.rest.len())).unwrap_or_default()
    }

    /// Goes on to position `to`; false while it lies beyond the piece.
    #[inline]
    pub(super) fn skip_to(&mut self, to: usize) -> bool {
        let rest = self.rest.get(to.saturating_sub(self.pos())..);
        self.rest = rest.unwrap_or_default();
        rest.is_some()
    }
}

/// Position of the first NUL of `bytes`, looked for in eight bytes at once.
#[inline]
fn nul_position(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        // The lowest bit that is set belongs to the first NUL (Mycroft's test for a zero byte).
        let word = u64::from_le_bytes(*word);
        let nuls = word.wrapping_sub(LOW) & !word & HIGH;
        if nuls != 0 {
            let before = bytes.len().wrapping_sub(rest.len());
            let within = usize::try_from(nuls.trailing_zeros() >> 3).unwrap_or(0);
            return Some(before.wrapping_add(within));
        }
        rest = behind;
    }
    let within = rest.iter().position(|byte| *byte == 0)?;
    Some(bytes.len().wrapping_sub(rest.len()).wrapping_add(within))
}

/// The beginning of a token whose end has not arrived.
#[derive(Debug)]
pub(super) struct Carry {
    bytes: [u8; Self::LEN_MAX],
    len: usize,
}

impl Carry {
    /// Longest part of a token that is kept: enough for every key and name that is told apart, and for
    /// `<database>.$cmd` with the longest database name (63 bytes).
    pub(super) const LEN_MAX: usize = 72;

    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; Self::LEN_MAX],
            len: 0,
        }
    }

    fn append(&mut self, part: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (slot, byte) in room.iter_mut().zip(part) {
            *slot = *byte;
        }
        self.len = self.len.saturating_add(part.len()).min(Self::LEN_MAX);
    }

    /// The next `len` bytes, at most [`Self::LEN_MAX`], once all are there.
    #[inline]
    pub(super) fn bytes<'b, 'i: 'b>(
        &'b mut self,
        input: &mut Input<'i>,
        len: usize,
    ) -> Option<&'b [u8]> {
        debug_assert!(len <= Self::LEN_MAX, "a token of {len} bytes is too long");
        if self.len == 0
            && let Some(token) = input.take(len)
        {
            return Some(token);
        }
        self.append(input.take_up_to(len.saturating_sub(self.len)));
        if self.len < len {
            return None;
        }
        self.len = 0;
        self.bytes.get(..len)
    }

    /// The next `N` bytes, once all are there.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self, input: &mut Input<'_>) -> Option<[u8; N]> {
        if self.len == 0
            && let Some(token) = input.take(N)
        {
            return token.first_chunk().copied();
        }
        let part = input.take_up_to(N.saturating_sub(self.len));
        self.array_cut(part)
    }

    /// The next `N` bytes, of which `part` are the last that are there.
    #[cold]
    fn array_cut<const N: usize>(&mut self, part: &[u8]) -> Option<[u8; N]> {
        self.append(part);
        if self.len < N {
            return None;
        }
        self.len = 0;
        self.bytes.first_chunk().copied()
    }

    /// The next little-endian int32, once it is there.
    #[inline]
    pub(super) fn int32(&mut self, input: &mut Input<'_>) -> Option<i32> {
        self.array(input).map(i32::from_le_bytes)
    }

    /// The next NUL-terminated string without its NUL, cut to [`Self::LEN_MAX`] bytes, once it is there.
    ///
    /// Fails when position `limit` is reached without a NUL.
    #[inline]
    pub(super) fn cstring<'b, 'i: 'b>(
        &'b mut self,
        input: &mut Input<'i>,
        limit: usize,
    ) -> Result<Option<&'b [u8]>, Fault> {
        let room = limit.saturating_sub(input.pos());
        let len = nul_position(input.rest).filter(|len| *len < room);
        let Some((part, [_, rest @ ..])) = len.and_then(|len| input.rest.split_at_checked(len))
        else {
            let part = std::mem::take(&mut input.rest);
            return self.cstring_cut(part, room, limit).map(|()| None);
        };
        input.rest = rest;
        if self.len == 0 {
            return Ok(Some(part.get(..Self::LEN_MAX).unwrap_or(part)));
        }
        self.append(part);
        let len = std::mem::take(&mut self.len);
        Ok(self.bytes.get(..len))
    }

    /// Keeps the `part` that is there of a string that may go on for `room` bytes, to position `limit`.
    #[cold]
    fn cstring_cut(&mut self, part: &[u8], room: usize, limit: usize) -> Result<(), Fault> {
        if part.len() >= room {
            return Err(Fault {
                what: "unterminated name",
                pos: limit,
            });
        }
        self.append(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_cstring(pieces: &[&[u8]], limit: usize, expected: Result<Option<&[u8]>, Fault>) {
        let mut carry = Carry::new();
        let mut pos = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let mut input = Input::new(piece, pos, usize::MAX);
            let found = carry.cstring(&mut input, limit);
            if index + 1 == pieces.len() {
                assert_eq!(found, expected);
            } else {
                assert_eq!(found, Ok(None));
            }
            pos += piece.len();
        }
    }

    #[test]
    fn the_first_nul_is_found_wherever_it_is() {
        // 0x01 above a NUL and 0x80 are what the look at eight bytes at once could take for one.
        for filler in [0x01, 0x61, 0x80, 0xFF] {
            for len in 0..20 {
                let mut bytes = vec![filler; len];
                assert_eq!(nul_position(&bytes), None);
                for position in (0..len).rev() {
                    bytes[position] = 0;
                    assert_eq!(nul_position(&bytes), Some(position));
                }
            }
        }
    }

    #[test]
    fn names_are_the_same_whole_and_cut() {
        check_cstring(&[b"lsid\0rest"], 9, Ok(Some(b"lsid")));
        check_cstring(&[b"ls", b"", b"id", b"\0rest"], 9, Ok(Some(b"lsid")));
        check_cstring(&[b"ls", b"id"], 9, Ok(None));
        let long = [b'x'; 100];
        check_cstring(&[&long, b"\0"], 200, Ok(Some(&long[..Carry::LEN_MAX])));
    }

    #[test]
    fn a_name_that_reaches_its_limit_is_a_fault_at_the_limit() {
        let fault = Err(Fault {
            what: "unterminated name",
            pos: 4,
        });
        check_cstring(&[b"lsid\0"], 4, fault);
        check_cstring(&[b"ls", b"id"], 4, fault);
    }
}
