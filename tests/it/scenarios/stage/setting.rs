//! How a stage is set: servers, what lies between them and poolscope, and networks.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use super::{PASSWORD, Place, Servers, Stage, USER};
use crate::support::{FaultRelay, Mongod, MongodOptions, Network, Poolscope, ReplicaSet};

impl Stage {
    /// A server of its own, straight behind poolscope.
    pub(crate) fn alone(place: Place) -> Self {
        Self::with_server(place, MongodOptions::default(), false)
    }

    /// The same with something between poolscope and the server that can misbehave.
    pub(crate) fn behind_relay(place: Place) -> Self {
        Self::with_server(place, MongodOptions::default(), true)
    }

    pub(crate) fn with_server(place: Place, options: MongodOptions, has_relay: bool) -> Self {
        let server = Mongod::start_in(options, place.shape.server_delay().map(slow_network));
        let remote = place.shape.application_delay().map(slow_network);
        let between = has_relay.then(|| FaultRelay::before(server.addr()));
        let upstream = between.as_ref().map_or(server.addr(), FaultRelay::addr);
        if !server.has_auth() {
            seed(&server);
        }
        Self::around(place, Servers::Alone(server), between, remote, &[upstream])
    }

    /// A server in a network of its own, behind a wire that can lose and delay packets.
    pub(crate) fn behind_wire(place: Place) -> Self {
        let server = Mongod::start_in(MongodOptions::default(), Some(Network::start()));
        seed(&server);
        let upstream = server.addr();
        let servers = Servers::Alone(server);
        Self::around(place, servers, None, None, &[upstream])
    }

    /// The application under test in a network of its own, behind such a wire.
    pub(crate) fn with_remote_application(place: Place) -> Self {
        let server = Mongod::start(MongodOptions::default());
        seed(&server);
        let (upstream, servers) = (server.addr(), Servers::Alone(server));
        let remote = Some(Network::start());
        Self::around(place, servers, None, remote, &[upstream])
    }

    /// Three members of a set, each behind a listener of its own.
    pub(crate) fn set(place: Place) -> Self {
        let set = ReplicaSet::start_with(
            3,
            &[
                "--setParameter",
                "shutdownTimeoutMillisForSignaledShutdown=2000",
            ],
        );
        let upstreams = set.addrs();
        let mut stage = Self::around(place, Servers::Set(set), None, None, &upstreams);
        let advertised = stage.poolscope.advertised();
        let Servers::Set(set) = &mut stage.servers else {
            unreachable!("it was made a moment ago");
        };
        set.initiate(&advertised);
        seed(&set.members()[0]);
        stage
    }

    fn around(
        place: Place,
        servers: Servers,
        between: Option<FaultRelay>,
        remote: Option<Network>,
        upstreams: &[SocketAddr],
    ) -> Self {
        let Place {
            driver,
            directory,
            shape,
        } = place;
        let journal = directory.join("journal");
        let journal = journal.to_str().unwrap();
        let args = ["--journal.path", journal];
        let args = if Poolscope::takes(args[0]) {
            &args[..]
        } else {
            &[]
        };
        let near = remote
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST.into(), Network::near_addr);
        let poolscope = Poolscope::start_at(near, upstreams, args);
        Self {
            driver,
            shape,
            servers,
            between,
            remote,
            poolscope,
            apps: Vec::new(),
            directory,
            constructor: Value::Null,
            fault: String::new(),
            injected_at: 0.0,
            fault_at: 0.0,
            affected: Vec::new(),
            notes: Vec::new(),
            alarm_seen_at: None,
            clients_seen: Value::Null,
        }
    }
}

/// A network behind a wire on which packets take so long.
fn slow_network(delay: Duration) -> Network {
    let mut network = Network::start();
    network.set(&json!({ "delay": delay.as_secs_f64() }));
    network
}

/// Something to be read, and a user, who need not log in.
fn seed(server: &Mongod) {
    server.command(
        "admin",
        doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"] },
    );
    server.command(
        "poolscope",
        doc! { "insert": "items", "documents": [{ "_id": "seed" }] },
    );
}
