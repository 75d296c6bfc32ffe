//! Signals made by hand, and tables that know whom they are about.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::{ClientMetadata, Role, ServerFacts, ServerRole};
use crate::detect::{CloseGroup, Signal, SignalKind, Subject};
use crate::diagnose::{Book, Incident, News};
use crate::pools::{ClearSign, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{ConnectionId, DialFailure, Entry, Fact, Opened, SessionId, UpstreamId};

/// A book, and what it is asked about.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) pools: Pools,
    pub(super) book: Book,
    connections: u64,
}

/// So many milliseconds after the beginning.
pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::default() + Duration::from_hours(500_000) + Duration::from_millis(millis)
}

impl Stage {
    /// Tables of so many upstreams.
    pub(super) fn new(upstreams: usize) -> Self {
        let names = (0..upstreams).map(|number| UpstreamName {
            name: format!("db{number}"),
            address: format!("10.0.0.{number}:27017"),
        });
        Self {
            pools: Pools::new(names.collect()),
            book: Book::default(),
            connections: 0,
        }
    }

    fn tell(&mut self, millis: u64, facts: impl IntoIterator<Item = Fact>) {
        self.connections += 1;
        for fact in facts {
            self.pools.record(&Entry {
                at: at(millis),
                connection: ConnectionId(self.connections),
                fact,
            });
        }
    }

    /// A client instance with a connection to an upstream.
    pub(super) fn instance(&mut self, app: &str, host: u8, upstream: u16) -> InstanceId {
        let peer = ([10, 1, 0, host], 40_000).into();
        self.tell(0, introduction(app, peer, upstream));
        let mut all = self.pools.instances();
        all.find(|one| &*one.app == app && one.address == peer.ip())
            .unwrap()
            .id
    }

    /// So many pooled connections of one mongo client, known by the session that they share.
    pub(super) fn pooled(&mut self, app: &str, host: u8, session: u8, count: u16) {
        self.pooled_at(0, app, host, session, count);
    }

    /// The same, opened so late.
    pub(super) fn pooled_at(&mut self, millis: u64, app: &str, host: u8, session: u8, count: u16) {
        for number in 0..count {
            let port = 41_000 + u16::from(session) * 100 + number;
            let peer = ([10, 1, 0, host], port).into();
            let uses = [
                Fact::RoleFound(Role::Application),
                Fact::SessionUsed(SessionId([session; 16])),
            ];
            let facts = introduction(app, peer, 0).into_iter().chain(uses);
            self.tell(millis, facts);
        }
        self.pools.tick(at(millis + 250));
    }

    /// The server of an upstream is a member of a replica set.
    pub(super) fn member(&mut self, upstream: u16, set: &str) {
        let server = ServerFacts {
            set_name: Some(set.to_owned()),
            role: ServerRole::Primary,
            ..ServerFacts::default()
        };
        let opened = Opened {
            upstream: UpstreamId(upstream),
            peer: ([10, 1, 0, 250], 40_000).into(),
        };
        self.tell(0, [Fact::Opened(opened), Fact::Described(Box::new(server))]);
    }

    /// A dial to an upstream is refused, and nobody dials afterwards.
    pub(super) fn unreachable(&mut self, millis: u64, upstream: u16) {
        let opened = Opened {
            upstream: UpstreamId(upstream),
            peer: ([10, 1, 0, 251], 40_000).into(),
        };
        let failed = Fact::DialFailed(DialFailure::Refused);
        self.tell(millis, [Fact::Opened(opened), failed]);
    }

    /// Shows signals to the book as on a tick.
    pub(super) fn consider(&mut self, millis: u64, signals: impl Into<Vec<Signal>>) -> Vec<News> {
        let mut news = Vec::new();
        self.book
            .consider(signals.into(), &self.pools, at(millis), &mut news);
        news
    }

    /// The incidents that are open.
    pub(super) fn open(&self) -> Vec<Arc<Incident>> {
        let all = self.book.incidents();
        all.filter(|incident| incident.closed_at.is_none())
            .cloned()
            .collect()
    }
}

