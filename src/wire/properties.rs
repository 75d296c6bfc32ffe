//! What must hold for any bytes: any split gives the same messages, nothing panics, memory stays bounded.

use proptest::collection::vec;
use proptest::prelude::*;

use super::samples::{COMPRESSORS, Shown};
use super::samples::{
    Doc, body_section, compressed, decode, decode_skipping, message, msg_body, query, reply,
    sequence, string,
};
use super::{Decoder, DecoderLimits, Direction};

/// Keys that mean something in one place or another, and some that do not.
const KEYS: &[&str] = &[
    "find",
    "getMore",
    "killCursors",
    "endSessions",
    "aggregate",
    "hello",
    "ok",
    "code",
    "codeName",
    "errorLabels",
    "cursor",
    "id",
    "firstBatch",
    "nextBatch",
    "writeErrors",
    "writeConcernError",
    "topologyVersion",
    "processId",
    "counter",
    "lsid",
    "txnNumber",
    "startTransaction",
    "autocommit",
    "tailable",
    "awaitData",
    "maxAwaitTimeMS",
    "maxTimeMS",
    "pipeline",
    "$changeStream",
    "cursors",
    "remainingQuiesceTimeMillis",
    "$query",
    "$db",
    "0",
    "",
    "documents",
    "a key that is longer than any name that is told apart, so long that it is not even kept whole",
];

const TEXTS: &[&str] = &[
    "",
    "NetworkError",
    "RetryableWriteError",
    "NotWritablePrimary",
    "admin",
];

fn key() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(KEYS)
}

/// The type and bytes of a value that holds no document.
fn leaf() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let text = || proptest::sample::select(TEXTS).prop_map(string);
    prop_oneof![
        any::<i32>().prop_map(|value| (0x10, value.to_le_bytes().to_vec())),
        (-2_i64..3).prop_map(|value| (0x12, value.to_le_bytes().to_vec())),
        (-2_i8..3).prop_map(|value| (0x01, f64::from(value).to_le_bytes().to_vec())),
        any::<bool>().prop_map(|value| (0x08, vec![u8::from(value)])),
        proptest::sample::select(&[0x02_u8, 0x0D, 0x0E][..])
            .prop_flat_map(move |kind| text().prop_map(move |text| (kind, text))),
        proptest::sample::select(&[0x06_u8, 0x0A, 0x7F, 0xFF][..]).prop_map(|kind| (kind, vec![])),
        vec(any::<u8>(), 12).prop_map(|id| (0x07, id)),
        vec(any::<u8>(), 8).prop_map(|date| (0x09, date)),
        vec(any::<u8>(), 8).prop_map(|timestamp| (0x11, timestamp)),
        vec(any::<u8>(), 16).prop_map(|decimal| (0x13, decimal)),
        Just((0x0B, b"^a.*\0im\0".to_vec())),
        vec(any::<u8>(), 12).prop_map(|id| (0x0C, [string("db.c"), id].concat())),
        (0_u8..6, prop_oneof![Just(16_usize), 0_usize..40]).prop_map(|(subtype, len)| {
            let len = u8::try_from(len).unwrap();
            let mut bytes = vec![len, 0, 0, 0, subtype];
            bytes.extend((0..len).map(|byte| byte.wrapping_mul(7)));
            (0x05, bytes)
        }),
        Just(()).prop_map(|()| {
            let content = [string("f()"), Doc::new().int32("x", 1).build()].concat();
            let len = i32::try_from(content.len() + 4).unwrap();
            (0x0F, [len.to_le_bytes().to_vec(), content].concat())
        }),
    ]
}

pub(super) fn doc() -> impl Strategy<Value = Doc> {
    let flat = vec((key(), leaf()), 0..6).prop_map(|elements| {
        elements
            .into_iter()
            .fold(Doc::new(), |doc, (key, (kind, value))| {
                doc.raw(kind, key, &value)
            })
    });
    flat.prop_recursive(3, 40, 6, |inner| {
        vec(
            (
                key(),
                prop_oneof![
                    leaf(),
                    (inner, 3_u8..5).prop_map(|(doc, kind)| (kind, doc.build())),
                ],
            ),
            0..8,
        )
        .prop_map(|elements| {
            elements
                .into_iter()
                .fold(Doc::new(), |doc, (key, (kind, value))| {
                    doc.raw(kind, key, &value)
                })
        })
    })
}

