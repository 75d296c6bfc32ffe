//! Bytes, halves, resets and refusals: what goes in comes out, whatever it is.
//!
//! The far side is a plain socket of the test, so that every byte and every TCP event is known exactly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::{Poolscope, Port, eventually, eventually_equal, get, now};

/// A relay before a listener of the test.
struct Rig {
    proxy: Poolscope,
    listener: TcpListener,
    port: Port,
}

impl Rig {
    fn new() -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(port.addr()).unwrap();
        Self {
            proxy: Poolscope::start(&[port.addr()]),
            listener,
            port,
        }
    }

    /// A connected pair: the client's socket, and the server's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.addr()).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        for stream in [&client, &server] {
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream.set_nodelay(true).unwrap();
        }
        (client, server)
    }

    /// Waits until every connection has ended.
    #[track_caller]
    fn await_quiet(&self) {
        eventually_equal(Duration::from_secs(5), &0.0, || {
            self.proxy.sum("poolscope_upstream_connections", &[])
        });
    }
}

/// A small generator, so that every run of a seed sends the same bytes in the same pieces.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Messages a decoder walks through, so that the tap is at work while the pieces arrive.
fn messages(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = Vec::new();
    let mut request_id = 0i32;
    while bytes.len() < len {
        let padding = noise(random.next(), 1 + random.below(9_000));
        let mut document = bson::rawdoc! { "ping": 1, "$db": "admin" };
        document.append(
            bson::cstr!("pad"),
            bson::RawBson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: padding,
            }),
        );
        request_id += 1;
        bytes.extend(op_msg(request_id, 0, document.as_bytes()));
    }
    bytes
}

