//! The MongoDB wire protocol, read incrementally and without copying.
//!
//! A push parser: chunks in, messages out, any split allowed. It must do no IO, keep no more than its limits
//! allow, and never fail in a way that concerns the relay.
//!
//! ```text
//! chunk ─▶ decoder ─▶ message in flight ──────────────────▶ body ─▶ walk ─▶ facts ─▶ Message ─▶ Sink
//!          header     │                                     ▲ sections      request, reply
//!                     └─ OP_COMPRESSED ─▶ unpack ─ 4 KiB ───┘
//!                                         snappy │ zlib │ zstd │ noop
//! ```
//!
//! - [`Decoder`] finds headers and ends of messages; a length is believed only as something to count down.
//! - `body` knows the layout of the three opcodes that are read; all others are skipped by length.
//! - `walk` steps over the elements of a document and goes down only into the few documents that `facts` ask
//!   for; a 16 MB batch is one step.
//! - `unpack` opens compressed bodies as they arrive, as far as the body document goes.
//!
//! **Invariants:** the same bytes give the same messages and the same error for every split of the bytes into
//! chunks; an idle decoder holds no heap memory, a busy one at most [`DecoderLimits::held_bytes_max`]; what may
//! be a secret is overwritten before its memory is freed (decompressors keep theirs to themselves: specified
//! drivers do not compress authentication).
//!
//! Sources are named beside the checks they justify.

#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions
    )
)]

mod body;
mod capture;
mod codes;
mod command;
mod decoder;
mod error;
mod facts;
mod field;
mod flags;
mod header;
mod in_flight;
mod message;
mod opcode;
mod reply;
mod request;
mod scratch;
mod snappy;
mod token;
mod unpack;
mod walk;

#[cfg(test)]
mod by_the_book;
#[cfg(test)]
mod decoder_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;

pub use codes::{error_code_labels, is_about_the_server, matters_to_pools};
pub use command::Command;
pub use decoder::{Decoder, DecoderLimits};
pub use error::WireError;
pub use header::{HEADER_LEN, Header, MESSAGE_LEN_MAX};
pub use message::{
    CodeCounts, CodeName, Compressor, Content, Direction, ErrorLabels, Message, Reply, ReplyFields,
    Request, RequestFields, Sink, TopologyVersion,
};
pub use opcode::OpCode;
pub use scratch::Scratch;
