//! Dialling the server.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::socket;
use crate::clients::{DialFailure, UpstreamId};

/// A server to dial.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its identity in the directory.
    pub id: UpstreamId,
    /// `host:port` or `[ipv6]:port`.
    pub address: String,
    /// Longest wait for a dial, name resolution included.
    pub connect_timeout: Duration,
    /// Idle time after which the kernel probes the server.
    pub keepalive: Duration,
}

impl Upstream {
    /// Dials. A name is resolved each time, as it may have moved; its addresses are tried in order.
    pub(crate) async fn dial(&self) -> Result<TcpStream, DialFailure> {
        match tokio::time::timeout(self.connect_timeout, self.dial_any()).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(DialFailure::Timeout),
        }
    }

    async fn dial_any(&self) -> Result<TcpStream, DialFailure> {
        if let Ok(address) = self.address.parse::<SocketAddr>() {
            return self.dial_one(address).await;
        }
        let addresses = lookup_host(&self.address)
            .await
            .map_err(|_| DialFailure::Dns)?;
        let mut failure = DialFailure::Dns;
        for address in addresses {
            match self.dial_one(address).await {
                Ok(stream) => return Ok(stream),
                Err(reason) => failure = reason,
            }
        }
        Err(failure)
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<TcpStream, DialFailure> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
        .map_err(|error| failure_of(&error))?;
        socket::tune(&SockRef::from(&socket), self.keepalive)
            .map_err(|error| failure_of(&error))?;
        socket
            .connect(address)
            .await
            .map_err(|error| failure_of(&error))
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
