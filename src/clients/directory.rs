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

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;

use super::attribution::ClientKey;
use super::client::{ClientCell, Unjudged};
use super::connection::ConnectionCell;
use super::recorder::Recorder;
use super::roles::{Family, Sibling, heartbeat};
use super::upstream::{ListenerNames, UpstreamCell};
use super::{ClientId, ConnectionId, DirectoryRow, UpstreamId, UpstreamSpec, lock};
use crate::connection::{OpaqueReason, Role, ServerFacts};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, Opened, Witness};

/// Limits of what a [`Directory`] remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryLimits {
    /// Client instances with a row of their own.
    pub clients_max: usize,
    /// Time without a connection after which a client instance is forgotten.
    pub client_ttl: Duration,
}

/// When a connection that ended undecided is judged: what its client did on other sockets before has been read.
const JUDGED_AFTER: Duration = Duration::from_secs(1);

/// Siblings looked at when a connection ends undecided, and such connections waiting for their judgement.
const SIBLINGS_MAX: usize = 1024;

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
    /// Is told everything that changes what is known about connections.
    pub(super) witness: Option<Arc<dyn Witness>>,
}

#[derive(Debug, Default)]
struct Table {
    clients: BTreeMap<ClientKey, Place>,
    tracked: usize,
    shelters: usize,
    clients_started: u64,
}

