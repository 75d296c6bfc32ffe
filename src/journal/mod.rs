//! A record of what happened, on disk: the entries the observer was told, in the same order.
//!
//! ```text
//! FILE      header, what was open, entry, entry, mark, entry, …    being written
//! FILE.1    header, what was open, entry, …                        the part before it
//! FILE.2    …                                                      the oldest is removed
//! ```
//!
//! [`Journal`] writes, [`Reader`] reads, and [`Replay`] tells an observer again what it was told. The format is that
//! of [`crate::timeline::lines`]. A part can be read without those before it: it begins with what was open, and what
//! that had in common. What was over by then is in the older parts only, and a replay says so.
//!
//! **Invariant:** recording never disturbs. What is written waits in a buffer for at most a second, so a crash loses
//! that and leaves at most half a line; the first error of the disk ends the recording, and is told once.

mod parts;
mod reader;
mod replay;
mod retell;
mod writer;

pub use parts::parts;
pub use reader::{ReadError, Reader};
pub use replay::{Replay, Replayed};
pub use writer::{Journal, JournalHealth};

#[cfg(test)]
mod tests;
