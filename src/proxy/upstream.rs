//! Dialling the server.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use mio::net::TcpStream;

use super::socket;
use crate::clients::{DialFailure, UpstreamId};
use crate::metrics::AcceptFailure;
use crate::time::Timestamp;

/// A server to dial.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its identity in the directory.
    pub id: UpstreamId,
    /// `host:port` or `[ipv6]:port`. A name is resolved for each dial, as it may have moved.
    pub address: String,
    /// Longest wait for a dial, name resolution included.
    pub connect_timeout: Duration,
    /// Idle time after which the kernel probes the server.
    pub keepalive: Duration,
}

/// A dial under way: addresses that are tried in order.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) began_at: Timestamp,
    /// When it is given up.
    pub(super) deadline: Timestamp,
    keepalive: Duration,
    /// Addresses that were not tried yet.
    waiting: VecDeque<SocketAddr>,
    /// Being connected.
    server: Option<TcpStream>,
    /// Why the last one failed.
    failure: DialFailure,
    /// It failed for want of descriptors or memory.
    pub(super) shortage: Option<AcceptFailure>,
}

/// What an attempt to dial came to.
#[derive(Debug)]
pub(super) enum Dialled {
    /// The server's socket is there; new to whoever watches sockets.
    Begun,
    /// Nothing new.
    Waiting,
    /// The server accepted.
    Connected(TcpStream),
    /// No address is left.
    Failed(DialFailure),
}

impl Dial {
    /// A dial of `upstream` whose addresses are not known yet.
    pub(super) fn new(upstream: &Upstream, now: Timestamp) -> Self {
        Self {
            began_at: now,
            deadline: now + upstream.connect_timeout,
            keepalive: upstream.keepalive,
            waiting: VecDeque::new(),
            server: None,
            failure: DialFailure::Dns,
            shortage: None,
        }
    }

    /// Tries `addresses`.
    pub(super) fn resolved(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Dialled {
        self.waiting.extend(addresses);
        self.next()
    }

    fn next(&mut self) -> Dialled {
        while let Some(address) = self.waiting.pop_front() {
            match socket::connect(address, self.keepalive) {
                Ok((server, true)) => return Dialled::Connected(server),
                Ok((server, false)) => {
                    self.server = Some(server);
                    return Dialled::Begun;
                }
                Err(error) => {
                    self.failure = failure_of(&error);
                    self.shortage = socket::shortage(&error);
                }
            }
        }
        Dialled::Failed(self.failure)
    }

    /// The socket that is being connected.
    pub(super) fn server(&mut self) -> Option<&mut TcpStream> {
        self.server.as_mut()
    }

    /// The kernel told something of that socket.
    pub(super) fn told(&mut self) -> Dialled {
        let Some(server) = self.server.take() else {
            return Dialled::Waiting;
        };
        match server.take_error() {
            Ok(None) if server.peer_addr().is_ok() => Dialled::Connected(server),
            Ok(None) => {
                self.server = Some(server);
                Dialled::Waiting
            }
            Ok(Some(error)) | Err(error) => {
                self.failure = failure_of(&error);
                self.next()
            }
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds of the standard library grow, and all we do not name are `other`"
)]
fn failure_of(error: &io::Error) -> DialFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => DialFailure::Refused,
        io::ErrorKind::TimedOut => DialFailure::Timeout,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => DialFailure::Unreachable,
        _ => DialFailure::Other,
    }
}

/// Whether dialling `target` would reach the listener bound to `bound`: the proxy would dial itself until no
/// descriptor is left.
pub fn is_own_address(target: SocketAddr, bound: SocketAddr) -> bool {
    if target.port() != bound.port() {
        return false;
    }
    let (target, bound) = (target.ip().to_canonical(), bound.ip().to_canonical());
    target == bound
        || target.is_unspecified()
        || (bound.is_unspecified() && is_local_address(target))
}

/// Whether `address` belongs to this host: only then can a socket be bound to it.
fn is_local_address(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, bound: &str, own: bool) {
        let target = target.parse().expect("target");
        let bound = bound.parse().expect("bound");
        assert_eq!(is_own_address(target, bound), own, "{target} on {bound}");
    }

    #[test]
    fn own_listeners_are_recognised_in_every_spelling() {
        check("127.0.0.1:27018", "127.0.0.1:27018", true);
        check("127.0.0.1:27017", "127.0.0.1:27018", false);
        check("127.0.0.1:27018", "0.0.0.0:27018", true);
        check("127.0.0.2:27018", "127.0.0.1:27018", false);
        check("[::1]:27018", "[::]:27018", true);
        check("[::ffff:127.0.0.1]:27018", "127.0.0.1:27018", true);
        check("192.0.2.7:27018", "0.0.0.0:27018", false);
    }
}
