//! Finding where messages begin and end, however the bytes are split.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use poolscope::wire::{Decoder, DecoderLimits, Direction, Header, Message, Sink};

use crate::traffic;

/// Messages in one run.
const MESSAGES_COUNT: usize = 64;

/// Counts what it is shown.
#[derive(Debug, Default)]
pub(crate) struct Counting(pub(crate) u64);

impl Sink for Counting {
    fn message_started(&mut self, _: &Header) {}

    fn message_ended(&mut self, message: &Message<'_>) {
        black_box(message);
        self.0 += 1;
    }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    let bytes = traffic::ping().reply.repeat(MESSAGES_COUNT);
    let mut group = criterion.benchmark_group("framer/64_replies");
    group.throughput(Throughput::Elements(MESSAGES_COUNT as u64));
    for chunk_len in [bytes.len(), 1448, 16, 1] {
        group.bench_with_input(
            BenchmarkId::new("chunks_of", chunk_len),
            &chunk_len,
            |bencher, &chunk_len| {
                let mut decoder = Decoder::new(Direction::ToClient, DecoderLimits::default());
                bencher.iter(|| {
                    let mut sink = Counting::default();
                    for chunk in black_box(&bytes).chunks(chunk_len) {
                        decoder.push(chunk, &mut sink).expect("our own replies");
                    }
                    assert_eq!(sink.0, MESSAGES_COUNT as u64);
                });
            },
        );
    }
    group.finish();
}
