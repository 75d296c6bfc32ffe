//! A network of its own for a server, and the wire to it, which loses and delays packets on command.
//!
//! The kernel's own TCP sees these faults: nothing acknowledges what is lost. It takes root.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::{Port, Process, root};

/// A namespace behind a wire.
#[derive(Debug)]
pub(crate) struct Network {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    namespace: u64,
    near: Ipv4Addr,
    far: Ipv4Addr,
    /// Reserves the name of the interface and its addresses.
    number: Port,
}

impl Network {
    /// The end of the wire in this namespace.
    pub(crate) fn interface(&self) -> String {
        interface(&self.number)
    }

    /// Whether this process may make one.
    pub(crate) fn is_possible() -> bool {
        rustix::process::geteuid().is_root() && std::path::Path::new("/dev/net/tun").exists()
    }

    /// A namespace, and a wire to it that does nothing wrong.
    pub(crate) fn start() -> Self {
        let number = Port::reserve();
        let [high, low] = number.number().to_be_bytes();
        // A /30 has four addresses.
        let (near, far) = (
            Ipv4Addr::new(10, high, low, 1),
            Ipv4Addr::new(10, high, low, 2),
        );
        let mut command = Command::new("python3");
        command
            .arg(root().join("tests/network/wire.py"))
            .arg(interface(&number))
            .args([near.to_string(), far.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start_quiet(&mut command);
        let (input, output) = process.take_pipes();
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no wire: {line:?} {:?}", process.lines()));
        Self {
            _process: process,
            input,
            output,
            namespace: ready["pid"].as_u64().unwrap(),
            near,
            far,
            number,
        }
    }

    /// How packets fare from now on; the program says which words there are.
    pub(crate) fn set(&mut self, faults: &Value) {
        writeln!(self.input, "{faults}").unwrap();
        self.output.read_line(&mut String::new()).unwrap();
    }

    /// The address on this side of the wire.
    pub(crate) fn near_addr(&self) -> IpAddr {
        self.near.into()
    }

    /// The address in the namespace.
    pub(crate) fn addr(&self) -> IpAddr {
        self.far.into()
    }

    /// A command that runs `program` in the namespace, under the process id that it is given.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.namespace))
            .arg(program);
        command
    }
}

fn interface(number: &Port) -> String {
    format!("wire{}", number.number())
}
