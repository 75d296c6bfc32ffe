//! The server is there, and says no.

use std::collections::BTreeSet;

use super::super::super::words::counted;
use super::super::super::{Cause, Evidence};
use super::super::Opinion;
use super::{Case, SignalKind, cuts, fact, note};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// An inferred limit of a pool is worth its name from this confidence on: a pool that is refused more connections
/// stays at its size as well.
const LIKELY: f64 = 0.7;

/// The server turns connections away: more are wanted than it accepts.
pub(super) fn capacity(case: &Case, pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let (signal, (count, open)) = case.find(|kind| match kind {
        SignalKind::TurnedAway { count, open } if *open > 0 => Some((*count, *open)),
        _ => None,
    })?;
    let mut evidence = vec![
        fact(
            signal.at,
            count,
            format!(
                "the server accepted {} and closed {} before it answered",
                counted(count, "connection"),
                if count == 1 { "it" } else { "them" }
            ),
        ),
        fact(
            signal.at,
            open,
            format!(
                "{} {} open meanwhile, and stayed",
                counted(open, "connection"),
                if open == 1 { "was" } else { "were" }
            ),
        ),
    ];
    let wanted = Wanted::of(pools, signal.subject.upstream);
    evidence.extend(wanted.told(signal.at, open));
    let mut confidence: f64 = if count >= 6 { 0.9 } else { 0.75 };
    let mut against = Vec::new();
    if let Some(cut) = cuts(case).iter().find(|cut| cut.is_total()) {
        confidence = confidence.min(0.2);
        against.push(fact(
            cut.signal.at,
            cut.group.closed,
            "connections that were established went as well",
        ));
    }
    let fails = case.find(|kind| match kind {
        SignalKind::DialsFail { count, .. } => Some(*count),
        _ => None,
    });
    if let Some((signal, count)) = fails {
        confidence = confidence.min(0.3);
        against.push(fact(signal.at, count, "dials failed altogether"));
    }
    Some(Opinion {
        cause: Cause::PoolCapacity,
        confidence,
        evident_at: signal.seen_at,
        evidence,
        against,
    })
}

/// What the pools of open mongo clients want of a server.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    instances: u64,
    mongo_clients: u64,
    /// Connections of the largest pool.
    largest: u64,
    /// Pools of which the limit is inferred; of the others the largest size that was seen counts.
    inferred: u64,
    monitors: u64,
    /// Pooled connections and monitors.
    connections: u64,
}

impl Wanted {
    fn of(pools: &Pools, upstream: UpstreamId) -> Self {
        let mut wanted = Self::default();
        let mut instances = BTreeSet::new();
        for client in pools.mongo_clients().filter(|client| client.is_open()) {
            let Some(pool) = client.pools.get(&upstream) else {
                continue;
            };
            let limit = pool.max_size.filter(|limit| limit.confidence >= LIKELY);
            let size = limit.map_or(pool.peak, |limit| limit.value.max(pool.peak));
            let monitors = client.monitors.iter();
            let monitors = monitors.filter_map(|id| pools.connection(*id));
            let monitors = monitors.filter(|one| one.upstream == upstream).count() as u64;
            instances.insert(client.instance);
            wanted.mongo_clients += 1;
            wanted.largest = wanted.largest.max(size);
            wanted.inferred += u64::from(limit.is_some());
            wanted.monitors += monitors;
            wanted.connections += size + monitors;
        }
        wanted.instances = instances.len() as u64;
        wanted
    }

    fn told(&self, at: Timestamp, open: u64) -> Option<Evidence> {
        if self.largest == 0 {
            return None;
        }
        let is_certain = self.inferred == self.mongo_clients;
        let basis = match self.inferred {
            0 => "as seen at their largest".to_owned(),
            _ if is_certain => "as inferred (maxPoolSize)".to_owned(),
            some => format!(
                "{some} of them as inferred (maxPoolSize), the others as seen at their largest"
            ),
        };
        let monitors = match self.monitors {
            0 => String::new(),
            some => format!(" with {}", counted(some, "monitor")),
        };
        let connections = counted(self.connections, "connection");
        let text = format!(
            "{} {} {} with pools of up to {}, {basis}: together{monitors} they {}, and the server kept {open} open",
            counted(self.instances, "instance"),
            if self.instances == 1 { "has" } else { "have" },
            counted(self.mongo_clients, "open mongo client"),
            counted(self.largest, "connection"),
            match self.inferred {
                // What was seen is what the server let them have.
                0 => format!("had {connections} and want more"),
                _ if is_certain => format!("want {connections}"),
                _ => format!("want at least {connections}"),
            }
        );
        Some(fact(at, self.connections, text))
    }
}

/// Credentials are refused.
pub(super) fn authentication(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let all: Vec<_> = case
        .all(|kind| match kind {
            SignalKind::AuthenticationFails {
                count,
                user,
                had_succeeded,
            } => Some((*count, user.as_deref(), *had_succeeded)),
            _ => None,
        })
        .collect();
    let (first, _) = all.first()?;
    let total: u64 = all.iter().map(|(_, (count, ..))| count).sum();
    let mut evidence = Vec::new();
    for (signal, (count, user, had_succeeded)) in &all {
        let user = user.map_or_else(String::new, |user| format!(" of {user}"));
        evidence.push(fact(
            signal.at,
            *count,
            format!(
                "the server refused the credentials{user} {}",
                counted(*count, "time")
            ),
        ));
        if *had_succeeded {
            evidence.push(note(signal.at, "they had been accepted before"));
        }
    }
    Some(Opinion {
        cause: Cause::AuthFailures,
        confidence: match total {
            1 => 0.6,
            2 => 0.85,
            _ => 0.93,
        },
        evident_at: first.at,
        evidence,
        against: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: Wanted, expected: &str) {
        let told = wanted.told(Timestamp::default(), 40).unwrap();
        assert_eq!(told.fact, expected);
        assert_eq!(told.count, Some(wanted.connections));
    }

    const WANTED: Wanted = Wanted {
        instances: 3,
        mongo_clients: 4,
        largest: 10,
        inferred: 4,
        monitors: 8,
        connections: 48,
    };

    #[test]
    fn what_is_only_seen_is_not_told_as_a_limit() {
        check(
            WANTED,
            "3 instances have 4 open mongo clients with pools of up to 10 connections, as inferred (maxPoolSize): \
             together with 8 monitors they want 48 connections, and the server kept 40 open",
        );
        let mixed = Wanted {
            inferred: 1,
            ..WANTED
        };
        check(
            mixed,
            "3 instances have 4 open mongo clients with pools of up to 10 connections, 1 of them as inferred \
             (maxPoolSize), the others as seen at their largest: together with 8 monitors they want at least 48 \
             connections, and the server kept 40 open",
        );
        let seen = Wanted {
            instances: 1,
            mongo_clients: 1,
            inferred: 0,
            monitors: 0,
            connections: 10,
            ..WANTED
        };
        check(
            seen,
            "1 instance has 1 open mongo client with pools of up to 10 connections, as seen at their largest: together \
             they had 10 connections and want more, and the server kept 40 open",
        );
    }

    #[test]
    fn without_pools_nothing_is_told() {
        let nobody = Wanted::of(&Pools::new(Vec::new()), UpstreamId(0));
        assert_eq!(nobody.told(Timestamp::default(), 40), None);
    }
}
