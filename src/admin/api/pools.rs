//! The rows of mongo clients.

use serde::{Deserialize, Serialize};

/// One `MongoClient` object of a client instance, with its pool to the row's upstream, as inferred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MongoClient {
    /// Its number in this process.
    pub id: u64,
    /// How sure it is that these connections are one client's, from 0 to 1.
    pub confidence: f64,
    /// What tells it apart.
    pub joined: String,
    /// What these two are concluded from.
    pub evidence: String,
    /// Its first connection was opened.
    pub created_at: String,
    /// It was closed; `null` while it is not.
    pub closed_at: Option<String>,
    /// Its open monitors.
    pub monitors: u64,
    /// Its pooled connections.
    pub pool_size: PoolSize,
    /// The server answered it first: from then on it opens pooled connections; `null` before.
    pub ready_at: Option<String>,
    /// Pooled connections created.
    pub created: u64,
    /// Those of them that got through their handshake and authentication.
    pub ready: u64,
    /// Pooled connections closed, by reason.
    pub closed: CloseReasons,
    /// The same by what the reason is concluded from; zero counts are left out.
    pub closed_because: Vec<CloseBasis>,
    /// Operations.
    pub operations: u64,
    /// Operations per pooled connection created; `null` before the first.
    pub operations_per_connection: Option<f64>,
    /// Pooled connections opened a second, over the last minute.
    pub sockets_per_second: f64,
    /// Connections replaced a minute, over the last five.
    pub recycled_per_minute: f64,
    /// Connections opened beyond those, a minute, over the last five.
    pub grown_per_minute: f64,
    /// Connections replaced for each thousand operations, over the last five minutes.
    pub recycled_per_thousand_operations: Option<f64>,
    /// Median idle time before use.
    pub idle_p50_seconds: Option<f64>,
    /// 90th percentile of it.
    pub idle_p90_seconds: Option<f64>,
    /// 99th percentile of it.
    pub idle_p99_seconds: Option<f64>,
    /// `maxIdleTimeMS`, as inferred.
    pub max_idle_seconds_inferred: Option<Inferred>,
    /// Since when every connection is in use in a pool that does not grow.
    pub saturated_since: Option<String>,
    /// Episodes in which the pool was cleared, oldest first.
    pub pool_clears: Vec<PoolClear>,
    /// What else is inferred of it: how sure that is, and why.
    pub grounds: Grounds,
}

/// Pooled connections of a mongo client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSize {
    /// Open.
    pub open: u64,
    /// Most open at once.
    pub peak: u64,
    /// With a request in flight.
    pub active: u64,
    /// Without.
    pub idle: u64,
    /// `maxPoolSize`, as inferred; `null` until there is evidence.
    pub max_inferred: Option<Inferred>,
    /// `minPoolSize`, as inferred; `null` until there is evidence.
    pub min_inferred: Option<Inferred>,
}

/// How sure what is inferred of a mongo client is, and why: a member for each field that does not say so itself, or for
/// several that rest on the same; `null` where there is nothing to be sure of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grounds {
    /// Of `created_at`.
    pub created_at: Ground,
    /// Of `ready_at`.
    pub ready_at: Option<Ground>,
    /// Of `closed_at`.
    pub closed_at: Option<Ground>,
    /// Of `monitors`.
    pub monitors: Option<Ground>,
    /// That connections are pooled ones: of `created`, `ready`, and the counts of `pool_size`.
    pub created: Option<Ground>,
    /// Of `operations` and `operations_per_connection`.
    pub operations: Option<Ground>,
    /// Of `sockets_per_second`.
    pub sockets_per_second: Option<Ground>,
    /// Of `recycled_per_minute`, `recycled_per_thousand_operations` and `grown_per_minute`.
    pub recycled: Option<Ground>,
    /// Of the percentiles of idle times.
    pub idle: Option<Ground>,
    /// Of `saturated_since`.
    pub saturated_since: Option<Ground>,
}

/// Why something is believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ground {
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// What it is concluded from.
    pub evidence: String,
}

/// Pooled connections closed for a reason that was concluded from one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloseBasis {
    /// The reason.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// What it is concluded from.
    pub evidence: String,
}

/// Something inferred.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inferred {
    /// What.
    pub value: f64,
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// What it is concluded from.
    pub evidence: String,
}

/// Closed connections by the reasons of drivers' `ConnectionClosed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseReasons {
    /// Idle for too long.
    pub idle: u64,
    /// The pool was cleared.
    pub stale: u64,
    /// An error on the connection.
    pub error: u64,
    /// The pool was closed.
    pub pool_closed: u64,
}

/// An episode in which a pool was cleared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolClear {
    /// The first sign.
    pub at: String,
    /// When it worked again; `null` while it does not.
    pub ready_at: Option<String>,
    /// Why.
    pub trigger: String,
    /// How sure, from 0 to 1.
    pub confidence: f64,
    /// What it is concluded from.
    pub evidence: String,
    /// Connections that went with it.
    pub closed: u64,
    /// Why it is taken to have worked again at `ready_at`; `null` while it does not.
    pub ready: Option<Ground>,
}
