//! Taking a [`Snapshot`]: one walk over the open connections, then one over clients and upstreams.
//!
//! Gauges by state are computed here rather than kept, so that they can neither drift nor leak.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client::ClientCell;
use super::connection::ConnectionCell;
use super::directory::{Directory, judge_ended};
use super::latency::Histogram;
use super::roles::{Families, Sibling};
use super::tcp::mean_rtt;
use super::upstream::UpstreamCell;
use super::{
    ClientId, ClientRow, ConnectionRow, Snapshot, StateCounts, UpstreamId, UpstreamRow, count, lock,
};
use crate::connection::{Role, State};
use crate::time::Timestamp;

/// An open connection as seen in the walk.
struct Seen {
    cell: Arc<ConnectionCell>,
    owner: Arc<ClientCell>,
    sibling: Sibling,
    state: State,
    role: Role,
    is_pooled: bool,
    /// Its client has left it.
    has_departed: bool,
}

impl Seen {
    /// A driver's connection, ready for use, of which only its siblings or time can tell what it is for.
    fn is_undecided(&self) -> bool {
        self.role == Role::Unknown
            && self.sibling.is_silent()
            && self.sibling.is_answered
            && !self.has_departed
    }
}

impl Directory {
    /// Everything known at the moment `at`, with or without a row for each connection.
    pub fn snapshot(&self, at: Timestamp, with_connections: bool) -> Snapshot {
        for cell in self.client_cells() {
            judge_ended(&cell, at);
        }
        let mut seen = self.walk();
        // After the walk, so that every owner that is still in the table is found there.
        let mut cells = self.client_cells();
        let mut by_owner: BTreeMap<ClientId, Vec<usize>> = BTreeMap::new();
        for (position, connection) in seen.iter().enumerate() {
            by_owner
                .entry(connection.owner.id)
                .or_default()
                .push(position);
        }
        for positions in by_owner.values() {
            let is_overflow = positions
                .first()
                .and_then(|position| seen.get(*position))
                .is_some_and(|one| one.owner.key.is_none());
            // The overflow gathers strangers: each is judged alone.
            let family_len = if is_overflow {
                1
            } else {
                positions.len().max(1)
            };
            for family in positions.chunks(family_len) {
                decide_roles(&mut seen, family, at);
            }
        }
        add_vanished_owners(&mut cells, &seen);
        let clients = cells
            .iter()
            .map(|cell| {
                let members: Vec<&Seen> = by_owner
                    .get(&cell.id)
                    .into_iter()
                    .flatten()
                    .filter_map(|position| seen.get(*position))
                    .collect();
                self.client_row(cell, &members, at)
            })
            .collect();
        let connections = if with_connections {
            seen.iter().map(|one| self.connection_row(one)).collect()
        } else {
            Vec::new()
        };
        let upstreams = self
            .upstreams
            .iter()
            .map(|upstream| upstream_row(upstream, &seen))
            .collect();
        Snapshot {
            at,
            clients,
            connections,
            upstreams,
            directory: self.row(),
        }
    }

    /// All open connections, oldest first.
    fn walk(&self) -> Vec<Seen> {
        let mut cells = self.open_cells();
        cells.sort_unstable_by_key(|cell| cell.id);
        cells
            .into_iter()
            .map(|cell| {
                let (owner, traits) = {
                    let facts = lock(&cell.facts);
                    (Arc::clone(&facts.owner), facts.traits)
                };
                Seen {
                    owner,
                    sibling: cell.sibling_with(traits),
                    state: cell.state(),
                    role: Role::Unknown,
                    is_pooled: false,
                    has_departed: cell.has_departed(),
                    cell,
                }
            })
            .collect()
    }

    fn upstream_name(&self, upstream: UpstreamId) -> Arc<str> {
        self.upstreams
            .get(usize::from(upstream.0))
            .map_or_else(|| "".into(), |upstream| Arc::clone(&upstream.name))
    }

