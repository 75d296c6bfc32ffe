//! The second reading: connections followed, and reasoned about as if they were live.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::flow::{Flow, Shared};
use super::segment::{Link, Seen, Segment, segment};
use super::stream::ROOM;
use super::{Counts, Findings};
use crate::clients::{Directory, DirectoryLimits, UpstreamSpec};
use crate::live::PoolPicture;
use crate::observer::{Observer, Sequencer};
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{Entry, UpstreamId, Witness};
use crate::wire::{Direction, Scratch};

/// Time that passes after the last packet: what ended together in the last moments is judged once no more of it
/// comes. Less than any silence that means something.
const SETTLING: Duration = Duration::from_millis(1400);

/// Connections that are followed at once, the ones that ended a moment ago included.
const FLOWS_MAX: usize = 100_000;

/// Client instances with a row of their own.
const CLIENTS_MAX: usize = 10_000;

/// Time between two looks at every connection, as in the proxy.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Time without a packet that is lived through; of a longer pause only this much, because nothing was captured in it.
const PAUSE_MAX: Duration = Duration::from_mins(2);

/// Keeps what is told until it is put in order.
#[derive(Debug, Default)]
struct Collector {
    entries: Mutex<Vec<Entry>>,
}

impl Collector {
    fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Witness for Collector {
    fn saw(&self, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry);
    }
}

/// Follows connections.
#[derive(Debug)]
pub(super) struct Analysis {
    servers: BTreeMap<SocketAddr, UpstreamId>,
    names: Vec<UpstreamName>,
    directory: Arc<Directory>,
    collector: Arc<Collector>,
    sequencer: Sequencer,
    observer: Observer,
    /// By server and client.
    flows: BTreeMap<(UpstreamId, SocketAddr), Flow>,
    shared: Shared,
    counts: Counts,
    began_at: Option<Timestamp>,
    now: Timestamp,
    looked_at: Timestamp,
    /// A packet whose moment nothing bears out yet.
    doubted: Option<(Timestamp, Link, Vec<u8>)>,
    jumps: u64,
}

