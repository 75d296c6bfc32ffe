//! What to check or do where the server is the cause.

use super::super::{Advice, Cause, Place};
use super::driver::{Driver, Family};
use super::{BY_CLIENT, SLOW, Scene, file_log, say};

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller deals the causes out"
)]
#[expect(clippy::too_many_lines, reason = "one entry for each cause")]
pub(super) fn of_the_server(cause: Cause, scene: &Scene) -> Vec<Advice> {
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
                "({members: rs.status().members.map(m => [m.name, m.stateStr, m.electionDate]), election: \
                 rs.status().electionCandidateMetrics})",
            )];
            all.extend(scene.each(
                "Operations survive an election when they are retried",
                Driver::retries,
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
                "({tickets: db.serverStatus().queues?.execution ?? db.serverStatus().wiredTiger.concurrentTransactions, \
                 dirty: db.serverStatus().wiredTiger.cache['tracked dirty bytes in the cache']})",
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
                    "({now: db.serverStatus().connections, options: db.serverCmdLineOpts().parsed.net})",
                ),
                say(
                    "It accepts no more than four fifths of the files it may open, whatever its settings say.",
                    Place::Shell,
                    "for id in $(pidof mongod mongos); do grep 'open files' /proc/$id/limits; done",
                ),
            ];
            all.extend(scene.each(
                "Make pools smaller: few need more connections than the server has cores",
                Driver::pool_size,
            ));
            if scene.has(Family::Php) {
                all.push(say(
                    "Each process of PHP has a connection of its own to each server: allow fewer processes.",
                    Place::Shell,
                    "grep -rsnE '^pm.max_(children|spare_servers)' /etc/php*",
                ));
            }
            all.push(say(
                "See who holds connections; those through poolscope have its address, and `poolscope clients` has \
                 theirs.",
                Place::Mongosh,
                BY_CLIENT,
            ));
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
                    "In the database concerned, let the profiler write down what is slow (level 0 ends it).",
                    Place::Mongosh,
                    "db.setProfilingLevel(1, {slowms: 100})",
                ),
                say(
                    "A while later, see there what lacks an index.",
                    Place::Mongosh,
                    "db.system.profile.find({planSummary: /COLLSCAN/}).sort({ts: -1}).limit(5)",
                ),
            ];
            all.extend(scene.each(
                "Limit each operation, so that a slow one does not hold its connection for ever",
                Driver::operation_limit,
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
