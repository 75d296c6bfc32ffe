//! The walk over a BSON document: one element after the other, values of no interest skipped by their length.
//!
//! It must not allocate, recurse or depend on how the bytes are split; it carries only a partial key or number.
//!
//! ```text
//!              ┌──────────── pop ◀── 0 ───┐
//!              ▼                          │
//! Length ──▶ Kind ── type ──▶ Key ──▶ Fixed │ Length │ Skip │ Text │ Uuid │ Cstrings ──▶ Kind
//!    ▲                                           │
//!    └──────── a document of interest ───────────┘
//! ```
//!
//! **Invariant:** no value reaches beyond the document it lies in, whose last byte is left for its terminator.
//! So whatever a length says, the walk ends where the message ends.
//!
//! Source: BSON specification 1.1, bsonspec.org/spec.html.

use super::facts::Facts;
use super::field::{Field, Number, Scope};
use super::token::{Carry, Fault, Input};

/// Documents of interest inside each other: body, `$query`, `pipeline`, its first stage.
const DEPTH_MAX: usize = 4;

/// Least length of a document: its length and its terminator.
const DOCUMENT_LEN_MIN: usize = 5;

/// Element types, by their byte on the wire.
mod kind {
    pub(super) const DOUBLE: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const DOCUMENT: u8 = 0x03;
    pub(super) const ARRAY: u8 = 0x04;
    pub(super) const BINARY: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const OBJECT_ID: u8 = 0x07;
    pub(super) const BOOLEAN: u8 = 0x08;
    pub(super) const DATE: u8 = 0x09;
    pub(super) const NULL: u8 = 0x0A;
    pub(super) const REGEX: u8 = 0x0B;
    pub(super) const DB_POINTER: u8 = 0x0C;
    pub(super) const CODE: u8 = 0x0D;
    pub(super) const SYMBOL: u8 = 0x0E;
    pub(super) const CODE_WITH_SCOPE: u8 = 0x0F;
    pub(super) const INT32: u8 = 0x10;
    pub(super) const TIMESTAMP: u8 = 0x11;
    pub(super) const INT64: u8 = 0x12;
    pub(super) const DECIMAL128: u8 = 0x13;
    pub(super) const MAX_KEY: u8 = 0x7F;
    pub(super) const MIN_KEY: u8 = 0xFF;
}

/// How the length of a value is found.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// By its type.
    Fixed(usize),
    /// It begins with an int32.
    Sized,
    /// It is two NUL-terminated strings.
    Cstrings,
}

impl Shape {
    const fn of(kind: u8) -> Option<Self> {
        Some(match kind {
            kind::UNDEFINED | kind::NULL | kind::MAX_KEY | kind::MIN_KEY => Self::Fixed(0),
            kind::BOOLEAN => Self::Fixed(1),
            kind::INT32 => Self::Fixed(4),
            kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => Self::Fixed(8),
            kind::OBJECT_ID => Self::Fixed(12),
            kind::DECIMAL128 => Self::Fixed(16),
            kind::STRING
            | kind::DOCUMENT
            | kind::ARRAY
            | kind::BINARY
            | kind::DB_POINTER
            | kind::CODE
            | kind::SYMBOL
            | kind::CODE_WITH_SCOPE => Self::Sized,
            kind::REGEX => Self::Cstrings,
            _ => return None,
        })
    }
}

/// What the walk waits for.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The type of an element, or the end of the document.
    Kind,
    /// The key of an element.
    Key,
    /// A number or an `ObjectId` of interest.
    Fixed,
    /// The length of a value.
    Length,
    /// The first `keep` bytes of a string of interest, whose NUL is at `nul`.
    Text { keep: usize, nul: usize },
    /// The NUL of a string.
    StringEnd { nul: usize },
    /// Subtype and bytes of a binary of interest.
    Uuid,
    /// The end of a value of no interest.
    Skip { to: usize },
    /// The ends of that many NUL-terminated strings.
    Cstrings { left: u8 },
    /// Nothing: the document ended.
    Done,
}

/// A document the walk is in.
#[derive(Clone, Copy, Debug)]
struct Level {
    scope: Scope,
    /// Position of the terminator, which no value may reach.
    limit: usize,
}

/// The state of a walk over one document.
#[derive(Debug)]
pub(super) struct Walk {
    stage: Stage,
    level: Level,
    parents: [Level; DEPTH_MAX],
    depth: usize,
    /// Type of the element at hand.
    kind: u8,
    /// Interest in the element at hand.
    field: Field,
    /// No key of the document at hand was seen.
    is_first: bool,
    root: Scope,
    fault: Option<Fault>,
}