/// A body of some size behind which there is something to find.
fn padded_doc() -> impl Strategy<Value = Doc> {
    (
        doc(),
        prop_oneof![Just(0_usize), 0_usize..200, 3000_usize..30_000],
        doc(),
    )
        .prop_map(|(first, padding, last)| {
            let noise = (0..padding).map(|index| u8::try_from(index * index % 251).unwrap());
            let noise = noise.collect::<Vec<_>>();
            first
                .binary("padding", 0, &noise)
                .doc("cursor", last)
                .double("ok", 1.0)
        })
}

fn op_msg() -> impl Strategy<Value = Vec<u8>> {
    let flags = proptest::sample::select(&[0_u32, 1, 2, 3, 1 << 16, 1 << 20][..]);
    let batches = || {
        vec(
            vec(doc(), 0..3).prop_map(|docs| sequence("documents", &docs)),
            0..3,
        )
    };
    (flags, batches(), padded_doc(), batches(), any::<bool>()).prop_map(
        |(flags, before, doc, after, has_unknown)| {
            let mut sections = before;
            sections.push(body_section(doc));
            sections.extend(after);
            if has_unknown {
                sections.push(vec![2, 1, 2, 3]);
            }
            message(2013, &msg_body(flags, &sections))
        },
    )
}

fn plain_message() -> impl Strategy<Value = Vec<u8>> {
    let collections = proptest::sample::select(&["admin.$cmd", "app.users", ""][..]);
    prop_oneof![
        6 => op_msg(),
        1 => (collections, padded_doc()).prop_map(|(name, doc)| query(name, doc)),
        1 => (0..16, -1_i64..2, vec(padded_doc(), 0..3))
            .prop_map(|(flags, cursor_id, docs)| reply(flags, cursor_id, &docs)),
        1 => (2001..2015, vec(any::<u8>(), 0..100))
            .prop_filter("opened below", |(opcode, _)| ![2004, 2012, 2013].contains(opcode))
            .prop_map(|(opcode, body)| message(opcode, &body)),
    ]
}

fn valid_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        plain_message(),
        (plain_message(), proptest::sample::select(&COMPRESSORS[..]))
            .prop_map(|(message, compressor)| compressed(compressor, &message)),
    ]
}

fn direction() -> impl Strategy<Value = Direction> {
    proptest::sample::select(&Direction::ALL[..])
}

fn limits() -> impl Strategy<Value = DecoderLimits> {
    (
        proptest::sample::select(&[0_usize, 100, 1000, 16 * 1024][..]),
        proptest::sample::select(&[0_usize, 3, 100, 5000, 1024 * 1024][..]),
    )
        .prop_map(|(capture_limit_bytes, inflate_limit_bytes)| DecoderLimits {
            capture_limit_bytes,
            inflate_limit_bytes,
        })
}

fn chunk_lens() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        vec(prop_oneof![0_usize..20, 0_usize..5000], 1..20),
    ]
}

fn check_split(
    direction: Direction,
    limits: DecoderLimits,
    bytes: &[u8],
    lens: &[usize],
) -> Result<(), TestCaseError> {
    let whole = decode(direction, limits, bytes, &[]);
    let split = decode(direction, limits, bytes, lens);
    prop_assert_eq!(&whole, &split);
    let unseen = decode_skipping(direction, limits, bytes, lens);
    prop_assert_eq!(&whole, &unseen);
    Ok(())
}

