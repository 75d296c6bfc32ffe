//! What a scrape and a look at the live table cost: 250 clients with eight connections each.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use poolscope::clients::{Directory, Recorder};
use poolscope::config::MetricsDetail;
use poolscope::live;
use poolscope::metrics::{BuildFacts, Exposition, Sources};
use poolscope::time::Timestamp;

use crate::traffic::{self, Followed};

const CLIENTS_COUNT: u16 = 250;
const CONNECTIONS_COUNT: u16 = 2_000;

/// A minute after everything happened.
const NOW: Timestamp = Timestamp::from_nanos(1_700_000_060_000_000_000);

/// Everybody is connected and has asked something.
struct Scene {
    directory: Arc<Directory>,
    /// Their records would leave the directory with them.
    _connections: Vec<Followed<Recorder>>,
}

impl Scene {
    fn new() -> Self {
        let directory = traffic::directory(usize::from(CLIENTS_COUNT));
        let exchanges = [traffic::ping(), traffic::find(1024)];
        let per_client = CONNECTIONS_COUNT / CLIENTS_COUNT;
        let connections = (0..CONNECTIONS_COUNT)
            .map(|number| {
                let mut followed = Followed::open(&directory, number, per_client);
                for exchanged in &exchanges {
                    followed.exchange(exchanged);
                }
                followed
            })
            .collect();
        let seen = directory.snapshot(NOW, true);
        assert_eq!(seen.connections.len(), usize::from(CONNECTIONS_COUNT));
        assert_eq!(seen.directory.tracked, u64::from(CLIENTS_COUNT));
        Self {
            directory,
            _connections: connections,
        }
    }
}

pub(crate) fn measure(criterion: &mut Criterion) {
    // Made for the first measurement that runs; most calls ask for other parts.
    let scene = LazyCell::new(Scene::new);
    let mut group = criterion.benchmark_group("clients/250_with_8");
    group.bench_function("snapshot", |bencher| {
        let directory = &scene.directory;
        bencher.iter(|| black_box(directory.snapshot(NOW, false)));
    });
    group.bench_function("snapshot_with_connections", |bencher| {
        let directory = &scene.directory;
        bencher.iter(|| black_box(directory.snapshot(NOW, true)));
    });
    group.bench_function("tick", |bencher| {
        let directory = &scene.directory;
        bencher.iter(|| directory.tick(NOW));
    });
    for (name, detail) in [
        ("exposition_minimal", MetricsDetail::Minimal),
        ("exposition_standard", MetricsDetail::Standard),
    ] {
        group.bench_function(name, |bencher| {
            let exposition = Exposition::new(
                Sources {
                    directory: Arc::clone(&scene.directory),
                    health: Arc::default(),
                    tally: Arc::default(),
                    inference: live::channel().1,
                },
                detail,
                BuildFacts::default(),
                || NOW,
            );
            bencher.iter(|| black_box(exposition.render(NOW)));
        });
    }
    group.finish();
}
