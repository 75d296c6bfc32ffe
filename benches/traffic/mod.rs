//! Messages to measure with, and a connection that reads them as the tap does.
//!
//! Handshake and ping are recordings of a real driver; finds are made in every size, with documents that look
//! like those of an application.

#![expect(
    clippy::unwrap_used,
    reason = "the messages are our own: one that cannot be made ends the measurement"
)]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{Binary, rawdoc};

use poolscope::clients::{Directory, DirectoryLimits, Recorder, UpstreamId, UpstreamSpec};
use poolscope::connection::{Facts, Tracker};
use poolscope::observer::{Observer, Sequencer};
use poolscope::time::Timestamp;
use poolscope::timeline::{Entry, Witness};
use poolscope::wire::{Compressor, DecoderLimits, Direction, Scratch};

/// Bytes the relay reads at once; larger messages reach the tap in pieces of this length.
pub(crate) const CHUNK_LEN: usize = 256 * 1024;

/// A request and its whole reply.
#[derive(Clone, Debug)]
pub(crate) struct Exchanged {
    pub(crate) request: Vec<u8>,
    pub(crate) reply: Vec<u8>,
}

impl Exchanged {
    /// The same exchange, with another id.
    fn numbered(&self, request_id: i32) -> Self {
        let mut other = self.clone();
        other.request[4..8].copy_from_slice(&request_id.to_le_bytes());
        other.reply[8..12].copy_from_slice(&request_id.to_le_bytes());
        other
    }

    /// The same exchange, both ways compressed.
    pub(crate) fn compressed(&self, compressor: Compressor) -> Self {
        Self {
            request: envelope(compressor, &self.request),
            reply: envelope(compressor, &self.reply),
        }
    }
}

/// The first hello of a pooled connection and its reply.
pub(crate) fn hello() -> Exchanged {
    Exchanged {
        request: recorded(include_str!(
            "../../tests/fixtures/wire/rust-3.9.1/application.hello.request.hex"
        )),
        reply: recorded(include_str!(
            "../../tests/fixtures/wire/rust-3.9.1/application.hello.reply.hex"
        )),
    }
}

/// A ping with its session.
pub(crate) fn ping() -> Exchanged {
    Exchanged {
        request: recorded(include_str!(
            "../../tests/fixtures/wire/rust-3.9.1/application.ping.request.hex"
        )),
        reply: recorded(include_str!(
            "../../tests/fixtures/wire/rust-3.9.1/application.ping.reply.hex"
        )),
    }
}

/// A find whose single batch has about `reply_len` bytes, in documents of at most 1 KiB.
pub(crate) fn find(reply_len: usize) -> Exchanged {
    let session = Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![0x5a; 16],
    };
    let request = rawdoc! {
        "find": "items",
        "filter": { "from": "poolscope" },
        "batchSize": 1_000_000,
        "singleBatch": true,
        "$db": "poolscope",
        "lsid": { "id": session },
    };
    let count = (reply_len / 1024).max(1);
    let mut batch = bson::raw::RawArrayBuf::new();
    for number in 0..count {
        batch.push(document(number, reply_len.min(1024)));
    }
    let reply = rawdoc! {
        "cursor": { "firstBatch": batch, "id": 0_i64, "ns": "poolscope.items" },
        "ok": 1.0,
    };
    Exchanged {
        request: op_msg(41, 0, &request),
        reply: op_msg(97, 41, &reply),
    }
}

/// A document of exactly `len` bytes, or as short as it can be.
fn document(number: usize, len: usize) -> RawDocumentBuf {
    let with_note = |note_len: usize| {
        rawdoc! {
            "_id": i64::try_from(number).unwrap(),
            "name": { "first": "Ada", "last": "Example" },
            "active": true,
            "score": 0.5,
            "tags": ["red", "green", "blue"],
            "address": { "city": "Tallinn", "geo": { "lat": 59.437, "lon": 24.7536 } },
            "note": "x".repeat(note_len),
        }
    };
    let bare_len = with_note(0).as_bytes().len();
    with_note(len.saturating_sub(bare_len))
}

/// An `OP_MSG` with one body section.
fn op_msg(request_id: i32, response_to: i32, document: &RawDocument) -> Vec<u8> {
    let mut body = vec![0; 5];
    body.extend_from_slice(document.as_bytes());
    message(request_id, response_to, 2013, &body)
}

fn message(request_id: i32, response_to: i32, opcode: i32, body: &[u8]) -> Vec<u8> {
    let len = i32::try_from(body.len() + 16).unwrap();
    let mut bytes = Vec::with_capacity(body.len() + 16);
    for field in [len, request_id, response_to, opcode] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// `plain` in an `OP_COMPRESSED`.
fn envelope(compressor: Compressor, plain: &[u8]) -> Vec<u8> {
    let (head, content) = plain.split_at(16);
    let field = |at: usize| i32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let (id, packed) = match compressor {
        Compressor::Noop => (0, content.to_vec()),
        Compressor::Snappy => (1, snap::raw::Encoder::new().compress_vec(content).unwrap()),
        Compressor::Zlib => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(content).unwrap();
            (2, encoder.finish().unwrap())
        }
        Compressor::Zstd => (3, zstd::bulk::compress(content, 3).unwrap()),
    };
    let mut body = field(12).to_le_bytes().to_vec();
    body.extend_from_slice(&i32::try_from(content.len()).unwrap().to_le_bytes());
    body.push(id);
    body.extend_from_slice(&packed);
    message(field(4), field(8), 2012, &body)
}

