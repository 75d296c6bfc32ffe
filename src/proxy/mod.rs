//! The part that moves bytes: listeners, dials and the relay between two sockets.
//!
//! ```text
//! listener ──accept──▶ worker thread: a place for the connection
//!                        ├─ upstream dial      one dialled socket for one accepted socket, at once
//!                        ├─ relay              bytes, halves and resets, unmodified, both directions
//!                        └─ tap                shown each chunk after it was written
//! ```
//!
//! **Invariant:** the relay writes a chunk before anyone looks at it. Looking is bounded work, and nothing
//! learned from it can change what is forwarded or end it: the relay knows the tap only as a `relay::Watcher`.

mod budget;
mod connection;
mod crew;
mod listener;
mod pipe;
mod relay;
mod rhythm;
mod schedule;
mod socket;
mod tap;
mod tcp_info;
mod upstream;
mod worker;
mod workers;

pub use crew::Crew;
pub use listener::Listener;
pub use socket::raise_descriptor_limit;
pub use upstream::{Upstream, is_own_address};
pub use workers::Workers;

use std::sync::Arc;

use crate::clients::Directory;
use crate::clock::Clock;
use crate::metrics::Health;
use crate::wire::DecoderLimits;

/// What every connection of the process shares.
#[derive(Debug)]
pub struct Shared {
    /// Who is connected.
    pub directory: Arc<Directory>,
    /// The observer's own cost and failures.
    pub health: Arc<Health>,
    /// The clock.
    pub clock: Clock,
    /// Limits of decoding.
    pub decoder_limits: DecoderLimits,
    /// Open connections beyond which new ones are reset.
    pub connections_max: usize,
    /// Percent of a worker's time that looking may take; `None` without limit.
    pub observe_budget: Option<u32>,
}
