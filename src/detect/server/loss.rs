//! Lost segments, from what the kernel tells of sockets.
//!
//! ```text
//! sent ──▶ sent again ──▶ the other side says it had it already ──▶ a late acknowledgement: no loss
//!                    └──▶ it does not ─────────────────────────────▶ lost
//! ```
//!
//! What counts is the share of lost segments among those sent, and how little chance explains it: a share says
//! nothing while few were sent, and a count says nothing while nobody knows of how many. So thirty sockets and one,
//! a load of thousands a second and a read now and then are judged alike. Segments sent again on a connection of which
//! nothing came afterwards are no loss but silence, which is another detector's.

mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::path::{Episode, Path, Traffic};
use super::super::{Detector, Taken};
use super::{Side, Signal, SignalKind, about_upstream, connected_to};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, Sample, TcpState, UpstreamId};

/// A connection's first counters count from zero when it is so young: it was seen from its beginning.
const YOUNG: Duration = Duration::from_secs(3);

/// Lost segments on paths to servers and to clients.
#[derive(Debug, Default)]
pub(super) struct Loss {
    connections: BTreeMap<ConnectionId, [Counters; 2]>,
    /// Paths to servers, and from there to instances: each of them may be at another place.
    paths: BTreeMap<(UpstreamId, Option<InstanceId>), Path>,
    /// Since when paths to clients of an upstream are lossy.
    clients_from: BTreeMap<UpstreamId, Timestamp>,
}

/// What was known of a socket, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    is_known: bool,
    segments: u32,
    requests: u64,
    retransmits: u32,
    /// Retransmissions and duplicates that are accounted for.
    settled: (u32, u32),
    /// When retransmissions were seen after which nothing has arrived yet.
    pending_at: Option<Timestamp>,
}

impl Detector for Loss {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        if let Fact::Sampled(sample) = &entry.fact {
            self.sampled(entry.at, connection, sample);
        } else if let Fact::Ended(_) = &entry.fact {
            self.connections.remove(&entry.connection);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        self.paths
            .retain(|(_, instance), _| instance.is_none_or(|id| pools.instance(id).is_some()));
        let mut clients: BTreeMap<UpstreamId, (Episode, BTreeSet<InstanceId>, bool)> =
            BTreeMap::new();
        for ((upstream, instance), path) in &mut self.paths {
            let is_news = path.look(at);
            let Some(episode) = &path.episode else {
                continue;
            };
            let Some(instance) = instance else {
                if is_news {
                    signals.push(episode.told(*upstream, Side::Server, at));
                }
                continue;
            };
            let (all, instances, has_news) = clients.entry(*upstream).or_insert_with(|| {
                let none = Episode {
                    began_at: episode.began_at,
                    ..Episode::default()
                };
                (none, BTreeSet::new(), false)
            });
            all.add(episode);
            instances.insert(*instance);
            *has_news |= is_news;
        }
        self.clients_from
            .retain(|upstream, _| clients.contains_key(upstream));
        for (upstream, (mut all, instances, is_news)) in clients {
            let began_at = *self.clients_from.entry(upstream).or_insert(all.began_at);
            if is_news {
                all.began_at = began_at;
                let signal = all.told(upstream, Side::Client, at);
                signals.push(signal.among(&instances, connected_to(pools, upstream)));
            }
        }
    }
}

impl Loss {
    fn sampled(&mut self, at: Timestamp, connection: &Connection, sample: &Sample) {
        let Some(states) = sample.tcp else {
            return;
        };
        let counters = self.connections.entry(connection.id).or_default();
        let heard = [sample.from_client_at, sample.from_server_at];
        for (position, side) in [Side::Client, Side::Server].into_iter().enumerate() {
            let socket = &mut counters[position];
            let (state, heard_at) = (&states[position], heard[position]);
            if !std::mem::replace(&mut socket.is_known, true)
                && at.since(connection.opened_at) > YOUNG
            {
                socket.begin(state, sample.requests);
            }
            let whose = match side {
                Side::Server => None,
                Side::Client if connection.instance.is_none() => continue,
                Side::Client => connection.instance,
            };
            let path = self.paths.entry((connection.upstream, whose)).or_default();
            path.sent(at, socket.sent(state, sample.requests));
            if let Some((noticed_at, traffic)) = socket.settle(state, at, heard_at) {
                path.resent(at, noticed_at, traffic, connection.id);
            }
        }
    }
}

impl Counters {
    /// What came before is not known.
    fn begin(&mut self, state: &TcpState, requests: u64) {
        self.segments = state.segments;
        self.requests = requests;
        self.retransmits = state.retransmits;
        self.settled = (state.retransmits, state.duplicates);
    }

    /// Segments sent since the last sample; where the kernel does not count them, a request takes about one.
    fn sent(&mut self, state: &TcpState, requests: u64) -> u64 {
        let segments = state.segments.saturating_sub(self.segments);
        let asked = requests.saturating_sub(self.requests);
        self.segments = state.segments;
        self.requests = requests;
        if state.segments > 0 {
            u64::from(segments)
        } else {
            asked
        }
    }

    /// Takes account of retransmissions once something arrived after them: when they were noticed, and what they come
    /// to.
    fn settle(
        &mut self,
        state: &TcpState,
        at: Timestamp,
        heard_at: Timestamp,
    ) -> Option<(Timestamp, Traffic)> {
        let settled = self
            .pending_at
            .filter(|pending_at| heard_at > *pending_at)
            .map(|pending_at| {
                let (resent, duplicates) = self.settled;
                // Those of the newest turn may be acknowledged yet.
                let resent = self.retransmits.saturating_sub(resent);
                let duplicates = state.duplicates.saturating_sub(duplicates).min(resent);
                self.settled = (self.retransmits, self.settled.1.saturating_add(duplicates));
                self.pending_at = None;
                let traffic = Traffic {
                    sent: 0,
                    resent: u64::from(resent),
                    lost: u64::from(resent.saturating_sub(duplicates)),
                };
                (pending_at, traffic)
            });
        if state.retransmits > self.retransmits {
            self.retransmits = state.retransmits;
            self.pending_at.get_or_insert(at);
        }
        settled
    }
}

impl Episode {
    fn add(&mut self, other: &Self) {
        self.began_at = self.began_at.min(other.began_at);
        self.traffic.add(other.traffic);
        self.connections.extend(&other.connections);
    }

    fn told(&self, upstream: UpstreamId, side: Side, at: Timestamp) -> Signal {
        let kind = SignalKind::Retransmits {
            count: self.traffic.resent,
            lost: self.traffic.lost,
            sent: self.traffic.sent,
            connections: self.connections.len() as u64,
            is_client_side: side == Side::Client,
        };
        about_upstream(upstream, self.began_at, at, kind)
    }
}
