//! The header every message begins with.
//!
//! ```text
//! offset  width  field
//!      0      4  messageLength  (little-endian int32, this header included)
//!      4      4  requestID
//!      8      4  responseTo
//!     12      4  opCode
//! ```
//!
//! Source: MongoDB Wire Protocol reference § Standard Message Header. The greatest length is what mongod 6.0.5
//! was measured to accept: 48,000,000 is waited for, 48,000,001 ends the connection.

use super::OpCode;

/// Bytes of a message header.
pub const HEADER_LEN: usize = 16;

/// Greatest length of a message a server accepts, header included.
pub const MESSAGE_LEN_MAX: u32 = 48_000_000;

/// A message header whose length was found to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole message in bytes, header included: 16..=[`MESSAGE_LEN_MAX`].
    pub message_len: u32,
    /// The sender's identifier; may be 0, negative or repeated.
    pub request_id: i32,
    /// The `request_id` this message answers, or 0. An exhaust reply names the reply before it.
    pub response_to: i32,
    /// What follows the header.
    pub opcode: OpCode,
}
