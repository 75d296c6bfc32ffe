//! What to check or do next, in the words of the drivers at hand.
//!
//! Options are named as the drivers spell them: connection string options where they exist, constructor options of
//! Node 3.x otherwise. Commands are for mongosh and for the hosts of client and server.

use std::collections::BTreeSet;

use super::{Advice, Case, Cause, Incident};
use crate::pools::{Instance, Pools};

/// A family of drivers with common options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    NodeLegacy,
    NodeUnified3,
    Node,
    PyMongo,
    Rust,
    Go,
    Java,
    Other,
}

impl Family {
    fn of(instance: &Instance) -> Self {
        let client = &instance.client;
        let is = |name: &str| client.driver_name.starts_with(name);
        if instance.has_legacy_pool() {
            Self::NodeLegacy
        } else if is("nodejs") && client.driver_version.starts_with("3.") {
            Self::NodeUnified3
        } else if is("nodejs") {
            Self::Node
        } else if is("PyMongo") {
            Self::PyMongo
        } else if is("mongo-rust") {
            Self::Rust
        } else if is("mongo-go") {
            Self::Go
        } else if is("mongo-java") {
            Self::Java
        } else {
            Self::Other
        }
    }

    /// How the largest size of a pool is set.
    const fn pool_size(self) -> &'static str {
        match self {
            Self::NodeLegacy => "poolSize=5 (the default of the legacy pool)",
            Self::NodeUnified3 => "poolSize=10 (its default) with useUnifiedTopology",
            Self::Rust => "maxPoolSize=10 (its default)",
            Self::Node | Self::PyMongo | Self::Go | Self::Java | Self::Other => {
                "maxPoolSize=100 (its default)"
            }
        }
    }

    /// How an operation's time is limited.
    const fn operation_limit(self) -> &'static str {
        match self {
            Self::NodeLegacy | Self::NodeUnified3 => {
                "socketTimeoutMS=0, and maxTimeMS for each operation"
            }
            Self::Node => "socketTimeoutMS=0, and timeoutMS or maxTimeMS for each operation",
            Self::PyMongo => "timeoutMS (pymongo.timeout) instead of socketTimeoutMS",
            Self::Go => "a context with a deadline for each operation instead of SetSocketTimeout",
            Self::Rust => "max_time for each operation",
            Self::Java => "timeoutMS, or maxTime for each operation, instead of socketTimeoutMS",
            Self::Other => "maxTimeMS for each operation instead of socketTimeoutMS",
        }
    }

    /// How a client is closed without cutting what is under way.
    const fn orderly_close(self) -> &'static str {
        match self {
            Self::NodeLegacy | Self::NodeUnified3 | Self::Node => {
                "Promise.allSettled(pending).then(() => client.close())"
            }
            Self::PyMongo => "executor.shutdown(wait=True); client.close()",
            Self::Rust => "futures::future::join_all(tasks), then Client::shutdown",
            Self::Go => "wg.Wait(); client.Disconnect(ctx)",
            Self::Java => "executor.awaitTermination(…); client.close()",
            Self::Other => "wait for pending operations, then close the client",
        }
    }
}

/// What to do, the most promising first.
pub(super) fn advice(incident: &Incident, case: &Case, pools: &Pools) -> Vec<Advice> {
    let families: BTreeSet<Family> = case
        .instances()
        .filter_map(|id| pools.instance(id))
        .map(Family::of)
        .collect();
    let mut all = for_cause(incident.cause(), &families);
    if !incident.logged.is_empty() {
        all.push(say(
            "Match the log of the application in the window that is told with each message: the message comes later than the event on the wire.",
            Some("grep -n 'Pool was force destroyed\\|pool destroyed' application.log"),
        ));
    }
    if families.contains(&Family::NodeLegacy) && is_about_pools(incident.cause()) {
        all.push(say(
            "The legacy pool leaves written operations without any callback and gives up after `reconnectTries`: take the unified topology, or a driver from 4.0 on.",
            Some("new MongoClient(uri, { useUnifiedTopology: true })"),
        ));
    }
    all
}

fn say(text: &str, command: Option<&str>) -> Advice {
    Advice {
        text: text.to_owned(),
        command: command.map(str::to_owned),
    }
}

/// One piece for each family at hand.
fn each(
    families: &BTreeSet<Family>,
    text: &str,
    setting: impl Fn(Family) -> &'static str,
) -> Vec<Advice> {
    families
        .iter()
        .map(|family| setting(*family))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|setting| say(text, Some(setting)))
        .collect()
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

const CONNECTIONS: &str = "db.serverStatus().connections";
const BY_CLIENT: &str = "db.getSiblingDB('admin').aggregate([{$currentOp:{allUsers:true,idleConnections:true}},{$group:{_id:{client:'$client',app:'$appName'},n:{$sum:1}}}])";
const SLOW: &str =
    "db.currentOp({active:true,secs_running:{$gt:1},'command.hello':{$exists:false}})";
