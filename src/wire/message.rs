//! What a decoded message says: the seam between the wire and those who track connections.
//!
//! A [`Message`] is shown once, when its last byte was seen. It borrows what it can from the chunk and holds
//! only facts the tracker needs, never a document value that could be a secret or user data, except for
//! `document`: the whole body of a message within the capture limit, borrowed for the length of the call.
//!
//! **Invariant:** the same bytes give the same messages for every split of the bytes into chunks.

use bson::raw::RawDocument;
use serde::{Deserialize, Serialize};

use super::{Command, Header, OpCode};

/// The two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: replies.
    ToClient,
}

impl Direction {
    /// Both directions, requests first.
    pub const ALL: [Self; 2] = [Self::ToServer, Self::ToClient];

    /// The value of the `direction` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ToServer => "request",
            Self::ToClient => "reply",
        }
    }

    /// 0 for [`Direction::ToServer`], 1 for [`Direction::ToClient`].
    pub const fn index(self) -> usize {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }
}

/// A compression algorithm of `OP_COMPRESSED`, named as in `hello.compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compressor {
    /// 0: not compressed at all.
    Noop,
    /// 1.
    Snappy,
    /// 2.
    Zlib,
    /// 3.
    Zstd,
}

impl Compressor {
    /// The algorithm of a `compressorId`.
    pub const fn from_wire(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::Noop,
            1 => Self::Snappy,
            2 => Self::Zlib,
            3 => Self::Zstd,
            _ => return None,
        })
    }

    /// The name drivers and servers use.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// One message, seen to its end.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The header on the wire (for `OP_COMPRESSED` that of the envelope, whose ids are the message's own).
    pub header: Header,
    /// What the message is; inside `OP_COMPRESSED` the opcode that was wrapped.
    pub opcode: OpCode,
    /// The algorithm, when the message came in an `OP_COMPRESSED`.
    pub compressor: Option<Compressor>,
    /// `OP_MSG` flag bit 1: the sender does not wait (requests) or more replies follow (replies).
    pub more_to_come: bool,
    /// `OP_MSG` flag bit 16: the client takes a stream of replies.
    pub exhaust_allowed: bool,
    /// `OP_MSG` flag bit 0.
    pub checksum_present: bool,
    /// What was found in the body.
    pub content: Content<'a>,
}

/// The body of a message, as far as it is of interest.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A command: `OP_MSG` or `OP_QUERY` from the client.
    Request(Request<'a>),
    /// An answer: `OP_MSG` or `OP_REPLY` from the server.
    Reply(Reply<'a>),
    /// A removed or unknown opcode; only its length is known.
    Skipped,
}

/// A command as sent by a client.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The command's name: the first key of the body.
    pub command: Command,
    /// The whole body document when the message is within the capture limit.
    pub document: Option<&'a RawDocument>,
    /// What the walk found at the top level.
    pub fields: &'a RequestFields,
}

/// Facts about a request found at the top level of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFields {
    /// `lsid.id`: the logical session.
    pub lsid: Option<[u8; 16]>,
    /// `txnNumber`.
    pub txn_number: Option<i64>,
    /// `startTransaction: true`.
    pub starts_transaction: bool,
    /// `autocommit: false`: part of a multi-statement transaction.
    pub in_transaction: bool,
    /// The cursor a `getMore` continues.
    pub cursor_id: Option<i64>,
    /// `tailable: true` together with `awaitData: true`.
    pub awaits_data: bool,
    /// An `aggregate` whose first stage is `$changeStream`.
    pub is_change_stream: bool,
    /// `maxAwaitTimeMS`.
    pub max_await_time_ms: Option<i64>,
    /// `maxTimeMS` is present; on a `getMore` only awaitData cursors may carry it.
    pub has_max_time: bool,
    /// `topologyVersion` is present: with `maxAwaitTimeMS` an awaitable hello.
    pub has_topology_version: bool,
    /// Ids listed in `killCursors.cursors` or sessions in `endSessions`, counted.
    pub listed_count: u32,
    /// The walk ended at a limit before the body did: fields that were not found may still be there.
    pub is_truncated: bool,
}

/// An answer of the server.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The whole body document when the message is within the capture limit.
    pub document: Option<&'a RawDocument>,
    /// What the walk found at the top level.
    pub fields: &'a ReplyFields,
}

/// Facts about a reply found at the top level of its body, after a batch of any size too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyFields {
    /// `ok`, whatever its numeric type; for `OP_REPLY` with `QueryFailure` false.
    pub ok: Option<bool>,
    /// `code` of a failed command.
    pub code: Option<i32>,
    /// `codeName`, cut to the length of [`CodeName`].
    pub code_name: Option<CodeName>,
    /// `errorLabels`.
    pub error_labels: ErrorLabels,
    /// `cursor.id` (or `cursorID` of `OP_REPLY`).
    pub cursor_id: Option<i64>,
    /// `cursor.firstBatch` or `cursor.nextBatch` has no element.
    pub batch_is_empty: Option<bool>,
    /// `writeErrors`, counted by code.
    pub write_errors: CodeCounts,
    /// `writeConcernError.code`.
    pub write_concern_error: Option<i32>,
    /// `remainingQuiesceTimeMillis`: the server announces its shutdown.
    pub remaining_quiesce_ms: Option<i64>,
    /// `topologyVersion.processId`, and its counter.
    pub topology_version: Option<TopologyVersion>,
    /// The walk ended at a limit before the body did: fields that were not found may still be there.
    pub is_truncated: bool,
}

