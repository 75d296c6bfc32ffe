//! Clients that dial without pause.
//!
//! A pool that grows opens connections and uses them; a pool that was cleared opens as many as it lost. A storm opens
//! many times that, and what it opens does not last.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::{Detector, Signal, SignalKind, Subject};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact, UpstreamId};

/// Connections opened within this are counted.
const WINDOW: Duration = Duration::from_secs(5);

/// What lasts for less has not been a connection worth the name.
const BRIEF: Duration = Duration::from_secs(2);

/// Brief connections in the window that are a storm.
const OPENED_MIN: u64 = 25;

/// Opened in the window for each that was lost. A driver whose server is gone looks for it twice a second, ten times in
/// the window, and had a monitor and a pooled connection at least.
const AMPLIFICATION_MIN: u64 = 6;

/// Opened per second, compared with the time before.
const OVER_BASELINE: f64 = 4.0;

/// Seconds of the window in which connections were opened: it goes on without pause.
const SECONDS_MIN: usize = 4;

/// Time over which the baseline forgets.
const BASELINE: Duration = Duration::from_mins(2);

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Sources watched.
const SOURCES_MAX: usize = 4096;

/// Connections of one source in the window.
const OPENS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Storms {
    sources: BTreeMap<(IpAddr, UpstreamId), Source>,
    /// All sources of an upstream taken together: of many, none may stand out.
    together: BTreeMap<UpstreamId, Source>,
}

#[derive(Debug, Default)]
struct Source {
    instance: Option<InstanceId>,
    /// When connections were opened that ended soon, the oldest first.
    brief: VecDeque<Timestamp>,
    /// When connections were lost that had lasted.
    lost: VecDeque<Timestamp>,
    /// When a dial failed last.
    failed_at: Option<Timestamp>,
    /// Brief connections a second, outside of storms.
    baseline: f64,
    looked_at: Timestamp,
    storm: Option<Storm>,
}

#[derive(Debug)]
struct Storm {
    began_at: Timestamp,
    told_at: Timestamp,
    opened: u64,
    lost: u64,
    counted_until: Timestamp,
    baseline: f64,
}

impl Detector for Storms {
    fn record(
        &mut self,
        entry: &Entry,
        connection: &Connection,
        _pools: &Pools,
        _signals: &mut Vec<Signal>,
    ) {
        let Fact::Ended(_) = &entry.fact else {
            return;
        };
        let key = (connection.peer.ip().to_canonical(), connection.upstream);
        if !counts(connection) {
            return;
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&key) {
            self.sources.pop_first();
        }
        let source = self.sources.entry(key).or_default();
        source.instance = connection.instance.or(source.instance);
        source.count(connection, entry.at);
        let together = self.together.entry(connection.upstream).or_default();
        together.count(connection, entry.at);
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for ((_, upstream), source) in &mut self.sources {
            source.look(at, *upstream, pools, signals);
        }
        for (upstream, source) in &mut self.together {
            let mut all = Vec::new();
            source.look(at, *upstream, pools, &mut all);
            let is_one_sources = self
                .sources
                .iter()
                .any(|((_, of), source)| of == upstream && source.storm.is_some());
            if !is_one_sources {
                signals.append(&mut all);
            }
        }
        self.sources.retain(|_, source| {
            source.storm.is_some()
                || !source.brief.is_empty()
                || !source.lost.is_empty()
                || source.baseline > 0.01
        });
    }
}

/// Neither a probe nor a client that says goodbye, as those do that are made for a request.
fn counts(connection: &Connection) -> bool {
    let has_spoken = connection.introduced_at.is_some() || connection.dial_failure.is_some();
    let is_foreign = matches!(
        connection.role,
        crate::connection::Role::Tool | crate::connection::Role::Member
    );
    // A client that was made for a request has done some work.
    let has_worked = connection.last.operations > 0 && connection.dialled_at.is_some();
    has_spoken
        && !is_foreign
        && connection.said_goodbye_at.is_none()
        && !(has_worked && is_clean(connection))
}

fn is_clean(connection: &Connection) -> bool {
    connection.ended.is_some_and(|end| {
        end.ending.initiator == crate::connection::Initiator::Client && !end.was_in_flight()
    })
}

