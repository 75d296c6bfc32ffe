//! The compressed part of an `OP_COMPRESSED`, opened as it arrives and only as far as needed.
//!
//! ```text
//! chunk ──▶ engine ──▶ at most 4 KiB ──▶ body        engine: noop │ snappy │ zlib │ zstd
//! ```
//!
//! **Invariants:** what comes out of one message stays within the inflate limit; no more than one such piece is
//! allocated on the stated size; memory is held only until the body document was seen; what is found, and whether it
//! is an error, does not depend on how the bytes are split. For the last one, bytes are shown to the body only when a
//! fixed number of them came out, and a failure is reported where the message ends.
//!
//! Source: specifications repository, `compression/OP_COMPRESSED.md`.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::body::Body;
use super::capture::Scrubbed;
use super::snappy::{self, Snappy};
use super::token::Fault;
use super::{Compressor, Scratch};

/// Bytes shown to the body at once.
const PIECE_LEN: usize = 4096;

/// Greatest window a zstd frame may ask for, as a power of two: 2 MiB, what levels 1 to 15 use at most. Its
/// pages are touched only as far as bytes come out.
const ZSTD_WINDOW_LOG_MAX: u32 = 21;

/// `ZSTD_error_frameParameter_windowTooLarge`, as the library returns it.
const ZSTD_WINDOW_TOO_LARGE: usize = 0_usize.wrapping_sub(16);

/// What zlib-rs allocates for one stream: a window of 32 KiB, its margin and the tables.
const ZLIB_STATE_LEN: usize = 65_536;

/// Greatest number of heap bytes held for one message: zstd with its window, one block in and one out, and
/// its context.
pub(super) const HELD_BYTES_MAX: usize = (1 << ZSTD_WINDOW_LOG_MAX) + 512 * 1024;

/// The bytes are no compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// How far an engine came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The input is used up, or the room is.
    More,
    /// The compressed data ended.
    Ended,
    /// It needs more memory than there may be.
    OutOfReach,
}

/// Why a compressed message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Broken,
    Malformed(Fault),
}

enum Engine {
    Noop,
    Snappy(Snappy),
    Zlib(Decompress),
    Zstd { context: DCtx<'static>, feed: Feed },
}

impl Engine {
    fn new(compressor: Compressor, scratch: &mut Scratch) -> Option<Self> {
        Some(match compressor {
            Compressor::Noop => Self::Noop,
            Compressor::Snappy => Self::Snappy(Snappy::new()),
            Compressor::Zlib => Self::Zlib(Decompress::new(true)),
            Compressor::Zstd => {
                let mut context = scratch.take_zstd()?;
                context
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .ok()?;
                Self::Zstd {
                    context,
                    feed: Feed::FIRST,
                }
            }
        })
    }

    /// What has to stay in the output buffer for the engine to go on.
    const fn window_len(&self) -> usize {
        match self {
            Self::Snappy(_) => snappy::WINDOW_LEN,
            Self::Noop | Self::Zlib(_) | Self::Zstd { .. } => 0,
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::Noop | Self::Snappy(_) => 0,
            Self::Zlib(_) => ZLIB_STATE_LEN,
            Self::Zstd { context, .. } => context.sizeof(),
        }
    }

