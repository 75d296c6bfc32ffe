//! Clients that dial without pause.
//!
//! A pool that grows opens connections and uses them; a pool that was cleared opens as many as it lost. A storm opens
//! many times that, and what it opens does not last.

mod place;
mod source;

use std::collections::BTreeMap;
use std::net::IpAddr;

use place::Place;
use source::Source;

use super::{Detector, Signal, Taken};
use crate::connection::{Initiator, Role};
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::{Fact, UpstreamId};

/// Addresses watched.
const PLACES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Storms {
    places: BTreeMap<(IpAddr, UpstreamId), Place>,
    /// All that dial an upstream taken together: of many, none may stand out.
    together: BTreeMap<UpstreamId, Source>,
}

impl Detector for Storms {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        let Fact::Ended(_) = &entry.fact else {
            return;
        };
        let key = (connection.peer.ip().to_canonical(), connection.upstream);
        if !counts(connection) {
            return;
        }
        if self.places.len() >= PLACES_MAX && !self.places.contains_key(&key) {
            self.places.pop_first();
        }
        let place = self.places.entry(key).or_default();
        place.count(connection, entry.at);
        let together = self.together.entry(connection.upstream).or_default();
        together.count(connection, entry.at);
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        for (key, place) in &mut self.places {
            place.look(*key, at, pools, signals);
        }
        for (upstream, source) in &mut self.together {
            let told = source.look(at);
            let is_one_places = self
                .places
                .iter()
                .any(|((_, of), place)| of == upstream && place.is_storming());
            if !is_one_places {
                signals.extend(told.map(|told| told.of_many(*upstream, pools)));
            }
        }
        self.places.retain(|_, place| place.is_worth_keeping());
    }
}

/// Neither a probe nor a client that says goodbye, as those do that are made for a request.
fn counts(connection: &Connection) -> bool {
    let has_spoken = connection.introduced_at.is_some() || connection.dial_failure.is_some();
    let is_foreign = matches!(connection.role, Role::Tool | Role::Member);
    // A client that was made for a request has done some work.
    let has_worked = connection.last.operations > 0 && connection.dialled_at.is_some();
    has_spoken
        && !is_foreign
        && connection.said_goodbye_at.is_none()
        && !(has_worked && is_clean(connection))
}

fn is_clean(connection: &Connection) -> bool {
    connection
        .ended
        .is_some_and(|end| end.ending.initiator == Initiator::Client && !end.was_in_flight())
}

#[cfg(test)]
mod tests {
    use super::super::SignalKind;
    use super::*;
    use crate::connection::Phase;
    use crate::detect::testing::{at, beginning, ended, peer, play};
    use crate::timeline::{ConnectionId, Sample};

    /// A connection: when it is opened, by whom, and how long it lasts, in milliseconds.
    type Life = (u64, u8, u64);

    fn end() -> Fact {
        ended(Initiator::Server, Phase::Idle, Sample::default())
    }

    /// What is told of a minute.
    fn signals(lives: impl IntoIterator<Item = Life>) -> Vec<Signal> {
        let mut facts = Vec::new();
        for (connection, (opened, source, lasts)) in (1..).map(ConnectionId).zip(lives) {
            let facts_of = beginning(peer(source, 0), "orders", 1);
            facts.extend(facts_of.map(|fact| (opened, connection, fact)));
            facts.push((opened + lasts, connection, end()));
        }
        play(&mut Storms::default(), facts)
    }

    /// The bursts of a minute: whose (`None` for all together), how many were opened, and lost; each as told
    /// last.
    fn bursts(lives: impl IntoIterator<Item = Life>) -> Vec<(Option<u64>, u64, u64)> {
        let mut told = BTreeMap::new();
        for signal in signals(lives) {
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
    fn whoever_is_merely_connected_is_not_concerned_by_a_storm_of_others() {
        let bystanders = (100..110).map(|source| (1000, source, 50_000));
        let told = signals(bystanders.chain(dials(20, 10, 100)));
        for signal in &told {
            assert_eq!(signal.subject.instance, None);
            // The bystanders were there first.
            let numbers: Vec<u64> = signal.among.iter().map(|one| one.0).collect();
            assert_eq!(numbers, (11..=30).collect::<Vec<u64>>());
        }
        assert!(!told.is_empty());
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
    fn a_storm_begins_after_the_last_pause() {
        let early = (0..3).map(|number| (17_000 + number * 10, 7, 50));
        let storm = (0..100).map(|number| (20_000 + number * 100, 7, 50));
        let told = signals(early.chain(storm));
        let first = told.first().unwrap();
        assert_eq!(first.at, at(20_000));
        assert_eq!(
            first.seen_at,
            at(23_000),
            "as soon as it has gone on for long enough"
        );
        let SignalKind::ReconnectBurst { opened, lasted, .. } = first.kind else {
            panic!("{first:?}");
        };
        // Ten a second.
        let expected = lasted.as_millis() / 100;
        assert!(u128::from(opened).abs_diff(expected) <= 2, "{first:?}");
    }

    #[test]
    fn a_storm_is_not_taken_for_what_is_usual_because_it_begins_with_many() {
        // Of twenty that were never seen before.
        let told = signals(
            (0..20)
                .map(|source| (20_000, source, 100))
                .chain(dials(20, 10, 100)),
        );
        let SignalKind::ReconnectBurst { baseline, .. } = told.first().unwrap().kind else {
            panic!("{told:?}");
        };
        assert!(baseline < 0.5, "{baseline}");
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
