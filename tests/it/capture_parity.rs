//! One and the same run, seen live and captured beside it, is told in the same incidents.
//!
//! poolscope stands before a server, tcpdump listens between the two: what ends, breaks or is closed by force passes
//! both. Then the capture is maltreated as captures are in the field, and must not be read as something else.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use poolscope::time::Timestamp;
use serde_json::{Value, json};

use crate::captures::{Capture, analyze};
use crate::support::{
    Agent, Cut, Driver, FaultRelay, Mongod, MongodOptions, Network, Poolscope, eventually,
    eventually_equal,
};

const LIMIT: Duration = Duration::from_mins(1);
const DRIVERS: [(&str, Driver); 4] = [
    ("ledger", Driver::Node36Legacy),
    ("orders", Driver::Node4),
    ("web", Driver::Node7),
    ("billing", Driver::PyMongo4Async),
];
/// Sockets of a pool.
const POOL: u64 = 3;
/// Two observers of one event: one reads it from a socket, the other is told by the kernel.
const APART: Duration = Duration::from_millis(500);

/// What shows in sums over seconds: the kernel is asked once a second, a capture has each segment.
const MEASURED: [&str; 2] = ["network_latency", "network_loss"];
const MEASURED_APART: Duration = Duration::from_secs(4);

/// What is over sooner may as well have been slow operations, or bad luck on a lossy path.
const LASTING: Duration = Duration::from_secs(6);

/// Applications under load.
struct Apps {
    agents: Vec<(&'static str, Driver, Agent)>,
}

impl Apps {
    fn start(poolscope: &Poolscope) -> Self {
        let agents = DRIVERS.map(|(name, driver)| {
            let mut agent = Agent::spawn(driver);
            let pool = if driver == Driver::Node36Legacy {
                "poolSize"
            } else {
                "maxPoolSize"
            };
            let uri = poolscope.uri(name);
            agent.open(
                "app",
                &format!("{uri}&{pool}={POOL}&heartbeatFrequencyMS=1000"),
            );
            agent.submit(json!({
                "do": "run", "name": "app", "operation": "find", "args": { "limit": 1 },
                "seconds": 600, "concurrency": POOL, "pause": 25,
            }));
            (name, driver, agent)
        });
        let apps = Self {
            agents: agents.into(),
        };
        apps.await_finds(poolscope, 200.0);
        apps
    }

    /// Waits until each has found something so often, forty times a second for each of its connections at most.
    fn await_finds(&self, poolscope: &Poolscope, finds: f64) {
        for (name, ..) in &self.agents {
            eventually(LIMIT, || match served(poolscope, name) {
                served if served >= finds => Ok(()),
                served => Err(format!("{name}: {served} finds")),
            });
        }
    }

    /// Waits until each has found something so often from now on.
    fn await_more(&self, poolscope: &Poolscope, finds: f64) {
        let known = self.agents.iter().map(|(name, ..)| served(poolscope, name));
        let known = known.fold(0.0, f64::max);
        self.await_finds(poolscope, known + finds);
    }
}

fn served(poolscope: &Poolscope, app: &str) -> f64 {
    let series = [("app", app), ("command", "find")];
    poolscope.sum("poolscope_requests_total", &series)
}

/// What an incident says that must not depend on who looked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    cause: String,
    severity: String,
    apps: BTreeSet<String>,
}

fn told(answer: &Value) -> Vec<(Told, Timestamp)> {
    let rows = answer["incidents"].as_array().unwrap();
    let mut all: Vec<_> = rows
        .iter()
        .map(|row| {
            let apps = row["clients"].as_array().unwrap().iter();
            let told = Told {
                cause: row["cause"].as_str().unwrap().to_owned(),
                severity: row["severity"].as_str().unwrap().to_owned(),
                apps: apps
                    .map(|client| client["app"].as_str().unwrap().to_owned())
                    .collect(),
            };
            (told, row["opened_at"].as_str().unwrap().parse().unwrap())
        })
        .collect();
    all.sort();
    all
}

