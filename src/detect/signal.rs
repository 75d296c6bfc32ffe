//! The findings of detectors.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::connection::ServerRole;
use crate::pools::{ClearSign, Connection, InstanceId, MongoClientId};
use crate::time::Timestamp;
use crate::timeline::{Commands, DialFailure, UpstreamId};

/// What shows that connections are of different mongo clients of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeakSign {
    /// Monitors, and how the process numbers requests.
    Monitors,
    /// Each is asked by itself how the server is, which a client does by one connection of its pool at a time.
    Hellos,
    /// Only that they are more than the processes of a service: each numbers requests for itself.
    Number,
}

/// A finding. A detector that learns more of the same episode tells it again with the same `at` and subject; the
/// newer telling replaces the older.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// When what it tells of began: the first event, not the moment it was understood.
    pub at: Timestamp,
    /// When it was told.
    pub seen_at: Timestamp,
    /// Whom it is about.
    pub subject: Subject,
    /// The instances it concerns, where they are several of those connected and not all; otherwise empty.
    pub among: Vec<InstanceId>,
    /// What was found.
    pub kind: SignalKind,
}

impl Signal {
    /// The same about these instances, where `connected` had more to lose: one of several is the subject.
    #[must_use]
    pub fn among(mut self, concerned: &BTreeSet<InstanceId>, connected: usize) -> Self {
        if concerned.is_empty() || concerned.len() >= connected {
            return self;
        }
        if concerned.len() == 1 {
            self.subject.instance = concerned.first().copied();
        } else {
            self.among = concerned.iter().copied().collect();
        }
        self
    }

    /// Whether it concerns an instance; one that names none concerns all.
    pub fn concerns(&self, instance: InstanceId) -> bool {
        if let Some(subject) = self.subject.instance {
            return instance == subject;
        }
        self.among.is_empty() || self.among.contains(&instance)
    }

    /// Whether both are tellings of one episode.
    pub fn tells_of(&self, other: &Self) -> bool {
        self.at == other.at && self.subject == other.subject && self.kind.is_like(&other.kind)
    }
}

/// Whom a signal is about. What is `None` is not narrowed down: without an instance it is the whole upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// The upstream.
    pub upstream: UpstreamId,
    /// The client instance.
    pub instance: Option<InstanceId>,
    /// Its mongo client.
    pub mongo_client: Option<MongoClientId>,
}

/// Connections that ended together, within a fraction of a second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloseGroup {
    /// Connections that ended.
    pub closed: u64,
    /// Of so many that were open before.
    pub of: u64,
    /// Monitors among them.
    pub monitors: u64,
    /// Monitors still open afterwards.
    pub monitors_left: u64,
    /// Connections with an unanswered request of the application.
    pub in_flight: u64,
    /// Unanswered requests of the application on them.
    pub requests_lost: u64,
    /// Those of them that were read to their end, by command.
    pub commands_lost: Commands,
    /// Pooled connections that had carried operations and lay idle.
    pub idle: u64,
    /// Ended by a reset.
    pub resets: u64,
    /// Ended before their first hello was answered.
    pub in_handshake: u64,
    /// From the first end to the last.
    pub span: Duration,
    /// The shortest and the longest time without a byte before the end, of pooled connections.
    pub idle_ages: Option<(Duration, Duration)>,
    /// `endSessions` was seen within a second before.
    pub has_said_goodbye: bool,
}

/// A connection that was used so shortly before is in the middle of its traffic.
const HOT: Duration = Duration::from_millis(250);

/// A client that has its connections taken away in the middle of its traffic dials again within this.
const REDIALS_WITHIN: Duration = Duration::from_millis(300);

impl CloseGroup {
    /// A connection of the application ended in the middle of a request.
    pub(super) fn add_in_flight(&mut self, connection: &Connection) {
        self.in_flight += 1;
        self.requests_lost += u64::from(connection.last.in_flight.max(1));
        self.commands_lost.join(&connection.unanswered);
    }

