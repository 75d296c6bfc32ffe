//! What timelines of detectors' tests are made of: one server, and applications on Node's driver.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Detector, Signal, Taken};
use crate::connection::{ClientMetadata, Ending, Initiator, Manner, Phase};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{Commands, ConnectionId, Ended, Entry, Fact, Opened, Sample, UpstreamId};

/// So many milliseconds after the beginning.
pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::default() + Duration::from_hours(500_000) + Duration::from_millis(millis)
}

/// One server, of which nothing is known.
pub(super) fn pools() -> Pools {
    Pools::new(vec![UpstreamName {
        name: "db".to_owned(),
        address: "10.0.0.1:27017".to_owned(),
    }])
}

/// A port for each connection.
pub(super) fn peer(host: u8, connection: u64) -> SocketAddr {
    let port = 40_000 + u16::try_from(connection).unwrap();
    ([10, 1, 0, host], port).into()
}

/// A connection is accepted and introduces itself.
pub(super) fn beginning(peer: SocketAddr, application: &str, request_id: i32) -> [Fact; 2] {
    let client = ClientMetadata {
        application: application.to_owned(),
        driver_name: "nodejs".to_owned(),
        driver_version: "6.22.0".to_owned(),
        ..ClientMetadata::default()
    };
    [
        Fact::Opened(Opened {
            upstream: UpstreamId(0),
            peer,
        }),
        Fact::Introduced {
            client: Box::new(client),
            request_id,
        },
    ]
}

/// The same, and the server answers.
pub(super) fn ready(host: u8, connection: u64, application: &str) -> [Fact; 5] {
    let request_id = i32::try_from(connection).unwrap();
    let [opened, introduced] = beginning(peer(host, connection), application, request_id);
    let took = Duration::from_millis(1);
    [
        opened,
        Fact::Dialled(took),
        introduced,
        Fact::HelloAnswered(took),
        Fact::Ready(took),
    ]
}

/// A connection ends by a FIN.
pub(super) fn ended(initiator: Initiator, phase: Phase, last: Sample) -> Fact {
    let ending = Ending {
        initiator,
        manner: Manner::Fin,
        phase,
        after_failed_authentication: false,
    };
    Fact::Ended(Box::new(Ended {
        ending,
        last,
        unanswered: Commands::default(),
        left_at: None,
    }))
}

/// What a detector tells of a minute in which this happens, each fact at its millisecond.
pub(super) fn play(
    detector: &mut dyn Detector,
    mut facts: Vec<(u64, ConnectionId, Fact)>,
) -> Vec<Signal> {
    facts.sort_by_key(|(millis, ..)| *millis);
    let mut facts = facts.into_iter().peekable();
    let mut pools = pools();
    let mut signals = Vec::new();
    for tick in (0..60_000).step_by(250) {
        while let Some((millis, connection, fact)) = facts.next_if(|(at, ..)| *at <= tick) {
            let entry = Entry {
                at: at(millis),
                connection,
                fact,
            };
            pools.record(&entry);
            let taken = Taken::of(&entry, &pools).unwrap();
            detector.record(&taken, &mut signals);
        }
        pools.tick(at(tick));
        detector.tick(at(tick), &pools, &mut signals);
    }
    signals
}
