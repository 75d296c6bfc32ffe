//! Rows of mongo clients.

use std::time::Duration;

use super::{api, number, seconds};
use crate::clients::ClientRow;
use crate::live::{ClientKey, MongoClientRow, PoolPicture};
use crate::pools::{Clear, CloseBasis, CloseReason, Ground, Inferred};
use crate::time::Timestamp;

/// Mongo clients of one instance that are shown; a client for each request makes thousands.
pub(super) const MONGO_CLIENTS_MAX: u64 = 100;

/// The mongo clients of a row: those that are open first, then those that closed last.
pub(super) fn mongo_clients(row: &ClientRow, picture: &PoolPicture) -> Vec<api::MongoClient> {
    let Some(key) = ClientKey::of(row) else {
        return Vec::new();
    };
    let all = picture.mongo_clients.iter();
    let mut own: Vec<&MongoClientRow> = all.filter(|row| row.key == key).collect();
    own.sort_by_key(|row| {
        let newest_first = row.closed_at.map(std::cmp::Reverse);
        (row.closed_at.is_some(), newest_first, row.id)
    });
    own.truncate(usize::try_from(MONGO_CLIENTS_MAX).unwrap_or(usize::MAX));
    own.into_iter()
        .map(|row| mongo_client(row, picture.at))
        .collect()
}

fn mongo_client(row: &MongoClientRow, at: Timestamp) -> api::MongoClient {
    let pool = &row.pool;
    let open = number(pool.open.len());
    let [p50, p90, p99] = pool.idle_before_use.map(|idle| idle.map(seconds));
    api::MongoClient {
        id: row.id.0,
        confidence: row.confidence,
        joined: row.joined.label().to_owned(),
        evidence: row.standing.joined(pool.created, row.monitors),
        created_at: row.created_at.to_string(),
        closed_at: row.closed_at.map(|at| at.to_string()),
        monitors: row.monitors,
        pool_size: api::PoolSize {
            open,
            peak: pool.peak,
            active: pool.active,
            idle: open.saturating_sub(pool.active),
            max_inferred: pool.max_size.map(size),
            min_inferred: pool.min_size.map(size),
        },
        ready_at: pool.ready_at.map(|at| at.to_string()),
        created: pool.created,
        ready: pool.ready,
        closed: api::CloseReasons {
            idle: pool.closed.of(CloseReason::Idle),
            stale: pool.closed.of(CloseReason::Stale),
            error: pool.closed.of(CloseReason::Error),
            pool_closed: pool.closed.of(CloseReason::PoolClosed),
        },
        closed_because: pool.closed.counts().map(close_basis).collect(),
        operations: pool.operations,
        operations_per_connection: pool.operations_per_connection(),
        sockets_per_second: pool.sockets_per_second(at),
        recycled_per_minute: pool.recycled_per_minute(at),
        grown_per_minute: pool.grown_per_minute(at),
        recycled_per_thousand_operations: pool.recycled_per_thousand_operations(at),
        idle_p50_seconds: p50,
        idle_p90_seconds: p90,
        idle_p99_seconds: p99,
        max_idle_seconds_inferred: pool.max_idle.map(time),
        saturated_since: pool.saturated_since.map(|at| at.to_string()),
        pool_clears: pool.clears.iter().map(clear).collect(),
        grounds: grounds(row, at),
    }
}

fn grounds(row: &MongoClientRow, at: Timestamp) -> api::Grounds {
    let (pool, since) = (&row.pool, row.created_at);
    api::Grounds {
        created_at: ground(row.standing.created()),
        ready_at: pool.ground_of_ready().map(ground),
        closed_at: row.standing.closed().map(ground),
        monitors: Ground::of_monitors(row.monitors, row.monitors_proven).map(ground),
        created: pool.ground_of_created().map(ground),
        operations: pool.ground_of_operations().map(ground),
        sockets_per_second: pool.ground_of_sockets(since, at).map(ground),
        recycled: pool.ground_of_recycling(since, at).map(ground),
        idle: pool.ground_of_idle_times().map(ground),
        saturated_since: pool.ground_of_saturation(at).map(ground),
    }
}

fn ground(ground: Ground) -> api::Ground {
    api::Ground {
        // Two digits are more than anybody knows.
        confidence: (ground.confidence * 100.0).round() / 100.0,
        evidence: ground.evidence,
    }
}

fn close_basis((basis, count): (CloseBasis, u64)) -> api::CloseBasis {
    api::CloseBasis {
        reason: basis.reason().label().to_owned(),
        count,
        confidence: basis.confidence(),
        evidence: basis.told().to_owned(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes of pools are small numbers"
)]
fn size(inferred: Inferred<u64>) -> api::Inferred {
    api::Inferred {
        value: inferred.value as f64,
        confidence: inferred.confidence,
        evidence: inferred.basis.to_string(),
    }
}

fn time(inferred: Inferred<Duration>) -> api::Inferred {
    api::Inferred {
        value: seconds(inferred.value),
        confidence: inferred.confidence,
        evidence: inferred.basis.to_string(),
    }
}

fn clear(clear: &Clear) -> api::PoolClear {
    api::PoolClear {
        at: clear.at.to_string(),
        ready_at: clear.ready_at.map(|at| at.to_string()),
        trigger: clear.sign.trigger().label().to_owned(),
        confidence: clear.sign.confidence(),
        evidence: clear.sign.told().to_owned(),
        closed: clear.closed,
        ready: clear.ground_of_ready().map(ground),
    }
}
