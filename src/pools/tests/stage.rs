//! Timelines made by hand.

use std::time::Duration;

use crate::connection::{
    Ending, ErrorKind, Initiator, Manner, Phase, Role, ServerFacts, ServerRole,
};
use crate::pools::*;
use crate::timeline::{Commands, Ended, ErrorReply, Opened, Sample, SessionId};

/// A driver's name, version and platform.
pub(super) type Driver = (&'static str, &'static str, &'static str);

pub(super) const NODE: Driver = ("nodejs", "6.22.0", "Node.js v20.0.0, LE");
pub(super) const LEGACY: Driver = ("nodejs", "3.6.12", "'Node.js v14.0.0, LE (legacy)");
pub(super) const UNIFIED: Driver = ("nodejs", "3.6.12", "'Node.js v14.0.0, LE (unified)");
pub(super) const PYMONGO: Driver = ("PyMongo|c", "4.20.0|", "CPython 3.11");
pub(super) const OLD_PYMONGO: Driver = ("PyMongo", "3.13.0", "CPython 3.11");
pub(super) const RUST: Driver = ("mongo-rust-driver", "3.9.1", "rustc 1.90");
pub(super) const MONGOC: Driver = ("mongoc", "1.23.1", "cfg=0x");
pub(super) const PHP: Driver = ("mongoc / ext-mongodb:PHP ", "1.23.1 / 1.15.0", "PHP 8.2");
pub(super) const JAVA: Driver = ("mongo-java-driver", "3.6.3", "Java/17");
pub(super) const GO: Driver = ("mongo-go-driver", "v1.8.4", "go1.19.8");

/// Feeds facts to [`Pools`], in the order of their milliseconds.
pub(super) struct Stage {
    pub(super) pools: Pools,
    /// Whoever connects next announces that it will authenticate.
    pub(super) announces_credentials: bool,
    /// The client of the connection that ends next left it then.
    pub(super) left_at: Option<Timestamp>,
    now: Timestamp,
    opened: u64,
    samples: BTreeMap<ConnectionId, Sample>,
}

impl Stage {
    pub(super) fn new(upstreams: usize) -> Self {
        let names = (0..upstreams).map(|number| UpstreamName {
            name: format!("db{number}"),
            address: format!("10.0.0.{number}:27017"),
        });
        Self {
            announces_credentials: false,
            left_at: None,
            pools: Pools::new(names.collect()),
            now: start(),
            opened: 0,
            samples: BTreeMap::new(),
        }
    }

    /// Time passes until so many milliseconds after the start.
    pub(super) fn at(&mut self, millis: u64) -> &mut Self {
        let until = start() + Duration::from_millis(millis);
        let grid = Duration::from_millis(250);
        let mut tick =
            Timestamp::from_nanos(self.now.as_nanos() / 250_000_000 * 250_000_000) + grid;
        while tick <= until {
            self.pools.tick(tick);
            tick = tick + grid;
        }
        self.now = until;
        self
    }

    pub(super) fn tell(&mut self, connection: ConnectionId, fact: Fact) {
        self.pools.record(&Entry {
            at: self.now,
            connection,
            fact,
        });
    }

    /// A connection that introduced itself and was answered.
    pub(super) fn open(&mut self, driver: Driver, upstream: u16, request_id: i32) -> ConnectionId {
        let id = self.dial(driver, upstream, request_id);
        self.tell(id, Fact::HelloAnswered(Duration::from_millis(1)));
        self.tell(id, Fact::Ready(Duration::from_millis(1)));
        id
    }

    /// A connection that introduced itself and was not answered.
    pub(super) fn dial(&mut self, driver: Driver, upstream: u16, request_id: i32) -> ConnectionId {
        let id = self.accept(upstream);
        self.introduce(id, driver, request_id);
        id
    }

    /// A connection of which nothing was read.
    pub(super) fn accept(&mut self, upstream: u16) -> ConnectionId {
        let id = self.accept_only(upstream);
        self.tell(id, Fact::Dialled(Duration::from_millis(1)));
        id
    }

    /// The same while it is dialled.
    pub(super) fn accept_only(&mut self, upstream: u16) -> ConnectionId {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        let port = u16::try_from(30_000 + self.opened % 30_000).unwrap();
        let opened = Opened {
            upstream: UpstreamId(upstream),
            peer: ([10, 1, 0, 1], port).into(),
        };
        self.tell(id, Fact::Opened(opened));
        let sample = Sample {
            from_client_at: self.now,
            from_server_at: self.now,
            ..Sample::default()
        };
        self.samples.insert(id, sample);
        id
    }

    pub(super) fn introduce(&mut self, id: ConnectionId, driver: Driver, request_id: i32) {
        let client = ClientMetadata {
            application: "shop".to_owned(),
            driver_name: driver.0.to_owned(),
            driver_version: driver.1.to_owned(),
            platform: driver.2.to_owned(),
            backpressure: driver == PYMONGO || driver == RUST,
            announces_credentials: self.announces_credentials,
            ..ClientMetadata::default()
        };
        let client = Box::new(client);
        self.tell(id, Fact::Introduced { client, request_id });
        if driver == LEGACY || driver == PHP {
            self.tell(id, Fact::RoleFound(Role::Application));
        }
    }

    pub(super) fn describe(&mut self, id: ConnectionId, set: &str) {
        let server = ServerFacts {
            set_name: Some(set.to_owned()),
            role: ServerRole::Primary,
            max_wire_version: Some(17),
            ..ServerFacts::default()
        };
        self.tell(id, Fact::Described(Box::new(server)));
    }

    /// A monitor that streams at once.
    pub(super) fn monitor(
        &mut self,
        driver: Driver,
        upstream: u16,
        request_id: i32,
    ) -> ConnectionId {
        let id = self.open(driver, upstream, request_id);
        self.stream(id);
        id
    }

    pub(super) fn stream(&mut self, id: ConnectionId) {
        self.tell(id, Fact::RoleFound(Role::Monitor));
        self.tell(id, Fact::Heartbeat(Duration::from_secs(10)));
    }

    /// A pooled connection that carried this session.
    pub(super) fn pooled(
        &mut self,
        driver: Driver,
        upstream: u16,
        request_id: i32,
        session: u8,
    ) -> ConnectionId {
        let id = self.open(driver, upstream, request_id);
        self.work(id, session, 1);
        id
    }

    /// So many operations under this session, all answered.
    pub(super) fn work(&mut self, id: ConnectionId, session: u8, operations: u64) {
        self.tell(id, Fact::RoleFound(Role::Application));
        self.tell(id, Fact::SessionUsed(SessionId([session; 16])));
        let now = self.now;
        let sample = self.samples.entry(id).or_default();
        sample.operations += operations;
        sample.requests += operations;
        sample.from_client_at = now;
        sample.from_server_at = now;
        let sample = *sample;
        self.tell(id, Fact::Sampled(sample));
    }

    /// The newest request of a connection had this id.
    pub(super) fn count(&mut self, id: ConnectionId, request_id: i32) {
        let sample = self.samples.entry(id).or_default();
        sample.request_id = request_id;
        let sample = *sample;
        self.tell(id, Fact::Sampled(sample));
    }

    /// So many operations are on their way.
    pub(super) fn busy(&mut self, id: ConnectionId, in_flight: u32) {
        let now = self.now;
        let sample = self.samples.entry(id).or_default();
        sample.in_flight = in_flight;
        sample.busy_since = (in_flight > 0).then_some(now);
        let sample = *sample;
        self.tell(id, Fact::Sampled(sample));
    }

    pub(super) fn fail(&mut self, id: ConnectionId, code: i32) {
        self.fail_with(id, ErrorKind::Command, code);
    }

    pub(super) fn fail_with(&mut self, id: ConnectionId, kind: ErrorKind, code: i32) {
        self.tell(
            id,
            Fact::Failed(ErrorReply {
                kind,
                command: crate::wire::Command::Find,
                code,
                count: 1,
            }),
        );
    }

    /// Bytes came from the server.
    pub(super) fn hear(&mut self, id: ConnectionId) {
        let now = self.now;
        let sample = self.samples.entry(id).or_default();
        sample.from_server_at = now;
        let sample = *sample;
        self.tell(id, Fact::Sampled(sample));
    }

    /// Its counters are told, and nothing has happened on it since they were told last.
    pub(super) fn sample(&mut self, id: ConnectionId) {
        let sample = *self.samples.entry(id).or_default();
        self.tell(id, Fact::Sampled(sample));
    }

    /// A connection that introduces itself and is turned away by a server at its limit.
    pub(super) fn refuse(&mut self, driver: Driver, upstream: u16, request_id: i32) {
        let id = self.dial(driver, upstream, request_id);
        self.end(id, Initiator::Server, Manner::Fin, Phase::Handshaking);
    }

    /// The clears of the first mongo client: when each began and was over, and why.
    pub(super) fn clears(&self) -> Vec<(u64, Option<u64>, ClearTrigger)> {
        clears_of(self.pools.mongo_clients().next().unwrap())
    }

    pub(super) fn goodbye(&mut self, id: ConnectionId, sessions: &[u8]) {
        let sessions = sessions.iter().map(|one| SessionId([*one; 16])).collect();
        self.tell(id, Fact::SessionsEnded(sessions));
    }

    /// The client closes it.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.end(id, Initiator::Client, Manner::Fin, Phase::Idle);
    }

    pub(super) fn end(
        &mut self,
        id: ConnectionId,
        initiator: Initiator,
        manner: Manner,
        phase: Phase,
    ) {
        let ending = Ending {
            initiator,
            manner,
            phase,
            after_failed_authentication: false,
        };
        let last = self.samples.remove(&id).unwrap_or_default();
        let unanswered = Commands::default();
        let ended = Ended {
            ending,
            last,
            unanswered,
            left_at: self.left_at.take(),
        };
        self.tell(id, Fact::Ended(Box::new(ended)));
    }

    /// Open mongo clients with their open pooled connections and monitors, in the order of their numbers.
    pub(super) fn clients(&self) -> Vec<(usize, usize)> {
        self.pools
            .mongo_clients()
            .filter(|client| client.is_open())
            .map(|client| (client.pooled_open(), client.monitors.len()))
            .collect()
    }

    /// The mongo client of a connection.
    pub(super) fn owner(&self, id: ConnectionId) -> Option<u64> {
        let connection = self.pools.connection(id).unwrap();
        connection.mongo_client.map(|client| client.0)
    }
}

/// The clears of any mongo client.
pub(super) fn clears_of(client: &MongoClient) -> Vec<(u64, Option<u64>, ClearTrigger)> {
    let millis = |at: Timestamp| at.as_millis() - start().as_millis();
    let clears = client.pools.values().flat_map(|pool| &pool.clears);
    clears
        .map(|clear| {
            (
                millis(clear.at),
                clear.ready_at.map(millis),
                clear.sign.trigger(),
            )
        })
        .collect()
}

pub(super) fn start() -> Timestamp {
    Timestamp::default() + Duration::from_hours(500_000)
}
