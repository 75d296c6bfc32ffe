//! Snappy's block format, opened as it arrives and with a bounded memory of what came out.
//!
//! ```text
//! uncompressed length, varint │ element…
//! element, by the low two bits of its first byte:
//!   00  literal   length − 1 in the upper six bits, or (60…63) in the next 1…4 bytes │ that many bytes
//!   01  copy      length − 4 in bits 2…4, offset in bits 5…7 and the next byte
//!   10  copy      length − 1 in the upper six bits, offset in the next 2 bytes
//!   11  copy      length − 1 in the upper six bits, offset in the next 4 bytes
//! ```
//!
//! **Invariant:** a copy reaches back at most [`WINDOW_LEN`] bytes, which is as far as the encoders in use go:
//! they compress in blocks of 64 KiB, each for itself.
//!
//! Source: snappy, `format_description.txt`.

use super::capture::Scrubbed;
use super::unpack::{Broken, Progress};

/// How far back a copy may reach.
pub(super) const WINDOW_LEN: usize = 65_536;

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The uncompressed length; so much of it was read, with the next seven bits at `shift`.
    Preamble { len: u64, shift: u32 },
    /// The first byte of an element.
    Tag,
    /// The bytes behind a tag, little-endian: `left` are missing, the next one belongs at `shift`.
    Extra {
        tag: u8,
        value: u32,
        shift: u32,
        left: u8,
    },
    /// Bytes that stand for themselves.
    Literal { left: u64 },
    /// Bytes that came out before.
    Copy { offset: usize, left: usize },
}

/// The state of opening one block.
#[derive(Debug)]
pub(super) struct Snappy {
    stage: Stage,
    /// Bytes that came out so far.
    produced: u64,
    /// Bytes that are to come out.
    len: u64,
}

impl Snappy {
    pub(super) const fn new() -> Self {
        Self {
            stage: Stage::Preamble { len: 0, shift: 0 },
            produced: 0,
            len: 0,
        }
    }

    /// Opens bytes of `input` until it is used up or `room` bytes were appended to `out`, which keeps at least
    /// the last [`WINDOW_LEN`] bytes that came out.
    pub(super) fn run(
        &mut self,
        input: &mut &[u8],
        out: &mut Scrubbed,
        mut room: usize,
    ) -> Result<Progress, Broken> {
        out.reserve(room);
        loop {
            match self.stage {
                Stage::Literal { left } if left > 0 => {
                    if room == 0 || input.is_empty() {
                        return Ok(Progress::More);
                    }
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX);
                    let count = wanted.min(room).min(input.len());
                    let (part, rest) = input.split_at(count);
                    out.extend(part);
                    *input = rest;
                    room = room.saturating_sub(count);
                    self.stage = Stage::Literal {
                        left: left.saturating_sub(self.add(count)?),
                    };
                }
                Stage::Copy { offset, left } if left > 0 => {
                    if room == 0 {
                        return Ok(Progress::More);
                    }
                    if offset > WINDOW_LEN {
                        return Ok(Progress::OutOfReach);
                    }
                    let count = left.min(room);
                    if !out.repeat(offset, count) {
                        return Err(Broken);
                    }
                    self.add(count)?;
                    room = room.saturating_sub(count);
                    self.stage = Stage::Copy {
                        offset,
                        left: left.saturating_sub(count),
                    };
                }
                // What comes behind the last byte that is wanted may be broken, and would be seen or not by how it is split.
                Stage::Preamble { .. } | Stage::Tag | Stage::Extra { .. } if room == 0 => {
                    return Ok(Progress::More);
                }
                Stage::Preamble { .. } | Stage::Tag | Stage::Extra { .. } => {
                    if matches!(self.stage, Stage::Tag)
                        && let Some((tag, value)) = take_element(input)
                    {
                        self.stage = self.element(tag, value)?;
                        continue;
                    }
                    let Some((byte, rest)) = input.split_first() else {
                        return Ok(Progress::More);
                    };
                    *input = rest;
                    self.step(*byte)?;
                }
                Stage::Literal { .. } | Stage::Copy { .. } if self.produced == self.len => {
                    return Ok(Progress::Ended);
                }
                Stage::Literal { .. } | Stage::Copy { .. } => self.stage = Stage::Tag,
            }
        }
    }

    /// Counts what came out; more than was announced is broken.
    fn add(&mut self, count: usize) -> Result<u64, Broken> {
        let count = u64::try_from(count).map_err(|_| Broken)?;
        self.produced = self.produced.saturating_add(count);
        if self.produced > self.len {
            return Err(Broken);
        }
        Ok(count)
    }

    /// Takes one byte of the preamble, a tag or what is behind a tag.
    fn step(&mut self, byte: u8) -> Result<(), Broken> {
        self.stage = match self.stage {
            Stage::Preamble { len, shift } => {
                let bits = u64::from(byte & 0x7F).checked_shl(shift).ok_or(Broken)?;
                let len = len | bits;
                if byte & 0x80 != 0 {
                    // A varint of 32 bits has at most five bytes.
                    if shift >= 28 {
                        return Err(Broken);
                    }
                    Stage::Preamble {
                        len,
                        shift: shift.saturating_add(7),
                    }
                } else {
                    self.len = len;
                    Stage::Tag
                }
            }
            Stage::Extra {
                tag,
                value,
                shift,
                left,
            } => {
                let value = value | u32::from(byte).checked_shl(shift).ok_or(Broken)?;
                if left > 1 {
                    Stage::Extra {
                        tag,
                        value,
                        shift: shift.saturating_add(8),
                        left: left.saturating_sub(1),
                    }
                } else {
                    self.element(tag, value)?
                }
            }
            Stage::Tag | Stage::Literal { .. } | Stage::Copy { .. } => {
                let extra = extra_len(byte);
                if extra == 0 {
                    self.element(byte, 0)?
                } else {
                    Stage::Extra {
                        tag: byte,
                        value: 0,
                        shift: 0,
                        left: extra,
                    }
                }
            }
        };
        Ok(())
    }

    /// The element of `tag` with the number `value` behind it.
    fn element(&self, tag: u8, value: u32) -> Result<Stage, Broken> {
        let upper = tag >> 2;
        let (offset, len) = match tag & 3 {
            0 => {
                let len = if upper < 60 { u32::from(upper) } else { value };
                return Ok(Stage::Literal {
                    left: u64::from(len).saturating_add(1),
                });
            }
            1 => (
                value | (u32::from(tag & 0xE0) << 3),
                (upper & 7).saturating_add(4),
            ),
            _ => (value, upper.saturating_add(1)),
        };
        if offset == 0 || u64::from(offset) > self.produced {
            return Err(Broken);
        }
        Ok(Stage::Copy {
            offset: usize::try_from(offset).map_err(|_| Broken)?,
            left: usize::from(len),
        })
    }
}

