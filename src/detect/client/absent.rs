//! Clients that were at work before trouble, and neither dial nor send anything after it.
//!
//! ```text
//! at work ──▶ the server's side ends its connections ──▶ the server is back ──▶ nothing for long: stays away
//!                                                                    └──▶ dials, sends, goes, is replaced: nothing
//! ```
//!
//! It may be a pool that is stuck, threads that gave up after an error, or load that went elsewhere: what is seen does not
//! tell, so that this is a part of what happened and no cause. Legacy pools of Node, which are known to give up, are
//! [`super::legacy`]'s.
//!
//! **Invariant:** one record an instance that lost connections, for [`FORGOTTEN`] at most.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Taken, about, is_of_a_client, make_room};
use crate::connection::{Initiator, Role};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{Fact, UpstreamId};

/// At work: so many operations on a connection,
const OPERATIONS_MIN: u64 = 20;

/// one in so long or more often, on the average,
const OPERATION_EVERY: Duration = Duration::from_secs(1);

/// and the last no longer ago than this.
const AT_WORK: Duration = Duration::from_secs(2);

/// Silent for so long after the server is back, it stays away: drivers look for it every ten seconds, and a case of
/// which nothing is heard is over after fifteen.
const AWAY: Duration = Duration::from_secs(12);

/// What happens later has nothing to do with it.
const FORGOTTEN: Duration = Duration::from_mins(2);

/// Counters tell no more than once a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Absent {
    looked_at: Timestamp,
    losses: BTreeMap<InstanceId, Loss>,
}

/// Connections of a client at work that the server's side ended.
#[derive(Debug)]
struct Loss {
    upstream: UpstreamId,
    began_at: Timestamp,
    last_at: Timestamp,
    closed: u64,
    /// Somebody reached the server again.
    back_at: Option<Timestamp>,
}

/// What its connections say of an instance after its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signs {
    /// It said goodbye, or has a connection that is no monitor's.
    is_there: bool,
    /// It has a connection that may be a monitor's.
    is_undecided: bool,
    /// Monitors that are open.
    monitors: u64,
}

impl Detector for Absent {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        let (Fact::Ended(_), Some(instance)) = (&entry.fact, connection.instance) else {
            return;
        };
        let is_by_server = connection
            .ended
            .is_some_and(|end| end.ending.initiator == Initiator::Server);
        if !is_by_server || connection.has_legacy_pool || !was_at_work(connection, entry.at) {
            return;
        }
        make_room(&mut self.losses, instance);
        let loss = self.losses.entry(instance).or_insert(Loss {
            upstream: connection.upstream,
            began_at: entry.at,
            last_at: entry.at,
            closed: 0,
            back_at: None,
        });
        if loss.upstream == connection.upstream {
            loss.last_at = entry.at;
            loss.closed += 1;
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        if self.losses.is_empty() || at.since(self.looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at = at;
        let mut signs = signs(&self.losses, pools);
        self.losses.retain(|instance, loss| {
            let signs = signs.remove(instance).unwrap_or_default();
            loss.look(at, *instance, signs, pools, signals)
        });
    }
}

/// It carried operations again and again until a moment ago.
fn was_at_work(connection: &Connection, at: Timestamp) -> bool {
    let last = &connection.last;
    let lasted = last.from_client_at.since(connection.opened_at);
    let rate = u32::try_from(last.operations).unwrap_or(u32::MAX);
    is_of_a_client(connection)
        && !connection.role.is_monitor()
        && connection.said_goodbye_at.is_none()
        && last.operations >= OPERATIONS_MIN
        && lasted <= OPERATION_EVERY * rate
        && at.since(last.from_client_at) <= AT_WORK
}

/// One pass over all connections.
fn signs(losses: &BTreeMap<InstanceId, Loss>, pools: &Pools) -> BTreeMap<InstanceId, Signs> {
    let mut all: BTreeMap<InstanceId, Signs> = BTreeMap::new();
    for connection in pools.connections() {
        let Some(own) = connection.instance else {
            continue;
        };
        if let Some(loss) = losses.get(&own) {
            all.entry(own).or_default().see(connection, loss);
        }
    }
    all
}

impl Signs {
    /// Looks at a connection of the instance.
    fn see(&mut self, connection: &Connection, loss: &Loss) {
        let said_goodbye = connection
            .said_goodbye_at
            .is_some_and(|said| said >= loss.began_at);
        let is_monitor = connection.role.is_monitor() || connection.found.is_monitor();
        let may_be_monitor = connection.found == Role::Unknown && connection.last.operations == 0;
        let dialled = connection.opened_at > loss.began_at || connection.is_open();
        self.is_there |= said_goodbye || (dialled && !is_monitor && !may_be_monitor);
        self.is_undecided |= connection.is_open() && !is_monitor && may_be_monitor;
        self.monitors += u64::from(is_monitor && connection.is_open());
    }
}

impl Loss {
    /// False once there is nothing more to wait for.
    fn look(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        signs: Signs,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) -> bool {
        let (Some(own), Some(upstream)) = (pools.instance(instance), pools.upstream(self.upstream))
        else {
            return false;
        };
        let was_replaced = || {
            let mut others = pools.instances();
            others.any(|other| other.app == own.app && other.first_seen > self.began_at)
        };
        if signs.is_there || at.since(self.last_at) >= FORGOTTEN {
            return false;
        }
        // Without a monitor nothing tells that its process is there.
        let is_gone = signs.monitors == 0;
        if is_gone && was_replaced() {
            return false;
        }
        // A monitor that came back has been greeted, too.
        let greeted_at = upstream.greeted_at.filter(|at| *at > self.last_at);
        self.back_at = self.back_at.or(greeted_at);
        let Some(back_at) = self.back_at else {
            return true;
        };
        if upstream.unreachable_since.is_some() {
            self.back_at = None;
            return true;
        }
        let others_back = pools
            .instances()
            .filter(|other| other.id != instance && other.last_introduced > self.began_at)
            .count();
        let is_due = at.since(back_at) >= AWAY && !signs.is_undecided;
        if !is_due || (is_gone && others_back == 0) {
            return true;
        }
        signals.push(about(
            self.upstream,
            instance,
            back_at,
            at,
            SignalKind::StaysAway {
                silent: at.since(back_at),
                lost: self.closed,
                monitors: signs.monitors,
                others_back: u64::try_from(others_back).unwrap_or(u64::MAX),
            },
        ));
        false
    }
}

#[cfg(test)]
mod tests;
