//! Drivers with common options.

use super::super::Place;
use super::Setting;
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
    /// `PyMongo` before 4.
    PyMongo3,
    /// `PyMongo` from 4 on.
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
    /// PHP: a process has one connection and no pool.
    Php,
    /// Anything else; options are those of the specifications.
    Other,
}

impl Family {
    /// Every family.
    #[cfg(test)]
    pub(super) const ALL: [Self; 12] = [
        Self::NodeLegacy,
        Self::NodeUnified3,
        Self::Node,
        Self::PyMongo3,
        Self::PyMongo,
        Self::PyMongoAsync,
        Self::Rust,
        Self::Go,
        Self::Java,
        Self::C,
        Self::Php,
        Self::Other,
    ];

    pub(super) fn of(instance: &Instance) -> Self {
        let client = &instance.client;
        let is = |name: &str| client.driver_name.starts_with(name);
        let has = |name: &str| client.driver_name.contains(name);
        let is_3 = client.driver_version.starts_with("3.");
        if instance.has_legacy_pool() {
            Self::NodeLegacy
        } else if is("nodejs") {
            if is_3 { Self::NodeUnified3 } else { Self::Node }
        } else if is("PyMongo") {
            match (is_3, has("async")) {
                (true, _) => Self::PyMongo3,
                (false, true) => Self::PyMongoAsync,
                (false, false) => Self::PyMongo,
            }
        } else if is("mongo-rust") {
            Self::Rust
        } else if is("mongo-go") {
            Self::Go
        } else if is("mongo-java") {
            Self::Java
        } else if has("PHP") {
            Self::Php
        } else if is("mongoc") {
            Self::C
        } else {
            Self::Other
        }
    }

    /// The largest size of a pool, with the default it has otherwise.
    pub(super) const fn pool_size(self) -> Option<Setting> {
        Some(match self {
            // Its default is 5 already.
            Self::NodeLegacy => (Place::ConnectionString, "maxPoolSize=3", "5 unless set"),
            Self::NodeUnified3 | Self::Rust => {
                (Place::ConnectionString, "maxPoolSize=5", "10 unless set")
            }
            Self::Node
            | Self::PyMongo3
            | Self::PyMongo
            | Self::PyMongoAsync
            | Self::Go
            | Self::Java
            | Self::C
            | Self::Other => (Place::ConnectionString, "maxPoolSize=20", "100 unless set"),
            Self::Php => return None,
        })
    }

    /// How an operation's time is limited.
    pub(super) const fn operation_limit(self) -> Setting {
        match self {
            Self::NodeLegacy | Self::NodeUnified3 | Self::Node => (
                Place::Code,
                "collection.find(filter, { maxTimeMS: 5000 })",
                "leave socketTimeoutMS out",
            ),
            Self::PyMongo | Self::PyMongoAsync => (
                Place::ConnectionString,
                "timeoutMS=5000",
                "leave socketTimeoutMS out",
            ),
            Self::PyMongo3 => (
                Place::Code,
                "collection.find(filter, max_time_ms=5000)",
                "leave socketTimeoutMS out",
            ),
            Self::Go => (
                Place::Code,
                "ctx, cancel := context.WithTimeout(ctx, 5*time.Second)",
                "leave socketTimeoutMS out",
            ),
            Self::Rust => (
                Place::Code,
                "collection.find(filter).max_time(Duration::from_secs(5))",
                "",
            ),
            Self::Java => (
                Place::Code,
                "collection.find(filter).maxTime(5, TimeUnit.SECONDS)",
                "leave socketTimeoutMS out",
            ),
            Self::C | Self::Php | Self::Other => (
                Place::Code,
                "maxTimeMS: 5000 in the options of each operation",
                "leave socketTimeoutMS out",
            ),
        }
    }

