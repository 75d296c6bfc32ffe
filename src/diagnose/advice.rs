//! What to check or do next, in the words of the drivers at hand.
//!
//! Options are named as the driver and version at hand spells them, and none is named that it does not have (`driver`
//! has the table and its sources): the connection string where it has the option there, the constructor or a call
//! otherwise. Commands are for mongosh, and for the hosts of client and server. MongoDB's log component ids are as
//! mongod 6.0 writes them.

mod application;
mod driver;
mod network;
mod server;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::words::listed;
use super::{Advice, Case, Cause, Incident, Logged, Place};
use crate::detect::{DestroyTrigger, SignalKind};
use crate::pools::Pools;
use application::of_the_application;
use driver::{Driver, Family, Feature};
use network::of_the_network;
use server::of_the_server;
use settings::Setting;

/// What lies around the beginning of an incident belongs to it: clocks differ, and logs come late.
const AROUND: Duration = Duration::from_mins(2);

/// What advice must know of an incident.
#[derive(Debug)]
struct Scene {
    /// Drivers at hand.
    drivers: BTreeSet<Driver>,
    /// How long connections had been idle when they were ended for it, at the least.
    idle_age: Option<IdleAge>,
    /// The server answered with errors.
    answers_with_errors: bool,
    /// `host:port` of the server.
    address: String,
    /// A little before it began and after, as `journalctl` takes it.
    since: String,
    until: String,
}

impl Scene {
    fn of(incident: &Incident, case: &Case, pools: &Pools) -> Self {
        let instances = case.instances().filter_map(|id| pools.instance(id));
        let address = pools.upstream(incident.upstream).map_or_else(
            || "SERVER:27017".to_owned(),
            |upstream| upstream.address.to_string(),
        );
        let moment = |at: crate::time::Timestamp| {
            let text = at.to_string();
            format!("{} UTC", text.get(..19).unwrap_or(&text).replace('T', " "))
        };
        Self {
            drivers: instances.map(Driver::of).collect(),
            idle_age: case
                .kinds()
                .filter_map(|kind| IdleAge::of(kind, incident.cause()))
                .min(),
            answers_with_errors: case
                .kinds()
                .any(|kind| matches!(kind, SignalKind::ErrorReplies { .. })),
            address,
            since: moment(incident.opened_at - AROUND),
            until: moment(incident.opened_at + AROUND),
        }
    }

    /// The server's host.
    fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map(|(host, _)| host);
        host.unwrap_or(&self.address).trim_matches(['[', ']'])
    }

    /// The server's port.
    fn port(&self) -> &str {
        self.address
            .rsplit_once(':')
            .map_or("27017", |(_, port)| port)
    }

    /// One of the drivers at hand is of this family.
    fn has(&self, family: Family) -> bool {
        self.drivers.iter().any(|driver| driver.family == family)
    }

    /// One piece for each different setting of the drivers at hand, with the drivers it is for where they differ.
    fn each<T: Into<Option<Setting>>>(
        &self,
        text: &str,
        setting: impl Fn(Driver) -> T,
    ) -> Vec<Advice> {
        let mut settings: BTreeMap<Setting, Vec<String>> = BTreeMap::new();
        for driver in &self.drivers {
            if let Some(setting) = setting(*driver).into() {
                settings.entry(setting).or_default().push(driver.name());
            }
        }
        let fits_all = settings
            .values()
            .all(|drivers| drivers.len() == self.drivers.len());
        let piece = |(setting, drivers): (Setting, Vec<String>)| {
            let beside = match setting.beside.as_str() {
                "" => String::new(),
                beside => format!(" ({beside})"),
            };
            let whose = if fits_all {
                String::new()
            } else {
                format!(" For {}.", listed(&drivers))
            };
            let text = format!("{text}{beside}.{whose}");
            say(&text, setting.place, setting.command)
        };
        settings.into_iter().map(piece).collect()
    }

    /// What the service manager and the kernel know of the end of a process.
    fn service_log(&self) -> String {
        let (since, until) = (&self.since, &self.until);
        format!(
            "journalctl -u mongod --since '{since}' --until '{until}'; journalctl -k --since '{since}' --until \
             '{until}' | grep -iE 'oom|killed process|segfault|I/O error'"
        )
    }
}

