//! Why: signals joined into incidents, causes ranked, each with its evidence and with what speaks against it.
//!
//! ```text
//! Signal ──▶ Book: which case does it belong to? ──▶ Case ──▶ rules: one opinion a cause ──▶ Incident
//! ```
//!
//! Signals that share clients, upstream (or replica set) and time are one [`Case`]. Each rule looks at a case and
//! says how well its cause explains it, from what, and what contradicts it. A case becomes an [`Incident`] with the
//! first opinion that is sure enough. Attribution goes to the first event of a cascade, not to the loudest.

mod advice;
mod asides;
mod book;
mod case;
mod cause;
mod course;
mod incident;
mod kinship;
mod message;
mod reopenings;
mod rules;
mod summary;
mod telling;
mod words;

pub use book::Book;
pub use case::Case;
pub use cause::{Cause, Severity};
pub use incident::{
    Advice, ClientName, Evidence, Failures, Incident, IncidentId, Logged, Moment, News, Place,
    RankedCause,
};
pub use rules::Opinion;

#[cfg(test)]
mod tests;
