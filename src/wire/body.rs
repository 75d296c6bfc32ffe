//! The body of a message: what lies between its header and its end, for the three opcodes that are read.
//!
//! ```text
//! OP_MSG    flagBits 4 │ section… │ checksum 4, if bit 0
//!           section: kind 0 │ document
//!                    kind 1 │ size 4 │ identifier cstring │ document…       (size counts itself)
//! OP_QUERY  flags 4 │ fullCollectionName cstring │ numberToSkip 4 │ numberToReturn 4 │ document │ document?
//! OP_REPLY  responseFlags 4 │ cursorID 8 │ startingFrom 4 │ numberReturned 4 │ document…
//! ```
//!
//! **Invariant:** what is found does not depend on how the body is cut into pieces, and what a length says is
//! believed only within the length around it.
//!
//! Sources: specifications repository, `message/OP_MSG.md` § Sections; MongoDB Wire Protocol reference § `OP_QUERY`,
//! § `OP_REPLY` of server 5.0.

use bson::raw::RawDocument;

use super::capture::Capture;
use super::facts::Facts;
use super::field::Scope;
use super::flags::MsgFlags;
use super::reply::ReplyFacts;
use super::request::RequestFacts;
use super::token::{Carry, Fault, Input};
use super::walk::Walk;
use super::{Content, Direction, OpCode, Reply, Request};

/// `responseFlags` bit 1 of an `OP_REPLY`: the query failed.
const QUERY_FAILURE: i32 = 1 << 1;

/// What the body waits for.
#[derive(Clone, Copy, Debug)]
enum Layout {
    MsgFlags,
    /// The kind of the next section of an `OP_MSG`, or its end.
    MsgSection,
    /// The size of a section of kind 1.
    MsgSequence,
    /// The end of a section of kind 1.
    MsgSequenceEnd {
        to: usize,
    },
    /// The body document of an `OP_MSG`.
    MsgDocument,
    QueryFlags,
    QueryName,
    QueryNumbers,
    ReplyHead,
    /// The first document of an `OP_QUERY` or `OP_REPLY`.
    Document,
    /// Nothing: the rest is skipped.
    Rest,
}

/// The state of reading one body.
#[derive(Debug)]
pub(super) struct Body {
    layout: Layout,
    /// Position of the next byte, which is how many were seen.
    pos: usize,
    /// Where the sections end.
    end: usize,
    flags: MsgFlags,
    is_capturing: bool,
    has_document: bool,
    carry: Carry,
    walk: Walk,
    facts: Facts,
    capture: Capture,
}

impl Body {
    /// The body of a message with `opcode` in `direction`, `len` bytes long; captures its document when asked to.
    pub(super) fn new(
        opcode: OpCode,
        direction: Direction,
        len: usize,
        is_capturing: bool,
    ) -> Self {
        let layout = match (opcode, direction) {
            (OpCode::Msg, _) => Layout::MsgFlags,
            (OpCode::Query, Direction::ToServer) => Layout::QueryFlags,
            (OpCode::Reply, Direction::ToClient) => Layout::ReplyHead,
            _ => Layout::Rest,
        };
        Self {
            layout,
            pos: 0,
            end: len,
            flags: MsgFlags::default(),
            is_capturing,
            has_document: false,
            carry: Carry::new(),
            walk: Walk::new(Scope::Body, len),
            facts: match (layout, direction) {
                (Layout::Rest, _) => Facts::Skipped,
                (_, Direction::ToServer) => Facts::Request(RequestFacts::new()),
                (_, Direction::ToClient) => Facts::Reply(ReplyFacts::new()),
            },
            capture: Capture::new(len),
        }
    }

    pub(super) const fn flags(&self) -> MsgFlags {
        self.flags
    }

    /// Heap bytes held.
    pub(super) fn held_bytes(&self) -> usize {
        self.capture.held_bytes()
    }