    fn client_row(&self, cell: &ClientCell, members: &[&Seen], at: Timestamp) -> ClientRow {
        let command_times = cell.command_times.read();
        let pooled = |state| {
            let members = members.iter();
            count(members.filter(|one| one.is_pooled && one.state == state))
        };
        // In this order, so that no connection is shown as closed that was never shown as opened.
        let pooled_closed = cell.pooled_closed.load(Ordering::Relaxed);
        let busy = Duration::from_nanos(cell.busy_nanos.load(Ordering::Relaxed));
        ClientRow {
            id: cell.id,
            upstream: cell.upstream,
            upstream_name: self.upstream_name(cell.upstream),
            address: Arc::clone(&cell.address),
            app: cell.app(),
            first_seen: cell.first_seen,
            last_seen: members
                .iter()
                .map(|one| one.cell.last_activity())
                .fold(cell.last_seen(), Timestamp::max),
            by_state: by_state(members.iter().copied()),
            by_role: by_role(members),
            pooled_active: pooled(State::Active),
            pooled_idle: pooled(State::Idle),
            undecided: count(members.iter().filter(|one| one.is_undecided())),
            undecided_ended: count(lock(&cell.unjudged).iter()),
            peak: cell.peaks.last(),
            opened: cell.opened.load(Ordering::Relaxed),
            pooled_opened: cell.pooled_opened.load(Ordering::Relaxed),
            closed: cell.closed.read(),
            pooled_closed,
            lifetimes: cell.lifetimes.row(),
            requests_per_connection: cell.requests_per_connection.row(),
            handshakes: cell.handshakes.row(),
            p50: command_times.percentile(50),
            p95: command_times.percentile(95),
            p99: command_times.percentile(99),
            command_times: command_times.row(),
            requests: cell.requests.read(),
            in_flight: members
                .iter()
                .map(|one| u64::from(one.cell.in_flight()))
                .sum(),
            errors: cell.errors.read(),
            bytes: cell
                .bytes
                .each_ref()
                .map(|bytes| bytes.load(Ordering::Relaxed)),
            tcp_rtt: mean_rtt(members.iter().map(|one| &*one.cell)),
            tcp_retransmits: cell
                .retransmits
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            busy: members
                .iter()
                .fold(busy, |busy, one| busy.saturating_add(one.cell.busy_for(at))),
            oldest: members.iter().map(|one| at.since(one.cell.opened_at)).max(),
            longest_idle: members
                .iter()
                .filter(|one| one.is_pooled && one.state == State::Idle)
                .map(|one| at.since(one.cell.state_since()))
                .max(),
            cursors_open: lock(&cell.cursors).open_count(at),
            transactions_open: lock(&cell.transactions).open_count(at),
            authentications: lock(&cell.authentications)
                .iter()
                .map(|((mechanism, result), count)| (*mechanism, *result, *count))
                .collect(),
            driver: lock(&cell.driver).clone(),
            mongo_clients: mongo_clients(cell, members),
        }
    }

    fn connection_row(&self, one: &Seen) -> ConnectionRow {
        let cell = &one.cell;
        let facts = lock(&cell.facts);
        let driver = facts.driver();
        ConnectionRow {
            id: cell.id,
            client: one.owner.id,
            upstream_name: self.upstream_name(one.owner.upstream),
            peer: cell.peer,
            server_side: facts.server_side,
            app: one.owner.app(),
            state: one.state,
            state_since: cell.state_since(),
            role: one.role,
            opened_at: cell.opened_at,
            last_activity: cell.last_activity(),
            requests: cell.requests.load(Ordering::Relaxed),
            in_flight: cell.in_flight(),
            bytes: cell
                .bytes
                .each_ref()
                .map(|bytes| bytes.load(Ordering::Relaxed)),
            last_command: cell.last_command(),
            driver: driver.name,
            driver_version: driver.version,
            server_connection_id: facts.server_connection_id,
            mechanism: facts.mechanism,
            user: facts.user.clone(),
            compressor: facts.compressor,
            opaque: facts.opaque,
        }
    }
}

