//! Two real captures of one run: two PyMongo 4.20 clients (`orders` with three pooled connections, which said
//! goodbye, and `billing` with four) before a mongod that was killed. Everything else is made from their packets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::read_packets;
use super::segment::{Link, Seen, segment};
use super::{CaptureError, Findings, ReadError, analyze};
use crate::diagnose::Cause;
use crate::time::Timestamp;

const SECOND: u64 = 1_000_000_000;
/// Where the server listened.
const SERVER: u16 = 27_118;
const ETHERNET: usize = 14;

fn fixture(name: &str) -> PathBuf {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
    captures.join(name)
}

/// A packet from its network header on.
#[derive(Clone, Debug)]
struct Packet {
    at: u64,
    ip: Vec<u8>,
    /// Bytes it had before it was cut.
    len: usize,
}

impl Packet {
    /// Where the TCP header begins.
    fn tcp(&self) -> usize {
        usize::from(self.ip[0] & 15) * 4
    }

    fn port(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.ip[self.tcp() + at], self.ip[self.tcp() + at + 1]])
    }

    fn set_ports(&mut self, from: u16, to: u16) {
        let tcp = self.tcp();
        self.ip[tcp..tcp + 2].copy_from_slice(&from.to_be_bytes());
        self.ip[tcp + 2..tcp + 4].copy_from_slice(&to.to_be_bytes());
    }

    fn add_to_number(&mut self, at: usize, more: u32) {
        let at = self.tcp() + at;
        let number: [u8; 4] = self.ip[at..at + 4].try_into().unwrap();
        let number = u32::from_be_bytes(number).wrapping_add(more);
        self.ip[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }

    fn data_len(&self) -> usize {
        self.ip.len() - self.tcp() - usize::from(self.ip[self.tcp() + 12] >> 4) * 4
    }

    fn flags(&self) -> u8 {
        self.ip[self.tcp() + 13]
    }

    /// The same behind an IPv6 header.
    fn v6(&self) -> Vec<u8> {
        let tcp = &self.ip[self.tcp()..];
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(u16::try_from(self.len - self.tcp()).unwrap().to_be_bytes());
        ip.extend([6, 64]);
        for last in [self.ip[15], self.ip[19]] {
            ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        ip.extend(tcp);
        ip
    }
}

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    let file = std::fs::File::open(fixture("server-killed-loopback.pcap")).unwrap();
    read_packets(file, |at, link, data| {
        assert_eq!(link, Link(1));
        packets.push(Packet {
            at: at.as_nanos(),
            ip: data[ETHERNET..].to_vec(),
            len: data.len() - ETHERNET,
        });
    })
    .unwrap();
    assert_eq!(packets.len(), 414);
    packets
}

/// How a capture is written.
#[derive(Clone, Copy, Debug)]
struct Form {
    link: u16,
    is_big_endian: bool,
    is_nano: bool,
    is_next_generation: bool,
    is_v6: bool,
    vlans: usize,
}

const PLAIN: Form = Form {
    link: 1,
    is_big_endian: false,
    is_nano: false,
    is_next_generation: false,
    is_v6: false,
    vlans: 0,
};

