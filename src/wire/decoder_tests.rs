//! What the decoder says about single messages, and about what is no message.

use super::samples::*;
use super::{
    Command, Compressor, Decoder, DecoderLimits, Direction, Scratch, TopologyVersion, WireError,
};

const UUID: [u8; 16] = *b"0123456789abcdef";

fn check_error(direction: Direction, bytes: &[u8], expected: WireError) {
    let (_, result) = decode_both_ways(direction, bytes);
    assert_eq!(result, Err(expected));
}

/// `ok` and a first key whose value is of no interest.
fn answer() -> Doc {
    Doc::new().double("ok", 1.0)
}

fn documents_of(direction: Direction, limits: DecoderLimits, bytes: &[u8]) -> Vec<bool> {
    let whole = decode(direction, limits, bytes, &[]);
    assert_eq!(decode(direction, limits, bytes, &[1]), whole);
    whole
        .0
        .into_iter()
        .filter_map(|shown| match shown {
            Shown::Started(_) => None,
            Shown::Ended { document, .. } => Some(document.is_some()),
        })
        .collect()
}

#[test]
fn an_idle_decoder_is_small_and_holds_nothing() {
    assert!(size_of::<Decoder>() < 200, "{} bytes", size_of::<Decoder>());
    let ping = msg(Doc::new().int32("ping", 1));
    let mut decoder = Decoder::new(Direction::ToServer, DecoderLimits::default());
    let mut shown: Vec<Shown> = Vec::new();
    decoder.push(&ping[..3], &mut shown).unwrap();
    assert!(decoder.is_mid_message());
    assert_eq!((decoder.held_bytes(), shown.len()), (0, 0));
    decoder.push(&ping[3..20], &mut shown).unwrap();
    assert!(decoder.is_mid_message());
    assert!(decoder.held_bytes() > 0);
    decoder.push(&ping[20..], &mut shown).unwrap();
    assert!(!decoder.is_mid_message());
    assert_eq!((decoder.held_bytes(), shown.len()), (0, 2));
}

#[test]
fn fields_of_requests_are_found() {
    let transaction = msg(Doc::new()
        .string("insert", "users")
        .doc("lsid", Doc::new().binary("id", 4, &UUID))
        .int64("txnNumber", 3)
        .bool("startTransaction", true)
        .bool("autocommit", false));
    let (command, fields) = request_of(&transaction);
    assert_eq!(command, Command::Insert);
    assert_eq!((fields.lsid, fields.txn_number), (Some(UUID), Some(3)));
    assert!(fields.starts_transaction && fields.in_transaction);

    let (command, fields) = request_of(&msg(Doc::new()
        .int64("getMore", 1 << 40)
        .int32("maxTimeMS", 5)));
    assert_eq!(command, Command::GetMore);
    assert_eq!(fields.cursor_id, Some(1 << 40));
    assert!(fields.has_max_time);

    let tail = |await_data| {
        request_of(&msg(Doc::new()
            .string("find", "oplog")
            .bool("tailable", true)
            .bool("awaitData", await_data)))
        .1
        .awaits_data
    };
    assert!(tail(true) && !tail(false));

    let (_, fields) = request_of(&msg(Doc::new()
        .int32("hello", 1)
        .doc("topologyVersion", Doc::new().int64("counter", 1))
        .int32("maxAwaitTimeMS", 10_000)));
    assert!(fields.has_topology_version);
    assert_eq!(fields.max_await_time_ms, Some(10_000));

    let ids = || Doc::new().int64("0", 1).int64("1", 2).int64("2", 3);
    for request in [
        Doc::new()
            .string("killCursors", "c")
            .array("cursors", ids()),
        Doc::new().array("endSessions", ids()),
    ] {
        assert_eq!(request_of(&msg(request)).1.listed_count, 3);
    }
    // The value of a key that means something elsewhere.
    let find = Doc::new().string("find", "c").array("cursors", ids());
    assert_eq!(request_of(&msg(find)).1.listed_count, 0);
}

#[test]
fn what_follows_an_empty_document_is_no_first_key() {
    let check = |request: Doc, expected| {
        let request = request.string("$db", "test").string("find", "c");
        assert_eq!(request_of(&msg(request)).0, expected);
    };
    let aggregate = Doc::new().string("aggregate", "c");
    check(aggregate.array("pipeline", Doc::new()), Command::Aggregate);
    let goodbye = Doc::new().array("endSessions", Doc::new());
    check(goodbye, Command::EndSessions);
    let find = Doc::new().string("find", "c");
    check(find.doc("lsid", Doc::new()), Command::Find);
    // Nor is what follows an empty stage the first one.
    let change_stream = Doc::new().doc("$changeStream", Doc::new());
    let stages = Doc::new().doc("0", Doc::new()).doc("1", change_stream);
    let aggregate = Doc::new()
        .string("aggregate", "c")
        .array("pipeline", stages);
    assert!(!request_of(&msg(aggregate)).1.is_change_stream);
}

