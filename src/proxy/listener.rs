//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Shared, Upstream, Workers, connection, socket};
use crate::connection::{Ending, Initiator, Manner, Phase};
use crate::metrics::AcceptFailure;

/// First and longest pause after an accept that failed for want of descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A bound address and the upstream behind it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    upstream: Arc<Upstream>,
}

impl Listener {
    /// Binds `address`. Must be called within the runtime that will run it.
    pub fn bind(address: SocketAddr, upstream: Upstream) -> io::Result<Self> {
        let socket = TcpListener::from_std(socket::listen(address, upstream.keepalive)?.into())?;
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
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

    /// Accepts until `stop` is cancelled. No error ends it: each is counted, and shortages are waited out.
    pub async fn run(self, shared: Arc<Shared>, workers: Arc<Workers>, stop: CancellationToken) {
        let accepting = async {
            let mut pause = BACKOFF.0;
            loop {
                match self.socket.accept().await {
                    Ok((stream, peer)) => {
                        pause = BACKOFF.0;
                        self.admit(stream, peer, &shared, &workers);
                    }
                    Err(error) => {
                        let kind = kind_of(&error);
                        shared.health.accept_failed(kind);
                        if kind == AcceptFailure::Aborted {
                            continue;
                        }
                        tracing::warn!(listen = %self.local, reason = kind.label(), %error, "accept failed");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(BACKOFF.1);
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accepting => {}
        }
    }

    /// Hands a connection to a worker, or resets it when there are too many.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, workers: &Workers) {
        let at = shared.clock.now();
        let recorder = shared.directory.open(self.upstream.id, peer, at);
        if shared.drain.open_count() >= shared.connections_max {
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
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                // The recorder's drop counts the connection as ended by us.
                tracing::warn!(%peer, %error, "cannot hand a socket to a worker");
                return;
            }
        };
        let call = shared.drain.enter();
        workers.spawn(connection::run(
            stream,
            peer,
            at,
            recorder,
            call,
            Arc::clone(&self.upstream),
            Arc::clone(shared),
        ));
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
