//! What a connection is used for, judged by its own traffic.
//!
//! ```text
//! handshake ─┬─ member of the cluster ─▶ Member, for good
//!            ├─ shell or tool by name ─▶ Tool
//!            ├─ driver without dedicated monitors ─▶ Application
//!            └─ else Unknown
//! Unknown, Tool ── second bare hello ──▶ RoundTripMonitor ── awaitable hello ──▶ Monitor
//! any but Member ── credentials, a session or an ordinary command ──▶ Application (Tool for a tool), for good
//! ```
//!
//! Monitors never authenticate and never send ordinary commands, so these decide against any hello; those of Java 3.x
//! do authenticate, and there credentials decide nothing. Whether a
//! connection that only says hello again and again measures round trips beside a streaming monitor or is itself
//! a polling one, its siblings tell: that is decided above.
//!
//! Sources: Server Monitoring specification § Multi-threaded or asynchronous monitoring, § Measuring RTT; load
//! balancer specification § Server Discovery Logging and Monitoring. Which drivers have no dedicated monitors was
//! observed: Node up to 3.4, Node 3.5 to 3.7 with the legacy topology, and PHP. So was that monitors of Java 3.6
//! authenticate.

use super::{ClientMetadata, Role};
use crate::wire::Command;

/// Application names of shells and administration tools; a name goes on after it with a version at most.
const TOOLS: [&str; 14] = [
    "mongosh",
    "MongoDB Shell",
    "MongoDB Compass",
    "mongodb-vscode",
    "mongodump",
    "mongorestore",
    "mongoexport",
    "mongoimport",
    "mongostat",
    "mongotop",
    "mongofiles",
    "mongoreplay",
    "MongoDB Automation Agent",
    "MongoDB Monitoring Module",
];

/// What is known about the use of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    role: Role,
    is_tool: bool,
    /// Its driver has no connections that only watch the server.
    has_no_monitors: bool,
    /// Those that only watch the server present credentials, too.
    monitors_authenticate: bool,
    /// It carried what no monitor carries.
    has_worked: bool,
}

impl Evidence {
    pub(super) const fn role(self) -> Role {
        self.role
    }

    /// The client introduced itself.
    pub(super) fn introduced(
        &mut self,
        metadata: &ClientMetadata,
        is_internal: bool,
    ) -> Option<Role> {
        self.is_tool = is_tool(&metadata.application);
        self.has_no_monitors = has_no_monitors(metadata);
        self.monitors_authenticate = monitors_authenticate(metadata);
        // The legacy shell announces the same driver as the members of a cluster.
        if !self.is_tool && (is_internal || is_member(metadata)) {
            return self.change(Role::Member);
        }
        if self.is_tool {
            return self.change(Role::Tool);
        }
        if self.has_no_monitors {
            return self.change(Role::Application);
        }
        None
    }

    /// The user named in the handshake is the one members of a cluster use among themselves.
    pub(super) fn member_named(&mut self) -> Option<Role> {
        self.change(Role::Member)
    }

    /// A hello that waits for changes: only streaming monitors send it.
    pub(super) fn streaming_seen(&mut self) -> Option<Role> {
        if self.has_worked || self.has_no_monitors {
            return None;
        }
        self.change(Role::Monitor)
    }

    /// Another hello after the handshake, with nothing in it that a monitor would not send.
    pub(super) fn polling_seen(&mut self) -> Option<Role> {
        if self.has_worked || self.has_no_monitors {
            return None;
        }
        match self.role {
            Role::Unknown | Role::Tool => self.change(Role::RoundTripMonitor),
            Role::Application
            | Role::Monitor
            | Role::RoundTripMonitor
            | Role::Probe
            | Role::Member => None,
        }
    }

    /// Credentials.
    pub(super) fn credentials_seen(&mut self) -> Option<Role> {
        if self.monitors_authenticate {
            return None;
        }
        self.work_seen()
    }

    /// A session or an ordinary command.
    pub(super) fn work_seen(&mut self) -> Option<Role> {
        self.has_worked = true;
        self.change(if self.is_tool {
            Role::Tool
        } else {
            Role::Application
        })
    }

    /// Nothing that the protocol knows came from the client.
    pub(super) fn probe_seen(&mut self) -> Option<Role> {
        match self.role {
            Role::Unknown => self.change(Role::Probe),
            Role::Application
            | Role::Monitor
            | Role::RoundTripMonitor
            | Role::Probe
            | Role::Tool
            | Role::Member => None,
        }
    }

    fn change(&mut self, role: Role) -> Option<Role> {
        if self.role == role || self.role == Role::Member {
            return None;
        }
        self.role = role;
        Some(role)
    }
}

/// Java 3.x asks these on each new connection, monitors included; they decide nothing.
pub(super) const fn is_small_talk(command: Command) -> bool {
    matches!(command, Command::BuildInfo | Command::GetLastError)
}

fn is_tool(application: &str) -> bool {
    TOOLS.iter().any(|tool| {
        application.strip_prefix(tool).is_some_and(|rest| {
            !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-')
        })
    })
}