    /// Whether nothing that is still to come can add to what was found.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.layout, Layout::Rest) || self.walk.is_done()
    }

    /// How many of the next bytes of the body, of which `left` were not seen, can add nothing to what was found.
    pub(super) fn skippable(&self, left: usize) -> usize {
        if self.is_capturing {
            return 0;
        }
        match self.layout {
            Layout::Rest => left,
            Layout::MsgSequenceEnd { to } => to.saturating_sub(self.pos),
            Layout::MsgDocument | Layout::Document => self.walk.skippable(self.pos),
            Layout::MsgFlags
            | Layout::MsgSection
            | Layout::MsgSequence
            | Layout::QueryFlags
            | Layout::QueryName
            | Layout::QueryNumbers
            | Layout::ReplyHead => 0,
        }
    }

    /// The next `len` bytes went by unseen; at most [`Self::skippable`].
    pub(super) fn skip(&mut self, len: usize) {
        self.pos = self.pos.saturating_add(len);
    }

    /// Reads `piece`, the next bytes of the body.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Fault> {
        let mut input = Input::new(piece, self.pos, self.end);
        self.pos = self.pos.saturating_add(piece.len());
        if matches!(self.layout, Layout::MsgFlags) {
            let Some(flags) = self.carry.array(&mut input) else {
                return Ok(());
            };
            self.flags = MsgFlags::from_wire(flags);
            self.layout = Layout::MsgSection;
            if self.flags.is_checksum_present() {
                self.end = self.end.saturating_sub(4);
                self.walk = Walk::new(Scope::Body, self.end);
                input.end_at(self.end);
            }
        }
        self.read(&mut input)
    }

    /// Reads on until `input` is used up.
    fn read(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        loop {
            match self.layout {
                Layout::Rest | Layout::MsgFlags => return Ok(()),
                Layout::MsgSection => {
                    let Some(kind) = input.byte() else {
                        return Ok(());
                    };
                    self.section(kind, input.pos())?;
                }
                Layout::MsgSequence => {
                    let Some(size) = self.carry.int32(input) else {
                        return Ok(());
                    };
                    self.layout = Layout::MsgSequenceEnd {
                        to: self.sequence_end(size, input.pos().saturating_sub(4))?,
                    };
                }
                Layout::MsgSequenceEnd { to } => {
                    if !input.skip_to(to) {
                        return Ok(());
                    }
                    self.layout = Layout::MsgSection;
                }
                Layout::MsgDocument | Layout::Document => {
                    self.walk.push(&mut self.carry, input, &mut self.facts)?;
                    if !self.walk.is_done() {
                        return Ok(());
                    }
                    self.capture.ended_at(input.pos());
                    self.layout = if matches!(self.layout, Layout::MsgDocument) {
                        Layout::MsgSection
                    } else {
                        Layout::Rest
                    };
                }
                Layout::QueryFlags => {
                    if self.carry.int32(input).is_none() {
                        return Ok(());
                    }
                    self.layout = Layout::QueryName;
                }
                Layout::QueryName => {
                    let Some(name) = self.carry.cstring(input, self.end)? else {
                        return Ok(());
                    };
                    // Only `<database>.$cmd` takes commands; elsewhere the document is a filter.
                    let scope = if name.ends_with(b".$cmd") {
                        Scope::Body
                    } else {
                        Scope::Plain
                    };
                    self.walk = Walk::new(scope, self.end);
                    self.layout = Layout::QueryNumbers;
                }
                Layout::QueryNumbers => {
                    if self.carry.array::<8>(input).is_none() {
                        return Ok(());
                    }
                    self.begin_document(Layout::Document, input.pos());
                }
                Layout::ReplyHead => {
                    let Some(head) = self.carry.array::<20>(input) else {
                        return Ok(());
                    };
                    self.reply_head(&head, input.pos());
                }
            }
        }
    }

    /// A section of `kind` begins; `pos` is behind the byte that says so.
    fn section(&mut self, kind: u8, pos: usize) -> Result<(), Fault> {
        match kind {
            0 if self.has_document => {
                return Err(Fault {
                    what: "second body section",
                    pos: pos.saturating_sub(1),
                });
            }
            0 => self.begin_document(Layout::MsgDocument, pos),
            1 => self.layout = Layout::MsgSequence,
            // Kind 2 is internal to servers; its length is not known to everybody, nor is that of later kinds.
            _ => {
                if !self.has_document {
                    self.facts.truncate();
                }
                self.layout = Layout::Rest;
            }
        }
        Ok(())
    }

    /// Where the section of kind 1 ends that states `size` at position `start`.
    fn sequence_end(&self, size: i32, start: usize) -> Result<usize, Fault> {
        // The least: the size itself and the NUL of an empty identifier.
        usize::try_from(size)
            .ok()
            .filter(|size| *size >= 5)
            .map(|size| start.saturating_add(size))
            .filter(|end| *end <= self.end)
            .ok_or(Fault {
                what: "section size",
                pos: start,
            })
    }

    fn begin_document(&mut self, layout: Layout, pos: usize) {
        self.has_document = true;
        self.capture.begins_at(pos);
        self.layout = layout;
    }

    fn reply_head(&mut self, head: &[u8; 20], pos: usize) {
        let [f0, f1, f2, f3, cursor @ .., _, _, _, _, n0, n1, n2, n3] = *head;
        let flags = i32::from_le_bytes([f0, f1, f2, f3]);
        if let Facts::Reply(facts) = &mut self.facts {
            facts.legacy_head(flags & QUERY_FAILURE != 0, i64::from_le_bytes(cursor));
        }
        if i32::from_le_bytes([n0, n1, n2, n3]) > 0 {
            self.begin_document(Layout::Document, pos);
        } else {
            self.layout = Layout::Rest;
        }
    }

    /// Keeps what must outlive `piece`, the bytes pushed last, because the message goes on.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        if self.is_capturing && self.has_document {
            let start = self.pos.saturating_sub(piece.len());
            self.capture.keep(piece, start);
        }
    }

    /// The walk ended at a limit: what was not found may still be there.
    pub(super) fn truncate(&mut self) {
        self.facts.truncate();
        self.layout = Layout::Rest;
    }

    /// Checks that the body is complete where it ends.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.layout {
            Layout::Rest => Ok(()),
            Layout::MsgSection if self.has_document => Ok(()),
            Layout::MsgFlags
            | Layout::MsgSection
            | Layout::MsgSequence
            | Layout::MsgSequenceEnd { .. }
            | Layout::MsgDocument
            | Layout::QueryFlags
            | Layout::QueryName
            | Layout::QueryNumbers
            | Layout::ReplyHead
            | Layout::Document => Err(Fault {
                what: "message end",
                pos: self.end,
            }),
        }
    }

    /// What was found; `piece` are the bytes pushed last, unless they were kept.
    pub(super) fn content<'a>(&'a mut self, piece: &'a [u8]) -> Content<'a> {
        let document = if self.is_capturing && self.walk.is_done() {
            let start = self.pos.saturating_sub(piece.len());
            self.capture
                .document(piece, start)
                .and_then(|document| RawDocument::from_bytes(document).ok())
        } else {
            None
        };
        match &mut self.facts {
            Facts::Request(facts) => Content::Request(Request {
                command: facts.command,
                document,
                fields: facts.finish(),
            }),
            Facts::Reply(facts) => Content::Reply(Reply {
                document,
                fields: facts.finish(),
            }),
            Facts::Skipped => Content::Skipped,
        }
    }
}