#[test]
fn only_a_first_stage_makes_a_change_stream() {
    let check = |stages: Doc, expected| {
        let aggregate = Doc::new()
            .string("aggregate", "c")
            .array("pipeline", stages);
        assert_eq!(request_of(&msg(aggregate)).1.is_change_stream, expected);
    };
    let stage = |name| Doc::new().doc(name, Doc::new().int32("x", 1));
    check(Doc::new().doc("0", stage("$changeStream")), true);
    check(
        Doc::new()
            .doc("0", stage("$match"))
            .doc("1", stage("$changeStream")),
        false,
    );
    check(
        Doc::new().doc("0", stage("$match").doc("$changeStream", Doc::new())),
        false,
    );
    check(Doc::new(), false);
}

#[test]
fn fields_of_failed_replies_are_found() {
    let write_error = |code| {
        Doc::new()
            .int32("index", 0)
            .int32("code", code)
            .string("errmsg", "x")
    };
    let fields = reply_of(&msg(Doc::new()
        .int32("n", 0)
        .array(
            "writeErrors",
            Doc::new()
                .doc("0", write_error(11000))
                .doc("1", write_error(121))
                .doc("2", write_error(11000)),
        )
        .doc(
            "writeConcernError",
            Doc::new().int32("code", 64).string("codeName", "Inner"),
        )
        .array(
            "errorLabels",
            Doc::new()
                .string("0", "RetryableWriteError")
                .string("1", "unheard of"),
        )
        .doc(
            "topologyVersion",
            Doc::new()
                .raw(0x07, "processId", b"twelve bytes")
                .int64("counter", 6),
        )
        .double("ok", 0.0)
        .int32("code", 10107)
        .string("codeName", "NotWritablePrimary")
        .int64("remainingQuiesceTimeMillis", 1500)));
    assert_eq!(fields.ok, Some(false));
    assert_eq!(fields.code, Some(10107));
    assert_eq!(fields.code_name.unwrap().as_str(), "NotWritablePrimary");
    assert_eq!(
        fields.write_errors.iter().collect::<Vec<_>>(),
        [(11000, 2), (121, 1)]
    );
    assert_eq!(fields.write_concern_error, Some(64));
    assert_eq!(
        fields.error_labels.iter().collect::<Vec<_>>(),
        ["RetryableWriteError"]
    );
    assert_eq!(fields.remaining_quiesce_ms, Some(1500));
    assert_eq!(
        fields.topology_version,
        Some(TopologyVersion {
            process_id: *b"twelve bytes",
            counter: 6
        })
    );
}

#[test]
fn ok_counts_in_every_numeric_type() {
    for doc in [
        Doc::new().double("ok", 1.0),
        Doc::new().int32("ok", 1),
        Doc::new().int64("ok", 1),
        Doc::new().bool("ok", true),
    ] {
        assert_eq!(reply_of(&msg(doc)).ok, Some(true));
    }
    assert_eq!(reply_of(&msg(Doc::new().int32("ok", 0))).ok, Some(false));
    assert_eq!(reply_of(&msg(Doc::new().string("ok", "1"))).ok, None);
}

#[test]
fn what_follows_a_batch_of_16_megabytes_is_found() {
    let document = Doc::new().binary("payload", 0, &vec![7; 1 << 20]);
    let batch = (0..16).fold(Doc::new(), |batch, index| {
        batch.doc(&index.to_string(), document.clone())
    });
    let bytes = msg(Doc::new()
        .doc(
            "cursor",
            Doc::new()
                .array("nextBatch", batch)
                .int64("id", 99)
                .string("ns", "a.b"),
        )
        .double("ok", 1.0));
    let fields = reply_of(&bytes);
    assert_eq!((fields.ok, fields.cursor_id), (Some(true), Some(99)));
    assert_eq!(fields.batch_is_empty, Some(false));
    assert!(!fields.is_truncated);

    let empty = msg(Doc::new().doc(
        "cursor",
        Doc::new().array("firstBatch", Doc::new()).int32("id", 5),
    ));
    assert_eq!(reply_of(&empty).batch_is_empty, Some(true));
    assert_eq!(reply_of(&empty).cursor_id, Some(5));
}

