//! Load made of exchanges: every connection has one request in flight, as those of drivers do.
//!
//! Length, opcode and `responseTo` of each reply are checked; the content of the first two and of every sixteenth
//! reply on a connection is compared byte for byte.

use crate::histogram::Histogram;
use crate::messages::{self, Framer, HEADER, OP_MSG};
use crate::usage::{Usage, machine_busy_ns, usage_of};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

/// What to do, and whom to watch meanwhile.
pub struct Load {
    pub mode: String,
    pub target: SocketAddr,
    pub conns: usize,
    pub secs: f64,
    pub warmup: f64,
    pub request: Vec<u8>,
    /// Whether throughput in bytes is that of replies (find) or of requests (insert).
    pub count_reply: bool,
    pub pid: Option<u32>,
    pub server_pid: Option<u32>,
}

/// A connection over which a hello was answered.
pub fn connect(target: SocketAddr, request_id: i32) -> io::Result<StdStream> {
    let mut s = StdStream::connect_timeout(&target, Duration::from_secs(10))?;
    s.set_nodelay(true)?;
    s.set_read_timeout(Some(Duration::from_secs(10)))?;
    roundtrip(&mut s, &messages::hello_request(), request_id)?;
    Ok(s)
}

/// Sends a request and waits for its whole reply.
pub fn roundtrip(s: &mut StdStream, request: &[u8], id: i32) -> io::Result<Vec<u8>> {
    let mut m = request.to_vec();
    m[..HEADER].copy_from_slice(&messages::header(request.len(), id, 0));
    s.write_all(&m)?;
    let mut frame = Framer::new();
    let mut got = Vec::new();
    let mut buf = [0u8; 65536];
    while !frame.done() {
        let n = s.read(&mut buf)?;
        if n == 0 {
            return Err(io::Error::other("closed before the reply was complete"));
        }
        let mut rest = &buf[..n];
        while !rest.is_empty() {
            let took = frame.push(rest).map_err(io::Error::other)?;
            got.extend_from_slice(&rest[..took]);
            rest = &rest[took..];
            if frame.done() && !rest.is_empty() {
                return Err(io::Error::other("bytes after the reply"));
            }
        }
    }
    if frame.response_to() != id || frame.op_code() != OP_MSG {
        return Err(io::Error::other("reply does not answer the request"));
    }
    Ok(got)
}

struct Conn {
    sock: TcpStream,
    frame: Framer,
    id: i32,
    sent: usize,
    started: Instant,
    replies: u64,
}

struct Check<'a> {
    request: &'a [u8],
    /// What every reply has to equal, but for the ids in its header.
    reply: Vec<u8>,
}

impl Conn {
    fn start(&mut self, c: &Check) -> io::Result<()> {
        self.id = self.id.wrapping_add(1) & i32::MAX;
        self.sent = 0;
        self.started = Instant::now();
        self.send(c)
    }

