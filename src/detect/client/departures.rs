//! Connections that a client ends together.
//!
//! ```text
//! first close ──▶ burst ──300 ms quiet──▶ told ──▶ watched: does the process go on? does another replace it?
//! ```
//!
//! A close in the orderly way sends `endSessions` first and leaves nothing under way. What is cut without it is a
//! pool torn down by force when the process goes on, and otherwise a process that ended. Which of the two it was is
//! often known only when the next connection comes, so findings are told again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::CloseGroup;
use super::lives::{Numbering, never_cuts};
use super::{
    Detector, Signal, SignalKind, Subject, is_of_a_client, is_own, make_room, was_troubled,
};
use crate::connection::{Initiator, Manner, Phase};
use crate::pools::{Connection, End, InstanceId, MongoClientId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Entry, Fact, UpstreamId};

/// Closes further apart are not one burst.
const GAP: Duration = Duration::from_millis(300);

/// `PyMongo` ends its monitors up to 0.5 s after its pool.
const MONITORS_FOLLOW: Duration = Duration::from_millis(1200);

/// `endSessions` comes just before the closes.
const GOODBYE_BEFORE: Duration = Duration::from_secs(2);

/// A burst that goes on for longer is judged as it is.
const BURST_MAX: Duration = Duration::from_secs(3);

/// A reply that comes so long after a close began was not merely on its way.
const OUTLASTS: Duration = Duration::from_millis(20);

/// How long it is watched what becomes of a client.
const WATCHED: Duration = Duration::from_secs(30);

/// Connections of a burst that are looked at.
const CLOSED_MAX: usize = 2048;

/// Bursts of one instance that are watched.
const WATCHED_MAX: usize = 16;

/// No byte from the server for so long before a close: it may have been given up.
const SILENCE: Duration = Duration::from_secs(1);

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
    /// First request id of the process's newest connections.
    highest_first_id: Option<i32>,
}

#[derive(Debug)]
struct Burst {
    began_at: Timestamp,
    last_at: Timestamp,
    closed: Vec<ConnectionId>,
}

/// A finding that may have to be told again.
#[derive(Debug)]
struct Told {
    last_at: Timestamp,
    signal: Signal,
    /// Highest first id at that time, and highest id used.
    highest_first_id: Option<i32>,
    closed: BTreeSet<ConnectionId>,
    successor: Option<bool>,
}

