//! Who is who: the table of client instances and the table of open connections.
//!
//! ```text
//! accept ────────────▶ shelter: (address, "")        shown only, nothing counted
//! handshake read ────▶ owner:   (address, app)       counted as opened, for life
//!    no place left ──▶ owner:   other                counted, and as overflow
//! ended unread ──────▶ owner:   (address, "")        counted as opened and closed
//! ```
//!
//! A shelter in which nothing was ever counted has no place among the tracked instances and vanishes with its
//! last connection, so as many real clients find a place as the limit says.
//!
//! **Invariant:** at most `clients_max` tracked instances and as many shelters. One lock guards the table; it
//! is taken at accept, handshake and end of a connection, never for an exchange. Connections of the overflow are
//! no siblings: each is judged alone.

mod endings;
mod table;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;

use super::attribution::ClientKey;
use super::client::ClientCell;
use super::connection::ConnectionCell;
use super::recorder::Recorder;
use super::upstream::{ListenerNames, UpstreamCell};
use super::{ConnectionId, DirectoryRow, UpstreamId, UpstreamSpec, lock};
use crate::connection::{Initiator, OpaqueReason, ServerFacts};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, Opened, Witness};

pub(super) use endings::{judge_ended, left};
use table::Table;

/// Limits of what a [`Directory`] remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryLimits {
    /// Client instances with a row of their own.
    pub clients_max: usize,
    /// Time without a connection after which a client instance is forgotten.
    pub client_ttl: Duration,
}

/// All client instances, connections and upstreams.
#[derive(Debug)]
pub struct Directory {
    limits: DirectoryLimits,
    pub(super) upstreams: Vec<Arc<UpstreamCell>>,
    /// The overflow of each upstream, in the same order.
    others: Vec<Arc<ClientCell>>,
    listener_names: ListenerNames,
    table: Mutex<Table>,
    pub(super) connections: DashMap<ConnectionId, Arc<ConnectionCell>>,
    connections_started: AtomicU64,
    overflowed: AtomicU64,
    expired: AtomicU64,
    opaque: [AtomicU64; OpaqueReason::ALL.len()],
    untracked: AtomicU64,
    /// When counters are looked at next, in nanoseconds.
    look_due: AtomicU64,
    /// Is told everything that changes what is known about connections.
    pub(super) witness: Option<Arc<dyn Witness>>,
}

impl Directory {
    /// An empty directory; an [`UpstreamId`] is a position in `upstreams`.
    pub fn new(limits: DirectoryLimits, upstreams: Vec<UpstreamSpec>) -> Self {
        Self::with_witness(limits, upstreams, None)
    }

