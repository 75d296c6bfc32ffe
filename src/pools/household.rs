//! The connections of one instance, and what each is used for.
//!
//! What a connection's own traffic does not prove, its siblings may: the same rules as for the live counters, see
//! [`crate::clients::roles`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::join::SETTLING;
use super::sessions::{CircleId, Sessions};
use super::{ClearSign, Connection, Connections, MongoClient, MongoClientId, Numbering, RECENT};
use crate::clients::processes::{PROCESSES_MAX, ProcessId, Processes, are_apart};
use crate::clients::roles::{Departures, Families, Hints, Sibling};
use crate::connection::Role;
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact, SessionId, UpstreamId};

/// The interval of checks unless told otherwise (`heartbeatFrequencyMS`).
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);

/// When a connection that ended undecided is judged: what its client did on other sockets is known then.
const JUDGED_AFTER: Duration = Duration::from_secs(1);

/// Signs that wait for their mongo client: those of the seconds until it is known, at a server at its limit.
const UNCLAIMED_MAX: usize = 256;

/// A mongo client is known by then.
const CLAIMED_WITHIN: Duration = Duration::from_secs(4);

/// Connections that ended without showing what they were, remembered for one instance.
const UNSHOWN_MAX: usize = 1024;

/// Unsettled connections beyond which an instance is looked at less often.
const CROWD: usize = 2_000;

/// How often decisions that only time brings are tried.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often sessions are tidied up.
const TIDY_EVERY: Duration = Duration::from_mins(1);

/// What is known of one instance's connections together.
#[derive(Debug, Default)]
pub(super) struct Household {
    /// Open ones, and ended ones that are not forgotten.
    pub(super) members: BTreeSet<ConnectionId>,
    /// Those of them about which something may still be found out.
    pub(super) unsettled: BTreeSet<ConnectionId>,
    /// When connections were opened that ended without showing what they were, in order of their ends; bounded.
    pub(super) unshown: VecDeque<Timestamp>,
    /// Processes of which a connection ended that was to be a monitor and never showed itself, and when the newest did.
    pub(super) unwatched: BTreeMap<ProcessId, Timestamp>,
    /// Open ones, and closed ones that are not forgotten.
    pub(super) clients: BTreeSet<MongoClientId>,
    pub(super) sessions: Sessions,
    pub(super) processes: Processes,
    /// Whose circles of sessions were found to be whose.
    pub(super) circles: BTreeMap<CircleId, MongoClientId>,
    /// A node of the map has room for eleven, and most instances know one server: boxes keep it small.
    by_upstream: BTreeMap<UpstreamId, Box<Neighbours>>,
    /// Signs that the pool of a mongo client was cleared that is not known yet; bounded.
    pub(super) unclaimed: VecDeque<Unclaimed>,
    /// Something changed since it was last looked at.
    pub(super) is_dirty: bool,
    /// When to look again although nothing changes.
    pub(super) look_at: Option<Timestamp>,
    /// When it was looked at last.
    pub(super) looked_at: Timestamp,
    tidied_at: Timestamp,
    /// When its newest connection was introduced or ended.
    pub(super) stirred_at: Timestamp,
}

/// A sign that a pool was cleared which is nobody's yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unclaimed {
    pub(super) upstream: UpstreamId,
    pub(super) at: Timestamp,
    pub(super) sign: ClearSign,
    /// When the connection was opened that it was seen on, and by which process.
    pub(super) opened_at: Timestamp,
    pub(super) process: Option<ProcessId>,
}

/// What connections to one server tell of each other.
#[derive(Debug, Default)]
struct Neighbours {
    hints: Hints,
    departed: Departures,
    heartbeat: Option<Duration>,
}

impl Household {
    /// One of its connections told something.
    pub(super) fn record(&mut self, connection: &mut Connection, at: Timestamp, fact: &Fact) {
        let neighbours = self.by_upstream.entry(connection.upstream).or_default();
        match fact {
            Fact::SessionUsed(session) => {
                let known = connection.circle;
                let (circle, is_news) = self.sessions.used(known, *session, at);
                connection.circle = Some(circle);
                self.is_dirty |= is_news;
            }
            Fact::SessionsEnded(sessions) => {
                for session in sessions {
                    let (circle, _) = self.sessions.used(connection.circle, *session, at);
                    connection.circle = Some(circle);
                }
                self.is_dirty = true;
            }
            Fact::Heartbeat(interval) => neighbours.heartbeat = Some(*interval),
            Fact::Introduced { .. } => {
                let introduction = connection.introduction();
                connection.process =
                    introduction.map(|introduction| self.processes.introduced(introduction));
                let is_apart = connection.numbering == Numbering::CountedApart;
                connection.traits.process = connection.process.filter(|_| is_apart);
                self.members.insert(connection.id);
                self.unsettled.insert(connection.id);
                self.is_dirty = true;
                self.stirred_at = at;
            }
            Fact::RoleFound(_) | Fact::Authenticated(_) => {
                if connection.role == Role::Application {
                    neighbours.hints.pooled(connection.traits);
                }
                self.is_dirty = true;
            }
            Fact::Ended(_) => {
                self.is_dirty = true;
                self.stirred_at = at;
            }
            Fact::HelloAnswered(_) | Fact::TurnedOpaque(_) => self.is_dirty = true,
            Fact::Opened(_)
            | Fact::Dialled(_)
            | Fact::DialFailed(_)
            | Fact::Described(_)
            | Fact::Ready(_)
            | Fact::Failed(_)
            | Fact::TransactionStarted
            | Fact::TransactionEnded
            | Fact::Sampled(_) => {}
        }
    }

