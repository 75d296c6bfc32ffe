//! A server of which no byte comes while requests wait.
//!
//! What a frozen process and a path that swallows packets have in common. The kernel tells them apart: the host of a
//! frozen process acknowledges what it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{Detector, Taken};
use super::heard::heard;
use super::thresholds::{
    HEARTBEAT_LATE, HELLO_LATE, PAUSE_MIN, SAMPLE_AGE, SILENCE, TOLD_EVERY, USUAL_FACTOR,
};
use super::{Signal, SignalKind, about_upstream, is_of_a_client};
use crate::connection::{Initiator, Role};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, UpstreamId};

/// A process that goes on answers what has waited within this.
const SETTLED: Duration = Duration::from_millis(500);

/// Silent connections that are told apart.
const CONNECTIONS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Silences {
    upstreams: BTreeMap<UpstreamId, State>,
    /// Counters are known up to here.
    sampled_at: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    /// The last byte from the server on any connection.
    heard_at: Timestamp,
    episode: Option<Episode>,
}

#[derive(Debug)]
struct Episode {
    began_at: Timestamp,
    /// The last byte before it.
    heard_at: Timestamp,
    connections: BTreeSet<ConnectionId>,
    monitors: BTreeSet<ConnectionId>,
    /// Those whose request came while they were in use, rather than after a pause, and arrived nowhere.
    in_use: BTreeSet<ConnectionId>,
    instances: BTreeSet<InstanceId>,
    /// Retransmissions of each connection when it was found silent, and since.
    retransmits: BTreeMap<ConnectionId, (u32, u32)>,
    acknowledged: u64,
    unacknowledged: u64,
    waited_from: Timestamp,
    late_hellos: u64,
    resumed_at: Option<Timestamp>,
    /// Those that waited on when the server was heard again.
    still_waiting: u64,
    seen_waiting_at: Timestamp,
    told_at: Timestamp,
    told: usize,
}

impl Detector for Silences {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        if let Fact::Sampled(_) = &entry.fact {
            self.sampled_at = self.sampled_at.max(entry.at);
        }
        let state = self.upstreams.entry(connection.upstream).or_default();
        if let Some(heard_at) = heard(entry, connection) {
            state.heard_at = state.heard_at.max(heard_at);
        }
        if let Fact::HelloAnswered(took) = &entry.fact
            && *took >= HELLO_LATE
            && let Some(episode) = &mut state.episode
        {
            episode.late_hellos += 1;
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        let known_until = self.sampled_at.max(at - SAMPLE_AGE);
        for (id, state) in &mut self.upstreams {
            state.resume(at);
            if state
                .episode
                .as_ref()
                .is_none_or(|e| e.resumed_at.is_none())
                && known_until.since(state.heard_at) >= SILENCE
            {
                state.look(*id, at, known_until, pools);
            }
            if let Some(episode) = &mut state.episode {
                match episode.resumed_at {
                    None => episode.count_acknowledged(pools),
                    Some(resumed_at) => episode.count_waiting(resumed_at, known_until, pools),
                }
                episode.tell(*id, at, signals);
            }
        }
    }
}

/// Since when a connection waits for a byte of the server; `None` when it does not, or is used to it.
fn waits_since(connection: &Connection, at: Timestamp) -> Option<Timestamp> {
    connection.dialled_at?;
    if connection.opaque.is_some() {
        return None;
    }
    let last = &connection.last;
    if connection.hello_answered_at.is_none() {
        return connection.introduced_at;
    }
    if let Some(busy_since) = last.busy_since {
        let since = busy_since.max(last.from_server_at);
        let done = last.operations.saturating_sub(u64::from(last.in_flight));
        let usual = last.busy / u32::try_from(done).unwrap_or(u32::MAX).max(1);
        return (at.since(since) >= usual * USUAL_FACTOR).then_some(since);
    }
    if connection.role == Role::Application {
        return None;
    }
    if let Some(heartbeat) = connection.heartbeat {
        let due = last.from_server_at + heartbeat + HEARTBEAT_LATE;
        return (due <= at).then_some(last.from_server_at + heartbeat);
    }
    (last.from_client_at > last.from_server_at).then_some(last.from_client_at)
}

