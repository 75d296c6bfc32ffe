//! How often clients dialled without pause.
//!
//! **Invariant:** after a tick, at most one count for each instance, and for each address, that the pools know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::detect::{Signal, SignalKind};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// Whose burst it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Client(InstanceId),
    /// Of one or several there: what is refused says nothing.
    Address(IpAddr),
}

/// When the newest burst began, and how many there were.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    began_at: Timestamp,
    bursts: u64,
}

/// The bursts of those that are remembered.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    counts: BTreeMap<(UpstreamId, Whose), Count>,
}

impl Bursts {
    /// A burst is told again and again while it goes on, always from the same beginning.
    pub(super) fn count(&mut self, signals: &[Signal]) {
        for signal in signals {
            let SignalKind::ReconnectBurst { from, .. } = signal.kind else {
                continue;
            };
            let client = signal.subject.instance.map(Whose::Client);
            let Some(whose) = client.or(from.map(Whose::Address)) else {
                continue;
            };
            let key = (signal.subject.upstream, whose);
            let count = self.counts.entry(key).or_default();
            if count.bursts == 0 || signal.at > count.began_at {
                count.began_at = signal.at;
                count.bursts += 1;
            }
        }
    }

    /// Forgets those that are forgotten.
    pub(super) fn forget(&mut self, pools: &Pools) {
        self.counts.retain(|(_, whose), _| match whose {
            Whose::Client(instance) => pools.instance(*instance).is_some(),
            Whose::Address(address) => is_known(*address, pools),
        });
    }

    /// How many there were of whom: by address and application, which is empty where nobody said who dialled.
    pub(super) fn counts<'a>(
        &'a self,
        pools: &'a Pools,
    ) -> impl Iterator<Item = (UpstreamId, IpAddr, Arc<str>, u64)> {
        self.counts.iter().filter_map(|((upstream, whose), count)| {
            let (address, app) = match whose {
                Whose::Client(instance) => {
                    let instance = pools.instance(*instance)?;
                    (instance.address, Arc::clone(&instance.app))
                }
                Whose::Address(address) => (*address, Arc::from("")),
            };
            Some((*upstream, address, app, count.bursts))
        })
    }
}

fn is_known(address: IpAddr, pools: &Pools) -> bool {
    let mut instances = pools.instances();
    pools.tried_at(address).is_some() || instances.any(|instance| instance.address == address)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::connection::ClientMetadata;
    use crate::detect::Subject;
    use crate::timeline::lines::UpstreamName;
    use crate::timeline::{ConnectionId, Entry, Fact, Opened};

    const UPSTREAM: UpstreamId = UpstreamId(0);
    const ADDRESS: [u8; 4] = [10, 1, 0, 7];

    fn second(at: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(1000 + at)
    }

    /// Two applications at one address.
    fn pools() -> Pools {
        let mut pools = Pools::new(vec![UpstreamName {
            name: "db".to_owned(),
            address: "10.0.0.1:27017".to_owned(),
        }]);
        for (id, application) in (1..).map(ConnectionId).zip(["orders", "billing"]) {
            let opened = Opened {
                upstream: UPSTREAM,
                peer: (ADDRESS, 40_000).into(),
            };
            let client = Box::new(ClientMetadata {
                application: application.to_owned(),
                ..ClientMetadata::default()
            });
            let request_id = 1;
            for fact in [
                Fact::Opened(opened),
                Fact::Introduced { client, request_id },
            ] {
                pools.record(&Entry {
                    at: second(0),
                    connection: id,
                    fact,
                });
            }
        }
        pools
    }

    fn burst(instance: Option<u64>, from: Option<[u8; 4]>, at: u64) -> Signal {
        Signal {
            at: second(at),
            seen_at: second(at + 3),
            subject: Subject {
                upstream: UPSTREAM,
                instance: instance.map(InstanceId),
                mongo_client: None,
            },
            among: Vec::new(),
            kind: SignalKind::ReconnectBurst {
                from: from.map(IpAddr::from),
                opened: 40,
                lost: 0,
                lasted: Duration::from_secs(3),
                baseline: 0.0,
            },
        }
    }

    #[test]
    fn bursts_are_counted_for_each_client_and_else_for_the_address() {
        let (pools, mut bursts) = (pools(), Bursts::default());
        let here = Some(ADDRESS);
        bursts.count(&[
            burst(Some(1), here, 10),
            burst(Some(2), here, 20),
            burst(Some(1), here, 10),
            burst(Some(1), here, 30),
            burst(None, here, 40),
            // Of many addresses, none of which stands out.
            burst(None, None, 50),
        ]);
        bursts.forget(&pools);
        let counts = bursts.counts(&pools);
        let counts: Vec<_> = counts
            .map(|(_, address, app, count)| {
                assert_eq!(address, IpAddr::from(ADDRESS));
                (app.to_string(), count)
            })
            .collect();
        let expected = [("orders", 2), ("billing", 1), ("", 1)];
        assert_eq!(counts, expected.map(|(app, count)| (app.to_owned(), count)));
    }

    #[test]
    fn bursts_of_those_that_nobody_knows_any_more_are_forgotten() {
        let mut bursts = Bursts::default();
        bursts.count(&[burst(Some(1), None, 10), burst(None, Some(ADDRESS), 20)]);
        let nobody = Pools::new(Vec::new());
        bursts.forget(&nobody);
        assert_eq!(bursts.counts(&nobody).count(), 0);
    }
}