    /// So many connections are in motion that looking at all of them with each tick would be most of what there is to
    /// do.
    pub(super) fn is_crowded(&self) -> bool {
        self.unsettled.len() > CROWD
    }

    /// Finds out what each connection is used for. True when some are undecided, so that time may tell.
    pub(super) fn judge(&mut self, connections: &mut Connections, at: Timestamp) -> bool {
        let mut by_upstream: BTreeMap<UpstreamId, Vec<ConnectionId>> = BTreeMap::new();
        for id in &self.unsettled {
            if let Some(connection) = connections.get(id)
                && !connection.is_judged
            {
                by_upstream
                    .entry(connection.upstream)
                    .or_default()
                    .push(*id);
            }
        }
        let mut is_open_question = false;
        for (upstream, ids) in by_upstream {
            let neighbours = self.by_upstream.entry(upstream).or_default();
            is_open_question |= neighbours.judge_open(connections, &ids, at);
            is_open_question |= neighbours.judge_ended(connections, &ids, at);
        }
        is_open_question
    }

    /// Puts aside what is over and understood, so that it need not be looked at again and again.
    pub(super) fn settle(&mut self, connections: &Connections, at: Timestamp) {
        let (unshown, unwatched) = (&mut self.unshown, &mut self.unwatched);
        unwatched.retain(|_, ended_at| at.since(*ended_at) < RECENT);
        self.unsettled.retain(|id| {
            let Some(connection) = connections.get(id) else {
                return false;
            };
            let may_be_placed =
                connection.is_pooled() || connection.found == Role::RoundTripMonitor;
            let is_settled =
                connection.is_judged && (connection.mongo_client.is_some() || !may_be_placed);
            if is_settled && connection.may_be_monitor() {
                unshown.push_back(connection.opened_at);
            }
            if is_settled
                && let Some((process, ended_at)) = connection.was_to_watch()
                && (unwatched.len() < PROCESSES_MAX || unwatched.contains_key(&process))
            {
                unwatched.insert(process, ended_at);
            }
            !is_settled
        });
        let excess = unshown.len().saturating_sub(UNSHOWN_MAX);
        unshown.drain(..excess);
        while unshown
            .front()
            .is_some_and(|opened_at| at.since(*opened_at) >= 2 * SETTLING)
        {
            unshown.pop_front();
        }
    }

    /// A sign that a pool was cleared, whose mongo client is not known yet.
    pub(super) fn leave_unclaimed(&mut self, sign: Unclaimed) {
        if self.unclaimed.len() >= UNCLAIMED_MAX {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back(sign);
    }

    /// Hands such signs over to whoever was there then.
    pub(super) fn claim(
        &mut self,
        clients: &mut BTreeMap<MongoClientId, MongoClient>,
        at: Timestamp,
    ) {
        let ids = &self.clients;
        self.unclaimed.retain(|sign| {
            for id in ids.iter().rev() {
                if let Some(client) = clients.get_mut(id)
                    && client.created_at <= sign.opened_at
                    && !are_apart(client.process, sign.process)
                    && let Some(pool) = client.pools.get_mut(&sign.upstream)
                {
                    pool.was_cleared(sign);
                    return false;
                }
            }
            at.since(sign.at) < CLAIMED_WITHIN
        });
    }

    /// It is time to forget.
    pub(super) fn is_to_be_tidied(&self, at: Timestamp) -> bool {
        at.since(self.tidied_at) >= TIDY_EVERY
    }

    /// Forgets what is over. `holders` are the circles that its mongo clients hold.
    pub(super) fn tidy<'a>(
        &mut self,
        connections: &'a mut Connections,
        holders: impl Iterator<Item = &'a mut CircleId>,
        at: Timestamp,
    ) {
        self.tidied_at = at;
        self.members.retain(|id| connections.contains_key(id));
        let members = &self.members;
        let held = connections
            .iter_mut()
            .filter(|(id, _)| members.contains(id))
            .filter_map(|(_, connection)| connection.circle.as_mut());
        let owned = std::mem::take(&mut self.circles);
        for (circle, client) in owned {
            self.circles.insert(self.sessions.root(circle), client);
        }
        self.sessions.tidy(at, held.chain(holders));
        let remembered = self.sessions.remembered();
        self.circles.retain(|circle, _| remembered.contains(circle));
    }