/// The processes go, and with them the last packets; then both say what they saw.
#[track_caller]
fn compare(
    poolscope: &Poolscope,
    apps: Apps,
    capture: Capture,
    server: SocketAddr,
) -> (PathBuf, Vec<Told>) {
    drop(apps);
    eventually(LIMIT, || {
        match poolscope.sum("poolscope_connections", &[]) {
            0.0 => Ok(()),
            open => Err(format!("{open} connections")),
        }
    });
    let file = capture.finish();
    let found = analyze(&file, &server.to_string());
    let captured = told(&found);
    let causes = |all: &[(Told, Timestamp)]| -> Vec<Told> {
        all.iter().map(|(told, _)| told.clone()).collect()
    };
    // The ends of the processes are told a moment after them.
    let seen = eventually(LIMIT, || {
        let live = poolscope.api("incidents");
        let seen = told(&live);
        if causes(&captured) == causes(&seen) {
            Ok(seen)
        } else {
            Err(format!(
                "captured {captured:#?}\nlive {seen:#?}\ncaptured {found:#}\nlive {live:#}"
            ))
        }
    });
    for ((one, captured_at), (_, seen_at)) in captured.iter().zip(&seen) {
        let is_measured = MEASURED.contains(&one.cause.as_str());
        let most = if is_measured { MEASURED_APART } else { APART };
        let apart = captured_at.since(*seen_at) + seen_at.since(*captured_at);
        assert!(apart <= most, "{one:?}: {captured_at} and {seen_at}");
    }
    (file, causes(&seen))
}

fn await_cause(poolscope: &Poolscope, cause: &str) {
    eventually(LIMIT, || {
        let answer = poolscope.api(&format!("incidents?cause={cause}"));
        match answer["matched"].as_u64() {
            Some(1..) => Ok(()),
            _ => Err(format!("{:#}", poolscope.api("incidents"))),
        }
    });
}

/// Waits until it is said that nothing has come for so long.
fn await_silence(poolscope: &Poolscope, lasted: Duration) {
    eventually(LIMIT, || {
        let answer = poolscope.api("incidents");
        let evidence = &answer["incidents"][0]["causes"][0]["evidence"][0]["fact"];
        let fact = evidence.as_str().unwrap_or_default();
        let told = fact.strip_prefix("no byte came from the server for ");
        let seconds = told.and_then(|told| told.split(' ').next()?.parse::<f64>().ok());
        match seconds {
            Some(seconds) if seconds >= lasted.as_secs_f64() => Ok(()),
            _ => Err(format!("{answer:#}")),
        }
    });
}

#[test]
fn a_crash_is_told_alike_however_the_capture_was_maltreated() {
    let directory = tempfile::tempdir().unwrap();
    let mut mongod = Mongod::standalone();
    let server = mongod.addr();
    let Some(capture) = Capture::start(directory.path(), server.port()) else {
        return;
    };
    let poolscope = Poolscope::start(&[server]);
    let apps = Apps::start(&poolscope);
    mongod.kill();
    await_cause(&poolscope, "server_crash");
    let (file, causes) = compare(&poolscope, apps, capture, server);
    assert!(causes.iter().any(|told| told.cause == "server_crash"));

    let whole = Pcap::read(&file);
    let found = analyze(&file, &server.to_string());
    let expected = told(&found);
    let crash = crash_of(&found);
    let check_same = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let found = analyze(&path, &server.to_string());
        assert_eq!(told(&found), expected, "{name}: {found:#}");
    };
    check_same("next.pcapng", &whole.next_generation());
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&fs::read(&file).unwrap()).unwrap();
    check_same("packed.pcap.gz", &packed.finish().unwrap());

    // What is missing makes it less sure, never something else.
    let check_less = |name: &str, pcap: &Pcap| -> Value {
        let path = directory.path().join(name);
        fs::write(&path, pcap.bytes()).unwrap();
        let found = analyze(&path, &server.to_string());
        for (told, _) in told(&found) {
            let known = told.cause == "server_crash" || causes.contains(&told);
            assert!(known, "{name}: {told:?} in {found:#}");
        }
        found
    };
    let begun_before = check_less("middle.pcap", &whole.since(crash - Duration::from_secs(1)));
    assert!(begun_before["connections_begun_before"].as_u64() > Some(0));
    assert!(
        told(&begun_before)
            .iter()
            .any(|(told, _)| told.cause == "server_crash"),
        "{begun_before:#}"
    );
    let holed = check_less("drops.pcap", &whole.without_every(40));
    assert!(
        holed["connections_with_holes"].as_u64() > Some(0),
        "{holed:#}"
    );
    check_less("headers.pcap", &whole.cut_to(96));
}

