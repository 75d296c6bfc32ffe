//! Why the decoding of a direction ended for good.
//!
//! "Not enough bytes yet" is no error, and none of these reaches the relay: a direction that failed makes its
//! connection opaque, and its bytes go on.

use thiserror::Error;

/// Why a direction cannot be decoded any further. `offset` counts the bytes of the direction from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The first bytes are a TLS record.
    #[error("tls handshake instead of a mongodb message")]
    Tls,
    /// The first bytes are no message header at all. Whose they are is unknown, so none of them is printed.
    #[error("first bytes are no mongodb message")]
    UnknownProtocol {
        /// The first field read as a length.
        message_len: i32,
        /// The last field read as an opcode.
        opcode: i32,
    },
    /// A header states a length that no message can have.
    #[error("impossible message length {message_len} at byte {offset}")]
    MessageLength {
        /// The stated length.
        message_len: i32,
        /// Where the header begins.
        offset: u64,
    },
    /// A section, document or envelope contradicts the length around it, or its BSON is broken.
    #[error("malformed {what} at byte {offset}")]
    Malformed {
        /// The part that is broken.
        what: &'static str,
        /// Where it was noticed.
        offset: u64,
    },
    /// An `OP_COMPRESSED` body does not decompress.
    #[error("undecodable {compressor} body at byte {offset}")]
    Compression {
        /// The algorithm's name.
        compressor: &'static str,
        /// Where the envelope begins.
        offset: u64,
    },
}

impl WireError {
    /// The value of the `reason` label of decode failures.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::UnknownProtocol { .. } => "unknown_protocol",
            Self::MessageLength { .. } => "message_length",
            Self::Malformed { .. } => "malformed",
            Self::Compression { .. } => "compression",
        }
    }
}
