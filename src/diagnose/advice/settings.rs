//! The settings of drivers that advice names, as the driver and version at hand spells them.

use std::time::Duration;

use super::super::Place;
use super::driver::{Driver, Family, Feature, Version};

/// What to know of an option that nobody has looked up for the driver at hand.
pub(super) const BY_SPECIFICATION: &str =
    "as the drivers' specifications name it; see whether this driver has it";

/// What to set, where, and what to know beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    pub(super) place: Place,
    pub(super) command: String,
    /// A remark, or nothing.
    pub(super) beside: String,
}

fn setting(place: Place, command: impl Into<String>, beside: &str) -> Setting {
    Setting {
        place,
        command: command.into(),
        beside: beside.to_owned(),
    }
}

/// In the connection string.
fn in_string(command: impl Into<String>, beside: &str) -> Setting {
    setting(Place::ConnectionString, command, beside)
}

/// In the code.
fn in_code(command: &str, beside: &str) -> Setting {
    setting(Place::Code, command, beside)
}

impl Driver {
    /// The largest size of a pool, with the default it has otherwise.
    pub(super) fn pool_size(self) -> Option<Setting> {
        if !self.has(Feature::MaxPoolSize) {
            return None;
        }
        let (size, beside) = match (self.family, self.version) {
            (Family::Other, _) => (20, BY_SPECIFICATION),
            (Family::NodeLegacy, _) => (3, "5 unless set"),
            // `lib/topologies/native_topology.js` of 3.5 and 3.6.
            (Family::NodeUnified3, version) if version < Version(3, 6) => (3, "5 unless set"),
            // `cmap.rs` of Rust's driver 3.
            (Family::NodeUnified3, _) => (5, "10 unless set"),
            (Family::Rust, version) if version >= Version(2, 0) => (5, "10 unless set"),
            _ => (20, "100 unless set"),
        };
        Some(in_string(format!("maxPoolSize={size}"), beside))
    }

    /// How an operation's time is limited.
    pub(super) fn operation_limit(self) -> Setting {
        let beside = self.beside_limits();
        if self.has(Feature::Timeout) {
            return in_string("timeoutMS=5000", beside);
        }
        let code = match self.family {
            Family::NodeLegacy | Family::NodeUnified3 | Family::Node => {
                "collection.find(filter, { maxTimeMS: 5000 })"
            }
            Family::PyMongo | Family::PyMongoAsync => "collection.find(filter, max_time_ms=5000)",
            Family::Go => "collection.Find(ctx, filter, options.Find().SetMaxTime(5*time.Second))",
            Family::Rust if self.version >= Version(3, 0) => {
                "collection.find(filter).max_time(Duration::from_secs(5))"
            }
            Family::Rust => "FindOptions::builder().max_time(Duration::from_secs(5)).build()",
            Family::Java => "collection.find(filter).maxTime(5, TimeUnit.SECONDS)",
            Family::C => "bson_t *opts = BCON_NEW(\"maxTimeMS\", BCON_INT64(5000));",
            Family::Php => "$collection->find($filter, ['maxTimeMS' => 5000])",
            Family::Other => "{find: 'collection', filter: filter, maxTimeMS: 5000}",
        };
        in_code(code, beside)
    }

