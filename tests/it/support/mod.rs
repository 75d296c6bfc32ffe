//! What the tests run on: real servers, real drivers, the real binary, and waiting for things to become true.
//!
//! Every process belongs to the value that started it and ends when that is dropped.

mod agent;
mod exposition;
mod fault_relay;
mod http;
mod mongod;
mod network;
mod poolscope;
mod ports;
mod process;
mod prometheus;
pub(crate) mod raw;
mod wait;
mod wire;

use std::path::{Path, PathBuf};

pub(crate) use agent::{Agent, Driver};
pub(crate) use exposition::{Family, Sample, parse_exposition};
pub(crate) use fault_relay::{Cut, FaultRelay, Faults};
pub(crate) use http::{Response, get};
pub(crate) use mongod::{Mongod, MongodOptions, ReplicaSet, number};
pub(crate) use network::Network;
pub(crate) use poolscope::Poolscope;
pub(crate) use ports::Port;
pub(crate) use process::Process;
pub(crate) use prometheus::{Prometheus, promtool};
pub(crate) use wait::{epoch_seconds, eventually, eventually_equal, now};
pub(crate) use wire::Connection;

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file that `tests/setup/install` has put into `.tools/`.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tool = root().join(".tools").join(path);
    assert!(
        tool.exists(),
        "{} is not there; tests/setup/install puts it there",
        tool.display()
    );
    tool
}
