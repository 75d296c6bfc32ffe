//! Conversations for tests: messages as bytes, a tracker that reads them, and everything it tells.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the facts it is about"
)]

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use bson::rawdoc;

use super::{
    Ending, Exchange, Facts, Initiator, Manner, Observation, ReplyError, Role, State, Tracker,
};
use crate::time::Timestamp;
use crate::wire::{Command, DecoderLimits, Direction, Scratch};

/// `OP_MSG` flag bit 1.
pub(super) const MORE_TO_COME: u32 = 1 << 1;
/// `OP_MSG` flag bit 16.
pub(super) const EXHAUST_ALLOWED: u32 = 1 << 16;

/// A message with its header.
pub(super) fn message(request_id: i32, response_to: i32, opcode: i32, body: &[u8]) -> Vec<u8> {
    let len = i32::try_from(body.len() + 16).unwrap();
    let mut bytes = Vec::new();
    for field in [len, request_id, response_to, opcode] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// An `OP_MSG` with one body section.
pub(super) fn op_msg(
    request_id: i32,
    response_to: i32,
    flags: u32,
    document: &RawDocument,
) -> Vec<u8> {
    message(request_id, response_to, 2013, &op_msg_body(flags, document))
}

fn op_msg_body(flags: u32, document: &RawDocument) -> Vec<u8> {
    let mut body = flags.to_le_bytes().to_vec();
    body.push(0);
    body.extend_from_slice(document.as_bytes());
    body
}

/// An `OP_MSG` in an `OP_COMPRESSED` with snappy.
pub(super) fn snappy_msg(
    request_id: i32,
    response_to: i32,
    flags: u32,
    document: &RawDocument,
) -> Vec<u8> {
    let inner = op_msg_body(flags, document);
    let mut body = 2013_i32.to_le_bytes().to_vec();
    body.extend_from_slice(&i32::try_from(inner.len()).unwrap().to_le_bytes());
    body.push(1);
    body.extend(snap::raw::Encoder::new().compress_vec(&inner).unwrap());
    message(request_id, response_to, 2012, &body)
}

/// An `OP_QUERY` on `admin.$cmd`.
pub(super) fn op_query(request_id: i32, document: &RawDocument) -> Vec<u8> {
    let mut body = 4_i32.to_le_bytes().to_vec();
    body.extend_from_slice(b"admin.$cmd\0");
    body.extend_from_slice(&0_i32.to_le_bytes());
    body.extend_from_slice(&(-1_i32).to_le_bytes());
    body.extend_from_slice(document.as_bytes());
    message(request_id, 0, 2004, &body)
}

/// An `OP_REPLY` with one document.
pub(super) fn op_reply(request_id: i32, response_to: i32, document: &RawDocument) -> Vec<u8> {
    let mut body = 8_i32.to_le_bytes().to_vec();
    body.extend_from_slice(&0_i64.to_le_bytes());
    body.extend_from_slice(&0_i32.to_le_bytes());
    body.extend_from_slice(&1_i32.to_le_bytes());
    body.extend_from_slice(document.as_bytes());
    message(request_id, response_to, 1, &body)
}

/// A binary value.
pub(super) fn binary(bytes: &[u8]) -> bson::Binary {
    bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

/// `document` with the session `id` repeated sixteen times.
pub(super) fn with_session(mut document: RawDocumentBuf, id: u8) -> RawDocumentBuf {
    let session = bson::Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: vec![id; 16],
    };
    document.append(bson::raw::cstr!("lsid"), rawdoc! { "id": session });
    document
}

/// `document` with `name` added.
pub(super) fn with<'a>(
    mut document: RawDocumentBuf,
    name: &'static bson::raw::CStr,
    value: impl Into<RawBsonRef<'a>>,
) -> RawDocumentBuf {
    document.append(name, value.into());
    document
}

/// A first hello of a driver whose name tells nothing.
pub(super) fn first_hello() -> RawDocumentBuf {
    rawdoc! {
        "hello": 1,
        "client": {
            "application": { "name": "orders" },
            "driver": { "name": "PyMongo|c", "version": "4.20.0|" },
            "os": { "type": "Linux" },
        },
        "$db": "admin",
    }
}