/// How many bytes stand behind `tag`, those of a literal not counted.
const fn extra_len(tag: u8) -> u8 {
    match tag & 3 {
        0 => (tag >> 2).saturating_sub(59),
        1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// The tag that `input` begins with and the number behind it, unless a part of them is still to come.
fn take_element(input: &mut &[u8]) -> Option<(u8, u32)> {
    let (tag, behind) = input.split_first()?;
    let (extra, rest) = behind.split_at_checked(usize::from(extra_len(*tag)))?;
    *input = rest;
    let value = extra
        .iter()
        .rev()
        .fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
    Some((*tag, value))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Opens `block` given in pieces of `piece_len` bytes, with room for `room` bytes at a time; keeps no more
    /// than it must in between.
    fn open(block: &[u8], piece_len: usize, room: usize) -> Result<(Progress, Vec<u8>), Broken> {
        let mut snappy = Snappy::new();
        let mut out = Scrubbed::with_limit(WINDOW_LEN * 2);
        let mut opened = Vec::new();
        for mut piece in block.chunks(piece_len) {
            loop {
                let before = out.len();
                let progress = snappy.run(&mut piece, &mut out, room)?;
                let count = out.len() - before;
                opened.extend_from_slice(&out.as_slice()[before..]);
                out.keep_last(WINDOW_LEN);
                if progress != Progress::More {
                    return Ok((progress, opened));
                }
                if count < room {
                    assert!(piece.is_empty());
                    break;
                }
            }
        }
        Ok((Progress::More, opened))
    }

    /// Bytes with repetitions near and far.
    fn repetitive() -> impl Strategy<Value = Vec<u8>> {
        vec((vec(any::<u8>(), 1..30), 1_usize..400), 1..40).prop_map(|parts| {
            parts
                .into_iter()
                .flat_map(|(part, count)| part.repeat(count))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_the_reference_packs_is_opened(
            bytes in repetitive(),
            piece_len in prop_oneof![1_usize..10, 1_usize..5000],
            room in prop_oneof![1_usize..10, 1_usize..5000],
        ) {
            let block = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            let (progress, opened) = open(&block, piece_len, room).unwrap();
            prop_assert_eq!(progress, Progress::Ended);
            prop_assert!(opened == bytes);
        }

        #[test]
        fn what_the_reference_opens_is_opened_alike(
            bytes in repetitive(),
            mutations in vec((any::<usize>(), any::<u8>()), 1..4),
            piece_len in 1_usize..100,
        ) {
            let mut block = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            for (place, value) in mutations {
                let place = place % block.len();
                block[place] = value;
            }
            // A stated length is not believed here, but the reference allocates it.
            let stated_len = snap::raw::decompress_len(&block).unwrap_or(usize::MAX);
            let opened = open(&block, piece_len, 4096);
            if stated_len < 10_000_000
                && let Ok(expected) = snap::raw::Decoder::new().decompress_vec(&block)
                && !expected.is_empty()
                && opened.as_ref().map(|(progress, _)| *progress) != Ok(Progress::OutOfReach)
            {
                prop_assert!(opened == Ok((Progress::Ended, expected)));
            }
        }
    }

    #[test]
    fn copies_reach_as_far_as_the_window() {
        for (offset, expected) in [
            (WINDOW_LEN, Ok(Progress::Ended)),
            (WINDOW_LEN + 1, Ok(Progress::OutOfReach)),
            (70_001, Err(Broken)),
            (0, Err(Broken)),
        ] {
            // The length 70,004; a literal of 70,000 bytes, with its length in three bytes; a copy of four.
            let mut block = vec![0xF4, 0xA2, 0x04, 62 << 2, 0x6F, 0x11, 0x01];
            block.extend((0..70_000_u32).map(|index| index.to_le_bytes()[0]));
            block.push((3 << 2) | 3);
            block.extend(u32::try_from(offset).unwrap().to_le_bytes());
            let progress = open(&block, 1000, 4096).map(|(progress, _)| progress);
            assert_eq!(progress, expected, "offset {offset}");
        }
    }
}
