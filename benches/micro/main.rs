//! Small parts, measured alone, in time.
//!
//! ```text
//! cargo bench --bench micro               everything
//! cargo bench --bench micro -- walker     one part
//! ```
//!
//! As a test every measurement runs once. What the numbers are good for stands in `benches/README.md`.

#![expect(
    clippy::expect_used,
    reason = "what is measured is our own: where it does not work, measuring ends"
)]

#[path = "../traffic/mod.rs"]
mod traffic;

mod clients;
mod framer;
mod observer;
mod tracker;
mod walker;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    framer::measure(&mut criterion);
    walker::measure(&mut criterion);
    tracker::measure(&mut criterion);
    observer::measure(&mut criterion);
    clients::measure(&mut criterion);
    criterion.final_summary();
}
