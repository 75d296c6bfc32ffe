//! Two sockets, two lanes, no buffer while nothing moves.
//!
//! ```text
//!           read into the thread's scratch      written at once
//!  source ═══════════════════════════════▶ lane ════════════════▶ sink
//!                                            ║ what the sink did not take is held, and the
//!                                            ║ lane stops reading until it is gone
//!                                            ╚═▶ watcher: what the sink's kernel has taken
//! ```
//!
//! FIN is passed on as FIN once everything before it was written, and the other lane goes on. A reset of one
//! side is passed on as a reset (zero linger). The relay ends when both lanes ended, when a side broke, or
//! when the proxy drains and the watcher says that nothing is under way.
//!
//! Bytes that the watcher says it will skip (the inside of a large value) are moved from socket to socket within
//! the kernel, and reading resumes where the watcher's interest does.
//!
//! **Invariant:** a chunk is written before the watcher sees it, and nothing the watcher finds changes which bytes
//! are forwarded, or in which order. What it says decides only how they are moved ([`Watcher::skippable`]) and,
//! while draining, when nobody is harmed by an end ([`Watcher::is_at_rest`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use bytes::Bytes;

use super::pipe::Pipe;
use super::socket::{self, Socket};
use crate::clock::Clock;
use crate::connection::{Initiator, Manner};
use crate::time::Timestamp;
use crate::wire::Direction;

/// Bytes a worker thread reads at once. Larger reads cost fewer calls on big messages; one scratch buffer a
/// thread costs nothing for each connection.
pub(super) const SCRATCH_LEN: usize = 256 * 1024;

/// Bytes that must be allowed to pass unread before the kernel is asked to move them: below, a copy is cheaper
/// than the calls that avoid it.
const UNSEEN_LEN_MIN: usize = 64 * 1024;

/// First read of a message in a lane where large ones pass. It takes in the header and the names at the start of
/// the body; what it misses of a small message costs one more read.
const FIRST_READ_LEN: usize = 16 * 1024;

/// Chunks moved for one connection before others of its thread get their turn.
const CHUNKS_PER_TURN: usize = 16;

/// Shown what was forwarded, after it was forwarded.
pub(crate) trait Watcher {
    /// `bytes` were read at `read_at` and taken by the other side's kernel at `written_at`.
    fn saw(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        read_at: Timestamp,
        written_at: Timestamp,
    );

    /// How many of the next bytes of `direction` it does not need to see, now that it saw all before them.
    fn skippable(&self, direction: Direction) -> usize;

    /// `count` bytes it did not need to see were taken by the other side's kernel at `written_at`.
    fn skipped(&mut self, direction: Direction, count: usize, written_at: Timestamp);

    /// A side ended the connection, the first to do so; what the other still sends is forwarded. The sockets are
    /// the client's and the server's.
    fn first_ended(
        &mut self,
        initiator: Initiator,
        manner: Manner,
        at: Timestamp,
        sockets: [BorrowedFd<'_>; 2],
    );

    /// The proxy wants to end this connection as soon as that harms nobody.
    fn drain_called(&mut self, at: Timestamp);

    /// Nothing is under way that an end now would break.
    fn is_at_rest(&self) -> bool;
}

/// Who ended the connection first, how, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayEnd {
    pub(crate) initiator: Initiator,
    pub(crate) manner: Manner,
    pub(crate) at: Timestamp,
}

/// How urgently the proxy wants the connection to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// It may go on.
    #[default]
    None,
    /// At its next moment of rest.
    AtRest,
    /// Now.
    Now,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing can move before an event.
    Waiting,
    /// There is more to move, but others are to have their turn.
    Again,
    /// The connection ended. A socket that has to be reset is prepared for it; both are to be dropped.
    Ended(RelayEnd),
}