impl Source {
    fn count(&mut self, connection: &Connection, ended_at: Timestamp) {
        if connection.dial_failure.is_some() {
            self.failed_at = Some(ended_at);
        }
        let is_brief = ended_at.since(connection.opened_at) < BRIEF;
        let (queue, moment) = if is_brief {
            (&mut self.brief, connection.opened_at)
        } else {
            (&mut self.lost, ended_at)
        };
        let place = queue.partition_point(|known| *known <= moment);
        queue.insert(place, moment);
        if queue.len() > OPENS_MAX {
            queue.pop_front();
        }
    }

    fn look(
        &mut self,
        at: Timestamp,
        upstream: UpstreamId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        while self
            .brief
            .front()
            .is_some_and(|moment| at.since(*moment) > WINDOW)
        {
            self.brief.pop_front();
        }
        // For as long as dials fail, what was lost is still to be replaced.
        let is_failing = self
            .failed_at
            .is_some_and(|failed| at.since(failed) <= WINDOW);
        while !is_failing
            && self
                .lost
                .front()
                .is_some_and(|moment| at.since(*moment) > WINDOW * 3)
        {
            self.lost.pop_front();
        }
        let opened = self.brief.len() as u64;
        let lost = self.lost.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "counts of connections")]
        let rate = opened as f64 / WINDOW.as_secs_f64();
        let seconds: std::collections::BTreeSet<u64> = self
            .brief
            .iter()
            .map(|moment| at.since(*moment).as_secs())
            .collect();
        let is_storm = opened >= OPENED_MIN
            && opened >= lost.max(1) * AMPLIFICATION_MIN
            && rate > self.baseline * OVER_BASELINE
            && seconds.len() >= SECONDS_MIN;
        if self.storm.is_none() {
            if !is_storm {
                let passed = at.since(self.looked_at).min(BASELINE);
                let share = passed.as_secs_f64() / BASELINE.as_secs_f64();
                self.baseline += (rate - self.baseline) * share.min(1.0);
                self.looked_at = at;
                return;
            }
            self.storm = Some(Storm {
                began_at: self.brief.front().copied().unwrap_or(at),
                told_at: Timestamp::default(),
                opened: 0,
                lost,
                counted_until: Timestamp::default(),
                baseline: self.baseline,
            });
        }
        self.looked_at = at;
        let Some(storm) = &mut self.storm else {
            return;
        };
        if opened == 0 {
            self.storm = None;
            return;
        }
        let until = storm.counted_until;
        let fresh = self.brief.iter().filter(|moment| **moment > until).count();
        storm.opened += fresh as u64;
        storm.counted_until = self.brief.back().copied().unwrap_or(until);
        storm.lost = storm.lost.max(lost);
        if fresh == 0 || at.since(storm.told_at) < TELL_EVERY {
            return;
        }
        storm.told_at = at;
        let instance = self.instance.filter(|id| pools.instance(*id).is_some());
        signals.push(Signal {
            at: storm.began_at,
            seen_at: at,
            subject: Subject {
                upstream,
                instance,
                mongo_client: None,
            },
            among: Vec::new(),
            kind: SignalKind::ReconnectBurst {
                opened: storm.opened,
                lost: storm.lost,
                lasted: at.since(storm.began_at),
                baseline: storm.baseline,
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{ClientMetadata, Ending, Initiator, Manner, Phase};
    use crate::timeline::lines::UpstreamName;
    use crate::timeline::{Commands, ConnectionId, Ended, Opened, Sample};

    /// A connection: when it is opened, by whom, and how long it lasts, in milliseconds.
    type Life = (u64, u8, u64);

    fn at(millis: u64) -> Timestamp {
        Timestamp::default() + Duration::from_hours(500_000) + Duration::from_millis(millis)
    }

    fn beginning(source: u8) -> [Fact; 2] {
        let client = ClientMetadata {
            application: "orders".to_owned(),
            driver_name: "nodejs".to_owned(),
            ..ClientMetadata::default()
        };
        [
            Fact::Opened(Opened {
                upstream: UpstreamId(0),
                peer: ([10, 1, 0, source], 40_000).into(),
            }),
            Fact::Introduced {
                client: Box::new(client),
                request_id: 1,
            },
        ]
    }

    fn end() -> Fact {
        let ending = Ending {
            initiator: Initiator::Server,
            manner: Manner::Fin,
            phase: Phase::Idle,
            after_failed_authentication: false,
        };
        Fact::Ended(Box::new(Ended {
            ending,
            last: Sample::default(),
            unanswered: Commands::default(),
        }))
    }

    /// The bursts of a minute: whose (`None` for all together), how many were opened, and lost; each as told
    /// last.
    fn bursts(lives: impl IntoIterator<Item = Life>) -> Vec<(Option<u64>, u64, u64)> {
        let mut facts = Vec::new();
        for (connection, (opened, source, lasts)) in (1..).map(ConnectionId).zip(lives) {
            facts.extend(beginning(source).map(|fact| (opened, connection, fact)));
            facts.push((opened + lasts, connection, end()));
        }
        facts.sort_by_key(|(millis, ..)| *millis);
        let mut facts = facts.into_iter().peekable();
        let mut pools = Pools::new(vec![UpstreamName {
            name: "db".to_owned(),
            address: "10.0.0.1:27017".to_owned(),
        }]);
        let mut storms = Storms::default();
        let mut signals = Vec::new();
        for tick in (0..60_000).step_by(250) {
            while let Some((millis, connection, fact)) = facts.next_if(|(at, ..)| *at <= tick) {
                let entry = Entry {
                    at: at(millis),
                    connection,
                    fact,
                };
                pools.record(&entry);
                let own = pools.connection(entry.connection).unwrap();
                storms.record(&entry, own, &pools, &mut signals);
            }
            pools.tick(at(tick));
            storms.tick(at(tick), &pools, &mut signals);
        }
        let mut told = BTreeMap::new();
        for signal in signals {
            let SignalKind::ReconnectBurst { opened, lost, .. } = signal.kind else {
                panic!("{signal:?}");
            };
            told.insert(signal.subject.instance.map(|one| one.0), (opened, lost));
        }
        told.into_iter()
            .map(|(whose, (opened, lost))| (whose, opened, lost))
            .collect()
    }

    /// So many sources dial once a second each, for so many seconds; what they open lasts so long.
    fn dials(sources: u8, seconds: u64, lasts: u64) -> impl Iterator<Item = Life> {
        (0..seconds).flat_map(move |second| {
            (0..sources).map(move |source| {
                (
                    20_000 + second * 1000 + u64::from(source) * 20,
                    source,
                    lasts,
                )
            })
        })
    }

    /// A connection of each of so many sources that was there for long, and is lost with the first dial.
    fn lost(sources: u8) -> impl Iterator<Item = Life> {
        (0..sources).map(|source| (1000, source, 19_000))
    }

    #[test]
    fn many_sources_of_which_none_stands_out_are_told_together() {
        // Of the 200 the last ones came after the last telling.
        let told = bursts(dials(20, 10, 100));
        assert!(matches!(told[..], [(None, 180..=200, 0)]), "{told:?}");
        // A lost connection does not excuse so many.
        let told = bursts(lost(1).chain(dials(20, 10, 100)));
        assert!(matches!(told[..], [(None, 180..=200, 1)]), "{told:?}");
    }

    #[test]
    fn a_source_that_stands_out_is_told_alone() {
        let one = (0..100).map(|number| (20_000 + number * 100, 7, 50));
        let all: Vec<Life> = one.chain(dials(4, 10, 100)).collect();
        let told = bursts(all);
        assert_eq!(told.len(), 1, "{told:?}");
        let (whose, opened, _) = told[0];
        assert!(whose.is_some() && (90..=100).contains(&opened), "{told:?}");
    }

    #[test]
    fn few_dials_of_many_sources_are_no_storm() {
        // Twenty in the window, below what is one.
        assert_eq!(bursts(dials(4, 10, 100)), []);
    }

    #[test]
    fn sources_that_replace_what_they_lost_are_no_storm() {
        // Five dials in the window for each connection that was lost.
        assert_eq!(bursts(lost(20).chain(dials(20, 10, 100))), []);
    }

    #[test]
    fn many_sources_at_one_moment_are_no_storm() {
        assert_eq!(bursts(dials(40, 2, 100)), []);
    }

    #[test]
    fn connections_that_last_are_no_storm() {
        assert_eq!(bursts(dials(20, 10, 3000)), []);
    }
}
