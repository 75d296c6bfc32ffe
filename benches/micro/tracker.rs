//! One exchange from its bytes to the books, with books that drop everything and with a client's real ones.

use std::hint::black_box;

use criterion::{Bencher, Criterion};
use poolscope::connection::{Exchange, Facts, Observation, ReplyError, State};
use poolscope::time::Timestamp;
use poolscope::wire::{Command, Direction};

use crate::traffic::{self, BEGIN, Books, Exchanged, Followed};

/// Books that keep nothing: what is left is the cost of decoding and following.
#[derive(Debug)]
struct NoBooks;

impl Books for NoBooks {
    fn forwarded(&mut self, direction: Direction, bytes_count: u64, at: Timestamp) {
        black_box((direction, bytes_count, at));
    }
}

impl Facts for NoBooks {
    fn message_seen(&mut self, direction: Direction, wire_len: u32) {
        black_box((direction, wire_len));
    }

    fn request_seen(&mut self, at: Timestamp, command: Command, _: i32) {
        black_box((at, command));
    }

    fn cursor_killed(&mut self, at: Timestamp, id: i64) {
        black_box((at, id));
    }

    fn exchange_ended(&mut self, exchange: &Exchange) {
        black_box(exchange);
    }

    fn error_seen(&mut self, at: Timestamp, error: &ReplyError) {
        black_box((at, error));
    }

    fn activity_changed(&mut self, at: Timestamp, state: State, in_flight: u32) {
        black_box((at, state, in_flight));
    }

    fn left_unanswered(&mut self, commands: impl Iterator<Item = Command>) {
        black_box(commands.count());
    }

    fn observed(&mut self, at: Timestamp, observation: Observation) {
        black_box((at, observation));
    }
}

/// A name, and how the exchange is made: only those that are measured are.
type Case = (&'static str, fn() -> Exchanged);

const CASES: &[Case] = &[
    ("ping", traffic::ping),
    ("find_1k", || traffic::find(1024)),
    ("find_1m", || traffic::find(1024 * 1024)),
];

pub(crate) fn measure(criterion: &mut Criterion) {
    for (name, make) in CASES {
        let mut group = criterion.benchmark_group(format!("tracker/{name}"));
        group.bench_function("no_books", |bencher| {
            follow(bencher, Followed::new(NoBooks, BEGIN), &make());
        });
        group.bench_function("clients_books", |bencher| {
            let directory = traffic::directory(250);
            follow(bencher, Followed::open(&directory, 0, 16), &make());
        });
        group.finish();
    }
}

fn follow<B: Books>(bencher: &mut Bencher<'_>, mut followed: Followed<B>, exchanged: &Exchanged) {
    bencher.iter(|| followed.exchange(black_box(exchanged)));
    assert!(followed.is_in_order());
}
