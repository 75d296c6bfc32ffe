//! Captures of real drivers without a proxy give the figures that the drivers themselves report.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Agent, Driver, Mongod, Process, eventually, tool};

const LIMIT: Duration = Duration::from_secs(40);

/// Nothing comes any more when tcpdump's counts stay as they are for so many polls: longer than a batch waits.
const QUIET_POLLS: u32 = 5;
const POLL: Duration = Duration::from_millis(500);

/// A running capture.
pub(crate) struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// `None` where this user must not capture, which is said; the committed captures are analysed everywhere.
    pub(crate) fn start(directory: &Path, port: u16) -> Option<Self> {
        Self::start_on("lo", directory, port)
    }

    #[expect(
        clippy::print_stderr,
        reason = "whoever reads the output of a test should know what it left out"
    )]
    /// The same of an interface of this host.
    pub(crate) fn start_on(interface: &str, directory: &Path, port: u16) -> Option<Self> {
        let file = directory.join(format!("{interface}.pcap"));
        let mut command = Command::new(tool("tcpdump/tcpdump"));
        command
            // Without its immediate mode, in which each packet takes 64 KiB of these 16 MiB.
            .args(["-i", interface, "-s", "0", "-U", "-B", "16384", "-w"])
            .arg(&file)
            .arg(format!("tcp port {port}"));
        if rustix::process::getuid().is_root() {
            command.args(["-Z", "root"]);
        }
        let mut tcpdump = Process::start(&mut command);
        let is_listening = eventually(LIMIT, || {
            let lines = tcpdump.lines().join("\n");
            if lines.contains("listening on") {
                return Ok(true);
            }
            if tcpdump.ended().is_some() && lines.contains("permission") {
                return Ok(false);
            }
            Err(lines)
        });
        if !is_listening {
            eprintln!("not tried: capturing needs CAP_NET_RAW");
            return None;
        }
        Some(Self { tcpdump, file })
    }

    /// Ends it when everything up to now is in the file; gives the file.
    pub(crate) fn finish(mut self) -> PathBuf {
        // The kernel hands packets over in batches, up to two seconds after they came. What it received cannot be held
        // against what was captured: the loopback counts packets twice, and those that came before the filter stood
        // are among them.
        let (mut known, mut quiet) = (None, 0);
        eventually(LIMIT, || {
            let told = self.told();
            quiet = if known.replace(told) == Some(told) {
                quiet + 1
            } else {
                0
            };
            if quiet >= QUIET_POLLS {
                return Ok(());
            }
            std::thread::sleep(POLL);
            Err(format!("{told:?}"))
        });
        self.tcpdump.signal(Signal::TERM);
        self.tcpdump.wait(LIMIT);
        let lines = self.tcpdump.lines();
        let is_lossless = lines
            .iter()
            .any(|line| line.starts_with("0 packets dropped"));
        assert!(is_lossless, "{lines:#?}");
        self.file.clone()
    }

    /// What tcpdump says of itself when it is asked.
    fn told(&self) -> Told {
        let answers = || {
            let lines = self.tcpdump.lines();
            let told = lines.iter().filter_map(|line| Told::read(line));
            told.collect::<Vec<_>>()
        };
        let before = answers().len();
        self.tcpdump.signal(Signal::USR1);
        eventually(LIMIT, || {
            let answers = answers();
            let told = answers.get(before).copied();
            told.ok_or("tcpdump does not answer")
        })
    }

    /// What it shows, when everything up to now is in the file.
    fn analyze(self, server: &str) -> Value {
        analyze(&self.finish(), server)
    }
}

/// Packets, as tcpdump counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    /// Written into the file.
    captured: u64,
    /// Chosen by the kernel.
    received: u64,
}

impl Told {
    /// `tcpdump: 8 packets captured, 10 packets received by filter, 0 packets dropped by kernel`.
    fn read(line: &str) -> Option<Self> {
        let line = line.strip_prefix("tcpdump: ")?;
        let count = |words: &str| {
            let mut parts = line.split(", ");
            let part = parts.find_map(|part| part.strip_suffix(words));
            part?.split(' ').next()?.parse().ok()
        };
        Some(Self {
            captured: count(" captured")?,
            received: count(" received by filter")?,
        })
    }
}

/// What `poolscope analyze` finds in a file.
pub(crate) fn analyze(file: &Path, server: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_poolscope"))
        .args(["analyze", "--json", "--server", server])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no count: {value}"))
}