impl State {
    fn resume(&mut self, at: Timestamp) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        if episode.resumed_at.is_none() && self.heard_at > episode.heard_at {
            episode.resumed_at = Some(self.heard_at);
            episode.told = 0;
        }
        let is_over = episode
            .resumed_at
            .is_some_and(|resumed_at| at.since(resumed_at) > SILENCE + SAMPLE_AGE)
            || at.since(episode.seen_waiting_at) > SILENCE * 3;
        if is_over {
            self.episode = None;
        }
    }

    /// Looks who waits.
    fn look(&mut self, id: UpstreamId, at: Timestamp, known_until: Timestamp, pools: &Pools) {
        let heard_at = self.heard_at;
        for connection in pools.connections() {
            if connection.upstream != id || !is_of_a_client(connection) {
                continue;
            }
            // A client that lost patience was silent, too.
            let gave_up = connection
                .ended
                .is_some_and(|end| end.ending.initiator == Initiator::Client && end.at > heard_at);
            if !connection.is_open() && !gave_up {
                continue;
            }
            let until = connection.ended.map_or(known_until, |end| end.at);
            let Some(since) = waits_since(connection, until) else {
                continue;
            };
            if until.since(since) < SILENCE && self.episode.is_none() {
                continue;
            }
            // What hung while others were answered is a matter of its own.
            if since + SILENCE < heard_at {
                continue;
            }
            let episode = self.episode.get_or_insert_with(|| Episode {
                began_at: since,
                heard_at,
                connections: BTreeSet::new(),
                monitors: BTreeSet::new(),
                in_use: BTreeSet::new(),
                instances: BTreeSet::new(),
                retransmits: BTreeMap::new(),
                acknowledged: 0,
                unacknowledged: 0,
                waited_from: since,
                late_hellos: 0,
                resumed_at: None,
                still_waiting: 0,
                seen_waiting_at: at,
                told_at: Timestamp::default(),
                told: 0,
            });
            episode.found(connection, since, at);
        }
    }
}

impl Episode {
    fn found(&mut self, connection: &Connection, since: Timestamp, at: Timestamp) {
        if connection.is_open() {
            self.seen_waiting_at = at;
        }
        self.waited_from = self.waited_from.min(since);
        if self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        if self.told_at == Timestamp::default() {
            self.began_at = self.began_at.min(since);
        }
        self.connections.insert(connection.id);
        if connection.role.is_monitor() {
            self.monitors.insert(connection.id);
        }
        self.instances.extend(connection.instance);
        let was_in_use = !connection.role.is_monitor() && connection.pause() < PAUSE_MIN;
        let Some([_, server]) = connection.last.tcp else {
            return;
        };
        if was_in_use && connection.is_unacknowledged() == Some(true) {
            self.in_use.insert(connection.id);
        }
        let (first, newest) = self
            .retransmits
            .entry(connection.id)
            .or_insert((server.retransmits, server.retransmits));
        *newest = server.retransmits.max(*first);
    }

    /// Whether what was sent is acknowledged, by what the kernel says of most of the silent.
    fn count_acknowledged(&mut self, pools: &Pools) {
        (self.acknowledged, self.unacknowledged) = (0, 0);
        for connection in self
            .connections
            .iter()
            .filter_map(|id| pools.connection(*id))
        {
            match connection.is_unacknowledged() {
                Some(true) => self.unacknowledged += 1,
                Some(false) => self.acknowledged += 1,
                None => {}
            }
        }
    }

    /// Counts what waits for the same reply as before although the server was heard since.
    fn count_waiting(&mut self, resumed_at: Timestamp, known_until: Timestamp, pools: &Pools) {
        if known_until.since(resumed_at) < SETTLED {
            return;
        }
        let waits = |connection: &&Connection| {
            let since = connection.last.busy_since;
            connection.is_open()
                && !connection.role.is_monitor()
                && since.is_some_and(|since| since < resumed_at)
                && connection.last.from_server_at < resumed_at
        };
        let of_episode = self.connections.iter();
        let still_waiting = of_episode
            .filter_map(|id| pools.connection(*id))
            .filter(waits)
            .count() as u64;
        if still_waiting > self.still_waiting {
            self.still_waiting = still_waiting;
            self.told = 0;
        }
    }

    fn tell(&mut self, id: UpstreamId, at: Timestamp, signals: &mut Vec<Signal>) {
        let is_news = self.connections.len() > self.told;
        if !is_news && at.since(self.told_at) < TOLD_EVERY {
            return;
        }
        self.told = self.connections.len();
        self.told_at = at;
        let until = self.resumed_at.unwrap_or(at);
        let kind = SignalKind::RepliesMissing {
            connections: self.connections.len() as u64,
            instances: self.instances.len() as u64,
            in_use: self.in_use.len() as u64,
            still_waiting: self.still_waiting,
            waited: until.since(self.waited_from),
            is_acknowledged: match (self.acknowledged, self.unacknowledged) {
                (0, 0) => None,
                (acknowledged, unacknowledged) => Some(acknowledged > unacknowledged),
            },
            monitors: self.monitors.len() as u64,
            late_hellos: self.late_hellos,
            retransmits: self
                .retransmits
                .values()
                .map(|(first, newest)| u64::from(newest - first))
                .sum(),
            resumed_at: self.resumed_at,
        };
        signals.push(about_upstream(id, self.began_at, at, kind));
    }
}
