//! Real mongod processes, alone or as a replica set.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use bson::{Bson, Document, doc};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{Connection, Network, Port, Process, eventually, tool};

/// A server starts within a second on an idle machine.
const START_LIMIT: Duration = Duration::from_mins(1);
/// An election takes two seconds with the settings below.
const ELECTION_LIMIT: Duration = Duration::from_mins(1);
const SET_NAME: &str = "rs";

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct MongodOptions {
    /// Member of the replica set `rs`, to be initiated.
    pub(crate) replica_set: bool,
    /// Demands authentication; the user [`Mongod::USER`] with [`Mongod::PASSWORD`] is root.
    pub(crate) auth: bool,
    /// Accepts TLS beside plain connections, with a certificate for the loopback.
    pub(crate) tls: bool,
    /// Further arguments.
    pub(crate) args: Vec<String>,
}

/// A mongod with a directory and a port of its own.
#[derive(Debug)]
pub(crate) struct Mongod {
    process: Process,
    port: Port,
    directory: TempDir,
    options: MongodOptions,
    network: Option<Network>,
}

impl Mongod {
    /// The root user of a server with authentication.
    pub(crate) const USER: &str = "admin";
    /// Its password.
    pub(crate) const PASSWORD: &str = "correct horse";

    /// A server that belongs to no replica set.
    pub(crate) fn standalone() -> Self {
        Self::start(MongodOptions::default())
    }

    /// A server that answers.
    pub(crate) fn start(options: MongodOptions) -> Self {
        Self::start_in(options, None)
    }

    /// The same in a network of its own.
    pub(crate) fn start_in(options: MongodOptions, network: Option<Network>) -> Self {
        let port = Port::reserve();
        let directory = tempfile::tempdir().unwrap();
        let process = Self::spawn(&port, &directory, &options, network.as_ref());
        let mut mongod = Self {
            process,
            port,
            directory,
            options,
            network,
        };
        mongod.wait_until_answering();
        if mongod.options.auth && !mongod.options.replica_set {
            mongod.create_root();
        }
        mongod
    }

    fn spawn(
        port: &Port,
        directory: &TempDir,
        options: &MongodOptions,
        network: Option<&Network>,
    ) -> Process {
        let program = tool("mongod/mongod");
        let (mut command, ip) = match network {
            None => (Command::new(program), port.addr().ip()),
            Some(network) => (network.command(program), network.addr()),
        };
        command
            .args(["--bind_ip", &ip.to_string()])
            .args(["--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "enableTestCommands=1"])
            // Its recording of itself takes a tenth of a core.
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--port", &port.number().to_string()])
            .arg("--dbpath")
            .arg(directory.path())
            .arg("--logpath")
            .arg(directory.path().join("mongod.log"))
            .arg("--logappend")
            .stdin(Stdio::null());
        if options.replica_set {
            command.args(["--replSet", SET_NAME, "--oplogSize", "512"]);
        }
        if options.auth {
            command.arg("--auth");
        }
        if options.tls {
            command
                .args([
                    "--tlsMode",
                    "preferTLS",
                    "--tlsAllowConnectionsWithoutCertificates",
                ])
                .arg("--tlsCertificateKeyFile")
                .arg(tool("tls/server.pem"))
                .arg("--tlsCAFile")
                .arg(tool("tls/authority.pem"));
        }
        Process::start(command.args(&options.args))
    }

    fn wait_until_answering(&mut self) {
        eventually(START_LIMIT, || {
            if let Some(status) = self.process.ended() {
                panic!("mongod ended with {status}\n{}", self.log_tail());
            }
            self.try_command("admin", doc! { "hello": 1 })
        });
    }

    /// The localhost exception lets the first user be made without being one.
    fn create_root(&self) {
        self.command(
            "admin",
            doc! { "createUser": Self::USER, "pwd": Self::PASSWORD, "roles": ["root"] },
        );
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.network {
            None => self.port.addr(),
            Some(network) => (network.addr(), self.port.number()).into(),
        }
    }

    /// The network it has to itself.
    pub(crate) fn network_mut(&mut self) -> &mut Network {
        self.network.as_mut().unwrap()
    }

    /// A connection string straight to this server, with the root user where there is one.
    pub(crate) fn uri(&self) -> String {
        let addr = self.addr();
        if self.options.auth {
            let password = Self::PASSWORD.replace(' ', "%20");
            let user = Self::USER;
            return format!("mongodb://{user}:{password}@{addr}/?directConnection=true");
        }
        format!("mongodb://{addr}/?directConnection=true")
    }

    /// A connection straight to this server.
    pub(crate) fn connection(&self) -> Connection {
        Connection::open(self.addr()).unwrap()
    }

    pub(crate) fn try_command(
        &self,
        database: &str,
        command: Document,
    ) -> std::io::Result<Document> {
        Connection::open(self.addr())?.command(database, command)
    }

    /// Runs a command on a connection of its own and expects `ok`.
    #[track_caller]
    pub(crate) fn command(&self, database: &str, command: Document) -> Document {
        let reply = self.try_command(database, command).unwrap();
        assert!(is_ok(&reply), "{reply}");
        reply
    }

    /// Whether it demands authentication.
    pub(crate) fn has_auth(&self) -> bool {
        self.options.auth
    }

    /// Connections that the server counts, the asking one excluded.
    pub(crate) fn connections(&self) -> i64 {
        let status = self.command("admin", doc! { "serverStatus": 1 });
        let connections = status.get_document("connections").unwrap();
        number(connections.get("current").unwrap()) - 1
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(START_LIMIT);
    }

    /// Freezes it: the kernel still accepts connections and acknowledges bytes.
    pub(crate) fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Lets it go on after [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again on the same port and data, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(
            &self.port,
            &self.directory,
            &self.options,
            self.network.as_ref(),
        );
        self.wait_until_answering();
    }

    /// The process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("mongod.log"));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let mut tail = lines[lines.len().saturating_sub(20)..].join("\n");
        tail.push_str(&self.process.lines().join("\n"));
        tail
    }
}

/// Servers of one replica set, in the order of their member ids.
#[derive(Debug)]
pub(crate) struct ReplicaSet {
    members: Vec<Mongod>,
    advertised: Vec<String>,
}

impl ReplicaSet {
    /// Servers that wait to be initiated, so that what stands before them can be started first.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// The same with further arguments for each.
    pub(crate) fn start_with(count: usize, args: &[&str]) -> Self {
        let options = MongodOptions {
            replica_set: true,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..MongodOptions::default()
        };
        let members = (0..count).map(|_| Mongod::start(options.clone())).collect();
        Self {
            members,
            advertised: Vec::new(),
        }
    }

