//! The bytes of one direction, in their order.
//!
//! Sequence numbers are counted on in 64 bits, so that their wrap-around needs no further thought. What comes out of
//! order is held until what is missing comes, or until it is plain that it was not captured: the receiver
//! acknowledged it, or too much is held.
//!
//! Files and headers are read by libraries (`pcap-parser`, `etherparse`). None was found that puts streams together and
//! fits: what is asked of it is the moment of each byte, holes given out as holes, and one bound for all streams; the
//! crates that there are have had one release (`parse-tcp`), bring parsers of other protocols and their own tasks
//! (`protolens`), or a C++ library (`tcp-stream-capture`).
//!
//! **Invariant:** at most [`SEGMENTS_MAX`] segments are held by a stream, and at most [`ROOM`] bytes by all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

/// Segments held by one stream.
const SEGMENTS_MAX: usize = 256;

/// Bytes held by all streams together.
pub(super) const ROOM: usize = 64 * 1024 * 1024;

/// So long after something out of order came, what is missing and acknowledged will not come any more: packets are
/// captured in another order than they passed in by no more than this.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a stream gives out, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes of one segment.
    Bytes(&'a [u8]),
    /// Bytes that were not captured.
    Lost(u64),
    /// The end.
    Fin,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The next byte to be given out; 64 bits of which the lower 32 are the sequence number.
    next: Option<u64>,
    held: BTreeMap<u64, Held>,
    /// Everything before it was received by the other side.
    acknowledged: u64,
    /// Since when something out of order is held.
    held_since: Option<Timestamp>,
    /// Behind the last byte.
    fin: Option<(u64, Timestamp)>,
    is_over: bool,
}

#[derive(Debug)]
struct Held {
    at: Timestamp,
    bytes: Vec<u8>,
    len: u64,
}

/// A piece of data with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data<'a> {
    pub(super) at: Timestamp,
    pub(super) sequence: u32,
    pub(super) bytes: &'a [u8],
    /// Bytes it had before it was cut.
    pub(super) len: u32,
    pub(super) fin: bool,
}

impl Stream {
    /// The first byte has this number.
    pub(super) fn begin(&mut self, sequence: u32) {
        // Above the lower half, so that earlier numbers are still positive.
        self.next.get_or_insert(1 << 32 | u64::from(sequence));
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Gives out what is next, in `give`.
    pub(super) fn push(
        &mut self,
        data: Data<'_>,
        room: &mut usize,
        mut give: impl FnMut(Timestamp, Piece<'_>),
    ) {
        self.begin(data.sequence);
        let Some(start) = self.place(data.sequence) else {
            return;
        };
        let end = start.saturating_add(data.len.into());
        if data.fin && self.fin.is_none() {
            self.fin = Some((end, data.at));
        }
        let next = self.next.unwrap_or_default();
        if end > next {
            if start > next {
                self.hold(start, data, room);
                if self.held.len() > SEGMENTS_MAX || *room == 0 {
                    self.pass_hole(data.at, &mut give);
                }
            } else {
                // What came before once more is left out.
                let known = usize::try_from(next - start).unwrap_or(usize::MAX);
                let fresh = data.bytes.get(known..).unwrap_or_default();
                self.give(data.at, fresh, end - next, &mut give);
            }
        }
        self.drain(room, &mut give);
    }

    /// The other side has received everything before this number.
    pub(super) fn acknowledged(&mut self, sequence: u32) {
        if let Some(place) = self.place(sequence) {
            self.acknowledged = self.acknowledged.max(place);
        }
    }

    /// Time passed: what is missing and was received will not come any more.
    pub(super) fn wait(
        &mut self,
        at: Timestamp,
        room: &mut usize,
        mut give: impl FnMut(Timestamp, Piece<'_>),
    ) {
        while self
            .held_since
            .is_some_and(|since| at.since(since) >= PATIENCE)
            && self.is_hole_acknowledged()
        {
            self.pass_hole(at, &mut give);
            self.drain(room, &mut give);
        }
        // A hole right before the end.
        if let (Some((end, _)), Some(next)) = (self.fin, self.next)
            && self.held.is_empty()
            && !self.is_over
            && next < end
            && self.acknowledged >= end
        {
            give(at, Piece::Lost(end - next));
            self.next = Some(end);
            self.drain(room, &mut give);
        }
    }

    /// Nothing more will come: what is held is given up.
    pub(super) fn clear(&mut self, room: &mut usize) {
        for held in std::mem::take(&mut self.held).into_values() {
            *room = room.saturating_add(held.bytes.len());
        }
        self.held_since = None;
    }

    /// The place of a number, which is within half the numbers of the next byte.
    fn place(&self, sequence: u32) -> Option<u64> {
        let next = self.next?;
        let [.., a, b, c, d] = next.to_be_bytes();
        let distance = sequence.wrapping_sub(u32::from_be_bytes([a, b, c, d]));
        let signed = i64::from(i32::from_be_bytes(distance.to_be_bytes()));
        next.checked_add_signed(signed)
    }

    fn is_hole_acknowledged(&self) -> bool {
        self.held
            .first_key_value()
            .is_some_and(|(&first, _)| self.acknowledged >= first)
    }

    fn hold(&mut self, start: u64, data: Data<'_>, room: &mut usize) {
        let bytes = data.bytes.get(..data.bytes.len().min(*room));
        let held = Held {
            at: data.at,
            bytes: bytes.unwrap_or_default().to_vec(),
            len: data.len.into(),
        };
        if self
            .held
            .get(&start)
            .is_some_and(|known| known.len >= held.len)
        {
            return;
        }
        *room = room.saturating_sub(held.bytes.len());
        if let Some(replaced) = self.held.insert(start, held) {
            *room = room.saturating_add(replaced.bytes.len());
        }
        self.held_since.get_or_insert(data.at);
    }

    /// What is missing before the first held segment was not captured.
    fn pass_hole(&mut self, at: Timestamp, give: &mut impl FnMut(Timestamp, Piece<'_>)) {
        let (Some((&first, _)), Some(next)) = (self.held.first_key_value(), self.next) else {
            return;
        };
        if first > next {
            give(at, Piece::Lost(first - next));
            self.next = Some(first);
        }
    }

    /// Gives out held segments whose turn has come, and the end.
    fn drain(&mut self, room: &mut usize, give: &mut impl FnMut(Timestamp, Piece<'_>)) {
        while let (Some(entry), Some(next)) = (self.held.first_entry(), self.next) {
            let start = *entry.key();
            if start > next {
                break;
            }
            let held = entry.remove();
            *room = room.saturating_add(held.bytes.len());
            let end = start.saturating_add(held.len);
            if end > next {
                let known = usize::try_from(next - start).unwrap_or(usize::MAX);
                let fresh = held.bytes.get(known..).unwrap_or_default();
                self.give(held.at, fresh, end - next, give);
            }
            self.held_since = self.held.values().map(|held| held.at).min();
        }
        if let (Some((end, at)), Some(next)) = (self.fin, self.next)
            && next >= end
            && !self.is_over
        {
            self.is_over = true;
            give(at, Piece::Fin);
        }
    }

    /// Gives out `len` bytes from the next one on, of which `bytes` were captured.
    fn give(
        &mut self,
        at: Timestamp,
        bytes: &[u8],
        len: u64,
        give: &mut impl FnMut(Timestamp, Piece<'_>),
    ) {
        if !bytes.is_empty() {
            give(at, Piece::Bytes(bytes));
        }
        let missing = len.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if missing > 0 {
            give(at, Piece::Lost(missing));
        }
        self.next = self.next.map(|next| next.saturating_add(len));
    }
}