/// Lines of the server's own log that a restart has not swept away.
fn file_log(ids: &str) -> String {
    format!("grep -E '\"s\":\"F\"|\"id\":({ids}),' /var/log/mongodb/mongod.log | tail -50")
}

/// How long connections had been idle when they were ended for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct IdleAge {
    age: Duration,
    /// It showed when they were used again: they were cut at that age or before.
    is_pause: bool,
}

impl IdleAge {
    fn of(kind: &SignalKind, cause: Cause) -> Option<Self> {
        let (age, is_pause) = match (kind, cause) {
            (
                SignalKind::EqualIdleAge {
                    at_first_use: true,
                    pauses: Some((shortest, _)),
                    ..
                },
                Cause::IdleCutoff,
            ) => (*shortest, true),
            (
                SignalKind::EqualIdleAge {
                    at_first_use: false,
                    by_server: true,
                    age,
                    ..
                },
                Cause::IdleCutoff,
            )
            | (SignalKind::IdleRecycling { age, .. }, Cause::IdleRecycling) => (*age, false),
            _ => return None,
        };
        Some(Self { age, is_pause })
    }
}

fn say(text: &str, place: Place, command: impl Into<String>) -> Advice {
    Advice {
        text: text.to_owned(),
        place: Some(place),
        command: Some(command.into()),
    }
}

/// What Node's driver 3.x says of pools that are gone, and of what uses them: `lib/core/connection/pool.js`,
/// `lib/core/topologies/server.js` and, once its client is closed, `lib/db.js`.
const DESTROYED_IN_LOG: &str = "grep -niE 'Pool was force destroyed|pool destroyed|pool was destroyed|pool is destroyed|topology was destroyed' \
     application.log";

fn plain(text: &str) -> Advice {
    Advice {
        text: text.to_owned(),
        place: None,
        command: None,
    }
}

/// What to do, the most promising first.
pub(super) fn advice(incident: &Incident, case: &Case, pools: &Pools) -> Vec<Advice> {
    let scene = Scene::of(incident, case, pools);
    let mut all = for_cause(incident.cause(), &scene);
    if !incident.logged.is_empty() {
        all.push(say(
            where_to_look(&incident.logged),
            Place::Shell,
            DESTROYED_IN_LOG,
        ));
    }
    if is_about_pools(incident.cause()) {
        all.extend(in_place_of_legacy_pools(&scene));
    }
    all
}

/// Where the message stands in relation to the event on the wire: a forced close fails its queue in the same turn of the
/// event loop, and what is seen of it is when its connections end. Everything else takes the driver some time.
fn where_to_look(logged: &[Logged]) -> &'static str {
    let forced = DestroyTrigger::ForcedClose.label();
    let is_forced = |one: &Logged| one.trigger == forced;
    if logged.iter().all(is_forced) {
        "Match the application's log with the times below: a forced close fails what is queued at once, so that the \
         message stands within about a second of the event on the wire, before it or after."
    } else if logged.iter().any(is_forced) {
        "Match the application's log with the times below: a forced close is logged within about a second of the event \
         on the wire, before it or after, and anything else later than the event."
    } else {
        "Match the application's log with the times below: the message comes later than the event on the wire."
    }
}

/// What to use in place of the legacy pool, from versions on that have it.
fn in_place_of_legacy_pools(scene: &Scene) -> Option<Advice> {
    let mut legacy = scene
        .drivers
        .iter()
        .filter(|driver| driver.family == Family::NodeLegacy);
    let first = legacy.next()?;
    let text = "The legacy pool leaves written operations without any callback and gives up after `reconnectTries`: take";
    if !first.has(Feature::UnifiedTopology) {
        return Some(plain(&format!("{text} a driver from 4.0 on.")));
    }
    Some(say(
        &format!("{text} the unified topology, or a driver from 4.0 on."),
        Place::Code,
        "new MongoClient(uri, { useUnifiedTopology: true })",
    ))
}

