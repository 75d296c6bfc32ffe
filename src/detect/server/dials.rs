//! Dials that fail, handshakes that are turned away or stay unanswered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::super::{Detector, Taken};
use super::thresholds::{DIALS_GAP, HANDSHAKE_LATE, TURNED_AWAY_MIN, TURNED_AWAY_WINDOW};
use super::{Signal, SignalKind, about_upstream, is_of_a_client};
use crate::connection::{Ending, Initiator, Manner, Phase};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{DialFailure, Fact, UpstreamId};

/// Addresses that are told apart among those who dialled in vain.
const ADDRESSES_MAX: usize = 1000;

/// Connections turned away whose moments are kept.
const TURNED_AWAY_MAX: usize = 1000;

/// A pool that grows opens its connections at shorter distances.
const GROWING: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Dials {
    upstreams: BTreeMap<UpstreamId, State>,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    /// When connections were turned away, oldest first.
    turned_away: VecDeque<Timestamp>,
    /// Whose they were, or must have been.
    turned_away_of: BTreeSet<InstanceId>,
    /// The episode that was told: when it began and how many there were.
    turning_away: Option<(Timestamp, u64)>,
    is_turning_away_news: bool,
    /// The episode of unanswered handshakes: when the first was sent, and how many were told.
    unanswered: Option<(Timestamp, u64)>,
}

#[derive(Debug)]
struct Failing {
    began_at: Timestamp,
    last_at: Timestamp,
    failure: DialFailure,
    count: u64,
    addresses: BTreeSet<IpAddr>,
    is_news: bool,
}

impl Detector for Dials {
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        let state = self.upstreams.entry(connection.upstream).or_default();
        if let Fact::Dialled(_) = &entry.fact {
            if let Some(failing) = &mut state.failing {
                failing.tell(connection.upstream, entry.at, signals);
            }
            state.failing = None;
        } else if let Fact::DialFailed(failure) = &entry.fact {
            state.dial_failed(entry.at, *failure, connection.peer.ip());
        } else if let Fact::Ended(ended) = &entry.fact
            && is_turned_away(ended.ending)
            && connection.dialled_at.is_some()
            && connection.hello_answered_at.is_none()
            && is_of_a_client(connection)
        {
            let growing = || growing_at(pools, connection.peer.ip(), entry.at);
            let whose = connection.instance.map_or_else(growing, |id| vec![id]);
            state.was_turned_away(entry.at, whose);
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        let mut waiting: BTreeMap<UpstreamId, (u64, Timestamp)> = BTreeMap::new();
        let mut open: BTreeMap<UpstreamId, u64> = BTreeMap::new();
        for connection in pools.connections().filter(|one| one.is_open()) {
            if connection.hello_answered_at.is_some() {
                *open.entry(connection.upstream).or_default() += 1;
            } else if let Some(introduced_at) = connection.introduced_at
                && connection.opaque.is_none()
                && is_of_a_client(connection)
                && at.since(introduced_at) >= HANDSHAKE_LATE
            {
                let (count, first) = waiting
                    .entry(connection.upstream)
                    .or_insert((0, introduced_at));
                *count += 1;
                *first = introduced_at.min(*first);
            }
        }
        for (id, state) in &mut self.upstreams {
            if let Some(failing) = &mut state.failing {
                failing.tell(*id, at, signals);
                if at.since(failing.last_at) > DIALS_GAP {
                    state.failing = None;
                }
            }
            let open = open.get(id).copied().unwrap_or_default();
            state.tell_turned_away(*id, open, at, signals);
            state.tell_unanswered(*id, waiting.get(id).copied(), at, signals);
        }
    }
}

fn is_turned_away(ending: Ending) -> bool {
    ending.initiator == Initiator::Server
        && matches!(ending.manner, Manner::Fin | Manner::Reset)
        && ending.phase == Phase::Handshaking
}

/// Who may have opened a connection that was turned away before it was introduced: the instances of its address that
/// introduced others a moment before.
fn growing_at(pools: &Pools, address: IpAddr, at: Timestamp) -> Vec<InstanceId> {
    let address = address.to_canonical();
    pools
        .instances()
        .filter(|one| one.address == address && at.since(one.last_introduced) < GROWING)
        .map(|one| one.id)
        .collect()
}

impl State {
    fn dial_failed(&mut self, at: Timestamp, failure: DialFailure, address: IpAddr) {
        let failing = self.failing.get_or_insert_with(|| Failing {
            began_at: at,
            last_at: at,
            failure,
            count: 0,
            addresses: BTreeSet::new(),
            is_news: true,
        });
        failing.last_at = at;
        failing.count += 1;
        failing.is_news = true;
        if failing.addresses.len() < ADDRESSES_MAX {
            failing.addresses.insert(address);
        }
    }