/// Decides the roles of one client's connections, and the states that follow from them.
fn decide_roles(seen: &mut [Seen], positions: &[usize], at: Timestamp) {
    let Some(owner) = positions.first().and_then(|position| seen.get(*position)) else {
        return;
    };
    let siblings = positions.iter().filter_map(|position| seen.get(*position));
    let present = siblings.filter(|one| !one.has_departed);
    let families = Families::new(
        present.map(|one| &one.sibling),
        *lock(&owner.owner.hints),
        owner.owner.heartbeat(),
    );
    for position in positions {
        if let Some(one) = seen.get_mut(*position) {
            let role = families.role(&one.sibling, at);
            one.role = role;
            one.state = shown_state(one.state, role, one.cell.in_flight());
            let is_pooled = one.sibling.is_pooled(role);
            one.is_pooled = one.cell.found_pooled(is_pooled, one.sibling.told);
        }
    }
}

/// The state that fits the role: the tracker may not know yet that it follows a monitor, or take for one
/// what its siblings prove to be pooled.
fn shown_state(told: State, role: Role, in_flight: u32) -> State {
    match (told, role.is_monitor()) {
        (State::Idle | State::Active, true) => State::Monitoring,
        (State::Monitoring, false) if in_flight > 0 => State::Active,
        (State::Monitoring, false) => State::Idle,
        (state, _) => state,
    }
}

/// Adds owners that left the table between the two walks, in their place.
fn add_vanished_owners(cells: &mut Vec<Arc<ClientCell>>, seen: &[Seen]) {
    let mut known: Vec<ClientId> = cells.iter().map(|cell| cell.id).collect();
    known.sort_unstable();
    let mut has_changed = false;
    for one in seen {
        if let Err(position) = known.binary_search(&one.owner.id) {
            known.insert(position, one.owner.id);
            cells.push(Arc::clone(&one.owner));
            has_changed = true;
        }
    }
    if has_changed {
        cells.sort_by(|a, b| {
            let keys = (a.key.is_none(), &a.key, a.upstream);
            keys.cmp(&(b.key.is_none(), &b.key, b.upstream))
        });
    }
}

fn by_state<'a>(members: impl Iterator<Item = &'a Seen>) -> StateCounts {
    let mut counts = StateCounts::default();
    for one in members {
        if let Some(count) = counts.get_mut(one.state.index()) {
            *count += 1;
        }
    }
    counts
}

fn by_role(members: &[&Seen]) -> [u64; Role::ALL.len()] {
    Role::ALL.map(|role| count(members.iter().filter(|one| one.role == role)))
}

/// Live streaming monitors, otherwise polling ones (a monitor that is not streaming was told as round-trip
/// monitor); `None` when there are none and the driver is not known to have any.
fn mongo_clients(cell: &ClientCell, members: &[&Seen]) -> Option<u64> {
    let present = || members.iter().filter(|one| !one.has_departed);
    let streaming = count(present().filter(|one| one.sibling.told == Role::Monitor));
    if streaming > 0 {
        return Some(streaming);
    }
    let polling = count(present().filter(|one| one.role == Role::Monitor));
    let has_monitors = cell.has_monitors.load(Ordering::Relaxed);
    let lacks_monitors = members
        .iter()
        .any(|one| one.sibling.traits.lacks_monitors());
    if polling > 0 {
        Some(polling)
    } else if has_monitors && !lacks_monitors {
        Some(0)
    } else {
        None
    }
}

fn upstream_row(upstream: &UpstreamCell, seen: &[Seen]) -> UpstreamRow {
    let members = seen.iter().filter(|one| one.owner.upstream == upstream.id);
    let server = lock(&upstream.server);
    UpstreamRow {
        id: upstream.id,
        name: Arc::clone(&upstream.name),
        listen: Arc::clone(&upstream.listen),
        address: Arc::clone(&upstream.address),
        advertised: Arc::clone(&upstream.advertised),
        by_state: by_state(members),
        opened: upstream.opened.load(Ordering::Relaxed),
        closed: upstream.closed.read(),
        endings: lock(&upstream.endings)
            .iter()
            .map(|(ending, count)| (*ending, *count))
            .collect(),
        requests: upstream.requests.read(),
        command_times: upstream.command_time_rows(),
        errors: upstream.errors.read(),
        message_sizes: upstream.message_sizes.each_ref().map(Histogram::row),
        connect_times: upstream.connect_times.row(),
        connect_failures: upstream.connect_failure_rows(),
        server: server.facts.clone(),
        server_version: None,
        role_changes: server.role_changes,
        restarts: server.restarts,
        bypass_names: server.bypass_names.clone(),
    }
}
