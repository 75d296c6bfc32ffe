//! Whether what a client ends is everything it has, and whether it goes on.

use crate::detect::Signal;
use crate::pools::Pools;

/// Whose connections a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The instance's.
    Whole,
    /// Those of one of its mongo clients.
    MongoClient,
    /// Those of one that opened others since, as is done after a clear of its pool.
    GoesOn,
}

impl Part {
    pub(super) fn of(signal: &Signal, pools: &Pools) -> Self {
        let Some(id) = signal.subject.mongo_client else {
            return Self::Whole;
        };
        let has_opened = pools
            .connections()
            .any(|one| one.mongo_client == Some(id) && one.opened_at > signal.at);
        if has_opened {
            Self::GoesOn
        } else {
            Self::MongoClient
        }
    }

    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::MongoClient => " of one mongo client",
            Self::GoesOn => " of one mongo client, which goes on,",
        }
    }
}
