//! Wiring: what starts in which order, and how it stops.
//!
//! ```text
//! bind listeners ▶ refuse loops ▶ directory ▶ workers ▶ admin ▶ accept        signal ▶ not ready ▶ stop
//!                                                                  accepting ▶ drain ▶ stop admin ▶ end
//! ```
//!
//! Two kinds of threads: one control runtime for the admin side, the names of upstreams and the clockwork, and the
//! workers that accept and forward. A slow scrape therefore never delays a byte.

mod drain;
mod herald;
mod memory;
mod source;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::{TcpListener, lookup_host};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Events, StatusFacts};
use crate::clients::{Directory, DirectoryLimits, UpstreamId, UpstreamSpec};
use crate::clock::Clock;
use crate::config::{Config, JournalConfig, Limits, ListenerConfig};
use crate::journal::Journal;
use crate::live::{self, Feed};
use crate::metrics::{BuildFacts, Cost, Exposition, Health, IncidentTally, Sources};
use crate::proxy::{
    Crew, Listener, Shared, Upstream, Workers, is_own_address, raise_descriptor_limit,
};
use crate::timeline::lines::UpstreamName;
use crate::wire::DecoderLimits;
use herald::Herald;
use source::{AppSource, Stage, listener_facts};

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Threads of the control runtime: one may render a scrape while the other accepts.
const CONTROL_THREADS: usize = 2;

/// Time between two turns of the clockwork.
const TICK: Duration = Duration::from_secs(1);

/// Descriptors of one proxied connection: the accepted socket and the dialled one.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// Descriptors kept for listeners, runtimes, logs and the admin side, which answers up to 128 connections.
const DESCRIPTORS_RESERVED: usize = 192;

/// Runs the proxy until a signal ends it. `warnings` are shown in the status.
pub fn serve(config: Config, warnings: Vec<String>) -> anyhow::Result<()> {
    memory::give_large_pieces_back();
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("failed to start the control runtime")?;
    control.block_on(run(config, warnings))
}

async fn run(mut config: Config, mut warnings: Vec<String>) -> anyhow::Result<()> {
    let clock = Clock::start();
    let mut signals = drain::Signals::new()?;
    warnings.extend(fit_into_descriptors(&mut config, raise_descriptor_limit()));
    let workers_count = config.workers.unwrap_or_else(default_workers);
    let listeners = bind_all(&config, workers_count)?;
    refuse_loops(&config, &listeners).await?;
    let web = TcpListener::bind(config.web.listen)
        .await
        .with_context(|| format!("failed to listen for http on {}", config.web.listen))?;

    let web_addr = web
        .local_addr()
        .context("failed to read the http address")?;
    let mut workers = Workers::new(workers_count).context("failed to prepare worker threads")?;
    let crew = workers.crew();
    let (feed, findings, reasoning) = live::channel();
    let shared = Arc::new(share(&config, &listeners, clock, feed));
    let health = &shared.health;
    let events = Arc::new(Events::new(VERSION, clock.now(), Arc::clone(health)));
    let tally = Arc::new(IncidentTally::default());
    let names = config
        .listeners
        .iter()
        .map(|listener| listener.name.clone());
    let herald = Herald::new(
        Arc::clone(&findings),
        Arc::clone(&events),
        Arc::clone(&tally),
        names.collect(),
    );
    let upstreams: Vec<_> = config.listeners.iter().map(upstream_name).collect();
    let journal = open_journal(&config.journal, &upstreams, clock)?;
    if let Some(journal) = &journal {
        health.set_journal(journal.health());
    }
    let observer = reasoning
        .start(Arc::clone(&shared.directory), upstreams, clock, journal)
        .context("failed to start the observer")?;
    let source = Arc::new(AppSource::new(
        Arc::clone(&shared),
        Arc::clone(&findings),
        events,
        Exposition::new(
            Sources {
                directory: Arc::clone(&shared.directory),
                health: Arc::clone(health),
                tally,
                inference: findings,
            },
            config.metrics_detail,
            build_facts(),
            move || clock.now(),
        ),
        status_facts(
            &config,
            &listeners,
            &clock,
            web_addr,
            workers_count,
            warnings,
        ),
    ));

    workers
        .start(&shared)
        .context("failed to start worker threads")?;
    let stop_all = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(crate::admin::serve(
        web,
        Arc::clone(&source) as _,
        stop_all.clone(),
    ));
    tasks.spawn(herald.run(stop_all.clone()));
    tasks.spawn(turn_clockwork(Arc::clone(&shared), stop_all.clone()));
    accept_on(listeners, &crew);
    source.enter(Stage::Serving);
    tracing::info!(web = %web_addr, workers = workers_count, max_connections = config.limits.connections_max, "serving");

    let signal = signals.next().await;
    let ending = async {
        drain::drain(signal, &config, &source, &crew).await;
        stop_all.cancel();
        tasks.close();
        tasks.wait().await;
        // It blocks, but by now nothing else wants to run.
        observer.stop();
    };
    tokio::select! {
        () = ending => tracing::info!("stopped"),
        signal = signals.next() => {
            let connections = crew.open_count();
            tracing::warn!(signal, connections, "stopped at once");
        }
    }
    Ok(())
}

/// Lets the workers accept on all listeners.
fn accept_on(listeners: Vec<Listener>, crew: &Crew) {
    for listener in listeners {
        tracing::info!(
            listen = %listener.local_addr(),
            upstream = %listener.upstream().address,
            "accepting connections"
        );
        listener.start(crew);
    }
}

