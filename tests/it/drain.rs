//! Stopping: what a signal does to those who are connected.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bson::doc;
use rustix::process::Signal;
use serde_json::json;

use crate::support::raw::{Answering, Document, hello, op_msg, stated_len};
use crate::support::{
    Agent, Connection, Driver, Mongod, Poolscope, ReplicaSet, eventually, eventually_equal, get,
    now,
};

const LIMIT: Duration = Duration::from_secs(20);

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn read_message(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message)?;
    let len = stated_len(&message);
    message.resize(len, 0);
    stream.read_exact(&mut message[16..])?;
    Ok(message)
}

/// A connection that has shaken hands.
fn introduced(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    let hello = hello("hello", b"drained", b"raw").text("$db", b"admin");
    stream.write_all(&op_msg(1, 0, &hello.bytes())).unwrap();
    read_message(&stream).unwrap();
    stream
}

fn ping(id: i32) -> Vec<u8> {
    op_msg(
        id,
        0,
        &Document::default()
            .int("ping", 1)
            .text("$db", b"admin")
            .bytes(),
    )
}

/// Waits for the end of a connection on which nothing more is said; how it ended, and when.
fn end_of(mut stream: TcpStream) -> (Result<Vec<u8>, ErrorKind>, Instant) {
    let mut rest = Vec::new();
    let ended = stream
        .read_to_end(&mut rest)
        .map(|_| rest)
        .map_err(|error| error.kind());
    (ended, now())
}

#[track_caller]
fn await_refusal(addr: SocketAddr) {
    eventually(LIMIT, || match TcpStream::connect(addr) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_signal_refuses_newcomers_and_lets_an_exchange_finish() {
    let mongod = Mongod::standalone();
    let mut proxy = Poolscope::start_with(&[mongod.addr()], &["--drain-timeout", "10s"]);
    let mut connection = Connection::open(proxy.addr()).unwrap();
    connection.command("admin", doc! { "hello": 1 }).unwrap();
    let began = now();
    let exchange = thread::spawn(move || {
        let sleep = doc! { "sleep": 1, "millis": 2000, "lock": "none" };
        let reply = connection.command("admin", sleep);
        (reply, connection, now())
    });
    eventually_equal(LIMIT, &1.0, || {
        proxy.sum("poolscope_requests_in_flight", &[])
    });
    proxy.process().signal(Signal::TERM);

    await_refusal(proxy.addr());
    eventually_equal(LIMIT, &503, || proxy.get("/-/ready").status);
    assert_eq!(proxy.get("/-/healthy").status, 200);
    assert_eq!(proxy.api("status")["is_draining"], true);
    assert!(proxy.show(&["status"]).contains("drain"));
    assert!(proxy.metrics().contains("poolscope_build_info"));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "all of that was asked during the exchange"
    );

    let (reply, mut connection, replied) = exchange.join().unwrap();
    let reply = reply.unwrap();
    assert!(reply.get_f64("ok").unwrap() > 0.0, "{reply}");
    assert!(replied - began >= Duration::from_millis(1900));
    // With the last exchange over, nothing is left to wait for: the time of 10 s is a limit, not a duration.
    let status = proxy.process().wait(Duration::from_secs(2));
    assert_eq!(status.code(), Some(0), "{:#?}", proxy.log());
    connection.command("admin", doc! { "ping": 1 }).unwrap_err();
    assert!(proxy.log().iter().any(|line| line.contains("drained")));
}

#[test]
fn idle_connections_end_one_after_the_other_at_message_boundaries() {
    let server = Answering::start();
    let mut proxy = Poolscope::start_with(&[server.addr()], &["--drain-timeout", "4s"]);
    let addr = proxy.addr();
    let idle: Vec<TcpStream> = (0..40).map(|_| introduced(addr)).collect();
    let busy: Vec<TcpStream> = (0..8).map(|_| introduced(addr)).collect();
    let began = now();
    proxy.process().signal(Signal::TERM);
    let waiting: Vec<_> = idle
        .into_iter()
        .map(|stream| thread::spawn(move || end_of(stream)))
        .collect();
    // These ask again and again; each question that got through is answered in full.
    let asking: Vec<_> = busy
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                for id in 10.. {
                    if stream.write_all(&ping(id)).is_err() {
                        return (id, now());
                    }
                    let mut first = [0; 1];
                    match stream.read(&mut first) {
                        // It ended before the question arrived, between two messages.
                        Ok(0) | Err(_) => return (id, now()),
                        Ok(_) => {}
                    }
                    let mut head = [first[0]; 16];
                    stream.read_exact(&mut head[1..]).expect("a reply was cut");
                    stream
                        .read_exact(&mut vec![0; stated_len(&head) - 16])
                        .expect("a reply was cut");
                    thread::yield_now();
                }
                unreachable!("the ids end later than the connection")
            })
        })
        .collect();

    let mut ends: Vec<Duration> = waiting
        .into_iter()
        .map(|thread| {
            let (ended, at) = thread.join().unwrap();
            assert_eq!(
                ended,
                Ok(Vec::new()),
                "an orderly end, and nothing before it"
            );
            at - began
        })
        .collect();
    for thread in asking {
        let (id, at) = thread.join().unwrap();
        assert!(id > 10, "it was not cut off at once");
        assert!(at - began < Duration::from_millis(4500));
    }
    ends.sort();
    println!("{ends:?}");
    // Spread over the first three quarters of the time: no gap that a crowd would reconnect after.
    let gaps = ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    assert!(
        ends[0] < Duration::from_secs(1) && ends[39] > Duration::from_millis(1500),
        "{ends:?}"
    );
    assert!(ends[39] < Duration::from_millis(3800), "{ends:?}");
    assert!(gaps.max().unwrap() < Duration::from_secs(1), "{ends:?}");
    assert_eq!(proxy.process().wait(LIMIT).code(), Some(0));
}