impl Walk {
    /// A walk over a document of kind `root` that begins with the next byte and must end by position `limit`.
    pub(super) const fn new(root: Scope, limit: usize) -> Self {
        let around = Level {
            scope: Scope::Plain,
            limit,
        };
        Self {
            stage: Stage::Length,
            level: around,
            parents: [around; DEPTH_MAX],
            depth: 0,
            kind: kind::DOCUMENT,
            field: Field::Root,
            is_first: true,
            root,
            fault: None,
        }
    }

    /// Bytes from position `pos` on that lie in a value of no interest.
    pub(super) fn skippable(&self, pos: usize) -> usize {
        match self.stage {
            Stage::Skip { to } => to.saturating_sub(pos),
            Stage::Kind
            | Stage::Key
            | Stage::Fixed
            | Stage::Length
            | Stage::Text { .. }
            | Stage::StringEnd { .. }
            | Stage::Uuid
            | Stage::Cstrings { .. }
            | Stage::Done => 0,
        }
    }

    /// Whether the document ended.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Walks on as far as `input` reaches, or to the end of the document.
    ///
    /// An element that lies in `input` whole goes through the stages in the order in which they stand here.
    pub(super) fn push(
        &mut self,
        carry: &mut Carry,
        input: &mut Input<'_>,
        facts: &mut Facts,
    ) -> Result<(), Fault> {
        let mut rest = *input;
        let mut stage = self.stage;
        loop {
            if matches!(stage, Stage::Kind) {
                match rest.byte() {
                    None => break,
                    Some(0) => {
                        stage = self.leave(rest.pos());
                        continue;
                    }
                    Some(kind) => self.kind = kind,
                }
                stage = Stage::Key;
            }
            if matches!(stage, Stage::Key) {
                let Some(key) = carry.cstring(&mut rest, self.level.limit)? else {
                    break;
                };
                let is_first = std::mem::take(&mut self.is_first);
                self.field = facts.field(self.level.scope, key, is_first);
                stage = self.value(rest.pos());
            }
            if matches!(stage, Stage::Length) {
                let Some(len) = carry.int32(&mut rest) else {
                    break;
                };
                stage = self.sized(len, rest.pos(), facts);
            }
            if let Stage::Text { keep, nul } = stage {
                let Some(text) = carry.bytes(&mut rest, keep) else {
                    break;
                };
                facts.text(self.field, text);
                stage = Stage::StringEnd { nul };
            }
            let is_behind = match stage {
                Stage::Kind => true,
                Stage::Fixed => self.fixed(carry, &mut rest, facts),
                Stage::StringEnd { nul } if !rest.skip_to(nul) => false,
                Stage::StringEnd { nul } => match rest.byte() {
                    None => false,
                    Some(0) if self.kind == kind::DB_POINTER => {
                        let to = rest.pos().saturating_add(12);
                        stage = Stage::Skip { to };
                        continue;
                    }
                    Some(0) => true,
                    Some(_) => {
                        return Err(Fault {
                            what: "string",
                            pos: nul,
                        });
                    }
                },
                Stage::Uuid => match carry.array::<17>(&mut rest) {
                    None => false,
                    Some([subtype, uuid @ ..]) => {
                        // Subtype 4 is a UUID; sessions have no other (sessions/driver-sessions.md § Session ID).
                        if subtype == 4 {
                            facts.uuid(self.field, uuid);
                        }
                        true
                    }
                },
                Stage::Skip { to } => rest.skip_to(to),
                Stage::Cstrings { left } => {
                    if carry.cstring(&mut rest, self.level.limit)?.is_none() {
                        break;
                    }
                    stage = match left {
                        0 | 1 => Stage::Kind,
                        left => Stage::Cstrings {
                            left: left.saturating_sub(1),
                        },
                    };
                    continue;
                }
                Stage::Key | Stage::Length | Stage::Text { .. } | Stage::Done => false,
            };
            if !is_behind {
                break;
            }
            stage = Stage::Kind;
        }
        *input = rest;
        self.stage = stage;
        self.fault.map_or(Ok(()), Err)
    }

    /// The document is none: `what` is wrong at `pos`.
    #[cold]
    fn broken(&mut self, what: &'static str, pos: usize) -> Stage {
        self.fault = Some(Fault { what, pos });
        Stage::Done
    }

    /// What to wait for behind a terminator, whose next position is `pos`.
    fn leave(&mut self, pos: usize) -> Stage {
        let pos = pos.saturating_sub(1);
        if pos != self.level.limit {
            return self.broken("document end", pos);
        }
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 {
            return Stage::Done;
        }
        // An empty document has seen none, but the one around it has: the key of this one.
        self.is_first = false;
        if let Some(parent) = self.parents.get(self.depth) {
            self.level = *parent;
        }
        Stage::Kind
    }