    /// How a client is closed without cutting what is under way.
    pub(super) const fn orderly_close(self) -> Setting {
        (
            Place::Code,
            match self {
                Self::NodeLegacy | Self::NodeUnified3 | Self::Node => {
                    "await Promise.allSettled(pending); await client.close()"
                }
                Self::PyMongo3 | Self::PyMongo => "executor.shutdown(wait=True); client.close()",
                Self::PyMongoAsync => {
                    "await asyncio.gather(*tasks, return_exceptions=True); await client.close()"
                }
                Self::Rust => "futures::future::join_all(tasks).await; client.shutdown().await",
                Self::Go => "wg.Wait(); client.Disconnect(ctx)",
                Self::Java => {
                    "executor.shutdown(); executor.awaitTermination(30, TimeUnit.SECONDS); client.close()"
                }
                Self::C | Self::Php | Self::Other => {
                    "wait for pending operations, then close the client"
                }
            },
            "",
        )
    }

    /// How the pool gives up connections that were idle, before something else does.
    pub(super) const fn idle_limit(self) -> Option<Setting> {
        match self {
            // It knows no idle time; its sockets can speak up earlier than after two minutes.
            Self::NodeLegacy => Some((
                Place::Code,
                "new MongoClient(uri, { keepAlive: true, keepAliveInitialDelay: 30000 })",
                "120000 unless set",
            )),
            Self::NodeUnified3
            | Self::Node
            | Self::PyMongo3
            | Self::PyMongo
            | Self::PyMongoAsync
            | Self::Rust
            | Self::Go
            | Self::Java
            | Self::Other => Some((
                Place::ConnectionString,
                "maxIdleTimeMS=60000",
                "no limit unless set",
            )),
            // Their library reads the option and does nothing with it.
            Self::C | Self::Php => None,
        }
    }

    /// How idle connections are replaced less often.
    pub(super) const fn idle_saving(self) -> Option<Setting> {
        match self {
            // What replaces its idle connections is the time-out of their sockets.
            Self::NodeLegacy => Some((
                Place::ConnectionString,
                "socketTimeoutMS=0",
                "it is what ends idle sockets of this pool",
            )),
            Self::C | Self::Php => None,
            Self::NodeUnified3
            | Self::Node
            | Self::PyMongo3
            | Self::PyMongo
            | Self::PyMongoAsync
            | Self::Rust
            | Self::Go
            | Self::Java
            | Self::Other => Some((
                Place::ConnectionString,
                "maxIdleTimeMS=600000&minPoolSize=2",
                "",
            )),
        }
    }

    /// How many sockets are dialled at once, where it can be told.
    pub(super) const fn dial_limit(self) -> Option<Setting> {
        match self {
            Self::Node
            | Self::PyMongo
            | Self::PyMongoAsync
            | Self::Rust
            | Self::Go
            | Self::Java
            | Self::Other => Some((Place::ConnectionString, "maxConnecting=2", "2 unless set")),
            Self::NodeLegacy | Self::NodeUnified3 | Self::PyMongo3 | Self::C | Self::Php => None,
        }
    }

    /// How operations are retried.
    pub(super) const fn retries(self) -> Setting {
        (
            Place::ConnectionString,
            match self {
                // It has no retried reads before 3.3, and its legacy topology none at all.
                Self::NodeLegacy => "retryWrites=true",
                Self::NodeUnified3
                | Self::Node
                | Self::PyMongo3
                | Self::PyMongo
                | Self::PyMongoAsync
                | Self::Rust
                | Self::Go
                | Self::Java
                | Self::C
                | Self::Php
                | Self::Other => "retryWrites=true&retryReads=true",
            },
            "on unless switched off",
        )
    }

    /// How a test run makes forgotten operations visible.
    pub(super) const fn strict_run(self) -> Option<Setting> {
        match self {
            Self::NodeLegacy | Self::NodeUnified3 | Self::Node => Some((
                Place::Shell,
                "node --unhandled-rejections=strict --trace-warnings app.js",
                "",
            )),
            Self::PyMongoAsync => Some((Place::Shell, "python -X dev -W error app.py", "")),
            Self::Go => Some((Place::Shell, "go test -race ./...", "")),
            Self::PyMongo3
            | Self::PyMongo
            | Self::Rust
            | Self::Java
            | Self::C
            | Self::Php
            | Self::Other => None,
        }
    }
}