impl Detector for Departures {
    fn record(&mut self, entry: &Entry, pools: &Pools, signals: &mut Vec<Signal>) {
        if !matches!(entry.fact, Fact::Introduced { .. } | Fact::Ended(_)) {
            return;
        }
        let Some(connection) = pools.connection(entry.connection) else {
            return;
        };
        let Some(instance) = connection.instance else {
            return;
        };
        if !is_of_a_client(connection) {
            return;
        }
        make_room(&mut self.instances, instance);
        let watch = self.instances.entry(instance).or_default();
        if let Fact::Introduced { request_id, .. } = &entry.fact {
            watch.introduced(entry.at, instance, *request_id, pools, signals);
        } else if let Fact::Ended(ended) = &entry.fact
            && ended.ending.initiator == Initiator::Client
        {
            watch.closed(entry.at, instance, connection, pools, signals);
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
    fn introduced(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        first_id: i32,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let numbering = pools
            .instance(instance)
            .map_or(Numbering::Unknown, Numbering::of);
        for told in &mut self.told {
            if told.successor.is_some() {
                continue;
            }
            told.successor = numbering.is_new_process(first_id, told.highest_first_id);
            if let Some(is_new) = told.successor
                && let SignalKind::ClientClosed {
                    is_alive,
                    is_replaced,
                    ..
                } = &mut told.signal.kind
            {
                *is_replaced |= is_new;
                *is_alive = Some(!is_new);
                told.tell_again(at, signals);
            }
        }
        if numbering.is_new_process(first_id, self.highest_first_id) == Some(true) {
            self.highest_first_id = None;
        }
        self.highest_first_id = self.highest_first_id.max(Some(first_id));
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
                self.told.push(Told {
                    last_at: burst.last_at,
                    signal,
                    highest_first_id: self.highest_first_id,
                    closed: scope.closed.iter().map(|closed| closed.id).collect(),
                    successor: None,
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

impl Burst {
    /// Only monitors are left, which may follow, or only busy connections of a client without monitors.
    fn is_waiting(&self, instance: InstanceId, pools: &Pools) -> bool {
        self.scopes(instance, pools).iter().any(|scope| {
            let has_pooled = scope.closed.iter().any(|closed| !is_monitor(closed));
            let are_monitors_left =
                !scope.left.is_empty() && scope.left.iter().all(|left| is_monitor(left));
            (has_pooled && are_monitors_left && scope.has_said_goodbye(self))
                || scope.may_be_closing()
        })
    }

    fn scopes<'a>(&self, instance: InstanceId, pools: &'a Pools) -> Vec<Scope<'a>> {
        let closed: Vec<&Connection> = self
            .closed
            .iter()
            .filter_map(|id| pools.connection(*id))
            .collect();
        let left: Vec<&Connection> = pools
            .connections()
            .filter(|connection| {
                is_own(connection, instance)
                    && connection.opened_at <= self.last_at
                    && connection.is_open()
            })
            .collect();
        let clients: BTreeSet<Option<MongoClientId>> =
            closed.iter().map(|closed| closed.mongo_client).collect();
        if left.is_empty() || !clients.iter().any(Option::is_some) {
            return vec![Scope {
                mongo_client: clients
                    .first()
                    .copied()
                    .flatten()
                    .filter(|_| clients.len() == 1),
                closed,
                left,
                others: Vec::new(),
            }];
        }
        clients
            .into_iter()
            .map(|client| {
                let is_of_it = |connection: &&&Connection| connection.mongo_client == client;
                let closed: Vec<&Connection> =
                    closed.iter().filter(|c| is_of_it(c)).copied().collect();
                // A client that ends its monitors with everything it had dials no more: what was dialled since is
                // another's, even where the two cannot be told apart yet.
                let is_over = closed.iter().any(|closed| is_monitor(closed))
                    && !left
                        .iter()
                        .any(|left| is_of_it(&left) && left.opened_at <= self.began_at);
                let (own, others) = left
                    .iter()
                    .copied()
                    .partition(|left| is_of_it(&left) && !is_over);
                Scope {
                    mongo_client: client,
                    closed,
                    left: own,
                    others,
                }
            })
            .collect()
    }
}

/// The connections of one mongo client, or of a whole instance.
#[derive(Debug)]
struct Scope<'a> {
    mongo_client: Option<MongoClientId>,
    closed: Vec<&'a Connection>,
    /// Still open.
    left: Vec<&'a Connection>,
    /// Open connections of the instance's other mongo clients.
    others: Vec<&'a Connection>,
}

fn is_monitor(connection: &Connection) -> bool {
    connection.role.is_monitor()
}

/// A request of the application is under way on an open connection.
fn is_busy(connection: &Connection) -> bool {
    connection.last.in_flight > 0 && !is_monitor(connection)
}

impl Scope<'_> {
    /// Monitors were closed, or it said goodbye, and pooled connections are left.
    fn may_be_closing(&self) -> bool {
        let is_begun =
            |closed: &&Connection| is_monitor(closed) || closed.said_goodbye_at.is_some();
        self.closed.iter().any(is_begun)
            && !self.left.is_empty()
            && !self.left.iter().any(|left| is_monitor(left))
    }

    /// Only connections with requests under way are left.
    fn is_closing(&self) -> bool {
        self.may_be_closing() && self.left.iter().all(|left| is_busy(left))
    }

    /// Connections on which a request was under way when the close began, and which were closed after its reply.
    fn outlasted(&self, burst: &Burst) -> u64 {
        self.ends()
            .filter(|(connection, end)| {
                !is_monitor(connection)
                    && !end.was_in_flight()
                    && connection.last.operations > 0
                    && connection.last.from_client_at < burst.began_at
                    && connection.last.from_server_at >= burst.began_at + OUTLASTS
            })
            .count() as u64
    }

    fn has_said_goodbye(&self, burst: &Burst) -> bool {
        let connections = self.closed.iter().chain(&self.left);
        connections
            .filter_map(|connection| connection.said_goodbye_at)
            .any(|said| said + GOODBYE_BEFORE >= burst.began_at)
    }

    fn is_whole(&self) -> bool {
        self.left.is_empty() || self.is_closing()
    }

    fn upstream(&self) -> Option<UpstreamId> {
        self.closed.first().map(|closed| closed.upstream)
    }

    fn group(&self, burst: &Burst) -> CloseGroup {
        let mut group = CloseGroup {
            closed: self.closed.len() as u64,
            of: (self.closed.len() + self.left.len()) as u64,
            monitors_left: self.left.iter().filter(|left| is_monitor(left)).count() as u64,
            span: burst.last_at.since(burst.began_at),
            has_said_goodbye: self.has_said_goodbye(burst),
            ..CloseGroup::default()
        };
        for (connection, end) in self.ends() {
            group.resets += u64::from(end.ending.manner == Manner::Reset);
            group.in_handshake += u64::from(matches!(
                end.ending.phase,
                Phase::Handshaking | Phase::Authenticating
            ));
            if is_monitor(connection) {
                group.monitors += 1;
                continue;
            }
            if end.was_in_flight() {
                group.in_flight += 1;
                group.requests_lost += u64::from(connection.last.in_flight.max(1));
            }
            let age = connection.idle_age(end.at);
            let (shortest, longest) = group.idle_ages.unwrap_or((age, age));
            group.idle_ages = Some((shortest.min(age), longest.max(age)));
        }
        group
    }

    fn ends(&self) -> impl Iterator<Item = (&Connection, End)> {
        self.closed
            .iter()
            .filter_map(|closed| Some((*closed, closed.ended?)))
    }

    /// Pooled connections that carried something in the second before.
    fn load(&self, burst: &Burst) -> u64 {
        self.closed
            .iter()
            .filter(|closed| {
                !is_monitor(closed)
                    && closed.last.operations > 0
                    && burst.began_at.since(closed.last.from_client_at) < Duration::from_secs(1)
            })
            .count() as u64
    }

    fn age(&self, burst: &Burst) -> Duration {
        self.closed
            .iter()
            .map(|closed| burst.began_at.since(closed.opened_at))
            .max()
            .unwrap_or_default()
    }

    fn transactions(&self) -> u64 {
        self.closed
            .iter()
            .map(|closed| u64::from(closed.transactions_open))
            .sum()
    }

    /// The other end gave up waiting: no byte came for a while on any connection with a request under way, and
    /// what was dialled since has no answer either, or was dialled at once.
    fn was_given_up(&self, burst: &Burst, instance: InstanceId, pools: &Pools) -> bool {
        let heard = self
            .closed
            .iter()
            .chain(&self.left)
            .chain(&self.others)
            .filter(|connection| !is_monitor(connection))
            .map(|connection| connection.last.from_server_at)
            .max();
        let is_silent = heard.is_some_and(|heard| burst.began_at.since(heard) >= SILENCE);
        is_silent
            && pools.connections().any(|connection| {
                is_own(connection, instance)
                    && connection.is_open()
                    && connection.opened_at + SILENCE >= burst.began_at
                    && (connection.hello_answered_at.is_none()
                        || connection.opened_at >= burst.began_at)
            })
    }

    fn signal(
        &self,
        at: Timestamp,
        instance: InstanceId,
        burst: &Burst,
        pools: &Pools,
    ) -> Option<Signal> {
        let group = self.group(burst);
        let left_busy = if self.is_closing() {
            self.left.len() as u64
        } else {
            0
        };
        let still_busy = left_busy + self.outlasted(burst);
        let transactions = self.transactions();
        let is_orderly =
            group.has_said_goodbye && group.in_flight == 0 && still_busy == 0 && transactions == 0;
        let is_cut = group.in_flight > 0 && group.closed >= 2;
        let has_worked = self.closed.iter().any(|closed| closed.last.operations > 0);
        if is_orderly || !(self.is_whole() && has_worked || is_cut) {
            return None;
        }
        let is_reset =
            !group.has_said_goodbye && group.closed >= 2 && group.resets * 4 >= group.closed * 3;
        let is_after_trouble = is_reset
            || was_troubled(pools, instance, burst.began_at)
            || self.was_given_up(burst, instance, pools);
        Some(Signal {
            at: burst.began_at,
            seen_at: at,
            subject: Subject {
                upstream: self.upstream()?,
                instance: Some(instance),
                mongo_client: self.mongo_client.filter(|_| !self.others.is_empty()),
            },
            among: Vec::new(),
            kind: SignalKind::ClientClosed {
                is_whole: self.is_whole(),
                still_busy,
                transactions,
                load: self.load(burst),
                age: self.age(burst),
                is_after_trouble,
                is_replaced: false,
                is_alive: self.is_alive(instance, burst, &group, pools),
                group,
            },
        })
    }

    /// Whether the process lives, as far as its other connections tell.
    fn is_alive(
        &self,
        instance: InstanceId,
        burst: &Burst,
        group: &CloseGroup,
        pools: &Pools,
    ) -> Option<bool> {
        let known = pools.instance(instance)?;
        if group.in_flight > 0 && never_cuts(known) && group.monitors > 0 {
            return Some(false);
        }
        let others = if self.others.is_empty() {
            &self.left
        } else {
            &self.others
        };
        if others.is_empty() || self.is_closing() {
            return None;
        }
        let numbering = Numbering::of(known);
        // What was dialled since tells by its first id: counters may be older than the burst.
        let before = self
            .closed
            .iter()
            .filter_map(|closed| closed.first_request_id)
            .max();
        let newer = others
            .iter()
            .find(|other| other.opened_at > burst.began_at && other.first_request_id.is_some());
        if let Some(first_id) = newer.and_then(|newer| newer.first_request_id) {
            return numbering
                .is_new_process(first_id, before)
                .map(|is_new| !is_new);
        }
        if numbering != Numbering::Counted {
            return None;
        }
        let highest = self
            .closed
            .iter()
            .map(|closed| closed.last.request_id)
            .max()?;
        // Ids used later are higher, ids used earlier are lower, when one process counts them.
        let is_strange = others.iter().any(|other| {
            let is_later = other.last.from_client_at > burst.last_at;
            let is_higher = other.last.request_id > highest;
            is_later != is_higher && other.last.requests > 0
        });
        Some(!is_strange)
    }

    /// A client that went entirely.
    fn gone(
        &self,
        at: Timestamp,
        instance: InstanceId,
        burst: &Burst,
        pools: &Pools,
    ) -> Option<Signal> {
        let group = self.group(burst);
        let is_orderly =
            group.has_said_goodbye && group.in_flight == 0 && self.outlasted(burst) == 0;
        if !self.is_whole() || !is_orderly || self.is_closing() {
            return None;
        }
        let app = &pools.instance(instance)?.app;
        let others = pools
            .instances()
            .filter(|other| other.id != instance && other.app == *app)
            .filter(|other| at.since(other.last_introduced) < ROLLOUT)
            .count() as u64;
        Some(Signal {
            at: burst.began_at,
            seen_at: at,
            subject: Subject {
                upstream: self.upstream()?,
                instance: Some(instance),
                mongo_client: self.mongo_client,
            },
            among: Vec::new(),
            kind: SignalKind::InstanceGone {
                has_said_goodbye: true,
                in_flight: 0,
                others,
            },
        })
    }
}

impl Told {
    fn tell_again(&mut self, at: Timestamp, signals: &mut Vec<Signal>) {
        self.signal.seen_at = at;
        signals.push(self.signal.clone());
    }

    /// It was busy while the rest of its client was being closed, and ends now.
    fn is_awaiting(&mut self, connection: &Connection) -> bool {
        let SignalKind::ClientClosed {
            group, still_busy, ..
        } = &mut self.signal.kind
        else {
            return false;
        };
        let is_of_it = self.signal.subject.instance == connection.instance
            && (self.signal.subject.mongo_client.is_none()
                || self.signal.subject.mongo_client == connection.mongo_client);
        let is_late = *still_busy > 0 && is_of_it && connection.opened_at <= self.last_at;
        if is_late && self.closed.insert(connection.id) {
            group.closed += 1;
            group.span = connection
                .ended
                .map_or(group.span, |end| end.at.since(self.signal.at));
        }
        is_late
    }

    /// Whether another process replaced it, which instances of the same application tell.
    fn look_again(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let began_at = self.signal.at;
        let Some(own) = pools.instance(instance) else {
            return;
        };
        let is_news = {
            let SignalKind::ClientClosed {
                is_replaced,
                is_after_trouble,
                is_alive,
                ..
            } = &mut self.signal.kind
            else {
                return;
            };
            let mut is_news = false;
            if !*is_replaced {
                *is_replaced = pools.instances().any(|other| {
                    other.id != instance
                        && other.app == own.app
                        && other.first_seen + ROLLOUT > began_at
                });
                is_news |= *is_replaced;
            }
            if !*is_after_trouble && at.since(began_at) < Duration::from_secs(3) {
                *is_after_trouble = was_troubled(pools, instance, began_at);
                is_news |= *is_after_trouble;
            }
            // Connections that came between the closes and their telling.
            if is_alive.is_none() && self.successor.is_none() {
                let numbering = Numbering::of(own);
                let first_since = pools.connections().find(|connection| {
                    is_own(connection, instance) && connection.opened_at > self.last_at
                });
                let first_id = first_since.and_then(|connection| connection.first_request_id);
                let before = pools
                    .connections()
                    .filter(|connection| {
                        is_own(connection, instance) && connection.opened_at <= self.last_at
                    })
                    .filter_map(|connection| connection.first_request_id)
                    .max();
                self.successor = first_id.and_then(|id| numbering.is_new_process(id, before));
                if let Some(is_new) = self.successor {
                    *is_replaced |= is_new;
                    *is_alive = Some(!is_new);
                    is_news = true;
                }
            }
            is_news
        };
        if is_news {
            self.tell_again(at, signals);
        }
    }
}
