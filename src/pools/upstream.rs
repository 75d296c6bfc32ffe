//! What is known of one upstream.

use std::sync::Arc;

use crate::connection::{ServerFacts, ServerRole};
use crate::time::Timestamp;
use crate::timeline::Fact;
use crate::timeline::lines::UpstreamName;

/// An upstream and what its server said of itself.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: Arc<str>,
    /// `host:port`.
    pub address: Arc<str>,
    /// What the server said last.
    pub server: Option<Arc<ServerFacts>>,
    /// When the role it announces changed last.
    pub role_changed_at: Option<Timestamp>,
    /// When another server process than before answered.
    pub restarted_at: Option<Timestamp>,
    /// When the first hello of a connection was answered last.
    pub greeted_at: Option<Timestamp>,
    /// Since when every dial failed.
    pub unreachable_since: Option<Timestamp>,
}

impl Upstream {
    pub(super) fn new(name: UpstreamName) -> Self {
        Self {
            name: name.name.into(),
            address: name.address.into(),
            server: None,
            role_changed_at: None,
            restarted_at: None,
            greeted_at: None,
            unreachable_since: None,
        }
    }

    pub(super) fn record(&mut self, at: Timestamp, fact: &Fact) {
        if let Fact::Dialled(_) = fact {
            self.unreachable_since = None;
        } else if let Fact::DialFailed(_) = fact {
            self.unreachable_since.get_or_insert(at);
        } else if let Fact::Ready(_) = fact {
            self.greeted_at = Some(at);
        } else if let Fact::Described(server) = fact {
            self.described(at, server);
        }
    }

    fn described(&mut self, at: Timestamp, server: &ServerFacts) {
        if let Some(known) = &self.server {
            if known.role != server.role && known.role != ServerRole::Unknown {
                self.role_changed_at = Some(at);
            }
            let process = |facts: &ServerFacts| facts.topology_version.map(|v| v.process_id);
            if process(known).is_some() && process(server) != process(known) {
                self.restarted_at = Some(at);
            }
        }
        self.server = Some(Arc::new(server.clone()));
    }

    /// Its replica set; what upstreams of one set have in common.
    pub fn set_name(&self) -> Option<&str> {
        self.server.as_ref()?.set_name.as_deref()
    }
}
