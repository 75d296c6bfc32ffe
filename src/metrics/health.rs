//! What the proxy counts about itself, outside of any client: written by relay and listeners.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clients::{Histogram, HistogramRow, Scale};
use crate::journal::JournalHealth;
use crate::wire::{Direction, WireError};

/// Delays added to a chunk: nanoseconds shown as seconds.
static FORWARD_DELAYS: Scale = Scale {
    recorded: &[
        10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 25_000_000,
    ],
    shown: &[
        0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025,
    ],
    recorded_per_shown: 1e9,
};

/// Why an accept failed: the `reason` label of accept errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AcceptFailure {
    /// The process or the system has no descriptor left.
    FileLimit,
    /// The kernel has no memory for it.
    Memory,
    /// The peer went away before it was accepted.
    Aborted,
    /// Anything else.
    Other,
}

impl AcceptFailure {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::FileLimit, Self::Memory, Self::Aborted, Self::Other];

    /// The value of the `reason` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::FileLimit => "file_limit",
            Self::Memory => "memory",
            Self::Aborted => "aborted",
            Self::Other => "other",
        }
    }
}

/// The labels of [`WireError`], by [`reason_index`].
const DECODE_REASONS: [&str; 5] = [
    "tls",
    "unknown_protocol",
    "message_length",
    "malformed",
    "compression",
];

const fn reason_index(error: WireError) -> usize {
    match error {
        WireError::Tls => 0,
        WireError::UnknownProtocol { .. } => 1,
        WireError::MessageLength { .. } => 2,
        WireError::Malformed { .. } => 3,
        WireError::Compression { .. } => 4,
    }
}

/// Counters of the proxy itself. Relaxed atomics: counting neither locks nor allocates.
#[derive(Debug)]
pub struct Health {
    decode_failures: [[AtomicU64; DECODE_REASONS.len()]; 2],
    unobserved_bytes: [AtomicU64; 2],
    forward_delays: [Histogram; 2],
    observe_nanos: AtomicU64,
    accept_errors: [AtomicU64; AcceptFailure::ALL.len()],
    journal: OnceLock<Arc<JournalHealth>>,
    event_subscribers: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            decode_failures: Default::default(),
            unobserved_bytes: Default::default(),
            forward_delays: [
                Histogram::new(&FORWARD_DELAYS),
                Histogram::new(&FORWARD_DELAYS),
            ],
            observe_nanos: AtomicU64::new(0),
            accept_errors: Default::default(),
            journal: OnceLock::new(),
            event_subscribers: AtomicU64::new(0),
        }
    }
}

impl Health {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The decoder of one direction gave up.
    pub fn decode_failed(&self, direction: Direction, error: WireError) {
        let count = self
            .decode_failures
            .get(direction.index())
            .and_then(|reasons| reasons.get(reason_index(error)));
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes were forwarded that nobody decoded.
    pub fn unobserved(&self, direction: Direction, bytes_count: u64) {
        if let Some(count) = self.unobserved_bytes.get(direction.index()) {
            count.fetch_add(bytes_count, Ordering::Relaxed);
        }
    }

    /// A sampled chunk was written `delay` after it became readable.
    pub fn forwarded(&self, direction: Direction, delay: Duration) {
        if let Some(delays) = self.forward_delays.get(direction.index()) {
            delays.record_duration(delay);
        }
    }

    /// Decoding and accounting took `duration`.
    pub fn observed_for(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.observe_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// There is a journal, and this is how it goes. The first stays.
    pub fn set_journal(&self, journal: Arc<JournalHealth>) {
        drop(self.journal.set(journal));
    }

    /// How the journal goes, when there is one.
    pub fn journal(&self) -> Option<&JournalHealth> {
        self.journal.get().map(|journal| &**journal)
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self, failure: AcceptFailure) {
        if let Some(count) = self.accept_errors.get(failure as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A stream of events was attached.
    pub fn subscribed(&self) {
        self.event_subscribers.fetch_add(1, Ordering::Relaxed);
    }

    /// One has gone.
    pub fn unsubscribed(&self) {
        self.event_subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Streams of events that are attached.
    pub fn event_subscribers(&self) -> u64 {
        self.event_subscribers.load(Ordering::Relaxed)
    }

    /// Failures by direction and the label of their reason.
    pub(super) fn decode_failures(&self) -> Vec<(Direction, &'static str, u64)> {
        let directions = Direction::ALL.into_iter().zip(&self.decode_failures);
        directions
            .flat_map(|(direction, reasons)| {
                DECODE_REASONS
                    .into_iter()
                    .zip(reasons)
                    .map(move |(label, count)| (direction, label, count.load(Ordering::Relaxed)))
            })
            .collect()
    }

    pub(crate) fn unobserved_bytes(&self) -> impl Iterator<Item = (Direction, u64)> {
        Direction::ALL
            .into_iter()
            .zip(&self.unobserved_bytes)
            .map(|(direction, count)| (direction, count.load(Ordering::Relaxed)))
    }

    pub(crate) fn forward_delays(&self) -> impl Iterator<Item = (Direction, HistogramRow)> {
        Direction::ALL
            .into_iter()
            .zip(&self.forward_delays)
            .map(|(direction, delays)| (direction, delays.row()))
    }

    pub(super) fn observe_time(&self) -> Duration {
        Duration::from_nanos(self.observe_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn accept_errors(&self) -> impl Iterator<Item = (AcceptFailure, u64)> {
        AcceptFailure::ALL
            .into_iter()
            .zip(&self.accept_errors)
            .map(|(failure, count)| (failure, count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decode_failure_has_the_label_of_its_error() {
        let errors = [
            WireError::Tls,
            WireError::UnknownProtocol {
                message_len: 1,
                opcode: 2,
            },
            WireError::MessageLength {
                message_len: 1,
                offset: 0,
            },
            WireError::Malformed {
                what: "section",
                offset: 0,
            },
            WireError::Compression {
                compressor: "zlib",
                offset: 0,
            },
        ];
        for error in errors {
            let health = Health::new();
            health.decode_failed(Direction::ToClient, error);
            let failures = health.decode_failures();
            let counted: Vec<_> = failures.iter().filter(|(_, _, count)| *count > 0).collect();
            assert_eq!(counted, [&(Direction::ToClient, error.label(), 1)]);
        }
    }
}