fn row<'a>(found: &'a Value, app: &str) -> &'a Value {
    let rows = found["clients"].as_array().unwrap();
    let row = rows.iter().find(|row| row["app"] == app);
    row.unwrap_or_else(|| panic!("no {app}: {found:#}"))
}

#[test]
fn captured_pools_are_those_the_drivers_report() {
    let directory = tempfile::tempdir().unwrap();
    let server = Mongod::standalone();
    let Some(capture) = Capture::start(directory.path(), server.addr().port()) else {
        return;
    };
    let mut truth = Vec::new();
    for driver in [
        Driver::PyMongo4,
        Driver::PyMongo3,
        Driver::Node36Unified,
        Driver::Node6,
        Driver::Rust,
    ] {
        let app = format!("{driver:?}-captured");
        let mut agent = Agent::spawn(driver);
        let uri = format!("{}&appName={app}&heartbeatFrequencyMS=1000", server.uri());
        agent.open(&app, &uri);
        // All four at once, each in use: Node 3.6 counts a connection when its handshake is done, dials more than it
        // needs while operations wait, and never counts those that it closes before.
        agent.hold(&app, 4);
        assert_eq!(agent.release(&app, &server)["held"], 4, "{app}");
        let ran = agent.request(json!({
            "do": "run", "name": app, "operation": "find", "count": 40, "concurrency": 4,
        }));
        assert_eq!(ran["done"], 40, "{app}: {ran}");
        let stats = agent.stats(&app);
        agent.close(&app);
        truth.push((app, number(&stats["created"])));
    }
    let found = capture.analyze(&server.addr().to_string());
    assert_eq!(found["connections_with_holes"], 0, "{found:#}");
    for (app, created) in truth {
        let row = row(&found, &app);
        assert_eq!(number(&row["pooled"]["opened"]), created, "{row:#}");
        assert_eq!(number(&row["pooled"]["closed"]), created, "{row:#}");
        assert_eq!(row["connections"]["open"], 0, "{row:#}");
        let commands = row["requests_by_command"].as_array().unwrap();
        let find = commands
            .iter()
            .find(|one| one["command"] == "find")
            .unwrap();
        assert!(number(&find["count"]) >= 40, "{row:#}");
        let mut initiators = row["closed_by"].as_array().unwrap().iter();
        assert!(
            initiators.all(|one| one["initiator"] == "client"),
            "{row:#}"
        );
    }
    // Who ends the held operations has no name; one such process after the other is a deploy.
    let incidents = found["incidents"].as_array().unwrap().iter();
    let clients = incidents.flat_map(|incident| incident["clients"].as_array().unwrap());
    let apps: Vec<&Value> = clients
        .map(|client| &client["app"])
        .filter(|app| *app != "")
        .collect();
    assert!(apps.is_empty(), "{found:#}");
}

#[test]
fn a_server_killed_under_captured_drivers_is_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Mongod::standalone();
    let Some(capture) = Capture::start(directory.path(), server.addr().port()) else {
        return;
    };
    let app = "orders";
    let mut agents: Vec<Agent> = [Driver::PyMongo4, Driver::Node6].map(Agent::spawn).into();
    for agent in &mut agents {
        let uri = format!("{}&appName={app}&heartbeatFrequencyMS=1000", server.uri());
        agent.request(json!({ "do": "open", "name": app, "uri": uri, "events": true }));
        agent.request(json!({
            "do": "run", "name": app, "operation": "find", "count": 40, "concurrency": 4,
        }));
    }
    server.kill();
    // That nobody listens any more belongs to the picture: each driver finds out when it dials again.
    for agent in &agents {
        eventually(LIMIT, || {
            let events = agent.events();
            let mut errors = events.iter().filter_map(|event| event["error"].as_str());
            let is_refused = errors.any(|error| error.to_lowercase().contains("refused"));
            is_refused
                .then_some(())
                .ok_or_else(|| format!("{events:#?}"))
        });
    }
    drop(agents);
    let found = capture.analyze(&server.addr().to_string());
    // That a second process of the application came is information.
    let incidents = found["incidents"].as_array().unwrap().iter();
    let alarms: Vec<_> = incidents
        .filter(|incident| incident["severity"] != "info")
        .map(|incident| &incident["cause"])
        .collect();
    assert_eq!(alarms, ["server_crash"], "{found:#}");
}
