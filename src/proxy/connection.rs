//! The life of one proxied connection: dial, relay, account for the end.

use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::drain::Call;
use super::relay::{RelayEnd, relay};
use super::tap::Tap;
use super::workers::Seat;
use super::{Shared, Upstream, socket, tcp_info};
use crate::clients::DialFailure;
use crate::connection::{Initiator, Manner};

/// Longest wait for a dial whose client has left.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// A connection that was accepted, and what it needs to live.
pub(super) struct Connection<C> {
    /// The client's socket, as far as it is known to the runtime it lives on.
    pub(super) client: C,
    pub(super) peer: SocketAddr,
    pub(super) tap: Tap,
    pub(super) call: Call,
    pub(super) upstream: Arc<Upstream>,
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Seat,
}

impl Connection<()> {
    /// Gives it its socket.
    pub(super) fn with<C>(self, client: C) -> Connection<C> {
        Connection {
            client,
            peer: self.peer,
            tap: self.tap,
            call: self.call,
            upstream: self.upstream,
            shared: self.shared,
            seat: self.seat,
        }
    }

    /// Starts it on this thread's runtime with a socket that was accepted on another's.
    pub(super) fn settle(self, client: StdTcpStream) {
        match TcpStream::from_std(client) {
            Ok(client) => drop(tokio::spawn(self.with(client).run())),
            // The recorder's drop counts the connection as ended by us.
            Err(error) => {
                tracing::warn!(peer = %self.peer, %error, "cannot watch an accepted socket");
            }
        }
    }
}

impl Connection<TcpStream> {
    /// Runs the connection to its end.
    ///
    /// An `async fn` would keep `self` twice for as long as the connection lives: as its argument, and as the
    /// variable that it is moved to. Memory for each idle connection is what this proxy is measured by.
    #[expect(
        clippy::manual_async_fn,
        reason = "it would double the size of the task"
    )]
    pub(super) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let end = serve(
                &self.client,
                &mut self.tap,
                &self.call,
                &self.upstream,
                &self.shared,
            )
            .await;
            self.tap.ended(end.initiator, end.manner, end.at, self.peer);
            // The places are given back last: whoever waits for them finds the books closed.
            drop(self.call);
            drop(self.seat);
        }
    }
}

/// Dials, then forwards. What dialling needs is given back by then, as connections idle for much longer than they
/// dial.
async fn serve(
    client: &TcpStream,
    tap: &mut Tap,
    call: &Call,
    upstream: &Upstream,
    shared: &Shared,
) -> RelayEnd {
    let dialled = Box::pin(dial(client, tap, upstream, shared)).await;
    match dialled {
        Ok(server) => {
            let _watch = tcp_info::watch(tap.tcp_gauge(), client, &server);
            relay(client, &server, tap, call, shared.clock).await
        }
        Err(end) => end,
    }
}

/// Dials at once, without waiting for the client's first byte.
async fn dial(
    client: &TcpStream,
    tap: &mut Tap,
    upstream: &Upstream,
    shared: &Shared,
) -> Result<TcpStream, RelayEnd> {
    let dial_began = shared.clock.now();
    let mut dial = pin!(upstream.dial());
    let dialled = tokio::select! {
        dialled = &mut dial => dialled,
        manner = client_reset(client) => {
            let at = shared.clock.now();
            // The server may have accepted already. It is to see the reset, not the FIN of a socket that is
            // merely dropped; a dial that takes longer than this has reached nobody.
            if let Ok(Ok(server)) = tokio::time::timeout(DIAL_GRACE, dial).await {
                socket::reset_on_drop(&server);
            }
            return Err(RelayEnd { initiator: Initiator::Client, manner, at });
        }
    };
    let at = shared.clock.now();
    match dialled {
        Ok(server) => {
            tap.dialled(at, at.since(dial_began), server.local_addr().ok());
            Ok(server)
        }
        Err(failure) => {
            // The client must see at once what it would have seen without the proxy: no connection.
            socket::reset_on_drop(client);
            tap.dial_failed(at, failure);
            Err(RelayEnd {
                initiator: Initiator::Server,
                manner: manner_of(failure),
                at,
            })
        }
    }
}

/// Resolves when the client resets the connection; a FIN does not, as its request may still be answered.
async fn client_reset(client: &TcpStream) -> Manner {
    loop {
        match client.ready(Interest::ERROR).await {
            Ok(_) => {
                if let Ok(Some(error)) | Err(error) = client.take_error() {
                    return socket::manner_of(&error);
                }
                // Readiness of errors is never given back: without an error to take there is none to come.
                std::future::pending::<()>().await;
            }
            Err(error) => return socket::manner_of(&error),
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