impl Form {
    fn two(self, number: u16) -> [u8; 2] {
        if self.is_big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn four(self, number: u64) -> [u8; 4] {
        let number = u32::try_from(number).unwrap();
        if self.is_big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn frame(self, packet: &Packet) -> Vec<u8> {
        let ip = if self.is_v6 {
            packet.v6()
        } else {
            packet.ip.clone()
        };
        let kind: [u8; 2] = if self.is_v6 { [0x86, 0xdd] } else { [8, 0] };
        let mut frame = match self.link {
            1 => {
                let mut frame = vec![2; 12];
                for _ in 0..self.vlans {
                    frame.extend([0x81, 0, 0, 7]);
                }
                frame.extend(kind);
                frame
            }
            113 => [&[0; 14][..], &kind].concat(),
            276 => [&kind[..], &[0; 18]].concat(),
            0 | 108 => vec![2, 0, 0, 0],
            _ => Vec::new(),
        };
        frame.extend(ip);
        frame
    }

    fn block(self, kind: u64, body: &[u8]) -> Vec<u8> {
        let len = self.four(u64::try_from(body.len()).unwrap() + 12);
        [&self.four(kind)[..], &len, body, &len].concat()
    }

    fn write(self, packets: &[Packet]) -> Vec<u8> {
        let units = if self.is_nano { SECOND } else { 1_000_000 };
        let mut file = if self.is_next_generation {
            let section = [
                &self.four(0x1a2b_3c4d)[..],
                &self.two(1),
                &self.two(0),
                &[255; 8],
            ];
            let mut interface = [&self.two(self.link)[..], &[0; 6]].concat();
            let resolution = if self.is_nano { 9 } else { 6 };
            interface.extend(
                [
                    &self.two(9)[..],
                    &self.two(1),
                    &[resolution, 0, 0, 0],
                    &[0; 4],
                ]
                .concat(),
            );
            let section = self.block(0x0a0d_0d0a, &section.concat());
            [section, self.block(1, &interface)].concat()
        } else {
            let magic = if self.is_nano {
                0xa1b2_3c4d
            } else {
                0xa1b2_c3d4
            };
            let (major, minor) = (self.two(2), self.two(4));
            let link = self.four(self.link.into());
            [
                &self.four(magic)[..],
                &major,
                &minor,
                &[0; 8],
                &self.four(262_144),
                &link,
            ]
            .concat()
        };
        for packet in packets {
            let frame = self.frame(packet);
            let len = u64::try_from(frame.len()).unwrap();
            let whole = len + u64::try_from(packet.len - packet.ip.len()).unwrap();
            if self.is_next_generation {
                let at = packet.at / (SECOND / units);
                let mut body = [
                    self.four(0),
                    self.four(at >> 32),
                    self.four(at & 0xffff_ffff),
                    self.four(len),
                    self.four(whole),
                ]
                .concat();
                body.extend(&frame);
                body.resize(body.len().next_multiple_of(4), 0);
                file.extend(self.block(6, &body));
            } else {
                let part = packet.at % SECOND / (SECOND / units);
                file.extend(self.four(packet.at / SECOND));
                file.extend(self.four(part));
                file.extend(self.four(len));
                file.extend(self.four(whole));
                file.extend(frame);
            }
        }
        file
    }
}

#[track_caller]
fn try_read(file: &[u8], servers: &[SocketAddr]) -> Result<Findings, CaptureError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    std::fs::write(&path, file).unwrap();
    analyze(&[path], servers)
}

#[track_caller]
fn read(packets: &[Packet]) -> Findings {
    try_read(&PLAIN.write(packets), &[]).unwrap()
}

/// Everything of weight in the findings.
fn figures(findings: &Findings) -> String {
    let rows: Vec<String> = findings
        .snapshot
        .clients
        .iter()
        .map(|row| {
            let (pooled, closed) = (row.pooled_opened, &row.closed);
            format!(
                "{:?} opened {} pooled {pooled} requests {:?} closed {closed:?} bytes {:?}\n",
                row.app, row.opened, row.requests, row.bytes
            )
        })
        .collect();
    let incidents = findings.incidents.iter();
    let incidents: Vec<_> = incidents
        .map(|(incident, _)| (incident.cause(), incident.clients.clone()))
        .map(|(cause, clients)| {
            (
                cause,
                clients
                    .into_iter()
                    .map(|client| client.app)
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    format!("{:?}\n{}{incidents:?}", findings.counts, rows.concat())
}

#[track_caller]
fn check_run(findings: &Findings) {
    assert_eq!(findings.counts.connections, 24, "{}", figures(findings));
    assert_eq!(findings.counts.begun_before, 0);
    assert_eq!(findings.counts.with_holes, 0);
    assert!(findings.warnings.is_empty(), "{:?}", findings.warnings);
    let clients = findings.snapshot.clients.iter();
    let clients: Vec<(&str, u64, u64)> = clients
        .map(|row| (&*row.app, row.opened, row.pooled_opened))
        .collect();
    // Two monitors each; what has no name are attempts that were refused.
    assert_eq!(clients, [("", 13, 0), ("billing", 6, 4), ("orders", 5, 3)]);
    let [(incident, _)] = &findings.incidents[..] else {
        panic!("{:#?}", findings.incidents);
    };
    assert_eq!(incident.cause(), Cause::ServerCrash);
    assert_eq!(&*incident.clients[0].app, "billing");
}

#[test]
fn a_killed_server_is_found_in_real_captures() {
    for name in [
        "server-killed-loopback.pcap",
        "server-killed-any-nanoseconds.pcap",
    ] {
        check_run(&analyze(&[fixture(name)], &[]).unwrap());
    }
}

#[test]
fn every_format_and_link_type_gives_the_same_figures() {
    let packets = packets();
    let expected = figures(&read(&packets));
    let mut seen = 0;
    for link in [0, 1, 12, 101, 108, 113, 276] {
        for bits in 0..16_u8 {
            let form = Form {
                link,
                is_big_endian: bits & 1 != 0,
                is_nano: bits & 2 != 0,
                is_next_generation: bits & 4 != 0,
                is_v6: bits & 8 != 0,
                vlans: usize::from(bits) % 3,
            };
            let findings = try_read(&form.write(&packets), &[]).unwrap();
            assert_eq!(figures(&findings), expected, "{form:?}");
            let from = findings.span.unwrap().0;
            assert_eq!(from, Timestamp::from_nanos(packets[0].at), "{form:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 112);
}

#[test]
fn numbers_that_wrap_around_change_nothing() {
    let mut packets = packets();
    let first = packets
        .iter()
        .find(|packet| packet.flags() & 2 != 0)
        .unwrap();
    let tcp = first.tcp();
    let number = u32::from_be_bytes(first.ip[tcp + 4..tcp + 8].try_into().unwrap());
    // All numbers are moved, so that the first connection wraps after 100 bytes of its client.
    let more = 0_u32.wrapping_sub(number).wrapping_sub(100);
    for packet in &mut packets {
        packet.add_to_number(4, more);
        packet.add_to_number(8, more);
    }
    check_run(&read(&packets));
}

#[test]
fn doubled_and_swapped_packets_change_nothing() {
    let packets = packets();
    let mut doubled: Vec<Packet> = packets
        .iter()
        .flat_map(|packet| [packet.clone(), packet.clone()])
        .collect();
    check_run(&read(&doubled));

    // Every two packets of data in the other order, a large one in halves.
    doubled = packets;
    let mut swapped = 0;
    let mut at = 0;
    while at < doubled.len() {
        if doubled[at].data_len() > 200 {
            let whole = doubled[at].clone();
            let begin = whole.ip.len() - whole.data_len();
            let half = whole.data_len() / 2;
            let mut second = whole.clone();
            second.ip.drain(begin..begin + half);
            second.add_to_number(4, u32::try_from(half).unwrap());
            let mut first = whole;
            first.ip.truncate(begin + half);
            for packet in [&mut first, &mut second] {
                packet.len = packet.ip.len();
                let len = u16::try_from(packet.len).unwrap().to_be_bytes();
                packet.ip[2..4].copy_from_slice(&len);
            }
            doubled.splice(at..=at, [second, first]);
            at += 1;
            swapped += 1;
        }
        at += 1;
    }
    assert!(swapped > 20, "{swapped}");
    check_run(&read(&doubled));
}

#[test]
fn what_was_not_captured_is_said_and_not_guessed() {
    let mut packets = packets();
    // A request of an application in the midst of the run, and its repetition is not captured either.
    let lost = packets
        .iter()
        .position(|packet| {
            packet.at > packets[100].at && packet.data_len() > 100 && packet.port(2) == SERVER
        })
        .unwrap();
    packets.remove(lost);
    let findings = read(&packets);
    assert_eq!(findings.counts.with_holes, 1, "{}", figures(&findings));
    assert_eq!(findings.counts.connections, 24);
    assert!(
        findings.warnings[0].contains("not captured"),
        "{:?}",
        findings.warnings
    );
    let [(incident, _)] = &findings.incidents[..] else {
        panic!("{:#?}", findings.incidents);
    };
    assert_eq!(incident.cause(), Cause::ServerCrash);
}

#[test]
fn packets_cut_short_are_counted_whole() {
    let mut packets = packets();
    for packet in &mut packets {
        packet.ip.truncate(100);
    }
    let findings = read(&packets);
    assert_eq!(findings.counts.connections, 24);
    assert!(findings.counts.with_holes > 5, "{}", figures(&findings));
    let bytes = |findings: &Findings| -> u64 {
        let rows = findings.snapshot.clients.iter();
        rows.flat_map(|row| row.bytes).sum()
    };
    assert_eq!(bytes(&findings), bytes(&read(&super::tests::packets())));
}

#[test]
fn a_capture_that_begins_late_is_decoded_from_the_next_message_on() {
    let packets = packets();
    let begun = packets
        .iter()
        .filter(|packet| packet.at > packets[0].at + 2 * SECOND);
    let findings = read(&begun.cloned().collect::<Vec<_>>());
    assert_eq!(findings.counts.begun_before, 6, "{:?}", findings.counts);
    let requests: u64 = findings
        .snapshot
        .clients
        .iter()
        .flat_map(|row| &row.requests)
        .map(|(_, count)| count)
        .sum();
    assert!(requests > 30, "{}", figures(&findings));
    let [(incident, _)] = &findings.incidents[..] else {
        panic!("{:#?}", findings.incidents);
    };
    assert_eq!(incident.cause(), Cause::ServerCrash);
}

#[test]
fn of_two_hops_the_one_nearer_to_the_clients_is_taken() {
    let packets = packets();
    let mut both = Vec::new();
    for packet in &packets {
        // The proxy listens where the server does in the original, and passes on to port 27 500.
        let mut far = packet.clone();
        let to_server = packet.port(2) == SERVER;
        if to_server {
            far.set_ports(packet.port(0), 27_500);
            both.extend([packet.clone(), far]);
        } else {
            far.set_ports(27_500, packet.port(2));
            both.extend([far, packet.clone()]);
        }
    }
    let findings = read(&both);
    assert_eq!(findings.counts.connections, 24);
    assert!(
        findings.warnings[0].contains(":27118 passes on what"),
        "{:?}",
        findings.warnings
    );

    let far: SocketAddr = "127.0.0.1:27500".parse().unwrap();
    let findings = try_read(&PLAIN.write(&both), &[far]).unwrap();
    assert_eq!(&*findings.snapshot.upstreams[0].name, "127.0.0.1:27500");
    check_run(&findings);
}

#[test]
fn a_server_that_never_answers_is_a_dial_that_timed_out() {
    let packets = packets();
    let syn = packets.iter().find(|packet| packet.flags() == 2).unwrap();
    let again = |seconds: u64| Packet {
        at: syn.at + seconds * SECOND,
        ..syn.clone()
    };
    let mut other = again(20);
    other.set_ports(40_000, SERVER);
    let server = [SocketAddr::from(([127, 0, 0, 1], SERVER))];
    let file = PLAIN.write(&[again(0), again(1), again(3), again(7), other]);
    let findings = try_read(&file, &server).unwrap();
    assert_eq!(findings.counts.connections, 2);
    let upstream = &findings.snapshot.upstreams[0];
    let (ending, count) = upstream.endings[0];
    assert_eq!((ending.reason().label(), count), ("connect_timeout", 1));
}

#[test]
fn a_long_pause_costs_no_time() {
    let mut packets = packets();
    let mut late = packets[0].clone();
    late.at += 20 * 365 * 24 * 3600 * SECOND;
    late.set_ports(40_000, SERVER);
    packets.push(late);
    let findings = read(&packets);
    assert!(
        findings.warnings[0].contains("moments"),
        "{:?}",
        findings.warnings
    );
    assert_eq!(findings.counts.connections, 25);
}

#[test]
fn one_impossible_moment_spoils_nothing_after_it() {
    let packets = packets();
    let form = Form {
        is_next_generation: true,
        is_nano: true,
        ..PLAIN
    };
    for moment in [u64::MAX, u64::MAX / 2, 0] {
        let mut packets = packets.clone();
        // A mere acknowledgement.
        let bare = packets[100..]
            .iter_mut()
            .find(|packet| packet.data_len() == 0);
        bare.unwrap().at = moment;
        let findings = try_read(&form.write(&packets), &[]).unwrap();
        assert!(
            findings.warnings[0].contains("moments"),
            "{:?}",
            findings.warnings
        );
        assert_eq!(findings.counts.connections, 24);
        assert_eq!(findings.incidents.len(), 1, "{:#?}", findings.incidents);
        assert_eq!(findings.incidents[0].0.cause(), Cause::ServerCrash);
        let until = findings.span.unwrap().1;
        assert_eq!(until, Timestamp::from_nanos(packets[413].at));
    }
}

#[test]
fn what_is_no_capture_is_refused_with_its_name() {
    let error = try_read(b"GET / HTTP/1.1\r\n\r\n", &[]).unwrap_err();
    let CaptureError::File { error, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(error, ReadError::NoCapture), "{error}");
    let error = try_read(&PLAIN.write(&[]), &[]).unwrap_err();
    assert!(
        matches!(error, CaptureError::NoServer { packets: 0 }),
        "{error}"
    );
}

/// A generator of numbers that is the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX constants.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn damaged_captures_neither_panic_nor_hang() {
    let packets = packets();
    let forms = [
        PLAIN,
        Form {
            is_next_generation: true,
            link: 276,
            ..PLAIN
        },
        Form {
            is_next_generation: true,
            is_big_endian: true,
            is_v6: true,
            ..PLAIN
        },
    ];
    let mut numbers = Numbers(1);
    let mut read = 0;
    for form in forms {
        let whole = form.write(&packets);
        for _ in 0..60 {
            let mut file = whole.clone();
            for _ in 0..=numbers.below(60) {
                let at = numbers.below(file.len());
                file[at] = u8::try_from(numbers.below(256)).unwrap();
            }
            file.truncate(file.len() - numbers.below(file.len() / 4));
            read += usize::from(try_read(&file, &[]).is_ok());
        }
    }
    assert!(read > 60, "only {read} could be read at all");
}

#[test]
fn damaged_packets_neither_panic_nor_hang() {
    let mut numbers = Numbers(2);
    for _ in 0..60 {
        let mut packets = packets();
        for _ in 0..200 {
            let packet = numbers.below(packets.len());
            let ip = &mut packets[packet].ip;
            let at = numbers.below(ip.len());
            ip[at] ^= u8::try_from(1 + numbers.below(255)).unwrap();
        }
        for _ in 0..20 {
            let (one, other) = (numbers.below(packets.len()), numbers.below(packets.len()));
            packets.swap(one, other);
        }
        let server = SocketAddr::from(([127, 0, 0, 1], SERVER));
        let findings = try_read(&PLAIN.write(&packets), &[server]).unwrap();
        assert_eq!(findings.counts.packets, 414);
    }
}

#[test]
fn headers_are_read_at_every_length() {
    for packet in packets().iter().take(40) {
        for vlans in 0..3 {
            let frame = Form { vlans, ..PLAIN }.frame(packet);
            for len in 0..frame.len() {
                for link in [0, 1, 12, 113, 276, 147] {
                    if let Seen::Segment(seen) = segment(Link(link), &frame[..len]) {
                        assert!(seen.payload.len() <= usize::try_from(seen.payload_len).unwrap());
                    }
                }
            }
        }
    }
}

#[test]
fn the_round_trip_is_between_data_and_its_acknowledgement() {
    let mut sender = super::sender::Sender::default();
    let ms = |ms: u64| Timestamp::from_nanos(SECOND + ms * 1_000_000);
    sender.sent(ms(0), u32::MAX - 10, 100);
    assert_eq!(sender.state(ms(5)).unacked, 1);
    assert_eq!(
        sender.state(ms(5)).since_ack,
        Duration::from_millis(5).into()
    );
    sender.acknowledged(ms(8), 89);
    let state = sender.state(ms(9));
    assert_eq!(
        (state.rtt, state.unacked, state.retransmits),
        (Duration::from_millis(8).into(), 0, 0)
    );
    sender.sent(ms(10), 89, 50);
    // The same packet captured twice, then really sent again: its acknowledgement measures nothing.
    sender.sent(ms(10), 89, 50);
    sender.sent(ms(210), 89, 50);
    sender.acknowledged(ms(211), 139);
    let state = sender.state(ms(220));
    assert_eq!(
        (state.rtt, state.unacked, state.retransmits),
        (Duration::from_millis(8).into(), 0, 1)
    );
}

#[test]
fn what_the_other_side_received_twice_was_not_lost() {
    let mut sender = super::sender::Sender::default();
    let ms = |ms: u64| Timestamp::from_nanos(SECOND + ms * 1_000_000);
    let counts = |sender: &super::sender::Sender| {
        let state = sender.state(ms(1000));
        (state.retransmits, state.duplicates)
    };
    sender.sent(ms(0), 0, 20);
    sender.sent(ms(1), 20, 128);
    // The server has no time to answer; its kernel holds the acknowledgement back, and a tail loss probe asks for it.
    sender.sent(ms(16), 20, 128);
    assert_eq!(counts(&sender), (1, 0));
    sender.acknowledged(ms(16), 148);
    sender.received_twice(ms(16), 20);
    // The same packet captured twice.
    sender.received_twice(ms(16), 20);
    assert_eq!(counts(&sender), (1, 1));
    // Sent again although it had been acknowledged, which the other side says as well.
    sender.sent(ms(30), 20, 128);
    sender.received_twice(ms(40), 20);
    assert_eq!(counts(&sender), (2, 2));
    // This one was lost.
    sender.sent(ms(50), 148, 128);
    sender.sent(ms(250), 148, 128);
    sender.acknowledged(ms(251), 276);
    assert_eq!(counts(&sender), (3, 2));
}

/// A segment over IPv4 that acknowledges 1,000 and has these options.
fn with_options(options: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let len = u16::try_from(20 + header).unwrap();
    let mut ip = vec![0x45, 0];
    ip.extend(len.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    ip.extend([0x10, 0, 0x20, 0, 0, 0, 0, 7]);
    ip.extend(1_000_u32.to_be_bytes());
    ip.extend([
        u8::try_from(header / 4).unwrap() << 4,
        0x10,
        0,
        64,
        0,
        0,
        0,
        0,
    ]);
    ip.extend(options);
    ip
}

/// A selective acknowledgement of these ranges, padded.
fn selective(ranges: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, u8::try_from(2 + 8 * ranges.len()).unwrap()];
    for (begin, end) in ranges {
        option.extend(begin.to_be_bytes());
        option.extend(end.to_be_bytes());
    }
    option
}

#[test]
fn selective_acknowledgements_say_what_was_received_twice() {
    let received_twice = |options: &[u8]| {
        let packet = with_options(options);
        let Seen::Segment(segment) = segment(Link(12), &packet) else {
            panic!("{packet:?} is not read");
        };
        segment.received_twice
    };
    let of = |ranges: &[(u32, u32)]| received_twice(&selective(ranges));
    assert_eq!(received_twice(&[]), None);
    // Below what is acknowledged.
    assert_eq!(of(&[(900, 1_000)]), Some(900));
    // Beyond a hole: it came for the first time.
    assert_eq!(of(&[(1_100, 1_200)]), None);
    assert_eq!(of(&[(1_100, 1_200), (1_300, 1_400)]), None);
    // Beyond a hole, inside of what had come.
    assert_eq!(of(&[(1_100, 1_200), (1_050, 1_400)]), Some(1_100));
    // Cut off by the capture.
    assert_eq!(received_twice(&[1, 1, 5, 10, 0, 0, 3, 132]), None);
}
