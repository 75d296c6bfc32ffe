//! Moving bytes from socket to socket inside the kernel.
//!
//! Bytes that nobody needs to see go through a pipe: `splice` hands over the kernel's pages, where a read and a
//! write would copy them twice. A pipe costs two descriptors and some memory of the kernel, so each thread keeps
//! a few and lends them; one with bytes in it belongs to its connection until it is empty.
//!
//! Source: splice(2), and pipe(7) § Pipe capacity.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::socket::Socket;

/// Capacity asked for: no more than a lane holds of bytes that were read, so that a peer that stops reading costs
/// the same either way. An unprivileged process may have more (`/proc/sys/fs/pipe-max-size`).
const CAPACITY: usize = 256 * 1024;

/// Empty pipes a thread keeps.
const KEPT_MAX: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe; what was spliced into it and not out of it again is in the kernel.
#[derive(Debug)]
pub(super) struct Pipe {
    entrance: OwnedFd,
    exit: OwnedFd,
    filled: usize,
}

impl Pipe {
    /// An empty pipe of this thread, or a new one.
    pub(super) fn lend() -> io::Result<Self> {
        if let Some(pipe) = KEPT.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (exit, entrance) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller pipe works as well: the kernel refuses the size once a user's pipes hold too much.
        fcntl_setpipe_size(&entrance, CAPACITY).ok();
        Ok(Self {
            entrance,
            exit,
            filled: 0,
        })
    }

    /// Gives an empty pipe back to its thread. One with bytes in it is closed: nobody could tell whose they are.
    pub(super) fn give_back(self) {
        if self.filled == 0 {
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < KEPT_MAX {
                    kept.push(self);
                }
            });
        }
    }

    /// Bytes in the pipe.
    pub(super) const fn filled(&self) -> usize {
        self.filled
    }

    /// Takes up to `len` bytes from `source`; the pipe must be empty. 0 is the end of the source.
    pub(super) fn fill(&mut self, source: &mut Socket, len: usize) -> Poll<io::Result<usize>> {
        debug_assert_eq!(
            self.filled, 0,
            "a full pipe and a drained socket look alike"
        );
        let moved = source.take_with(|source| {
            splice(source, None, &self.entrance, None, len.min(CAPACITY), FLAGS)
        });
        if let Poll::Ready(Ok(moved)) = moved {
            self.filled = moved;
        }
        moved
    }

    /// Gives `sink` as much as it takes now.
    pub(super) fn drain(&mut self, sink: &mut Socket) -> Poll<io::Result<usize>> {
        let moved = sink.give_with(|sink| splice(&self.exit, None, sink, None, self.filled, FLAGS));
        if let Poll::Ready(Ok(moved)) = moved {
            self.filled = self.filled.saturating_sub(moved);
        }
        moved
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);
