//! What to check or do where the application is the cause.

use std::time::Duration;

use super::super::{Advice, Cause, Place};
use super::driver::{Driver, Family};
use super::{BY_CLIENT, CLIENTS_MADE, SLOW, Scene, plain, say};

/// Where code closes clients.
const CLIENTS_CLOSED: &str =
    "grep -rniE '\\.close\\((true)?\\)|disconnect\\(|shutdown\\(|client_(pool_)?destroy\\(' src/";

/// How fast connections come, over five seconds.
const DIALS_A_SECOND: &str = "var before = db.serverStatus().connections.totalCreated; sleep(5000); ({dialsPerSecond: \
                              (db.serverStatus().connections.totalCreated - before) / 5, now: \
                              db.serverStatus().connections})";

/// A replacement every ten minutes is nobody's trouble.
const SELDOM: Duration = Duration::from_mins(10);

/// Longer than what is replaced too often, in whole minutes.
fn longer(age: Duration) -> Duration {
    let minutes = (age * 4).as_secs().div_ceil(60);
    Duration::from_mins(minutes).max(SELDOM)
}

/// A client dials without pause.
fn of_reconnect_storm(scene: &Scene) -> Vec<Advice> {
    let mut all = vec![
        say(
            "Find the loop or the check that makes a client or connects again and again: one client for the life of \
             the process is enough.",
            Place::Shell,
            CLIENTS_MADE,
        ),
        say(
            "See on the server how many connections come in a second, and how many it has left.",
            Place::Mongosh,
            DIALS_A_SECOND,
        ),
        say(
            "See whose they are; those through poolscope have its address, and `poolscope clients` has theirs.",
            Place::Mongosh,
            BY_CLIENT,
        ),
    ];
    let wait = "Where it has to be a loop, let it wait longer after each failure, and not as long as its neighbours";
    let loops = scene.each(wait, Driver::backoff);
    if loops.is_empty() {
        all.push(plain(&format!("{wait}.")));
    }
    all.extend(loops);
    all.extend(scene.each(
        "Keep the sockets few that a pool dials at once",
        Driver::dialling,
    ));
    all
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller deals the causes out"
)]
#[expect(clippy::too_many_lines, reason = "one entry for each cause")]
pub(super) fn of_the_application(cause: Cause, scene: &Scene) -> Vec<Advice> {
    match cause {
        Cause::SocketTimeout => {
            let mut all = scene.each(
                "Limit operations rather than sockets: a socket that times out takes its connection with it, and the \
                 server works on for nobody",
                Driver::operation_limit,
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
            let limit = scene.idle_age.map_or(SELDOM, |idle| longer(idle.age));
            all.extend(scene.each(
                "A longer time, or a pool that keeps some connections, saves most of them",
                |driver| driver.idle_saving(limit),
            ));
            all
        }
        Cause::DriverPoolDestroyed => {
            let mut all = vec![say(
                "Look for code that closes the client while requests are served: error handlers, health checks, hot \
                 reload, `close(true)`.",
                Place::Shell,
                CLIENTS_CLOSED,
            )];
            all.extend(scene.each(
                "Close a client only when nothing of it is under way",
                Driver::orderly_close,
            ));
            all
        }
        Cause::UnhandledAsyncCleanup => {
            let mut all = scene.each(
                "Wait for every operation before closing the client that carries it",
                Driver::orderly_close,
            );
            all.push(say(
                "Look for operations that nobody waits for before these.",
                Place::Shell,
                CLIENTS_CLOSED,
            ));
            all.extend(scene.each(
                "Make operations that nobody waits for fail loudly in tests",
                Driver::strict_run,
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
            if scene.has(Family::NodeLegacy) {
                all.push(say(
                    "Look for an uncaught error of a `Connection`: the legacy pool has no listener for a socket that \
                     breaks while it authenticates, and Node ends the process for that.",
                    Place::Code,
                    "process.on('uncaughtExceptionMonitor', report)",
                ));
            }
            all
        }
        Cause::ClientPerRequest => vec![
            say(
                "Make one client when the process starts and use it for every request: it is a pool, and safe to share.",
                Place::Shell,
                CLIENTS_MADE,
            ),
            say(
                "See how many connections each host and application holds; those through poolscope have its address, and \
                 `poolscope clients` has theirs.",
                Place::Mongosh,
                BY_CLIENT,
            ),
        ],
        Cause::ReconnectStorm => of_reconnect_storm(scene),
        Cause::HealthChecks => vec![plain(
            "Nothing to do. A check that says `hello` tells more than one that only connects.",
        )],
        Cause::WedgedClient => {
            let mut all = vec![plain(
                "Restart the process: this client will not connect again.",
            )];
            if scene.has(Family::NodeLegacy) {
                all.push(say(
                    "Until the driver is replaced, let it try for longer.",
                    Place::Code,
                    "new MongoClient(uri, { reconnectTries: Number.MAX_VALUE, reconnectInterval: 1000 })",
                ));
            }
            all
        }
        _ => vec![say(
            "Nothing to do. The connections of new instances come on top until the old ones are gone: see that the \
             server accepts so many.",
            Place::Mongosh,
            "db.serverStatus().connections",
        )],
    }
}
