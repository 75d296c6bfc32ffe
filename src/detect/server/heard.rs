//! When the last byte came from a server, on whichever connection.

use std::collections::BTreeMap;

use crate::pools::Connection;
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, UpstreamId};

/// When servers were heard last. Counters are told once a second: it is known a second late.
#[derive(Debug, Default)]
pub(super) struct Heard {
    upstreams: BTreeMap<UpstreamId, Timestamp>,
}

impl Heard {
    pub(super) fn record(&mut self, entry: &Entry, connection: &Connection) {
        if let Some(at) = heard(entry, connection) {
            let last = self.upstreams.entry(connection.upstream).or_default();
            *last = at.max(*last);
        }
    }

    /// The last byte from a server.
    pub(super) fn last(&self, upstream: UpstreamId) -> Timestamp {
        self.upstreams.get(&upstream).copied().unwrap_or_default()
    }
}

/// When a byte of the server was heard, as far as the fact tells.
pub(super) fn heard(entry: &Entry, connection: &Connection) -> Option<Timestamp> {
    let answered = connection.hello_answered_at.is_some();
    if let Fact::HelloAnswered(_) | Fact::Described(_) | Fact::Failed(_) | Fact::Ready(_) =
        &entry.fact
    {
        return Some(entry.at);
    }
    // Before there was any, the counters have the moment of accept.
    if let Fact::Sampled(_) | Fact::Ended(_) = &entry.fact
        && answered
    {
        return Some(connection.last.from_server_at);
    }
    None
}
