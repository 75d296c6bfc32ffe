//! What to check or do next, in the words of the drivers at hand.
//!
//! Options are named as the driver and version at hand spells them, and none is named that it does not have: the
//! connection string where it has the option there, the constructor or a call otherwise. Commands are for mongosh, and
//! for the hosts of client and server. Sources: `lib/connection_string.js` of Node's driver 4, 6 and 7 (`timeoutMS` is
//! ignored by 6 and 7 and refused by 4), `lib/operations/connect.js` and `lib/topologies/` of 3.6, `pymongo/common.py`
//! of PyMongo 3.13 and 4, `client/options.rs` of the Rust driver 3, MongoDB's log component ids as mongod 6.0 writes them.

mod family;

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Advice, Case, Cause, Incident, Place};
use crate::detect::SignalKind;
use crate::pools::Pools;
use family::Family;

/// What lies around the beginning of an incident belongs to it: clocks differ, and logs come late.
const AROUND: Duration = Duration::from_mins(2);

/// What advice must know of an incident.
#[derive(Debug)]
struct Scene {
    /// Drivers at hand.
    families: BTreeSet<Family>,
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
        let families = case.instances().filter_map(|id| pools.instance(id));
        let address = pools.upstream(incident.upstream).map_or_else(
            || "<server>".to_owned(),
            |upstream| upstream.address.to_string(),
        );
        let moment = |at: crate::time::Timestamp| {
            let text = at.to_string();
            format!("{} UTC", text.get(..19).unwrap_or(&text).replace('T', " "))
        };
        Self {
            families: families.map(Family::of).collect(),
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

    /// One piece for each different setting of the drivers at hand.
    fn each<T: Into<Option<Setting>>>(
        &self,
        text: &str,
        setting: impl Fn(Family) -> T,
    ) -> Vec<Advice> {
        let settings: BTreeSet<Setting> = self
            .families
            .iter()
            .filter_map(|family| setting(*family).into())
            .collect();
        settings
            .into_iter()
            .map(|(place, command, beside)| {
                let text = match beside {
                    "" => format!("{text}."),
                    _ => format!("{text} ({beside})."),
                };
                say(&text, place, command)
            })
            .collect()
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

/// A place, what belongs there, and what to know beside it.
type Setting = (Place, &'static str, &'static str);

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
            "Match the application's log with the times below: the message comes later than the event on the wire.",
            Place::Shell,
            DESTROYED_IN_LOG,
        ));
    }
    if scene.families.contains(&Family::NodeLegacy) && is_about_pools(incident.cause()) {
        all.push(say(
            "The legacy pool leaves written operations without any callback and gives up after `reconnectTries`: take \
             the unified topology, or a driver from 4.0 on.",
            Place::Code,
            "new MongoClient(uri, { useUnifiedTopology: true })",
        ));
    }
    all
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
                         {$match: {client: {$exists: true}}}, {$group: {_id: {app: '$appName', host: {$arrayElemAt: \
                         [{$split: ['$client', ':']}, 0]}}, connections: {$sum: 1}}}, {$sort: {connections: -1}}])";
/// The members of the server's set with what it hears of them; a mongos has none, and says which shards there are.
const BEHIND_IT: &str = "try { rs.status().members.map(m => [m.name, m.stateStr, m.lastHeartbeatMessage]) } catch (e) \
                         { db.adminCommand({getShardMap: 1}).map }";
