//! The least a proxy can do: what is read from one socket is written to the other. No limits, no times, no counts.
//!
//! What any proxy costs beyond this is its own; what this costs is the kernel's. Each thread listens for itself and
//! keeps its connections, reads into one large buffer, and never asks a socket that has just given all it had.

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

const BUFFER_LEN: usize = 256 * 1024;
const LISTENER: Token = Token(usize::MAX);

/// One side of a connection, and what the other side sent that it did not take yet.
struct Side {
    stream: TcpStream,
    held: Vec<u8>,
    has_ended: bool,
}

/// Relays between `listen` and `upstream` on `threads` threads, until killed.
pub fn run(listen: SocketAddr, upstream: SocketAddr, threads: usize) -> io::Result<()> {
    let workers: Vec<_> = (0..threads.max(1))
        .map(|_| {
            let listener = shared_listener(listen)?;
            Ok(thread::spawn(move || relay(listener, upstream)))
        })
        .collect::<io::Result<_>>()?;
    println!("listening on {listen}");
    for worker in workers {
        worker
            .join()
            .map_err(|_| io::Error::other("a thread panicked"))??;
    }
    Ok(())
}

fn shared_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn relay(mut listener: TcpListener, upstream: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut pairs = Pairs::default();
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let server = TcpStream::connect(upstream)?;
                    pairs.add(poll.registry(), [client, server])?;
                }
            } else {
                pairs.handle(event, &mut buffer);
            }
        }
    }
}

/// The connections of a thread. A socket's token is twice its connection's place, and one more for the server's.
#[derive(Default)]
struct Pairs {
    places: Vec<Option<[Side; 2]>>,
    free: Vec<usize>,
}

impl Pairs {
    fn add(&mut self, registry: &Registry, streams: [TcpStream; 2]) -> io::Result<()> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let mut pair = streams.map(|stream| Side {
            stream,
            held: Vec::new(),
            has_ended: false,
        });
        for (number, side) in pair.iter_mut().enumerate() {
            side.stream.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut side.stream, Token(2 * place + number), interest)?;
        }
        self.places[place] = Some(pair);
        Ok(())
    }

    fn handle(&mut self, event: &Event, buffer: &mut [u8]) {
        let (place, number) = (event.token().0 / 2, event.token().0 % 2);
        let Some([client, server]) = &mut self.places[place] else {
            return;
        };
        let (this, other) = if number == 0 {
            (client, server)
        } else {
            (server, client)
        };
        let mut outcome = Ok(());
        if event.is_writable() && !this.held.is_empty() {
            outcome = flush(this).and_then(|()| copy(other, this, buffer));
        }
        if event.is_readable() && outcome.is_ok() {
            outcome = copy(this, other, buffer);
        }
        if outcome.is_err() || (this.has_ended && other.has_ended) {
            self.places[place] = None;
            self.free.push(place);
        }
    }
}

/// Moves what `source` has to `sink`, until one of them has no more or takes no more.
fn copy(source: &mut Side, sink: &mut Side, buffer: &mut [u8]) -> io::Result<()> {
    while sink.held.is_empty() && !source.has_ended {
        let len = match source.stream.read(buffer) {
            Ok(len) => len,
            Err(error) if is_temporary(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        if len == 0 {
            source.has_ended = true;
            return sink.stream.shutdown(Shutdown::Write);
        }
        let taken = match sink.stream.write(&buffer[..len]) {
            Ok(taken) => taken,
            Err(error) if is_temporary(&error) => 0,
            Err(error) => return Err(error),
        };
        sink.held.extend_from_slice(&buffer[taken..len]);
        if len < buffer.len() {
            return Ok(());
        }
    }
    Ok(())
}

/// Gives a side what is held for it.
fn flush(side: &mut Side) -> io::Result<()> {
    while !side.held.is_empty() {
        match side.stream.write(&side.held) {
            Ok(taken) => drop(side.held.drain(..taken)),
            Err(error) if is_temporary(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected
    )
}
