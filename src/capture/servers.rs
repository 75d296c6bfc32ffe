//! Who is a server: whoever is sent a request of the protocol, and whoever listens on its usual ports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::segment::Segment;
use crate::wire::{Direction, HEADER_LEN, MESSAGE_LEN_MAX, OpCode};

/// Servers that are told apart.
const SERVERS_MAX: usize = 256;

/// mongod, shard servers, config servers.
const USUAL_PORTS: RangeInclusive<u16> = 27_017..=27_019;

/// Answers to a hello that are remembered, to be recognised on another hop.
const ANSWERS_MAX: usize = 65_536;

/// A name that every answer to a hello has, and hardly anything else.
const IN_ANSWERS: &[u8] = b"maxWireVersion";

/// Where in an answer it is looked for.
const LOOKED_AT: usize = 4096;

/// Finds servers.
#[derive(Debug, Default)]
pub(super) struct Scout {
    found: BTreeSet<SocketAddr>,
    /// Those of which the usual port is the only sign.
    is_overfull: bool,
    /// By the hash of an answer to a hello, which names moment and process, so that no two are alike.
    answers: BTreeMap<u64, SocketAddr>,
    answer_order: VecDeque<u64>,
    /// Servers whose answers a nearer one passed on.
    behind: BTreeMap<SocketAddr, SocketAddr>,
}

impl Scout {
    /// Takes in a segment.
    pub(super) fn see(&mut self, segment: &Segment<'_>) {
        if begins_message(segment.payload, Direction::ToServer) {
            self.add(segment.to);
        }
        for addr in [segment.to, segment.from] {
            let other = if addr == segment.to {
                segment.from
            } else {
                segment.to
            };
            if USUAL_PORTS.contains(&addr.port()) && !USUAL_PORTS.contains(&other.port()) {
                self.add(addr);
            }
        }
        if begins_message(segment.payload, Direction::ToClient)
            && self.found.contains(&segment.from)
        {
            self.answered(segment);
        }
    }

    /// The servers found, without those that others stand before.
    pub(super) fn into_servers(self, warnings: &mut Vec<String>) -> Vec<SocketAddr> {
        for (far, near) in &self.behind {
            warnings.push(format!(
                "{near} passes on what {far} says, so these are two hops of the same connections: only those to \
                 {near}, the one nearer to the clients, were analysed; choose with --server"
            ));
        }
        if self.is_overfull {
            warnings.push(format!(
                "there are more than {SERVERS_MAX} servers: only as many were analysed; choose with --server"
            ));
        }
        let is_near = |server: &SocketAddr| !self.behind.contains_key(server);
        self.found.iter().copied().filter(is_near).collect()
    }

    fn add(&mut self, server: SocketAddr) {
        if self.found.len() < SERVERS_MAX || self.found.contains(&server) {
            self.found.insert(server);
        } else {
            self.is_overfull = true;
        }
    }

    /// The same answer on a second hop was sent there later: whoever sent it first is further from the client.
    fn answered(&mut self, segment: &Segment<'_>) {
        let begin = segment.payload.get(..segment.payload.len().min(LOOKED_AT));
        let begin = begin.unwrap_or_default();
        if !begin
            .windows(IN_ANSWERS.len())
            .any(|part| part == IN_ANSWERS)
        {
            return;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        segment.payload.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(&first) = self.answers.get(&hash) {
            // Two that stand behind each other are an attempt to hide both.
            if first != segment.from && !self.behind.contains_key(&segment.from) {
                self.behind.insert(first, segment.from);
            }
            return;
        }
        if self.answers.len() >= ANSWERS_MAX
            && let Some(oldest) = self.answer_order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.answers.insert(hash, segment.from);
        self.answer_order.push_back(hash);
    }
}

/// Whether `bytes` begin with the header of a message of this direction: requests answer nothing, replies do.
pub(super) fn begins_message(bytes: &[u8], direction: Direction) -> bool {
    let Some(header) = bytes.get(..HEADER_LEN) else {
        return false;
    };
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|four| four.try_into().ok());
        i32::from_le_bytes(bytes.unwrap_or_default())
    };
    let is_possible =
        u32::try_from(number(0)).is_ok_and(|len| (21..=MESSAGE_LEN_MAX).contains(&len));
    let opcode = OpCode::from_wire(number(12));
    let fits = match direction {
        Direction::ToServer => {
            let is_request = matches!(opcode, OpCode::Query | OpCode::Msg | OpCode::Compressed);
            is_request && number(8) == 0
        }
        Direction::ToClient => {
            let is_reply = matches!(opcode, OpCode::Reply | OpCode::Msg | OpCode::Compressed);
            is_reply && number(8) != 0
        }
    };
    is_possible && fits
}
