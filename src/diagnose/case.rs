//! Signals that belong together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ClientName;
use crate::connection::Initiator;
use crate::detect::{Signal, SignalKind, is_of_a_client};
use crate::pools::{InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// Signals a case keeps: its beginning and its newest; what comes between is left out first.
const SIGNALS_MAX: usize = 96;

/// What goes with a case without being a part of it: the first so many.
const ASIDES_MAX: usize = 64;

/// A client whose connection the server's side ended so shortly before is concerned by what follows: dials are refused
/// milliseconds after a process has died.
const LOST_LATELY: Duration = Duration::from_secs(1);

/// Client instances a case names.
const CLIENTS_MAX: usize = 1000;

/// What rules look at: the signals of one incident to be, the earliest first.
#[derive(Clone, Debug, Default)]
pub struct Case {
    signals: Vec<Signal>,
    /// What belongs to its course and is no ground for anything, the earliest first.
    asides: Vec<Signal>,
    /// Names are kept here because the tables forget instances that are gone.
    clients: BTreeMap<InstanceId, ClientName>,
}

impl Case {
    /// Its signals, the earliest first.
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// What went with it and is no ground for a cause, the earliest first.
    pub fn asides(&self) -> &[Signal] {
        &self.asides
    }

    /// What was found, the earliest first.
    pub fn kinds(&self) -> impl Iterator<Item = &SignalKind> {
        self.signals.iter().map(|signal| &signal.kind)
    }

    /// The first signal that `wanted` finds something in, and what.
    pub fn find<'a, T>(
        &'a self,
        wanted: impl Fn(&'a SignalKind) -> Option<T>,
    ) -> Option<(&'a Signal, T)> {
        self.all(wanted).next()
    }

    /// The signals that `wanted` finds something in, and what.
    pub fn all<'a, T>(
        &'a self,
        wanted: impl Fn(&'a SignalKind) -> Option<T>,
    ) -> impl Iterator<Item = (&'a Signal, T)> {
        self.signals
            .iter()
            .filter_map(move |signal| Some((signal, wanted(&signal.kind)?)))
    }

    /// The first event.
    pub fn began_at(&self) -> Timestamp {
        self.signals
            .first()
            .map_or_else(Timestamp::default, |first| first.at)
    }

    /// When it was heard of last.
    pub fn heard_at(&self) -> Timestamp {
        self.signals
            .iter()
            .map(|signal| signal.seen_at)
            .max()
            .unwrap_or_default()
    }

    /// The upstream of the first event.
    pub fn upstream(&self) -> UpstreamId {
        self.signals
            .first()
            .map_or(UpstreamId(0), |first| first.subject.upstream)
    }

    /// A signal of it is about a whole upstream.
    pub fn is_wide(&self) -> bool {
        self.signals
            .iter()
            .any(|signal| signal.subject.instance.is_none())
    }

    /// The client instances it concerns.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> {
        self.clients.keys().copied()
    }

    /// Whether a signal of it is about this instance.
    pub fn names(&self, instance: InstanceId) -> bool {
        self.signals
            .iter()
            .any(|signal| signal.subject.instance == Some(instance))
    }

    /// The names of the client instances it concerns, sorted.
    pub fn clients(&self) -> Vec<ClientName> {
        let mut names: Vec<_> = self.clients.values().cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether a telling of the same episode is there.
    pub fn knows(&self, signal: &Signal) -> bool {
        self.signals.iter().any(|known| known.tells_of(signal))
    }

    /// Takes a signal in; a telling of one that is there replaces it.
    pub fn add(&mut self, signal: Signal) {
        if let Some(known) = self
            .signals
            .iter_mut()
            .find(|known| known.tells_of(&signal))
        {
            *known = signal;
            return;
        }
        let place = self.signals.partition_point(|known| known.at <= signal.at);
        self.signals.insert(place, signal);
        if self.signals.len() > SIGNALS_MAX {
            self.signals.remove(SIGNALS_MAX / 2);
        }
    }

    /// Takes in what goes with it; a telling of one that is there replaces it.
    pub fn accompany(&mut self, aside: &Signal) {
        let known = self.asides.iter_mut().find(|known| known.tells_of(aside));
        if let Some(known) = known {
            if known.seen_at < aside.seen_at {
                known.clone_from(aside);
            }
        } else if self.asides.len() < ASIDES_MAX {
            let place = self.asides.partition_point(|known| known.at <= aside.at);
            self.asides.insert(place, aside.clone());
        }
    }

    /// Learns whom a signal concerns: its instances, or all that were connected to its upstream when it began.
    pub fn concern(&mut self, signal: &Signal, pools: &Pools) {
        if let Some(id) = signal.subject.instance {
            self.name(id, pools);
            return;
        }
        if !signal.among.is_empty() {
            for id in &signal.among {
                self.name(*id, pools);
            }
            return;
        }
        let concerned = pools.connections().filter(|connection| {
            connection.upstream == signal.subject.upstream
                && is_of_a_client(connection)
                && connection.opened_at <= signal.at
                && connection.ended.is_none_or(|end| {
                    end.at >= signal.at
                        || end.ending.initiator == Initiator::Server
                            && end.at + LOST_LATELY >= signal.at
                })
        });
        let mut ids: Vec<InstanceId> = concerned
            .filter_map(|connection| connection.instance)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            self.name(id, pools);
        }
    }

    fn name(&mut self, id: InstanceId, pools: &Pools) {
        if self.clients.contains_key(&id) || self.clients.len() >= CLIENTS_MAX {
            return;
        }
        if let Some(instance) = pools.instance(id) {
            self.clients.insert(
                id,
                ClientName {
                    address: instance.address.to_string().into(),
                    app: instance.app.clone(),
                },
            );
        }
    }

    /// Takes another case in.
    pub fn absorb(&mut self, other: Self) {
        for signal in other.signals {
            self.add(signal);
        }
        for aside in &other.asides {
            self.accompany(aside);
        }
        self.clients.extend(other.clients);
    }
}