#[test]
fn what_may_pass_unseen_is_nearly_all_of_a_large_value() {
    let noise = vec![7; 300_000];
    let doc = Doc::new().binary("padding", 0, &noise).double("ok", 1.0);
    let bytes = message(2013, &msg_body(0, &[body_section(doc)]));
    let limits = DecoderLimits::default();
    let mut decoder = Decoder::new(Direction::ToClient, limits);
    let mut shown = Vec::<Shown>::new();
    decoder.push(&bytes[..1000], &mut shown).unwrap();
    let unseen = decoder.skippable();
    assert!(unseen > 299_000, "{unseen} bytes");
    assert!(decoder.skip(unseen + 1).is_err());
    let mut decoder = Decoder::new(Direction::ToClient, limits);
    shown.clear();
    decoder.push(&bytes[..1000], &mut shown).unwrap();
    decoder.skip(unseen).unwrap();
    assert_eq!(decoder.skippable(), 0);
    decoder.push(&bytes[1000 + unseen..], &mut shown).unwrap();
    assert_eq!(
        (shown, Ok(())),
        decode(Direction::ToClient, limits, &bytes, &[])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_split_of_valid_messages_gives_the_same_messages(
        messages in vec(valid_message(), 1..4),
        direction in direction(),
        limits in limits(),
        lens in chunk_lens(),
    ) {
        let mut bytes = query("admin.$cmd", Doc::new().int32("ping", 1));
        bytes.extend(messages.concat());
        let (shown, result) = decode(direction, limits, &bytes, &[]);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(shown.len(), (messages.len() + 1) * 2);
        check_split(direction, limits, &bytes, &lens)?;
    }

    #[test]
    fn any_split_of_broken_messages_gives_the_same_result(
        messages in vec(valid_message(), 1..3),
        // Most harm is done near the beginning, where the lengths are.
        mutations in vec((prop_oneof![0_usize..120, any::<usize>()], any::<u8>()), 1..5),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => any::<usize>()],
        direction in direction(),
        limits in limits(),
        lens in chunk_lens(),
    ) {
        let mut bytes = messages.concat();
        for (place, value) in mutations {
            let place = place % bytes.len();
            bytes[place] = value;
        }
        if cut != usize::MAX {
            bytes.truncate(cut % bytes.len());
        }
        check_split(direction, limits, &bytes, &lens)?;
    }

    #[test]
    fn any_split_of_garbage_gives_the_same_result(
        opcode in proptest::sample::select(&[1, 2004, 2012, 2013][..]),
        body in vec(any::<u8>(), 0..300),
        direction in direction(),
        limits in limits(),
        lens in chunk_lens(),
    ) {
        check_split(direction, limits, &body, &lens)?;
        check_split(direction, limits, &message(opcode, &body), &lens)?;
    }

    #[test]
    fn compression_changes_nothing_that_is_found(
        message in plain_message(),
        compressor in proptest::sample::select(&COMPRESSORS[..]),
        direction in direction(),
    ) {
        let limits = DecoderLimits::default();
        let mut plain = query("admin.$cmd", Doc::new().int32("ping", 1));
        let mut packed = plain.clone();
        packed.extend(compressed(compressor, &message));
        plain.extend(message);
        let found = |bytes: &[u8]| match decode(direction, limits, bytes, &[]) {
            (shown, Ok(())) => match shown.last() {
                Some(Shown::Ended { said, document, opcode, .. }) =>
                    (said.clone(), document.clone(), *opcode),
                other => panic!("no message: {other:?}"),
            },
            (_, Err(error)) => panic!("{error}"),
        };
        prop_assert_eq!(found(&plain), found(&packed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    // Bodies of several blocks, so that what precedes an error has come out when it is noticed, or not.
    #[test]
    fn any_split_of_large_broken_bodies_gives_the_same_result(
        padding_len in prop_oneof![Just(128 * 1024 - 40), 100_000_usize..400_000],
        seed in any::<u32>(),
        mutations in vec((any::<usize>(), any::<u8>()), 0..3),
        compressor in proptest::sample::select(&COMPRESSORS[..]),
        stated_len in prop_oneof![Just(None), (0_i32..400_000).prop_map(Some)],
        inflate_limit_bytes in prop_oneof![Just(1 << 20), 0_usize..400_000],
        lens in vec(prop_oneof![1_usize..20, 1_usize..60_000], 1..20),
    ) {
        let mut state = seed;
        let noise = (0..padding_len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3] & 0x1F
            })
            .collect::<Vec<_>>();
        let doc = Doc::new().binary("padding", 0, &noise).double("ok", 1.0);
        let mut bytes = compressed(compressor, &message(2013, &msg_body(0, &[body_section(doc)])));
        if let Some(stated_len) = stated_len {
            bytes[20..24].copy_from_slice(&stated_len.to_le_bytes());
        }
        for (place, value) in mutations {
            let place = 25 + place % (bytes.len() - 25);
            bytes[place] = value;
        }
        let limits = DecoderLimits { inflate_limit_bytes, ..DecoderLimits::default() };
        check_split(Direction::ToClient, limits, &bytes, &lens)?;
    }
}
