//! Messages to test with, written byte by byte, and a sink that keeps what it was shown.

use std::io::Write as _;

use super::{
    Command, Compressor, Content, Decoder, DecoderLimits, Direction, Header, Message, ReplyFields,
    RequestFields, Scratch, Sink, WireError,
};

/// A BSON document under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Doc(Vec<u8>);

impl Doc {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Appends an element with the bytes of its value.
    pub(super) fn raw(mut self, kind: u8, key: &str, value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn int32(self, key: &str, value: i32) -> Self {
        self.raw(0x10, key, &value.to_le_bytes())
    }

    pub(super) fn int64(self, key: &str, value: i64) -> Self {
        self.raw(0x12, key, &value.to_le_bytes())
    }

    pub(super) fn double(self, key: &str, value: f64) -> Self {
        self.raw(0x01, key, &value.to_le_bytes())
    }

    pub(super) fn bool(self, key: &str, value: bool) -> Self {
        self.raw(0x08, key, &[u8::from(value)])
    }

    pub(super) fn string(self, key: &str, value: &str) -> Self {
        self.raw(0x02, key, &string(value))
    }

    pub(super) fn doc(self, key: &str, value: Self) -> Self {
        self.raw(0x03, key, &value.build())
    }

    pub(super) fn array(self, key: &str, value: Self) -> Self {
        self.raw(0x04, key, &value.build())
    }

    pub(super) fn binary(self, key: &str, subtype: u8, value: &[u8]) -> Self {
        let mut bytes = len_of(value.len()).to_vec();
        bytes.push(subtype);
        bytes.extend_from_slice(value);
        self.raw(0x05, key, &bytes)
    }

    pub(super) fn build(self) -> Vec<u8> {
        let mut bytes = len_of(self.0.len() + 5).to_vec();
        bytes.extend(self.0);
        bytes.push(0);
        bytes
    }
}

fn len_of(len: usize) -> [u8; 4] {
    i32::try_from(len).unwrap().to_le_bytes()
}

/// The bytes of a BSON string.
pub(super) fn string(value: &str) -> Vec<u8> {
    let mut bytes = len_of(value.len() + 1).to_vec();
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(0);
    bytes
}

/// A whole message with request id 7 in answer to 5.
pub(super) fn message(opcode: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = len_of(body.len() + 16).to_vec();
    for field in [7, 5, opcode] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A section of kind 0.
pub(super) fn body_section(doc: Doc) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(doc.build());
    bytes
}

/// A section of kind 1.
pub(super) fn sequence(identifier: &str, docs: &[Doc]) -> Vec<u8> {
    let mut content = identifier.as_bytes().to_vec();
    content.push(0);
    for doc in docs {
        content.extend(doc.clone().build());
    }
    let mut bytes = vec![1];
    bytes.extend(len_of(content.len() + 4));
    bytes.extend(content);
    bytes
}

/// The body of an `OP_MSG`.
pub(super) fn msg_body(flags: u32, sections: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = flags.to_le_bytes().to_vec();
    bytes.extend(sections.concat());
    if flags & 1 != 0 {
        bytes.extend(*b"\0\xffcr");
    }
    bytes
}

/// A whole `OP_MSG` with one body section.
pub(super) fn msg(doc: Doc) -> Vec<u8> {
    message(2013, &msg_body(0, &[body_section(doc)]))
}

/// A whole `OP_QUERY`.
pub(super) fn query(collection: &str, doc: Doc) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(collection.as_bytes());
    body.push(0);
    body.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    body.extend(doc.build());
    message(2004, &body)
}

/// A whole `OP_REPLY`.
pub(super) fn reply(flags: i32, cursor_id: i64, docs: &[Doc]) -> Vec<u8> {
    let mut body = flags.to_le_bytes().to_vec();
    body.extend(cursor_id.to_le_bytes());
    body.extend([0; 4]);
    body.extend(len_of(docs.len()));
    for doc in docs {
        body.extend(doc.clone().build());
    }
    message(1, &body)
}

pub(super) fn deflate(compressor: Compressor, bytes: &[u8]) -> Vec<u8> {
    match compressor {
        Compressor::Noop => bytes.to_vec(),
        Compressor::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        Compressor::Zlib => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compressor::Zstd => zstd::bulk::compress(bytes, 3).unwrap(),
    }
}

/// An envelope round `content`, which is said to become `stated_len` bytes.
pub(super) fn envelope(opcode: i32, stated_len: i32, id: u8, content: &[u8]) -> Vec<u8> {
    let mut body = opcode.to_le_bytes().to_vec();
    body.extend(stated_len.to_le_bytes());
    body.push(id);
    body.extend_from_slice(content);
    message(2012, &body)
}

pub(super) const COMPRESSORS: [Compressor; 4] = [
    Compressor::Noop,
    Compressor::Snappy,
    Compressor::Zlib,
    Compressor::Zstd,
];

pub(super) fn id_of(compressor: Compressor) -> u8 {
    u8::try_from(
        COMPRESSORS
            .iter()
            .position(|known| *known == compressor)
            .unwrap(),
    )
    .unwrap()
}

