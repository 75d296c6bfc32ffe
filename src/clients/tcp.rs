//! What the kernel tells of a connection's two sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::ConnectionCell;
use super::lock;
use crate::time::Micros;

impl ConnectionCell {
    /// Counts for its owner what was sent again since the last time. A shelter counts nothing: what happens until
    /// the handshake is read is counted for the owner.
    pub(super) fn account_retransmits(&self) {
        let Some(states) = *lock(&self.tcp) else {
            return;
        };
        let owner = Arc::clone(&lock(&self.facts).owner);
        if owner.opened.load(Ordering::Relaxed) == 0 {
            return;
        }
        let sides = states.iter().zip(&self.retransmits_counted);
        for ((state, counted), total) in sides.zip(&owner.retransmits) {
            let before = counted.swap(state.retransmits, Ordering::Relaxed);
            let news = state.retransmits.saturating_sub(before);
            total.fetch_add(u64::from(news), Ordering::Relaxed);
        }
    }
}

/// The mean round-trip times of the sockets to the clients and to the servers.
pub(super) fn mean_rtt<'a>(
    connections: impl Iterator<Item = &'a ConnectionCell>,
) -> [Option<Duration>; 2] {
    let mut sums = [(Duration::ZERO, 0_u32); 2];
    for connection in connections {
        let states = lock(&connection.tcp).unwrap_or_default();
        for ((sum, count), state) in sums.iter_mut().zip(states) {
            // Zero is what a socket has before its first measurement.
            if state.rtt > Micros::ZERO {
                *sum = sum.saturating_add(state.rtt.duration());
                *count += 1;
            }
        }
    }
    sums.map(|(sum, count)| sum.checked_div(count))
}
