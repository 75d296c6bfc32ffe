//! Accepting connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::tap::Tap;
use super::{Shared, Upstream, Workers, socket};
use crate::connection::{Ending, Initiator, Manner, Phase};
use crate::metrics::AcceptFailure;

/// First and longest pause after an accept that failed for want of descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A bound address and the upstream behind it.
///
/// Every worker accepts for itself, on a socket of its own that shares the address: a connection that stays
/// where it was accepted costs no wake-up of another thread and no second registration.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<StdTcpListener>,
    local: SocketAddr,
    upstream: Arc<Upstream>,
}

impl Listener {
    /// Binds `address` with one socket for each of `workers_count` workers.
    pub fn bind(address: SocketAddr, upstream: Upstream, workers_count: usize) -> io::Result<Self> {
        let sockets = socket::listen(address, upstream.keepalive, workers_count)?;
        let local = match sockets.first() {
            Some(socket) => socket.local_addr()?,
            None => return Err(io::Error::other("no worker to listen for")),
        };
        Ok(Self {
            sockets,
            local,
            upstream: Arc::new(upstream),
        })
    }

    /// The bound address, its port known.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The upstream behind it.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Accepts on every worker until `stop` is cancelled. No error ends it: each is counted, and shortages are
    /// waited out.
    pub fn start(
        self,
        shared: &Arc<Shared>,
        workers: &Arc<Workers>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        for (worker, socket) in self.sockets.into_iter().enumerate() {
            let acceptor = Acceptor {
                worker,
                local: self.local,
                upstream: Arc::clone(&self.upstream),
                shared: Arc::clone(shared),
                workers: Arc::clone(workers),
            };
            let accepting = acceptor.run(socket, stop.clone());
            tasks.spawn_on(accepting, workers.handle(worker));
        }
    }
}

/// Takes connections on one worker.
struct Acceptor {
    worker: usize,
    local: SocketAddr,
    upstream: Arc<Upstream>,
    shared: Arc<Shared>,
    workers: Arc<Workers>,
}

impl Acceptor {
    async fn run(self, socket: StdTcpListener, stop: CancellationToken) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listen = %self.local, %error, "cannot watch a listening socket");
                return;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.accept(&socket) => {}
        }
    }

    async fn accept(&self, socket: &TcpListener) {
        let mut pause = BACKOFF.0;
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => {
                    pause = BACKOFF.0;
                    self.admit(stream, peer);
                }
                Err(error) => {
                    let kind = kind_of(&error);
                    self.shared.health.accept_failed(kind);
                    if kind == AcceptFailure::Aborted {
                        continue;
                    }
                    tracing::warn!(listen = %self.local, reason = kind.label(), %error, "accept failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Starts a connection here or on a worker with fewer; resets it when there are too many.
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let at = self.shared.clock.now();
        let recorder = self.shared.directory.open(self.upstream.id, peer, at);
        if self.shared.drain.open_count() >= self.shared.connections_max {
            socket::reset_on_drop(&stream);
            let ending = Ending {
                initiator: Initiator::Proxy,
                manner: Manner::Limited,
                phase: Phase::Dialling,
                after_failed_authentication: false,
            };
            recorder.ended(ending, at);
            return;
        }
        let seat = self.workers.seat(self.worker);
        let worker = seat.worker();
        let call = self.shared.drain.enter();
        let connection = Connection {
            client: (),
            peer,
            tap: Tap::new(recorder, at, &self.shared),
            call,
            upstream: Arc::clone(&self.upstream),
            shared: Arc::clone(&self.shared),
            seat,
        };
        if worker == self.worker {
            tokio::spawn(connection.with(stream).run());
            return;
        }
        match stream.into_std() {
            Ok(stream) => {
                let there = self.workers.handle(worker);
                there.spawn(async move { connection.settle(stream) });
            }
            // The recorder's drop counts the connection as ended by us.
            Err(error) => tracing::warn!(%peer, %error, "cannot hand a socket to another worker"),
        }
    }
}

fn kind_of(error: &io::Error) -> AcceptFailure {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => AcceptFailure::FileLimit,
        Some(Errno::NOBUFS | Errno::NOMEM) => AcceptFailure::Memory,
        Some(Errno::CONNABORTED | Errno::INTR | Errno::PERM | Errno::PROTO) => {
            AcceptFailure::Aborted
        }
        _ => AcceptFailure::Other,
    }
}
