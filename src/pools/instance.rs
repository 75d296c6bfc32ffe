//! Client instances: one process of an application, as far as address and application name tell.

use std::net::IpAddr;
use std::sync::Arc;

use super::Connection;
use crate::clients::label_text;
use crate::connection::ClientMetadata;
use crate::time::Timestamp;

/// A client instance's number, rising in order of first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// Connections of one address and application name, to whichever upstreams.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its number.
    pub id: InstanceId,
    /// Peer address.
    pub address: IpAddr,
    /// Sanitised application name; empty when absent.
    pub app: Arc<str>,
    /// The newest handshake of its pool.
    pub client: Arc<ClientMetadata>,
    /// First sight.
    pub first_seen: Timestamp,
    /// When it last introduced a connection.
    pub last_introduced: Timestamp,
}

/// What tells instances apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InstanceKey {
    pub(super) address: IpAddr,
    pub(super) app: Arc<str>,
}

impl InstanceKey {
    pub(super) fn new(connection: &Connection, client: &ClientMetadata) -> Self {
        Self {
            address: connection.peer.ip().to_canonical(),
            app: label_text(&client.application).into(),
        }
    }
}

impl Instance {
    pub(super) fn new(
        id: InstanceId,
        key: InstanceKey,
        client: &ClientMetadata,
        at: Timestamp,
    ) -> Self {
        Self {
            id,
            address: key.address,
            app: key.app,
            client: Arc::new(client.clone()),
            first_seen: at,
            last_introduced: at,
        }
    }

    /// It introduced another connection.
    pub(super) fn introduced(&mut self, client: &ClientMetadata, at: Timestamp) {
        self.last_introduced = at;
        if *self.client != *client {
            self.client = Arc::new(client.clone());
        }
    }

    /// Its driver is Node's with the legacy pool, which can log "Pool was force destroyed".
    pub fn has_legacy_pool(&self) -> bool {
        self.client.has_legacy_pool()
    }

    /// Its driver is PHP's: a process has one connection to each server and no monitors, and a service is a number of
    /// processes.
    pub fn is_php(&self) -> bool {
        self.client.driver_name.contains("ext-mongodb:PHP")
    }
}
