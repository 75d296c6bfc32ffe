//! Ending connections without harm when the process stops.
//!
//! Each connection holds a [`Call`]. Draining calls them one after the other, spread over the drain time, so
//! that a fleet of clients does not reconnect in one instant; a called connection ends at its next moment of
//! rest. When the time is up, all that is left is told to end at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// Part of the drain time over which the calls are spread; the rest is for exchanges under way.
const SPREAD_PARTS: (u32, u32) = (3, 4);

/// Time between two rounds of calls.
const ROUND: Duration = Duration::from_millis(20);

const CALLED: u8 = 1;
const FORCED: u8 = 2;

/// The switchboard of all open connections.
#[derive(Debug, Default)]
pub struct Drain {
    calls: Mutex<BTreeMap<u64, Arc<Slot>>>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    level: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

/// One connection's place in the switchboard; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Call {
    key: u64,
    slot: Arc<Slot>,
    drain: Arc<Drain>,
}

impl Drain {
    /// A place for a connection that was just accepted.
    pub(crate) fn enter(self: &Arc<Self>) -> Call {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot::default());
        self.lock().insert(key, Arc::clone(&slot));
        Call {
            key,
            slot,
            drain: Arc::clone(self),
        }
    }

    /// Connections open now.
    pub fn open_count(&self) -> usize {
        self.lock().len()
    }

    /// Calls every connection within `time`, and returns when all have ended; those that have not when the
    /// time is up are ended at once.
    pub async fn run(&self, time: Duration) {
        let spread = time * SPREAD_PARTS.0 / SPREAD_PARTS.1;
        let rounds = usize::try_from(spread.as_millis() / ROUND.as_millis())
            .unwrap_or(0)
            .max(1);
        let total = self.open_count();
        let mut pause = tokio::time::interval(ROUND);
        let calling = async {
            let (mut from, mut called, mut round) = (0, 0, 0);
            while self.open_count() > 0 {
                pause.tick().await;
                round += 1;
                // The first is due at once: a few connections need not wait for most of the time to pass.
                let due = (total * round).div_ceil(rounds);
                from = self.call_some(from, due - called);
                called = due;
            }
        };
        if tokio::time::timeout(time, calling).await.is_ok() {
            return;
        }
        self.raise_all(FORCED);
        // Every task ends with its next poll; waiting for the last one keeps the counts exact.
        while self.open_count() > 0 {
            pause.tick().await;
        }
    }

    /// Calls up to `count` connections from key `from` on; returns where to go on.
    fn call_some(&self, from: u64, count: usize) -> u64 {
        let mut next = from;
        for (key, slot) in self.lock().range(from..).take(count) {
            slot.raise(CALLED);
            next = key + 1;
        }
        next
    }

    fn raise_all(&self, level: u8) {
        for slot in self.lock().values() {
            slot.raise(level);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Slot>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn raise(&self, level: u8) {
        self.level.fetch_max(level, Ordering::AcqRel);
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Call {
    /// The connection shall end at its next moment of rest.
    pub(crate) fn is_called(&self) -> bool {
        self.slot.level.load(Ordering::Acquire) >= CALLED
    }

    /// The connection shall end now.
    pub(crate) fn is_forced(&self) -> bool {
        self.slot.level.load(Ordering::Acquire) >= FORCED
    }

    /// Whom to wake when called.
    pub(crate) fn set_waker(&self, waker: Waker) {
        *self
            .slot
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.drain.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_are_spread_and_the_last_ones_are_forced() {
        let drain = Arc::new(Drain::default());
        let mut calls: Vec<Call> = (0..100).map(|_| drain.enter()).collect();
        let running = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.run(Duration::from_secs(8)).await }
        });
        tokio::time::sleep(ROUND).await;
        assert!(calls[0].is_called(), "the first one is not kept waiting");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let called = calls.iter().filter(|call| call.is_called()).count();
        assert!(
            (40..=60).contains(&called),
            "{called} of 100 called after half the spread"
        );
        calls.retain(|call| !call.is_called());
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        assert!(calls.iter().all(Call::is_forced));
        calls.clear();
        running.await.expect("drain ends");
        assert_eq!(drain.open_count(), 0);
    }
}