    fn send(&mut self, c: &Check) -> io::Result<()> {
        let h = messages::header(c.request.len(), self.id, 0);
        while self.sent < c.request.len() {
            let r = if self.sent < HEADER {
                self.sock.write_vectored(&[
                    IoSlice::new(&h[self.sent..]),
                    IoSlice::new(&c.request[HEADER..]),
                ])
            } else {
                self.sock.write(&c.request[self.sent..])
            };
            match r {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what has arrived; true when that completed a reply, which was checked.
    fn recv(&mut self, c: &Check, buf: &mut [u8]) -> io::Result<bool> {
        loop {
            let n = match self.sock.read(buf) {
                Ok(0) => return Err(io::Error::other("closed by the peer")),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let compare = self.replies < 2 || self.replies.is_multiple_of(16);
            let mut rest = &buf[..n];
            while !rest.is_empty() {
                if self.frame.done() {
                    return Err(io::Error::other("bytes after the reply"));
                }
                let from = self.frame.seen;
                let took = self.frame.push(rest).map_err(io::Error::other)?;
                if self.frame.seen >= HEADER && self.frame.total() != c.reply.len() {
                    let (got, want) = (self.frame.total(), c.reply.len());
                    return Err(io::Error::other(format!(
                        "reply says {got} bytes, not {want}"
                    )));
                }
                if compare {
                    let skip = HEADER.saturating_sub(from).min(took);
                    if c.reply.get(from + skip..from + took) != Some(&rest[skip..took]) {
                        return Err(io::Error::other("reply content differs"));
                    }
                }
                rest = &rest[took..];
            }
            if self.frame.done() {
                let f = &self.frame;
                if f.response_to() != self.id {
                    return Err(io::Error::other(format!(
                        "responseTo {} for request {}",
                        f.response_to(),
                        self.id
                    )));
                }
                if f.op_code() != OP_MSG {
                    return Err(io::Error::other(format!(
                        "reply has opcode {}",
                        f.op_code()
                    )));
                }
                if self.sent < c.request.len() {
                    return Err(io::Error::other("reply before the request was sent"));
                }
                self.frame.reset();
                self.replies += 1;
                return Ok(true);
            }
            if n < buf.len() {
                return Ok(false);
            }
        }
    }
}

fn snaps(l: &Load) -> [Usage; 3] {
    let get = |p: Option<u32>| p.map(usage_of).unwrap_or_default();
    [get(l.pid), get(l.server_pid), usage_of(std::process::id())]
}

/// Runs the load and tells about it, as JSON.
pub fn run(l: &Load) -> io::Result<String> {
    let mut conns = Vec::with_capacity(l.conns);
    let mut reply = Vec::new();
    for i in 0..l.conns {
        let mut s = connect(l.target, 1)?;
        if i == 0 {
            reply = roundtrip(&mut s, &l.request, 2)?;
            if !messages::says_ok(&reply) {
                return Err(io::Error::other("the server refused the request"));
            }
        }
        s.set_nonblocking(true)?;
        conns.push(Conn {
            sock: TcpStream::from_std(s),
            frame: Framer::new(),
            id: (i as i32) << 12,
            sent: 0,
            started: Instant::now(),
            replies: 0,
        });
    }
    let payload = if l.count_reply {
        reply.len()
    } else {
        l.request.len()
    } as u64;
    let check = Check {
        request: &l.request,
        reply,
    };

    let mut poll = Poll::new()?;
    for (i, c) in conns.iter_mut().enumerate() {
        poll.registry().register(
            &mut c.sock,
            Token(i),
            Interest::READABLE | Interest::WRITABLE,
        )?;
    }
    let mut events = Events::with_capacity(1024);
    let mut buf = vec![0u8; 256 * 1024];
    let mut hist = Histogram::new();

    let begin = Instant::now();
    let measure_at = begin + Duration::from_secs_f64(l.warmup);
    let mut before: Option<([Usage; 3], u64, Instant)> = None;
    let (mut ops, mut all, mut last) = (0u64, 0u64, begin);
    for c in &mut conns {
        c.start(&check)?;
    }
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        for ev in &events {
            let c = &mut conns[ev.token().0];
            if ev.is_writable() && c.sent < check.request.len() {
                c.send(&check)?;
            }
            if (ev.is_readable() || ev.is_read_closed()) && c.recv(&check, &mut buf)? {
                last = Instant::now();
                all += 1;
                if before.is_some() {
                    ops += 1;
                    hist.add((last - c.started).as_nanos() as u64);
                }
                c.start(&check)?;
            }
        }
        let now = Instant::now();
        if now - last > Duration::from_secs(10) {
            return Err(io::Error::other("no reply for 10 s: stalled"));
        }
        match &before {
            None if now >= measure_at => {
                before = Some((snaps(l), machine_busy_ns(), Instant::now()))
            }
            Some((_, _, t)) if (now - *t).as_secs_f64() >= l.secs => break,
            _ => {}
        }
    }
    let stuck = conns
        .iter()
        .filter(|c| c.started.elapsed() > Duration::from_secs(5))
        .count();
    if ops == 0 || stuck > 0 {
        return Err(io::Error::other(format!(
            "{ops} replies, {stuck} connections without one for 5 s"
        )));
    }
    let (b, busy0, t0) = before.expect("measured");
    let secs = t0.elapsed().as_secs_f64();
    let a = snaps(l);
    let bytes = ops * payload;
    let named: u64 = a.iter().zip(&b).map(|(a, b)| a.cpu_ns_since(b)).sum();
    let other = machine_busy_ns()
        .saturating_sub(busy0)
        .saturating_sub(named) as f64
        / 1e9
        / secs;
    Ok(format!(
        "{{\"mode\":\"{}\",\"target\":\"{}\",\"conns\":{},\"secs\":{secs:.3},\"ops\":{ops},\"ops_all\":{all},\"ops_s\":{:.1},\
         \"payload\":{payload},\"mb_s\":{:.2},\"lat_us\":{},\"proxy\":{},\"server\":{},\"gen\":{},\"other_cpus\":{other:.2}}}",
        l.mode,
        l.target,
        l.conns,
        ops as f64 / secs,
        bytes as f64 / 1e6 / secs,
        hist.json(),
        l.pid
            .map_or("null".into(), |_| a[0].json_since(&b[0], ops, bytes)),
        l.server_pid
            .map_or("null".into(), |_| a[1].json_since(&b[1], ops, bytes)),
        a[2].json_since(&b[2], ops, bytes),
    ))
}