    /// The client let them go itself: it was in the middle of its traffic, and did not dial at once. `since` is the
    /// last end, `dialled_at` the first dial after it. The kernel resets what the process had not read.
    pub fn was_let_go(&self, since: Timestamp, dialled_at: Timestamp) -> bool {
        let was_hot = self.idle_ages.is_some_and(|(_, longest)| longest < HOT);
        self.monitors == 0 && was_hot && dialled_at.since(since) > REDIALS_WITHIN
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalKind {
    // --- how connections end ---
    /// The server, or something between, ended connections of an upstream (subject without instance) or of one
    /// instance (with).
    ServerClosed {
        /// The connections.
        group: CloseGroup,
        /// Instances that lost connections.
        instances: u64,
        /// Instances that were connected before.
        instances_before: u64,
        /// Connections that their clients closed in the same moment.
        followed: u64,
        /// The resets came from the client's side, on every connection of the instance.
        is_client_side: bool,
    },
    /// An instance, or one of its mongo clients, ended connections itself.
    ClientClosed {
        /// The connections.
        group: CloseGroup,
        /// Nothing of the subject was left, or only what follows by itself.
        is_whole: bool,
        /// Pooled connections that were still busy while everything else was being closed.
        still_busy: u64,
        /// Transactions that were open on them.
        transactions: u64,
        /// Pooled connections of the subject that were used in the second before.
        load: u64,
        /// Age of the subject.
        age: Duration,
        /// The server, the network or credentials were in trouble before.
        is_after_trouble: bool,
        /// A new process of the application came since, or shortly before.
        is_replaced: bool,
        /// The instance has other connections left, or opened new ones since: its process lives.
        is_alive: Option<bool>,
        /// It had Node's legacy pool.
        is_legacy: bool,
        /// It had logical sessions, which a client that is closed in good order ends.
        had_sessions: bool,
    },
    /// Connections were closed one after the other at the same age without a byte.
    EqualIdleAge {
        /// The age.
        age: Duration,
        /// Difference between the shortest and the longest.
        spread: Duration,
        /// Connections.
        closed: u64,
        /// Those with an unanswered request.
        in_flight: u64,
        /// They were ended by the server's side or by a reset.
        by_server: bool,
        /// The fault became visible at the first use after a pause.
        at_first_use: bool,
        /// How the ages of those with an unanswered request were before it was sent, the shortest and the longest.
        pauses: Option<(Duration, Duration)>,
        /// Requests that the server's host never acknowledged are among the unanswered.
        is_unacknowledged: bool,
    },
    // --- how connections begin ---
    /// Dials to the server fail.
    DialsFail {
        /// Why.
        failure: DialFailure,
        /// How many so far.
        count: u64,
        /// Instances that tried.
        instances: u64,
    },
    /// The server accepts connections and ends them before it answers a hello.
    TurnedAway {
        /// Connections.
        count: u64,
        /// Open connections to the upstream meanwhile, the most that were seen.
        open: u64,
    },
    /// The server accepts connections and leaves the first hello unanswered.
    HandshakesUnanswered {
        /// Connections.
        count: u64,
        /// The longest wait so far.
        waited: Duration,
    },
    /// Connections that do not last are opened without pause, far more often than before.
    ReconnectBurst {
        /// Whence, where all were dialled from one address.
        from: Option<IpAddr>,
        /// Opened in the burst.
        opened: u64,
        /// Lost in it, or just before.
        lost: u64,
        /// How long it has been going on.
        lasted: Duration,
        /// Opened a second, before it.
        baseline: f64,
    },
    /// After trouble an instance opened many connections at once, far more often than before, and they last.
    PoolReopened {
        /// Opened in the burst.
        opened: u64,
        /// Lost before.
        lost: u64,
        /// From the first that was opened to the last.
        lasted: Duration,
        /// Opened a second, before it.
        baseline: f64,
    },
    /// Mongo clients are made again and again.
    ClientChurn {
        /// Mongo clients made in the window.
        created: u64,
        /// Those closed again in it.
        closed: u64,
        /// When so many had been made that it was no start of an application.
        evident_at: Timestamp,
        /// The window.
        window: Duration,
        /// Operations each carried, on the average.
        operations_each: f64,
    },
    /// Mongo clients of one process are made one after the other and left open, slowly.
    ClientLeak {
        /// What tells clients.
        sign: LeakSign,
        /// Open mongo clients when it began.
        from: u64,
        /// Open mongo clients now.
        to: u64,
        /// Those of them that were used when they were new, and not since.
        left: u64,
        /// Mongo clients that were closed meanwhile.
        closed: u64,
        /// Connections that those left behind hold.
        connections: u64,
        /// Monitors among these.
        monitors: u64,
        /// For how long each of those left behind has rested at least.
        rested: Duration,
        /// From the first that was left behind to the newest.
        lasted: Duration,
        /// When it could be known.
        evident_at: Timestamp,
    },
    /// Connections are opened for an operation each, although others are at hand.
    NoReuse {
        /// Pooled connections opened in the window.
        opened: u64,
        /// Those closed again since.
        closed: u64,
        /// Operations that they carried, all together.
        operations: u64,
        /// Those opened while another one had done its work, or after it was closed.
        needless: u64,
        /// From the first to the last.
        window: Duration,
    },
    /// Bare connections that never speak the protocol.
    Probes {
        /// How many.
        count: u64,
        /// Their mean distance in time.
        every: Option<Duration>,
    },
    // --- what the server says ---
    /// Error replies that matter to pools.
    ErrorReplies {
        /// The code.
        code: i32,
        /// Its replies so far.
        count: u64,
        /// Instances that got them.
        instances: u64,
    },
    /// Credentials are refused.
    AuthenticationFails {
        /// Attempts refused.
        count: u64,
        /// `<db>.<user>`, where it is known.
        user: Option<String>,
        /// One succeeded before for this instance.
        had_succeeded: bool,
    },
    /// The server announces another role.
    RoleChanged {
        /// Before.
        from: ServerRole,
        /// Now.
        to: ServerRole,
    },
    /// Another server process answers.
    ServerRestarted,
    // --- silence and slowness ---
    /// Nothing that is sent to clients is acknowledged, and nothing comes from them.
    ClientsUnreached {
        /// Connections with unacknowledged replies.
        connections: u64,
        /// Instances they belong to.
        instances: u64,
        /// Instances that were connected.
        instances_before: u64,
        /// The longest time without an acknowledgement so far.
        waited: Duration,
        /// Segments sent again to them meanwhile.
        retransmits: u64,
        /// An acknowledgement came again at this moment.
        resumed_at: Option<Timestamp>,
    },
    /// Replies are missing on connections of an upstream.
    RepliesMissing {
        /// Connections with an unanswered request and no byte from the server since.
        connections: u64,
        /// Instances they belong to.
        instances: u64,
        /// Those that were in use until then, rather than at the end of a pause, and whose request was not
        /// acknowledged.
        in_use: u64,
        /// Those that waited on for the same reply when the server was heard again.
        still_waiting: u64,
        /// The longest wait so far.
        waited: Duration,
        /// The kernel says whether the server's host acknowledges what was sent; `None` when it was not asked.
        is_acknowledged: Option<bool>,
        /// Monitors are among the silent.
        monitors: u64,
        /// Hellos that were answered late when replies came again.
        late_hellos: u64,
        /// Segments sent again to the server meanwhile.
        retransmits: u64,
        /// Replies came again at this moment.
        resumed_at: Option<Timestamp>,
    },
    /// Segments are sent again.
    Retransmits {
        /// Segments.
        count: u64,
        /// Those that the other side did not have already.
        lost: u64,
        /// All that were sent meanwhile.
        sent: u64,
        /// Sockets on which they were.
        connections: u64,
        /// On the client's side rather than on the server's.
        is_client_side: bool,
    },
    /// The network takes longer than it did.
    RoundTripTime {
        /// Now.
        now: Duration,
        /// Before.
        before: Duration,
        /// On the client's side rather than on the server's.
        is_client_side: bool,
    },
    /// Operations take longer than they did, and the network does not.
    SlowOperations {
        /// Mean time of an operation now, or the age of the oldest that runs.
        now: Duration,
        /// Before.
        before: Duration,
        /// Operations under way.
        in_flight: u64,
        /// How long hellos, which need no work of the server, took lately and before, where they are slow, too.
        hello: Option<(Duration, Duration)>,
    },
    /// A pool grew to several times its size, or every connection of it is in use.
    PoolGrew {
        /// Size before.
        from: u64,
        /// Size now.
        to: u64,
        /// Connections in use now.
        active: u64,
        /// It is as large as it may get.
        is_saturated: bool,
    },
    // --- what pools go through ---
    /// A pool was cleared.
    PoolCleared {
        /// What that is concluded from.
        sign: ClearSign,
        /// Connections that went with it, as far as is known.
        closed: u64,
    },
    /// Connections are closed by their client after the same idle time and replaced, and nothing else.
    IdleRecycling {
        /// The idle time.
        age: Duration,
        /// Connections.
        closed: u64,
    },
    /// A client instance appeared.
    InstanceAppeared {
        /// Instances of the same application before.
        others: u64,
    },
    /// A client instance went.
    InstanceGone {
        /// It said goodbye.
        has_said_goodbye: bool,
        /// It left requests unanswered.
        in_flight: u64,
        /// Instances of the same application still there.
        others: u64,
        /// For how long it had been there.
        age: Duration,
    },
    /// A Node 3.x legacy pool destroyed itself; its log has the message.
    PoolDestroyed(PoolDestroyed),
    /// A client that was at work before trouble has neither dialled nor sent anything since the server is back.
    StaysAway {
        /// For how long.
        silent: Duration,
        /// Connections at work that it lost.
        lost: u64,
        /// Its monitors that are open: its process is there. None tells nothing.
        monitors: u64,
        /// Others that came back meanwhile.
        others_back: u64,
    },
    /// A client that had connections before the trouble has opened none since it ended.
    SilentAfterTrouble {
        /// For how long.
        silent: Duration,
        /// Others came back meanwhile.
        others_back: u64,
        /// Its connections log in when they are opened.
        logs_in: bool,
    },
}

/// A legacy pool of Node's driver that was destroyed, and what its log will say of it. The signal's moment is that
/// of the event on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDestroyed {
    /// What made the driver do it.
    pub trigger: DestroyTrigger,
    /// From when the log will have the message.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Operations that about fail with the message: those that were queued, which leave no trace on the wire.
    pub failed: u64,
    /// Requests that were written, had no answer and will never call back.
    pub hanging: u64,
    /// Those by command, as far as they were read.
    pub hanging_commands: Commands,
}

/// What made a legacy pool destroy itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestroyTrigger {
    /// The application closed its client by force.
    ForcedClose,
    /// The primary crashed, and the driver found its successor.
    PrimaryCrash,
    /// The primary froze, and the driver found its successor, or the primary again.
    PrimaryFreeze,
    /// Socket time-outs came in a row, without a reply between them.
    RepeatedTimeouts,
}

impl DestroyTrigger {
    /// The words for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ForcedClose => "forced close",
            Self::PrimaryCrash => "primary crash",
            Self::PrimaryFreeze => "primary freeze",
            Self::RepeatedTimeouts => "repeated socket time-outs",
        }
    }
}

impl SignalKind {
    /// Whether two findings are tellings of one kind.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}
