//! Which driver is at hand, in which version, and which options that version has.
//!
//! Nothing is named that a version does not have. Where the first version with an option is not known for sure, the
//! table has the first one that is known to have it. Sources, as `TABLE` cites them:
//!
//! - Node: `lib/operations/connect.js`, `lib/core/uri_parser.js`, `lib/url_parser.js` and `lib/topologies/` of 3.0.0,
//!   3.1.0, 3.3.0, 3.5.0, 3.6.12 and 3.7.4, `lib/connection_string.js` and `lib/cmap/connect.js` of 4.0.0 to 7.9.0;
//! - `PyMongo`: `pymongo/common.py` of 3.13.0, 4.0.1 and 4.20.0, and the changes that `MongoClient` is documented with;
//! - Go: `x/mongo/driver/connstring/connstring.go` and `mongo/options/` of 1.8.4, with the versions these name;
//! - Java: `com.mongodb.ConnectionString` and `MongoClientOptions` of 3.6.3, `@since` and the defaults of 4.4's;
//! - C and PHP: the names in libmongoc 1.23.1, the release notes of 1.9.0 and 1.15.0;
//! - Rust: `client/options.rs` of 3.9.1.

use crate::pools::Instance;

/// A family of drivers with common options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// Node 3.x with the legacy pool.
    NodeLegacy,
    /// Node 3.x with the unified topology.
    NodeUnified3,
    /// Node from 4.0 on.
    Node,
    /// `PyMongo`, and what is built on it.
    PyMongo,
    /// Its asynchronous clients.
    PyMongoAsync,
    /// Rust.
    Rust,
    /// Go.
    Go,
    /// Java and what is built on it.
    Java,
    /// C, and what is built on it but PHP.
    C,
    /// PHP: a process has one connection and no pool. Its versions are those of the libmongoc within.
    Php,
    /// Anything else; options are those of the specifications.
    Other,
}

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u16, pub(super) u16);

impl Version {
    /// Before every other, and of what does not say its own.
    pub(super) const NONE: Self = Self(0, 0);

    /// Of `v1.8.4`, `4.20.0|`, `1.23.1 / 1.15.0`: the first one is the driver's, the others are built on it.
    fn read(text: &str) -> Self {
        let text = text.trim_start().trim_start_matches('v');
        let mut numbers = text
            .split(|sign: char| !sign.is_ascii_digit())
            .map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        match (next(), next()) {
            (Some(major), minor) => Self(major, minor.unwrap_or(0)),
            (None, _) => Self::NONE,
        }
    }
}

/// What a version has or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    /// `maxPoolSize`.
    MaxPoolSize,
    /// `maxIdleTimeMS` and `minPoolSize`.
    IdleTime,
    /// `maxConnecting`, 2 unless set.
    MaxConnecting,
    /// `timeoutMS` in the connection string, which limits each operation as a whole.
    Timeout,
    /// `retryWrites`.
    RetryWrites,
    /// `retryWrites` is on unless it is switched off.
    RetryWritesOn,
    /// `retryReads`, on unless switched off wherever it is there.
    RetryReads,
    /// `keepAliveInitialDelay`, and that it does what it says.
    KeepAliveDelay,
    /// Sockets have a keepalive time of the driver's own, whatever the kernel's.
    OwnKeepAlive,
    /// `socketTimeoutMS`.
    SocketTimeout,
    /// `useUnifiedTopology`.
    UnifiedTopology,
}