#[test]
fn every_type_is_stepped_over() {
    let scope = [string("f()"), Doc::new().int32("x", 1).build()].concat();
    let scope_len = i32::try_from(scope.len() + 4).unwrap().to_le_bytes();
    let doc = Doc::new()
        .int32("find", 1)
        .raw(0x06, "undefined", b"")
        .raw(0x07, "id", &[1; 12])
        .raw(0x09, "date", &[0; 8])
        .raw(0x0A, "null", b"")
        .raw(0x0B, "regex", b"^a\0im\0")
        .raw(0x0C, "pointer", &[string("db.c"), vec![2; 12]].concat())
        .raw(0x0D, "code", &string("g()"))
        .raw(0x0E, "symbol", &string("s"))
        .raw(0x0F, "scoped", &[&scope_len[..], &scope].concat())
        .raw(0x11, "timestamp", &[0; 8])
        .raw(0x13, "decimal", &[0; 16])
        .raw(0x7F, "max", b"")
        .raw(0xFF, "min", b"")
        .int64("txnNumber", 4);
    assert_eq!(request_of(&msg(doc)).1.txn_number, Some(4));
}

#[test]
fn sections_come_in_any_order_and_unknown_ones_end_the_search() {
    let insert = || body_section(Doc::new().string("insert", "c").int64("txnNumber", 1));
    let batch = || sequence("documents", &[Doc::new().int32("hello", 1)]);
    let check = |flags, sections: &[Vec<u8>], command, is_truncated| {
        let (found, fields) = request_of(&message(2013, &msg_body(flags, sections)));
        assert_eq!((found, fields.is_truncated), (command, is_truncated));
    };
    check(0, &[insert(), batch()], Command::Insert, false);
    check(0, &[batch(), batch(), insert()], Command::Insert, false);
    check(1, &[batch(), insert()], Command::Insert, false);
    check(0, &[insert(), vec![2, 1, 2]], Command::Insert, false);
    check(0, &[vec![2, 1, 2], insert()], Command::Other, true);
}

#[test]
fn flags_are_told() {
    for (flags, expected) in [
        (0, [false; 3]),
        (1, [false, false, true]),
        (2, [true, false, false]),
        (1 << 16, [false, true, false]),
    ] {
        let plain = message(
            2013,
            &msg_body(flags, &[body_section(Doc::new().int32("ping", 1))]),
        );
        let mut packed = plain.clone();
        if flags & 1 == 0 {
            packed = compressed(Compressor::Zstd, &plain);
        }
        for bytes in [plain, packed] {
            let (shown, result) = decode_both_ways(Direction::ToServer, &bytes);
            assert_eq!(result, Ok(()));
            assert!(matches!(&shown[1], Shown::Ended { flags, .. } if *flags == expected));
        }
    }
}

#[test]
fn legacy_handshakes_are_read() {
    let hello = || Doc::new().int32("isMaster", 1).bool("helloOk", true);
    assert_eq!(request_of(&query("admin.$cmd", hello())).0, Command::Hello);
    let wrapped = Doc::new()
        .doc("$query", hello())
        .doc("$readPreference", Doc::new());
    assert_eq!(request_of(&query("admin.$cmd", wrapped)).0, Command::Hello);
    // A filter on a collection is no command, whatever its first key is.
    assert_eq!(
        request_of(&query("app.users", Doc::new().int32("ping", 1))).0,
        Command::Other
    );

    let fields = reply_of(&reply(8, 12, &[answer()]));
    assert_eq!((fields.ok, fields.cursor_id), (Some(true), Some(12)));
    let failed = reply(
        2,
        0,
        &[Doc::new()
            .string("$err", "x")
            .int32("code", 13)
            .int32("ok", 1)],
    );
    assert_eq!(reply_of(&failed).ok, Some(false));
    assert_eq!(reply_of(&failed).code, Some(13));
    assert_eq!(reply_of(&reply(0, 0, &[])).ok, None);
}

#[test]
fn messages_without_interest_are_skipped_by_length() {
    let mut bytes = msg(Doc::new().int32("ping", 1));
    for opcode in [2002, 2005, 1, 4711, -1] {
        bytes.extend(message(opcode, b"anything at all"));
        bytes.extend(message(opcode, b""));
    }
    let (shown, result) = decode_both_ways(Direction::ToServer, &bytes);
    assert_eq!(result, Ok(()));
    assert_eq!(shown.len(), 22);
    for shown in &shown[2..] {
        assert!(matches!(
            shown,
            Shown::Started(_)
                | Shown::Ended {
                    said: Said::Skipped,
                    ..
                }
        ));
    }
}