    fn was_turned_away(&mut self, at: Timestamp, whose: Vec<InstanceId>) {
        if self.turned_away_of.len() < ADDRESSES_MAX {
            self.turned_away_of.extend(whose);
        }
        self.turned_away.push_back(at);
        if self.turned_away.len() > TURNED_AWAY_MAX {
            self.turned_away.pop_front();
        }
        if let Some((_, count)) = &mut self.turning_away {
            *count += 1;
        }
        self.is_turning_away_news = true;
    }

    fn tell_turned_away(
        &mut self,
        id: UpstreamId,
        open: u64,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) {
        while self
            .turned_away
            .front()
            .is_some_and(|&first| at.since(first) > TURNED_AWAY_WINDOW)
        {
            self.turned_away.pop_front();
        }
        let recent = self.turned_away.len() as u64;
        let Some(&first) = self.turned_away.front() else {
            self.turning_away = None;
            self.turned_away_of.clear();
            return;
        };
        if recent >= TURNED_AWAY_MIN && self.turning_away.is_none() {
            self.turning_away = Some((first, recent));
        }
        if let Some((began_at, count)) = self.turning_away
            && std::mem::take(&mut self.is_turning_away_news)
        {
            let kind = SignalKind::TurnedAway { count, open };
            let signal = about_upstream(id, began_at, at, kind);
            // While others stay, it concerns only those that are turned away.
            let connected = if open > 0 { usize::MAX } else { 0 };
            signals.push(signal.among(&self.turned_away_of, connected));
        }
    }

    fn tell_unanswered(
        &mut self,
        id: UpstreamId,
        waiting: Option<(u64, Timestamp)>,
        at: Timestamp,
        signals: &mut Vec<Signal>,
    ) {
        let Some((count, first)) = waiting else {
            self.unanswered = None;
            return;
        };
        let (began_at, told) = self.unanswered.get_or_insert((first, 0));
        // The longest wait grows with every tick; told when more join, and about once a second.
        if count > *told || at.as_millis().is_multiple_of(1000) {
            *told = count;
            let kind = SignalKind::HandshakesUnanswered {
                count,
                waited: at.since(first),
            };
            signals.push(about_upstream(id, *began_at, at, kind));
        }
    }
}

impl Failing {
    fn tell(&mut self, id: UpstreamId, at: Timestamp, signals: &mut Vec<Signal>) {
        if !std::mem::take(&mut self.is_news) {
            return;
        }
        let kind = SignalKind::DialsFail {
            failure: self.failure,
            count: self.count,
            instances: self.addresses.len() as u64,
        };
        signals.push(about_upstream(id, self.began_at, at, kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ClientMetadata;
    use crate::timeline::lines::UpstreamName;
    use crate::timeline::{ConnectionId, Entry, Opened};

    #[test]
    fn what_is_turned_away_without_a_name_is_of_whoever_grows_at_its_address() {
        let start = Timestamp::default() + Duration::from_hours(500_000);
        let mut pools = Pools::new(vec![UpstreamName {
            name: "db".to_owned(),
            address: "10.0.0.1:27017".to_owned(),
        }]);
        let dials = [
            (0, [10, 1, 0, 1], "settled"),
            (3000, [10, 1, 0, 1], "growing"),
            (3100, [10, 1, 0, 2], "elsewhere"),
        ];
        for (number, (millis, address, application)) in (1..).zip(dials) {
            let at = start + Duration::from_millis(millis);
            let opened = Opened {
                upstream: UpstreamId(0),
                peer: (address, 40_000).into(),
            };
            let client = Box::new(ClientMetadata {
                application: application.to_owned(),
                driver_name: "nodejs".to_owned(),
                ..ClientMetadata::default()
            });
            let introduced = Fact::Introduced {
                client,
                request_id: 1,
            };
            for fact in [Fact::Opened(opened), introduced] {
                let connection = ConnectionId(number);
                pools.record(&Entry {
                    at,
                    connection,
                    fact,
                });
            }
        }
        let apps = |millis: u64| -> Vec<String> {
            let at = start + Duration::from_millis(millis);
            let whose = growing_at(&pools, [10, 1, 0, 1].into(), at);
            let instances = whose.into_iter().filter_map(|id| pools.instance(id));
            instances.map(|one| one.app.to_string()).collect()
        };
        assert_eq!(apps(3200), ["growing"]);
        assert!(apps(9000).is_empty());
    }
}
