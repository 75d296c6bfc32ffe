//! Versions of drivers, and what they have by the sources that `driver` names: written down a second time, by version.

use super::super::driver::Driver;

/// What connection strings and constructors of this version know, of what advice could name; the version as the driver
/// introduces itself.
pub(super) struct Known {
    name: &'static str,
    version: &'static str,
    is_legacy: bool,
    pub(super) options: &'static str,
    /// `retryWrites` is on unless it is switched off.
    pub(super) retries_writes: bool,
}

impl Known {
    pub(super) fn driver(&self) -> Driver {
        Driver::named(self.name, self.version, self.is_legacy)
    }
}

const fn known(
    name: &'static str,
    version: &'static str,
    options: &'static str,
    retries_writes: bool,
) -> Known {
    Known {
        name,
        version,
        is_legacy: false,
        options,
        retries_writes,
    }
}

const fn legacy(version: &'static str, options: &'static str, retries_writes: bool) -> Known {
    Known {
        is_legacy: true,
        ..known("nodejs", version, options, retries_writes)
    }
}

/// The versions on both sides of each change, and those that scenarios are played with.
pub(super) const KNOWN: [Known; 34] = [
    legacy(
        "2.2.36",
        "maxPoolSize socketTimeoutMS reconnectTries reconnectInterval",
        false,
    ),
    legacy(
        "3.1.0",
        "maxPoolSize socketTimeoutMS reconnectTries reconnectInterval retryWrites",
        false,
    ),
    legacy(
        "3.6.12",
        "maxPoolSize socketTimeoutMS reconnectTries reconnectInterval retryWrites",
        true,
    ),
    known(
        "nodejs",
        "3.5.0",
        "maxPoolSize useUnifiedTopology retryWrites retryReads",
        true,
    ),
    known(
        "nodejs",
        "3.6.12",
        "maxPoolSize maxIdleTimeMS minPoolSize useUnifiedTopology retryWrites retryReads",
        true,
    ),
    known(
        "nodejs",
        "4.0.0",
        "maxPoolSize maxIdleTimeMS minPoolSize retryWrites retryReads",
        true,
    ),
    known("nodejs", "4.6.0", POOL_AND_RETRIES, true),
    known("nodejs", "4.7.0", ALL_BUT_TIMEOUT, true),
    known("nodejs", "6.0.0", ALL_BUT_TIMEOUT, true),
    known("nodejs", "6.16.0", ALL_BUT_TIMEOUT, true),
    known("nodejs", "6.22.0", ALL_OF_NODE, true),
    known("nodejs", "7.9.0", ALL_OF_NODE, true),
    known("PyMongo", "3.5.1", POOL, false),
    known(
        "PyMongo",
        "3.6.0",
        "maxPoolSize maxIdleTimeMS minPoolSize retryWrites",
        false,
    ),
    known("PyMongo", "3.13.0", POOL_AND_RETRIES, true),
    known("PyMongo|c", "4.1.1", ALL_BUT_TIMEOUT, true),
    known("PyMongo|c", "4.20.0|", ALL, true),
    known("PyMongo|c|async", "4.20.0||", ALL, true),
    known("mongo-rust-driver", "2.8.2", POOL_AND_RETRIES, true),
    known("mongo-rust-driver", "3.9.1", ALL_BUT_TIMEOUT, true),
    known("mongo-go-driver", "v1.0.4", POOL, false),
    known("mongo-go-driver", "v1.7.5", POOL_AND_RETRIES, true),
    known("mongo-go-driver", "v1.8.4", ALL_BUT_TIMEOUT, true),
    known("mongo-go-driver", "2.0.0", ALL, true),
    known("mongo-java-driver", "3.5.0", POOL, false),
    known(
        "mongo-java-driver",
        "3.6.2",
        "maxPoolSize maxIdleTimeMS minPoolSize retryWrites",
        false,
    ),
    known("mongo-java-driver", "3.11.0", POOL_AND_RETRIES, true),
    known("mongo-java-driver|sync", "4.3.4", POOL_AND_RETRIES, true),
    known("mongo-java-driver|sync", "4.4.0", ALL_BUT_TIMEOUT, true),
    known("mongoc", "1.8.0", "maxPoolSize", false),
    known("mongoc", "1.14.0", "maxPoolSize retryWrites", false),
    known(
        "mongoc",
        "1.23.1",
        "maxPoolSize retryWrites retryReads",
        true,
    ),
    known(
        "mongoc / ext-mongodb:PHP ",
        "1.14.0 / 1.5.0 ",
        "retryWrites",
        false,
    ),
    known(
        "mongoc / ext-mongodb:PHP ",
        "1.23.1 / 1.15.0 ",
        "retryWrites retryReads",
        true,
    ),
];

const POOL: &str = "maxPoolSize maxIdleTimeMS minPoolSize";
const POOL_AND_RETRIES: &str = "maxPoolSize maxIdleTimeMS minPoolSize retryWrites retryReads";
const ALL_BUT_TIMEOUT: &str =
    "maxPoolSize maxIdleTimeMS minPoolSize retryWrites retryReads maxConnecting";
const ALL_OF_NODE: &str = "maxPoolSize maxIdleTimeMS minPoolSize retryWrites retryReads maxConnecting \
                           keepAliveInitialDelay";
const ALL: &str =
    "maxPoolSize maxIdleTimeMS minPoolSize retryWrites retryReads maxConnecting timeoutMS";