#[test]
fn a_half_sent_message_is_cut_at_the_deadline_and_not_before() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut proxy = Poolscope::start_with(
        &[listener.local_addr().unwrap()],
        &["--drain-timeout", "2s"],
    );
    let accept = || {
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        server
    };
    let message = ping(5);
    let (first, second) = message.split_at(20);

    let mut finishing = connect(proxy.addr());
    let mut finishing_server = accept();
    let mut stalled = connect(proxy.addr());
    let mut stalled_server = accept();
    for (stream, server) in [
        (&mut finishing, &mut finishing_server),
        (&mut stalled, &mut stalled_server),
    ] {
        stream.write_all(first).unwrap();
        server.read_exact(&mut [0; 20]).unwrap();
    }
    let began = now();
    proxy.process().signal(Signal::TERM);
    await_refusal(proxy.addr());
    eventually(LIMIT, || {
        let draining = proxy.api("connections?state=draining")["matched"].clone();
        if draining == json!(2) {
            Ok(())
        } else {
            Err(draining)
        }
    });

    // The rest arrives, the reply too, then there is a boundary.
    finishing.write_all(second).unwrap();
    finishing_server
        .read_exact(&mut vec![0; second.len()])
        .unwrap();
    let reply = op_msg(9, 5, &Document::default().int("ok", 1).bytes());
    finishing_server.write_all(&reply).unwrap();
    assert_eq!(read_message(&finishing).unwrap(), reply);
    let (ended, at) = end_of(finishing);
    assert_eq!(ended, Ok(Vec::new()));
    assert!(at - began < Duration::from_millis(1950), "{:?}", at - began);
    drop(finishing_server);

    let (_, at) = end_of(stalled);
    let took = at - began;
    assert!(
        took >= Duration::from_millis(1900) && took < Duration::from_secs(4),
        "{took:?}"
    );
    assert_eq!(proxy.process().wait(LIMIT).code(), Some(0));
}