/// The state of forwarding between two sockets, which it is lent for each turn.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    lanes: [Lane; 2],
    first_end: Option<RelayEnd>,
    /// A side that cannot be written to any more: what it still has to say is passed on, then all ends.
    broken: Option<Side>,
    drain_seen: bool,
}

impl Relay {
    /// Moves what can be moved between `sides`, the client's socket and the server's, through `scratch`.
    pub(super) fn turn<W: Watcher>(
        &mut self,
        sides: &mut [Socket; 2],
        watcher: &mut W,
        call: Call,
        clock: Clock,
        scratch: &mut [u8],
    ) -> Turn {
        Moving {
            relay: self,
            sides,
            watcher,
            clock,
        }
        .turn(call, scratch)
    }
}

/// A side of the connection, as an index: 0 the client, 1 the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    const fn initiator(self) -> Initiator {
        match self {
            Self::Client => Initiator::Client,
            Self::Server => Initiator::Server,
        }
    }

    const fn source_of(direction: Direction) -> Self {
        match direction {
            Direction::ToServer => Self::Client,
            Direction::ToClient => Self::Server,
        }
    }
}

/// One direction of forwarding.
#[derive(Debug, Default)]
struct Lane {
    /// What the sink has not taken yet.
    held: Option<Box<Held>>,
    /// Bytes to come that the watcher does not need to see.
    unseen: usize,
    /// Large messages pass here: the next one is begun with a small read, so that most of it can pass unread.
    is_bulk: bool,
    /// The source sent its FIN.
    source_ended: bool,
    /// The FIN was passed on, or there is nobody left to pass anything to.
    done: bool,
}

/// What was taken from one side and not yet by the other.
#[derive(Debug)]
enum Held {
    /// Bytes that were read.
    Bytes { bytes: Bytes, read_at: Timestamp },
    /// Bytes that are in the kernel.
    Piped(Pipe),
}

/// What one attempt to move something came to.
enum Step {
    /// Something moved: try again.
    Moved,
    /// Nothing can move before the next wake-up.
    Waiting,
    /// A side broke.
    Broke(Side, Manner),
}

/// A relay with all it needs for a turn.
struct Moving<'a, W> {
    relay: &'a mut Relay,
    sides: &'a mut [Socket; 2],
    watcher: &'a mut W,
    clock: Clock,
}

