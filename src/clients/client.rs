//! What is counted for one client instance.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::attribution::ClientKey;
use super::connection::{ConnectionCell, DriverName};
use super::cursors::{Cursors, Transactions};
use super::latency::{HANDSHAKES, Histogram, LIFETIMES, LatencyHistogram, REQUESTS};
use super::lock;
use super::processes::Processes;
use super::roles::{Departures, Hints, Sibling};
use super::snapshot::CloseCounts;
use super::{ClientId, ConnectionId, DriverRow, UpstreamId};
use crate::connection::{
    AuthenticationResult, CloseReason, Ending, ErrorKind, Initiator, Mechanism,
};
use crate::time::Timestamp;
use crate::wire::Command;

/// Errors told apart for one client or upstream, by place and code; the rest goes to [`ERROR_CODE_OTHER`].
const ERROR_CODES_MAX: usize = 256;

/// Stands for every code that found no place of its own.
pub const ERROR_CODE_OTHER: i32 = i32::MIN;

/// The heartbeat interval drivers have unless told otherwise (`heartbeatFrequencyMS`).
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);

/// Counters and cold facts of one client instance. Connections hold it by reference, so counting needs no
/// look-up; it outlives its place in the directory as long as one of them holds it.
#[derive(Debug)]
pub(super) struct ClientCell {
    pub(super) id: ClientId,
    pub(super) upstream: UpstreamId,
    /// `None` for the overflow of an upstream.
    pub(super) key: Option<ClientKey>,
    pub(super) address: Arc<str>,
    pub(super) first_seen: Timestamp,
    /// Nanoseconds since the epoch of the last accept or end.
    pub(super) last_seen: AtomicU64,
    /// Connections owned right now; changed only under the lock of the directory's table.
    pub(super) open: AtomicU64,
    pub(super) peaks: Peaks,
    pub(super) opened: AtomicU64,
    pub(super) closed: ClosedCounts,
    pub(super) pooled_opened: AtomicU64,
    pub(super) pooled_closed: AtomicU64,
    pub(super) lifetimes: Histogram,
    pub(super) requests_per_connection: Histogram,
    pub(super) handshakes: Histogram,
    pub(super) command_times: LatencyHistogram,
    pub(super) requests: CommandCounts,
    pub(super) bytes: [AtomicU64; 2],
    /// Segments sent again to the clients and to the servers.
    pub(super) retransmits: [AtomicU64; 2],
    pub(super) busy_nanos: AtomicU64,
    /// Nanoseconds; the newest interval told by one of its monitors.
    heartbeat_nanos: AtomicU64,
    pub(super) errors: ErrorCounts,
    pub(super) authentications: Mutex<BTreeMap<(Mechanism, AuthenticationResult), u64>>,
    pub(super) driver: Mutex<Option<DriverRow>>,
    /// As its newest connection named it.
    driver_name: Mutex<Option<Arc<DriverName>>>,
    pub(super) cursors: Mutex<Cursors>,
    pub(super) transactions: Mutex<Transactions>,
    pub(super) members: Mutex<BTreeMap<ConnectionId, Arc<ConnectionCell>>>,
    pub(super) hints: Mutex<Hints>,
    pub(super) departed: Mutex<Departures>,
    /// Those of them whose handshakes are counted apart from all else.
    pub(super) processes: Mutex<Processes>,
    /// Ended connections that are not judged yet.
    pub(super) unjudged: Mutex<Vec<Unjudged>>,
    /// Its driver has monitors, so that none being open means that no MongoClient is.
    pub(super) has_monitors: AtomicBool,
}

/// A connection that ended with nothing but its handshake.
#[derive(Debug)]
pub(super) struct Unjudged {
    pub(super) connection: Arc<ConnectionCell>,
    pub(super) sibling: Sibling,
    pub(super) ended_at: Timestamp,
}

