//! One connection, followed by one state machine.
//!
//! The tracker takes chunks of both directions with their moments, and tells facts. It must do no IO and
//! know nothing of other connections: what siblings decide (which of several silent connections is the
//! round-trip monitor) belongs to `clients`.
//!
//! ```text
//! chunk ──▶ Tracker ──▶ Decoder (one a direction) ──▶ Message ──▶ Dialogue ──▶ Facts
//!                                                                  │ handshake  who is there
//!                                                                  │ auth       as whom
//!                                                                  │ evidence   what for
//!                                                                  └ exchange   which reply answers what
//! ```

mod auth;
mod dialogue;
mod document;
mod ending;
mod evidence;
mod exchange;
mod handshake;
mod observation;
#[cfg(test)]
mod properties;
mod role;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod testing;
mod tracker;

pub use ending::{CloseReason, Ending, Initiator, Manner, Phase};
pub use observation::{
    Authentication, AuthenticationResult, ClientMetadata, CursorEffect, ErrorKind, Exchange, Facts,
    Mechanism, Observation, OpaqueReason, ReplyError, ServerFacts, ServerRole,
};
pub use role::{Role, State};
pub use tracker::Tracker;
