//! One process of an application, and the connections it holds.

use super::line::Line;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Monitor,
    RoundTrip,
    Pooled,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    Nothing,
    Hello,
    Stream,
    Measured,
    Reply,
    Goodbye,
}

pub struct Held {
    pub line: Line,
    pub kind: Kind,
    pub instance: usize,
    pub awaits: Awaits,
    pub request_id: i32,
    pub sent_at: Instant,
}

pub struct Instance {
    pub address: Ipv4Addr,
    pub driver: usize,
    /// Tells it from those before it in its place.
    pub life: u64,
    pub sessions: [[u8; 16]; 4],
    pub last_request: i32,
    pub slots: Vec<usize>,
    pub is_leaving: bool,
}

/// Loopback addresses, one an instance; some more than instances, so that whoever comes anew is somewhere else.
pub struct Addresses(VecDeque<Ipv4Addr>);

impl Addresses {
    pub fn of(instances: usize) -> Self {
        let count = instances + instances.div_ceil(5);
        let address = |number: usize| {
            let [_, _, high, low] = (number as u32).to_be_bytes();
            Ipv4Addr::new(127, 1, high, low)
        };
        Self((1..=count).map(address).collect())
    }

    pub fn take(&mut self) -> Ipv4Addr {
        self.0.pop_front().expect("more addresses than instances")
    }

    pub fn give_back(&mut self, address: Ipv4Addr) {
        self.0.push_back(address);
    }
}
