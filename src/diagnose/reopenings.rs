//! Pools that opened much at once after trouble, as the course of an incident tells it.

use std::time::Duration;

use super::words::{client, counted, length};
use super::{Case, Moment};
use crate::detect::{Signal, SignalKind};
use crate::pools::Pools;

/// Instances that are told one by one; of more, all together.
const EACH_MAX: usize = 4;

/// What was opened again, the oldest first.
pub(super) fn reopenings(case: &Case, pools: &Pools) -> Vec<Moment> {
    let all: Vec<(&Signal, Reopened)> = case
        .asides()
        .iter()
        .filter_map(|signal| Some((signal, Reopened::of(&signal.kind)?)))
        .collect();
    if all.len() <= EACH_MAX {
        let moments = all.into_iter().filter_map(|(signal, reopened)| {
            let instance = pools.instance(signal.subject.instance?)?;
            let name = client(&instance.app, &instance.address.to_string());
            let server = server(signal, pools);
            Some(Moment {
                at: signal.at,
                what: format!("{name} opens {}", reopened.told(server, "it")),
            })
        });
        return moments.collect();
    }
    together(&all, pools).into_iter().collect()
}

/// Many instances at once are one event: it is their sum that meets the server.
fn together(all: &[(&Signal, Reopened)], pools: &Pools) -> Option<Moment> {
    let (first, _) = all.first()?;
    let ends = all.iter().map(|(signal, one)| signal.at + one.lasted);
    let last = ends.max()?;
    let sum = |of: fn(&Reopened) -> u64| all.iter().map(|(_, one)| of(one)).sum();
    let whole = Reopened {
        opened: sum(|one| one.opened),
        lost: sum(|one| one.lost),
        lasted: last.since(first.at),
        baseline: all.iter().map(|(_, one)| one.baseline).sum(),
    };
    let many = counted(all.len() as u64, "instance");
    Some(Moment {
        at: first.at,
        what: format!("{many} open {}", whole.told(server(first, pools), "they")),
    })
}

fn server<'a>(signal: &Signal, pools: &'a Pools) -> &'a str {
    let upstream = pools.upstream(signal.subject.upstream);
    upstream.map_or("?", |upstream| &*upstream.name)
}

#[derive(Clone, Copy, Debug)]
struct Reopened {
    opened: u64,
    lost: u64,
    lasted: Duration,
    baseline: f64,
}

impl Reopened {
    const fn of(kind: &SignalKind) -> Option<Self> {
        let SignalKind::PoolReopened {
            opened,
            lost,
            lasted,
            baseline,
        } = kind
        else {
            return None;
        };
        Some(Self {
            opened: *opened,
            lost: *lost,
            lasted: *lasted,
            baseline: *baseline,
        })
    }

    /// `20 connections to db within 0.5 s after it lost 22: 0.9 for each; hardly any a second before`.
    #[expect(clippy::cast_precision_loss, reason = "counts of connections")]
    fn told(self, server: &str, who: &str) -> String {
        let amplification = self.opened as f64 / self.lost.max(1) as f64;
        format!(
            "{} to {server} within {} after {who} lost {}: {amplification:.1} for each; {} before",
            counted(self.opened, "connection"),
            length(self.lasted),
            self.lost,
            a_second(self.baseline),
        )
    }
}

/// How many a second were usual.
pub(super) fn a_second(baseline: f64) -> String {
    if baseline < 0.05 {
        "hardly any".to_owned()
    } else {
        format!("{baseline:.1} a second")
    }
}
