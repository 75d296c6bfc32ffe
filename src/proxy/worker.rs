//! The event loop of one thread that forwards.
//!
//! ```text
//! events ─┬─ a listening socket ▶ accept, find a seat, dial
//!         ├─ a socket of a connection ▶ its dial, or a turn of its relay
//!         └─ woken ▶ orders of the crew
//! then: connections that have more to move, and what is due
//! ```
//!
//! It must not wait for anything but events: names are resolved elsewhere, and everything else it does is bounded.
//!
//! **Invariant:** a connection that panics is dropped, which counts it as ended by a failure of the proxy; the
//! others of its thread go on.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use super::Shared;
use super::connection::{Accepted, Connection, Dialling};
use super::crew::{Crew, Order};
use super::listener::{Acceptor, Admission};
use super::relay::{Call, RelayEnd, SCRATCH_LEN, Turn};
use super::schedule::{ROUND, Schedule};
use super::tcp_info::Turns;
use super::upstream::Dialled;
use crate::clients::{ConnectionId, DialFailure};
use crate::time::Timestamp;

/// The token of the waker.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Tokens of listening sockets begin here; below are those of connections, two for each place.
const LISTENERS: usize = usize::MAX / 2;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// Connections accepted from one listening socket before others of the thread get their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// The sockets of a connection: the client's token is twice its place, the server's one more.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Where connections are, and what is due.
pub(super) struct Worker {
    number: usize,
    poll: Poll,
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    acceptors: Vec<Acceptor>,
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Places that were left while events were handled. An event for who was there may still be among them, so
    /// nobody else gets them before the next events.
    left: Vec<usize>,
    /// Connections that have more to move than a turn allows.
    queued: Vec<usize>,
    /// Dials that wait, by when they are given up.
    deadlines: BTreeSet<(Timestamp, usize)>,
    drain: Option<Draining>,
    sampled: Turns,
    scratch: Box<[u8]>,
}

/// A drain under way.
struct Draining {
    schedule: Schedule,
    called: usize,
    /// The place from which on nobody was called yet.
    next: usize,
    round_at: Timestamp,
}

impl Worker {
    pub(super) fn new(number: usize, poll: Poll, shared: Arc<Shared>, crew: Arc<Crew>) -> Self {
        Self {
            number,
            poll,
            shared,
            crew,
            acceptors: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            left: Vec::new(),
            queued: Vec::new(),
            deadlines: BTreeSet::new(),
            drain: None,
            sampled: Turns::default(),
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        }
    }