const fn is_about_pools(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::ServerCrash
            | Cause::ServerFreeze
            | Cause::Failover
            | Cause::SocketTimeout
            | Cause::DriverPoolDestroyed
            | Cause::UnhandledAsyncCleanup
            | Cause::WedgedClient
    )
}

/// Connections by client address and application; the address has a port behind its last colon.
const BY_CLIENT: &str = "db.getSiblingDB('admin').aggregate([{$currentOp: {allUsers: true, idleConnections: true}}, \
                         {$match: {client: {$exists: true}}}, {$group: {_id: {app: '$appName', host: {$let: {vars: \
                         {is: {$regexFind: {input: '$client', regex: '(.*):'}}}, in: {$arrayElemAt: ['$$is.captures', \
                         0]}}}}, connections: {$sum: 1}}}, {$sort: {connections: -1}}])";
/// Where code makes clients, in the languages of the drivers.
const CLIENTS_MADE: &str = "grep -rnE 'MongoClient\\(|Client::with_|mongo\\.Connect\\(|MongoClients\\.create|\
                            mongoc_client_(pool_)?new|MongoDB.(Client|Driver.Manager)\\(|\
                            mongoose\\.(connect|createConnection)' src/";
/// The members of the server's set with what it hears of them; a mongos has none, and says which shards there are.
const BEHIND_IT: &str = "try { rs.status().members.map(m => [m.name, m.stateStr, m.lastHeartbeatMessage]) } catch (e) \
                         { db.adminCommand({getShardMap: 1}).map }";
/// Monitors wait for news of the server with a command that takes long on purpose; older ones know it as `isMaster`.
const SLOW: &str = "db.currentOp({active: true, secs_running: {$gt: 1}, 'command.hello': {$exists: false}, \
                    'command.isMaster': {$exists: false}, 'command.ismaster': {$exists: false}})";

fn for_cause(cause: Cause, scene: &Scene) -> Vec<Advice> {
    match cause {
        Cause::ServerCrash
        | Cause::ServerShutdown
        | Cause::Failover
        | Cause::ServerFreeze
        | Cause::ServerClosing
        | Cause::PoolCapacity
        | Cause::SlowOperations
        | Cause::AuthFailures => of_the_server(cause, scene),
        Cause::NetworkReset
        | Cause::NetworkBlackhole
        | Cause::NetworkLoss
        | Cause::NetworkLatency
        | Cause::IdleCutoff => of_the_network(cause, scene),
        Cause::Deploy
        | Cause::ScaleOut
        | Cause::SocketTimeout
        | Cause::IdleRecycling
        | Cause::DriverPoolDestroyed
        | Cause::UnhandledAsyncCleanup
        | Cause::AppCrash
        | Cause::ClientPerRequest
        | Cause::ReconnectStorm
        | Cause::HealthChecks
        | Cause::WedgedClient => of_the_application(cause, scene),
        Cause::Unknown => of_nobody(scene),
    }
}

fn of_nobody(scene: &Scene) -> Vec<Advice> {
    let mut all = vec![
        say(
            "Compare with what the server's host says of this time.",
            Place::Shell,
            scene.service_log(),
        ),
        say(
            "See whose connections the server has now; those through poolscope have its address.",
            Place::Mongosh,
            BY_CLIENT,
        ),
    ];
    if scene.answers_with_errors {
        let reaches = say(
            "Ask the server for its shards or members, and try to reach each of them from its host.",
            Place::Mongosh,
            BEHIND_IT,
        );
        all.insert(0, reaches);
    }
    all
}

#[cfg(test)]
mod tests;
