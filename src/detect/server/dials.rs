//! Dials that fail, handshakes that are turned away or stay unanswered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::super::Detector;
use super::thresholds::{DIALS_GAP, HANDSHAKE_LATE, TURNED_AWAY_MIN, TURNED_AWAY_WINDOW};
use super::{Signal, SignalKind, about_upstream, is_of_a_client};
use crate::connection::{Ending, Initiator, Manner, Phase};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{DialFailure, Entry, Fact, UpstreamId};

/// Addresses that are told apart among those who dialled in vain.
const ADDRESSES_MAX: usize = 1000;

/// Connections turned away whose moments are kept.
const TURNED_AWAY_MAX: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Dials {
    upstreams: BTreeMap<UpstreamId, State>,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    /// When connections were turned away, oldest first.
    turned_away: VecDeque<Timestamp>,
    /// Whose they were, of those that had introduced themselves.
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
    fn record(&mut self, entry: &Entry, pools: &Pools, signals: &mut Vec<Signal>) {
        let Some(connection) = pools.connection(entry.connection) else {
            return;
        };
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
            state.was_turned_away(entry.at, connection.instance);
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

    fn was_turned_away(&mut self, at: Timestamp, instance: Option<InstanceId>) {
        if self.turned_away_of.len() < ADDRESSES_MAX {
            self.turned_away_of.extend(instance);
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