/// From which version on a family has a feature. What is not here is not there.
const TABLE: &[(Feature, Family, Version)] = {
    use Family::{
        C, Go, Java, Node, NodeLegacy, NodeUnified3, Other, Php, PyMongo, PyMongoAsync, Rust,
    };
    use Feature::{
        IdleTime, KeepAliveDelay, MaxConnecting, MaxPoolSize, OwnKeepAlive, RetryReads,
        RetryWrites, RetryWritesOn, SocketTimeout, Timeout, UnifiedTopology,
    };
    const ANY: Version = Version::NONE;
    &[
        // `poolSize` has this name in connection strings of 3.0 and 3.6 alike.
        (MaxPoolSize, NodeLegacy, ANY),
        (MaxPoolSize, NodeUnified3, ANY),
        (MaxPoolSize, Node, ANY),
        (MaxPoolSize, PyMongo, ANY),
        (MaxPoolSize, PyMongoAsync, ANY),
        (MaxPoolSize, Rust, ANY),
        (MaxPoolSize, Go, ANY),
        (MaxPoolSize, Java, ANY),
        (MaxPoolSize, C, ANY),
        (MaxPoolSize, Other, ANY),
        // The legacy pool knows no idle time; libmongoc reads the option and does nothing with it. Node 3.5 has it in
        // its pool and hands none on to it.
        (IdleTime, NodeUnified3, Version(3, 6)),
        (IdleTime, Node, ANY),
        (IdleTime, PyMongo, ANY),
        (IdleTime, PyMongoAsync, ANY),
        (IdleTime, Rust, ANY),
        (IdleTime, Go, ANY),
        (IdleTime, Java, ANY),
        (IdleTime, Other, ANY),
        // 4.6.0 has none, 4.7.0 has it.
        (MaxConnecting, Node, Version(4, 7)),
        (MaxConnecting, PyMongo, Version(4, 0)),
        (MaxConnecting, PyMongoAsync, Version(4, 0)),
        (MaxConnecting, Rust, Version(3, 0)),
        (MaxConnecting, Go, Version(1, 8)),
        (MaxConnecting, Java, Version(4, 4)),
        // Node 4 refuses it in a connection string, 6 and 7 ignore it there.
        (Timeout, PyMongo, Version(4, 2)),
        (Timeout, PyMongoAsync, Version(4, 2)),
        (Timeout, Go, Version(2, 0)),
        (RetryWrites, NodeLegacy, Version(3, 1)),
        (RetryWrites, NodeUnified3, Version(3, 1)),
        (RetryWrites, Node, ANY),
        (RetryWrites, PyMongo, Version(3, 6)),
        (RetryWrites, PyMongoAsync, ANY),
        (RetryWrites, Rust, Version(1, 0)),
        (RetryWrites, Go, Version(1, 1)),
        (RetryWrites, Java, Version(3, 6)),
        (RetryWrites, C, Version(1, 9)),
        (RetryWrites, Php, Version(1, 9)),
        (RetryWritesOn, NodeLegacy, Version(3, 3)),
        (RetryWritesOn, NodeUnified3, Version(3, 3)),
        (RetryWritesOn, Node, ANY),
        (RetryWritesOn, PyMongo, Version(3, 9)),
        (RetryWritesOn, PyMongoAsync, ANY),
        (RetryWritesOn, Rust, Version(1, 0)),
        (RetryWritesOn, Go, Version(1, 1)),
        (RetryWritesOn, Java, Version(3, 11)),
        (RetryWritesOn, C, Version(1, 15)),
        (RetryWritesOn, Php, Version(1, 15)),
        // The legacy topology has none in any version.
        (RetryReads, NodeUnified3, Version(3, 3)),
        (RetryReads, Node, ANY),
        (RetryReads, PyMongo, Version(3, 9)),
        (RetryReads, PyMongoAsync, ANY),
        (RetryReads, Rust, Version(1, 0)),
        (RetryReads, Go, Version(1, 1)),
        (RetryReads, Java, Version(3, 11)),
        (RetryReads, C, Version(1, 15)),
        (RetryReads, Php, Version(1, 15)),
        // Up to 5 a delay above `socketTimeoutMS`, which is 0 unless set, becomes 0: the kernel's. 6.0 has 300 s and no
        // option, 6.17 has 120 s and the option again.
        (KeepAliveDelay, Node, Version(6, 17)),
        (OwnKeepAlive, Node, Version(6, 0)),
        // `runtime/stream.rs`: 120 s.
        (OwnKeepAlive, Rust, Version(3, 0)),
        // `net.Dialer` speaks every 15 s. PyMongo, libmongoc and Java have a time of their own only where the kernel's
        // is longer.
        (OwnKeepAlive, Go, ANY),
        (SocketTimeout, NodeLegacy, ANY),
        (SocketTimeout, NodeUnified3, ANY),
        (SocketTimeout, Node, ANY),
        (SocketTimeout, PyMongo, ANY),
        (SocketTimeout, PyMongoAsync, ANY),
        (SocketTimeout, Java, ANY),
        (SocketTimeout, C, ANY),
        (SocketTimeout, Php, ANY),
        (UnifiedTopology, NodeLegacy, Version(3, 3)),
        (UnifiedTopology, NodeUnified3, ANY),
    ]
};

