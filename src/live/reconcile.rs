//! After entries were lost: what the observer believes to be open is compared with what is.
//!
//! An entry may still be on its way when the two are compared, so only what differs in two looks running, a second
//! apart, is corrected.

use std::collections::BTreeSet;

use crate::clients::Directory;
use crate::connection::{Ending, Initiator, Manner, Phase, Role};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::{Commands, ConnectionId, Ended, Entry, Fact};

/// Looks after a loss: the second corrects what the first saw, the third what began in between.
const LOOKS: u8 = 3;

/// Corrects the observer.
#[derive(Debug, Default)]
pub(super) struct Reconciler {
    lost_seen: u64,
    looks_left: u8,
    /// Believed to be open and not, when looked last.
    ghosts: BTreeSet<ConnectionId>,
    /// Open and not believed to be.
    strangers: BTreeSet<ConnectionId>,
}

impl Reconciler {
    /// To be called about once a second; `lost` is how many entries were lost so far.
    pub(super) fn look(
        &mut self,
        lost: u64,
        directory: &Directory,
        pools: &Pools,
        at: Timestamp,
        mut tell: impl FnMut(Entry),
    ) {
        if lost > self.lost_seen {
            self.lost_seen = lost;
            self.looks_left = LOOKS;
        }
        if self.looks_left == 0 {
            return;
        }
        self.looks_left -= 1;
        let is = directory.open_connections();
        let believed: BTreeSet<ConnectionId> = pools
            .connections()
            .filter(|connection| connection.is_open())
            .map(|connection| connection.id)
            .collect();
        let ghosts: BTreeSet<_> = believed.difference(&is).copied().collect();
        for id in ghosts.intersection(&self.ghosts) {
            tell(ended(pools, *id, at));
        }
        let strangers: BTreeSet<_> = is.difference(&believed).copied().collect();
        for id in strangers.intersection(&self.strangers) {
            directory.retell(*id, at).into_iter().for_each(&mut tell);
        }
        for id in is.intersection(&believed) {
            let known = pools.connection(*id).map(|connection| connection.role);
            if let Some(role) = directory.told_role(*id)
                && role != Role::Unknown
                && known != Some(role)
            {
                tell(Entry {
                    at,
                    connection: *id,
                    fact: Fact::RoleFound(role),
                });
            }
        }
        if self.looks_left == 0 {
            *self = Self {
                lost_seen: self.lost_seen,
                ..Self::default()
            };
        } else {
            self.ghosts = ghosts;
            self.strangers = strangers;
        }
    }
}

/// How it ended is not known, only that it did.
fn ended(pools: &Pools, id: ConnectionId, at: Timestamp) -> Entry {
    let last = pools
        .connection(id)
        .map(|connection| connection.last)
        .unwrap_or_default();
    let ending = Ending {
        initiator: Initiator::Proxy,
        manner: Manner::Internal,
        phase: Phase::Idle,
        after_failed_authentication: false,
    };
    Entry {
        at,
        connection: id,
        fact: Fact::Ended(Box::new(Ended {
            ending,
            last,
            unanswered: Commands::default(),
            left_at: None,
        })),
    }
}