/// A later hello with nothing in it.
pub(super) fn bare_hello() -> RawDocumentBuf {
    rawdoc! { "hello": 1, "$db": "admin" }
}

/// An awaitable hello.
pub(super) fn streaming_hello() -> RawDocumentBuf {
    rawdoc! {
        "hello": 1,
        "topologyVersion": { "processId": bson::oid::ObjectId::from_bytes([1; 12]), "counter": 6_i64 },
        "maxAwaitTimeMS": 10_000_i64,
        "$db": "admin",
    }
}

/// What a primary answers.
pub(super) fn hello_reply() -> RawDocumentBuf {
    rawdoc! {
        "isWritablePrimary": true,
        "setName": "rs0",
        "hosts": ["a:1"],
        "me": "a:1",
        "topologyVersion": { "processId": bson::oid::ObjectId::from_bytes([1; 12]), "counter": 6_i64 },
        "connectionId": 7,
        "maxWireVersion": 17,
        "ok": 1.0,
    }
}

/// An ordinary command with a session.
pub(super) fn find() -> RawDocumentBuf {
    with_session(rawdoc! { "find": "a", "$db": "shop" }, 1)
}

/// What a command that opens a cursor is answered; 0 opens none.
pub(super) fn cursor(id: i64) -> RawDocumentBuf {
    rawdoc! { "cursor": { "id": id, "firstBatch": [{ "a": 1 }], "ns": "shop.a" }, "ok": 1.0 }
}

/// What succeeds and says no more.
pub(super) fn ok() -> RawDocumentBuf {
    rawdoc! { "ok": 1.0 }
}

/// What fails.
pub(super) fn failed(code: i32, name: &str) -> RawDocumentBuf {
    rawdoc! { "ok": 0.0, "errmsg": "no", "code": code, "codeName": name }
}

/// A hello that begins to authenticate.
pub(super) fn speculative_hello(mechanism: &str, payload: &[u8]) -> RawDocumentBuf {
    rawdoc! {
        "hello": 1,
        "saslSupportedMechs": "shop.alice",
        "speculativeAuthenticate": {
            "saslStart": 1, "mechanism": mechanism, "payload": binary(payload), "db": "shop",
        },
        "$db": "admin",
    }
}

/// The second message of SCRAM.
pub(super) fn sasl_continue() -> RawDocumentBuf {
    rawdoc! {
        "saslContinue": 1, "conversationId": 1,
        "payload": binary(b"c=biws,r=x,p=PROOFPROOF"), "$db": "shop",
    }
}

/// Everything a tracker told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Message(Direction, u32),
    Request(Command),
    Killed(i64),
    Exchange(Exchange),
    Error(ReplyError),
    Activity(State, u32),
    Unanswered(Vec<Command>),
    Observed(Observation),
}

#[derive(Debug, Default)]
pub(super) struct Recorder(pub(super) Vec<Fact>);

impl Facts for Recorder {
    fn message_seen(&mut self, direction: Direction, wire_len: u32) {
        self.0.push(Fact::Message(direction, wire_len));
    }

    fn request_seen(&mut self, _: Timestamp, command: Command, _: i32) {
        self.0.push(Fact::Request(command));
    }

    fn cursor_killed(&mut self, _: Timestamp, id: i64) {
        self.0.push(Fact::Killed(id));
    }

    fn exchange_ended(&mut self, exchange: &Exchange) {
        self.0.push(Fact::Exchange(*exchange));
    }

    fn error_seen(&mut self, _: Timestamp, error: &ReplyError) {
        self.0.push(Fact::Error(*error));
    }

    fn activity_changed(&mut self, _: Timestamp, state: State, in_flight: u32) {
        self.0.push(Fact::Activity(state, in_flight));
    }

    fn left_unanswered(&mut self, commands: impl Iterator<Item = Command>) {
        let commands: Vec<_> = commands.collect();
        if !commands.is_empty() {
            self.0.push(Fact::Unanswered(commands));
        }
    }