#[test]
fn other_protocols_are_recognised_by_their_first_bytes() {
    let hello = [
        0x16, 0x03, 0x01, 0x02, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5,
    ];
    check_error(Direction::ToServer, &hello, WireError::Tls);
    check_error(
        Direction::ToServer,
        b"GET / HTTP/1.1\r\n",
        WireError::UnknownProtocol {
            message_len: i32::from_le_bytes(*b"GET "),
            opcode: i32::from_le_bytes(*b".1\r\n"),
        },
    );
    check_error(
        Direction::ToServer,
        &message(4711, b""),
        WireError::UnknownProtocol {
            message_len: 16,
            opcode: 4711,
        },
    );
}

#[test]
fn impossible_lengths_are_refused_and_possible_ones_cost_nothing() {
    let ping = msg(Doc::new().int32("ping", 1));
    for message_len in [15, 0, -1, 48_000_001, i32::MAX] {
        let mut bytes = ping.clone();
        bytes.extend(message_len.to_le_bytes());
        bytes.extend(&ping[4..]);
        let offset = ping.len() as u64;
        check_error(
            Direction::ToServer,
            &bytes,
            WireError::MessageLength {
                message_len,
                offset,
            },
        );
    }
    let mut bytes = 48_000_000_i32.to_le_bytes().to_vec();
    bytes.extend(&ping[4..16]);
    bytes.extend([0, 0, 0, 0, 0]);
    bytes.extend(40_000_000_i32.to_le_bytes());
    let mut decoder = Decoder::new(Direction::ToServer, DecoderLimits::default());
    decoder.push(&bytes, &mut Vec::<Shown>::new()).unwrap();
    assert!(
        decoder.held_bytes() < 2048,
        "{} bytes",
        decoder.held_bytes()
    );
}

#[test]
fn lying_lengths_are_noticed_where_they_stand() {
    let ping = || Doc::new().string("ping", "x").build();
    let body = |doc: &[u8]| message(2013, &[&[0; 5][..], doc].concat());
    let check = |bytes: &[u8], what, offset| {
        check_error(
            Direction::ToServer,
            bytes,
            WireError::Malformed { what, offset },
        );
    };
    let altered = |place: usize, value: u8| {
        let mut doc = ping();
        doc[place] = value;
        body(&doc)
    };
    // Document: length 4, type 1, "ping\0", string length 4, "x\0", terminator; it begins at byte 21.
    assert_eq!(request_of(&body(&ping())).0, Command::Ping);
    check(&altered(0, 18), "document length", 21);
    check(&altered(0, 4), "document length", 21);
    check(&altered(3, 0x80), "document length", 21);
    check(&altered(0, 16), "string length", 31);
    check(&altered(4, 0x42), "element type", 31);
    check(&altered(9, b'!'), "string length", 33);
    check(&altered(10, 3), "string length", 31);
    check(&altered(10, 0), "string length", 31);
    check(&altered(15, b'y'), "string", 36);
    check(&altered(16, 1), "unterminated name", 37);
    check(
        &body(&[8, 0, 0, 0, 0x10, b'a', b'b', 0]),
        "unterminated name",
        28,
    );
    check(&body(&[6, 0, 0, 0, 0, 0]), "document end", 25);

    check(&message(2013, &[0, 0, 0]), "message end", 19);
    check(&message(2013, &[0; 4]), "message end", 20);
    check(
        &message(2013, &[0, 0, 0, 0, 1, 9, 0, 0, 0]),
        "section size",
        21,
    );
    check(
        &message(2013, &msg_body(0, &[ping_section(), ping_section()])),
        "second body section",
        38,
    );
    check(&message(2012, &[0; 8]), "envelope", 16);
    check(&envelope(2012, 10, 0, b""), "envelope in an envelope", 16);
    check(&envelope(2013, -1, 0, b""), "uncompressed size", 20);
    check(&envelope(2013, 48_000_000, 0, b""), "uncompressed size", 20);
    check(
        &envelope(2013, 21, 0, &altered(0, 18)[16..]),
        "document length",
        0,
    );
}

fn ping_section() -> Vec<u8> {
    body_section(Doc::new().string("ping", "x"))
}