impl ClientCell {
    pub(super) fn new(
        id: ClientId,
        upstream: UpstreamId,
        key: Option<ClientKey>,
        at: Timestamp,
    ) -> Self {
        let address = key
            .as_ref()
            .map_or_else(|| "other".into(), |key| key.address.to_string().into());
        Self {
            id,
            upstream,
            key,
            address,
            first_seen: at,
            last_seen: AtomicU64::new(at.as_nanos()),
            open: AtomicU64::new(0),
            peaks: Peaks::default(),
            opened: AtomicU64::new(0),
            closed: ClosedCounts::default(),
            pooled_opened: AtomicU64::new(0),
            pooled_closed: AtomicU64::new(0),
            lifetimes: Histogram::new(&LIFETIMES),
            requests_per_connection: Histogram::new(&REQUESTS),
            handshakes: Histogram::new(&HANDSHAKES),
            command_times: LatencyHistogram::default(),
            requests: CommandCounts::default(),
            bytes: Default::default(),
            retransmits: Default::default(),
            busy_nanos: AtomicU64::new(0),
            heartbeat_nanos: AtomicU64::new(super::latency::nanos(HEARTBEAT_DEFAULT)),
            errors: ErrorCounts::default(),
            authentications: Mutex::default(),
            driver: Mutex::default(),
            driver_name: Mutex::default(),
            cursors: Mutex::default(),
            transactions: Mutex::default(),
            members: Mutex::default(),
            hints: Mutex::default(),
            departed: Mutex::default(),
            processes: Mutex::default(),
            unjudged: Mutex::default(),
            has_monitors: AtomicBool::new(false),
        }
    }

    /// The application name shown.
    pub(super) fn app(&self) -> Arc<str> {
        self.key
            .as_ref()
            .map_or_else(|| "other".into(), |key| Arc::clone(&key.app))
    }

    /// The same name once for all connections that have it in a row.
    pub(super) fn shared(&self, name: DriverName) -> Arc<DriverName> {
        let mut known = lock(&self.driver_name);
        match &*known {
            Some(known) if **known == name => Arc::clone(known),
            Some(_) | None => Arc::clone(known.insert(Arc::new(name))),
        }
    }

    pub(super) fn open_count(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_nanos(self.heartbeat_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn set_heartbeat(&self, interval: Duration) {
        self.heartbeat_nanos
            .store(super::latency::nanos(interval), Ordering::Relaxed);
    }

    pub(super) fn seen_at(&self, at: Timestamp) {
        self.last_seen.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn last_seen(&self) -> Timestamp {
        Timestamp::from_nanos(self.last_seen.load(Ordering::Relaxed))
    }

    /// A connection came in. Called under the lock of the directory's table.
    pub(super) fn adopt(&self, connection: &Arc<ConnectionCell>, at: Timestamp) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.peaks.reached(open);
        self.seen_at(at);
        lock(&self.members).insert(connection.id, Arc::clone(connection));
    }

    /// It went away, by ending or moving. Called under the lock of the directory's table.
    pub(super) fn release(&self, connection: ConnectionId, at: Timestamp) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.seen_at(at);
        lock(&self.members).remove(&connection);
    }

    /// Forgets what the server has forgotten, and closes a minute.
    pub(super) fn tick(&self, at: Timestamp) {
        self.peaks.tick(at, self.open_count());
        lock(&self.cursors).expire(at);
        lock(&self.transactions).expire(at);
        lock(&self.departed).expire(at);
    }
}

/// The highest number of open connections, minute by minute.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// The minute since the epoch that `running` belongs to; 0 before the first tick.
    minute: AtomicU64,
    running: AtomicU64,
    complete: AtomicU64,
    has_complete: AtomicBool,
}

impl Peaks {
    fn reached(&self, open: u64) {
        self.running.fetch_max(open, Ordering::Relaxed);
    }

    fn tick(&self, at: Timestamp, open: u64) {
        let minute = at.as_nanos() / 60_000_000_000;
        let previous = self.minute.swap(minute, Ordering::Relaxed);
        if previous == 0 || minute <= previous {
            return;
        }
        let reached = self.running.swap(open, Ordering::Relaxed).max(open);
        // Without a tick for more than a minute nobody knows better than the number at its end.
        let complete = if minute == previous + 1 {
            reached
        } else {
            open
        };
        self.complete.store(complete, Ordering::Relaxed);
        self.has_complete.store(true, Ordering::Relaxed);
    }

