//! A server that answers from a shelf, so cheaply that the proxy in front of it is what is measured.
//!
//! Large inserts are compared byte for byte with what the load sends.

use crate::messages::{self, Framer, HEADER};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::rc::Rc;

struct Conn {
    sock: TcpStream,
    frame: Framer,
    /// The reply under way: its header, the message it shares, bytes already sent.
    out: Option<([u8; HEADER], Rc<Vec<u8>>, usize)>,
    /// What the message under way has to equal, when it is checked.
    expect: Option<Rc<Vec<u8>>>,
    messages: u64,
}

#[derive(Default)]
struct Canned {
    cache: HashMap<String, Rc<Vec<u8>>>,
}

impl Canned {
    fn get(&mut self, key: String, make: impl FnOnce() -> Vec<u8>) -> Rc<Vec<u8>> {
        self.cache
            .entry(key)
            .or_insert_with(|| Rc::new(make()))
            .clone()
    }
    fn reply(&mut self, head: &[u8]) -> Rc<Vec<u8>> {
        match messages::command(head) {
            Some(("ping", _)) => self.get("ping".into(), messages::ok_reply),
            Some(("hello" | "isMaster" | "ismaster", _)) => {
                self.get("hello".into(), messages::hello_reply)
            }
            Some(("find", Some(c))) => {
                let size = c[1..].parse().unwrap_or(1024);
                self.get(c.to_string(), || messages::find_reply(size))
            }
            Some(("insert", Some(c))) => {
                let size: usize = c[1..].parse().unwrap_or(1024);
                self.get(c.to_string(), || {
                    messages::insert_reply((size / 1024).max(1) as i32)
                })
            }
            _ => self.get("ok".into(), messages::ok_reply),
        }
    }
    fn expected_insert(&mut self, head: &[u8]) -> Option<Rc<Vec<u8>>> {
        match messages::command(head) {
            Some(("insert", Some(c))) => {
                let size = c.strip_prefix('w')?.parse().ok()?;
                Some(self.get(format!("req-{c}"), || messages::insert_request(size)))
            }
            _ => None,
        }
    }
}

impl Conn {
    fn flush(&mut self) -> io::Result<bool> {
        while let Some((h, m, off)) = &mut self.out {
            let r = if *off < HEADER {
                self.sock
                    .write_vectored(&[IoSlice::new(&h[*off..]), IoSlice::new(&m[HEADER..])])
            } else {
                self.sock.write(&m[*off..])
            };
            match r {
                Ok(n) => *off += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            if *off == m.len() {
                self.out = None;
            }
        }
        Ok(true)
    }

    /// Answers what has arrived; false when the peer is gone.
    fn serve(
        &mut self,
        canned: &mut Canned,
        buf: &mut [u8],
        next_id: &mut i32,
    ) -> io::Result<bool> {
        if !self.flush()? {
            return Ok(true);
        }
        loop {
            let n = match self.sock.read(buf) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let mut rest = &buf[..n];
            while !rest.is_empty() {
                let from = self.frame.seen;
                let took = self.frame.push(rest).map_err(io::Error::other)?;
                let checked = self.messages < 2 || self.messages.is_multiple_of(16);
                if checked && self.expect.is_none() && from < 160 && self.frame.seen >= 100 {
                    self.expect = canned.expected_insert(self.frame.head());
                }
                if let (true, Some(e)) = (checked, &self.expect) {
                    let skip = HEADER.saturating_sub(from).min(took);
                    let here = &rest[skip..took];
                    if e.get(from + skip..from + took) != Some(here) {
                        return Err(io::Error::other(
                            "insert body differs from what the generator sends",
                        ));
                    }
                }
                rest = &rest[took..];
                if self.frame.done() {
                    let m = canned.reply(self.frame.head());
                    *next_id = next_id.wrapping_add(1);
                    let h = messages::header(m.len(), *next_id, self.frame.request_id());
                    if self.out.is_some() {
                        return Err(io::Error::other("pipelined request"));
                    }
                    self.out = Some((h, m, 0));
                    self.frame.reset();
                    self.expect = None;
                    self.messages += 1;
                    self.flush()?;
                }
            }
            if n < buf.len() {
                return Ok(true); // A short read: the next bytes raise an event of their own.
            }
        }
    }
}

/// Serves for ever; prints the address it listens on.
pub fn run(listen: &str) -> io::Result<()> {
    let mut listener = {
        let l = std::net::TcpListener::bind(listen)?;
        l.set_nonblocking(true)?;
        TcpListener::from_std(l)
    };
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut conns: HashMap<usize, Conn> = HashMap::new();
    let (mut next, mut next_id) = (1usize, 0i32);
    let mut canned = Canned::default();
    let mut buf = vec![0u8; 256 * 1024];
    loop {
        if let Err(e) = poll.poll(&mut events, None) {
            if e.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(e);
        }
        for ev in &events {
            let t = ev.token().0;
            if t == 0 {
                loop {
                    match listener.accept() {
                        Ok((mut sock, _)) => {
                            let _ = sock.set_nodelay(true);
                            let both = Interest::READABLE | Interest::WRITABLE;
                            poll.registry().register(&mut sock, Token(next), both)?;
                            let c = Conn {
                                sock,
                                frame: Framer::new(),
                                out: None,
                                expect: None,
                                messages: 0,
                            };
                            conns.insert(next, c);
                            next += 1;
                        }
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) => {
                            eprintln!("accept: {e}");
                            break;
                        }
                    }
                }
                continue;
            }
            let Some(c) = conns.get_mut(&t) else { continue };
            // A fresh connection is writable before it has said anything.
            if !ev.is_readable() && c.out.is_none() && !ev.is_read_closed() {
                continue;
            }
            match c.serve(&mut canned, &mut buf, &mut next_id) {
                Ok(true) => {}
                Ok(false) => {
                    conns.remove(&t);
                }
                Err(e) => {
                    if e.kind() != io::ErrorKind::ConnectionReset
                        && e.kind() != io::ErrorKind::BrokenPipe
                    {
                        eprintln!("connection dropped: {e}");
                    }
                    conns.remove(&t);
                }
            }
        }
    }
}
