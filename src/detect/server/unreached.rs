//! Clients that nothing reaches: what is sent to them stays unacknowledged, and nothing comes from them.
//!
//! A path between an application and this proxy that swallows packets, or a host that is gone. A process that hangs is
//! something else: its host acknowledges.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{Detector, Taken};
use super::thresholds::{SILENCE, TOLD_EVERY};
use super::{Signal, SignalKind, about_upstream, is_of_a_client};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, Sample, UpstreamId};

/// Connections whose replies are not acknowledged that are told apart.
const STUCK_MAX: usize = 4096;

/// What a host sent before it was gone may arrive this much later than what it acknowledged last.
const SLACK: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub(super) struct Unreached {
    stuck: BTreeMap<ConnectionId, Stuck>,
    episodes: BTreeMap<UpstreamId, Episode>,
}

/// A connection on which the client acknowledges nothing.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    upstream: UpstreamId,
    instance: Option<InstanceId>,
    /// When the newest reply was sent, or the last acknowledgement came.
    since: Timestamp,
    seen_at: Timestamp,
    retransmits: (u32, u32),
}

#[derive(Debug)]
struct Episode {
    began_at: Timestamp,
    connections: BTreeSet<ConnectionId>,
    instances: BTreeSet<InstanceId>,
    connected: usize,
    retransmits: u64,
    seen_at: Timestamp,
    resumed_at: Option<Timestamp>,
    told_at: Timestamp,
    is_news: bool,
}

impl Detector for Unreached {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        if let Fact::Sampled(sample) = &entry.fact {
            self.sampled(entry.at, connection, sample);
        } else if let Fact::Ended(_) = &entry.fact {
            self.stuck.remove(&entry.connection);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        let mut upstreams: BTreeMap<UpstreamId, Vec<(ConnectionId, Stuck)>> = BTreeMap::new();
        for (id, stuck) in &self.stuck {
            if stuck.has_lasted() {
                upstreams
                    .entry(stuck.upstream)
                    .or_default()
                    .push((*id, *stuck));
            }
        }
        for (upstream, all) in &upstreams {
            self.look(*upstream, all, at, pools);
        }
        for (upstream, episode) in &mut self.episodes {
            let is_stuck = upstreams.contains_key(upstream);
            if !is_stuck && episode.resumed_at.is_none() {
                episode.resumed_at = Some(episode.seen_at.max(episode.began_at));
                episode.is_news = true;
            }
            episode.tell(*upstream, at, signals);
        }
        self.episodes.retain(|_, episode| {
            episode.resumed_at.is_none() || at.since(episode.seen_at) <= SILENCE
        });
    }
}

impl Unreached {
    fn sampled(&mut self, at: Timestamp, connection: &Connection, sample: &Sample) {
        let Some([client, _]) = sample.tcp else {
            return;
        };
        if client.unacked == 0 || !is_of_a_client(connection) {
            self.stuck.remove(&connection.id);
            return;
        }
        if self.stuck.len() >= STUCK_MAX && !self.stuck.contains_key(&connection.id) {
            return;
        }
        let acknowledged_at = at - client.since_ack.duration();
        let begin = Stuck {
            upstream: connection.upstream,
            instance: connection.instance,
            since: acknowledged_at.max(sample.from_server_at),
            seen_at: at,
            retransmits: (client.retransmits, client.retransmits),
        };
        let stuck = self.stuck.entry(connection.id).or_insert(begin);
        if acknowledged_at > stuck.since + SLACK {
            // Something arrived meanwhile.
            *stuck = begin;
        }
        stuck.seen_at = at;
        stuck.retransmits.1 = client.retransmits;
    }

    /// Looks whose replies are stuck: an instance of which something came since is only slow to acknowledge.
    fn look(
        &mut self,
        upstream: UpstreamId,
        all: &[(ConnectionId, Stuck)],
        at: Timestamp,
        pools: &Pools,
    ) {
        let mut heard: BTreeMap<InstanceId, Timestamp> = BTreeMap::new();
        for connection in pools.connections() {
            if let Some(instance) = connection.instance
                && connection.upstream == upstream
                && is_of_a_client(connection)
            {
                let heard_at = heard.entry(instance).or_default();
                *heard_at = connection.last.from_client_at.max(*heard_at);
            }
        }
        for (id, stuck) in all {
            let Some(instance) = stuck.instance else {
                continue;
            };
            let heard_at = heard.get(&instance).copied().unwrap_or_default();
            if heard_at > stuck.since + SLACK {
                continue;
            }
            let episode = self.episodes.entry(upstream).or_insert_with(|| Episode {
                began_at: stuck.since,
                connections: BTreeSet::new(),
                instances: BTreeSet::new(),
                connected: heard.len(),
                retransmits: 0,
                seen_at: at,
                resumed_at: None,
                told_at: Timestamp::default(),
                is_news: true,
            });
            if episode.told_at == Timestamp::default() {
                episode.began_at = episode.began_at.min(stuck.since);
            }
            episode.seen_at = at;
            episode.is_news |= episode.connections.insert(*id);
            episode.instances.insert(instance);
            let (before, now) = stuck.retransmits;
            episode.retransmits = episode
                .retransmits
                .max(u64::from(now.saturating_sub(before)).max(1));
        }
    }
}

impl Stuck {
    /// Two samples in a row found the same unacknowledged, and sent again.
    fn has_lasted(&self) -> bool {
        let (_, retransmits) = self.retransmits;
        retransmits > 0 && self.seen_at.since(self.since) >= SILENCE
    }
}

impl Episode {
    fn tell(&mut self, upstream: UpstreamId, at: Timestamp, signals: &mut Vec<Signal>) {
        let is_due = self.resumed_at.is_none() && at.since(self.told_at) >= TOLD_EVERY;
        if !std::mem::take(&mut self.is_news) && !is_due {
            return;
        }
        self.told_at = at;
        let until = self.resumed_at.unwrap_or(at);
        let kind = SignalKind::ClientsUnreached {
            connections: self.connections.len() as u64,
            instances: self.instances.len() as u64,
            instances_before: self.connected as u64,
            waited: until.since(self.began_at),
            retransmits: self.retransmits,
            resumed_at: self.resumed_at,
        };
        let signal = about_upstream(upstream, self.began_at, at, kind);
        signals.push(signal.among(&self.instances, self.connected));
    }
}
