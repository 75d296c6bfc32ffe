//! Reading one message: what a request asks, what a reply says.

use std::hint::black_box;

use criterion::Criterion;
use poolscope::wire::{Compressor, Decoder, DecoderLimits, Direction};

use crate::framer::Counting;
use crate::traffic::{self, CHUNK_LEN};

/// A name, where the message goes, and how it is made: only those that are measured are.
type Case = (&'static str, Direction, fn() -> Vec<u8>);

const CASES: &[Case] = &[
    ("ping_request", Direction::ToServer, || {
        traffic::ping().request
    }),
    ("ping_reply", Direction::ToClient, || traffic::ping().reply),
    ("find_request", Direction::ToServer, || {
        traffic::find(1024).request
    }),
    ("find_1k", Direction::ToClient, || find(1024)),
    ("find_64k", Direction::ToClient, || find(64 * 1024)),
    ("find_64k_snappy", Direction::ToClient, || {
        compressed(Compressor::Snappy)
    }),
    ("find_64k_zlib", Direction::ToClient, || {
        compressed(Compressor::Zlib)
    }),
    ("find_64k_zstd", Direction::ToClient, || {
        compressed(Compressor::Zstd)
    }),
    ("find_1m", Direction::ToClient, || find(1024 * 1024)),
    ("find_16m", Direction::ToClient, || find(16 * 1024 * 1024)),
];

fn find(reply_len: usize) -> Vec<u8> {
    traffic::find(reply_len).reply
}

fn compressed(compressor: Compressor) -> Vec<u8> {
    traffic::find(64 * 1024).compressed(compressor).reply
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("walker");
    for (name, direction, make) in CASES {
        group.bench_function(*name, |bencher| {
            let bytes = make();
            let mut decoder = Decoder::new(*direction, DecoderLimits::default());
            bencher.iter(|| {
                let mut sink = Counting::default();
                for chunk in black_box(&bytes).chunks(CHUNK_LEN) {
                    decoder.push(chunk, &mut sink).expect("our own message");
                }
                assert_eq!(sink.0, 1);
            });
        });
    }
    group.finish();
}
