use super::super::Storms;
use super::*;
use crate::connection::{Initiator, Phase};
use crate::detect::SignalKind;
use crate::detect::testing::{at, beginning, ended, peer, play};
use crate::timeline::{ConnectionId, DialFailure, Fact, Opened, Sample};

/// A connection from the one address there is: when it is opened, of which application where it says so before it is
/// over, and how long it lasts, in milliseconds.
type Life = (u64, Option<&'static str>, u64);

fn facts_of(
    (opened, application, lasts): Life,
    id: ConnectionId,
) -> Vec<(u64, ConnectionId, Fact)> {
    let peer = peer(7, id.0);
    let mut facts = match application {
        Some(application) => Vec::from(beginning(peer, application, 1)),
        None => vec![
            Fact::Opened(Opened {
                upstream: UpstreamId(0),
                peer,
            }),
            Fact::DialFailed(DialFailure::Refused),
        ],
    };
    facts.push(ended(Initiator::Server, Phase::Idle, Sample::default()));
    let is_last = facts.len() - 1;
    let moments = (0..=is_last).map(|place| opened + if place == is_last { lasts } else { 0 });
    moments
        .zip(facts)
        .map(|(moment, fact)| (moment, id, fact))
        .collect()
}

/// What is told of a minute.
fn signals(lives: impl IntoIterator<Item = Life>) -> Vec<Signal> {
    let ids = (1..).map(ConnectionId);
    let facts = lives.into_iter().zip(ids);
    let facts = facts.flat_map(|(life, id)| facts_of(life, id)).collect();
    play(&mut Storms::default(), facts)
}

/// A burst: of whom (`None` where nobody can tell), whoever may be meant, its beginning and what was opened and lost.
type Burst = (Option<u64>, Vec<u64>, Timestamp, u64, u64);

/// The bursts of a minute, each as told last.
fn bursts(lives: impl IntoIterator<Item = Life>) -> Vec<Burst> {
    let mut told = BTreeMap::new();
    for signal in signals(lives) {
        let SignalKind::ReconnectBurst {
            from, opened, lost, ..
        } = signal.kind
        else {
            panic!("{signal:?}");
        };
        assert_eq!(from, Some(peer(7, 0).ip()));
        let whose = signal.subject.instance.map(|one| one.0);
        let among = signal.among.iter().map(|one| one.0).collect();
        told.insert((whose, signal.at), (whose, among, signal.at, opened, lost));
    }
    told.into_values().collect()
}

/// Ten a second, over so many seconds.
fn storm(from: u64, seconds: u64, application: Option<&'static str>) -> impl Iterator<Item = Life> {
    (0..seconds * 10).map(move |number| (from + number * 100, application, 50))
}

/// So many connections that were there for long.
fn lost(application: &'static str, many: u64, until: u64) -> impl Iterator<Item = Life> {
    (0..many).map(move |_| (1000, Some(application), until - 1000))
}

#[test]
fn the_storm_of_one_client_does_not_hide_that_of_another_at_its_address() {
    let long = storm(10_000, 40, Some("orders"));
    let told = bursts(long.chain(storm(30_050, 10, Some("billing"))));
    let [(orders, _, began, opened, _), (billing, _, later, fewer, _)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((*orders, *began), (Some(1), at(10_000)));
    assert_eq!((*billing, *later), (Some(2), at(30_050)));
    assert!(
        (390..=400).contains(opened) && (90..=100).contains(fewer),
        "{told:?}"
    );
}

#[test]
fn what_one_client_lost_does_not_excuse_another_at_its_address() {
    let told = bursts(lost("billing", 20, 20_000).chain(storm(20_000, 10, Some("orders"))));
    let [(Some(2), _, _, _, 0)] = told[..] else {
        panic!("{told:?}");
    };
}

#[test]
fn dials_that_were_refused_are_those_of_the_only_client_at_the_address() {
    let told = bursts(lost("orders", 1, 20_000).chain(storm(20_000, 10, None)));
    let [(Some(1), ref among, began, opened, 1)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((among.len(), began), (0, at(20_000)));
    assert!((90..=100).contains(&opened), "{told:?}");
}

#[test]
fn dials_that_were_refused_may_be_those_of_any_client_at_the_address() {
    let both = || lost("orders", 1, 20_000).chain(lost("billing", 1, 20_000));
    let told = bursts(both().chain(storm(20_000, 10, None)));
    let [(None, ref among, began, opened, 2)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((&among[..], began), (&[1, 2][..], at(20_000)));
    assert!((90..=100).contains(&opened), "{told:?}");
    // Together they lost enough to look for the server so often.
    let more = lost("orders", 10, 20_000).chain(lost("billing", 10, 20_000));
    assert_eq!(bursts(more.chain(storm(20_000, 10, None))), []);
}

#[test]
fn dials_that_were_refused_before_a_client_was_let_in_are_its() {
    let told = bursts(storm(20_000, 10, None).chain(storm(30_000, 10, Some("orders"))));
    let last = told.last().unwrap();
    let (Some(1), _, began, opened, 0) = *last else {
        panic!("{told:?}");
    };
    assert_eq!(began, at(20_000));
    assert!((190..=200).contains(&opened), "{told:?}");
}

#[test]
fn clients_of_an_address_beyond_what_is_told_apart_are_counted_for_it() {
    let mut place = Place::default();
    let mut known = crate::detect::testing::pools();
    let many = CLIENTS_MAX + 10;
    for number in 1..=many {
        let id = ConnectionId(number as u64);
        for fact in beginning(peer(7, id.0), &format!("app-{number}"), 1) {
            known.record(&crate::timeline::Entry {
                at: at(1000),
                connection: id,
                fact,
            });
        }
        place.count(known.connection(id).unwrap(), at(1050));
    }
    assert_eq!(place.clients.len(), CLIENTS_MAX);
    assert!(place.strangers.is_worth_keeping());
}