/// The same message in an envelope.
pub(super) fn compressed(compressor: Compressor, message: &[u8]) -> Vec<u8> {
    let opcode = i32::from_le_bytes(message[12..16].try_into().unwrap());
    let body = &message[16..];
    envelope(
        opcode,
        i32::try_from(body.len()).unwrap(),
        id_of(compressor),
        &deflate(compressor, body),
    )
}

/// What a message said, without its borrows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Request(Command, RequestFields),
    Reply(ReplyFields),
    Skipped,
}

/// What a sink was shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    Started(Header),
    Ended {
        header: Header,
        opcode: i32,
        compressor: Option<Compressor>,
        /// `moreToCome`, `exhaustAllowed`, `checksumPresent`.
        flags: [bool; 3],
        said: Said,
        document: Option<Vec<u8>>,
    },
}

impl Sink for Vec<Shown> {
    fn message_started(&mut self, header: &Header) {
        self.push(Shown::Started(*header));
    }

    fn message_ended(&mut self, message: &Message<'_>) {
        let (said, document) = match message.content {
            Content::Request(request) => (
                Said::Request(request.command, *request.fields),
                request.document,
            ),
            Content::Reply(reply) => (Said::Reply(*reply.fields), reply.document),
            Content::Skipped => (Said::Skipped, None),
        };
        self.push(Shown::Ended {
            header: message.header,
            opcode: message.opcode.number(),
            compressor: message.compressor,
            flags: [
                message.more_to_come,
                message.exhaust_allowed,
                message.checksum_present,
            ],
            said,
            document: document.map(|document| document.as_bytes().to_vec()),
        });
    }
}

/// Decodes `bytes` in chunks of the given lengths, the last of which repeats; checks the limits on the way.
pub(super) fn decode(
    direction: Direction,
    limits: DecoderLimits,
    bytes: &[u8],
    chunk_lens: &[usize],
) -> (Vec<Shown>, Result<(), WireError>) {
    decode_all(direction, limits, bytes, chunk_lens, false)
}

/// The same, and what nobody needs to see is not shown to the decoder, but skipped.
pub(super) fn decode_skipping(
    direction: Direction,
    limits: DecoderLimits,
    bytes: &[u8],
    chunk_lens: &[usize],
) -> (Vec<Shown>, Result<(), WireError>) {
    decode_all(direction, limits, bytes, chunk_lens, true)
}

fn decode_all(
    direction: Direction,
    limits: DecoderLimits,
    bytes: &[u8],
    chunk_lens: &[usize],
    is_skipping: bool,
) -> (Vec<Shown>, Result<(), WireError>) {
    let mut decoder = Decoder::new(direction, limits);
    let mut scratch = Scratch::default();
    let mut shown = Vec::new();
    let mut result = Ok(());
    let mut rest = bytes;
    let mut lens = chunk_lens.iter().copied();
    let last = chunk_lens.last().copied().unwrap_or(usize::MAX).max(1);
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(lens.next().unwrap_or(last).min(rest.len()));
        let is_unseen = is_skipping && !chunk.is_empty() && chunk.len() <= decoder.skippable();
        result = if is_unseen {
            decoder.skip(chunk.len())
        } else if chunk_lens.is_empty() {
            decoder.push(chunk, &mut shown)
        } else {
            decoder.push_with(chunk, &mut shown, &mut scratch)
        };
        assert!(scratch.held_bytes() <= 256 * 1024);
        assert!(decoder.held_bytes() <= limits.held_bytes_max());
        assert!(decoder.is_mid_message() || decoder.held_bytes() == 0);
        rest = behind;
    }
    assert_eq!(decoder.bytes_seen(), bytes.len() as u64);
    if result.is_err() {
        assert_eq!(decoder.held_bytes(), 0);
        assert_eq!(decoder.push(b"more", &mut shown), result);
    }
    (shown, result)
}

/// Decodes `bytes` in one chunk and byte by byte, which must agree; gives what was shown.
pub(super) fn decode_both_ways(
    direction: Direction,
    bytes: &[u8],
) -> (Vec<Shown>, Result<(), WireError>) {
    let whole = decode(direction, DecoderLimits::default(), bytes, &[]);
    let step = if bytes.len() > 100_000 { 1021 } else { 1 };
    assert_eq!(
        decode(direction, DecoderLimits::default(), bytes, &[step]),
        whole
    );
    whole
}

/// The fields of the one request in `bytes`.
pub(super) fn request_of(bytes: &[u8]) -> (Command, RequestFields) {
    let (shown, result) = decode_both_ways(Direction::ToServer, bytes);
    assert_eq!(result, Ok(()));
    match shown.as_slice() {
        [
            Shown::Started(_),
            Shown::Ended {
                said: Said::Request(command, fields),
                ..
            },
        ] => (*command, *fields),
        other => panic!("not one request: {other:?}"),
    }
}

/// The fields of the one reply in `bytes`.
pub(super) fn reply_of(bytes: &[u8]) -> ReplyFields {
    let (shown, result) = decode_both_ways(Direction::ToClient, bytes);
    assert_eq!(result, Ok(()));
    match shown.as_slice() {
        [
            Shown::Started(_),
            Shown::Ended {
                said: Said::Reply(fields),
                ..
            },
        ] => *fields,
        other => panic!("not one reply: {other:?}"),
    }
}
