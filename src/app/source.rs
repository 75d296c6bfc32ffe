//! What the admin side shows, taken from the running parts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::admin::{Events, ListenerFacts, Source, StatusFacts};
use crate::clients::Snapshot;
use crate::diagnose::Incident;
use crate::live::{Findings, PoolPicture};
use crate::metrics::{Cost, Exposition};
use crate::proxy::Shared;
use crate::time::Timestamp;

/// The stages of the process's life, as `/-/ready` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Not all is bound yet.
    Starting,
    /// Connections are taken.
    Serving,
    /// Connections are ended.
    Draining,
}

/// The running parts, as far as the admin side needs them.
#[derive(Debug)]
pub(super) struct AppSource {
    stage: AtomicU8,
    shared: Arc<Shared>,
    findings: Arc<Findings>,
    events: Arc<Events>,
    exposition: Exposition,
    /// What does not change while the process runs.
    facts: StatusFacts,
}

impl AppSource {
    pub(super) fn new(
        shared: Arc<Shared>,
        findings: Arc<Findings>,
        events: Arc<Events>,
        exposition: Exposition,
        facts: StatusFacts,
    ) -> Self {
        let stage = AtomicU8::new(Stage::Starting as u8);
        Self {
            stage,
            shared,
            findings,
            events,
            exposition,
            facts,
        }
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn is_in(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) == stage as u8
    }
}

impl Source for AppSource {
    fn snapshot(&self, with_connections: bool) -> Snapshot {
        self.shared
            .directory
            .snapshot(self.shared.clock.now(), with_connections)
    }

    fn exposition(&self) -> String {
        self.exposition.render(self.shared.clock.now())
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn incidents(&self) -> Vec<Arc<Incident>> {
        self.findings.incidents()
    }

    fn pool_picture(&self) -> Arc<PoolPicture> {
        self.findings.pool_picture(self.shared.clock.now())
    }

    fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    fn is_ready(&self) -> bool {
        self.is_in(Stage::Serving)
    }

    fn status(&self) -> StatusFacts {
        let mut facts = self.facts.clone();
        facts.is_draining = self.is_in(Stage::Draining);
        facts.cost = Cost::read(&self.shared.health);
        let journal = self.shared.health.journal();
        facts.warnings.extend(
            journal
                .and_then(|journal| journal.failure())
                .map(str::to_owned),
        );
        let lost = self.findings.lost();
        if lost > 0 {
            facts.warnings.push(format!(
                "{lost} observations were lost since the start because the observer could not keep up: incidents \
                 may be missing or late"
            ));
        }
        facts
    }
}

/// What the status says of a listener.
pub(super) fn listener_facts(
    config: &crate::config::ListenerConfig,
    listen: SocketAddr,
) -> ListenerFacts {
    ListenerFacts {
        name: config.name.clone(),
        listen,
        upstream: config.upstream.clone(),
        advertised: config.advertised.clone(),
    }
}