#[test]
fn what_nobody_can_read_is_left_alone_until_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut proxy = Poolscope::start_with(
        &[listener.local_addr().unwrap()],
        &["--drain-timeout", "1s"],
    );
    let mut client = connect(proxy.addr());
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
    server.read_exact(&mut [0; 23]).unwrap();
    let began = now();
    proxy.process().signal(Signal::TERM);
    await_refusal(proxy.addr());
    // Nobody knows where its messages end.
    server.write_all(b"still there").unwrap();
    client.read_exact(&mut [0; 11]).unwrap();
    let (_, at) = end_of(client);
    assert!(at - began >= Duration::from_millis(900), "{:?}", at - began);
    assert_eq!(proxy.process().wait(LIMIT).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let server = Answering::start();
        let mut proxy = Poolscope::start_with(&[server.addr()], &["--drain-timeout", "1m"]);
        let mut stalled = introduced(proxy.addr());
        stalled.write_all(&ping(5)[..20]).unwrap();
        // Those who read metrics slowly do not hold it up either.
        let mut slow = connect(proxy.web_addr());
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ")
            .unwrap();
        proxy.process().signal(Signal::TERM);
        await_refusal(proxy.addr());
        eventually_equal(LIMIT, &503, || {
            get(proxy.web_addr(), "/-/ready").unwrap().status
        });
        let began = now();
        proxy.process().signal(second);
        let status = proxy.process().wait(LIMIT);
        let took = began.elapsed();
        assert!(took < Duration::from_millis(500), "{second:?}: {took:?}");
        assert_eq!(status.code(), Some(0), "{second:?}");
        let (_, at) = end_of(stalled);
        assert!(at - began < Duration::from_secs(1));
    }
}

#[test]
fn a_drain_time_of_zero_ends_everything_with_the_first_signal() {
    let server = Answering::start();
    let mut proxy = Poolscope::start_with(&[server.addr()], &["--drain-timeout", "0s"]);
    let stalled = introduced(proxy.addr());
    (&stalled).write_all(&ping(5)[..20]).unwrap();
    let began = now();
    assert_eq!(proxy.terminate(LIMIT).code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let (_, at) = end_of(stalled);
    assert!(at - began < Duration::from_secs(1));
}

/// Takes a new connection to whichever proxy is in place now, as the address of a service does.
#[derive(Clone)]
struct Service {
    addr: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
}

impl Service {
    fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Self {
            addr: listener.local_addr().unwrap(),
            target: Arc::new(Mutex::new(target)),
        };
        let target = Arc::clone(&service.target);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = *target.lock().unwrap();
                // Refused: the client sees its connection closed.
                if let Ok(server) = TcpStream::connect(target) {
                    copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                    copy(server, client);
                }
            }
        });
        service
    }

    fn turn_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // However it ends, the other half is told.
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
}

#[test]
fn an_application_with_retries_sees_no_error_when_another_proxy_takes_over() {
    let mut set = ReplicaSet::start(1);
    let mut first = Poolscope::start_with(&set.addrs(), &["--drain-timeout", "4s"]);
    let service = Service::before(first.addr());
    let name = service.addr.to_string();
    set.initiate(std::slice::from_ref(&name));
    let mut agents: Vec<Agent> = [Driver::PyMongo4, Driver::Node6].map(Agent::spawn).into();
    let runs: Vec<u64> = agents
        .iter_mut()
        .map(|agent| {
            agent.open("app", &format!("mongodb://{name}/?replicaSet=rs&w=majority&appName=steady"));
            agent.run("app", "insert", 10, &json!({}));
            agent.submit(json!({ "do": "run", "name": "app", "operation": "insert", "seconds": 8, "concurrency": 4, "args": { "list": true } }))
        })
        .collect();
    eventually(LIMIT, || {
        match first.sum("poolscope_requests_total", &[("command", "insert")]) {
            count if count > 200.0 => Ok(()),
            count => Err(count),
        }
    });
    // As an orchestrator does it: the new one is ready, new connections go there, the old one is told to stop.
    let second = Poolscope::start(&set.addrs());
    service.turn_to(second.addr());
    assert_eq!(first.terminate(LIMIT).code(), Some(0));

    let mut acknowledged = 0;
    for (agent, run) in agents.iter().zip(runs) {
        let answer = agent.wait(run);
        assert_eq!(answer["failed"], 0, "{}", answer["errors"]);
        acknowledged += answer["acknowledged"].as_array().unwrap().len();
    }
    let taken_over = second.sum("poolscope_requests_total", &[("command", "insert")]);
    println!("{acknowledged} inserts, {taken_over} of them through the second proxy");
    assert!(taken_over > 100.0, "{taken_over}");
}
