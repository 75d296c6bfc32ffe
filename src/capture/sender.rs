//! What a sender's kernel would have told of its socket, from segments and their acknowledgements.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::{Micros, Timestamp};
use crate::timeline::TcpState;

/// Segments under way that are timed; more are only counted.
const TIMED_MAX: usize = 64;

/// No kernel sends again so soon: the same packet was captured twice, as on all interfaces at once.
const SAME_PACKET: Duration = Duration::from_millis(1);

/// The sending end of one direction.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Behind the last byte sent, and when.
    newest: Option<(u32, Timestamp)>,
    under_way: VecDeque<UnderWay>,
    /// Beyond those that are timed.
    more: u32,
    rtt: Option<Duration>,
    segments: u32,
    retransmits: u32,
    /// Of those, what the other side had acknowledged before.
    acknowledged_before: u32,
    /// Of those, what the other side said it had received before; not all hosts say so.
    received_twice: u32,
    /// Where the newest of these begins, and when it was said.
    told_twice: Option<(u32, Timestamp)>,
    /// What comes before it is acknowledged.
    acknowledged: Option<u32>,
    acknowledged_at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    end: u32,
    at: Timestamp,
    /// It was sent once only: otherwise nobody knows what is acknowledged (RFC 6298 § 3, Karn's algorithm).
    is_clean: bool,
}

/// Whether the number `a` comes after `b`.
pub(super) fn is_after(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 1 << 31
}

impl Sender {
    /// `len` bytes from `sequence` on were sent.
    pub(super) fn sent(&mut self, at: Timestamp, sequence: u32, len: u32) {
        let end = sequence.wrapping_add(len);
        let Some((newest, newest_at)) = self.newest else {
            self.newest = Some((end, at));
            self.add(end, at);
            return;
        };
        if is_after(end, newest) {
            self.newest = Some((end, at));
            self.add(end, at);
            return;
        }
        // A keepalive repeats the last byte (RFC 9293 § 3.8.4).
        let is_keepalive = len == 1 && self.under_way.is_empty();
        if is_keepalive || at.since(newest_at) < SAME_PACKET {
            return;
        }
        self.segments = self.segments.saturating_add(1);
        self.retransmits = self.retransmits.saturating_add(1);
        let is_there = self.acknowledged.is_some_and(|all| !is_after(end, all));
        self.acknowledged_before = self.acknowledged_before.saturating_add(u32::from(is_there));
        for known in &mut self.under_way {
            if !is_after(sequence, known.end) {
                known.is_clean = false;
            }
        }
    }

    /// The other side has received everything before `sequence`.
    pub(super) fn acknowledged(&mut self, at: Timestamp, sequence: u32) {
        self.acknowledged_at = at;
        if self.acknowledged.is_none_or(|all| is_after(sequence, all)) {
            self.acknowledged = Some(sequence);
        }
        let mut measured = None;
        while let Some(first) = self.under_way.front() {
            if is_after(first.end, sequence) {
                break;
            }
            measured = Some(*first).filter(|first| first.is_clean);
            self.under_way.pop_front();
        }
        if self.under_way.is_empty() {
            self.more = 0;
        }
        if let Some(measured) = measured {
            let took = at.since(measured.at);
            // RFC 6298 § 2.
            self.rtt = Some(self.rtt.map_or(took, |rtt| (rtt * 7 + took) / 8));
        }
    }

    /// The other side says that it had received what begins at `sequence` before it was sent again: nothing was lost
    /// (RFC 2883).
    pub(super) fn received_twice(&mut self, at: Timestamp, sequence: u32) {
        let is_same = |(known, told_at): (u32, Timestamp)| {
            known == sequence && at.since(told_at) < SAME_PACKET
        };
        if self.told_twice.is_some_and(is_same) {
            return;
        }
        self.told_twice = Some((sequence, at));
        // What was sent before the capture began is among neither.
        let received_twice = self.received_twice.saturating_add(1);
        self.received_twice = received_twice.min(self.retransmits);
    }

    /// What its kernel would tell at `at`.
    pub(super) fn state(&self, at: Timestamp) -> TcpState {
        let timed = u32::try_from(self.under_way.len()).unwrap_or(u32::MAX);
        let unacked = timed.saturating_add(self.more);
        TcpState {
            rtt: self.rtt.unwrap_or_default().into(),
            segments: self.segments,
            retransmits: self.retransmits,
            // One and the same may be among both.
            duplicates: self.acknowledged_before.max(self.received_twice),
            unacked,
            // When nothing is under way it says nothing, and would only make every moment differ.
            since_ack: if unacked > 0 {
                at.since(self.acknowledged_at).into()
            } else {
                Micros::ZERO
            },
        }
    }

    fn add(&mut self, end: u32, at: Timestamp) {
        self.segments = self.segments.saturating_add(1);
        if self.acknowledged_at == Timestamp::default() {
            self.acknowledged_at = at;
        }
        if self.under_way.len() >= TIMED_MAX {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.under_way.push_back(UnderWay {
            end,
            at,
            is_clean: true,
        });
    }
}