impl Analysis {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let names: Vec<UpstreamName> = servers
            .iter()
            .map(|server| UpstreamName {
                name: server.to_string(),
                address: server.to_string(),
            })
            .collect();
        let specs = names.iter().map(|name| UpstreamSpec {
            name: name.name.clone(),
            listen: name.address.clone(),
            address: name.address.clone(),
            advertised: Vec::new(),
        });
        let collector = Arc::new(Collector::default());
        let limits = DirectoryLimits {
            clients_max: CLIENTS_MAX,
            client_ttl: Duration::MAX,
        };
        let witness: Arc<dyn Witness> = Arc::<Collector>::clone(&collector);
        let directory = Directory::with_witness(limits, specs.collect(), Some(witness));
        Self {
            servers: servers.iter().copied().zip((0..).map(UpstreamId)).collect(),
            observer: Observer::new(names.clone()),
            names,
            directory: Arc::new(directory),
            collector,
            sequencer: Sequencer::default(),
            flows: BTreeMap::new(),
            shared: Shared {
                scratch: Scratch::default(),
                room: ROOM,
            },
            counts: Counts::default(),
            began_at: None,
            now: Timestamp::default(),
            looked_at: Timestamp::default(),
            doubted: None,
            jumps: 0,
        }
    }

    /// A packet was captured. One whose moment lies far from the one before waits for the next: when that one agrees,
    /// there was a pause, or the clock was set; otherwise its moment is wrong.
    pub(super) fn packet(&mut self, at: Timestamp, link: Link, data: &[u8]) {
        self.counts.packets = self.counts.packets.saturating_add(1);
        self.began_at.get_or_insert(at);
        if self.counts.packets == 1 {
            self.begin(at);
        }
        if let Some((moment, link, data)) = self.doubted.take() {
            if is_far(moment, at) {
                self.take(self.now, link, &data);
            } else {
                self.pass_pause(moment);
                self.take(moment, link, &data);
            }
        }
        if is_far(at, self.now) {
            self.jumps = self.jumps.saturating_add(1);
            self.doubted = Some((at, link, data.to_vec()));
        } else {
            self.take(at, link, data);
        }
    }

    fn take(&mut self, at: Timestamp, link: Link, data: &[u8]) {
        self.live_until(at);
        match segment(link, data) {
            Seen::Segment(segment) => self.segment(&segment),
            Seen::Other => {}
            Seen::Unreadable => self.counts.unreadable = self.counts.unreadable.saturating_add(1),
        }
        self.tell();
    }

    /// Everything was read.
    pub(super) fn finish(mut self, mut warnings: Vec<String>) -> Findings {
        if let Some((at, link, data)) = self.doubted.take() {
            self.pass_pause(at);
            self.take(at, link, &data);
        }
        self.look();
        self.collect();
        let mut news = Vec::new();
        self.sequencer
            .tell_until(self.now + SETTLING, &mut self.observer, &mut news, |_| {});
        let open = self.flows.values().filter_map(Flow::has_holes);
        let holes = u64::try_from(open.filter(|has_holes| *has_holes).count());
        self.counts.with_holes = self
            .counts
            .with_holes
            .saturating_add(holes.unwrap_or(u64::MAX));
        self.warn(&mut warnings);
        // Before the connections that are still open are dropped.
        let snapshot = self.directory.snapshot(self.now, false);
        let named = |incident: Arc<crate::diagnose::Incident>| {
            let name = self.names.get(usize::from(incident.upstream.0));
            let name = name.map_or_else(String::new, |name| name.name.clone());
            (incident, name)
        };
        Findings {
            counts: self.counts,
            span: self.began_at.map(|began_at| (began_at, self.now)),
            incidents: self.observer.incidents().into_iter().map(named).collect(),
            pools: PoolPicture::of(&self.observer, self.now),
            snapshot,
            warnings,
        }
    }

    fn warn(&self, warnings: &mut Vec<String>) {
        let counts = self.counts;
        let mut warn = |count: u64, what: &str| {
            if count > 0 {
                warnings.push(format!("{count} {what}"));
            }
        };
        warn(
            counts.begun_before,
            "connections began before the capture: who opened them may not be known",
        );
        warn(
            counts.with_holes,
            "connections have packets that were not captured: they could not be decoded to their end",
        );
        warn(
            counts.unreadable,
            "packets could not be read: unknown link type, fragmented, or cut within their headers",
        );
        warn(
            counts.untracked,
            "connections were left out: there were too many at once",
        );
        warn(
            self.jumps,
            "moments lie far from the one before: a pause, a clock that was set, or a damaged file",
        );
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        let server = |addr| self.servers.get(addr).copied();
        // Of two servers that talk to each other the one whose address is known to listen is not the client.
        let (upstream, client, direction) = match (server(&segment.to), server(&segment.from)) {
            (Some(upstream), _) => (upstream, segment.from, Direction::ToServer),
            (None, Some(upstream)) => (upstream, segment.to, Direction::ToClient),
            (None, None) => return,
        };
        self.counts.used = self.counts.used.saturating_add(1);
        let key = (upstream, client);
        if self
            .flows
            .get(&key)
            .is_some_and(|flow| flow.is_other(segment, direction))
            && let Some(flow) = self.flows.remove(&key)
        {
            self.count_holes(&flow);
            flow.replaced(&mut self.shared);
        }
        if !self.flows.contains_key(&key) && !self.open(key, segment, direction) {
            return;
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            let before = flow.has_holes();
            flow.saw(segment, direction, self.now, &mut self.shared);
            // Asked while it lives, because it tells nothing afterwards.
            if before == Some(true) && flow.has_holes().is_none() {
                self.counts.with_holes = self.counts.with_holes.saturating_add(1);
            }
        }
    }

    /// Follows a new connection; false when there is none to follow.
    fn open(
        &mut self,
        key: (UpstreamId, SocketAddr),
        segment: &Segment<'_>,
        direction: Direction,
    ) -> bool {
        // A reset of what is not known tells of nothing that was.
        if segment.rst {
            return false;
        }
        if self.flows.len() >= FLOWS_MAX {
            // Only what begins is counted, because every further segment would be.
            let is_new = segment.syn && !segment.ack;
            self.counts.untracked = self.counts.untracked.saturating_add(is_new.into());
            return false;
        }
        self.counts.connections = self.counts.connections.saturating_add(1);
        self.counts.begun_before = self
            .counts
            .begun_before
            .saturating_add((!segment.syn).into());
        let recorder = self.directory.open(key.0, key.1, self.now);
        let flow = Flow::new(segment, direction, recorder, self.now);
        self.flows.insert(key, flow);
        true
    }

    fn count_holes(&mut self, flow: &Flow) {
        if flow.has_holes() == Some(true) {
            self.counts.with_holes = self.counts.with_holes.saturating_add(1);
        }
    }

    fn begin(&mut self, at: Timestamp) {
        self.now = at;
        self.looked_at = at;
    }

    /// Between now and `at` nothing was captured.
    fn pass_pause(&mut self, at: Timestamp) {
        if at > self.now {
            self.live_until(self.now + PAUSE_MAX);
        }
        let mut news = Vec::new();
        self.sequencer
            .tell_until(self.now, &mut self.observer, &mut news, |_| {});
        // The new one begins here, whatever is told late of what was before.
        self.sequencer = Sequencer::default();
        self.sequencer
            .tell_until(at, &mut self.observer, &mut news, |_| {});
        self.begin(at);
    }

    /// It is `at`, unless it was later already: packets of different processors may be captured out of order.
    fn live_until(&mut self, at: Timestamp) {
        while at.since(self.looked_at) >= SAMPLE_EVERY {
            self.looked_at = self.looked_at + SAMPLE_EVERY;
            self.now = self.now.max(self.looked_at);
            self.look();
            self.tell();
        }
        self.now = self.now.max(at);
    }

    /// Looks at every connection, as the proxy does once a second.
    fn look(&mut self) {
        let Self {
            flows,
            shared,
            counts,
            now,
            ..
        } = self;
        flows.retain(|_, flow| {
            let before = flow.has_holes();
            let is_needed = flow.is_needed(*now, shared);
            if before == Some(true) && flow.has_holes().is_none() {
                counts.with_holes = counts.with_holes.saturating_add(1);
            }
            is_needed
        });
        self.directory.tick(*now);
        let sequencer = &mut self.sequencer;
        // What happened before is told before.
        for entry in self.collector.take() {
            sequencer.push(entry);
        }
        let mut samples = Vec::new();
        self.directory.sample(self.now, |entry| samples.push(entry));
        // The directory has no order of its own.
        samples.sort_by_key(|entry| entry.connection);
        for entry in samples {
            sequencer.push(entry);
        }
    }

    fn collect(&mut self) {
        for entry in self.collector.take() {
            self.sequencer.push(entry);
        }
    }

    fn tell(&mut self) {
        self.collect();
        let mut news = Vec::new();
        self.sequencer
            .advance(self.now, &mut self.observer, &mut news, |_| {});
    }
}

/// Whether one moment does not follow from the other.
fn is_far(one: Timestamp, other: Timestamp) -> bool {
    one.distance(other) > PAUSE_MAX
}