fn op_msg(request_id: i32, response_to: i32, document: &[u8]) -> Vec<u8> {
    let len = i32::try_from(16 + 4 + 1 + document.len()).unwrap();
    let mut message = Vec::new();
    for field in [len, request_id, response_to, 2013, 0] {
        message.extend_from_slice(&field.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(document);
    message
}

/// Sends in random pieces, closes its half, and says what it sent.
fn send_in_pieces(mut stream: TcpStream, bytes: &[u8], mut random: Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let limit = if random.below(4) == 0 { 200_000 } else { 40 };
        let len = (1 + random.below(limit)).min(rest.len());
        stream.write_all(&rest[..len]).unwrap();
        rest = &rest[len..];
        if random.below(64) == 0 {
            thread::yield_now();
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads to the end, at most `len` bytes at a time; a slow reader stops now and then.
fn read_all(mut stream: TcpStream, len: usize, pauses: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; len];
    let mut reads = 0;
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&buffer[..count]);
        reads += 1;
        if pauses > 0 && reads % pauses == 0 {
            // The pause is the subject: a reader that lets the buffers of the path fill up.
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn check_both_ways(rig: &Rig, up: &[u8], down: &[u8], seed: u64, pauses: usize) {
    let (client, server) = rig.connect();
    thread::scope(|scope| {
        let (client_reader, server_reader) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        scope.spawn(move || send_in_pieces(client, up, Random(seed)));
        scope.spawn(move || send_in_pieces(server, down, Random(seed + 7)));
        let got_up = scope.spawn(move || read_all(server_reader, 70_000, pauses));
        let got_down = scope.spawn(move || read_all(client_reader, 3_000, pauses * 20));
        assert!(
            got_up.join().unwrap() == up,
            "bytes to the server differ, seed {seed}"
        );
        assert!(
            got_down.join().unwrap() == down,
            "bytes to the client differ, seed {seed}"
        );
    });
}

#[test]
fn bytes_are_equal_under_random_splits_in_both_directions_at_once() {
    let rig = Rig::new();
    for seed in 1..=12 {
        let len = 40_000 * usize::try_from(seed).unwrap();
        check_both_ways(&rig, &noise(seed, len), &noise(seed + 99, len / 2), seed, 0);
        check_both_ways(
            &rig,
            &messages(seed, len),
            &messages(seed + 99, len * 2),
            seed,
            0,
        );
    }
    let opaque = rig.proxy.sum("poolscope_opaque_connections_total", &[]);
    assert!(opaque >= 12.0, "noise was noticed as such: {opaque}");
}

#[test]
fn slow_readers_lose_no_byte() {
    let rig = Rig::new();
    for seed in 1..=3 {
        check_both_ways(
            &rig,
            &messages(seed, 6_000_000),
            &messages(seed + 9, 3_000_000),
            seed,
            4,
        );
    }
}

/// Writes until nothing more is taken for a while; says how many bytes were.
fn fill(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let bytes = noise(5, 1 << 20);
    let mut sent = 0;
    let mut last_progress = now();
    while last_progress.elapsed() < Duration::from_millis(500) {
        match stream.write(&bytes) {
            Ok(count) => {
                sent += count;
                last_progress = now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("write: {error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn what_the_other_side_does_not_take_is_not_read() {
    let rig = Rig::new();
    let (client, server) = rig.connect();
    let sent = fill(&client);
    // Kernel buffers of both hops hold some megabytes; the proxy itself one chunk.
    assert!(
        sent < 48 << 20,
        "{sent} bytes were taken although nobody reads"
    );
    let resident = rig.proxy.resident_bytes();
    assert!(resident < 64 << 20, "resident {resident}");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(server, 1 << 16, 0).len(), sent);
}

#[test]
fn half_close_keeps_the_other_direction_open() {
    let rig = Rig::new();
    for client_first in [true, false] {
        let (client, server) = rig.connect();
        let (mut early, mut late) = if client_first {
            (client, server)
        } else {
            (server, client)
        };
        early.write_all(b"last words").unwrap();
        early.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        late.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
        // The wait is the subject: three seconds between the halves.
        thread::sleep(Duration::from_secs(3));
        let answer = noise(3, 500_000);
        late.write_all(&answer).unwrap();
        drop(late);
        let mut got = Vec::new();
        early.read_to_end(&mut got).unwrap();
        assert!(got == answer, "client first: {client_first}");
    }
    for initiator in ["client", "server"] {
        eventually_equal(Duration::from_secs(5), &1.0, || {
            let labels = [("initiator", initiator)];
            rig.proxy
                .sum("poolscope_upstream_connections_closed_total", &labels)
        });
    }
}

/// Time from the reset of one side until the other side reads its reset.
fn time_of_reset(from: TcpStream, mut to: TcpStream) -> Duration {
    let (tx, rx) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match to.read(&mut buffer) {
                Ok(0) => break tx.send((now(), "fin")).unwrap(),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    break tx.send((now(), "rst")).unwrap();
                }
                Err(error) => panic!("read: {error}"),
            }
        }
    });
    SockRef::from(&from)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    let began = now();
    drop(from);
    let (ended, how) = rx.recv_timeout(Duration::from_secs(10)).unwrap();
    reader.join().unwrap();
    assert_eq!(how, "rst", "a reset must arrive as a reset");
    ended.saturating_duration_since(began)
}

#[test]
fn a_reset_is_passed_on_as_a_reset_within_five_milliseconds() {
    let rig = Rig::new();
    for client_first in [true, false] {
        let mut times: Vec<Duration> = (0..21)
            .map(|round| {
                let (mut client, mut server) = rig.connect();
                if round % 3 > 0 {
                    client
                        .write_all(&op_msg(1, 0, bson::rawdoc! { "ping": 1 }.as_bytes()))
                        .unwrap();
                    server.read_exact(&mut [0; 16]).unwrap();
                }
                if round % 3 > 1 {
                    server.write_all(&[0; 64]).unwrap();
                    client.read_exact(&mut [0; 64]).unwrap();
                }
                let (from, to) = if client_first {
                    (client, server)
                } else {
                    (server, client)
                };
                if round % 3 > 1 {
                    // Who said goodbye still has to hear that the other side broke.
                    to.shutdown(Shutdown::Write).unwrap();
                }
                time_of_reset(from, to)
            })
            .collect();
        times.sort();
        // The machine is shared: the median says what the proxy does, the worst what the scheduler did.
        assert!(
            times[10] < Duration::from_millis(5),
            "client first {client_first}: {times:?}"
        );
    }
    rig.await_quiet();
}

#[test]
fn a_reset_is_noticed_while_the_other_side_does_not_read() {
    let rig = Rig::new();
    let (client, server) = rig.connect();
    fill(&client);
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    rig.await_quiet();
    // What had been taken may still be read, then comes the reset.
    let mut server = server;
    let mut buffer = vec![0; 1 << 20];
    let error = loop {
        match server.read(&mut buffer) {
            Ok(0) => panic!("a reset must not arrive as an orderly end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_refused_upstream_resets_the_client_and_works_again_when_it_is_back() {
    let rig = Rig::new();
    let Rig {
        proxy,
        listener,
        port,
    } = rig;
    drop(listener);
    for _ in 0..5 {
        let began = now();
        let mut client = TcpStream::connect(proxy.addr()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let error = client.read(&mut [0; 1]).expect_err("refused upstream");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let took = began.elapsed();
        assert!(took < Duration::from_millis(100), "reset after {took:?}");
    }
    let refused = [("reason", "refused")];
    let count = proxy.sum("poolscope_upstream_connect_failures_total", &refused);
    assert!(
        (count - 5.0).abs() < f64::EPSILON,
        "{count} refusals counted"
    );
    let listener = TcpListener::bind(port.addr()).unwrap();
    let rig = Rig {
        proxy,
        listener,
        port,
    };
    check_both_ways(&rig, b"hello", b"there", 3, 0);
}

#[test]
fn a_server_too_slow_to_accept_is_given_up_after_the_connect_timeout() {
    let port = Port::reserve();
    let upstream = port.addr();
    let _full = port.listen_full();
    let proxy = Poolscope::start_with(&[upstream], &["--connect-timeout", "700ms"]);
    let began = now();
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let error = client.read(&mut [0; 1]).expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(600) && took < Duration::from_millis(900),
        "reset after {took:?}"
    );
    let timeout = [("reason", "timeout")];
    let count = proxy.sum("poolscope_upstream_connect_failures_total", &timeout);
    assert!(
        (count - 1.0).abs() < f64::EPSILON,
        "{count} time-outs counted"
    );
}

#[test]
fn the_server_is_dialled_before_the_client_says_anything() {
    let rig = Rig::new();
    let (mut client, mut server) = rig.connect();
    server.write_all(b"server speaks first").unwrap();
    let mut heard = [0; 19];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"server speaks first");
}

#[test]
fn churn_of_two_thousand_connections_leaks_no_descriptor() {
    let rig = Rig::new();
    drop(rig.connect());
    rig.await_quiet();
    let before = rig.proxy.descriptors();
    for batch in 0..20 {
        let mut pairs: Vec<_> = (0..100).map(|_| rig.connect()).collect();
        for (number, (client, server)) in pairs.iter_mut().enumerate() {
            client.write_all(&noise(batch, 100)).unwrap();
            if number % 3 == 0 {
                SockRef::from(&*client)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            } else if number % 3 == 1 {
                SockRef::from(&*server)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        }
    }
    eventually(Duration::from_secs(10), || match rig.proxy.descriptors() {
        count if count <= before => Ok(()),
        count => Err(format!("{count} descriptors, {before} before")),
    });
    let opened = rig
        .proxy
        .sum("poolscope_upstream_connections_opened_total", &[]);
    let closed = rig
        .proxy
        .sum("poolscope_upstream_connections_closed_total", &[]);
    assert!((opened - 2001.0).abs() < f64::EPSILON, "{opened} opened");
    assert!(
        (closed - opened).abs() < f64::EPSILON,
        "{closed} of {opened} closed"
    );
}

#[test]
fn idle_connections_hold_no_buffer() {
    let rig = Rig::new();
    let chunk = noise(1, 100_000);
    // The first ones touch every buffer there is once.
    let warm: Vec<_> = (0..50).map(|_| rig.connect()).collect();
    for (client, server) in &warm {
        exchange(client, server, &chunk);
    }
    let before = rig.proxy.resident_bytes();
    let idle: Vec<_> = (0..1000).map(|_| rig.connect()).collect();
    for (client, server) in &idle {
        exchange(client, server, &chunk);
    }
    let each = rig.proxy.resident_bytes().saturating_sub(before) / 1000;
    assert!(each < 6 * 1024, "{each} bytes for each idle connection");
}

/// With everything on: decoding, attribution, and the thread that reasons. What all connections share is warm.
#[test]
fn an_introduced_idle_connection_holds_less_than_four_kilobytes() {
    const CONNECTIONS: u64 = 2000;
    let rig = Rig::new();
    let hello = op_msg(
        1,
        0,
        bson::rawdoc! {
            "hello": 1,
            "$db": "admin",
            "client": {
                "application": { "name": "idle" },
                "driver": { "name": "mongo-rust-driver", "version": "3.2.3" },
                "os": { "type": "Linux" },
            },
        }
        .as_bytes(),
    );
    let ping = op_msg(2, 0, bson::rawdoc! { "ping": 1, "$db": "admin" }.as_bytes());
    let ok = bson::rawdoc! { "ok": 1.0 };
    let introduced = || {
        let (client, server) = rig.connect();
        for (id, request) in [(1, &hello), (2, &ping)] {
            pass(&client, &server, request);
            pass(&server, &client, &op_msg(id, id, ok.as_bytes()));
        }
        (client, server)
    };
    let counted = || {
        let labels = [("app", "idle"), ("command", "ping")];
        rig.proxy.sum("poolscope_requests_total", &labels)
    };
    let mut held: Vec<_> = (0..50).map(|_| introduced()).collect();
    eventually_equal(Duration::from_secs(5), &50.0, counted);
    let before = rig.proxy.resident_bytes();
    held.extend((0..CONNECTIONS).map(|_| introduced()));
    // They were looked at, or their memory would say nothing.
    eventually_equal(Duration::from_secs(5), &2050.0, counted);
    let each = rig.proxy.resident_bytes().saturating_sub(before) / CONNECTIONS;
    assert!(each < 4 * 1024, "{each} bytes for each idle connection");
}

/// Sends `bytes` and sees them come.
fn pass(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    let mut buffer = vec![0; bytes.len()];
    from.write_all(bytes).unwrap();
    to.read_exact(&mut buffer).unwrap();
    assert!(buffer == bytes);
}

fn exchange(mut client: &TcpStream, mut server: &TcpStream, chunk: &[u8]) {
    let mut buffer = vec![0; chunk.len()];
    client.write_all(chunk).unwrap();
    server.read_exact(&mut buffer).unwrap();
    server.write_all(chunk).unwrap();
    client.read_exact(&mut buffer).unwrap();
}

#[test]
fn a_length_of_two_gigabytes_costs_nothing() {
    let rig = Rig::new();
    let before = rig.proxy.resident_bytes();
    let (mut client, mut server) = rig.connect();
    let mut header = Vec::new();
    for field in [i32::MAX, 1, 0, 2013] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    client.write_all(&header).unwrap();
    let body = noise(4, 10 << 20);
    let reader = thread::spawn(move || {
        let mut all = vec![0; 16 + (10 << 20)];
        server.read_exact(&mut all).unwrap();
        all
    });
    client.write_all(&body).unwrap();
    let all = reader.join().unwrap();
    assert!(all[..16] == header[..] && all[16..] == body[..]);
    let after = rig.proxy.resident_bytes();
    assert!(after < before + (4 << 20), "resident {before} -> {after}");
}

#[test]
fn ten_messages_of_48_megabytes_at_once_leave_memory_where_it_was() {
    const MESSAGE_LEN: usize = 48_000_000;
    let rig = Rig::new();
    let (client, server) = rig.connect();
    exchange(
        &client,
        &server,
        &op_msg(1, 0, bson::rawdoc! { "ping": 1 }.as_bytes()),
    );
    let open = || rig.proxy.sum("poolscope_upstream_connections", &[]);
    // Both times after an exposition, which takes memory of its own.
    eventually_equal(Duration::from_secs(5), &1.0, open);
    let before = rig.proxy.resident_bytes();
    let mut message = op_msg(2, 0, bson::rawdoc! { "insert": "c", "$db": "d" }.as_bytes());
    let section_len = MESSAGE_LEN - message.len() - 1;
    message.push(1);
    message.extend_from_slice(&i32::try_from(section_len).unwrap().to_le_bytes());
    message.extend_from_slice(b"documents\0");
    message.resize(MESSAGE_LEN, 7);
    message[..4].copy_from_slice(&i32::try_from(MESSAGE_LEN).unwrap().to_le_bytes());
    thread::scope(|scope| {
        for _ in 0..10 {
            let (mut client, server) = rig.connect();
            let message = &message;
            scope.spawn(move || {
                client.write_all(message).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || assert!(read_all(server, 1 << 18, 500) == *message));
        }
    });
    let peak = rig.proxy.peak_resident_bytes();
    eventually_equal(Duration::from_secs(5), &1.0, open);
    let after = rig.proxy.resident_bytes();
    assert!(
        after < before + (1 << 20),
        "resident {before} -> {after}, peak {peak}"
    );
    assert!(peak < before + (10 << 20), "resident {before}, peak {peak}");
}

#[test]
fn several_listeners_have_each_their_own_upstream_and_ipv6_works() {
    let (port, port_v6) = (Port::reserve(), Port::reserve());
    let first = TcpListener::bind(port.addr()).unwrap();
    let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port_v6.number())).unwrap();
    let upstreams = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let listen_v6 = Port::reserve();
    let addr_v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, listen_v6.number()));
    let proxy = Poolscope::start_with(
        &upstreams[..1],
        &[
            "--listen",
            &addr_v6.to_string(),
            "--upstream",
            &upstreams[1].to_string(),
        ],
    );
    for (addr, listener) in [(proxy.addr(), &first), (addr_v6, &second)] {
        let mut client = TcpStream::connect(addr).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn an_upstream_that_is_our_own_listener_is_refused_at_start() {
    let port = Port::reserve();
    for upstream in ["127.0.0.1", "localhost", "0.0.0.0"] {
        let output = Command::new(env!("CARGO_BIN_EXE_poolscope"))
            .args(["serve", "--listen", &port.addr().to_string()])
            .args(["--upstream", &format!("{upstream}:{}", port.number())])
            .args(["--web.listen-address", "127.0.0.1:0"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{upstream}: started");
        assert!(said.contains("our own"), "{upstream}: {said}");
    }
}

#[test]
fn running_out_of_descriptors_ends_nothing() {
    let rig = Rig::new();
    let (mut early, mut early_server) = rig.connect();
    let limit = u64::try_from(rig.proxy.descriptors()).unwrap() + 20;
    rig.proxy.limit_descriptors(limit);
    let waiting: Vec<_> = (0..60)
        .map(|_| TcpStream::connect(rig.proxy.addr()).unwrap())
        .collect();
    eventually(Duration::from_secs(10), || {
        // The descriptors that ran out are also those of the admin side: the log is what tells.
        match rig
            .proxy
            .log()
            .iter()
            .find(|line| line.contains("file_limit"))
        {
            Some(_) => Ok(()),
            None => Err("no accept failed"),
        }
    });
    early.write_all(b"still here").unwrap();
    early_server.read_exact(&mut [0; 10]).unwrap();
    drop(waiting);
    // Connections that waited all the while are taken now, and end as both their peers have left.
    let listener = rig.listener.try_clone().unwrap();
    listener.set_nonblocking(true).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let hanging_up = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::Relaxed) {
                drop(listener.accept());
                thread::yield_now();
            }
        }
    });
    eventually(Duration::from_secs(20), || {
        let metrics = get(rig.proxy.web_addr(), "/metrics").map_err(|error| error.to_string())?;
        let sum = |family: &str, labels| Poolscope::sum_in(&metrics.body, family, labels);
        let errors = sum("poolscope_accept_errors_total", &[("reason", "file_limit")]);
        let opened = sum("poolscope_upstream_connections_opened_total", &[]);
        let open = sum("poolscope_upstream_connections", &[]);
        if errors >= 1.0 && opened >= 61.0 && open <= 1.0 {
            Ok(())
        } else {
            Err(format!("{errors} errors, {open} of {opened} open"))
        }
    });
    is_over.store(true, Ordering::Relaxed);
    hanging_up.join().unwrap();
    rig.listener.set_nonblocking(false).unwrap();
    check_both_ways(&rig, b"hello", b"there", 3, 0);
}

#[test]
fn connections_beyond_the_limit_are_reset_and_counted() {
    let port = Port::reserve();
    let listener = TcpListener::bind(port.addr()).unwrap();
    let proxy = Poolscope::start_with(&[port.addr()], &["--max-connections", "3"]);
    let rig = Rig {
        proxy,
        listener,
        port,
    };
    let held: Vec<_> = (0..3).map(|_| rig.connect()).collect();
    let mut one_too_many = TcpStream::connect(rig.proxy.addr()).unwrap();
    one_too_many
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let error = one_too_many.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let limited = [("initiator", "proxy"), ("reason", "limit")];
    let family = "poolscope_upstream_connections_closed_total";
    eventually_equal(Duration::from_secs(5), &1.0, || {
        rig.proxy.sum(family, &limited)
    });
    drop(held);
    rig.await_quiet();
    drop(rig.connect());
}

#[test]
fn too_few_descriptors_lower_the_limit_of_connections() {
    let port = Port::reserve();
    let listener = TcpListener::bind(port.addr()).unwrap();
    let proxy = Poolscope::start_limited(&[port.addr()], 200, &["--max-connections", "500"]);
    let rig = Rig {
        proxy,
        listener,
        port,
    };
    let _held: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    let mut one_too_many = TcpStream::connect(rig.proxy.addr()).unwrap();
    let error = one_too_many.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let status = rig.proxy.api("status").to_string();
    assert!(status.contains("lowered from 500 to 4"), "{status}");
}

#[test]
fn both_sides_of_a_connection_are_kept_alive() {
    /// `tr` of an established socket's row when its keepalive timer is the one that runs; see `proc_net_tcp`.
    const KEEPALIVE: &str = "02";
    let rig = Rig::new();
    let (_client, server) = rig.connect();
    let dialled_from = server.peer_addr().unwrap().port();
    eventually(Duration::from_secs(5), || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let timer = |port: u16| {
            let local = format!("0100007F:{port:04X}");
            let mut rows = table
                .lines()
                .map(|row| row.split_whitespace().collect::<Vec<_>>());
            let row =
                rows.find(|row| row.get(1) == Some(&local.as_str()) && row.get(3) == Some(&"01"));
            row.and_then(|row| row.get(5)?.split(':').next().map(str::to_owned))
        };
        let timers = [timer(rig.proxy.addr().port()), timer(dialled_from)];
        let are_running = timers
            .iter()
            .all(|timer| timer.as_deref() == Some(KEEPALIVE));
        if are_running {
            Ok(())
        } else {
            Err(format!("timers {timers:?}"))
        }
    });
}
