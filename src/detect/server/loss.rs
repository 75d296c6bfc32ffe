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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::Detector;
use super::thresholds::{
    LOSS_BY_CHANCE, LOSS_CHANCE, LOSS_OVER, LOSS_SECONDS_MIN, LOSS_SHARE_MIN, LOSS_WINDOW,
    LOSS_WINDOW_LONG, RESENT_BY_CHANCE, RESENT_MIN, RESENT_SHARE_MIN,
};
use super::{Side, Signal, SignalKind, about_upstream, connected_to};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Entry, Fact, Sample, TcpState, UpstreamId};

/// A connection's first counters count from zero when it is so young: it was seen from its beginning.
const YOUNG: Duration = Duration::from_secs(3);

/// Where a path begins to lose, the share of what is lost rises by this at least.
const DENSER: f64 = 1.5;

/// Connections that are told apart in an episode.
const CONNECTIONS_MAX: usize = 512;

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

/// What was sent to one side of an upstream.
#[derive(Debug, Default)]
struct Path {
    /// The newest last; no more than the long window has.
    seconds: VecDeque<Second>,
    episode: Option<Episode>,
    /// When something was found to be sent again last.
    resent_at: Timestamp,
    is_news: bool,
}

#[derive(Debug, Default)]
struct Second {
    number: u64,
    /// When the first that was lost in it was noticed.
    first_at: Option<Timestamp>,
    traffic: Traffic,
    connections: BTreeSet<ConnectionId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    sent: u64,
    /// Sent again.
    resent: u64,
    /// Of those, what the other side did not have already.
    lost: u64,
}

#[derive(Debug, Default)]
struct Episode {
    began_at: Timestamp,
    traffic: Traffic,
    connections: BTreeSet<ConnectionId>,
}

impl Detector for Loss {
    fn record(
        &mut self,
        entry: &Entry,
        connection: &Connection,
        _pools: &Pools,
        _signals: &mut Vec<Signal>,
    ) {
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

impl Traffic {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.resent += other.resent;
        self.lost += other.lost;
    }

    fn resent_share(self) -> f64 {
        float(self.resent) / float(self.sent.max(1))
    }

    /// So much is lost, and chance does not explain it.
    fn is_lossy(self) -> bool {
        let is_lost = is_share(self.lost, self.sent, LOSS_SHARE_MIN)
            && !self.is_chance(self.lost, LOSS_BY_CHANCE);
        // Acknowledgements that are lost make the other side say that it had everything; so do hosts without processor
        // time, but not so often.
        let is_resent = self.resent >= RESENT_MIN
            && is_share(self.resent, self.sent, RESENT_SHARE_MIN)
            && !self.is_chance(self.resent, RESENT_BY_CHANCE);
        is_lost || is_resent
    }

    /// Whether `count` of those sent may well be an accident where a share of `usual` is: the tail of a Poisson
    /// distribution, λᵏ/k!, which bounds it where k is well above λ.
    fn is_chance(self, count: u64, usual: f64) -> bool {
        let expected = float(self.sent) * usual;
        let mut chance = 1.0;
        for position in 1..=count {
            chance *= expected / float(position);
            if chance < LOSS_CHANCE && float(position) > expected {
                return false;
            }
        }
        true
    }
}

fn is_share(count: u64, of: u64, least: f64) -> bool {
    count > 0 && float(count) >= float(of) * least
}

#[expect(clippy::cast_precision_loss, reason = "counts of segments")]
const fn float(count: u64) -> f64 {
    count as f64
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

impl Path {
    /// So much was sent, as a sample of `at` tells.
    fn sent(&mut self, at: Timestamp, count: u64) {
        let traffic = Traffic {
            sent: count,
            ..Traffic::default()
        };
        self.second(at).traffic.add(traffic);
        if let Some(episode) = &mut self.episode {
            episode.traffic.add(traffic);
        }
    }

    /// So much was sent again, and went on.
    fn resent(&mut self, at: Timestamp, noticed_at: Timestamp, traffic: Traffic, id: ConnectionId) {
        let second = self.second(at);
        second.traffic.add(traffic);
        second.first_at.get_or_insert(noticed_at);
        if second.connections.len() < CONNECTIONS_MAX {
            second.connections.insert(id);
        }
        if let Some(episode) = &mut self.episode {
            episode.traffic.add(traffic);
            if episode.connections.len() < CONNECTIONS_MAX {
                episode.connections.insert(id);
            }
        }
        self.resent_at = at;
        self.is_news = true;
    }

    fn second(&mut self, at: Timestamp) -> &mut Second {
        let number = at.as_millis() / 1000;
        let is_new = self.seconds.back().is_none_or(|last| last.number < number);
        if is_new {
            let oldest = number.saturating_sub(LOSS_WINDOW_LONG.as_secs());
            self.seconds.retain(|second| second.number >= oldest);
            self.seconds.push_back(Second {
                number,
                ..Second::default()
            });
        }
        let newest = self.seconds.len() - 1;
        &mut self.seconds[newest]
    }

    /// Looks whether it is lossy; returns whether something new is known of it.
    fn look(&mut self, at: Timestamp) -> bool {
        if self.episode.is_some() && at.since(self.resent_at) > LOSS_OVER {
            // What it was made of must not begin another.
            *self = Self::default();
        }
        let is_news = std::mem::take(&mut self.is_news);
        if is_news && self.episode.is_none() {
            self.episode = [LOSS_WINDOW, LOSS_WINDOW_LONG]
                .into_iter()
                .find_map(|window| self.lossy(window, at));
        }
        is_news && self.episode.is_some()
    }

    /// An episode, where enough was lost within a window that ends at `at`.
    fn lossy(&self, window: Duration, at: Timestamp) -> Option<Episode> {
        let oldest = (at.as_millis() / 1000).saturating_sub(window.as_secs());
        let all: Vec<&Second> = self
            .seconds
            .iter()
            .filter(|second| second.number >= oldest)
            .collect();
        let count = |seconds: &[&Second]| {
            let lossy = seconds.iter().filter(|second| second.first_at.is_some());
            lossy.count()
        };
        let traffic = |seconds: &[&Second]| {
            let mut sum = Traffic::default();
            for second in seconds {
                sum.add(second.traffic);
            }
            sum
        };
        if count(&all) < LOSS_SECONDS_MIN || !traffic(&all).is_lossy() {
            return None;
        }
        // What was lost long before is another story: it began where leaving out more would not make it denser.
        let mut from = &all[..];
        let mut whole = traffic(from).resent_share();
        for (position, _) in all.iter().enumerate() {
            let rest = &all[position..];
            let is_lossy = rest.first().is_some_and(|first| first.first_at.is_some());
            let share = traffic(rest).resent_share();
            if is_lossy && count(rest) >= LOSS_SECONDS_MIN && share >= whole * DENSER {
                (from, whole) = (rest, share);
            }
        }
        Some(Episode {
            began_at: from.iter().find_map(|second| second.first_at)?,
            traffic: traffic(from),
            connections: from
                .iter()
                .flat_map(|second| &second.connections)
                .copied()
                .collect(),
        })
    }
}