/// A driver, as far as its options depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Driver {
    pub(super) family: Family,
    pub(super) version: Version,
}

impl Driver {
    pub(super) fn of(instance: &Instance) -> Self {
        let client = &instance.client;
        let is_legacy = instance.has_legacy_pool();
        Self::named(&client.driver_name, &client.driver_version, is_legacy)
    }

    pub(super) fn named(name: &str, version: &str, is_legacy: bool) -> Self {
        let version = Version::read(version);
        let family = if is_legacy {
            Family::NodeLegacy
        } else if name.starts_with("nodejs") {
            match version.0 {
                3 => Family::NodeUnified3,
                _ => Family::Node,
            }
        } else if name.starts_with("PyMongo") {
            if name.contains("async") {
                Family::PyMongoAsync
            } else {
                Family::PyMongo
            }
        } else if name.starts_with("mongo-rust") {
            Family::Rust
        } else if name.starts_with("mongo-go") {
            Family::Go
        } else if name.starts_with("mongo-java") {
            Family::Java
        } else if name.contains("PHP") {
            Family::Php
        } else if name.starts_with("mongoc") {
            Family::C
        } else {
            Family::Other
        };
        Self { family, version }
    }

    pub(super) fn has(self, wanted: Feature) -> bool {
        TABLE.iter().any(|(feature, family, since)| {
            *feature == wanted && *family == self.family && *since <= self.version
        })
    }

    /// Its name, where advice for several drivers stands together.
    pub(super) fn name(self) -> String {
        let name = match self.family {
            Family::NodeLegacy => "Node's legacy pool",
            Family::NodeUnified3 => "Node's unified topology",
            Family::Node => "Node's driver",
            Family::PyMongo => "PyMongo",
            Family::PyMongoAsync => "PyMongo's asynchronous client",
            Family::Rust => "Rust's driver",
            Family::Go => "Go's driver",
            Family::Java => "Java's driver",
            Family::C => "libmongoc",
            Family::Php => "PHP's driver with libmongoc",
            Family::Other => return "any other driver".to_owned(),
        };
        match self.version {
            Version::NONE => name.to_owned(),
            Version(major, minor) => format!("{name} {major}.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_drivers_write_them() {
        for (text, expected) in [
            ("v1.8.4", Version(1, 8)),
            ("4.20.0||", Version(4, 20)),
            ("1.23.1 / 1.15.0 ", Version(1, 23)),
            ("5", Version(5, 0)),
            ("2.0.0-beta1", Version(2, 0)),
            ("", Version::NONE),
            ("unknown", Version::NONE),
        ] {
            assert_eq!(Version::read(text), expected, "{text}");
        }
    }

    #[test]
    fn families_are_known_by_their_names() {
        for (name, version, expected) in [
            ("nodejs", "3.6.12", Family::NodeUnified3),
            ("nodejs|mongoose", "6.22.0|8.0.0", Family::Node),
            ("PyMongo|c", "4.20.0|", Family::PyMongo),
            ("PyMongo|c|async", "4.20.0||", Family::PyMongoAsync),
            ("mongo-java-driver|sync", "4.4.0", Family::Java),
            ("mongoc / ext-mongodb:PHP ", "1.23.1 / 1.15.0 ", Family::Php),
            ("mongoc", "1.23.1", Family::C),
            ("mongo-csharp-driver", "2.19.0", Family::Other),
        ] {
            assert_eq!(
                Driver::named(name, version, false).family,
                expected,
                "{name}"
            );
        }
    }
}
