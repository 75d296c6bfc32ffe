//! What reasoning about connections costs: an instance that opens thousands in a row, and time that passes over them.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion};

use crate::traffic::{burst, counted, observe};

const CONNECTIONS_COUNT: u16 = 4_000;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("observer/4000_connections");
    group.sample_size(10);
    group.bench_function("burst", |bencher| {
        let (entries, until) = burst(CONNECTIONS_COUNT, counted);
        bencher.iter(|| black_box(observe(&entries, until)));
    });
    group.bench_function("tick", |bencher| {
        let (entries, until) = burst(CONNECTIONS_COUNT, counted);
        let later = until + Duration::from_secs(20);
        bencher.iter_batched_ref(
            || observe(&entries, later),
            |observer| observer.tick(later, &mut Vec::new()),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}
