//! The legacy pool of Node's driver 3.x: when it destroys itself, and when it will never connect again.
//!
//! ```text
//! connections lost ─┬─ another member of the set is dialled ──▶ destroyed by force: crash or freeze of the primary
//!                   ├─ no dial for long, the server answers ──▶ wedged; after time-outs: destroyed by force
//!                   └─ closed by the client without a cause ──▶ destroyed by force: `close(true)`
//! ```
//!
//! Source: `lib/core/connection/pool.js` and `lib/core/topologies/replset.js` of the driver 3.6. A replica set
//! destroys the old server when it finds its successor; a single server gives up after `reconnectTries`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{DestroyTrigger, PoolDestroyed};
use super::{Detector, Signal, SignalKind, Taken, about, make_room};
use crate::connection::Initiator;
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{Commands, Fact, UpstreamId};

/// Losses further apart are different events. A socket time-out ends sockets one by one.
const TOGETHER: Duration = Duration::from_secs(4);

/// The driver looks for a successor every half second without a primary, and every ten seconds otherwise.
const SUCCESSION: Duration = Duration::from_secs(30);

/// The log and the dial that follows it are this close.
const BEFORE_DIAL: Duration = Duration::from_millis(1500);
const AFTER_DIAL: Duration = Duration::from_millis(500);

/// A request without a reply for so long when its connection is closed by the client: a socket time-out.
const TIMED_OUT: Duration = Duration::from_millis(500);

/// Time-outs are set in steps of this.
const SETTING_STEP_MS: u128 = 100;

/// Moments of a relayed connection may be off by so much on a busy host: what may have timed out by itself is not counted
/// as hanging, of which the least is told.
const EARLY: Duration = Duration::from_millis(60);

/// Dials to the members of a set that belong to one search for its primary.
const ROUND: Duration = Duration::from_millis(400);

/// Silent for so long, a client that retries every second has given up.
const SILENT: Duration = Duration::from_secs(8);

/// The same for a client of a replica set, which looks for its members every ten seconds (`haInterval`).
const SILENT_IN_SET: Duration = Duration::from_secs(15);

/// A pool that has not given up dials within this after its last time-out.
const REDIAL: Duration = Duration::from_millis(2500);

/// A client that has been silent for so long is not watched any more.
const FORGOTTEN: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
pub(super) struct Legacy {
    instances: BTreeMap<InstanceId, Client>,
}

#[derive(Debug, Default)]
struct Client {
    loss: Option<Loss>,
}

/// Connections lost in trouble.
#[derive(Debug)]
struct Loss {
    upstream: UpstreamId,
    began_at: Timestamp,
    last_at: Timestamp,
    /// The server ended them, rather than the client after waiting.
    is_by_server: bool,
    /// When the last attempt to connect was begun, or given up without an answer.
    tried_at: Option<Timestamp>,
    /// The time-out by which the first of them was closed, where it was one.
    time_out: Duration,
    /// When members of the set were dialled first since.
    searched_at: Option<Timestamp>,
    /// Requests unanswered on them, which the driver queues again.
    requests: u64,
    /// Requests on those that the client closed before their time: they went down with the pool.
    hanging: u64,
    /// Those by command.
    hanging_commands: Commands,
    closed: u64,
    is_told: bool,
    /// Its connections log in when they are opened.
    logs_in: bool,
    /// Somebody reached the server again.
    back_at: Option<Timestamp>,
    wedged_told_at: Option<Timestamp>,
}

/// A time-out as it was set, by when it struck.
fn step_below(age: Duration) -> Duration {
    let steps = age.as_millis() / SETTING_STEP_MS;
    Duration::from_millis(u64::try_from(steps * SETTING_STEP_MS).unwrap_or(u64::MAX))
}