#[derive(Debug)]
struct Place {
    cell: Arc<ClientCell>,
    /// Something was counted here; otherwise it is a shelter.
    is_tracked: bool,
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
        for cell in &self.connections {
            if let Some(sample) = cell.changed_sample() {
                tell(Entry {
                    at,
                    connection: cell.id,
                    fact: Fact::Sampled(sample),
                });
            }
        }
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
        at: Timestamp,
    ) {
        let ending = connection.sibling();
        client
            .lifetimes
            .record_duration(at.since(connection.opened_at));
        if !is_postponed(&ending, connection, client, at) {
            let role = final_role(&ending, connection, client, at);
            count_ended(&ending, role, connection, client);
        }
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

impl Table {
    fn next_client(&mut self) -> ClientId {
        self.clients_started += 1;
        ClientId(self.clients_started)
    }

    /// The place of `key`, made for showing only when there is none yet; `None` when there is no room.
    fn shelter(
        &mut self,
        key: ClientKey,
        clients_max: usize,
        at: Timestamp,
    ) -> Option<Arc<ClientCell>> {
        if let Some(place) = self.clients.get(&key) {
            return Some(Arc::clone(&place.cell));
        }
        if self.shelters >= clients_max {
            return None;
        }
        self.shelters += 1;
        Some(self.add(key, false, at))
    }

    /// The place of `key` among the tracked ones; `None` when there is no room.
    fn claim(
        &mut self,
        key: ClientKey,
        clients_max: usize,
        at: Timestamp,
    ) -> Option<Arc<ClientCell>> {
        let has_room = self.tracked < clients_max;
        if let Some(place) = self.clients.get_mut(&key) {
            if place.is_tracked {
                return Some(Arc::clone(&place.cell));
            }
            if has_room {
                place.is_tracked = true;
                self.shelters = self.shelters.saturating_sub(1);
                self.tracked += 1;
                return Some(Arc::clone(&place.cell));
            }
            return None;
        }
        if !has_room {
            return None;
        }
        self.tracked += 1;
        Some(self.add(key, true, at))
    }

    fn add(&mut self, key: ClientKey, is_tracked: bool, at: Timestamp) -> Arc<ClientCell> {
        let id = self.next_client();
        let cell = Arc::new(ClientCell::new(id, key.upstream, Some(key.clone()), at));
        self.clients.insert(
            key,
            Place {
                cell: Arc::clone(&cell),
                is_tracked,
            },
        );
        cell
    }

    /// A connection left `cell`: a shelter without connections vanishes.
    fn leave(&mut self, cell: &ClientCell) {
        let Some(key) = &cell.key else {
            return;
        };
        if let Slot::Occupied(place) = self.clients.entry(key.clone())
            && !place.get().is_tracked
            && place.get().cell.open_count() == 0
        {
            place.remove();
            self.shelters = self.shelters.saturating_sub(1);
        }
    }
}

/// The connections that may say what `connection` was for. The work for one ending is bounded: of a client with
/// very many connections its oldest ones (monitors of long-lived clients) and those opened next to this one.
fn siblings_of(
    connection: &ConnectionCell,
    client: &ClientCell,
    members: &BTreeMap<ConnectionId, Arc<ConnectionCell>>,
) -> Vec<Sibling> {
    if client.key.is_none() {
        // The overflow gathers strangers.
        return vec![connection.sibling()];
    }
    let mut siblings: Vec<Sibling> = if members.len() <= SIBLINGS_MAX {
        members.values().map(|member| member.sibling()).collect()
    } else {
        let oldest = members.values().take(SIBLINGS_MAX / 4);
        let before = members.range(..connection.id).rev().take(SIBLINGS_MAX / 4);
        let after = members.range(connection.id..).take(SIBLINGS_MAX / 2);
        let near = before.chain(after).map(|(_, member)| member);
        oldest.chain(near).map(|member| member.sibling()).collect()
    };
    siblings.sort_unstable_by_key(|sibling| sibling.id);
    siblings.dedup_by_key(|sibling| sibling.id);
    siblings
}

/// Counts a connection by what it was for.
fn count_ended(ending: &Sibling, role: Role, connection: &ConnectionCell, client: &ClientCell) {
    if matches!(role, Role::Application | Role::Tool | Role::Unknown) {
        let operations = connection.operations.load(Ordering::Relaxed);
        client.requests_per_connection.record(operations);
    }
    connection.ended_pooled(ending.is_pooled(role));
}

/// Puts a connection aside whose role the other endings of this moment will tell: sockets that a client closes
/// together are read by different workers, in any order.
fn is_postponed(
    ending: &Sibling,
    connection: &Arc<ConnectionCell>,
    client: &ClientCell,
    at: Timestamp,
) -> bool {
    // The overflow gathers strangers.
    if client.key.is_none() || !ending.is_silent() || ending.was_found_pooled {
        return false;
    }
    let mut unjudged = lock(&client.unjudged);
    if unjudged.len() >= SIBLINGS_MAX {
        return false;
    }
    unjudged.push(Unjudged {
        connection: Arc::clone(connection),
        sibling: *ending,
        ended_at: at,
    });
    true
}

/// Judges and counts what was put aside long enough ago, in the order of opening.
pub(super) fn judge_ended(client: &ClientCell, at: Timestamp) {
    let mut unjudged = lock(&client.unjudged);
    let is_due = |one: &mut Unjudged| at.since(one.ended_at) >= JUDGED_AFTER;
    let mut due: Vec<Unjudged> = unjudged.extract_if(.., is_due).collect();
    let Some(first) = due.first() else {
        return;
    };
    let mut siblings = siblings_of(&first.connection, client, &lock(&client.members));
    let ended = due.iter().chain(unjudged.iter());
    siblings.extend(ended.map(|one| one.sibling));
    due.sort_by_key(|one| (one.sibling.opened_at, one.sibling.id));
    for one in due {
        let mut departed = lock(&client.departed);
        let family = Family {
            siblings: &siblings,
            hints: *lock(&client.hints),
            heartbeat: heartbeat(&siblings, client.heartbeat()),
            at: one.ended_at,
        };
        let role = family.final_role(&one.sibling, &departed);
        departed.ended(&one.sibling, role, one.ended_at);
        siblings.retain(|sibling| sibling.id != one.sibling.id);
        count_ended(&one.sibling, role, &one.connection, client);
    }
}

/// Decides what a connection was for, and remembers what its siblings need to know of that.
fn final_role(
    ending: &Sibling,
    connection: &ConnectionCell,
    client: &ClientCell,
    at: Timestamp,
) -> Role {
    let mut departed = lock(&client.departed);
    departed.expire(at);
    let siblings: Vec<Sibling> = {
        let members = lock(&client.members);
        match ending.told {
            Role::Unknown if ending.is_silent() => siblings_of(connection, client, &members),
            // All that matters is whether there is a streaming monitor.
            Role::RoundTripMonitor => members
                .values()
                .find(|member| member.told_role() == Role::Monitor)
                .map(|member| member.sibling())
                .into_iter()
                .collect(),
            // Nothing its siblings could say matters.
            Role::Unknown
            | Role::Application
            | Role::Monitor
            | Role::Tool
            | Role::Probe
            | Role::Member => Vec::new(),
        }
    };
    let family = Family {
        siblings: &siblings,
        hints: *lock(&client.hints),
        heartbeat: heartbeat(&siblings, client.heartbeat()),
        at,
    };
    let role = family.final_role(ending, &departed);
    departed.ended(ending, role, at);
    role
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{ClientRow, Snapshot};
    use crate::connection::{
        ClientMetadata, CloseReason, CursorEffect, Ending, Exchange, Facts, Initiator, Manner,
        Observation, Phase, State,
    };
    use crate::wire::{Command, Direction};

    fn second(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(1_000_000 + seconds)
    }

    fn directory(clients_max: usize) -> Arc<Directory> {
        let limits = DirectoryLimits {
            clients_max,
            client_ttl: Duration::from_mins(15),
        };
        let spec = UpstreamSpec {
            name: "db".to_owned(),
            listen: "127.0.0.1:27018".to_owned(),
            address: "127.0.0.1:27017".to_owned(),
            advertised: Vec::new(),
        };
        Arc::new(Directory::new(limits, vec![spec]))
    }

    fn peer(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 40_000))
    }

    fn open(directory: &Arc<Directory>, host: u8) -> Recorder {
        directory.open(UpstreamId(0), peer(host), second(0))
    }

    fn introduce(recorder: &mut Recorder, app: &str) {
        recorder.request_seen(second(0), Command::Hello, 1);
        let metadata = ClientMetadata {
            application: app.to_owned(),
            driver_name: "PyMongo|c".to_owned(),
            ..ClientMetadata::default()
        };
        recorder.observed(
            second(0),
            Observation::HandshakeSeen {
                client: Box::new(metadata),
                request_id: 1,
            },
        );
        recorder.activity_changed(second(0), State::Idle, 0);
    }

    fn end(recorder: Recorder, seconds: u64) {
        recorder.ended(clean(), second(seconds));
    }

    fn clean() -> Ending {
        Ending {
            initiator: Initiator::Client,
            manner: Manner::Fin,
            phase: Phase::Idle,
            after_failed_authentication: false,
        }
    }

    fn row<'a>(snapshot: &'a Snapshot, address: &str, app: &str) -> &'a ClientRow {
        snapshot
            .clients
            .iter()
            .find(|row| &*row.address == address && &*row.app == app)
            .unwrap_or_else(|| panic!("no row of {address} {app}: {:?}", names(snapshot)))
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        let rows = snapshot.clients.iter();
        rows.map(|row| format!("{}/{}", row.address, row.app))
            .collect()
    }

    fn open_count(row: &ClientRow) -> u64 {
        row.by_state.iter().sum()
    }

    #[test]
    fn a_connection_moves_to_its_owner_once_and_takes_its_bytes_along() {
        let directory = directory(10);
        let mut recorder = open(&directory, 1);
        recorder.bytes_forwarded(Direction::ToServer, 300, second(0));

        let before = directory.snapshot(second(1), true);
        let shelter = row(&before, "10.0.0.1", "");
        assert_eq!((open_count(shelter), shelter.opened), (1, 0));
        assert_eq!(shelter.bytes, [0, 0], "nothing is counted in a shelter");
        assert_eq!(before.upstreams[0].opened, 1);
        assert_eq!(before.directory.tracked, 0);

        introduce(&mut recorder, "orders");
        recorder.bytes_forwarded(Direction::ToClient, 50, second(2));
        let after = directory.snapshot(second(2), true);
        assert_eq!(names(&after), ["10.0.0.1/orders"]);
        let owner = row(&after, "10.0.0.1", "orders");
        assert_eq!((open_count(owner), owner.opened), (1, 1));
        assert_eq!(owner.bytes, [300, 50]);
        assert_eq!(owner.requests, [(Command::Hello, 1)]);
        assert_eq!(after.connections[0].client, owner.id);
        assert_eq!(after.directory.tracked, 1);
        end(recorder, 3);
    }

    #[test]
    fn a_connection_that_ends_unread_is_counted_without_a_name() {
        let directory = directory(10);
        let recorder = open(&directory, 1);
        end(recorder, 5);
        let snapshot = directory.snapshot(second(6), true);
        let unread = row(&snapshot, "10.0.0.1", "");
        assert_eq!((open_count(unread), unread.opened), (0, 1));
        assert_eq!(unread.closed, [(Initiator::Client, CloseReason::Clean, 1)]);
        assert_eq!(unread.lifetimes.sum.to_bits(), 5.0_f64.to_bits());
        assert_eq!(unread.pooled_opened, 0);
        assert!(snapshot.connections.is_empty());
    }

    #[test]
    fn shelters_take_no_place_from_real_clients() {
        let directory = directory(3);
        let mut recorders: Vec<_> = (1..=3).map(|host| open(&directory, host)).collect();
        for recorder in &mut recorders {
            introduce(recorder, "app");
        }
        let waiting: Vec<_> = (11..=19).map(|host| open(&directory, host)).collect();
        let snapshot = directory.snapshot(second(1), false);
        assert_eq!(snapshot.directory.tracked, 3);
        assert_eq!(snapshot.directory.overflowed, 0);
        assert_eq!(snapshot.clients.len(), 7, "3 clients, 3 shelters, other");
        assert_eq!(open_count(row(&snapshot, "other", "other")), 6);
        drop(waiting);
        let snapshot = directory.snapshot(second(1), false);
        assert_eq!(names(&snapshot).len(), 4);
        assert_eq!(row(&snapshot, "other", "other").opened, 9);
    }

    #[test]
    fn hostile_names_overflow_into_one_row() {
        let directory = directory(250);
        let mut recorders = Vec::new();
        for number in 0..6000 {
            let mut recorder = open(&directory, 1);
            introduce(
                &mut recorder,
                &format!("{number}\n\"}}\\ \u{202e}{}", "x".repeat(4096)),
            );
            recorders.push(recorder);
        }
        let snapshot = directory.snapshot(second(1), false);
        assert_eq!(snapshot.clients.len(), 251);
        assert_eq!(snapshot.directory.overflowed, 5750);
        let other = snapshot.clients.last().unwrap();
        assert_eq!((&*other.address, &*other.app), ("other", "other"));
        assert_eq!(open_count(other), 5750);
        for row in &snapshot.clients {
            assert!(row.app.len() <= 64, "{}", row.app);
            assert!(!row.app.contains(['\n', '"', '\\', '\u{202e}']));
        }
        // Whoever is in the overflow stays there for life, also when places are free.
        let late = recorders.pop().unwrap();
        for recorder in recorders {
            end(recorder, 2);
        }
        directory.tick(second(3000));
        let snapshot = directory.snapshot(second(3000), false);
        assert_eq!(names(&snapshot), ["other/other"]);
        assert_eq!(open_count(&snapshot.clients[0]), 1);
        end(late, 3001);
        assert_eq!(directory.connection_count(), 0);
    }

    #[test]
    fn a_client_expires_after_its_time_without_connections() {
        let directory = directory(10);
        let mut first = open(&directory, 1);
        introduce(&mut first, "orders");
        directory.tick(second(5000));
        assert_eq!(directory.snapshot(second(5000), false).clients.len(), 1);
        end(first, 5000);
        directory.tick(second(5900));
        assert_eq!(directory.snapshot(second(5900), false).clients.len(), 1);
        directory.tick(second(5901));
        let snapshot = directory.snapshot(second(5901), false);
        assert!(snapshot.clients.is_empty());
        assert_eq!(snapshot.directory.expired, 1);
        assert_eq!(snapshot.directory.tracked, 0);
    }

    #[test]
    fn a_dropped_recorder_leaves_no_gauge_behind() {
        let directory = directory(10);
        let mut recorder = open(&directory, 1);
        introduce(&mut recorder, "orders");
        recorder.activity_changed(second(1), State::Active, 1);
        recorder.bytes_forwarded(Direction::ToServer, 1, second(4));
        drop(recorder);
        let snapshot = directory.snapshot(second(9), true);
        let client = row(&snapshot, "10.0.0.1", "orders");
        assert_eq!(open_count(client), 0);
        assert_eq!(client.in_flight, 0);
        assert_eq!(client.busy, Duration::from_secs(3));
        assert_eq!(
            client.closed,
            [(Initiator::Proxy, CloseReason::Internal, 1)]
        );
        assert_eq!(snapshot.upstreams[0].endings[0].0.phase, Phase::InExchange);
    }

    #[test]
    fn waiting_for_data_is_no_latency() {
        let directory = directory(10);
        let mut opener = open(&directory, 1);
        let mut other = open(&directory, 1);
        introduce(&mut opener, "stream");
        introduce(&mut other, "stream");
        let exchange = |command, cursor, seconds: u64| Exchange {
            command,
            started_at: second(10),
            ended_at: second(10 + seconds),
            is_ok: true,
            is_timed: true,
            cursor,
        };
        let begun = |id, awaits_data| CursorEffect::Opened { id, awaits_data };
        opener.exchange_ended(&exchange(Command::Aggregate, begun(1, true), 1));
        opener.exchange_ended(&exchange(Command::Find, begun(2, false), 1));
        let continued = |id| CursorEffect::Continued { id };
        other.exchange_ended(&exchange(Command::GetMore, continued(1), 60));
        other.exchange_ended(&exchange(Command::GetMore, continued(2), 2));
        let snapshot = directory.snapshot(second(20), false);
        let client = row(&snapshot, "10.0.0.1", "stream");
        assert_eq!(client.command_times.count, 3);
        assert_eq!(client.cursors_open, 2);
        let getmores: Vec<_> = snapshot.upstreams[0]
            .command_times
            .iter()
            .filter(|(command, _)| *command == Command::GetMore)
            .map(|(_, times)| times.count)
            .collect();
        assert_eq!(getmores, [1]);
        other.exchange_ended(&exchange(
            Command::GetMore,
            CursorEffect::Exhausted { id: 2 },
            1,
        ));
        other.cursor_killed(second(21), 1);
        let snapshot = directory.snapshot(second(21), false);
        assert_eq!(row(&snapshot, "10.0.0.1", "stream").cursors_open, 0);
    }

    #[test]
    fn a_client_is_shown_by_what_its_connections_are_for() {
        let directory = directory(10);
        let mut members: Vec<_> = (0..6).map(|_| open(&directory, 1)).collect();
        for member in &mut members {
            introduce(member, "orders");
        }
        let told = [
            Role::Monitor,
            Role::RoundTripMonitor,
            Role::Application,
            Role::Application,
        ];
        for (member, role) in members.iter_mut().zip(told) {
            member.observed(second(1), Observation::RoleFound(role));
        }
        members[2].activity_changed(second(1), State::Active, 3);

        let snapshot = directory.snapshot(second(3), true);
        let client = row(&snapshot, "10.0.0.1", "orders");
        assert_eq!(client.mongo_clients, Some(1));
        assert_eq!(client.by_state[State::Monitoring.index()], 2);
        assert_eq!((client.pooled_active, client.pooled_idle), (1, 1));
        assert_eq!((client.pooled_opened, client.pooled_closed), (2, 0));
        assert_eq!(client.undecided, 2);
        assert_eq!(client.in_flight, 3);
        assert_eq!(client.longest_idle, Some(Duration::from_secs(3)));
        assert_eq!(snapshot.connections[0].state, State::Monitoring);
        assert_eq!(snapshot.connections[5].role, Role::Unknown);

        let snapshot = directory.snapshot(second(13), true);
        let client = row(&snapshot, "10.0.0.1", "orders");
        assert_eq!((client.pooled_active, client.pooled_idle), (1, 3));
        assert_eq!((client.pooled_opened, client.pooled_closed), (4, 0));
        assert_eq!(client.undecided, 0);
        assert_eq!(snapshot.connections[5].role, Role::Application);

        for member in members {
            end(member, 14);
        }
        let snapshot = directory.snapshot(second(15), true);
        let client = row(&snapshot, "10.0.0.1", "orders");
        assert_eq!((client.pooled_opened, client.pooled_closed), (4, 4));
        assert_eq!(client.requests_per_connection.count, 4);
        assert_eq!(open_count(client), 0);
    }

    #[test]
    fn what_was_counted_as_pooled_stays_counted() {
        let directory = directory(10);
        let mut members: Vec<_> = (0..3).map(|_| open(&directory, 1)).collect();
        for member in &mut members {
            introduce(member, "orders");
        }
        members[0].observed(second(0), Observation::RoleFound(Role::Monitor));
        let counts = |at| {
            let snapshot = directory.snapshot(second(at), false);
            let client = row(&snapshot, "10.0.0.1", "orders");
            (
                client.pooled_opened,
                client.pooled_closed,
                client.pooled_idle,
            )
        };
        assert_eq!(counts(29), (0, 0, 0));
        // Longer silent than its driver's monitors ever are, unless the whole process stood still.
        assert_eq!(counts(31), (2, 0, 2));
        members[1].observed(second(32), Observation::RoleFound(Role::RoundTripMonitor));
        assert_eq!(counts(32), (2, 1, 1));
        // A picture that was begun before, and is done after the others.
        assert_eq!(counts(5), (2, 1, 1));
        for member in members {
            end(member, 33);
        }
        assert_eq!(counts(34), (2, 2, 0));
    }

    #[test]
    fn a_slow_heartbeat_leaves_silence_longer_undecided() {
        let directory = directory(10);
        let mut monitors: Vec<_> = (0..2).map(|_| open(&directory, 1)).collect();
        let mut silent = open(&directory, 1);
        for (monitor, interval) in monitors.iter_mut().zip([60, 10]) {
            introduce(monitor, "orders");
            monitor.observed(second(0), Observation::RoleFound(Role::Monitor));
            let interval = Duration::from_secs(interval);
            monitor.observed(second(0), Observation::HeartbeatInterval(interval));
        }
        introduce(&mut silent, "orders");
        let pooled = |at| directory.snapshot(second(at), false).clients[0].pooled_opened;
        assert_eq!((pooled(31), pooled(179), pooled(181)), (0, 0, 1));
    }

    #[test]
    fn transactions_are_counted_by_session_whatever_the_connection() {
        let directory = directory(10);
        let mut first = open(&directory, 1);
        let mut other = open(&directory, 1);
        introduce(&mut first, "orders");
        introduce(&mut other, "orders");
        let open_transactions = || {
            let snapshot = directory.snapshot(second(9), false);
            row(&snapshot, "10.0.0.1", "orders").transactions_open
        };
        for session in [1, 2] {
            let lsid = Some([session; 16]);
            first.observed(second(0), Observation::TransactionStarted { lsid });
        }
        assert_eq!(open_transactions(), 2);
        let lsid = Some([1; 16]);
        other.observed(second(1), Observation::TransactionEnded { lsid });
        assert_eq!(open_transactions(), 1);
        directory.tick(second(61));
        assert_eq!(open_transactions(), 0);
    }

    #[test]
    fn a_connection_without_hello_or_opaque_settles_without_a_name() {
        let directory = directory(10);
        let mut bare = open(&directory, 1);
        bare.request_seen(second(0), Command::Ping, 1);
        let mut opaque = open(&directory, 2);
        opaque.observed(second(0), Observation::TurnedOpaque(OpaqueReason::Tls));
        let snapshot = directory.snapshot(second(1), true);
        assert_eq!(row(&snapshot, "10.0.0.1", "").opened, 1);
        assert_eq!(row(&snapshot, "10.0.0.2", "").opened, 1);
        assert_eq!(snapshot.directory.tracked, 2);
        assert_eq!(snapshot.directory.opaque[0], 1);
        assert_eq!(snapshot.connections[1].opaque, Some(OpaqueReason::Tls));
    }

    #[test]
    fn thousands_of_silent_connections_end_in_bounded_work() {
        let directory = directory(10);
        let mut monitor = open(&directory, 1);
        introduce(&mut monitor, "orders");
        monitor.observed(second(0), Observation::RoleFound(Role::Monitor));
        let mut silent = Vec::new();
        for _ in 0..3 * SIBLINGS_MAX {
            let mut recorder = open(&directory, 1);
            introduce(&mut recorder, "orders");
            silent.push(recorder);
        }
        for recorder in silent.drain(1..).rev() {
            end(recorder, 5);
        }
        let snapshot = directory.snapshot(second(6), false);
        let closed = row(&snapshot, "10.0.0.1", "orders").pooled_closed;
        assert_eq!(closed, 3 * 1024 - 1, "the first is the round-trip monitor");
    }

    #[test]
    fn counts_stay_whole_under_threads() {
        let directory = directory(8);
        let threads: Vec<_> = (0..4_u8)
            .map(|thread| {
                let directory = Arc::clone(&directory);
                std::thread::spawn(move || {
                    for round in 0..250_u64 {
                        let mut recorder = open(&directory, thread);
                        introduce(&mut recorder, &format!("app-{}", round % 4));
                        recorder.request_seen(second(1), Command::Find, 1);
                        recorder.activity_changed(second(1), State::Active, 1);
                        recorder.bytes_forwarded(Direction::ToServer, 7, second(1));
                        recorder.activity_changed(second(2), State::Idle, 0);
                        if round % 2 == 0 {
                            end(recorder, 3);
                        }
                        if round % 50 == 0 {
                            directory.tick(second(3));
                            directory.snapshot(second(3), true);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let snapshot = directory.snapshot(second(4), true);
        let clients = snapshot.clients.iter();
        let sum = |value: fn(&ClientRow) -> u64| clients.clone().map(value).sum::<u64>();
        assert_eq!(sum(|row| row.opened), 1000);
        assert_eq!(
            sum(|row| row.closed.iter().map(|(_, _, count)| count).sum()),
            1000
        );
        assert_eq!(sum(|row| row.bytes[0]), 7000);
        assert_eq!(sum(|row| row.busy.as_secs()), 1000);
        assert_eq!(sum(open_count), 0);
        assert_eq!(snapshot.upstreams[0].opened, 1000);
        assert_eq!(snapshot.upstreams[0].by_state.iter().sum::<u64>(), 0);
        assert_eq!(directory.connection_count(), 0);
        assert_eq!(snapshot.directory.tracked, 8);
        assert!(snapshot.connections.is_empty());
    }
}