/// Which run of which server process, and how often its view of the topology changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopologyVersion {
    /// An `ObjectId` drawn at the start of the server process: changes exactly when it restarted.
    pub process_id: [u8; 12],
    /// Rises with each change of role or configuration.
    pub counter: i64,
}

/// A name of an error as the server spelt it, at most 40 bytes of printable ASCII.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeName {
    len: u8,
    bytes: [u8; Self::LEN_MAX],
}

impl CodeName {
    /// Longest name kept, in bytes.
    pub const LEN_MAX: usize = 40;

    /// Keeps the printable ASCII of `text`, cut to [`Self::LEN_MAX`] bytes.
    pub fn from_wire(text: &[u8]) -> Self {
        let mut bytes = [0; Self::LEN_MAX];
        let mut len = 0_u8;
        for (slot, byte) in bytes
            .iter_mut()
            .zip(text.iter().filter(|byte| byte.is_ascii_graphic()))
        {
            *slot = *byte;
            len = len.saturating_add(1);
        }
        Self { len, bytes }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for CodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The set of known error labels a reply carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorLabels(u16);

impl ErrorLabels {
    /// Known labels, by bit.
    pub const KNOWN: [&'static str; 10] = [
        "RetryableWriteError",
        "TransientTransactionError",
        "UnknownTransactionCommitResult",
        "ResumableChangeStreamError",
        "NonResumableChangeStreamError",
        "RetryableError",
        "SystemOverloadedError",
        "NetworkError",
        "HandshakeError",
        "NoWritesPerformed",
    ];

    /// Adds `label` when it is a known one.
    pub fn insert(&mut self, label: &[u8]) {
        if let Some(bit) = Self::KNOWN
            .iter()
            .position(|known| known.as_bytes() == label)
        {
            self.0 |= 1 << bit;
        }
    }

    /// Whether `label` is in the set.
    pub fn contains(self, label: &str) -> bool {
        self.iter().any(|known| known == label)
    }

    /// The labels in the set.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        Self::KNOWN
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, label)| label)
    }
}

/// Error codes of a reply with how often each was seen; a fixed number of distinct codes is told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    distinct: [(i32, u32); Self::DISTINCT_MAX],
    used: u8,
    /// Elements whose code found no place among the distinct ones.
    pub others: u32,
}

impl CodeCounts {
    /// Distinct codes told apart in one reply.
    pub const DISTINCT_MAX: usize = 4;

    /// Counts one element with `code`.
    pub fn add(&mut self, code: i32) {
        let used = usize::from(self.used);
        if let Some((_, count)) = self
            .distinct
            .iter_mut()
            .take(used)
            .find(|(known, _)| *known == code)
        {
            *count = count.saturating_add(1);
        } else if let Some(slot) = self.distinct.get_mut(used) {
            *slot = (code, 1);
            self.used = self.used.saturating_add(1);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }

    /// The distinct codes in order of first sight, each with its count.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u32)> + '_ {
        self.distinct.iter().copied().take(usize::from(self.used))
    }

    /// Whether nothing was counted.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }
}

/// Receives what a decoder finds in one direction of a connection.
pub trait Sink {
    /// The header of a message is complete.
    fn message_started(&mut self, header: &Header);

    /// The last byte of a message was seen.
    fn message_ended(&mut self, message: &Message<'_>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_names_keep_printable_ascii_only() {
        assert_eq!(
            CodeName::from_wire(b"Not\n\"Prim\xffary").as_str(),
            "Not\"Primary"
        );
        assert_eq!(
            CodeName::from_wire(&[b'x'; 100]).as_str().len(),
            CodeName::LEN_MAX
        );
    }

    #[test]
    fn labels_are_a_set_of_known_names() {
        let mut labels = ErrorLabels::default();
        labels.insert(b"NetworkError");
        labels.insert(b"SomethingElse");
        assert!(labels.contains("NetworkError"));
        assert_eq!(labels.iter().count(), 1);
    }

    #[test]
    fn codes_beyond_the_distinct_ones_are_counted_together() {
        let mut counts = CodeCounts::default();
        for code in [1, 2, 1, 3, 4, 5, 6] {
            counts.add(code);
        }
        assert_eq!(
            counts.iter().collect::<Vec<_>>(),
            [(1, 2), (2, 1), (3, 1), (4, 1)]
        );
        assert_eq!(counts.others, 2);
    }
}
