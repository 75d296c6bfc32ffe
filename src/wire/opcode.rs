//! Operation codes of the wire protocol.
//!
//! Source: MongoDB Wire Protocol reference § Opcodes; the removed ones from the reference of server 5.0.

use std::fmt;

/// The operation code of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpCode {
    /// 1: reply to `OP_QUERY`.
    Reply,
    /// 2001: removed in server 5.1.
    Update,
    /// 2002: removed in server 5.1.
    Insert,
    /// 2003: reserved, never used.
    Reserved,
    /// 2004: old drivers, and many new ones, still send their first hello with it.
    Query,
    /// 2005: removed in server 5.1.
    GetMore,
    /// 2006: removed in server 5.1.
    Delete,
    /// 2007: removed in server 5.1.
    KillCursors,
    /// 2010: server-internal, removed in server 4.2.
    Command,
    /// 2011: server-internal, removed in server 4.2.
    CommandReply,
    /// 2012: an envelope round another message.
    Compressed,
    /// 2013: everything else.
    Msg,
    /// Any other number: counted, skipped by its stated length.
    Unknown(i32),
}

impl OpCode {
    /// The opcode of a number on the wire.
    pub const fn from_wire(number: i32) -> Self {
        match number {
            1 => Self::Reply,
            2001 => Self::Update,
            2002 => Self::Insert,
            2003 => Self::Reserved,
            2004 => Self::Query,
            2005 => Self::GetMore,
            2006 => Self::Delete,
            2007 => Self::KillCursors,
            2010 => Self::Command,
            2011 => Self::CommandReply,
            2012 => Self::Compressed,
            2013 => Self::Msg,
            other => Self::Unknown(other),
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::Reply => 1,
            Self::Update => 2001,
            Self::Insert => 2002,
            Self::Reserved => 2003,
            Self::Query => 2004,
            Self::GetMore => 2005,
            Self::Delete => 2006,
            Self::KillCursors => 2007,
            Self::Command => 2010,
            Self::CommandReply => 2011,
            Self::Compressed => 2012,
            Self::Msg => 2013,
            Self::Unknown(number) => number,
        }
    }

    /// Whether a peer that speaks the protocol may send it: false only for [`OpCode::Unknown`].
    pub const fn is_known(self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reply => "OP_REPLY",
            Self::Update => "OP_UPDATE",
            Self::Insert => "OP_INSERT",
            Self::Reserved => "RESERVED",
            Self::Query => "OP_QUERY",
            Self::GetMore => "OP_GET_MORE",
            Self::Delete => "OP_DELETE",
            Self::KillCursors => "OP_KILL_CURSORS",
            Self::Command => "OP_COMMAND",
            Self::CommandReply => "OP_COMMANDREPLY",
            Self::Compressed => "OP_COMPRESSED",
            Self::Msg => "OP_MSG",
            Self::Unknown(number) => return write!(f, "opcode {number}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_round_trip() {
        for number in [0, 1, 2, 2000, 2014, -1, i32::MAX]
            .into_iter()
            .chain(2001..=2013)
        {
            assert_eq!(OpCode::from_wire(number).number(), number);
        }
    }
}