const SLOW: &str =
    "db.currentOp({active: true, secs_running: {$gt: 1}, 'command.hello': {$exists: false}})";

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
            "See whose connections the server has now.",
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

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller deals the causes out"
)]
#[expect(clippy::too_many_lines, reason = "one entry for each cause")]
fn of_the_server(cause: Cause, scene: &Scene) -> Vec<Advice> {
    match cause {
        Cause::ServerCrash => vec![
            say(
                "On the server's host, find out why the process ended: killed by the kernel for want of memory, by a \
                 signal, or by itself.",
                Place::Shell,
                scene.service_log(),
            ),
            // 23377, 23378: the signal it got, and from whom; what is fatal has a severity of its own.
            say(
                "A process that ended itself has written why.",
                Place::Shell,
                file_log("23377|23378"),
            ),
            say(
                "See since when the server that answers now has been running.",
                Place::Mongosh,
                "db.serverStatus().uptime",
            ),
        ],
        Cause::ServerShutdown => vec![
            // 4695400: by a command; 4784900: how long it waits for its clients to move.
            say(
                "Find out who stopped the server: the signal and its sender, or the command, stand in its log.",
                Place::Shell,
                file_log("23377|23378|23381|4695400|4784900"),
            ),
            say(
                "In a replica set, step down before stopping: clients move without losing connections.",
                Place::Mongosh,
                "rs.stepDown(60, 30)",
            ),
        ],
        Cause::Failover => {
            let mut all = vec![say(
                "See which member is primary now; there, why the election was held.",
                Place::Mongosh,
                "rs.status().members.map(m => [m.name, m.stateStr, m.electionDate]); \
                 rs.status().electionCandidateMetrics",
            )];
            all.extend(scene.each(
                "Operations survive an election when they are retried",
                Family::retries,
            ));
            all
        }
        Cause::ServerFreeze => vec![
            say(
                "On the server's host, see whether the process is stopped (T), waits for its disk (D), or swaps.",
                Place::Shell,
                "ps -o pid,stat,wchan:32,cmd -C mongod; vmstat 1 5; iostat -x 1 5",
            ),
            say(
                "A stall of the storage engine shows in its tickets and its cache.",
                Place::Mongosh,
                "db.serverStatus().queues?.execution ?? db.serverStatus().wiredTiger.concurrentTransactions; \
                 db.serverStatus().wiredTiger.cache['tracked dirty bytes in the cache']",
            ),
        ],
        Cause::ServerClosing => vec![
            // 22988, 22989: an error on receiving and on sending; 22944: the connection's end.
            say(
                "The server stays up and ends connections: its log has the reason beside the connection's number.",
                Place::Mongosh,
                "db.adminCommand({getLog: 'global'}).log.filter(l => /\"id\":(22988|22989|22944),/.test(l)).slice(-20)",
            ),
            say(
                "See that no job kills operations or sessions, and that no fail point is set (test servers only).",
                Place::Mongosh,
                "db.adminCommand({getParameter: 1, 'failpoint.failCommand': 1})",
            ),
        ],
        Cause::PoolCapacity => {
            let mut all = vec![
                say(
                    "Compare pools × mongo clients × instances with what the server accepts.",
                    Place::Mongosh,
                    "db.serverStatus().connections; db.serverCmdLineOpts().parsed.net",
                ),
                say(
                    "It accepts no more than four fifths of the files it may open, whatever its settings say.",
                    Place::Shell,
                    "grep 'open files' /proc/$(pidof mongod)/limits",
                ),
            ];
            all.extend(scene.each(
                "Make pools smaller: few need more connections than the server has cores",
                Family::pool_size,
            ));
            all.push(say("See who holds connections.", Place::Mongosh, BY_CLIENT));
            all
        }
        Cause::SlowOperations => {
            let mut all = vec![
                say(
                    "See what runs for longer than a second.",
                    Place::Mongosh,
                    SLOW,
                ),
                say(
                    "In the database concerned, let the profiler show what lacks an index (level 0 ends it).",
                    Place::Mongosh,
                    "db.setProfilingLevel(1, {slowms: 100}); \
                     db.system.profile.find({planSummary: /COLLSCAN/}).sort({ts: -1}).limit(5)",
                ),
            ];
            all.extend(scene.each(
                "Limit each operation, so that a slow one does not hold its connection for ever",
                Family::operation_limit,
            ));
            all
        }
        _ => vec![
            // 20249 up to 6.0, 5286307 from 6.1 on.
            say(
                "See which user from where is refused, and why.",
                Place::Mongosh,
                "db.adminCommand({getLog: 'global'}).log.filter(l => /\"id\":(20249|5286307),/.test(l)).slice(-10)",
            ),
            say(
                "Check the user, the database it is defined in (authSource) and its mechanisms.",
                Place::Mongosh,
                "db.getSiblingDB('admin').runCommand({usersInfo: {forAllDBs: true}}).users.map(u => [u._id, u.mechanisms])",
            ),
        ],
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller deals the causes out"
)]
fn of_the_network(cause: Cause, scene: &Scene) -> Vec<Advice> {
    let (host, port, address) = (scene.host(), scene.port(), &scene.address);
    match cause {
        Cause::NetworkReset => vec![
            say(
                "Look for who resets: rules of firewalls and load balancers, tables of connections that are full.",
                Place::Shell,
                "nft list ruleset | grep -i reset; conntrack -S; dmesg -T | grep -i conntrack",
            ),
            say(
                "See from which side and hop the next reset comes: its TTL differs from that of the server's packets.",
                Place::Shell,
                format!("tcpdump -nvi any 'tcp port {port} and tcp[tcpflags] & tcp-rst != 0'"),
            ),
        ],
        Cause::NetworkBlackhole => vec![
            say(
                "Look for the hop at which packets end.",
                Place::Shell,
                format!("mtr -rwbzT -P {port} {host}"),
            ),
            say(
                "Without a limit the kernel sends a lost packet again for a quarter of an hour; on the clients' hosts \
                 it can be told to give up after some 50 s.",
                Place::Shell,
                "sysctl -w net.ipv4.tcp_retries2=8",
            ),
        ],
        Cause::IdleCutoff => {
            let mut all = vec![say(
                "Look for idle time-outs of load balancers, NAT and firewalls on the way; on the hosts of clients and \
                 proxy let keepalive speak before they do.",
                Place::Shell,
                "sysctl -w net.ipv4.tcp_keepalive_time=120 net.ipv4.tcp_keepalive_intvl=10",
            )];
            all.extend(scene.each(
                "Or let the pool give connections up before they are cut: set it below the age above",
                Family::idle_limit,
            ));
            all
        }
        _ => vec![say(
            "Measure loss and round-trip times on the way, hop by hop and socket by socket.",
            Place::Shell,
            format!("mtr -rwbzT -P {port} {host}; ss -tin dst {address}"),
        )],
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller deals the causes out"
)]
#[expect(clippy::too_many_lines, reason = "one entry for each cause")]
fn of_the_application(cause: Cause, scene: &Scene) -> Vec<Advice> {
    match cause {
        Cause::SocketTimeout => {
            let mut all = scene.each(
                "Limit operations rather than sockets: a socket that times out takes its connection with it, and the \
                 server works on for nobody",
                Family::operation_limit,
            );
            all.push(say(
                "See which operations take so long.",
                Place::Mongosh,
                SLOW,
            ));
            all
        }
        Cause::IdleRecycling => {
            let mut all = vec![plain(
                "Nothing to do: the pool is told to replace idle connections. Each replacement costs a handshake.",
            )];
            all.extend(scene.each(
                "A longer time, or a pool that keeps some connections, saves most of them",
                Family::idle_saving,
            ));
            all
        }
        Cause::DriverPoolDestroyed => {
            let mut all = vec![say(
                "Look for code that closes the client while requests are served: error handlers, health checks, hot \
                 reload, `close(true)`.",
                Place::Shell,
                "grep -rnE '\\.close\\((true)?\\)|disconnect\\(|shutdown\\(' src/",
            )];
            all.extend(scene.each(
                "Close a client only when nothing of it is under way",
                Family::orderly_close,
            ));
            all
        }
        Cause::UnhandledAsyncCleanup => {
            let mut all = scene.each(
                "Wait for every operation before closing the client that carries it",
                Family::orderly_close,
            );
            all.extend(scene.each(
                "Make operations that nobody waits for fail loudly in tests",
                Family::strict_run,
            ));
            all
        }
        Cause::AppCrash => {
            let mut all = vec![
                say(
                    "Find out why the process ended: its exit code, the orchestrator, the kernel's killer of processes.",
                    Place::Shell,
                    "kubectl get pod -o jsonpath='{.items[*].status.containerStatuses[*].lastState}'; \
                     dmesg -T | grep -i 'killed process'",
                ),
                plain(
                    "Close the client when the process is told to stop: SIGTERM comes before SIGKILL.",
                ),
                say(
                    "What it left behind lives on: cursors for ten minutes, transactions for one.",
                    Place::Mongosh,
                    "db.getSiblingDB('admin').aggregate([{$currentOp: {allUsers: true, idleCursors: true, \
                     idleSessions: true}}])",
                ),
            ];
            if scene.families.contains(&Family::NodeLegacy) {
                all.push(say(
                    "Look for an uncaught error of a `Connection`: the legacy pool has no listener for a socket that \
                     breaks while it authenticates, and Node ends the process for that.",
                    Place::Code,
                    "process.on('uncaughtException', report)",
                ));
            }
            all
        }
        Cause::ClientPerRequest => vec![
            say(
                "Make one client when the process starts and use it for every request: it is a pool, and safe to share.",
                Place::Shell,
                "grep -rnE 'new MongoClient|MongoClient\\(|Client::with_|mongoose\\.(connect|createConnection)' src/",
            ),
            say(
                "See how many connections each host and application holds.",
                Place::Mongosh,
                BY_CLIENT,
            ),
        ],
        Cause::ReconnectStorm => {
            let mut all = vec![say(
                "Find the loop that connects, and let it wait longer after each failure.",
                Place::Shell,
                "grep -rnE 'new MongoClient|MongoClient\\(|Client::with_|\\.connect\\(' src/",
            )];
            all.extend(scene.each(
                "This driver dials no more than so many sockets at once for a pool",
                Family::dial_limit,
            ));
            all
        }
        Cause::HealthChecks => vec![plain(
            "Nothing to do. A check that says `hello` tells more than one that only connects.",
        )],
        Cause::WedgedClient => vec![
            plain("Restart the process: this client will not connect again."),
            say(
                "Until the driver is replaced, let it try for longer.",
                Place::Code,
                "new MongoClient(uri, { reconnectTries: Number.MAX_VALUE, reconnectInterval: 1000 })",
            ),
        ],
        _ => vec![say(
            "Nothing to do. The connections of new instances come on top until the old ones are gone: see that the \
             server accepts so many.",
            Place::Mongosh,
            "db.serverStatus().connections",
        )],
    }
}

#[cfg(test)]
mod tests;