    /// Uses of sessions that bring the open connections of each circle together again, and all that is remembered of
    /// its sessions with them.
    pub(super) fn session_uses(
        &self,
        connections: &Connections,
    ) -> Vec<(ConnectionId, SessionId, Timestamp)> {
        let mut circles: BTreeMap<CircleId, Circle<'_>> = BTreeMap::new();
        for connection in self.members.iter().filter_map(|id| connections.get(id)) {
            if let Some(circle) = connection.circle
                && connection.is_open()
            {
                let circle = self.sessions.root(circle);
                circles.entry(circle).or_default().open.push(connection);
            }
        }
        for (session, circle, used_at) in self.sessions.known() {
            if let Some(circle) = circles.get_mut(&circle) {
                circle.sessions.push((used_at, session));
            }
        }
        let circles = circles.into_iter();
        circles
            .flat_map(|(id, circle)| circle.session_uses(id))
            .collect()
    }

    /// Nothing is left of it.
    pub(super) fn is_over(&self, at: Timestamp) -> bool {
        self.members.is_empty() && self.clients.is_empty() && at.since(self.stirred_at) > RECENT
    }
}

/// Connections that are open and have sessions in common, and these.
#[derive(Default)]
struct Circle<'a> {
    open: Vec<&'a Connection>,
    /// With the moments at which they were used last.
    sessions: Vec<(Timestamp, SessionId)>,
}

impl Circle<'_> {
    fn session_uses(mut self, id: CircleId) -> Vec<(ConnectionId, SessionId, Timestamp)> {
        self.sessions.sort_unstable();
        let newest = self.sessions.pop();
        let (used_at, common) = newest.unwrap_or((Timestamp::default(), id.stand_in()));
        let told = |connection: &Connection, session: SessionId, used_at: Timestamp| {
            let at = used_at.max(connection.stood_at());
            (connection.id, session, at)
        };
        let open = self.open.iter();
        let mut uses: Vec<_> = open.map(|one| told(one, common, used_at)).collect();
        for (used_at, session) in self.sessions {
            // On one that was there already, where there is one.
            let mut newest_first = self.open.iter().rev();
            let holder = newest_first.find(|one| one.stood_at() <= used_at);
            if let Some(one) = holder.or(self.open.first()) {
                uses.push(told(one, session, used_at));
            }
        }
        uses
    }
}

impl Neighbours {
    fn judge_open(
        &mut self,
        connections: &mut Connections,
        ids: &[ConnectionId],
        at: Timestamp,
    ) -> bool {
        let open = ids.iter().filter_map(|id| connections.get(id));
        let siblings: Vec<Sibling> = open
            .filter(|connection| connection.is_open())
            .map(|connection| connection.sibling())
            .collect();
        let families = self.families(&siblings);
        let mut is_open_question = false;
        for sibling in &siblings {
            let role = families.role(sibling, at);
            is_open_question |= role == Role::Unknown && sibling.is_silent();
            if let Some(connection) = connections.get_mut(&sibling.id) {
                connection.found = role;
                connection.was_found_pooled |= role == Role::Application;
            }
        }
        is_open_question
    }

    /// Judges what ended, in the order of opening. True when some are not due.
    fn judge_ended(
        &mut self,
        connections: &mut Connections,
        ids: &[ConnectionId],
        at: Timestamp,
    ) -> bool {
        let (mut staying, mut silent, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_open_question = false;
        for connection in ids.iter().filter_map(|id| connections.get(id)) {
            let sibling = connection.sibling();
            let Some(end) = connection.ended else {
                staying.push(sibling);
                continue;
            };
            if !sibling.is_silent() {
                told.push((sibling, end.at));
            } else if sibling.was_found_pooled || at.since(end.at) >= JUDGED_AFTER {
                silent.push((sibling, end.at));
            } else {
                is_open_question = true;
                staying.push(sibling);
            }
        }
        // What proves itself speaks first.
        told.sort_unstable_by_key(|(sibling, _)| sibling.order());
        silent.sort_unstable_by_key(|(sibling, _)| sibling.order());
        let leaving = told.iter().chain(&silent).map(|(sibling, _)| sibling);
        let mut families = self.families(staying.iter().chain(leaving));
        for (sibling, ended_at) in told.iter().chain(&silent) {
            self.departed.expire(*ended_at);
            let role = families.final_role(sibling, &self.departed, *ended_at);
            self.departed.ended(sibling, role, *ended_at);
            families.leave(sibling);
            if let Some(connection) = connections.get_mut(&sibling.id) {
                connection.found = role;
                connection.is_judged = true;
            }
        }
        is_open_question
    }

    fn families<'a>(&self, siblings: impl IntoIterator<Item = &'a Sibling>) -> Families {
        let heartbeat = self.heartbeat.unwrap_or(HEARTBEAT_DEFAULT);
        Families::new(siblings, self.hints, heartbeat)
    }
}