impl Detector for Legacy {
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        if !matches!(
            entry.fact,
            Fact::Introduced { .. } | Fact::HelloAnswered(_) | Fact::Ended(_)
        ) {
            return;
        }
        let Some(own) = connection.instance.and_then(|id| pools.instance(id)) else {
            return;
        };
        if !connection.has_legacy_pool {
            return;
        }
        make_room(&mut self.instances, own.id);
        let client = self.instances.entry(own.id).or_default();
        if let Fact::Ended(_) = &entry.fact {
            client.ended(entry.at, connection);
            return;
        }
        let is_dial = matches!(entry.fact, Fact::Introduced { .. });
        if is_dial {
            client.dialled(connection);
        }
        // Members that it is connected to are asked there.
        let was_ready = connection.ready_at.is_some_and(|at| at < entry.at);
        if is_dial || was_ready {
            client.searched(entry.at, own.id, connection, pools, signals);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for (instance, client) in &mut self.instances {
            client.look(at, *instance, pools, signals);
        }
        self.instances.retain(|_, client| {
            client
                .loss
                .as_ref()
                .is_some_and(|loss| at.since(loss.last_at) < FORGOTTEN)
        });
    }
}

impl Client {
    fn ended(&mut self, at: Timestamp, connection: &Connection) {
        let Some(end) = connection.ended else {
            return;
        };
        let is_by_server = end.ending.initiator == Initiator::Server;
        let waited = connection.last.busy_since.is_some_and(|since| {
            end.at.since(since.max(connection.last.from_server_at)) >= TIMED_OUT
        });
        let is_timed_out =
            end.ending.initiator == Initiator::Client && end.was_in_flight() && waited;
        let is_in_handshake = connection.ready_at.is_none();
        if let Some(loss) = &mut self.loss {
            // It waits for what is not answered, and tries again afterwards.
            let tried_at = if is_in_handshake {
                at
            } else {
                connection.opened_at
            };
            loss.tried_at = loss.tried_at.max(Some(tried_at));
            loss.back_at = loss.back_at.or(connection
                .hello_answered_at
                .filter(|answered| *answered > loss.began_at));
            if at.since(loss.last_at) <= TOGETHER && !is_in_handshake {
                loss.last_at = at;
                loss.closed += 1;
                let requests = u64::from(connection.last.in_flight);
                let is_early = !loss.is_by_server
                    && end.ending.initiator == Initiator::Client
                    && connection.idle_age(at) + EARLY < loss.time_out;
                if is_early {
                    loss.hanging += requests;
                    loss.hanging_commands.join(&connection.unanswered);
                } else {
                    loss.requests += requests;
                }
                return;
            }
        }
        if !(is_by_server || is_timed_out)
            || is_in_handshake
            || connection.last.operations == 0
            || connection.said_goodbye_at.is_some()
        {
            return;
        }
        self.loss = Some(Loss {
            upstream: connection.upstream,
            began_at: at,
            last_at: at,
            is_by_server,
            tried_at: None,
            time_out: step_below(connection.idle_age(at)),
            searched_at: None,
            requests: u64::from(connection.last.in_flight),
            hanging: 0,
            hanging_commands: Commands::default(),
            closed: 1,
            is_told: false,
            logs_in: connection.authentication.is_some(),
            back_at: None,
            wedged_told_at: None,
        });
    }

    /// It dials: its own server again, or another member in its place.
    fn dialled(&mut self, connection: &Connection) {
        if let Some(loss) = &mut self.loss {
            loss.tried_at = loss.tried_at.max(Some(connection.opened_at));
        }
    }

