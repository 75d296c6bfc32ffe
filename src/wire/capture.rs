//! Memory that may hold secrets: parts of a body kept until the rest arrives.
//!
//! A body may be a SASL payload or a `createUser` with its password, so everything kept here is overwritten
//! before it is freed, when it grows too.

use std::hint::black_box;

/// A byte buffer that is overwritten with zeros before its memory is given back.
pub(super) struct Scrubbed {
    bytes: Vec<u8>,
    /// Capacity up to which growing doubles.
    limit: usize,
}

impl Scrubbed {
    /// An empty buffer that takes no more than `limit` bytes of memory while no more are put into it.
    pub(super) const fn with_limit(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for `additional` bytes; doubles within the limit, so that many small pieces are cheap.
    #[inline]
    pub(super) fn reserve(&mut self, additional: usize) {
        let needed = self.bytes.len().saturating_add(additional);
        if needed > self.bytes.capacity() {
            self.grow(needed);
        }
    }

    fn grow(&mut self, needed: usize) {
        let doubled = self.bytes.capacity().saturating_mul(2).min(self.limit);
        let mut grown = Vec::with_capacity(needed.max(doubled));
        grown.extend_from_slice(&self.bytes);
        self.scrub();
        self.bytes = grown;
    }

    pub(super) fn extend(&mut self, part: &[u8]) {
        self.reserve(part.len());
        self.bytes.extend_from_slice(part);
    }

    /// Appends `len` bytes of what was appended `offset` bytes ago, which may be among the new ones.
    ///
    /// False when nothing was appended that long ago.
    pub(super) fn repeat(&mut self, offset: usize, len: usize) -> bool {
        let held = self.bytes.len();
        let Some(start) = held.checked_sub(offset).filter(|start| *start < held) else {
            return false;
        };
        self.reserve(len);
        let mut left = len;
        while left > 0 {
            // All that lies behind `start` repeats itself every `offset` bytes, so each round may take twice as much.
            let count = left.min(self.bytes.len().saturating_sub(start));
            self.bytes
                .extend_from_within(start..start.saturating_add(count));
            left = left.saturating_sub(count);
        }
        true
    }

    /// Appends what `write` puts into at most `room` bytes; it says how many it wrote.
    pub(super) fn fill<E>(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.reserve(room);
        let held = self.bytes.len();
        self.bytes.resize(held.saturating_add(room), 0);
        let written = write(self.bytes.get_mut(held..).unwrap_or_default());
        let kept = written.as_ref().copied().unwrap_or(0).min(room);
        self.bytes.truncate(held.saturating_add(kept));
        written
    }

    /// Drops all but the last `keep` bytes.
    pub(super) fn keep_last(&mut self, keep: usize) {
        let len = self.bytes.len();
        let start = len.saturating_sub(keep);
        self.bytes.copy_within(start.., 0);
        self.bytes.truncate(len.saturating_sub(start));
    }

    /// Overwrites the whole allocation.
    fn scrub(&mut self) {
        self.bytes.clear();
        self.bytes.resize(self.bytes.capacity(), 0);
        // The buffer counts as read here, so that the overwriting is not optimised away.
        black_box(self.bytes.as_slice());
        self.bytes.clear();
    }
}

impl Drop for Scrubbed {
    fn drop(&mut self) {
        if self.bytes.capacity() > 0 {
            self.scrub();
        }
    }
}

impl std::fmt::Debug for Scrubbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubbed({} bytes)", self.bytes.len())
    }
}

/// The body document of a message within the capture limit.
#[derive(Debug)]
pub(super) struct Capture {
    /// Where the document begins and, once it did, ends in the body.
    start: usize,
    end: Option<usize>,
    kept: Scrubbed,
}

impl Capture {
    /// A document of at most `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            start: 0,
            end: None,
            kept: Scrubbed::with_limit(limit),
        }
    }

    /// The document begins at position `start` of the body.
    pub(super) fn begins_at(&mut self, start: usize) {
        self.start = start;
    }

    /// The document ended before position `end` of the body.
    pub(super) fn ended_at(&mut self, end: usize) {
        self.end = Some(end);
    }

    /// Keeps the part of the document that lies in `piece`, which begins at position `pos` of the body.
    pub(super) fn keep(&mut self, piece: &[u8], pos: usize) {
        let from = self.start.saturating_sub(pos);
        let to = match self.end {
            Some(end) => end.saturating_sub(pos).min(piece.len()),
            None => piece.len(),
        };
        self.kept.extend(piece.get(from..to).unwrap_or_default());
    }

    /// The document, which ended in `piece` or before; `piece` begins at position `pos` of the body.
    pub(super) fn document<'a>(&'a mut self, piece: &'a [u8], pos: usize) -> Option<&'a [u8]> {
        let end = self.end?;
        if self.start >= pos {
            return piece.get(self.start.saturating_sub(pos)..end.saturating_sub(pos));
        }
        self.keep(piece, pos);
        Some(self.kept.as_slice())
    }

    /// Heap bytes held.
    pub(super) fn held_bytes(&self) -> usize {
        self.kept.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_overlap_and_reach_no_further_than_the_beginning() {
        let mut buffer = Scrubbed::with_limit(64);
        buffer.extend(b"abc");
        assert!(buffer.repeat(2, 5));
        assert_eq!(buffer.as_slice(), b"abcbcbcb");
        assert!(!buffer.repeat(9, 1));
        assert!(!buffer.repeat(0, 1));
        buffer.keep_last(3);
        assert_eq!(buffer.as_slice(), b"bcb");
    }

    #[test]
    fn a_document_is_the_same_whole_and_in_pieces() {
        let body = b"....document...";
        for cut in 0..=body.len() {
            let mut capture = Capture::new(body.len());
            capture.begins_at(4);
            capture.ended_at(12);
            let (first, second) = body.split_at(cut);
            capture.keep(first, 0);
            assert_eq!(capture.document(second, cut), Some(&b"document"[..]));
        }
    }
}
