//! Stopping: the first signal drains, the second ends at once.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::source::{AppSource, Stage};
use crate::config::Config;
use crate::proxy::Crew;

/// Takes no new connections, and returns when every open one has ended.
pub(super) async fn drain(signal: &'static str, config: &Config, source: &AppSource, crew: &Crew) {
    source.enter(Stage::Draining);
    tracing::info!(
        signal,
        connections = crew.open_count(),
        seconds = config.drain_timeout.as_secs_f64(),
        "draining"
    );
    crew.drain(config.drain_timeout).await;
    tracing::info!("drained");
}

/// The signals that end the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A file has the size that the process may write: where the signal is watched the write fails, otherwise it
    /// would end the process. A journal or a log that is full must not take the traffic with it.
    _too_large: Signal,
}

impl Signals {
    /// Watches them from now on; until then they end the process in the system's own way.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("failed to watch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("failed to watch SIGINT")?,
            _too_large: signal(SignalKind::from_raw(libc::SIGXFSZ))
                .context("failed to watch SIGXFSZ")?,
        })
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