    /// The peak of the last complete minute; of the running one before the first is complete.
    pub(super) fn last(&self) -> u64 {
        if self.has_complete.load(Ordering::Relaxed) {
            self.complete.load(Ordering::Relaxed)
        } else {
            self.running.load(Ordering::Relaxed)
        }
    }
}

/// Ended connections by initiator and reason.
#[derive(Debug, Default)]
pub(super) struct ClosedCounts {
    counts: [[AtomicU64; CloseReason::ALL.len()]; Initiator::ALL.len()],
}

impl ClosedCounts {
    pub(super) fn add(&self, ending: Ending) {
        let count = self
            .counts
            .get(ending.initiator as usize)
            .and_then(|reasons| reasons.get(ending.reason().index()));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> CloseCounts {
        let mut closed = Vec::new();
        for (initiator, reasons) in Initiator::ALL.into_iter().zip(&self.counts) {
            for (reason, count) in CloseReason::ALL.into_iter().zip(reasons) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    closed.push((initiator, reason, count));
                }
            }
        }
        closed
    }
}

/// Requests by command.
#[derive(Debug)]
pub(super) struct CommandCounts {
    counts: [AtomicU64; Command::ALL.len()],
}

impl Default for CommandCounts {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; Command::ALL.len()],
        }
    }
}

impl CommandCounts {
    pub(super) fn add(&self, command: Command, count: u64) {
        if let Some(cell) = self.counts.get(command.index()) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Commands seen at least once, in the order of [`Command::ALL`].
    pub(super) fn read(&self) -> Vec<(Command, u64)> {
        Command::ALL
            .iter()
            .zip(&self.counts)
            .map(|(command, count)| (*command, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Errors in replies by place and code, a bounded number of them told apart.
#[derive(Debug, Default)]
pub(super) struct ErrorCounts {
    counts: Mutex<BTreeMap<(ErrorKind, i32), u64>>,
}

impl ErrorCounts {
    pub(super) fn add(&self, kind: ErrorKind, code: i32, count: u32) {
        let mut counts = lock(&self.counts);
        let mut key = (kind, code);
        if counts.len() >= ERROR_CODES_MAX && !counts.contains_key(&key) {
            key = (kind, ERROR_CODE_OTHER);
        }
        let cell = counts.entry(key).or_default();
        *cell = cell.saturating_add(u64::from(count));
    }

    pub(super) fn read(&self) -> Vec<(ErrorKind, i32, u64)> {
        lock(&self.counts)
            .iter()
            .map(|((kind, code), count)| (*kind, *code, *count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn the_peak_is_that_of_the_last_complete_minute() {
        let peaks = Peaks::default();
        peaks.tick(second(600), 0);
        peaks.reached(3);
        assert_eq!(peaks.last(), 3, "before the first complete minute");
        peaks.reached(2);
        peaks.tick(second(659), 1);
        peaks.tick(second(660), 1);
        assert_eq!(peaks.last(), 3);
        peaks.reached(2);
        assert_eq!(peaks.last(), 3, "the running minute does not show");
        peaks.tick(second(720), 1);
        assert_eq!(peaks.last(), 2);
        peaks.reached(9);
        peaks.tick(second(900), 1);
        assert_eq!(peaks.last(), 1, "three minutes without a tick");
    }

    #[test]
    fn error_codes_beyond_the_limit_share_one_place_a_kind() {
        let errors = ErrorCounts::default();
        for code in 0..6000 {
            errors.add(ErrorKind::Write, code, 2);
        }
        let read = errors.read();
        assert_eq!(read.len(), ERROR_CODES_MAX + 1);
        assert_eq!(read.iter().map(|(_, _, count)| count).sum::<u64>(), 12_000);
        assert_eq!(
            read.first(),
            Some(&(ErrorKind::Write, ERROR_CODE_OTHER, 2 * (6000 - 256)))
        );
    }

    #[test]
    fn every_initiator_has_its_own_counts() {
        let closed = ClosedCounts::default();
        for initiator in Initiator::ALL {
            closed.add(Ending {
                initiator,
                manner: crate::connection::Manner::Fin,
                phase: crate::connection::Phase::Idle,
                after_failed_authentication: false,
            });
        }
        let expected = Initiator::ALL.map(|initiator| (initiator, CloseReason::Clean, 1));
        assert_eq!(closed.read(), expected);
    }
}