/// How a connection begins.
fn introduction(app: &str, peer: std::net::SocketAddr, upstream: u16) -> [Fact; 5] {
    let client = ClientMetadata {
        application: app.to_owned(),
        driver_name: "nodejs".to_owned(),
        driver_version: "6.22.0".to_owned(),
        ..ClientMetadata::default()
    };
    [
        Fact::Opened(Opened {
            upstream: UpstreamId(upstream),
            peer,
        }),
        Fact::Dialled(Duration::from_millis(1)),
        Fact::Introduced {
            client: Box::new(client),
            request_id: 1,
        },
        Fact::HelloAnswered(Duration::from_millis(1)),
        Fact::Ready(Duration::from_millis(1)),
    ]
}

/// About a whole upstream.
pub(super) fn wide(millis: u64, upstream: u16, kind: SignalKind) -> Signal {
    Signal {
        at: at(millis),
        seen_at: at(millis),
        subject: Subject {
            upstream: UpstreamId(upstream),
            instance: None,
            mongo_client: None,
        },
        among: Vec::new(),
        kind,
    }
}

/// About one instance.
pub(super) fn of(millis: u64, upstream: u16, instance: InstanceId, kind: SignalKind) -> Signal {
    let mut signal = wide(millis, upstream, kind);
    signal.subject.instance = Some(instance);
    signal
}

/// The same, told again later.
pub(super) fn again(mut signal: Signal, millis: u64) -> Signal {
    signal.seen_at = at(millis);
    signal
}

/// The server's side ended everything.
pub(super) fn cut() -> SignalKind {
    SignalKind::ServerClosed {
        group: CloseGroup {
            closed: 10,
            of: 10,
            monitors: 2,
            in_flight: 4,
            requests_lost: 4,
            span: Duration::from_millis(3),
            ..CloseGroup::default()
        },
        instances: 2,
        instances_before: 2,
        followed: 0,
        is_client_side: false,
    }
}

/// Dials are refused: with [`cut`] it is a crash, 94 % sure; alone 55 %.
pub(super) fn refused(count: u64) -> SignalKind {
    SignalKind::DialsFail {
        failure: DialFailure::Refused,
        count,
        instances: 2,
    }
}

/// 93 % sure from three on, and trouble that lasts.
pub(super) fn credentials(count: u64) -> SignalKind {
    SignalKind::AuthenticationFails {
        count,
        user: None,
        had_succeeded: false,
    }
}

/// A storm, 85 % sure.
pub(super) fn storm() -> SignalKind {
    SignalKind::ReconnectBurst {
        from: None,
        opened: 400,
        lost: 5,
        lasted: Duration::from_secs(4),
        baseline: 0.1,
    }
}

/// A pool was cleared, and so many connections went with it.
pub(super) const fn cleared(closed: u64) -> SignalKind {
    SignalKind::PoolCleared {
        sign: ClearSign::ConnectionBroke,
        closed,
    }
}

/// Connections are opened for an operation each.
pub(super) const fn no_reuse() -> SignalKind {
    SignalKind::NoReuse {
        opened: 12,
        closed: 3,
        operations: 12,
        needless: 11,
        window: Duration::from_millis(1400),
    }
}

/// As many connections were opened as were lost times `times`, in half a second.
pub(super) const fn reopened(lost: u64, times: u64) -> SignalKind {
    SignalKind::PoolReopened {
        opened: lost * times,
        lost,
        lasted: Duration::from_millis(500),
        baseline: 0.01,
    }
}

/// Replies with an error.
pub(super) const fn replies(code: i32, count: u64) -> SignalKind {
    SignalKind::ErrorReplies {
        code,
        count,
        instances: 2,
    }
}

/// The server ends new connections before it answers, while it keeps so many.
pub(super) const fn turned_away(count: u64, open: u64) -> SignalKind {
    SignalKind::TurnedAway { count, open }
}

/// Health checks: healthy, 95 % sure.
pub(super) fn probes() -> SignalKind {
    SignalKind::Probes {
        count: 30,
        every: Some(Duration::from_secs(1)),
    }
}

/// Operations take longer: 68 % sure, and trouble that lasts.
pub(super) fn slow() -> SignalKind {
    SignalKind::SlowOperations {
        now: Duration::from_secs(2),
        before: Duration::from_millis(2),
        in_flight: 5,
        hello: None,
    }
}

/// A process of an application came; there were others.
pub(super) fn appeared() -> SignalKind {
    SignalKind::InstanceAppeared { others: 1 }
}
