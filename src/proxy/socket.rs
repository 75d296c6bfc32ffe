//! A socket of a connection: its readiness, its reads and writes, and socket options.
//!
//! The kernel tells readiness once, when it changes (edge-triggered), and it is remembered here until a call shows
//! that it is gone. After a read that did not fill the buffer, or a write that was cut short, the socket is known
//! to be drained or full, so its readiness is given up at once instead of by a further call that fails: one system
//! call less for each exchange. FIN and RST are never lost that way, as a closed socket stays readable.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Protocol, SockAddr, SockRef, Socket as OptionedSocket, TcpKeepalive, Type};

use crate::connection::Manner;
use crate::metrics::AcceptFailure;

/// Connections the kernel keeps waiting for an accept.
const BACKLOG: i32 = 4096;

/// Unanswered keepalive probes until a peer counts as dead.
const KEEPALIVE_PROBES: u32 = 4;

/// One socket of a connection. `Poll::Pending` means: not before an event says so.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    may_read: bool,
    may_write: bool,
    /// Nothing more will come: what is there can be read to its end without waiting for events.
    is_read_closed: bool,
    has_error: bool,
}

impl Socket {
    /// A connected socket that was just registered: there is room to write, and the first event tells the rest.
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            may_read: false,
            may_write: true,
            is_read_closed: false,
            has_error: false,
        }
    }

    /// Remembers what the kernel tells.
    pub(super) fn told(&mut self, event: &Event) {
        self.has_error |= event.is_error();
        self.is_read_closed |= event.is_read_closed();
        self.may_read |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.may_write |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Reads what is there, up to the length of `buffer`. 0 is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let wanted = buffer.len();
        while self.may_read {
            match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
                Ok((len, _)) => {
                    self.may_read = len == wanted || self.is_read_closed;
                    return Poll::Ready(Ok(len));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.may_read = false,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Pending
    }

    /// Writes as much of `bytes` as the socket takes now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while self.may_write {
            match send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Ok(len) => {
                    self.may_write = len == bytes.len();
                    return Poll::Ready(Ok(len));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.may_write = false,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Pending
    }

    /// Lets `call` take bytes from the socket in its own way.
    pub(super) fn take_with(
        &mut self,
        call: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        attempt(&mut self.may_read, self.stream.as_fd(), call)
    }

    /// Lets `call` give bytes to the socket in its own way.
    pub(super) fn give_with(
        &mut self,
        call: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        attempt(&mut self.may_write, self.stream.as_fd(), call)
    }

    /// What broke the socket, once; for a side from which nobody reads.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        if !std::mem::take(&mut self.has_error) {
            return None;
        }
        match self.stream.take_error() {
            Ok(told) => told,
            Err(error) => Some(error),
        }
    }

    /// Ends the writing half.
    pub(super) fn shutdown_write(&self) {
        // A side that is gone already shows itself when it is read from or written to.
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Makes the drop of the socket a reset. Where the option cannot be set the socket is gone already.
    pub(super) fn reset_on_drop(&self) {
        reset_on_drop(&self.stream);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn attempt(
    may: &mut bool,
    descriptor: BorrowedFd<'_>,
    mut call: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
) -> Poll<io::Result<usize>> {
    while *may {
        match call(descriptor) {
            Ok(len) => return Poll::Ready(Ok(len)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => *may = false,
            Err(error) => return Poll::Ready(Err(error.into())),
        }
    }
    Poll::Pending
}

/// Makes the drop of `stream` a reset.
pub(super) fn reset_on_drop(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// Begins to connect to `address`; true when that is done already, as on one host it is.
pub(super) fn connect(address: SocketAddr, keepalive: Duration) -> io::Result<(TcpStream, bool)> {
    let socket = new_socket(&address.into())?;
    tune(&SockRef::from(&socket), keepalive)?;
    let is_done = match socket.connect(&address.into()) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => false,
        Err(error) => return Err(error),
    };
    Ok((TcpStream::from_std(socket.into()), is_done))
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

/// What of the machine an error says there is too little of.
pub(super) fn shortage(error: &io::Error) -> Option<AcceptFailure> {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => Some(AcceptFailure::FileLimit),
        Some(Errno::NOBUFS | Errno::NOMEM) => Some(AcceptFailure::Memory),
        _ => None,
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
    let probe = new_listener(&address.into())?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?;
    drop(probe);
    let share = || {
        let socket = new_listener(&address)?;
        socket.set_reuse_port(true)?;
        tune(&SockRef::from(&socket), keepalive)?;
        socket.bind(&address)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    (0..count).map(|_| share()).collect()
}

fn new_listener(address: &SockAddr) -> io::Result<OptionedSocket> {
    let socket = new_socket(address)?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn new_socket(address: &SockAddr) -> io::Result<OptionedSocket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    OptionedSocket::new(address.domain(), kind, Some(Protocol::TCP))
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