    /// What to wait for when the value of the element at hand begins at `pos`.
    fn value(&mut self, pos: usize) -> Stage {
        match Shape::of(self.kind) {
            None => self.broken("element type", pos),
            Some(Shape::Sized) => Stage::Length,
            Some(Shape::Cstrings) => Stage::Cstrings { left: 2 },
            Some(Shape::Fixed(width)) => {
                let to = pos.saturating_add(width);
                if to > self.level.limit {
                    return self.broken("value", pos);
                }
                if matches!(self.field, Field::None) || matches!(width, 0 | 16) {
                    return Stage::Skip { to };
                }
                Stage::Fixed
            }
        }
    }

    /// Reads a value of fixed width; false while it is incomplete.
    fn fixed(&self, carry: &mut Carry, input: &mut Input<'_>, facts: &mut Facts) -> bool {
        let number = match self.kind {
            kind::BOOLEAN => carry
                .array::<1>(input)
                .map(|[byte]| Number::Int(i64::from(byte))),
            kind::INT32 => carry
                .int32(input)
                .map(|value| Number::Int(i64::from(value))),
            kind::DOUBLE => carry
                .array(input)
                .map(|bytes| Number::Double(f64::from_le_bytes(bytes))),
            kind::OBJECT_ID => {
                let id = carry.array(input);
                if let Some(id) = id {
                    facts.object_id(self.field, id);
                }
                return id.is_some();
            }
            _ => carry
                .array(input)
                .map(|bytes| Number::Int(i64::from_le_bytes(bytes))),
        };
        if let Some(number) = number {
            facts.number(self.field, number);
        }
        number.is_some()
    }

    /// What to wait for when a value that states `len` goes on at `pos`, behind the four bytes of its length.
    fn sized(&mut self, len: i32, pos: usize, facts: &mut Facts) -> Stage {
        let start = pos.saturating_sub(4);
        // A negative length is one no document can hold.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let limit = self.level.limit;
        match self.kind {
            kind::DOCUMENT | kind::ARRAY => {
                let end = start.saturating_add(len);
                if len < DOCUMENT_LEN_MIN || end > limit {
                    return self.broken("document length", start);
                }
                if self.kind == kind::ARRAY {
                    facts.emptiness(self.field, len == DOCUMENT_LEN_MIN);
                }
                self.enter(end)
            }
            kind::BINARY => {
                let to = pos.saturating_add(1).saturating_add(len);
                if to > limit {
                    return self.broken("binary length", start);
                }
                if matches!(self.field, Field::SessionId) && len == 16 {
                    return Stage::Uuid;
                }
                Stage::Skip { to }
            }
            kind::CODE_WITH_SCOPE => {
                // int32 total, int32 string length, NUL, document: 14 bytes at least.
                let to = start.saturating_add(len);
                if len < 14 || to > limit {
                    return self.broken("code with scope length", start);
                }
                Stage::Skip { to }
            }
            kind => {
                let behind = if kind == kind::DB_POINTER { 12 } else { 0 };
                let end = pos.saturating_add(len);
                if len < 1 || end.saturating_add(behind) > limit {
                    return self.broken("string length", start);
                }
                let nul = end.saturating_sub(1);
                let is_wanted = matches!(self.field, Field::Text(_));
                if is_wanted && kind == kind::STRING {
                    return Stage::Text {
                        nul,
                        keep: len.saturating_sub(1).min(Carry::LEN_MAX),
                    };
                }
                Stage::StringEnd { nul }
            }
        }
    }

    /// Goes down into the document or array that ends at `end` when its content is of interest.
    fn enter(&mut self, end: usize) -> Stage {
        let scope = match (self.field, self.kind) {
            (Field::Root, _) => self.root,
            // Only the outermost document may wrap a command.
            (Field::Wrapped, kind::DOCUMENT) if self.depth == 1 => Scope::Body,
            (Field::Inner(scope), kind) if scope.is_array() == (kind == kind::ARRAY) => scope,
            _ => return Stage::Skip { to: end },
        };
        let Some(slot) = self.parents.get_mut(self.depth) else {
            return Stage::Skip { to: end };
        };
        *slot = self.level;
        self.depth = self.depth.saturating_add(1);
        self.level = Level {
            scope,
            limit: end.saturating_sub(1),
        };
        self.is_first = true;
        Stage::Kind
    }
}
