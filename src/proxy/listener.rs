//! Accepting connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;

use super::connection::Accepted;
use super::crew::{Crew, Order};
use super::tap::Tap;
use super::{Shared, Upstream, socket};
use crate::connection::{Ending, Initiator, Manner, Phase};
use crate::metrics::AcceptFailure;
use crate::time::Timestamp;

/// First and longest pause after an accept that failed for want of descriptors or memory.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A bound address and the upstream behind it.
///
/// Every worker accepts for itself, on a socket of its own that shares the address: a connection that stays
/// where it was accepted costs no wake-up of another thread.
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

    /// Lets every worker accept, until the crew drains. No error ends it: each is counted, and shortages are
    /// waited out.
    pub fn start(self, crew: &Crew) {
        for (worker, socket) in self.sockets.into_iter().enumerate() {
            let acceptor = Acceptor {
                socket: TcpListener::from_std(socket),
                local: self.local,
                upstream: Arc::clone(&self.upstream),
                pause: BACKOFF.0,
                retry_at: None,
            };
            crew.order(worker, Order::Accept(acceptor));
        }
    }
}

/// Takes connections on one worker.
#[derive(Debug)]
pub(super) struct Acceptor {
    socket: TcpListener,
    local: SocketAddr,
    upstream: Arc<Upstream>,
    /// Pause after the next failure.
    pause: Duration,
    /// When to try again without being told to.
    retry_at: Option<Timestamp>,
}

/// What the next attempt to accept came to.
pub(super) enum Admission {
    /// A connection with a seat.
    Seated(Box<Accepted>),
    /// One that was turned away; there may be more.
    Refused,
    /// None, for now.
    None,
}

impl Acceptor {
    /// Has the kernel tell when connections wait.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// When to try again without being told to.
    pub(super) const fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// Tries again at `at`: connections may still wait, and the kernel tells so only once.
    pub(super) const fn retry(&mut self, at: Timestamp) {
        self.retry_at = Some(at);
    }

    /// Ends the pause when its time has come; true when it did.
    pub(super) fn resume(&mut self, now: Timestamp) -> bool {
        self.retry_at.take_if(|at| *at <= now).is_some()
    }

    /// Takes the next connection that waits, for worker `here` or one with fewer.
    pub(super) fn next(&mut self, here: usize, crew: &Arc<Crew>, shared: &Shared) -> Admission {
        match self.socket.accept() {
            Ok((stream, peer)) => self.admit(stream, peer, here, crew, shared),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // All that waited had room.
                self.pause = BACKOFF.0;
                Admission::None
            }
            Err(error) => {
                let kind = kind_of(&error);
                if kind == AcceptFailure::Aborted {
                    shared.health.accept_failed(kind);
                    return Admission::Refused;
                }
                self.pause(kind, shared);
                Admission::None
            }
        }
    }

    /// Accepts nothing for a while: there is no room for a connection, neither for its accept nor for its dial.
    pub(super) fn pause(&mut self, kind: AcceptFailure, shared: &Shared) {
        shared.health.accept_failed(kind);
        tracing::warn!(listen = %self.local, reason = kind.label(), "accepting pauses");
        self.retry_at = Some(shared.clock.now() + self.pause);
        self.pause = (self.pause * 2).min(BACKOFF.1);
    }

    /// Finds a seat; resets the connection when there are too many.
    fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        here: usize,
        crew: &Arc<Crew>,
        shared: &Shared,
    ) -> Admission {
        let at = shared.clock.now();
        let recorder = shared.directory.open(self.upstream.id, peer, at);
        if crew.open_count() >= shared.connections_max {
            socket::reset_on_drop(&stream);
            let ending = Ending {
                initiator: Initiator::Proxy,
                manner: Manner::Limited,
                phase: Phase::Dialling,
                after_failed_authentication: false,
            };
            recorder.ended(ending, at);
            return Admission::Refused;
        }
        Admission::Seated(Box::new(Accepted {
            client: stream,
            peer,
            tap: Tap::new(recorder, at, shared),
            upstream: Arc::clone(&self.upstream),
            seat: crew.seat(here),
        }))
    }
}

fn kind_of(error: &io::Error) -> AcceptFailure {
    if let Some(shortage) = socket::shortage(error) {
        return shortage;
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::CONNABORTED | Errno::INTR | Errno::PERM | Errno::PROTO) => {
            AcceptFailure::Aborted
        }
        _ => AcceptFailure::Other,
    }
}
