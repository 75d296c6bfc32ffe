//! Client instances: one process of an application, as far as address and application name tell.

use std::collections::BTreeMap;
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

impl Instance {
    pub(super) fn find_or_add(
        instances: &mut BTreeMap<InstanceId, Self>,
        connection: &Connection,
        client: &ClientMetadata,
        at: Timestamp,
    ) -> InstanceId {
        let address = connection.peer.ip().to_canonical();
        let app = label_text(&client.application);
        let known = instances
            .values_mut()
            .find(|known| known.address == address && *known.app == *app);
        if let Some(known) = known {
            known.last_introduced = at;
            known.client = Arc::new(client.clone());
            return known.id;
        }
        let id = instances
            .last_key_value()
            .map_or(InstanceId(1), |(last, _)| InstanceId(last.0 + 1));
        instances.insert(
            id,
            Self {
                id,
                address,
                app: app.into(),
                client: Arc::new(client.clone()),
                first_seen: at,
                last_introduced: at,
            },
        );
        id
    }

    /// Its driver is Node's with the legacy pool, which can log "Pool was force destroyed".
    pub fn has_legacy_pool(&self) -> bool {
        self.client.platform.contains("(legacy)")
    }
}