    /// Forwards until it is told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.wait())
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(worker = self.number, %error, "cannot wait for events");
                return;
            }
            let mut is_woken = false;
            for event in &events {
                match event.token() {
                    WAKE => is_woken = true,
                    Token(token) if token >= LISTENERS => self.accept(token - LISTENERS),
                    Token(token) => self.told(token / 2, token % 2, event),
                }
            }
            if is_woken {
                for order in self.crew.orders_of(self.number) {
                    if matches!(order, Order::Stop) {
                        return;
                    }
                    self.follow(order);
                }
            }
            for place in std::mem::take(&mut self.queued) {
                if let Some(Connection::Relaying(relaying)) = &mut self.places[place] {
                    relaying.is_queued = false;
                }
                self.turn(place);
            }
            self.do_what_is_due();
            self.free.append(&mut self.left);
        }
    }

    /// How long events may be waited for: for ever, unless something is due. A wait without an end needs no timer.
    fn wait(&self) -> Option<Duration> {
        if !self.queued.is_empty() {
            return Some(Duration::ZERO);
        }
        let dials = self.deadlines.first().map(|(at, _)| *at);
        let round = self.drain.as_ref().map(|drain| drain.round_at);
        let retries = self.acceptors.iter().filter_map(Acceptor::retry_at);
        let due = dials.into_iter().chain(round).chain(retries).min()?;
        Some(due.since(self.shared.clock.now()))
    }

    fn do_what_is_due(&mut self) {
        if self.wait().is_none() {
            return;
        }
        let now = self.shared.clock.now();
        while let Some((at, place)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.remove(&(at, place));
            if let Some(Connection::Dialling(dialling)) = &mut self.places[place] {
                let end = dialling.failed(DialFailure::Timeout, self.shared.clock);
                self.ended(place, end);
            }
        }
        for number in 0..self.acceptors.len() {
            if self.acceptors[number].resume(now) {
                self.accept(number);
            }
        }
        self.call_some(now);
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Accept(mut acceptor) => {
                let token = Token(LISTENERS + self.acceptors.len());
                match acceptor.watch(self.poll.registry(), token) {
                    Ok(()) => self.acceptors.push(acceptor),
                    Err(error) => {
                        tracing::error!(%error, "cannot watch a listening socket");
                    }
                }
            }
            Order::Settle(accepted) => self.settle(*accepted),
            Order::Resolved {
                place,
                connection,
                addresses,
            } => self.resolved(place, connection, addresses),
            Order::Sample => self.sample(),
            Order::Drain(spread) => {
                self.acceptors.clear();
                let now = self.shared.clock.now();
                let total = self.places.iter().flatten().count();
                self.drain = Some(Draining {
                    schedule: Schedule::new(now, spread, total),
                    called: 0,
                    next: 0,
                    round_at: now,
                });
            }
            Order::EndNow => self.end_now(),
            // The loop has seen to it.
            Order::Stop => {}
        }
    }

    /// Takes the connections that wait at a listening socket.
    fn accept(&mut self, number: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(acceptor) = self.acceptors.get_mut(number) else {
                return;
            };
            if acceptor.retry_at().is_some() {
                return;
            }
            match acceptor.next(self.number, &self.crew, &self.shared) {
                Admission::None => return,
                Admission::Refused => {}
                Admission::Seated(accepted) if accepted.seat.worker == self.number => {
                    self.settle(*accepted);
                }
                Admission::Seated(accepted) => {
                    let there = accepted.seat.worker;
                    self.crew.order(there, Order::Settle(accepted));
                }
            }
        }
        if let Some(acceptor) = self.acceptors.get_mut(number) {
            acceptor.retry(self.shared.clock.now());
        }
    }

    /// Gives a connection a place and dials for it.
    fn settle(&mut self, mut accepted: Accepted) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        if let Err(error) = watch(self.poll.registry(), &mut accepted.client, place, CLIENT) {
            // The recorder's drop counts the connection as ended by us.
            tracing::warn!(peer = %accepted.peer, %error, "cannot watch an accepted socket");
            self.free.push(place);
            return;
        }
        let mut dialling = Box::new(Dialling::new(accepted, self.shared.clock.now()));
        if let Ok(address) = dialling.upstream.address.parse() {
            let dialled = dialling.dial.resolved([address]);
            self.places[place] = Some(Connection::Dialling(dialling));
            self.dialled(place, dialled);
            return;
        }
        let (connection, name) = (dialling.tap.id(), dialling.upstream.address.clone());
        self.crew.resolve(self.number, place, connection, name);
        self.deadlines.insert((dialling.dial.deadline, place));
        self.places[place] = Some(Connection::Dialling(dialling));
    }

    fn resolved(
        &mut self,
        place: usize,
        connection: ConnectionId,
        addresses: Result<Vec<std::net::SocketAddr>, DialFailure>,
    ) {
        // Whoever asked may have gone.
        if let Some(Some(Connection::Dialling(dialling))) = self.places.get_mut(place)
            && dialling.tap.id() == connection
        {
            let dialled = match addresses {
                Ok(addresses) => dialling.dial.resolved(addresses),
                Err(failure) => Dialled::Failed(failure),
            };
            self.dialled(place, dialled);
        }
    }

    /// Goes on with a dial.
    fn dialled(&mut self, place: usize, dialled: Dialled) {
        let Some(Connection::Dialling(dialling)) = &mut self.places[place] else {
            return;
        };
        match dialled {
            Dialled::Waiting => {}
            Dialled::Begun => {
                self.deadlines.insert((dialling.dial.deadline, place));
                if let Some(server) = dialling.dial.server() {
                    let watched = watch(self.poll.registry(), server, place, SERVER);
                    if watched.is_err() {
                        let end = dialling.failed(DialFailure::Other, self.shared.clock);
                        self.ended(place, end);
                    }
                }
            }
            Dialled::Failed(failure) => {
                // Who waits to be accepted had better wait than be turned away.
                if let Some(shortage) = dialling.dial.shortage {
                    for acceptor in &mut self.acceptors {
                        acceptor.pause(shortage, &self.shared);
                    }
                }
                let end = dialling.failed(failure, self.shared.clock);
                self.ended(place, end);
            }
            Dialled::Connected(server) => self.connected(place, server, None),
        }
    }

    /// The server accepted; `event` said so, unless it did at once.
    fn connected(&mut self, place: usize, mut server: TcpStream, event: Option<&Event>) {
        let Some(Connection::Dialling(dialling)) = self.places[place].take() else {
            return;
        };
        self.deadlines.remove(&(dialling.dial.deadline, place));
        let watched = match event {
            Some(_) => Ok(()),
            None => watch(self.poll.registry(), &mut server, place, SERVER),
        };
        let clock = self.shared.clock;
        match dialling.connected(server, clock) {
            Ok(mut relaying) => {
                if let Some(event) = event {
                    relaying.sides[SERVER].told(event);
                }
                if self.drain.is_some() {
                    relaying.call = Call::AtRest;
                }
                self.places[place] = Some(Connection::Relaying(relaying));
                match watched {
                    Ok(()) => self.turn(place),
                    // The recorder's drop counts the connection as ended by us.
                    Err(error) => {
                        tracing::warn!(%error, "cannot watch a dialled socket");
                        self.places[place] = None;
                        self.left.push(place);
                    }
                }
            }
            Err((dialling, end)) => {
                self.places[place] = Some(Connection::Dialling(dialling));
                self.ended(place, end);
            }
        }
    }

    /// The kernel told something of a connection's socket.
    fn told(&mut self, place: usize, side: usize, event: &Event) {
        match self.places.get_mut(place).and_then(Option::as_mut) {
            None => {}
            Some(Connection::Relaying(relaying)) => {
                relaying.sides[side].told(event);
                self.turn(place);
            }
            Some(Connection::Dialling(dialling)) if side == CLIENT => {
                let before = dialling.dial.deadline;
                if dialling.client_told(event, self.shared.clock) {
                    let after = dialling.dial.deadline;
                    self.deadlines.remove(&(before, place));
                    self.deadlines.insert((after, place));
                }
            }
            Some(Connection::Dialling(dialling)) => match dialling.dial.told() {
                Dialled::Connected(server) => self.connected(place, server, Some(event)),
                dialled @ (Dialled::Begun | Dialled::Waiting | Dialled::Failed(_)) => {
                    self.dialled(place, dialled);
                }
            },
        }
    }

    /// Moves what a connection has to move.
    fn turn(&mut self, place: usize) {
        let Some(Connection::Relaying(relaying)) = &mut self.places[place] else {
            return;
        };
        let (clock, scratch) = (self.shared.clock, &mut *self.scratch);
        let turn = catch_unwind(AssertUnwindSafe(|| relaying.turn(clock, scratch)));
        match turn {
            Ok(Turn::Waiting) => {}
            Ok(Turn::Again) => {
                if !std::mem::replace(&mut relaying.is_queued, true) {
                    self.queued.push(place);
                }
            }
            Ok(Turn::Ended(end)) => self.ended(place, end),
            Err(_panic) => {
                tracing::error!("a connection is dropped because forwarding it panicked");
                self.places[place] = None;
                self.left.push(place);
            }
        }
    }

    /// A connection ended: its place is free from the next events on.
    fn ended(&mut self, place: usize, end: RelayEnd) {
        if let Some(connection) = self.places[place].take() {
            if let Connection::Dialling(dialling) = &connection {
                self.deadlines.remove(&(dialling.dial.deadline, place));
            }
            connection.ended(end, self.shared.clock);
            self.left.push(place);
        }
    }

    /// Calls as many connections to end as are due by now.
    fn call_some(&mut self, now: Timestamp) {
        let Some(drain) = &mut self.drain else {
            return;
        };
        if drain.round_at > now {
            return;
        }
        drain.round_at = now + ROUND;
        let due = drain.schedule.due(now);
        let mut called = Vec::new();
        while drain.called < due && drain.next < self.places.len() {
            if let Some(connection) = &mut self.places[drain.next] {
                drain.called += 1;
                if let Connection::Relaying(relaying) = connection {
                    relaying.call = Call::AtRest;
                    called.push(drain.next);
                }
            }
            drain.next += 1;
        }
        for place in called {
            self.turn(place);
        }
    }

    /// Ends all connections.
    fn end_now(&mut self) {
        for place in 0..self.places.len() {
            match &mut self.places[place] {
                None => {}
                Some(Connection::Dialling(dialling)) => {
                    let end = dialling.given_up(self.shared.clock);
                    self.ended(place, end);
                }
                Some(Connection::Relaying(relaying)) => {
                    relaying.call = Call::Now;
                    self.turn(place);
                }
            }
        }
    }

    /// Asks the kernel about the sockets of as many connections as a second allows.
    fn sample(&mut self) {
        let places = &self.places;
        let relaying = |place: usize| match places.get(place) {
            Some(Some(Connection::Relaying(relaying))) => Some(relaying),
            Some(Some(Connection::Dialling(_)) | None) | None => None,
        };
        self.sampled.turn(
            places.len(),
            |place| relaying(place).map(|relaying| relaying.tap.is_busy()),
            |place| {
                if let Some(relaying) = relaying(place) {
                    relaying.sample();
                }
            },
        );
    }
}

/// Has the kernel tell of a side of the connection in `place`.
fn watch(registry: &Registry, stream: &mut TcpStream, place: usize, side: usize) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    registry.register(stream, Token(2 * place + side), interest)
}
