//! What a hostile client can send: names that would forge output, bombs, other protocols, and slow HTTP.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bson::doc;
use serde_json::Value;
use unicode_width::UnicodeWidthChar;

use crate::support::raw::{
    Answering, Document, hello, op_compressed, op_msg, op_msg_body, op_query, stated_len,
};
use crate::support::{
    Connection, Family, Mongod, Poolscope, Sample, eventually, eventually_equal, get, now,
    parse_exposition, promtool,
};

const LIMIT: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// Names that differ and are all up to something.
fn hostile_names(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| match number % 12 {
            0 => format!("\"}} 1\nx{{a=\"{number}").into_bytes(),
            1 => format!("\u{1b}[2J\u{1b}]0;{number}\u{7}").into_bytes(),
            2 => format!("a\\\"b\\n{number}\\").into_bytes(),
            3 => format!("line\r\n2026-01-01 ERROR forged {number}").into_bytes(),
            4 => format!("\u{202e}gnp.{number}\u{2066}exe\u{2028}").into_bytes(),
            5 => format!("app,state=\"idle\",n=\"{number}\"").into_bytes(),
            6 => format!("\u{85}\u{9b}31m{number}\t\u{7f}").into_bytes(),
            7 => format!("界{number}{}", "界".repeat(20)).into_bytes(),
            8 => format!("{number}{}", "e\u{301}\u{301}\u{301}".repeat(12)).into_bytes(),
            9 => format!("{number}{}", "x".repeat(4096)).into_bytes(),
            10 => [
                &[0xff, 0xfe, 0xc0, 0x80][..],
                number.to_string().as_bytes(),
                &[0xed, 0xa0],
            ]
            .concat(),
            _ => format!("nul\0{number}\u{feff}\u{200b}").into_bytes(),
        })
        .collect()
}

/// What a real server accepts as a name: at most 128 bytes of valid text.
fn is_accepted_by_mongod(name: &[u8]) -> bool {
    name.len() <= 128 && std::str::from_utf8(name).is_ok()
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message).unwrap();
    let len = stated_len(&message);
    message.resize(len, 0);
    stream.read_exact(&mut message[16..]).unwrap();
    message
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Shakes hands under a name, in one of the two ways, and leaves the connection open.
fn introduce(addr: SocketAddr, number: usize, name: &[u8], driver: &[u8]) -> TcpStream {
    let mut stream = connect(addr);
    let message = if number % 24 < 12 {
        op_query(1, &hello("isMaster", name, driver).bytes())
    } else {
        op_msg(
            1,
            0,
            &hello("hello", name, driver).text("$db", b"admin").bytes(),
        )
    };
    stream.write_all(&message).unwrap();
    let reply = read_message(&mut stream);
    // Both forms of a reply end with the document, and both servers are content with what they are sent.
    let ok = [&b"\x01ok\0"[..], &1.0_f64.to_le_bytes()].concat();
    assert!(
        reply.windows(ok.len()).any(|window| window == ok),
        "{number}: {reply:?}"
    );
    stream
}

/// Introduces all names through a proxy with two upstreams, a real server and one that accepts any name; returns
/// the connections that were left open.
fn introduce_all(proxy: &Poolscope, names: &[Vec<u8>]) -> Vec<TcpStream> {
    let addrs = proxy.addrs();
    thread::scope(|scope| {
        let parts: Vec<_> = (0..4)
            .map(|part| {
                let addrs = &addrs;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for (number, name) in names.iter().enumerate().skip(part).step_by(4) {
                        let stream = if is_accepted_by_mongod(name) {
                            introduce(addrs[0], number, name, b"raw")
                        } else {
                            introduce(addrs[1], number, name, name)
                        };
                        if number % 20 < 4 {
                            kept.push(stream);
                        }
                    }
                    kept
                })
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap())
            .collect()
    })
}

/// Pairs of address and application, by upstream, that a family shows.
fn pairs(family: &Family) -> usize {
    let of = |sample: &Sample, label: &str| sample.labels.get(label).cloned();
    let pairs: BTreeSet<_> = family
        .samples
        .iter()
        .map(|sample| {
            (
                of(sample, "upstream"),
                of(sample, "client"),
                of(sample, "app"),
            )
        })
        .collect();
    pairs.len()
}

#[track_caller]
fn check_exposition(proxy: &Poolscope, pairs_max: usize) {
    let metrics = proxy.metrics();
    promtool(&["check", "metrics"], &metrics).unwrap();
    let families = parse_exposition(&metrics);
    assert!(families.len() > 40, "{:?}", families.keys());
    for (name, family) in &families {
        let pairs = pairs(family);
        assert!(
            pairs <= pairs_max,
            "{name} has {pairs} pairs of client and app"
        );
        for sample in &family.samples {
            for value in sample.labels.values() {
                assert!(
                    value.len() <= 128 && !value.chars().any(is_dangerous),
                    "{name}: {value:?}"
                );
            }
        }
    }
}