    /// Opens bytes of `input` until it is used up or `room` bytes were appended to `out`.
    fn run(
        &mut self,
        input: &mut &[u8],
        out: &mut Scrubbed,
        room: usize,
    ) -> Result<Progress, Broken> {
        match self {
            Self::Noop => {
                let (part, rest) = input.split_at(room.min(input.len()));
                out.extend(part);
                *input = rest;
                Ok(Progress::More)
            }
            Self::Snappy(snappy) => snappy.run(input, out, room),
            Self::Zlib(stream) => run_zlib(stream, input, out, room),
            Self::Zstd { context, feed } => run_zstd(context, feed, input, out, room),
        }
    }
}

fn run_zlib(
    stream: &mut Decompress,
    input: &mut &[u8],
    out: &mut Scrubbed,
    room: usize,
) -> Result<Progress, Broken> {
    let (taken_before, given_before) = (stream.total_in(), stream.total_out());
    let mut status = Status::Ok;
    out.fill(room, |space| {
        let result = stream.decompress(input, space, FlushDecompress::None);
        let given = usize::try_from(stream.total_out().saturating_sub(given_before)).unwrap_or(0);
        match result {
            Ok(reached) => status = reached,
            // What fills the room came out before the error, and perhaps nothing more is wanted.
            Err(_) if given >= room => {}
            Err(_) => return Err(Broken),
        }
        Ok(given)
    })?;
    let taken = usize::try_from(stream.total_in().saturating_sub(taken_before)).unwrap_or(0);
    *input = input.get(taken..).unwrap_or_default();
    Ok(match status {
        Status::Ok | Status::BufError => Progress::More,
        Status::StreamEnd => Progress::Ended,
    })
}

/// The library is fed in the steps it works in: header, block header, block. Were it fed more at once, it would
/// open a complete frame in one go and with other checks than one that comes in parts, and an error behind a block
/// would take the block with it: the result would depend on the split.
fn run_zstd(
    context: &mut DCtx<'static>,
    feed: &mut Feed,
    input: &mut &[u8],
    out: &mut Scrubbed,
    room: usize,
) -> Result<Progress, Broken> {
    let mut progress = Progress::More;
    out.fill(room, |space| {
        let mut target = OutBuffer::around(space);
        loop {
            let source = match *feed {
                Feed::Drain => &[],
                Feed::Step(len) => input.get(..len).unwrap_or(*input),
            };
            let mut source = InBuffer::around(source);
            let result = context.decompress_stream(&mut target, &mut source);
            *input = input.get(source.pos()..).unwrap_or_default();
            let is_full = target.pos() >= room;
            match result {
                Ok(0) => progress = Progress::Ended,
                Ok(_) if is_full => *feed = Feed::Drain,
                Ok(wanted) => {
                    *feed = Feed::after(wanted);
                    if !input.is_empty() {
                        continue;
                    }
                }
                Err(ZSTD_WINDOW_TOO_LARGE) => progress = Progress::OutOfReach,
                Err(_) => return Err(Broken),
            }
            return Ok(target.pos());
        }
    })?;
    Ok(progress)
}

/// What a zstd decompressor is given next.
#[derive(Clone, Copy, Debug)]
enum Feed {
    /// Nothing: it may hold bytes that had no room.
    Drain,
    /// At most so many bytes.
    Step(usize),
}

impl Feed {
    /// The least of a frame: its header then says how long it is.
    const FIRST: Self = Self::Step(1);

    /// What to give when the library wishes for `wanted` bytes, which include the next block header, 3 bytes,
    /// where there may be one.
    const fn after(wanted: usize) -> Self {
        match wanted.checked_sub(3) {
            None | Some(0) => Self::Step(wanted),
            Some(len) => Self::Step(len),
        }
    }
}

/// Compressed data that is being opened.
struct Open {
    engine: Engine,
    out: Scrubbed,
    /// Bytes at the end of `out` that the body has not seen.
    pending: usize,
    /// Bytes that came out so far, and how many may.
    produced: usize,
    produced_max: usize,
    is_limited: bool,
}

impl Open {
    /// Shows the body what came out since the last time.
    fn flush(&mut self, body: &mut Body) -> Result<(), Fault> {
        let start = self.out.len().saturating_sub(self.pending);
        let piece = self.out.as_slice().get(start..).unwrap_or_default();
        body.push(piece)?;
        body.keep(piece);
        self.pending = 0;
        let window_len = self.engine.window_len();
        if self.out.len() >= window_len.saturating_mul(2) {
            self.out.keep_last(window_len);
        }
        Ok(())
    }