/// What the status says of the process.
fn status_facts(
    config: &Config,
    listeners: &[Listener],
    clock: &Clock,
    web: SocketAddr,
    workers: usize,
    warnings: Vec<String>,
) -> StatusFacts {
    StatusFacts {
        version: VERSION,
        started_at: clock.now(),
        listeners: listeners
            .iter()
            .zip(&config.listeners)
            .map(|(listener, config)| listener_facts(config, listener.local_addr()))
            .collect(),
        web,
        workers,
        limits: config.limits,
        drain_timeout: config.drain_timeout,
        is_draining: false,
        cost: Cost::default(),
        warnings,
    }
}

/// Lowers the limit of connections to what the descriptors allow: a client beyond it is reset, and counted, where
/// it would otherwise wait in the kernel's queue for an accept that cannot come. Whoever asked for more is warned;
/// the default means no more than "as many as fit".
fn fit_into_descriptors(config: &mut Config, descriptors: Option<u64>) -> Option<String> {
    let descriptors = usize::try_from(descriptors?).ok()?;
    let allowed = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_CONNECTION;
    let wanted = config.limits.connections_max;
    if allowed >= wanted {
        return None;
    }
    config.limits.connections_max = allowed.max(1);
    let told = format!(
        "max_connections is lowered from {wanted} to {} by the limit of {descriptors} descriptors",
        config.limits.connections_max
    );
    if wanted == Limits::default().connections_max {
        tracing::info!("{told}");
        return None;
    }
    tracing::warn!("{told}");
    Some(told)
}

fn upstream_name(listener: &ListenerConfig) -> UpstreamName {
    UpstreamName {
        name: listener.name.clone(),
        address: listener.upstream.clone(),
    }
}

fn open_journal(
    config: &JournalConfig,
    upstreams: &[UpstreamName],
    clock: Clock,
) -> anyhow::Result<Option<Journal>> {
    let Some(path) = &config.path else {
        return Ok(None);
    };
    let upstreams = upstreams.to_vec();
    let (size, files) = (config.size_max_bytes, config.files_max);
    Journal::open(path, size, files, upstreams, clock.now())
        .map(Some)
        .with_context(|| format!("failed to open the journal {}", path.display()))
}

fn share(config: &Config, listeners: &[Listener], clock: Clock, feed: Arc<Feed>) -> Shared {
    let limits = DirectoryLimits {
        clients_max: config.limits.clients_max,
        client_ttl: config.limits.client_ttl,
    };
    let upstreams = listeners
        .iter()
        .zip(&config.listeners)
        .map(upstream_spec)
        .collect();
    Shared {
        directory: Arc::new(Directory::with_witness(limits, upstreams, Some(feed))),
        health: Arc::new(Health::default()),
        clock,
        decoder_limits: DecoderLimits {
            capture_limit_bytes: config.limits.capture_limit_bytes,
            inflate_limit_bytes: config.limits.inflate_limit_bytes,
        },
        connections_max: config.limits.connections_max,
        observe_budget: config.limits.observe_percent,
    }
}

fn bind_all(config: &Config, workers_count: usize) -> anyhow::Result<Vec<Listener>> {
    if config.listeners.is_empty() {
        bail!("no listener is configured");
    }
    let mut listeners = Vec::new();
    for (position, listener) in (0u16..).zip(&config.listeners) {
        let upstream = Upstream {
            id: UpstreamId(position),
            address: listener.upstream.clone(),
            connect_timeout: config.connect_timeout,
            keepalive: config.keepalive,
        };
        let bound = Listener::bind(listener.listen, upstream, workers_count)
            .with_context(|| format!("failed to listen on {}", listener.listen))?;
        listeners.push(bound);
    }
    Ok(listeners)
}

/// A proxy that dials itself multiplies connections until no descriptor is left.
async fn refuse_loops(config: &Config, listeners: &[Listener]) -> anyhow::Result<()> {
    for target in &config.listeners {
        // A name that does not resolve now may do so later: that is a failed dial, not a loop.
        let Ok(addresses) = lookup_host(&target.upstream).await else {
            continue;
        };
        for address in addresses {
            if let Some(own) = listeners
                .iter()
                .find(|own| is_own_address(address, own.local_addr()))
            {
                bail!(
                    "upstream {} of listener {} is our own listener {}",
                    target.upstream,
                    target.listen,
                    own.local_addr()
                );
            }
        }
    }
    Ok(())
}

fn upstream_spec((listener, config): (&Listener, &ListenerConfig)) -> UpstreamSpec {
    UpstreamSpec {
        name: config.name.clone(),
        listen: listener.local_addr().to_string(),
        address: config.upstream.clone(),
        advertised: config.advertised.clone(),
    }
}

/// Expiry and minute peaks, about once a second; and a word when drivers are told to walk round the proxy.
async fn turn_clockwork(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    let mut told: Vec<Vec<String>> = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        shared.directory.tick(shared.clock.now());
        let names = shared.directory.bypass_names();
        if names != told {
            for (upstream, names) in names
                .iter()
                .enumerate()
                .filter(|(_, names)| !names.is_empty())
            {
                tracing::warn!(
                    upstream,
                    ?names,
                    "the server announces members that do not lead through this proxy: drivers that \
                     discover the replica set will walk round it"
                );
            }
            told = names;
        }
    }
}

/// What is known of the build without a build script; packagers set the revision.
fn build_facts() -> BuildFacts {
    BuildFacts {
        version: VERSION,
        revision: option_env!("POOLSCOPE_REVISION").unwrap_or_default(),
        rustc: env!("CARGO_PKG_RUST_VERSION"),
        target: std::env::consts::ARCH,
    }
}

/// One worker a core that the process may use: the cgroup's quota and the affinity mask included.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
