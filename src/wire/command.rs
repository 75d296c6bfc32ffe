//! The commands that are told apart by name.
//!
//! A closed set, so that a command may become a label: what is not in the list is [`Command::Other`], whatever
//! the client wrote. All spellings of the handshake command are [`Command::Hello`].
//!
//! Source: MongoDB Database Commands reference; server-internal ones as seen between members of a replica set.

macro_rules! commands {
    ($($variant:ident $name:literal,)+) => {
        /// A server command in its canonical spelling.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Command {
            /// Any command that is not in the list.
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        impl Command {
            /// Every command, [`Command::Other`] first; the position of each is its [`Command::index`].
            pub const ALL: &'static [Self] = &[Self::Other, $(Self::$variant,)+];

            /// The value of the `command` label.
            pub const fn label(self) -> &'static str {
                match self {
                    Self::Other => "other",
                    $(Self::$variant => $name,)+
                }
            }

            /// The command that is spelt `name` on the wire.
            pub fn from_wire(name: &[u8]) -> Self {
                match name {
                    b"isMaster" | b"ismaster" => Self::Hello,
                    $(name if name == $name.as_bytes() => Self::$variant,)+
                    b"findandmodify" => Self::FindAndModify,
                    b"mapreduce" => Self::MapReduce,
                    b"buildinfo" => Self::BuildInfo,
                    b"getlasterror" => Self::GetLastError,
                    b"dbstats" => Self::DbStats,
                    b"collstats" => Self::CollStats,
                    _ => Self::Other,
                }
            }
        }
    };
}

commands! {
    Hello "hello",
    Find "find",
    Insert "insert",
    Update "update",
    Delete "delete",
    FindAndModify "findAndModify",
    Aggregate "aggregate",
    GetMore "getMore",
    KillCursors "killCursors",
    Count "count",
    Distinct "distinct",
    BulkWrite "bulkWrite",
    MapReduce "mapReduce",
    Ping "ping",
    SaslStart "saslStart",
    SaslContinue "saslContinue",
    Authenticate "authenticate",
    Logout "logout",
    GetNonce "getnonce",
    StartSession "startSession",
    EndSessions "endSessions",
    RefreshSessions "refreshSessions",
    KillSessions "killSessions",
    CommitTransaction "commitTransaction",
    AbortTransaction "abortTransaction",
    BuildInfo "buildInfo",
    GetLastError "getLastError",
    ConnectionStatus "connectionStatus",
    ServerStatus "serverStatus",
    HostInfo "hostInfo",
    GetParameter "getParameter",
    SetParameter "setParameter",
    GetLog "getLog",
    CurrentOp "currentOp",
    KillOp "killOp",
    Top "top",
    DbStats "dbStats",
    CollStats "collStats",
    Validate "validate",
    Explain "explain",
    Profile "profile",
    Create "create",
    Drop "drop",
    DropDatabase "dropDatabase",
    CollMod "collMod",
    RenameCollection "renameCollection",
    CreateIndexes "createIndexes",
    DropIndexes "dropIndexes",
    ListIndexes "listIndexes",
    ListCollections "listCollections",
    ListDatabases "listDatabases",
    ListCommands "listCommands",
    CreateUser "createUser",
    UpdateUser "updateUser",
    DropUser "dropUser",
    UsersInfo "usersInfo",
    ReplSetGetStatus "replSetGetStatus",
    ReplSetGetConfig "replSetGetConfig",
    ReplSetInitiate "replSetInitiate",
    ReplSetReconfig "replSetReconfig",
    ReplSetStepDown "replSetStepDown",
    ReplSetHeartbeat "replSetHeartbeat",
    ReplSetUpdatePosition "replSetUpdatePosition",
    ReplSetRequestVotes "replSetRequestVotes",
    GetCmdLineOpts "getCmdLineOpts",
    AtlasVersion "atlasVersion",
    Shutdown "shutdown",
    ConfigureFailPoint "configureFailPoint",
}

impl Command {
    /// Position in [`Command::ALL`].
    #[cfg_attr(
        not(test),
        expect(clippy::as_conversions, reason = "the discriminant is a u8")
    )]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the command belongs to the handshake and authentication of a connection: its body may hold
    /// secrets, and it never makes a connection count as used by the application.
    pub const fn is_authentication(self) -> bool {
        matches!(
            self,
            Self::SaslStart
                | Self::SaslContinue
                | Self::Authenticate
                | Self::GetNonce
                | Self::Logout
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_own_name() {
        for (position, command) in Command::ALL.iter().enumerate() {
            assert_eq!(command.index(), position);
            if *command != Command::Other {
                assert_eq!(Command::from_wire(command.label().as_bytes()), *command);
            }
        }
        assert!(
            Command::ALL.len() > 60,
            "the list holds {} commands",
            Command::ALL.len()
        );
    }

    #[test]
    fn spellings_of_hello_are_one_command_and_unknown_ones_are_other() {
        for name in ["hello", "isMaster", "ismaster"] {
            assert_eq!(Command::from_wire(name.as_bytes()), Command::Hello);
        }
        assert_eq!(Command::from_wire(b"x\" injected"), Command::Other);
        assert_eq!(Command::from_wire(b"other"), Command::Other);
    }
}
