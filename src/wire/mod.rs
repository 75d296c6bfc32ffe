//! The MongoDB wire protocol, read incrementally and without copying.
//!
//! A push parser: chunks in, messages out, any split allowed. It must do no IO, keep no more than the capture
//! limit, and never fail in a way that concerns the relay.
//!
//! ```text
//! chunk ──▶ framer ──▶ header ──▶ OP_COMPRESSED? ──▶ sections ──▶ top-level walk ──▶ Message ──▶ Sink
//! ```
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
mod snappy;
mod token;
mod unpack;
mod walk;

#[cfg(test)]
mod decoder_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;

pub use command::Command;
pub use decoder::{Decoder, DecoderLimits};
pub use error::WireError;
pub use header::{HEADER_LEN, Header, MESSAGE_LEN_MAX};
pub use message::{
    CodeCounts, CodeName, Compressor, Content, Direction, ErrorLabels, Message, Reply, ReplyFields,
    Request, RequestFields, Sink, TopologyVersion,
};
pub use opcode::OpCode;
