//! Cursors and transactions a client left open on the server.
//!
//! Both live as long as the server keeps them, not as long as a connection: any connection of the client may
//! continue or end them. **Invariant:** both sets are bounded and expire as the server expires them.
//!
//! Sources: server parameters `cursorTimeoutMillis` (10 min without use) and
//! `transactionLifetimeLimitSeconds` (60 s from the start).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ConnectionId, count};
use crate::time::Timestamp;

/// Cursors remembered for one client; a client with more is broken, and its rest is only counted.
const CURSORS_MAX: usize = 4096;

/// Time without use after which the server closes a cursor.
const CURSOR_IDLE_MAX: Duration = Duration::from_mins(10);

/// Transactions remembered for one client.
const TRANSACTIONS_MAX: usize = 4096;

/// Time from its start after which the server aborts a transaction.
const TRANSACTION_AGE_MAX: Duration = Duration::from_mins(1);

/// Open cursors of one client.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_id: BTreeMap<i64, Cursor>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    used_at: Timestamp,
    awaits_data: bool,
}

impl Cursors {
    /// A cursor was opened; false when there was no place to remember it.
    pub(super) fn opened(&mut self, at: Timestamp, id: i64, awaits_data: bool) -> bool {
        if self.by_id.len() >= CURSORS_MAX && !self.by_id.contains_key(&id) {
            self.expire(at);
            if self.by_id.len() >= CURSORS_MAX {
                return false;
            }
        }
        let used_at = at;
        self.by_id.insert(
            id,
            Cursor {
                used_at,
                awaits_data,
            },
        );
        true
    }

    /// A `getMore` left it open. Says whether it is known to await data.
    pub(super) fn continued(&mut self, at: Timestamp, id: i64) -> bool {
        self.by_id.get_mut(&id).is_some_and(|cursor| {
            cursor.used_at = at;
            cursor.awaits_data
        })
    }

    /// It is gone: drained, failed or killed. Says whether it was known to await data.
    pub(super) fn gone(&mut self, id: i64) -> bool {
        self.by_id
            .remove(&id)
            .is_some_and(|cursor| cursor.awaits_data)
    }

    /// Forgets what the server has closed by now.
    pub(super) fn expire(&mut self, at: Timestamp) {
        self.by_id.retain(|_, cursor| cursor.is_alive(at));
    }

    /// Cursors open at this moment.
    pub(super) fn open_count(&self, at: Timestamp) -> u64 {
        count(self.by_id.values().filter(|cursor| cursor.is_alive(at)))
    }
}

impl Cursor {
    fn is_alive(self, at: Timestamp) -> bool {
        at.since(self.used_at) <= CURSOR_IDLE_MAX
    }
}

/// What tells one transaction from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TransactionKey {
    /// The logical session: it has one transaction at a time.
    Session([u8; 16]),
    /// The session was not read; the connection stands for it.
    Connection(ConnectionId),
}

impl TransactionKey {
    /// The key of a transaction seen on `connection`.
    pub(super) fn new(lsid: Option<[u8; 16]>, connection: ConnectionId) -> Self {
        lsid.map_or(Self::Connection(connection), Self::Session)
    }
}

/// Open transactions of one client, by the moment of their start.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    started_at: BTreeMap<TransactionKey, Timestamp>,
}

impl Transactions {
    /// A transaction began; false when there was no place to remember it.
    pub(super) fn started(&mut self, at: Timestamp, key: TransactionKey) -> bool {
        if self.started_at.len() >= TRANSACTIONS_MAX && !self.started_at.contains_key(&key) {
            self.expire(at);
            if self.started_at.len() >= TRANSACTIONS_MAX {
                return false;
            }
        }
        self.started_at.insert(key, at);
        true
    }

    /// It was committed or aborted, or is gone.
    pub(super) fn ended(&mut self, key: TransactionKey) {
        self.started_at.remove(&key);
    }

    /// Forgets what the server has aborted by now.
    pub(super) fn expire(&mut self, at: Timestamp) {
        self.started_at
            .retain(|_, started_at| at.since(*started_at) <= TRANSACTION_AGE_MAX);
    }

    /// Transactions open at this moment.
    pub(super) fn open_count(&self, at: Timestamp) -> u64 {
        count(
            self.started_at
                .values()
                .filter(|started_at| at.since(**started_at) <= TRANSACTION_AGE_MAX),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn cursors_live_from_opening_until_drained_or_unused() {
        let mut cursors = Cursors::default();
        assert!(cursors.opened(second(0), 7, true));
        assert!(cursors.opened(second(0), 8, false));
        assert!(cursors.continued(second(500), 7));
        assert!(!cursors.continued(second(0), 8));
        assert!(!cursors.continued(second(0), 9), "never seen");
        assert_eq!(cursors.open_count(second(600)), 2);
        assert_eq!(cursors.open_count(second(601)), 1);
        assert!(cursors.gone(7), "it awaited data");
        assert!(!cursors.gone(7));
        assert_eq!(cursors.open_count(second(0)), 1);
        cursors.expire(second(601));
        assert!(cursors.by_id.is_empty());
    }

    #[test]
    fn cursors_beyond_the_limit_are_refused_until_old_ones_expire() {
        let mut cursors = Cursors::default();
        for id in 1..=4096 {
            assert!(cursors.opened(second(0), id, false));
        }
        assert!(!cursors.opened(second(1), 5000, false));
        assert!(cursors.opened(second(1), 1, false), "known already");
        assert!(cursors.opened(second(601), 5000, false));
        assert_eq!(cursors.by_id.len(), 2);
    }

    #[test]
    fn transactions_end_on_any_connection_or_after_a_minute() {
        let mut transactions = Transactions::default();
        let session = TransactionKey::new(Some([1; 16]), ConnectionId(1));
        transactions.started(second(0), session);
        transactions.started(second(0), TransactionKey::new(None, ConnectionId(1)));
        assert_eq!(transactions.open_count(second(60)), 2);
        transactions.ended(TransactionKey::new(Some([1; 16]), ConnectionId(2)));
        assert_eq!(transactions.open_count(second(60)), 1);
        assert_eq!(transactions.open_count(second(61)), 0);
        transactions.expire(second(61));
        assert!(transactions.started_at.is_empty());
    }
}
