//! Directories to test with.

use std::sync::Arc;
use std::time::Duration;

use super::{Directory, DirectoryLimits, UpstreamSpec};
use crate::connection::{Ending, Initiator, Manner, Phase};
use crate::timeline::Witness;

/// An empty directory of one upstream.
pub(crate) fn directory(clients_max: usize) -> Arc<Directory> {
    witnessed(clients_max, None)
}

/// The same, of which `witness` is told.
pub(crate) fn witnessed(clients_max: usize, witness: Option<Arc<dyn Witness>>) -> Arc<Directory> {
    let limits = DirectoryLimits {
        clients_max,
        client_ttl: Duration::from_mins(15),
    };
    let spec = UpstreamSpec {
        name: "db".to_owned(),
        listen: "127.0.0.1:27018".to_owned(),
        address: "127.0.0.1:27017".to_owned(),
        advertised: Vec::new(),
    };
    Arc::new(Directory::with_witness(limits, vec![spec], witness))
}

/// The end of a connection that its client closed while nothing was under way.
pub(crate) fn clean() -> Ending {
    Ending {
        initiator: Initiator::Client,
        manner: Manner::Fin,
        phase: Phase::Idle,
        after_failed_authentication: false,
    }
}