fn is_member(metadata: &ClientMetadata) -> bool {
    metadata.driver_name.starts_with("NetworkInterfaceTL")
        || metadata.driver_name == "MongoDB Internal Client"
        || metadata.application == "OplogFetcher"
}

fn has_no_monitors(metadata: &ClientMetadata) -> bool {
    metadata.load_balanced
        || metadata.platform.contains("(legacy)")
        || metadata.driver_name.contains("ext-mongodb:PHP")
        || is_old_node(metadata)
}

/// Java before 4.
fn monitors_authenticate(metadata: &ClientMetadata) -> bool {
    let major = metadata.driver_version.split('.').next();
    metadata.driver_name.starts_with("mongo-java-driver")
        && major
            .and_then(|major| major.parse().ok())
            .is_some_and(|major: u32| major < 4)
}

/// Node before 3.5 checks its servers on pooled connections whatever its options say.
fn is_old_node(metadata: &ClientMetadata) -> bool {
    let name = metadata.driver_name.split('|').next().unwrap_or_default();
    if !matches!(name.trim(), "nodejs" | "nodejs-core") {
        return false;
    }
    let mut numbers = metadata
        .driver_version
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), _) if major < 3 => true,
        (Some(Ok(3)), Some(Ok(minor))) => minor < 5,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(application: &str, driver: &str, version: &str, platform: &str) -> ClientMetadata {
        ClientMetadata {
            application: application.into(),
            driver_name: driver.into(),
            driver_version: version.into(),
            platform: platform.into(),
            ..ClientMetadata::default()
        }
    }

    fn check(metadata: &ClientMetadata, at_handshake: Role, after_polling: Role) {
        let mut evidence = Evidence::default();
        evidence.introduced(metadata, false);
        assert_eq!(evidence.role(), at_handshake, "{metadata:?}");
        evidence.polling_seen();
        assert_eq!(evidence.role(), after_polling, "{metadata:?}");
    }

    #[test]
    fn credentials_decide_but_where_monitors_have_some() {
        for (version, role) in [
            ("3.6.2", Role::RoundTripMonitor),
            ("3.12.14|2.4", Role::RoundTripMonitor),
            ("4.0.0", Role::Application),
            ("unknown", Role::Application),
        ] {
            let mut evidence = Evidence::default();
            evidence.introduced(&client("shop", "mongo-java-driver", version, "Java"), false);
            evidence.credentials_seen();
            evidence.polling_seen();
            assert_eq!(evidence.role(), role, "{version}");
            evidence.work_seen();
            assert_eq!(evidence.role(), Role::Application, "{version}");
        }
    }

    #[test]
    fn the_handshake_decides_where_it_can() {
        use Role::{Application, Member, RoundTripMonitor, Tool, Unknown};
        let node = |version, platform| client("shop", "nodejs", version, platform);
        check(&node("6.12.0", "Node.js v20"), Unknown, RoundTripMonitor);
        check(
            &node("3.6.12", "'Node.js v14, LE (legacy)"),
            Application,
            Application,
        );
        check(
            &node("3.6.12", "'Node.js v14, LE (unified)"),
            Unknown,
            RoundTripMonitor,
        );
        check(&node("3.3.5", "Node.js v14, LE"), Application, Application);
        check(&node("2.2.36", "Node.js v8"), Application, Application);
        check(
            &client("", "mongoc / ext-mongodb:PHP ", "1.23 / 1.15", "PHP 8.2"),
            Application,
            Application,
        );
        check(
            &client("mongosh 2.1.0", "nodejs|mongosh", "6.3.0|2.1.0", ""),
            Tool,
            RoundTripMonitor,
        );
        check(
            &client("MongoDB Shell", "MongoDB Internal Client", "4.4", ""),
            Tool,
            RoundTripMonitor,
        );
        check(
            &client("mongoshine", "nodejs", "6.3.0", ""),
            Unknown,
            RoundTripMonitor,
        );
        check(
            &client("", "NetworkInterfaceTL-ReplNetwork", "6.0.5", ""),
            Member,
            Member,
        );
        check(&client("OplogFetcher", "", "", ""), Member, Member);
    }

    #[test]
    fn work_outweighs_every_hello_and_only_members_stay_what_they_are() {
        let mut evidence = Evidence::default();
        assert_eq!(evidence.polling_seen(), Some(Role::RoundTripMonitor));
        assert_eq!(evidence.streaming_seen(), Some(Role::Monitor));
        assert_eq!(evidence.polling_seen(), None);
        assert_eq!(evidence.work_seen(), Some(Role::Application));
        assert_eq!(evidence.streaming_seen(), None);
        assert_eq!(evidence.polling_seen(), None);

        let mut member = Evidence::default();
        assert_eq!(member.member_named(), Some(Role::Member));
        assert_eq!(member.work_seen(), None);
        assert_eq!(member.streaming_seen(), None);
        assert_eq!(member.role(), Role::Member);
    }
}