/// Ends a line, speaks to a terminal, or changes what the rest of the line looks like.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[track_caller]
fn check_table(table: &str, lines_min: usize, columns_max: usize) {
    assert!(table.lines().count() >= lines_min, "{table}");
    for line in table.lines() {
        assert!(!line.chars().any(is_dangerous), "{line:?}");
        let columns: usize = line.chars().map(|c| c.width().unwrap_or(0)).sum();
        assert!(columns <= columns_max, "{columns} columns: {line}");
    }
}

/// Connections whose end was logged.
fn lines_of_endings(proxy: &Poolscope) -> usize {
    let lines = proxy.log();
    let endings = lines
        .iter()
        .filter(|line| line.contains("connection ended"));
    endings.count()
}

#[test]
fn thousands_of_hostile_names_make_a_few_hundred_series() {
    let (mongod, any) = (Mongod::standalone(), Answering::start());
    let proxy = Poolscope::start_with(
        &[mongod.addr(), any.addr()],
        &["--log.format", "json", "--log.level", "trace"],
    );
    let names = hostile_names(6000);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 6000);
    let (first, rest) = names.split_at(1200);

    let mut kept = introduce_all(&proxy, first);
    check_exposition(&proxy, 254);
    let settled = proxy.resident_bytes();
    kept.extend(introduce_all(&proxy, rest));
    let grown = proxy.resident_bytes().saturating_sub(settled);
    // A thousand more open connections, which is most of it.
    println!("{} connections, {grown} bytes more resident", kept.len());
    assert!(
        grown < 24 * MIB,
        "{grown} bytes for {} connections",
        kept.len()
    );

    // Tracked ones, and for each upstream the overflow and the connections that have not said who they are.
    check_exposition(&proxy, 254);
    assert_eq!(proxy.metric("poolscope_clients_tracked"), Some(250.0));
    assert_eq!(proxy.metric("poolscope_clients_limit"), Some(250.0));
    let overflowed = proxy.metric("poolscope_client_overflow_total").unwrap();
    assert!(overflowed > 4000.0, "{overflowed}");
    let opened = proxy.sum("poolscope_connections_opened_total", &[]);
    assert!((opened - 6000.0).abs() < f64::EPSILON, "{opened} of 6000");
    let opaque = proxy.sum("poolscope_opaque_connections_total", &[]);
    assert!(opaque.abs() < f64::EPSILON, "{opaque} opaque");

    check_table(&proxy.show(&["clients"]), 250, 100);
    check_table(&proxy.show(&["connections"]), 250, 100);
    check_table(&proxy.show(&["upstreams"]), 2, 100);
    check_table(&proxy.show(&["status"]), 5, 100);
    let shown: Value = serde_json::from_str(&proxy.show(&["clients", "--output", "json"])).unwrap();
    assert!(shown["clients"].as_array().unwrap().len() >= 250);

    drop(kept);
    eventually_equal(LIMIT, &0.0, || {
        proxy.sum("poolscope_upstream_connections", &[])
    });
    // One line for the end of each connection, and each line one object.
    eventually_equal(LIMIT, &6000, || lines_of_endings(&proxy));
    for line in proxy.log() {
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert!(parsed["level"].is_string(), "{line}");
    }
}

#[test]
fn hostile_names_cannot_forge_a_line_of_the_human_log() {
    let (mongod, any) = (Mongod::standalone(), Answering::start());
    let proxy = Poolscope::start_with(&[mongod.addr(), any.addr()], &["--log.level", "trace"]);
    drop(introduce_all(&proxy, &hostile_names(240)));
    eventually_equal(LIMIT, &240, || lines_of_endings(&proxy));
    for line in proxy.log() {
        let is_dated = line.starts_with("20") && line.as_bytes().get(10) == Some(&b'T');
        assert!(is_dated && !line.chars().any(is_dangerous), "{line:?}");
    }
}

/// The largest message there may be, nearly: what states more is no message.
const BOMB_LEN: usize = 47_000_000;

/// Processor time for forwarding one and looking at the first megabyte of it.
const BOMB_CPU_MAX_MS: u64 = if cfg!(debug_assertions) { 200 } else { 10 };

