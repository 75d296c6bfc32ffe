//! A server that behaves like one: it lets streaming monitors wait, numbers its connections, and now and then has no
//! good answer.

use super::line::{Line, READ_MAX};
use super::recorded::{self, HEARTBEAT_MS, Replies};
use crate::messages::{self, Doc};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);

/// One find in so many is answered with an error that concerns nobody else (`NamespaceNotFound`).
const ERROR_EVERY: u64 = 5_000;

/// Flag of a request: the server may answer it again and again.
const EXHAUST_ALLOWED: u8 = 1;

struct Member {
    replies: Replies,
    error: Vec<u8>,
    ok: Vec<u8>,
    lines: HashMap<usize, Line>,
    /// Streams and what they answer, in the order in which the next reply is due: all wait equally long.
    streams: VecDeque<(Instant, usize, i32)>,
    next_id: i32,
    finds: u64,
}

impl Member {
    fn id(&mut self) -> i32 {
        self.next_id = self.next_id.wrapping_add(1) & i32::MAX;
        self.next_id
    }

    /// False when the connection is over.
    fn serve(&mut self, key: usize, buffer: &mut [u8]) -> bool {
        let mut requests = Vec::new();
        let Some(line) = self.lines.get_mut(&key) else {
            return true;
        };
        let goes_on = line.read(buffer, |head| requests.push(head.to_vec()));
        for request in requests {
            if self.answer(key, &request).is_err() {
                return false;
            }
        }
        goes_on.unwrap_or(false)
    }

    fn answer(&mut self, key: usize, request: &[u8]) -> io::Result<()> {
        let request_id = i32::from_le_bytes(request[4..8].try_into().expect("four bytes"));
        let is_query = request[12..16] == 2004_i32.to_le_bytes();
        let name = if is_query {
            "hello"
        } else {
            messages::command(request).map_or("", |(name, _)| name)
        };
        let template = match name {
            "hello" | "isMaster" | "ismaster" => {
                if !is_query && request[18] & EXHAUST_ALLOWED != 0 {
                    let due = Instant::now() + Duration::from_millis(HEARTBEAT_MS as u64);
                    self.streams.push_back((due, key, request_id));
                    return Ok(());
                }
                let hello = if is_query {
                    &self.replies.hello_to_query
                } else {
                    &self.replies.hello
                };
                recorded::with_connection_id(hello.clone(), key as i32)
            }
            "find" => {
                self.finds += 1;
                if self.finds.is_multiple_of(ERROR_EVERY) {
                    self.error.clone()
                } else {
                    self.replies.find.clone()
                }
            }
            _ => self.ok.clone(),
        };
        let id = self.id();
        let reply = recorded::with_ids(&template, id, request_id);
        self.lines
            .get_mut(&key)
            .map_or(Ok(()), |line| line.send(&reply))
    }

    /// Continues the streams that are due; gives the time until the next is.
    fn stream(&mut self) -> Duration {
        let now = Instant::now();
        while let Some((due, key, answers)) = self.streams.front().copied() {
            if due > now {
                return due - now;
            }
            self.streams.pop_front();
            let id = self.id();
            if let Some(line) = self.lines.get_mut(&key) {
                let reply =
                    recorded::with_connection_id(self.replies.streaming.clone(), key as i32);
                if line.send(&recorded::with_ids(&reply, id, answers)).is_ok() {
                    let next = due + Duration::from_millis(HEARTBEAT_MS as u64);
                    self.streams.push_back((next, key, id));
                }
            }
        }
        Duration::from_secs(1)
    }
}

/// Serves for ever; prints the address it listens on.
pub fn run(listen: &str) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_MAX];
    let error = Doc::new()
        .f64("ok", 0.0)
        .str("errmsg", "ns does not exist")
        .i32("code", 26)
        .str("codeName", "NamespaceNotFound");
    let mut member = Member {
        replies: recorded::replies(),
        error: messages::op_msg(&error.finish(), None),
        ok: messages::ok_reply(),
        lines: HashMap::new(),
        streams: VecDeque::new(),
        next_id: 0,
        finds: 0,
    };
    let mut started = 0;
    loop {
        let patience = member.stream();
        match poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let key = event.token().0;
            if event.token() != LISTENER {
                if !member.serve(key, &mut buffer) {
                    member.lines.remove(&key);
                }
                continue;
            }
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        started += 1;
                        let line = Line::new(stream, poll.registry(), Token(started))?;
                        member.lines.insert(started, line);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        eprintln!("accept: {error}");
                        break;
                    }
                }
            }
        }
    }
}