    fn observed(&mut self, _: Timestamp, observation: Observation) {
        self.0.push(Fact::Observed(observation));
    }
}

/// Milliseconds after the epoch.
pub(super) fn ms(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

/// A connection whose peers say what a test lets them say. A chunk is read at the moment `now` and written one
/// millisecond later; then it is later still by one.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) tracker: Tracker,
    pub(super) facts: Recorder,
    pub(super) now: u64,
    reply_id: i32,
}

impl Script {
    /// Accepted at 0.
    pub(super) fn accepted() -> Self {
        let limits = DecoderLimits {
            capture_limit_bytes: 16 * 1024,
            inflate_limit_bytes: 64 * 1024,
        };
        Self {
            tracker: Tracker::new(ms(0), limits),
            facts: Recorder::default(),
            now: 1,
            reply_id: 1_000_000,
        }
    }

    /// Accepted and dialled at 0.
    pub(super) fn dialled() -> Self {
        let mut script = Self::accepted();
        script.tracker.dialled(ms(0), &mut script.facts);
        script
    }

    /// Dialled, and the first hello answered.
    pub(super) fn ready() -> Self {
        let mut script = Self::dialled();
        script.ask(0, &first_hello());
        script.answer(0, &hello_reply());
        script.facts.0.clear();
        script
    }

    pub(super) fn chunk(&mut self, direction: Direction, bytes: &[u8]) {
        let (read_at, written_at) = (ms(self.now), ms(self.now + 1));
        let (facts, scratch) = (&mut self.facts, &mut Scratch::default());
        self.tracker
            .chunk(direction, bytes, read_at, written_at, facts, scratch);
        self.now += 2;
    }

    pub(super) fn client(&mut self, bytes: &[u8]) {
        self.chunk(Direction::ToServer, bytes);
    }

    pub(super) fn server(&mut self, bytes: &[u8]) {
        self.chunk(Direction::ToClient, bytes);
    }

    /// The client sends an `OP_MSG`.
    pub(super) fn ask(&mut self, id: i32, document: &RawDocument) {
        self.client(&op_msg(id, 0, 0, document));
    }

    /// The server answers with an `OP_MSG`; gives its id.
    pub(super) fn answer(&mut self, to: i32, document: &RawDocument) -> i32 {
        self.answer_with(to, 0, document)
    }

    pub(super) fn answer_with(&mut self, to: i32, flags: u32, document: &RawDocument) -> i32 {
        self.reply_id += 1;
        self.server(&op_msg(self.reply_id, to, flags, document));
        self.reply_id
    }

    pub(super) fn end(&mut self, initiator: Initiator) -> Ending {
        self.tracker
            .ended(initiator, Manner::Fin, ms(self.now), &mut self.facts)
    }

    /// What was observed since the last look.
    pub(super) fn observed(&mut self) -> Vec<Observation> {
        self.take(|fact| match fact {
            Fact::Observed(observation) => Some(observation.clone()),
            _ => None,
        })
    }

    pub(super) fn exchanges(&mut self) -> Vec<Exchange> {
        self.take(|fact| match fact {
            Fact::Exchange(exchange) => Some(*exchange),
            _ => None,
        })
    }

    pub(super) fn roles(&mut self) -> Vec<Role> {
        self.take(|fact| match fact {
            Fact::Observed(Observation::RoleFound(role)) => Some(*role),
            _ => None,
        })
    }

    pub(super) fn activity(&mut self) -> Vec<(State, u32)> {
        self.take(|fact| match fact {
            Fact::Activity(state, in_flight) => Some((*state, *in_flight)),
            _ => None,
        })
    }

    pub(super) fn errors(&mut self) -> Vec<ReplyError> {
        self.take(|fact| match fact {
            Fact::Error(error) => Some(*error),
            _ => None,
        })
    }

    /// The facts that `choose` wants, taken out of the record.
    pub(super) fn take<T>(&mut self, choose: impl Fn(&Fact) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.facts.0.retain(|fact| match choose(fact) {
            Some(chosen) => {
                taken.push(chosen);
                false
            }
            None => true,
        });
        taken
    }
}