    /// A replica set that advertises its members' own addresses.
    pub(crate) fn direct(count: usize) -> Self {
        let mut set = Self::start(count);
        let own: Vec<String> = set.addrs().iter().map(SocketAddr::to_string).collect();
        set.initiate(&own);
        set
    }

    /// Initiates the set with the members' hosts as given (`host:port`, say of a proxy before each), and waits
    /// for a primary and for all others to follow it.
    pub(crate) fn initiate(&mut self, advertised: &[String]) {
        assert_eq!(advertised.len(), self.members.len());
        self.advertised = advertised.to_vec();
        let members: Vec<Bson> = (0_i32..)
            .zip(advertised)
            .map(|(id, host)| {
                // The first member is preferred, so that tests know the primary they begin with.
                let priority = if id == 0 { 2.0 } else { 1.0 };
                Bson::Document(doc! { "_id": id, "host": host, "priority": priority })
            })
            .collect();
        self.members[0].command(
            "admin",
            doc! { "replSetInitiate": {
                "_id": SET_NAME,
                "members": members,
                "settings": { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 },
            } },
        );
        eventually(ELECTION_LIMIT, || {
            let roles: Vec<&str> = self.members.iter().map(role).collect();
            let settled =
                roles[0] == "primary" && roles[1..].iter().all(|&role| role == "secondary");
            if settled {
                Ok(())
            } else {
                Err(format!("{roles:?}"))
            }
        });
    }

    /// The members.
    pub(crate) fn members(&self) -> &[Mongod] {
        &self.members
    }

    /// One member, to be killed or restarted.
    pub(crate) fn member_mut(&mut self, member: usize) -> &mut Mongod {
        &mut self.members[member]
    }

    /// Where the members listen.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.members.iter().map(Mongod::addr).collect()
    }

    /// The index of the primary, as soon as there is one.
    #[track_caller]
    pub(crate) fn primary(&self) -> usize {
        eventually(ELECTION_LIMIT, || {
            let roles: Vec<&str> = self.members.iter().map(role).collect();
            let primary = roles.iter().position(|&role| role == "primary");
            primary.ok_or_else(|| format!("no primary: {roles:?}"))
        })
    }

    /// A connection string with the advertised hosts; more options may be added with `&`.
    pub(crate) fn uri(&self) -> String {
        format!(
            "mongodb://{}/?replicaSet={SET_NAME}",
            self.advertised.join(",")
        )
    }
}

/// What a member says it is; `down` when it says nothing.
fn role(member: &Mongod) -> &'static str {
    let Ok(hello) = member.try_command("admin", doc! { "hello": 1 }) else {
        return "down";
    };
    if hello.get_bool("isWritablePrimary").unwrap_or(false) {
        "primary"
    } else if hello.get_bool("secondary").unwrap_or(false) {
        "secondary"
    } else {
        "neither"
    }
}

fn is_ok(reply: &Document) -> bool {
    reply.get("ok").is_some_and(|ok| number(ok) == 1)
}

/// A BSON number of whichever type as an integer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "servers print counts as doubles at times"
)]
pub(crate) fn number(value: &Bson) -> i64 {
    let integer = value.as_i64().or_else(|| value.as_i32().map(i64::from));
    let double = || value.as_f64().map(|double| double as i64);
    integer.or_else(double).unwrap()
}
