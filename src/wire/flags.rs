//! The flags of an `OP_MSG`.
//!
//! Source: specifications repository, `message/OP_MSG.md` § flagBits. Bits 0 to 15 are required: a server ends the
//! connection over one it does not know. So an unknown bit is the server's affair, not ours.

/// `flagBits`, a little-endian uint32.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MsgFlags(u32);

impl MsgFlags {
    const CHECKSUM_PRESENT: u32 = 1;
    const MORE_TO_COME: u32 = 1 << 1;
    const EXHAUST_ALLOWED: u32 = 1 << 16;

    pub(super) const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    /// Bit 0: the last four bytes of the message are a CRC-32C.
    pub(super) const fn is_checksum_present(self) -> bool {
        self.0 & Self::CHECKSUM_PRESENT != 0
    }

    /// Bit 1: no answer is wanted, or another reply follows.
    pub(super) const fn is_more_to_come(self) -> bool {
        self.0 & Self::MORE_TO_COME != 0
    }

    /// Bit 16: the client takes a stream of replies.
    pub(super) const fn is_exhaust_allowed(self) -> bool {
        self.0 & Self::EXHAUST_ALLOWED != 0
    }
}