impl<W: Watcher> Moving<'_, W> {
    fn turn(&mut self, call: Call, scratch: &mut [u8]) -> Turn {
        for _ in 0..CHUNKS_PER_TURN {
            let mut moved = false;
            for direction in Direction::ALL {
                match self.step(direction, scratch) {
                    Step::Moved => moved = true,
                    Step::Waiting => {}
                    Step::Broke(side, manner) => return Turn::Ended(self.broke(side, manner)),
                }
            }
            if let Some(end) = self.finished() {
                return Turn::Ended(end);
            }
            if !moved {
                return self.drained(call).map_or(Turn::Waiting, Turn::Ended);
            }
        }
        Turn::Again
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane {
        &mut self.relay.lanes[direction.index()]
    }

    fn side(&mut self, side: Side) -> &mut Socket {
        &mut self.sides[side as usize]
    }

    /// Moves at most one chunk in `direction`.
    fn step(&mut self, direction: Direction, scratch: &mut [u8]) -> Step {
        let source = Side::source_of(direction);
        let lane = &self.relay.lanes[direction.index()];
        if lane.done {
            return self.look_for_reset(source);
        }
        if lane.held.is_some() {
            return match self.flush_held(direction) {
                Step::Waiting => self.look_for_reset(source),
                step @ (Step::Moved | Step::Broke(..)) => step,
            };
        }
        if lane.source_ended {
            // When the other lane has ended as well, the close of both sockets says it in the same way.
            if !self.relay.lanes[1 - direction.index()].done {
                self.side(source.other()).shutdown_write();
            }
            self.lane(direction).done = true;
            return Step::Moved;
        }
        if lane.unseen > 0 {
            return self.pass_unseen(direction);
        }
        let read_len = if lane.is_bulk {
            FIRST_READ_LEN
        } else {
            scratch.len()
        };
        let buffer = scratch.get_mut(..read_len).unwrap_or_default();
        match self.side(source).read(buffer) {
            Poll::Pending => Step::Waiting,
            Poll::Ready(Ok(0)) => self.source_ended(direction),
            Poll::Ready(Ok(len)) => match scratch.get(..len) {
                Some(chunk) => self.forward(direction, chunk),
                None => Step::Broke(source, Manner::Internal),
            },
            Poll::Ready(Err(error)) => Step::Broke(source, socket::manner_of(&error)),
        }
    }

    /// The source of `direction` sent its FIN.
    fn source_ended(&mut self, direction: Direction) -> Step {
        self.note_end(Side::source_of(direction), Manner::Fin);
        self.lane(direction).source_ended = true;
        Step::Moved
    }

    /// Writes a fresh chunk, shows what was taken, holds the rest.
    fn forward(&mut self, direction: Direction, chunk: &[u8]) -> Step {
        let read_at = self.clock.now();
        let sink = Side::source_of(direction).other();
        let taken = match self.side(sink).write(chunk) {
            Poll::Pending => 0,
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(error)) => return self.write_failed(direction, &error),
        };
        let (written, rest) = chunk.split_at(taken.min(chunk.len()));
        if !rest.is_empty() {
            let bytes = Bytes::copy_from_slice(rest);
            self.lane(direction).held = Some(Box::new(Held::Bytes { bytes, read_at }));
        }
        if !written.is_empty() {
            let written_at = self.clock.now();
            self.watcher.saw(direction, written, read_at, written_at);
        }
        self.look_ahead(direction);
        Step::Moved
    }

    /// Asks how much may pass unread, once everything before it was shown.
    fn look_ahead(&mut self, direction: Direction) {
        let lane = &mut self.relay.lanes[direction.index()];
        if lane.held.is_none() {
            let skippable = self.watcher.skippable(direction);
            lane.unseen = if skippable < UNSEEN_LEN_MIN {
                0
            } else {
                skippable
            };
            lane.is_bulk = lane.unseen > 0;
        }
    }

    /// Moves bytes that nobody needs to see within the kernel.
    fn pass_unseen(&mut self, direction: Direction) -> Step {
        let source = Side::source_of(direction);
        let lane = &mut self.relay.lanes[direction.index()];
        let Ok(mut pipe) = Pipe::lend() else {
            // Without descriptors to spare they are read like all others.
            lane.unseen = 0;
            return Step::Moved;
        };
        match pipe.fill(&mut self.sides[source as usize], lane.unseen) {
            Poll::Pending => {
                pipe.give_back();
                Step::Waiting
            }
            Poll::Ready(Ok(0)) => {
                pipe.give_back();
                self.source_ended(direction)
            }
            Poll::Ready(Ok(count)) => {
                lane.unseen = lane.unseen.saturating_sub(count);
                lane.held = Some(Box::new(Held::Piped(pipe)));
                self.flush_held(direction);
                Step::Moved
            }
            Poll::Ready(Err(error)) => Step::Broke(source, socket::manner_of(&error)),
        }
    }

    /// Gives the other side more of what is held.
    fn flush_held(&mut self, direction: Direction) -> Step {
        let sink = &mut self.sides[Side::source_of(direction).other() as usize];
        let lane = &mut self.relay.lanes[direction.index()];
        let taken = match lane.held.as_deref_mut() {
            None => return Step::Waiting,
            Some(Held::Bytes { bytes, .. }) => sink.write(bytes),
            Some(Held::Piped(pipe)) => pipe.drain(sink),
        };
        let taken = match taken {
            Poll::Pending => return Step::Waiting,
            Poll::Ready(Err(error)) => return self.write_failed(direction, &error),
            Poll::Ready(Ok(taken)) => taken,
        };
        let written_at = self.clock.now();
        match lane.held.take().map(|held| *held) {
            None => {}
            Some(Held::Bytes { mut bytes, read_at }) => {
                let written = bytes.split_to(taken.min(bytes.len()));
                if !bytes.is_empty() {
                    lane.held = Some(Box::new(Held::Bytes { bytes, read_at }));
                }
                self.watcher.saw(direction, &written, read_at, written_at);
                self.look_ahead(direction);
            }
            Some(Held::Piped(pipe)) => {
                self.watcher.skipped(direction, taken, written_at);
                if pipe.filled() > 0 {
                    lane.held = Some(Box::new(Held::Piped(pipe)));
                } else {
                    pipe.give_back();
                }
            }
        }
        Step::Moved
    }

    /// The sink of `direction` takes nothing any more. What it said before it broke may still wait to be
    /// read, so its own lane goes on until it runs dry.
    fn write_failed(&mut self, direction: Direction, error: &io::Error) -> Step {
        let sink = Side::source_of(direction).other();
        self.note_end(sink, socket::manner_of(error));
        let lane = self.lane(direction);
        lane.held = None;
        lane.done = true;
        self.relay.broken = Some(sink);
        Step::Moved
    }

    /// Nobody reads from `side` now; without this its reset would be noticed only with the next read.
    fn look_for_reset(&mut self, side: Side) -> Step {
        if self.relay.broken.is_some() {
            return Step::Waiting;
        }
        match self.side(side).take_error() {
            None => Step::Waiting,
            Some(error) => Step::Broke(side, socket::manner_of(&error)),
        }
    }

    fn note_end(&mut self, side: Side, manner: Manner) {
        if self.relay.first_end.is_some() {
            return;
        }
        let (initiator, at) = (side.initiator(), self.clock.now());
        self.relay.first_end = Some(RelayEnd {
            initiator,
            manner,
            at,
        });
        let [client, server] = &*self.sides;
        let sockets = [client.as_fd(), server.as_fd()];
        self.watcher.first_ended(initiator, manner, at, sockets);
    }

    /// `side` is gone: the other one is told by a reset.
    fn broke(&mut self, side: Side, manner: Manner) -> RelayEnd {
        self.note_end(side, manner);
        self.side(side.other()).reset_on_drop();
        self.relay.first_end.unwrap_or(RelayEnd {
            initiator: side.initiator(),
            manner,
            at: self.clock.now(),
        })
    }

    /// The end, once neither lane has anything left to do.
    fn finished(&mut self) -> Option<RelayEnd> {
        let [up, down] = &self.relay.lanes;
        if let Some(side) = self.relay.broken {
            // The lane that reads from the broken side has run dry, or waits for a peer that does not read.
            let speaking = match side {
                Side::Client => up,
                Side::Server => down,
            };
            if speaking.done || speaking.source_ended || speaking.held.is_some() {
                return Some(self.broke(side, Manner::Reset));
            }
            return None;
        }
        if up.done && down.done {
            self.relay.first_end
        } else {
            None
        }
    }

    /// The end, when the proxy drains and nothing is under way. Asked only when nothing could be moved.
    fn drained(&mut self, call: Call) -> Option<RelayEnd> {
        if call == Call::None {
            return None;
        }
        if !self.relay.drain_seen {
            self.relay.drain_seen = true;
            self.watcher.drain_called(self.clock.now());
        }
        let holds_nothing = self.relay.lanes.iter().all(|lane| lane.held.is_none());
        if call == Call::Now || (holds_nothing && self.watcher.is_at_rest()) {
            let end = RelayEnd {
                initiator: Initiator::Proxy,
                manner: Manner::Drained,
                at: self.clock.now(),
            };
            return Some(*self.relay.first_end.get_or_insert(end));
        }
        None
    }
}
