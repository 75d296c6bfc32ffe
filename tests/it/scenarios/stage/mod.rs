//! Where a case is played: servers, poolscope, applications on real drivers, and what they really saw.
//!
//! | module | what it is for |
//! |---|---|
//! | [`setting`] | servers, networks and what lies between, before the play |
//! | [`cast`] | applications and what they do |
//! | [`kept`] | what came of it |

mod cast;
mod kept;
mod setting;

use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bson::{Bson, Document, doc};
use serde_json::{Value, json};

use super::shape::Shape;
use crate::support::{Driver, FaultRelay, Mongod, Network, Poolscope, ReplicaSet, epoch_seconds};

pub(super) use cast::{App, pool_option};
pub(super) use kept::is_alarm;

/// What is waited for comes within this, be the machine as busy as it may.
const LIMIT: Duration = Duration::from_secs(30);
/// Sockets of a pool whose size is a matter of the play.
pub(super) const POOL: u64 = 4;
/// Who logs in where clients do.
const USER: &str = "reader";
const PASSWORD: &str = "ten-green-bottles";

/// The servers.
#[derive(Debug)]
pub(super) enum Servers {
    /// One that belongs to no set.
    Alone(Mongod),
    /// Members of a set, each behind a listener of its own.
    Set(ReplicaSet),
}

/// What a stage is set for.
#[derive(Debug)]
pub(super) struct Place {
    /// The driver under test.
    pub(super) driver: Driver,
    /// The surroundings.
    pub(super) shape: Shape,
    /// Where everything about the case is kept.
    pub(super) directory: PathBuf,
}

/// A case in play.
#[derive(Debug)]
pub(super) struct Stage {
    /// The driver under test.
    pub(super) driver: Driver,
    /// The surroundings.
    pub(super) shape: Shape,
    /// The servers.
    pub(super) servers: Servers,
    /// What lies between poolscope and a server that is alone, where something does.
    pub(super) between: Option<FaultRelay>,
    /// The network of the application under test, where it has one of its own.
    pub(super) remote: Option<Network>,
    /// The program under test.
    pub(super) poolscope: Poolscope,
    /// Applications, in the order they were started.
    pub(super) apps: Vec<App>,
    /// Where everything about this case is kept.
    pub(super) directory: PathBuf,
    /// Options that the connection string cannot carry, for the application `orders`.
    pub(super) constructor: Value,
    /// What was done.
    pub(super) fault: String,
    /// When that was done, in seconds since the epoch.
    pub(super) injected_at: f64,
    /// When the evidence of it was there; not before that.
    pub(super) fault_at: f64,
    /// Names of the applications it concerned.
    pub(super) affected: Vec<String>,
    /// Remarks for whoever reads the files.
    pub(super) notes: Vec<Value>,
    /// When an alarm was first seen at the interface.
    pub(super) alarm_seen_at: Option<f64>,
    /// What poolscope said of its clients when the drivers were asked.
    pub(super) clients_seen: Value,
}

impl Stage {
    /// How packets fare from now on.
    pub(super) fn wire(&mut self, faults: &Value) {
        match &mut self.remote {
            Some(remote) => remote.set(faults),
            None => self.server_mut().network_mut().set(faults),
        }
    }

    /// The server that is alone, or the first member, which begins as the primary.
    pub(super) fn server(&self) -> &Mongod {
        match &self.servers {
            Servers::Alone(server) => server,
            Servers::Set(set) => &set.members()[0],
        }
    }

    /// The same, to be ended.
    pub(super) fn server_mut(&mut self) -> &mut Mongod {
        match &mut self.servers {
            Servers::Alone(server) => server,
            Servers::Set(set) => set.member_mut(0),
        }
    }

    /// Time in which nothing happens but the load: what comes before a fault, so that there is a normal.
    #[expect(clippy::unused_self, reason = "it reads as part of the play")]
    pub(super) fn steady(&self, time: Duration) {
        thread::sleep(time);
    }

    /// The fault happens now: call it right before what makes it.
    pub(super) fn fault(&mut self, what: &str, affected: &[&str]) {
        what.clone_into(&mut self.fault);
        // Some surroundings have no neighbour.
        let has_neighbour = self.apps.iter().any(|app| app.name == "billing");
        let names = affected.iter().map(|&name| name.to_owned());
        self.affected = names
            .filter(|name| has_neighbour || name != "billing")
            .collect();
        self.fault_at = epoch_seconds();
        self.injected_at = self.fault_at;
    }

    /// Makes the server treat commands in a way of its own (the fail point `failCommand`).
    pub(super) fn fail_command(&self, mode: impl Into<Bson>, data: Document) {
        self.server().command(
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data },
        );
    }

    /// Ends what [`Self::fail_command`] began.
    pub(super) fn heal_commands(&self) {
        self.server().command(
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": "off" },
        );
    }

    /// Bare connections that say nothing.
    pub(super) fn probe(&self) {
        drop(TcpStream::connect(self.poolscope.addr()).unwrap());
    }

    pub(super) fn note(&mut self, what: &str, value: &Value) {
        self.notes
            .push(json!({ "at": epoch_seconds(), "what": what, "value": value }));
    }
}