    /// The same, and `witness` is told everything that changes what is known about connections.
    pub fn with_witness(
        limits: DirectoryLimits,
        upstreams: Vec<UpstreamSpec>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Self {
        let mut table = Table::default();
        let listener_names = ListenerNames::new(&upstreams);
        let upstreams: Vec<_> = upstreams
            .into_iter()
            .zip(0_u16..)
            .map(|(spec, position)| Arc::new(UpstreamCell::new(UpstreamId(position), &spec)))
            .collect();
        let others = upstreams
            .iter()
            .map(|upstream| {
                let id = table.next_client();
                Arc::new(ClientCell::new(id, upstream.id, None, Timestamp::default()))
            })
            .collect();
        Self {
            limits,
            upstreams,
            others,
            listener_names,
            table: Mutex::new(table),
            connections: DashMap::new(),
            connections_started: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            opaque: Default::default(),
            untracked: AtomicU64::new(0),
            look_due: AtomicU64::new(0),
            witness,
        }
    }

    /// A connection was accepted; counts it.
    ///
    /// # Panics
    ///
    /// When `upstream` is not a position in the list the directory was made with.
    pub fn open(
        self: &Arc<Self>,
        upstream: UpstreamId,
        peer: SocketAddr,
        at: Timestamp,
    ) -> Recorder {
        #[expect(
            clippy::expect_used,
            reason = "upstream ids are given out by the configuration the directory was made from"
        )]
        let upstream_cell = self
            .upstreams
            .get(usize::from(upstream.0))
            .expect("upstream ids are positions in the configured list");
        upstream_cell.opened.fetch_add(1, Ordering::Relaxed);
        let number = self.connections_started.fetch_add(1, Ordering::Relaxed) + 1;
        let id = ConnectionId(number);
        if let Some(witness) = &self.witness {
            let fact = Fact::Opened(Opened { upstream, peer });
            witness.saw(Entry {
                at,
                connection: id,
                fact,
            });
        }
        let key = ClientKey::new(upstream, peer.ip(), "");
        let mut table = lock(&self.table);
        let client = table
            .shelter(key, self.limits.clients_max, at)
            .unwrap_or_else(|| self.other(upstream_cell));
        let connection = Arc::new(ConnectionCell::new(id, peer, at, Arc::clone(&client)));
        client.adopt(&connection, at);
        self.connections.insert(id, Arc::clone(&connection));
        drop(table);
        Recorder::new(
            Arc::clone(self),
            connection,
            client,
            Arc::clone(upstream_cell),
        )
    }

    /// Closes minutes, forgets clients without connections, and cursors and transactions the server has
    /// forgotten. To be called about once a second.
    pub fn tick(&self, at: Timestamp) {
        let mut expired = 0;
        let mut table = lock(&self.table);
        table.clients.retain(|_, place| {
            let idle = at.since(place.cell.last_seen());
            let is_over = place.cell.open_count() == 0 && idle > self.limits.client_ttl;
            expired += usize::from(is_over);
            !is_over
        });
        table.tracked = table.tracked.saturating_sub(expired);
        let cells: Vec<_> = table
            .clients
            .values()
            .map(|place| Arc::clone(&place.cell))
            .collect();
        drop(table);
        let expired = u64::try_from(expired).unwrap_or(u64::MAX);
        self.expired.fetch_add(expired, Ordering::Relaxed);
        for cell in cells.iter().chain(&self.others) {
            judge_ended(cell, at);
            cell.tick(at);
        }
    }

    /// Tells the counters of every open connection whose counters changed since the last time. To be called about
    /// once a second.
    pub fn sample(&self, at: Timestamp, mut tell: impl FnMut(Entry)) {
        for cell in self.open_cells() {
            if let Some(sample) = cell.changed_sample() {
                tell(Entry {
                    at,
                    connection: cell.id,
                    fact: Fact::Sampled(sample),
                });
            }
        }
    }

    /// Counters will be looked at `at`: whoever knows more of connections when it asks for it had better ask before.
    pub fn announce_look(&self, at: Timestamp) {
        self.look_due.store(at.as_nanos(), Ordering::Relaxed);
    }

    /// When counters are looked at next, or were to be: the beginning of time when nobody looks.
    pub fn next_look(&self) -> Timestamp {
        Timestamp::from_nanos(self.look_due.load(Ordering::Relaxed))
    }

    /// Every open connection, in no order. Whoever opens or ends one waits only until they are listed, not until each
    /// was looked at.
    pub(super) fn open_cells(&self) -> Vec<Arc<ConnectionCell>> {
        let cells = self.connections.iter();
        cells.map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Facts the witness could not take.
    pub fn observations_lost(&self) -> u64 {
        self.witness.as_ref().map_or(0, |witness| witness.lost())
    }

    /// For each upstream, in configured order, the names it announces that do not lead through this proxy.
    pub fn bypass_names(&self) -> Vec<Vec<String>> {
        let names = |upstream: &Arc<UpstreamCell>| lock(&upstream.server).bypass_names.clone();
        self.upstreams.iter().map(names).collect()
    }

    /// Connections open right now.
    pub fn connection_count(&self) -> u64 {
        u64::try_from(self.connections.len()).unwrap_or(u64::MAX)
    }

    /// Cursors and transactions that were not remembered because a client had too many.
    pub fn untracked_count(&self) -> u64 {
        self.untracked.load(Ordering::Relaxed)
    }

    /// Finds the owner of `connection`, moves it there and counts it as opened.
    pub(super) fn settle(
        &self,
        connection: &Arc<ConnectionCell>,
        shelter: &Arc<ClientCell>,
        upstream: UpstreamId,
        app: &str,
        at: Timestamp,
    ) -> Arc<ClientCell> {
        let key = ClientKey::new(upstream, connection.peer.ip(), app);
        let mut table = lock(&self.table);
        let owner = table
            .claim(key, self.limits.clients_max, at)
            .unwrap_or_else(|| {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                self.others
                    .get(usize::from(upstream.0))
                    .map_or_else(|| Arc::clone(shelter), Arc::clone)
            });
        owner.opened.fetch_add(1, Ordering::Relaxed);
        if owner.id != shelter.id {
            owner.adopt(connection, at);
            shelter.release(connection.id, at);
            lock(&connection.facts).owner = Arc::clone(&owner);
            table.leave(shelter);
        }
        owner
    }

    /// The connection ended; `client` is its owner.
    pub(super) fn depart(
        &self,
        connection: &Arc<ConnectionCell>,
        client: &Arc<ClientCell>,
        initiator: Initiator,
        at: Timestamp,
    ) {
        client
            .lifetimes
            .record_duration(at.since(connection.opened_at));
        left(connection, client, initiator, at);
        let mut table = lock(&self.table);
        self.connections.remove(&connection.id);
        client.release(connection.id, at);
        table.leave(client);
    }

    pub(super) fn server_described(
        &self,
        upstream: &UpstreamCell,
        at: Timestamp,
        server: ServerFacts,
    ) {
        lock(&upstream.server).described(at, server, &self.listener_names);
    }

    pub(super) fn turned_opaque(&self, reason: OpaqueReason) {
        let count = OpaqueReason::ALL
            .iter()
            .position(|known| *known == reason)
            .and_then(|position| self.opaque.get(position));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn untracked_one(&self) {
        self.untracked.fetch_add(1, Ordering::Relaxed);
    }

    /// Every client instance: tracked ones and shelters in the order of their keys, then the overflow in use.
    pub(super) fn client_cells(&self) -> Vec<Arc<ClientCell>> {
        let table = lock(&self.table);
        let used_others = self
            .others
            .iter()
            .filter(|other| other.opened.load(Ordering::Relaxed) > 0 || other.open_count() > 0);
        table
            .clients
            .values()
            .map(|place| &place.cell)
            .chain(used_others)
            .map(Arc::clone)
            .collect()
    }

    pub(super) fn row(&self) -> DirectoryRow {
        let tracked = lock(&self.table).tracked;
        DirectoryRow {
            tracked: u64::try_from(tracked).unwrap_or(u64::MAX),
            limit: u64::try_from(self.limits.clients_max).unwrap_or(u64::MAX),
            overflowed: self.overflowed.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            opaque: std::array::from_fn(|position| {
                self.opaque
                    .get(position)
                    .map_or(0, |count| count.load(Ordering::Relaxed))
            }),
        }
    }

    fn other(&self, upstream: &UpstreamCell) -> Arc<ClientCell> {
        #[expect(
            clippy::expect_used,
            reason = "both lists are made together and never change"
        )]
        let other = self
            .others
            .get(usize::from(upstream.id.0))
            .expect("every upstream has an overflow");
        Arc::clone(other)
    }
}

#[cfg(test)]
mod tests;