/// A message of zeros, compressed. What wants to know the database or `ok` has to walk through all of them.
fn bomb(compressor: u8) -> Vec<u8> {
    let pad_len = BOMB_LEN - 100;
    let document = Document::default()
        .int("ping", 1)
        .binary("pad", &vec![0; pad_len])
        .text("$db", b"admin")
        .int("ok", 1);
    let short = op_msg_body(&document.bytes());
    assert!(short.len() < BOMB_LEN);
    let fill = BOMB_LEN - short.len();
    let document = Document::default()
        .int("ping", 1)
        .binary("pad", &vec![0; pad_len + fill])
        .text("$db", b"admin")
        .int("ok", 1);
    let body = op_msg_body(&document.bytes());
    assert_eq!(body.len(), BOMB_LEN);
    match compressor {
        1 => snap::raw::Encoder::new().compress_vec(&body).unwrap(),
        2 => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&body).unwrap();
            encoder.finish().unwrap()
        }
        3 => zstd::stream::encode_all(body.as_slice(), 1).unwrap(),
        // A window that would need 128 MiB to open.
        _ => {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(27).unwrap();
            encoder.write_all(&body).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Sends bytes from one side to the other and checks that they arrive as they are.
fn pass(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(move || from.write_all(bytes).unwrap());
        let mut arrived = vec![0; bytes.len()];
        to.read_exact(&mut arrived).unwrap();
        assert!(arrived == bytes, "bytes differ");
    });
}

#[test]
fn a_decompression_bomb_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // In a build that is not optimised looking at nothing but bombs takes more of the time than the budget allows.
    let budget = ["--observe-budget", "off"];
    let mut proxy = Poolscope::start_with(&[listener.local_addr().unwrap()], &budget);
    let (client, (server, _)) = (connect(proxy.addr()), listener.accept().unwrap());
    server.set_read_timeout(Some(LIMIT)).unwrap();
    pass(
        &client,
        &server,
        &op_msg(1, 0, &hello("hello", b"bomber", b"raw").bytes()),
    );
    pass(
        &server,
        &client,
        &op_msg(1, 1, &Document::default().int("ok", 1).bytes()),
    );
    let stated = i32::try_from(BOMB_LEN).unwrap();
    let before = proxy.resident_bytes();
    for (name, compressor, wire_id) in [
        ("snappy", 1, 1),
        ("zlib", 2, 2),
        ("zstd", 3, 3),
        ("zstd, wide", 4, 3),
    ] {
        let bomb = bomb(compressor);
        let cpu = proxy.process().cpu_time();
        let rounds = 10;
        for round in 0..rounds {
            let id = 100 + round;
            pass(
                &client,
                &server,
                &op_compressed(id, 0, wire_id, stated, &bomb),
            );
            pass(
                &server,
                &client,
                &op_compressed(id, id, wire_id, stated, &bomb),
            );
        }
        let each =
            proxy.process().cpu_time().saturating_sub(cpu) / u32::try_from(2 * rounds).unwrap();
        let peak = proxy.peak_resident_bytes().saturating_sub(before);
        println!(
            "{name}: {} bytes become {BOMB_LEN}; {each:?} of CPU each, peak {peak} bytes more",
            bomb.len()
        );
        assert!(peak < 24 * MIB, "{name}: {peak} bytes more resident");
        // Not optimised, a megabyte of snappy is most of this; all of it would be forty times that.
        assert!(
            each < Duration::from_millis(BOMB_CPU_MAX_MS),
            "{name}: {each:?} each"
        );
    }
    // All of that was looked at: nothing of it made the connection opaque.
    eventually_equal(LIMIT, &41.0, || {
        proxy.sum("poolscope_requests_total", &[("app", "bomber")])
    });
    let opaque = proxy.sum("poolscope_opaque_connections_total", &[]);
    assert!(opaque.abs() < f64::EPSILON, "{opaque}");
    // A size that lies, a body that is none, a compressor that does not exist.
    for (wire_id, stated, body) in [
        (2, 10, bomb(2)),
        (3, i32::MAX, bomb(3)),
        (1, -1, vec![0xff; 64]),
        (9, 5, vec![1; 64]),
    ] {
        pass(
            &client,
            &server,
            &op_compressed(7, 0, wire_id, stated, &body),
        );
    }
    pass(
        &client,
        &server,
        &op_msg(8, 0, &Document::default().int("ping", 1).bytes()),
    );
    let opaque = proxy.sum(
        "poolscope_opaque_connections_total",
        &[("reason", "decode_failure")],
    );
    assert!((opaque - 1.0).abs() < f64::EPSILON, "{opaque}");
    let peak = proxy.peak_resident_bytes().saturating_sub(before);
    assert!(peak < 24 * MIB, "{peak} bytes more resident");
}

