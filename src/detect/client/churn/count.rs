//! What the clients of one instance that were made a moment ago did, and whether that is churn.
//!
//! `libmongoc` and PHP count requests for each client, so that short processes look like short clients of one process.
//! A process is not started for a single operation, nor several times a second; and many that start together do not
//! go on starting.

use std::time::Duration;

use crate::pools::{MongoClient, Pools};
use crate::time::Timestamp;

/// So many of them are no start of an application.
pub(super) const CREATED_MIN: usize = 8;

/// So many of them have had their time.
const RIPE_MIN: u64 = 4;

/// A client made for a request has done its work after this.
pub(super) const RIPE: Duration = Duration::from_millis(700);

/// It carries a few operations.
const OPERATIONS_MAX: u64 = 6;

/// Where a client may be a process of its own, it carries a single one;
const OPERATIONS_OF_A_REQUEST: u64 = 1;

/// or so many come and go within the window,
const OFTEN_MIN: u64 = 30;

/// and those that stay come for longer than instances take to start together.
const START: Duration = Duration::from_secs(2);

/// The share of clients that carried no more.
const SHARE_MIN: f64 = 0.7;

/// What an instance's clients of the window did.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) created: u64,
    /// When each was made.
    pub(super) moments: Vec<Timestamp>,
    pub(super) closed: u64,
    pub(super) ripe: u64,
    pub(super) brief: u64,
    /// Those that carried no more than one request needs.
    pub(super) single: u64,
    /// Each may be a process of its own.
    pub(super) may_be_processes: bool,
    /// Those that stay came while others of their service lay idle.
    pub(super) are_needless: bool,
    pub(super) operations: u64,
    pub(super) first_at: Option<Timestamp>,
    pub(super) newest_at: Timestamp,
    pub(super) since_told: u64,
    pub(super) closed_since_told: u64,
}

/// A mongo client.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) at: Timestamp,
    /// Without the one that says goodbye.
    pub(super) operations: u64,
    pub(super) is_closed: bool,
    /// It carries something, or did a moment ago.
    pub(super) is_working: bool,
}

impl Made {
    pub(super) fn of(client: &MongoClient, at: Timestamp, pools: &Pools) -> Self {
        let carried: u64 = client.pools.values().map(|pool| pool.operations).sum();
        Self {
            at: client.created_at,
            operations: carried.saturating_sub(u64::from(client.said_goodbye_at.is_some())),
            is_closed: client.closed_at.is_some(),
            is_working: is_working(client, at, pools),
        }
    }
}

impl Count {
    pub(super) fn add(&mut self, made: &Made, at: Timestamp, newest_counted: Option<Timestamp>) {
        self.created += 1;
        self.moments.push(made.at);
        self.operations += made.operations;
        self.closed += u64::from(made.is_closed);
        self.first_at = Some(self.first_at.map_or(made.at, |first| first.min(made.at)));
        self.newest_at = self.newest_at.max(made.at);
        if newest_counted.is_none_or(|newest| made.at > newest) {
            self.since_told += 1;
            self.closed_since_told += u64::from(made.is_closed);
        }
        if at.since(made.at) >= RIPE {
            self.ripe += 1;
            let is_brief = (1..=OPERATIONS_MAX).contains(&made.operations) && !made.is_working;
            self.brief += u64::from(is_brief);
            let is_single = is_brief && made.operations <= OPERATIONS_OF_A_REQUEST;
            self.single += u64::from(is_single);
        }
    }

    /// When the client was made that is one too many.
    pub(super) fn evident_at(&self) -> Option<Timestamp> {
        let mut moments = self.moments.clone();
        moments.sort_unstable();
        moments.get(CREATED_MIN - 1).copied()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of clients")]
    pub(super) fn is_churn(&self) -> bool {
        let (mut brief, mut is_lasting) = (self.brief, true);
        if self.may_be_processes {
            if self.closed < OFTEN_MIN {
                brief = self.single;
            }
            let stay = self.closed * 2 < self.created;
            let lasted = self.newest_at.since(self.first_at.unwrap_or_default());
            is_lasting = self.are_needless || !stay || lasted >= START;
        }
        self.moments.len() >= CREATED_MIN
            && self.ripe >= RIPE_MIN
            && brief as f64 >= self.ripe as f64 * SHARE_MIN
            && is_lasting
    }
}

/// An open connection of it carries something, or did a moment ago.
fn is_working(client: &MongoClient, at: Timestamp, pools: &Pools) -> bool {
    client
        .pools
        .values()
        .flat_map(|pool| &pool.open)
        .filter_map(|id| pools.connection(*id))
        .any(|connection| {
            connection.last.in_flight > 0 || at.since(connection.last.from_client_at) < RIPE
        })
}