    /// What else ends operations, and should not.
    fn beside_limits(self) -> &'static str {
        if self.family == Family::Other {
            BY_SPECIFICATION
        } else if matches!(self.family, Family::C | Family::Php) {
            // `MONGOC_DEFAULT_SOCKETTIMEOUTMS`.
            "leave socketTimeoutMS at its five minutes"
        } else if self.family == Family::Go && !self.has(Feature::Timeout) {
            // Up to 1.x a deadline that passes while the reply is awaited closes the connection.
            "leave socketTimeoutMS out, and let the context's deadline come later: one that passes first costs the \
             connection as well"
        } else if self.has(Feature::SocketTimeout) {
            "leave socketTimeoutMS out"
        } else {
            ""
        }
    }

    /// What is known of an option of this driver, or that nothing is.
    fn beside(self, known: &'static str) -> &'static str {
        if self.family == Family::Other {
            BY_SPECIFICATION
        } else {
            known
        }
    }

    /// How a client is closed without cutting what is under way.
    pub(super) fn orderly_close(self) -> Option<Setting> {
        let code = match self.family {
            Family::NodeLegacy | Family::NodeUnified3 | Family::Node => {
                "await Promise.allSettled(pending); await client.close()"
            }
            Family::PyMongo => "executor.shutdown(wait=True); client.close()",
            Family::PyMongoAsync => {
                "await asyncio.gather(*tasks, return_exceptions=True); await client.close()"
            }
            Family::Rust if self.version >= Version(3, 0) => {
                "futures::future::join_all(tasks).await; client.shutdown().await"
            }
            Family::Rust => "futures::future::join_all(tasks).await; drop(client)",
            Family::Go => "wg.Wait(); client.Disconnect(ctx)",
            Family::Java => {
                "executor.shutdown(); executor.awaitTermination(30, TimeUnit.SECONDS); client.close()"
            }
            Family::C => {
                "mongoc_client_pool_push(pool, client); /* of every thread, then */ mongoc_client_pool_destroy(pool);"
            }
            Family::Php | Family::Other => return None,
        };
        Some(in_code(code, ""))
    }

    /// How the pool gives up connections that were idle for so long.
    pub(super) fn idle_limit(self, limit: Duration) -> Option<Setting> {
        let command = format!("maxIdleTimeMS={}", limit.as_millis());
        self.has(Feature::IdleTime)
            .then(|| in_string(command, self.beside("no limit unless set")))
    }

    /// How idle connections are replaced less often, when they live so long.
    pub(super) fn idle_saving(self, limit: Duration) -> Option<Setting> {
        let millis = limit.as_millis();
        if self.family == Family::NodeLegacy {
            // What replaces its idle connections is the time-out of their sockets.
            return Some(in_string(
                format!("socketTimeoutMS={millis}"),
                "it is what ends idle sockets of this pool",
            ));
        }
        let command = format!("maxIdleTimeMS={millis}&minPoolSize=2");
        self.has(Feature::IdleTime)
            .then(|| in_string(command, self.beside("no limit and none kept unless set")))
    }

    /// How the driver's own sockets are told to speak while they are idle, where the kernel's setting is not heard.
    pub(super) fn keepalive(self, delay: Duration) -> Option<Setting> {
        self.has(Feature::KeepAliveDelay).then(|| {
            let millis = delay.as_millis();
            let command = format!("new MongoClient(uri, {{ keepAliveInitialDelay: {millis} }})");
            setting(
                Place::Code,
                command,
                "120000 unless set, whatever the kernel's",
            )
        })
    }

    /// How many sockets a pool dials at once, and what keeps them few.
    pub(super) fn dialling(self) -> Option<Setting> {
        if matches!(self.family, Family::Php | Family::Other) {
            None
        } else if self.has(Feature::MaxConnecting) {
            Some(in_string(
                "maxConnecting=2",
                "2 unless set: what dials more is several clients, or one made again and again",
            ))
        } else {
            // Nothing else keeps it from dialling for each operation that waits.
            self.pool_size()
        }
    }

    /// A loop that waits longer after each failure.
    pub(super) fn backoff(self) -> Option<Setting> {
        let code = match self.family {
            Family::NodeLegacy | Family::NodeUnified3 | Family::Node => {
                "await new Promise(done => setTimeout(done, Math.random() * Math.min(30000, 100 * 2 ** attempt)))"
            }
            Family::PyMongo => "time.sleep(random.random() * min(30, 0.1 * 2 ** attempt))",
            Family::PyMongoAsync => {
                "await asyncio.sleep(random.random() * min(30, 0.1 * 2 ** attempt))"
            }
            Family::Rust => {
                "tokio::time::sleep(Duration::from_millis(100 << attempt.min(8)).mul_f64(rand::random())).await"
            }
            Family::Go => {
                "time.Sleep(time.Duration(rand.Int63n(int64(delay)))); if delay < 30*time.Second { delay *= 2 }"
            }
            Family::Java => {
                "Thread.sleep(ThreadLocalRandom.current().nextLong(100L << Math.min(attempt, 8)))"
            }
            Family::Php => "usleep(random_int(0, 100000 << min($attempt, 8)));",
            Family::C => "usleep(rand() % (100000 << (attempt < 8 ? attempt : 8)));",
            Family::Other => return None,
        };
        Some(in_code(code, ""))
    }

    /// How operations are retried.
    pub(super) fn retries(self) -> Option<Setting> {
        let reads = self.has(Feature::RetryReads);
        let beside = match (self.has(Feature::RetryWritesOn), reads) {
            (true, true) => "on unless switched off",
            (true, false) => "on unless switched off; reads are not retried by this driver",
            (false, _) => "off unless set; reads are not retried by this version",
        };
        if self.family == Family::Other {
            Some(in_string(
                "retryWrites=true&retryReads=true",
                BY_SPECIFICATION,
            ))
        } else if self.family == Family::NodeUnified3 && reads {
            // Its connection string has no name for retried reads: `lib/core/uri_parser.js` of 3.6.
            Some(in_code(
                "new MongoClient(uri, { useUnifiedTopology: true, retryWrites: true, retryReads: true })",
                beside,
            ))
        } else if reads {
            Some(in_string("retryWrites=true&retryReads=true", beside))
        } else {
            self.has(Feature::RetryWrites)
                .then(|| in_string("retryWrites=true", beside))
        }
    }

    /// How a test run makes forgotten operations visible.
    pub(super) fn strict_run(self) -> Option<Setting> {
        let command = match self.family {
            Family::NodeLegacy | Family::NodeUnified3 | Family::Node => {
                "node --unhandled-rejections=strict --trace-warnings app.js"
            }
            // A coroutine that is never awaited is a warning, and one that nobody can catch.
            Family::PyMongoAsync => {
                "python -X dev -m pytest -W error::RuntimeWarning -W error::pytest.PytestUnraisableExceptionWarning"
            }
            Family::PyMongo
            | Family::Rust
            | Family::Go
            | Family::Java
            | Family::C
            | Family::Php
            | Family::Other => return None,
        };
        Some(setting(Place::Shell, command, ""))
    }
}
