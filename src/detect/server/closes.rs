//! Connections that the server's side, or something between, ended.
//!
//! Ends that follow each other closely are one burst; it is told when it is there and again while it grows. Who
//! closed most connections of it is not asked: after the first, clients close the others themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{CloseGroup, Detector, Taken};
use super::thresholds::{BURST_GAP, BURST_TOLD_AFTER, RESET_SHARE};
use super::{Signal, SignalKind, about_upstream, is_of_a_client};
use crate::connection::{Initiator, Manner, Phase};
use crate::pools::{Connection, End, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{Fact, UpstreamId};

#[derive(Debug, Default)]
pub(super) struct Closes {
    bursts: BTreeMap<UpstreamId, Burst>,
}

#[derive(Debug)]
struct Burst {
    began_at: Timestamp,
    last_at: Timestamp,
    /// An end came since it was told.
    is_news: bool,
}

impl Detector for Closes {
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        let Fact::Ended(ended) = &entry.fact else {
            return;
        };
        let ending = ended.ending;
        let is_cut = is_by_server(ending) || is_reset_by_client(ending);
        if !is_cut || connection.hello_answered_at.is_none() || !is_of_a_client(connection) {
            return;
        }
        let upstream = connection.upstream;
        if let Some(burst) = self.bursts.get_mut(&upstream) {
            if entry.at.since(burst.last_at) <= BURST_GAP {
                burst.last_at = entry.at;
                burst.is_news = true;
                return;
            }
            tell(upstream, burst, entry.at, pools, signals);
        }
        let burst = Burst {
            began_at: entry.at,
            last_at: entry.at,
            is_news: true,
        };
        self.bursts.insert(upstream, burst);
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for (upstream, burst) in &mut self.bursts {
            if at.since(burst.began_at) >= BURST_TOLD_AFTER {
                tell(*upstream, burst, at, pools, signals);
            }
        }
        self.bursts
            .retain(|_, burst| at.since(burst.last_at) <= BURST_GAP);
    }
}

/// The server's side ended it first, after it had been made.
fn is_by_server(ending: crate::connection::Ending) -> bool {
    ending.initiator == Initiator::Server
        && matches!(
            ending.manner,
            Manner::Fin | Manner::Reset | Manner::TimedOut
        )
        && ending.phase != Phase::Dialling
}

fn is_reset_by_client(ending: crate::connection::Ending) -> bool {
    ending.initiator == Initiator::Client && ending.manner == Manner::Reset
}

fn tell(
    upstream: UpstreamId,
    burst: &mut Burst,
    at: Timestamp,
    pools: &Pools,
    signals: &mut Vec<Signal>,
) {
    if !std::mem::take(&mut burst.is_news) {
        return;
    }
    let before: Vec<&Connection> = pools
        .connections()
        .filter(|connection| {
            connection.upstream == upstream
                && is_of_a_client(connection)
                && connection.hello_answered_at.is_some()
                && connection.opened_at < burst.began_at
                && connection.ended.is_none_or(|end| end.at >= burst.began_at)
        })
        .collect();
    let ended_within = |connection: &&Connection| -> Option<End> {
        let until = burst.last_at + BURST_TOLD_AFTER;
        connection.ended.filter(|end| end.at <= until)
    };
    let cut: Vec<&Connection> = before
        .iter()
        .copied()
        .filter(|connection| ended_within(connection).is_some_and(|end| is_by_server(end.ending)))
        .collect();
    let instances = |connections: &[&Connection]| -> BTreeSet<InstanceId> {
        connections
            .iter()
            .filter_map(|connection| connection.instance)
            .collect()
    };
    let (lost, connected) = (instances(&cut), instances(&before));
    if !cut.is_empty() {
        let followed: Vec<&Connection> = before
            .iter()
            .copied()
            .filter(|connection| {
                ended_within(connection)
                    .is_some_and(|end| end.ending.initiator == Initiator::Client)
            })
            .collect();
        let signal = about_upstream(
            upstream,
            burst.began_at,
            at,
            SignalKind::ServerClosed {
                group: group(&cut, &before),
                instances: lost.len() as u64,
                instances_before: connected.len() as u64,
                followed: followed.len() as u64,
                is_client_side: false,
            },
        );
        // Whoever closed the rest of what it had is concerned as well.
        let concerned = &lost | &instances(&followed);
        signals.push(signal.among(&concerned, connected.len()));
    }
    let own = |instance: InstanceId| -> Vec<&Connection> {
        let all = before.iter().copied();
        all.filter(|connection| connection.instance == Some(instance))
            .collect()
    };
    let reset: BTreeSet<InstanceId> = connected
        .iter()
        .copied()
        .filter(|instance| is_reset_by_path(&own(*instance), burst))
        .collect();
    if !reset.is_empty() {
        let all: Vec<&Connection> = reset.iter().flat_map(|instance| own(*instance)).collect();
        let kind = SignalKind::ServerClosed {
            group: group(&all, &all),
            instances: reset.len() as u64,
            instances_before: connected.len() as u64,
            followed: 0,
            is_client_side: true,
        };
        let signal = about_upstream(upstream, burst.began_at, at, kind);
        signals.push(signal.among(&reset, connected.len()));
    }
}

/// Every connection of an instance ended in one moment, most of them by resets from the client's side.
fn is_reset_by_path(own: &[&Connection], burst: &Burst) -> bool {
    let until = burst.last_at + BURST_TOLD_AFTER;
    let ends: Vec<End> = own
        .iter()
        .filter_map(|connection| connection.ended.filter(|end| end.at <= until))
        .collect();
    let resets = ends
        .iter()
        .filter(|end| is_reset_by_client(end.ending))
        .count();
    #[expect(clippy::cast_precision_loss, reason = "counts of connections")]
    let share = resets as f64 / ends.len().max(1) as f64;
    let has_said_goodbye = own
        .iter()
        .any(|connection| connection.said_goodbye_at.is_some());
    resets >= 2 && ends.len() == own.len() && share >= RESET_SHARE && !has_said_goodbye
}

/// What the connections in `cut` have in common, all of which ended; `before` are those that were open.
fn group(cut: &[&Connection], before: &[&Connection]) -> CloseGroup {
    let mut group = CloseGroup {
        closed: cut.len() as u64,
        of: before.len() as u64,
        monitors_left: before
            .iter()
            .filter(|connection| connection.role.is_monitor() && connection.is_open())
            .count() as u64,
        ..CloseGroup::default()
    };
    let (mut first, mut last) = (None, None);
    for connection in cut {
        let Some(end) = connection.ended else {
            continue;
        };
        first = Some(first.map_or(end.at, |first: Timestamp| first.min(end.at)));
        last = Some(last.map_or(end.at, |last: Timestamp| last.max(end.at)));
        group.resets += u64::from(end.ending.manner == Manner::Reset);
        group.in_handshake += u64::from(matches!(
            end.ending.phase,
            Phase::Handshaking | Phase::Authenticating
        ));
        group.has_said_goodbye |= connection.said_goodbye_at.is_some();
        if connection.role.is_monitor() {
            group.monitors += 1;
            continue;
        }
        if end.was_in_flight() {
            group.add_in_flight(connection);
        }
        let age = connection.idle_age(end.at);
        group.idle_ages = Some(
            group
                .idle_ages
                .map_or((age, age), |(short, long)| (short.min(age), long.max(age))),
        );
    }
    if let (Some(first), Some(last)) = (first, last) {
        group.span = last.since(first);
    }
    group
}
