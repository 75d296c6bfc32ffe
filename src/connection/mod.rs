//! One connection, followed by one state machine.
//!
//! The tracker takes chunks of both directions with their moments, and tells facts. It must do no IO and
//! know nothing of other connections: what siblings decide (which of several silent connections is the
//! round-trip monitor) belongs to `clients`.

mod ending;
mod observation;
mod role;

pub use ending::{CloseReason, Ending, Initiator, Manner, Phase};
pub use observation::{
    Authentication, AuthenticationResult, ClientMetadata, CursorEffect, ErrorKind, Exchange, Facts,
    Mechanism, Observation, OpaqueReason, ReplyError, ServerFacts, ServerRole,
};
pub use role::{Role, State};
