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

mod command;
mod error;
mod header;
mod message;
mod opcode;

pub use command::Command;
pub use error::WireError;
pub use header::{HEADER_LEN, Header, MESSAGE_LEN_MAX};
pub use message::{
    CodeCounts, CodeName, Compressor, Content, Direction, ErrorLabels, Message, Reply, ReplyFields,
    Request, RequestFields, Sink, TopologyVersion,
};
pub use opcode::OpCode;