    /// It looks for a primary among the members of its set, after its own was lost: where it finds another server the
    /// pool of the old one is destroyed.
    fn searched(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        connection: &Connection,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let Some(loss) = &mut self.loss else {
            return;
        };
        let set = |id| pools.upstream(id).and_then(|upstream| upstream.set_name());
        let is_successor = connection.upstream != loss.upstream
            && set(loss.upstream).is_some()
            && set(loss.upstream) == set(connection.upstream);
        let is_due = at.since(loss.began_at) < SUCCESSION && loss.closed > 0;
        if !is_successor || !is_due {
            return;
        }
        // The first search finds the old server and destroys it, half a second before it dials where the client had
        // given the server up itself; later searches find nothing more of it.
        let searched_at = *loss.searched_at.get_or_insert(at);
        if at.since(searched_at) > ROUND {
            return;
        }
        loss.is_told = true;
        let trigger = if loss.is_by_server {
            DestroyTrigger::PrimaryCrash
        } else {
            DestroyTrigger::PrimaryFreeze
        };
        signals.push(about(
            loss.upstream,
            instance,
            loss.began_at,
            at,
            SignalKind::PoolDestroyed(PoolDestroyed {
                trigger,
                from: (at - BEFORE_DIAL).max(loss.began_at),
                until: at + AFTER_DIAL,
                failed: loss.requests,
                hanging: 0,
                hanging_commands: Commands::default(),
            }),
        ));
    }

    fn look(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let Some(loss) = &mut self.loss else {
            return;
        };
        let own = || {
            pools
                .connections()
                .filter(|connection| connection.instance == Some(instance))
        };
        if own().any(Connection::is_open) {
            if at.since(loss.last_at) > SUCCESSION {
                self.loss = None;
            }
            return;
        }
        if own().any(|connection| {
            connection
                .said_goodbye_at
                .is_some_and(|said| said >= loss.began_at)
        }) {
            self.loss = None;
            return;
        }
        let upstream = pools.upstream(loss.upstream);
        // Dials that failed introduced nobody: they are known by their address alone.
        let address = pools.instance(instance).map(|own| own.address);
        let failed_at = address.and_then(|address| pools.tried_at(address));
        let failed_at = failed_at.filter(|tried| *tried > loss.began_at);
        let last_try = loss
            .tried_at
            .map_or(loss.last_at, |tried| tried.max(loss.last_at));
        let silent = at.since(last_try);
        // A pool of a single server that gave up after time-outs does so by force.
        let is_single = upstream.is_some_and(|upstream| upstream.set_name().is_none());
        if !loss.is_by_server && !loss.is_told && is_single && silent >= REDIAL {
            loss.is_told = true;
            signals.push(about(
                loss.upstream,
                instance,
                loss.began_at,
                at,
                SignalKind::PoolDestroyed(PoolDestroyed {
                    trigger: DestroyTrigger::RepeatedTimeouts,
                    from: loss.began_at,
                    until: loss.last_at + AFTER_DIAL,
                    failed: loss.requests,
                    hanging: loss.hanging,
                    hanging_commands: loss.hanging_commands.clone(),
                }),
            ));
        }
        let Some(upstream) = upstream else {
            return;
        };
        // The server is there again: it answered somebody after the client's last attempt. A process that is stopped has
        // a kernel that accepts.
        let others = pools
            .connections()
            .filter(|other| other.upstream == loss.upstream && other.is_open())
            .map(|other| other.last.from_server_at);
        let reached = others
            .chain(upstream.greeted_at)
            .filter(|reached| *reached > last_try && upstream.unreachable_since.is_none());
        loss.back_at = loss.back_at.or_else(|| reached.min());
        let back_at = loss.back_at;
        let silent_min = if is_single { SILENT } else { SILENT_IN_SET };
        let is_back = back_at.is_some_and(|back| at.since(back) >= silent_min);
        // It tried, in vain, and tries no more, although nobody has seen the server again.
        let gave_up = is_single && failed_at.is_some_and(|tried| at.since(tried) >= silent_min);
        let is_silent = (is_back || gave_up) && silent >= silent_min;
        let is_due = loss
            .wedged_told_at
            .is_none_or(|told| at.since(told) >= SILENT);
        if !is_silent || !is_due {
            return;
        }
        loss.wedged_told_at = Some(at);
        let others_back = pools
            .instances()
            .filter(|other| other.id != instance && other.last_introduced > loss.began_at)
            .count() as u64;
        signals.push(about(
            loss.upstream,
            instance,
            back_at.unwrap_or(last_try),
            at,
            SignalKind::SilentAfterTrouble {
                silent,
                others_back,
                logs_in: loss.logs_in,
            },
        ));
    }
}