/// The bytes of a recording: hexadecimal, broken into lines.
fn recorded(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A directory with one upstream.
pub(crate) fn directory(clients_max: usize) -> Arc<Directory> {
    Arc::new(Directory::new(limits(clients_max), vec![upstream()]))
}

const fn limits(clients_max: usize) -> DirectoryLimits {
    DirectoryLimits {
        clients_max,
        client_ttl: Duration::from_mins(15),
    }
}

fn upstream() -> UpstreamSpec {
    UpstreamSpec {
        name: "db".to_owned(),
        listen: "127.0.0.1:27018".to_owned(),
        address: "127.0.0.1:27017".to_owned(),
        advertised: Vec::new(),
    }
}

/// What counts for a connection.
pub(crate) trait Books: Facts {
    /// A chunk was forwarded.
    fn forwarded(&mut self, direction: Direction, bytes_count: u64, at: Timestamp);
}

impl Books for Recorder {
    fn forwarded(&mut self, direction: Direction, bytes_count: u64, at: Timestamp) {
        self.bytes_forwarded(direction, bytes_count, at);
    }
}

/// A connection as the tap follows it: forwarded bytes are counted, then looked at.
#[derive(Debug)]
pub(crate) struct Followed<B> {
    tracker: Tracker,
    books: B,
    at: Timestamp,
    exchanges_count: u64,
}

/// When connections are opened that have no moment of their own.
pub(crate) const BEGIN: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

impl<B: Books> Followed<B> {
    /// A connection behind its handshake, ready for commands.
    pub(crate) fn new(books: B, at: Timestamp) -> Self {
        Self::greeted(books, at, &hello())
    }

    fn greeted(books: B, at: Timestamp, hello: &Exchanged) -> Self {
        let mut followed = Self {
            tracker: Tracker::new(at, DecoderLimits::default()),
            books,
            at,
            exchanges_count: 0,
        };
        followed.tracker.dialled(at, &mut followed.books);
        followed.exchange(hello);
        followed
    }

    /// One exchange passes.
    pub(crate) fn exchange(&mut self, exchanged: &Exchanged) {
        self.exchanges_count += 1;
        self.pass(Direction::ToServer, &exchanged.request);
        self.pass(Direction::ToClient, &exchanged.reply);
    }

    fn pass(&mut self, direction: Direction, bytes: &[u8]) {
        for chunk in bytes.chunks(CHUNK_LEN) {
            let read_at = self.at;
            self.at = read_at + Duration::from_micros(20);
            let len = u64::try_from(chunk.len()).unwrap();
            self.books.forwarded(direction, len, self.at);
            let (books, scratch) = (&mut self.books, &mut Scratch::default());
            self.tracker
                .chunk(direction, chunk, read_at, self.at, books, scratch);
        }
    }

    /// Whether every exchange that passed was understood and answered.
    pub(crate) fn is_in_order(&self) -> bool {
        self.tracker.requests_count() == self.exchanges_count && self.tracker.is_at_rest()
    }
}

impl Followed<Recorder> {
    /// The `number`-th connection of a directory; `per_client` of them in a row are from one address.
    pub(crate) fn open(directory: &Arc<Directory>, number: u16, per_client: u16) -> Self {
        let [high, low] = (number / per_client).to_be_bytes();
        let peer = SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 20_000 + number));
        Self::new(dialled(directory, peer, BEGIN), BEGIN)
    }
}

/// The books of a connection whose server has answered the dial.
fn dialled(directory: &Arc<Directory>, peer: SocketAddr, at: Timestamp) -> Recorder {
    let mut recorder = directory.open(UpstreamId(0), peer, at);
    recorder.dialled(at, Duration::from_micros(150), None);
    recorder
}

/// The id with which a process that counts introduces its `number`-th connection, when it asks something on each.
pub(crate) fn counted(number: u16) -> i32 {
    2 * i32::from(number)
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Entry>>);

impl Witness for Told {
    fn saw(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

/// What the observer is told when one instance opens `count` connections in a row, a millisecond apart, and asks
/// something on each; and the moment of the last. `first_id` says with which request id each is introduced.
pub(crate) fn burst(count: u16, first_id: impl Fn(u16) -> i32) -> (Vec<Entry>, Timestamp) {
    let told = Arc::new(Told::default());
    let witness: Arc<dyn Witness> = Arc::clone(&told) as _;
    let directory = Arc::new(Directory::with_witness(
        limits(10),
        vec![upstream()],
        Some(witness),
    ));
    let (hello, ping) = (hello(), ping());
    let mut at = BEGIN;
    let mut open = Vec::new();
    for number in 0..count {
        at = at + Duration::from_millis(1);
        let first_id = first_id(number);
        let peer = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 20_000 + number));
        let books = dialled(&directory, peer, at);
        let mut followed = Followed::greeted(books, at, &hello.numbered(first_id));
        followed.exchange(&ping.numbered(first_id + 1));
        open.push(followed);
    }
    directory.sample(at, |entry| told.saw(entry));
    let entries = std::mem::take(&mut *told.0.lock().unwrap());
    (entries, at)
}

/// An observer that goes through it all.
pub(crate) fn observe(entries: &[Entry], until: Timestamp) -> Observer {
    let mut observer = Observer::new(Vec::new());
    let mut sequencer = Sequencer::default();
    for entry in entries {
        sequencer.push(entry.clone());
    }
    sequencer.tell_until(until, &mut observer, &mut Vec::new(), |_| {});
    observer
}