#[test]
fn documents_are_shown_up_to_the_capture_limit() {
    let limits = DecoderLimits {
        capture_limit_bytes: 1000,
        ..DecoderLimits::default()
    };
    let padded = |len| {
        // Header 16, flags 4, kind 1, document 5, key and type 3, length and subtype 5.
        let bytes = msg(Doc::new().binary("x", 0, &vec![0; len - 34]));
        assert_eq!(bytes.len(), len);
        bytes
    };
    for (len, expected) in [(1000, true), (1001, false)] {
        let mut bytes = padded(len);
        for compressor in COMPRESSORS {
            bytes.extend(compressed(compressor, &padded(len)));
        }
        assert_eq!(
            documents_of(Direction::ToServer, limits, &bytes),
            [expected; 5]
        );
    }
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    let batch = Doc::new().binary("payload", 0, &vec![0; 40_000_000]);
    let bomb = msg(Doc::new().int32("n", 1).doc("big", batch).double("ok", 1.0));
    for compressor in [Compressor::Snappy, Compressor::Zlib, Compressor::Zstd] {
        let bytes = compressed(compressor, &bomb);
        assert!(bytes.len() < 3_000_000);
        let fields = reply_of(&bytes);
        assert!(fields.is_truncated, "{compressor:?}");
        assert_eq!(fields.ok, None);
    }
}

#[test]
fn a_compressed_command_is_found_before_any_amount_of_documents() {
    let document = Doc::new().binary("payload", 0, &vec![1; 1 << 20]);
    let insert = message(
        2013,
        &msg_body(
            0,
            &[
                body_section(Doc::new().string("insert", "c").int64("txnNumber", 2)),
                sequence("documents", &vec![document; 16]),
            ],
        ),
    );
    for compressor in COMPRESSORS {
        let (command, fields) = request_of(&compressed(compressor, &insert));
        assert_eq!((command, fields.txn_number), (Command::Insert, Some(2)));
        assert!(!fields.is_truncated);
    }
}

#[test]
fn a_stated_size_is_not_believed() {
    let ping = msg(Doc::new().int32("ping", 1));
    for compressor in COMPRESSORS {
        let content = deflate(compressor, &ping[16..]);
        let id = id_of(compressor);
        let (command, fields) = request_of(&envelope(2013, 40_000_000, id, &content));
        assert_eq!((command, fields.is_truncated), (Command::Ping, false));
    }
}

#[test]
fn bodies_that_do_not_decompress_are_named() {
    let ping = msg(Doc::new().int32("ping", 1));
    let check = |id, content: &[u8], compressor| {
        let mut bytes = ping.clone();
        bytes.extend(envelope(2013, 100, id, content));
        let offset = ping.len() as u64;
        check_error(
            Direction::ToServer,
            &bytes,
            WireError::Compression { compressor, offset },
        );
    };
    for (id, compressor) in [(1, "snappy"), (2, "zlib"), (3, "zstd"), (4, "unknown")] {
        check(id, &[0xFF; 40], compressor);
    }
    for compressor in COMPRESSORS {
        let content = deflate(compressor, &ping[16..]);
        check(
            id_of(compressor),
            &content[..content.len() / 2],
            compressor.label(),
        );
        check(id_of(compressor), b"", compressor.label());
    }
}

#[test]
fn a_zstd_window_beyond_the_limit_is_no_error() {
    // Magic number; no content size; window of 2^23 bytes (RFC 8878 § 3.1.1.1.2: exponent in the upper five
    // bits, counted from 10); one raw block.
    let frame = [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 13 << 3][..], &[1, 0, 0]].concat();
    let (command, fields) = request_of(&envelope(2013, 100, 3, &frame));
    assert_eq!((command, fields.is_truncated), (Command::Other, true));
}

#[test]
fn one_context_serves_message_after_message() {
    let ping = compressed(Compressor::Zstd, &msg(Doc::new().int32("ping", 1)));
    let broken = envelope(2013, 100, 3, &[0xFF; 40]);
    let mut scratch = Scratch::default();
    let mut shown: Vec<Shown> = Vec::new();
    for _ in 0..3 {
        let limits = DecoderLimits::default();
        let mut decoder = Decoder::new(Direction::ToServer, limits);
        for half in ping.chunks(ping.len() / 2 + 1) {
            decoder.push_with(half, &mut shown, &mut scratch).unwrap();
        }
        assert!(scratch.held_bytes() > 0);
        assert_eq!(decoder.held_bytes(), 0);
        // A context that saw an error is as good as new too.
        assert!(
            decoder
                .push_with(&broken, &mut shown, &mut scratch)
                .is_err()
        );
    }
    let commands = shown.iter().filter(|shown| {
        matches!(
            shown,
            Shown::Ended {
                said: Said::Request(Command::Ping, _),
                ..
            }
        )
    });
    assert_eq!(commands.count(), 3);
}
