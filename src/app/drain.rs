//! Stopping: the first signal drains, the second ends at once.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::source::{AppSource, Stage};
use crate::config::Config;
use crate::proxy::Drain;

/// Returns when a signal came and every connection ended, or when a second signal came.
pub(super) async fn until_signalled_and_drained(
    config: &Config,
    source: &AppSource,
    drain: &Drain,
    stop_accepting: &CancellationToken,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let name = signals.next().await;
    source.enter(Stage::Draining);
    stop_accepting.cancel();
    tracing::info!(
        signal = name,
        connections = drain.open_count(),
        seconds = config.drain_timeout.as_secs_f64(),
        "draining"
    );
    tokio::select! {
        () = drain.run(config.drain_timeout) => tracing::info!("drained"),
        name = signals.next() => {
            tracing::warn!(signal = name, connections = drain.open_count(), "ended without draining");
        }
    }
    Ok(())
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("failed to watch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("failed to watch SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