const SERVER_LOG: &str =
    "journalctl -u mongod --since '10 min ago' | grep -E 'Fatal|signal|Shutdown|\"s\":\"F\"'";

#[expect(clippy::too_many_lines, reason = "one entry for each cause")]
fn for_cause(cause: Cause, families: &BTreeSet<Family>) -> Vec<Advice> {
    match cause {
        Cause::Deploy | Cause::ScaleOut => vec![say(
            "Nothing to do. The connections of the new instances come on top until the old ones are gone: see that the server accepts so many.",
            Some(CONNECTIONS),
        )],
        Cause::ServerCrash => vec![
            say(
                "Find out why the process ended: its log, the kernel's killer of processes without memory, a core file.",
                Some(SERVER_LOG),
            ),
            say(
                "A process killed for want of memory is named by the kernel.",
                Some("dmesg -T | grep -iE 'oom|killed process'"),
            ),
            say(
                "See when the server that answers now was started.",
                Some("db.serverStatus().uptime"),
            ),
        ],
        Cause::ServerShutdown => vec![
            say(
                "Find out who stopped the server, and whether its clients were to be moved first.",
                Some(SERVER_LOG),
            ),
            say(
                "In a replica set, step down before stopping: clients move without errors.",
                Some("rs.stepDown(60, 30)"),
            ),
        ],
        Cause::Failover => vec![
            say(
                "See which member is primary, and why the election was held.",
                Some("rs.status().members.map(m => [m.name, m.stateStr, m.electionDate])"),
            ),
            say(
                "Operations survive an election when they are retried.",
                Some("retryWrites=true&retryReads=true"),
            ),
        ],
        Cause::ServerFreeze => vec![
            say(
                "The host answers and the process does not: see whether it is stopped, swaps, or waits for its disk.",
                Some("ps -o stat,wchan:32,cmd -C mongod; vmstat 1 5; iostat -x 1 5"),
            ),
            say(
                "A stall of the storage engine shows in its tickets and cache.",
                Some(
                    "db.serverStatus().wiredTiger.concurrentTransactions; db.serverStatus().wiredTiger.cache['tracked dirty bytes in the cache']",
                ),
            ),
        ],
        Cause::ServerClosing => vec![
            say(
                "The server stays up and ends connections: its log has the reason by connection number.",
                Some("grep -E '\"id\":(22988|22989|20883|4879802)' mongod.log"),
            ),
            say(
                "See that no fail point is set, and that no job ends operations.",
                Some("db.adminCommand({getParameter:1,'failpoint.failCommand':1})"),
            ),
        ],
        Cause::NetworkReset => vec![
            say(
                "Something between client and server resets: firewall or load balancer rules, conntrack tables that are full.",
                Some("conntrack -S; dmesg -T | grep conntrack; nft list ruleset"),
            ),
            say(
                "See which side sends the reset.",
                Some("tcpdump -ni any 'tcp port 27017 and tcp[tcpflags] & tcp-rst != 0'"),
            ),
        ],
        Cause::NetworkBlackhole => vec![
            say(
                "Nothing arrives and nobody says so: look for the hop where packets end.",
                Some("mtr -rwbzT -P 27017 <server>"),
            ),
            say(
                "Without a limit a lost packet is waited for for a quarter of an hour; the kernel gives up earlier when told to.",
                Some("sysctl -w net.ipv4.tcp_retries2=8"),
            ),
        ],
        Cause::NetworkLoss | Cause::NetworkLatency => vec![say(
            "Measure loss and round-trip time on the path.",
            Some("ss -tin dst <server>; mtr -rwbzT -P 27017 <server>"),
        )],
        Cause::IdleCutoff => {
            let mut all = vec![say(
                "Something between ends connections that are idle: let keepalive speak before it does.",
                Some("sysctl -w net.ipv4.tcp_keepalive_time=120 net.ipv4.tcp_keepalive_intvl=10"),
            )];
            all.push(if families.contains(&Family::NodeLegacy) {
                say("Or let the sockets speak up earlier than that.", Some("{ keepAlive: true, keepAliveInitialDelay: 60000 }"))
            } else {
                say("Or let pools replace connections before that: set it below the age at which they are cut.", Some("maxIdleTimeMS=60000"))
            });
            all
        }
        Cause::SocketTimeout => {
            let mut all = each(
                families,
                "Operations need longer than their sockets wait: limit operations rather than sockets.",
                Family::operation_limit,
            );
            all.push(say("See which operations take so long.", Some(SLOW)));
            all
        }
        Cause::IdleRecycling => vec![say(
            "Nothing to do. Each replaced connection costs a handshake; a longer time, or a smallest size of the pool, saves these.",
            Some("maxIdleTimeMS=600000&minPoolSize=2"),
        )],
        Cause::DriverPoolDestroyed => {
            let mut all = vec![say(
                "Look for code that closes the client while requests are served: error handlers, health checks, hot reload, `close(true)`.",
                Some("grep -rnE '\\.close\\((true)?\\)|disconnect\\(' src/"),
            )];
            all.extend(each(
                families,
                "Close a client only when nothing of it is under way.",
                Family::orderly_close,
            ));
            all
        }
        Cause::UnhandledAsyncCleanup => {
            let mut all = each(
                families,
                "Wait for every operation before closing the client that carries it.",
                Family::orderly_close,
            );
            all.push(say("Operations that nobody waits for fail as unhandled rejections: let these stop the process in tests.", Some("node --unhandled-rejections=strict --trace-warnings app.js")));
            all
        }
        Cause::AppCrash => vec![
            say(
                "Find out why the process ended: exit code, orchestrator, the kernel's killer of processes without memory.",
                Some(
                    "kubectl get pod -o jsonpath='{.items[*].status.containerStatuses[*].lastState}'; dmesg -T | grep -i 'killed process'",
                ),
            ),
            say(
                "Close the client when the process is told to stop: SIGTERM comes before SIGKILL.",
                None,
            ),
            say(
                "Cursors live on for ten minutes and transactions for one after their client is gone.",
                Some(
                    "db.getSiblingDB('admin').aggregate([{$currentOp:{allUsers:true,idleCursors:true,idleSessions:true}}])",
                ),
            ),
        ],
        Cause::ClientPerRequest => vec![
            say(
                "Make one client when the process starts and use it for every request: it is a pool, and safe to share.",
                Some(
                    "grep -rnE 'new MongoClient|MongoClient\\(|mongoose\\.(connect|createConnection)|with_uri_str' src/",
                ),
            ),
            say(
                "See how many connections each client address holds.",
                Some(BY_CLIENT),
            ),
        ],
        Cause::ReconnectStorm => vec![
            say(
                "Find the loop that connects, and let it wait longer after each failure.",
                Some(BY_CLIENT),
            ),
            say(
                "Drivers before Node 4.7, PyMongo 4 and Java 4.3 dial without limit; newer ones two at a time.",
                Some("maxConnecting=2"),
            ),
        ],
        Cause::PoolCapacity => {
            let mut all = vec![say(
                "Compare pools × clients × instances with what the server accepts: connections, its own limit, and open files.",
                Some(
                    "db.serverStatus().connections; db.serverCmdLineOpts().parsed.net; cat /proc/$(pidof mongod)/limits | grep 'open files'",
                ),
            )];
            all.extend(each(
                families,
                "Make pools smaller: few need more connections than the server has cores.",
                Family::pool_size,
            ));
            all.push(say("See who holds them.", Some(BY_CLIENT)));
            all
        }
        Cause::SlowOperations => vec![
            say("See what runs for longer than a second.", Some(SLOW)),
            say(
                "Look for missing indexes in what the profiler keeps.",
                Some(
                    "db.setProfilingLevel(1, {slowms: 100}); db.system.profile.find({planSummary: /COLLSCAN/}).sort({ts: -1}).limit(5)",
                ),
            ),
        ],
        Cause::AuthFailures => vec![
            say(
                "See which user from where is refused, and why.",
                Some("grep '\"id\":20249' mongod.log | tail"),
            ),
            say(
                "Check the user and where it is defined.",
                Some(
                    "db.getSiblingDB('admin').system.users.find({}, {user: 1, db: 1, mechanisms: 1})",
                ),
            ),
        ],
        Cause::HealthChecks => vec![say(
            "Nothing to do. A check that says `hello` tells more than one that only connects.",
            None,
        )],
        Cause::WedgedClient => vec![
            say(
                "Restart the process: this client will not connect again.",
                None,
            ),
            say(
                "Until the driver is replaced, let it try for longer.",
                Some("{ reconnectTries: Number.MAX_VALUE, reconnectInterval: 1000 }"),
            ),
        ],
        Cause::Unknown => vec![
            say("Compare the server's log in this time.", Some(SERVER_LOG)),
            say("See what its connections are.", Some(CONNECTIONS)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_advice_for_every_family() {
        let families = BTreeSet::from([
            Family::NodeLegacy,
            Family::NodeUnified3,
            Family::Node,
            Family::PyMongo,
            Family::Rust,
            Family::Go,
            Family::Java,
            Family::Other,
        ]);
        for cause in Cause::ALL {
            let advice = for_cause(*cause, &families);
            assert!(!advice.is_empty(), "{cause:?}");
            assert!(
                advice
                    .iter()
                    .all(|one| one.text.ends_with('.') || one.text.ends_with("MS")),
                "{advice:?}"
            );
        }
    }

    #[test]
    fn options_are_those_of_the_driver() {
        let told = |family| {
            let advice = for_cause(Cause::SocketTimeout, &BTreeSet::from([family]));
            advice[0].command.clone().unwrap()
        };
        assert!(told(Family::PyMongo).contains("timeoutMS"));
        assert!(told(Family::NodeLegacy).contains("socketTimeoutMS=0"));
        assert!(told(Family::Go).contains("context"));
    }
}
