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
use super::{Shared, Upstream, socket};
use crate::clients::{DialFailure, Recorder};
use crate::connection::{Initiator, Manner};
use crate::time::Timestamp;

/// Longest wait for a dial whose client has left.
const DIAL_GRACE: Duration = Duration::from_secs(1);

/// A connection that was accepted, and what it needs to live.
pub(super) struct Arrival {
    pub(super) peer: SocketAddr,
    pub(super) at: Timestamp,
    pub(super) recorder: Recorder,
    pub(super) call: Call,
    pub(super) upstream: Arc<Upstream>,
    pub(super) shared: Arc<Shared>,
}

/// Runs a connection that was accepted on another thread to its end.
pub(super) async fn run_handed_over(accepted: StdTcpStream, arrival: Arrival) {
    match TcpStream::from_std(accepted) {
        Ok(client) => run(client, arrival).await,
        // The recorder's drop counts the connection as ended by us.
        Err(error) => {
            tracing::warn!(peer = %arrival.peer, %error, "cannot watch an accepted socket");
        }
    }
}

/// Runs the connection to its end.
pub(super) async fn run(client: TcpStream, arrival: Arrival) {
    let Arrival {
        peer,
        at,
        recorder,
        call,
        upstream,
        shared,
    } = arrival;
    let mut tap = Tap::new(recorder, at, &shared);
    let end = serve(&client, &mut tap, &call, &upstream, &shared).await;
    tap.ended(end.initiator, end.manner, end.at, peer);
    // The place is given back last: whoever waits for it finds the books closed.
    drop(call);
}

/// Dials at once, without waiting for the client's first byte, then forwards.
async fn serve(
    client: &TcpStream,
    tap: &mut Tap,
    call: &Call,
    upstream: &Upstream,
    shared: &Shared,
) -> RelayEnd {
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
            return RelayEnd { initiator: Initiator::Client, manner, at };
        }
    };
    let at = shared.clock.now();
    match dialled {
        Ok(server) => {
            tap.dialled(at, at.since(dial_began), server.local_addr().ok());
            relay(client, &server, tap, call, shared.clock).await
        }
        Err(failure) => {
            // The client must see at once what it would have seen without the proxy: no connection.
            socket::reset_on_drop(client);
            tap.dial_failed(at, failure);
            RelayEnd {
                initiator: Initiator::Server,
                manner: manner_of(failure),
                at,
            }
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
