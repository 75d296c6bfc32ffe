//! One rule a cause; and the neighbours of the first cause, with what rules them out.

mod client;
mod facts;
mod seen;
mod server;
mod suspects;

pub(super) use suspects::suspect;

use super::{Case, Cause, Evidence};
use crate::pools::Pools;
use crate::time::Timestamp;

/// How well a cause explains a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinion {
    /// The cause.
    pub cause: Cause,
    /// From 0 to 1.
    pub confidence: f64,
    /// The moment from which the evidence sufficed.
    pub evident_at: Timestamp,
    /// What speaks for it.
    pub evidence: Vec<Evidence>,
    /// What speaks against it.
    pub against: Vec<Evidence>,
}

/// A rule: an opinion about a case, or none where its cause is out of the question.
pub(super) type Rule = fn(&Case, &Pools, Timestamp) -> Option<Opinion>;

/// Every rule.
pub(super) const RULES: [&[Rule]; 2] = [server::RULES, client::RULES];