#[test]
fn other_protocols_are_opaque_for_the_right_reason_and_still_forwarded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Poolscope::start(&[listener.local_addr().unwrap()]);
    let mut tls = vec![
        0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
    ];
    tls.resize(517, 0x5a);
    let noise: Vec<u8> = (0..5000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0] | 0x80)
        .collect();
    let lying = [
        (i32::MAX).to_le_bytes(),
        [1, 0, 0, 0],
        [0; 4],
        2013_i32.to_le_bytes(),
    ]
    .concat();
    let negative = [
        (-5_i32).to_le_bytes(),
        [1, 0, 0, 0],
        [0; 4],
        2013_i32.to_le_bytes(),
    ]
    .concat();
    let mut broken = op_msg(1, 0, &Document::default().int("ping", 1).bytes());
    let end = broken.len() - 1;
    broken[end] = 7;
    let cases: [(&str, &[u8], &str, &str); 10] = [
        (
            "http",
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
            "unknown_protocol",
            "unknown_protocol",
        ),
        (
            "ssh",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
            "unknown_protocol",
            "unknown_protocol",
        ),
        (
            "redis",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
            "unknown_protocol",
            "unknown_protocol",
        ),
        (
            "proxy protocol",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1234 27017\r\n",
            "unknown_protocol",
            "unknown_protocol",
        ),
        ("tls", &tls, "tls", "tls"),
        ("noise", &noise, "unknown_protocol", "unknown_protocol"),
        ("zeros", &[0; 4096], "unknown_protocol", "unknown_protocol"),
        (
            "a lying length",
            &lying,
            "unknown_protocol",
            "unknown_protocol",
        ),
        (
            "a negative length",
            &negative,
            "unknown_protocol",
            "unknown_protocol",
        ),
        ("broken bson", &broken, "decode_failure", "malformed"),
    ];
    for (name, bytes, opaque, failure) in cases {
        let before = [
            proxy.sum("poolscope_opaque_connections_total", &[("reason", opaque)]),
            proxy.sum(
                "poolscope_decode_failures_total",
                &[("reason", failure), ("direction", "request")],
            ),
        ];
        let (client, (server, _)) = (connect(proxy.addr()), listener.accept().unwrap());
        server.set_read_timeout(Some(LIMIT)).unwrap();
        pass(&client, &server, bytes);
        pass(&server, &client, b"an answer in whatever language");
        pass(&client, &server, &noise);
        eventually_equal(LIMIT, &[before[0] + 1.0, before[1] + 1.0], || {
            [
                proxy.sum("poolscope_opaque_connections_total", &[("reason", opaque)]),
                proxy.sum(
                    "poolscope_decode_failures_total",
                    &[("reason", failure), ("direction", "request")],
                ),
            ]
        });
        let row = proxy.api("connections?state=opaque")["connections"][0].clone();
        assert_eq!(row["opaque_reason"], opaque, "{name}: {row}");
        // Halves are kept for the opaque as well.
        client.shutdown(Shutdown::Write).unwrap();
        let mut end = Vec::new();
        (&server).read_to_end(&mut end).unwrap();
        assert!(end.is_empty(), "{name}");
        pass(&server, &client, &noise);
        drop((client, server));
        eventually_equal(LIMIT, &0.0, || {
            proxy.sum("poolscope_upstream_connections", &[])
        });
    }
    promtool(&["check", "metrics"], &proxy.metrics()).unwrap();
}

/// Round trips of a ping, the shortest first.
fn pings(connection: &mut Connection, count: usize) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let began = now();
            connection.command("admin", doc! { "ping": 1 }).unwrap();
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

#[test]
fn slow_http_clients_never_delay_forwarding() {
    let mongod = Mongod::standalone();
    let proxy = Poolscope::start(&[mongod.addr()]);
    let mut connection = Connection::open(proxy.addr()).unwrap();
    pings(&mut connection, 50);
    let calm = pings(&mut connection, 300);

    // Heads that never end, and answers that nobody takes.
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = connect(proxy.web_addr());
            let begin: &[u8] = match number % 3 {
                0 => b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ",
                1 => b"",
                _ => &b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40),
            };
            stream.write_all(begin).unwrap();
            stream
        })
        .collect();
    let mut times = Vec::new();
    for round in 0..30 {
        for stream in slow.iter_mut().skip(round % 3).step_by(3) {
            // Those whose patience has ended are closed.
            drop(stream.write_all(b"a"));
        }
        times.extend(pings(&mut connection, 20));
    }
    times.sort();
    let median = |times: &[Duration]| times[times.len() / 2];
    let (calm, busy, worst) = (median(&calm), median(&times), times[times.len() * 99 / 100]);
    println!("ping {calm:?} calm, {busy:?} under attack, {worst:?} at the 99th percentile");
    assert!(
        busy < calm * 3 + Duration::from_millis(2),
        "{busy:?}, {calm:?} without"
    );
    assert!(worst < Duration::from_millis(250), "{worst:?}");

    drop(slow);
    // The HTTP side itself is back as soon as they are gone.
    eventually(LIMIT, || match get(proxy.web_addr(), "/metrics") {
        Ok(response) if response.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