    /// Opens `input`; true when nothing more is wanted.
    fn push(&mut self, mut input: &[u8], body: &mut Body) -> Result<bool, Failure> {
        loop {
            if self.produced >= self.produced_max {
                return self.end(body);
            }
            let room = PIECE_LEN
                .saturating_sub(self.pending)
                .min(self.produced_max.saturating_sub(self.produced));
            let before = self.out.len();
            let progress = self.engine.run(&mut input, &mut self.out, room);
            let count = self.out.len().saturating_sub(before);
            self.pending = self.pending.saturating_add(count);
            self.produced = self.produced.saturating_add(count);
            match progress {
                Err(Broken) => return Err(Failure::Broken),
                Ok(Progress::Ended) => return self.end(body),
                Ok(Progress::OutOfReach) => {
                    self.flush(body).map_err(Failure::Malformed)?;
                    if !body.is_settled() {
                        body.truncate();
                    }
                    return Ok(true);
                }
                Ok(Progress::More) => {}
            }
            if count < room {
                return Ok(false);
            }
            if self.pending >= PIECE_LEN {
                self.flush(body).map_err(Failure::Malformed)?;
                if body.is_settled() {
                    return Ok(true);
                }
            }
        }
    }

    /// Nothing more comes out: the data ended, or the message did, or a limit was reached.
    fn end(&mut self, body: &mut Body) -> Result<bool, Failure> {
        self.flush(body).map_err(Failure::Malformed)?;
        if body.is_settled() {
            return Ok(true);
        }
        if self.produced < self.produced_max {
            return Err(Failure::Broken);
        }
        if self.is_limited {
            body.truncate();
            return Ok(true);
        }
        body.finish().map_err(Failure::Malformed)?;
        Ok(true)
    }
}

/// The state of opening one message.
pub(super) struct Unpack {
    /// Present while more of the body is wanted.
    open: Option<Box<Open>>,
    failure: Option<Failure>,
}

impl Unpack {
    /// Opens a body said to be `stated_len` bytes long, of which at most `limit` come out.
    pub(super) fn new(
        compressor: Compressor,
        stated_len: usize,
        limit: usize,
        scratch: &mut Scratch,
    ) -> Self {
        let engine = Engine::new(compressor, scratch);
        let failure = engine.is_none().then_some(Failure::Broken);
        let open = engine.map(|engine| {
            Box::new(Open {
                out: Scrubbed::with_limit(
                    engine
                        .window_len()
                        .saturating_mul(2)
                        .saturating_add(PIECE_LEN),
                ),
                engine,
                pending: 0,
                produced: 0,
                produced_max: stated_len.min(limit),
                is_limited: limit < stated_len,
            })
        });
        Self { open, failure }
    }

    /// Nothing is to be opened.
    pub(super) const fn closed() -> Self {
        Self {
            open: None,
            failure: None,
        }
    }

    /// Whether nothing more is wanted of the message.
    pub(super) const fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Opens `input`, the next bytes of the message.
    pub(super) fn push(&mut self, input: &[u8], body: &mut Body, scratch: &mut Scratch) {
        if input.is_empty() {
            return;
        }
        if let Some(open) = &mut self.open {
            let result = open.push(input, body);
            self.conclude(result, scratch);
        }
    }

    /// The message ended: what was wrong with it, if anything was.
    pub(super) fn finish(&mut self, body: &mut Body, scratch: &mut Scratch) -> Result<(), Failure> {
        if let Some(open) = &mut self.open {
            let result = open.end(body);
            self.conclude(result, scratch);
        }
        self.failure.map_or(Ok(()), Err)
    }

    fn conclude(&mut self, result: Result<bool, Failure>, scratch: &mut Scratch) {
        if result != Ok(false)
            && let Some(open) = self.open.take()
            && let Engine::Zstd { context, .. } = open.engine
        {
            scratch.put_zstd(context);
        }
        self.failure = result.err();
    }

    /// Heap bytes held.
    pub(super) fn held_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| {
            open.engine
                .held_bytes()
                .saturating_add(open.out.capacity())
                .saturating_add(size_of::<Open>())
        })
    }
}

impl std::fmt::Debug for Unpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpack")
            .field("is_open", &self.open.is_some())
            .field("failure", &self.failure)
            .finish()
    }
}