fn crash_of(found: &Value) -> Timestamp {
    let rows = found["incidents"].as_array().unwrap();
    let crash = rows.iter().find(|row| row["cause"] == "server_crash");
    crash.unwrap()["opened_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_reset_between_is_told_alike() {
    let directory = tempfile::tempdir().unwrap();
    let mongod = Mongod::standalone();
    let relay = FaultRelay::before(mongod.addr());
    let Some(capture) = Capture::start(directory.path(), relay.addr().port()) else {
        return;
    };
    let poolscope = Poolscope::start(&[relay.addr()]);
    let apps = Apps::start(&poolscope);
    relay.cut_all(Cut::Reset);
    await_cause(&poolscope, "network_reset");
    let (_, causes) = compare(&poolscope, apps, capture, relay.addr());
    assert!(causes.iter().any(|told| told.cause == "network_reset"));
}

#[test]
fn a_frozen_process_is_told_alike() {
    let directory = tempfile::tempdir().unwrap();
    let mongod = Mongod::standalone();
    let server = mongod.addr();
    let Some(capture) = Capture::start(directory.path(), server.port()) else {
        return;
    };
    let poolscope = Poolscope::start(&[server]);
    let apps = Apps::start(&poolscope);
    mongod.freeze();
    await_cause(&poolscope, "server_freeze");
    await_silence(&poolscope, LASTING);
    mongod.thaw();
    apps.await_more(&poolscope, 100.0);
    let (_, causes) = compare(&poolscope, apps, capture, server);
    assert!(causes.iter().any(|told| told.cause == "server_freeze"));
}

/// What only the kernel can tell live, the segments tell in a capture: acknowledgements, round trips, what was sent again.
fn check_path(faults: &Value, cause: &str) {
    if !Network::is_possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut mongod = Mongod::start_in(MongodOptions::default(), Some(Network::start()));
    let server = mongod.addr();
    let interface = mongod.network_mut().interface();
    let Some(capture) = Capture::start_on(&interface, directory.path(), server.port()) else {
        return;
    };
    let poolscope = Poolscope::start(&[server]);
    let apps = Apps::start(&poolscope);
    mongod.network_mut().set(faults);
    await_cause(&poolscope, cause);
    if cause == "network_blackhole" {
        await_silence(&poolscope, LASTING);
    } else {
        apps.await_more(&poolscope, 60.0);
    }
    mongod.network_mut().set(&json!({}));
    apps.await_more(&poolscope, 100.0);
    let (_, causes) = compare(&poolscope, apps, capture, server);
    assert!(
        causes.iter().any(|told| told.cause == cause),
        "{cause}: {causes:?}"
    );
}

#[test]
fn a_path_that_takes_longer_is_told_alike() {
    check_path(&json!({ "delay": 0.15 }), "network_latency");
}

#[test]
fn a_lossy_path_is_told_alike() {
    check_path(&json!({ "loss": 0.15 }), "network_loss");
}

#[test]
fn a_path_that_swallows_everything_is_told_alike() {
    check_path(&json!({ "loss": 1.0 }), "network_blackhole");
}

#[test]
fn clients_that_are_closed_by_force_are_told_alike() {
    let directory = tempfile::tempdir().unwrap();
    let mongod = Mongod::standalone();
    let Some(capture) = Capture::start(directory.path(), mongod.addr().port()) else {
        return;
    };
    let poolscope = Poolscope::start(&[mongod.addr()]);
    let mut apps = Apps::start(&poolscope);
    // Beyond doubt older than a client that is made for a job: what a capture on the server's side sees of its end comes
    // a moment later.
    apps.await_finds(&poolscope, 600.0);
    for (_, _, agent) in &mut apps.agents {
        agent.submit(json!({
            "do": "run", "name": "app", "operation": "sleep", "count": 12, "concurrency": 12,
            "args": { "milliseconds": 2000 },
        }));
    }
    // Everything must be under way in that moment, and nothing be on its way back: a socket that is closed before it was
    // read to its end is reset, as something on the way may do it.
    for (name, driver, _) in &apps.agents {
        // The legacy pool sends what it has without waiting for answers.
        let sent = if *driver == Driver::Node36Legacy {
            12
        } else {
            POOL
        };
        let series = [("app", *name), ("command", "other")];
        eventually_equal(LIMIT, &f64::from(u32::try_from(sent).unwrap()), || {
            poolscope.sum("poolscope_requests_total", &series)
        });
    }
    for (_, driver, agent) in &mut apps.agents {
        agent.submit(json!({
            "do": "close", "name": "app", "force": *driver != Driver::PyMongo4Async,
        }));
    }
    eventually_equal(LIMIT, &0.0, || poolscope.sum("poolscope_connections", &[]));
    eventually(LIMIT, || {
        let answer = poolscope.api("incidents");
        match answer["matched"].as_u64() {
            Some(1..) => Ok(()),
            _ => Err("no incident"),
        }
    });
    let (_, causes) = compare(&poolscope, apps, capture, mongod.addr());
    assert!(!causes.is_empty());
}

/// A capture in the classic form, as tcpdump writes it on this machine: little-endian, microseconds.
#[derive(Clone, Debug)]
struct Pcap {
    head: Vec<u8>,
    packets: Vec<Packet>,
}

#[derive(Clone, Debug)]
struct Packet {
    seconds: u32,
    micros: u32,
    /// Before it was cut.
    len: u32,
    data: Vec<u8>,
}

impl Pcap {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (head, mut rest) = bytes.split_at(24);
        assert_eq!(head[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let mut packets = Vec::new();
        while rest.len() >= 16 {
            let taken = usize::try_from(number(&rest[8..12])).unwrap();
            packets.push(Packet {
                seconds: number(&rest[..4]),
                micros: number(&rest[4..8]),
                len: number(&rest[12..16]),
                data: rest[16..16 + taken].to_vec(),
            });
            rest = &rest[16 + taken..];
        }
        assert!(packets.len() > 500, "{}", packets.len());
        Self {
            head: head.to_vec(),
            packets,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        for packet in &self.packets {
            let held = u32::try_from(packet.data.len()).unwrap();
            for number in [packet.seconds, packet.micros, held, packet.len] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(&packet.data);
        }
        bytes
    }

    /// The same as pcapng (draft-ietf-opsawg-pcapng): a section, an interface, enhanced packets.
    fn next_generation(&self) -> Vec<u8> {
        let block = |kind: u32, body: &[u8]| {
            let len = u32::try_from(body.len().next_multiple_of(4) + 12).unwrap();
            let mut bytes = Vec::new();
            bytes.extend(kind.to_le_bytes());
            bytes.extend(len.to_le_bytes());
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(len.to_le_bytes());
            bytes
        };
        let mut section = vec![0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
        section.extend([0xff; 8]);
        let mut bytes = block(0x0a0d_0d0a, &section);
        let mut interface = self.head[20..22].to_vec();
        interface.extend([0, 0, 0, 0, 0, 0]);
        bytes.extend(block(1, &interface));
        for packet in &self.packets {
            let micros = u64::from(packet.seconds) * 1_000_000 + u64::from(packet.micros);
            let held = u32::try_from(packet.data.len()).unwrap();
            let high = u32::try_from(micros >> 32).unwrap();
            let low = u32::try_from(micros & 0xffff_ffff).unwrap();
            let mut body = Vec::new();
            for number in [0, high, low, held, packet.len] {
                body.extend(number.to_le_bytes());
            }
            body.extend(&packet.data);
            bytes.extend(block(6, &body));
        }
        bytes
    }

    fn with(&self, packets: Vec<Packet>) -> Self {
        Self {
            head: self.head.clone(),
            packets,
        }
    }

    /// Begun later, in the middle of connections.
    fn since(&self, at: Timestamp) -> Self {
        let packets = self.packets.iter().filter(|packet| {
            u64::from(packet.seconds) * 1000 + u64::from(packet.micros) / 1000 >= at.as_millis()
        });
        self.with(packets.cloned().collect())
    }

    /// With packets that the capturing host dropped.
    fn without_every(&self, number: usize) -> Self {
        let packets = self.packets.iter().enumerate();
        let packets = packets.filter(|(place, _)| place % number != number - 1);
        self.with(packets.map(|(_, packet)| packet.clone()).collect())
    }

    /// Captured with a limit of so many bytes a packet.
    fn cut_to(&self, len: usize) -> Self {
        let mut packets = self.packets.clone();
        for packet in &mut packets {
            packet.data.truncate(len);
        }
        self.with(packets)
    }
}
