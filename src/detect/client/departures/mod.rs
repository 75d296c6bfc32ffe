//! Connections that a client ends together.
//!
//! ```text
//! first close ──▶ burst ──300 ms quiet──▶ told ──▶ watched: does the process go on? does another replace it?
//! ```
//!
//! A close in the orderly way sends `endSessions` first and leaves nothing under way. What is cut without it is a
//! pool torn down by force when the process goes on, and otherwise a process that ended. Which of the two it was is
//! often known only when the next connection comes, so findings are told again.
//!
//! | module | what it is for |
//! |---|---|
//! | [`burst`] | closes of one instance that follow each other |
//! | [`scope`] | those of one mongo client, and what they say |
//! | [`told`] | what was told, until it is known what became of the process |

mod burst;
mod scope;
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use self::burst::Burst;
use self::told::Told;
use super::lives::Trail;
use super::{Detector, Signal, Taken, Turn, is_own, make_room, turn, was_troubled};
use crate::connection::Initiator;
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;

/// Closes further apart are not one burst.
const GAP: Duration = Duration::from_millis(300);

/// `PyMongo` ends its monitors up to 0.5 s after its pool.
const MONITORS_FOLLOW: Duration = Duration::from_millis(1200);

/// A burst that goes on for longer is judged as it is.
const BURST_MAX: Duration = Duration::from_secs(3);

/// How long it is watched what becomes of a client.
const WATCHED: Duration = Duration::from_secs(30);

/// Connections of a burst that are looked at.
const CLOSED_MAX: usize = 2048;

/// Bursts of one instance that are watched.
const WATCHED_MAX: usize = 16;

/// Instances of one application that are replaced come and go within this.
const ROLLOUT: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Departures {
    instances: BTreeMap<InstanceId, Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    burst: Option<Burst>,
    told: Vec<Told>,
}

impl Detector for Departures {
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let Some((instance, turn)) = turn(taken) else {
            return;
        };
        let (connection, pools) = (taken.connection, taken.pools);
        make_room(&mut self.instances, instance);
        let watch = self.instances.entry(instance).or_default();
        match turn {
            Turn::Introduced => watch.introduced(connection, pools, signals),
            Turn::Ended(Initiator::Client) => {
                watch.closed(taken.entry.at, instance, connection, pools, signals);
            }
            Turn::Ended(Initiator::Server | Initiator::Proxy) => {}
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for (instance, watch) in &mut self.instances {
            watch.settle(at, *instance, pools, signals);
            for told in &mut watch.told {
                told.look_again(at, *instance, pools, signals);
            }
            watch.told.retain(|told| at.since(told.last_at) < WATCHED);
        }
        self.instances.retain(|instance, watch| {
            watch.burst.is_some() || !watch.told.is_empty() || pools.instance(*instance).is_some()
        });
    }
}

impl Watch {
    fn introduced(&mut self, fresh: &Connection, pools: &Pools, signals: &mut Vec<Signal>) {
        let at = fresh.introduced_at.unwrap_or(fresh.opened_at);
        for told in &mut self.told {
            if told.follow(fresh, pools) {
                told.tell_again(at, signals);
            }
        }
    }

    fn closed(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        connection: &Connection,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        // What was left busy by an orderly close ends one by one.
        let is_late = self
            .told
            .iter_mut()
            .any(|told| told.is_awaiting(connection));
        if is_late {
            return;
        }
        if self.burst.as_ref().is_some_and(|burst| {
            at.since(burst.last_at) > GAP && !burst.is_waiting(instance, pools)
        }) {
            self.judge(at, instance, pools, signals);
        }
        let burst = self.burst.get_or_insert_with(|| Burst {
            began_at: at,
            last_at: at,
            closed: Vec::new(),
        });
        burst.last_at = at;
        if burst.closed.len() < CLOSED_MAX {
            burst.closed.push(connection.id);
        }
    }

    fn settle(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let Some(burst) = &self.burst else {
            return;
        };
        let quiet = at.since(burst.last_at);
        let wait = if burst.is_waiting(instance, pools) {
            MONITORS_FOLLOW
        } else {
            GAP
        };
        if quiet >= wait || at.since(burst.began_at) >= BURST_MAX {
            self.judge(at, instance, pools, signals);
        }
    }

    fn judge(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let Some(burst) = self.burst.take() else {
            return;
        };
        for scope in burst.scopes(instance, pools) {
            if let Some(signal) = scope.signal(at, instance, &burst, pools) {
                signals.push(signal.clone());
                // What was opened meanwhile counts on from there.
                let closed = scope.closed.iter().copied();
                let closed = closed.filter(|closed| closed.opened_at <= burst.began_at);
                self.told.push(Told {
                    last_at: burst.last_at,
                    signal,
                    trail: Trail::of(closed),
                    closed: scope.closed.iter().map(|closed| closed.id).collect(),
                    is_merely_reset: scope.is_merely_reset(&burst, instance, pools),
                    is_followed: false,
                });
            }
            // A whole client that goes is told of in its own right, so that a rollout can be told from it.
            signals.extend(scope.gone(at, instance, &burst, pools));
        }
        if self.told.len() > WATCHED_MAX {
            self.told.drain(..self.told.len() - WATCHED_MAX);
        }
        // Connections that came while the burst settled tell of the process, too.
        for told in &mut self.told {
            told.look_again(at, instance, pools, signals);
        }
    }
}

fn is_monitor(connection: &Connection) -> bool {
    connection.role.is_monitor()
}

/// A request of the application is under way on an open connection.
fn is_busy(connection: &Connection) -> bool {
    connection.last.in_flight > 0 && !is_monitor(connection)
}
