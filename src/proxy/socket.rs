//! Socket options and the reads and writes of the relay.
//!
//! Edge-triggered readiness has one subtlety that is worth a system call for each exchange: after a read that
//! did not fill the buffer, or a write that was cut short, the socket is known to be drained or full, so its
//! readiness is given back at once instead of by a further call that fails. FIN and RST are never lost that
//! way: the runtime keeps the closed states of a socket.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::connection::Manner;

/// Connections the kernel keeps waiting for an accept.
const BACKLOG: i32 = 4096;

/// Unanswered keepalive probes until a peer counts as dead.
const KEEPALIVE_PROBES: u32 = 4;

/// Reads what is there, up to the length of `buffer`.
pub(super) fn poll_read(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    loop {
        std::task::ready!(stream.poll_read_ready(cx))?;
        let mut outcome = Ok(0);
        let asked = stream.try_io(Interest::READABLE, || {
            outcome = recv(stream, &mut *buffer, RecvFlags::empty())
                .map(|(len, _)| len)
                .map_err(io::Error::from);
            give_back_readiness(&outcome, buffer.len())
        });
        if let Some(result) = settle(&asked, outcome) {
            return Poll::Ready(result);
        }
    }
}

/// Writes as much of `bytes` as the socket takes now.
pub(super) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        std::task::ready!(stream.poll_write_ready(cx))?;
        let mut outcome = Ok(0);
        let asked = stream.try_io(Interest::WRITABLE, || {
            outcome = send(stream, bytes, SendFlags::NOSIGNAL).map_err(io::Error::from);
            give_back_readiness(&outcome, bytes.len())
        });
        if let Some(result) = settle(&asked, outcome) {
            return Poll::Ready(result);
        }
    }
}

/// Says `WouldBlock` to the runtime when the socket is drained or full, whatever the call returned.
fn give_back_readiness(outcome: &io::Result<usize>, wanted: usize) -> io::Result<()> {
    match outcome {
        Ok(len) if *len > 0 && *len < wanted => Err(io::ErrorKind::WouldBlock.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.kind().into()),
    }
}

/// The result to hand on; `None` when the call has to be made again.
fn settle(asked: &io::Result<()>, outcome: io::Result<usize>) -> Option<io::Result<usize>> {
    match outcome {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            None
        }
        // The closure did not run: the runtime saw that the readiness was gone meanwhile.
        Ok(0)
            if asked
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) =>
        {
            None
        }
        outcome => Some(outcome),
    }
}

/// Ends the writing half.
pub(super) fn shutdown_write(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(Shutdown::Write)
}

/// Makes the drop of `stream` a reset. Where the option cannot be set the socket is gone already.
pub(super) fn reset_on_drop(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

/// How an error on an established connection shows what the peer, or the path to it, did.
pub(super) fn manner_of(error: &io::Error) -> Manner {
    let is_silence = matches!(
        error.kind(),
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    );
    if is_silence {
        Manner::TimedOut
    } else {
        Manner::Reset
    }
}

/// `count` listening sockets that share an address, their options handed on to every accepted socket by the
/// kernel.
pub(super) fn listen(
    address: SocketAddr,
    keepalive: Duration,
    count: usize,
) -> io::Result<Vec<TcpListener>> {
    // Sockets that share an address also share it with those of another process of the same user. That is to be
    // refused as it always was, so the address is tried first without sharing.
    let probe = new_socket(&address.into())?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?;
    drop(probe);
    let share = || {
        let socket = new_socket(&address)?;
        socket.set_reuse_port(true)?;
        tune(&SockRef::from(&socket), keepalive)?;
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    (0..count).map(|_| share()).collect()
}

fn new_socket(address: &SockAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(address.domain(), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Sends small messages at once, and notices a peer that is gone.
pub(super) fn tune(socket: &SockRef<'_>, keepalive: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let probing = TcpKeepalive::new()
        .with_time(keepalive)
        .with_interval((keepalive / KEEPALIVE_PROBES).max(Duration::from_secs(1)))
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&probing)
}

/// Raises the soft limit of open descriptors to the hard one, and says what it is now. Each connection takes
/// two; the usual soft limit of 1024 would end at 500 connections.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}
