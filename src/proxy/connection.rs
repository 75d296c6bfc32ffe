//! The life of one proxied connection: dial, relay, account for the end.
//!
//! ```text
//! accepted ──▶ Dialling ──connected──▶ Relaying ──▶ ended
//!                 └──failed, or the client reset──▶ ended
//! ```

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;

use super::crew::Seat;
use super::relay::{Call, Relay, RelayEnd, Turn};
use super::socket::{self, Socket};
use super::tap::Tap;
use super::upstream::{Dial, Upstream};
use crate::clients::DialFailure;
use crate::clock::Clock;
use crate::connection::{Initiator, Manner};
use crate::time::Timestamp;

/// Longest wait for a dial whose client has left.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// What the kernel told of the sockets is asked again at the end of a connection when it is older than this. Most
/// connections end on both sides at once, and four system calls are a part of what such a one costs.
const SAMPLE_AGE_MAX: Duration = Duration::from_millis(100);

/// A connection that was accepted, and has a worker to live on.
#[derive(Debug)]
pub(super) struct Accepted {
    /// No worker watches it yet.
    pub(super) client: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) tap: Tap,
    pub(super) upstream: Arc<Upstream>,
    pub(super) seat: Seat,
}

/// A connection in its place on a worker.
#[derive(Debug)]
pub(super) enum Connection {
    /// The server is being dialled, without waiting for the client's first byte.
    Dialling(Box<Dialling>),
    /// Bytes are forwarded.
    Relaying(Box<Relaying>),
}

/// A client that waits for its server.
#[derive(Debug)]
pub(super) struct Dialling {
    client: Socket,
    peer: SocketAddr,
    pub(super) tap: Tap,
    seat: Seat,
    pub(super) upstream: Arc<Upstream>,
    pub(super) dial: Dial,
    /// The client left meanwhile.
    abandoned: Option<RelayEnd>,
}

/// A client and its server.
#[derive(Debug)]
pub(super) struct Relaying {
    /// The client's and the server's.
    pub(super) sides: [Socket; 2],
    relay: Relay,
    /// How urgently it is to end.
    pub(super) call: Call,
    /// It waits for another turn without an event.
    pub(super) is_queued: bool,
    pub(super) tap: Tap,
    peer: SocketAddr,
    seat: Seat,
}

impl Dialling {
    pub(super) fn new(accepted: Accepted, now: Timestamp) -> Self {
        let Accepted {
            client,
            peer,
            tap,
            upstream,
            seat,
        } = accepted;
        Self {
            client: Socket::new(client),
            peer,
            tap,
            seat,
            dial: Dial::new(&upstream, now),
            upstream,
            abandoned: None,
        }
    }

    /// The kernel told something of the client's socket; true when the dial now has until `dial.deadline` at most.
    ///
    /// A FIN ends nothing, as the client's request may still be answered. It is read after the dial, behind that request;
    /// when it came is known only here.
    pub(super) fn client_told(&mut self, event: &mio::event::Event, clock: Clock) -> bool {
        self.client.told(event);
        if event.is_read_closed() {
            self.tap.left_while_dialling(clock.now());
        }
        let Some(error) = self.client.take_error() else {
            return false;
        };
        let at = clock.now();
        self.abandoned.get_or_insert(RelayEnd {
            initiator: Initiator::Client,
            manner: socket::manner_of(&error),
            at,
        });
        // The server may have accepted already. It is to see the reset, not the FIN of a socket that is merely
        // dropped; a dial that takes longer than this has reached nobody.
        self.dial.deadline = self.dial.deadline.min(at + DIAL_GRACE);
        true
    }

    /// The server accepted. Forwarding begins, unless the client has left.
    pub(super) fn connected(
        mut self: Box<Self>,
        server: TcpStream,
        clock: Clock,
    ) -> Result<Box<Relaying>, (Box<Self>, RelayEnd)> {
        if let Some(end) = self.abandoned {
            socket::reset_on_drop(&server);
            return Err((self, end));
        }
        let at = clock.now();
        self.tap
            .dialled(at, at.since(self.dial.began_at), server.local_addr().ok());
        let this = *self;
        Ok(Box::new(Relaying {
            sides: [this.client, Socket::new(server)],
            relay: Relay::default(),
            call: Call::None,
            is_queued: false,
            tap: this.tap,
            peer: this.peer,
            seat: this.seat,
        }))
    }

    /// The server cannot be reached: the client must see at once what it would have seen without the proxy, no
    /// connection.
    pub(super) fn failed(&mut self, failure: DialFailure, clock: Clock) -> RelayEnd {
        if let Some(end) = self.abandoned {
            return end;
        }
        let at = clock.now();
        self.client.reset_on_drop();
        self.tap.dial_failed(at, failure);
        RelayEnd {
            initiator: Initiator::Server,
            manner: manner_of(failure),
            at,
        }
    }

    /// The end of a connection that the proxy does not wait for any more.
    pub(super) fn given_up(&self, clock: Clock) -> RelayEnd {
        self.abandoned.unwrap_or(RelayEnd {
            initiator: Initiator::Proxy,
            manner: Manner::Drained,
            at: clock.now(),
        })
    }
}

impl Relaying {
    /// Moves what can be moved.
    pub(super) fn turn(&mut self, clock: Clock, scratch: &mut [u8]) -> Turn {
        self.relay
            .turn(&mut self.sides, &mut self.tap, self.call, clock, scratch)
    }

    /// Asks the kernel about both sockets.
    pub(super) fn sample(&self) {
        let [client, server] = &self.sides;
        self.tap.sample([client.as_fd(), server.as_fd()]);
    }
}

impl Connection {
    /// Closes the sockets and the books. The client's socket goes last: whoever sees it close finds all counted.
    pub(super) fn ended(self, end: RelayEnd, clock: Clock) {
        let RelayEnd {
            initiator,
            manner,
            at,
        } = end;
        match self {
            Self::Dialling(dialling) => {
                let Dialling {
                    client,
                    peer,
                    tap,
                    seat,
                    ..
                } = *dialling;
                tap.ended(initiator, manner, at, peer);
                drop(seat);
                drop(client);
            }
            Self::Relaying(relaying) => {
                // Once more, for the end to know how it was; the sockets were asked when the first side ended.
                if clock.now().since(at) > SAMPLE_AGE_MAX {
                    relaying.sample();
                }
                let Relaying {
                    sides: [client, server],
                    tap,
                    peer,
                    seat,
                    ..
                } = *relaying;
                drop(server);
                tap.ended(initiator, manner, at, peer);
                drop(seat);
                drop(client);
            }
        }
    }
}

const fn manner_of(failure: DialFailure) -> Manner {
    match failure {
        DialFailure::Refused => Manner::Refused,
        DialFailure::Timeout => Manner::TimedOut,
        DialFailure::Unreachable | DialFailure::Dns | DialFailure::Other => Manner::Unreachable,
    }
}
