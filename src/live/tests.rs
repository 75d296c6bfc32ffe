use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::reconcile::Reconciler;
use super::*;
use crate::clients::{DirectoryLimits, Recorder, UpstreamSpec};
use crate::connection::{
    ClientMetadata, Ending, Facts as _, Initiator, Manner, Observation, Phase, Role,
};
use crate::diagnose::Cause;
use crate::timeline::{ConnectionId, Fact, Opened, Sample, UpstreamId};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000) + Duration::from_secs(seconds)
}

fn end(recorder: Recorder, at: Timestamp) {
    let ending = Ending {
        initiator: Initiator::Client,
        manner: Manner::Fin,
        phase: Phase::Idle,
        after_failed_authentication: false,
    };
    recorder.ended(ending, at);
}

fn directory(feed: Arc<Feed>) -> Arc<Directory> {
    let limits = DirectoryLimits {
        clients_max: 10,
        client_ttl: Duration::from_mins(1),
    };
    let upstream = UpstreamSpec {
        name: "db".to_owned(),
        listen: "127.0.0.1:1".to_owned(),
        address: "127.0.0.1:2".to_owned(),
        advertised: Vec::new(),
    };
    Arc::new(Directory::with_witness(limits, vec![upstream], Some(feed)))
}

fn observer() -> Observer {
    Observer::new(vec![UpstreamName {
        name: "db".to_owned(),
        address: "127.0.0.1:2".to_owned(),
    }])
}

fn believed(observer: &Observer) -> BTreeSet<ConnectionId> {
    let open = observer.pools().connections().filter(|one| one.is_open());
    open.map(|one| one.id).collect()
}

#[test]
fn what_was_lost_is_corrected() {
    let (feed, findings, reasoning) = channel_of(4);
    let directory = directory(feed);
    let mut observer = observer();
    let open = || directory.open(UpstreamId(0), "10.0.0.1:1".parse().unwrap(), at(0));
    let take = |observer: &mut Observer| {
        for entry in reasoning.take() {
            observer.record(&entry, &mut Vec::new());
        }
    };
    let [mut kept, ghost] = [open(), open()];
    take(&mut observer);
    assert_eq!(believed(&observer), directory.open_connections());
    assert_eq!(findings.lost(), 0);

    let filler: Vec<Recorder> = (0..4).map(|_| open()).collect();
    // From here on the channel is full: two endings, an opening and a role are lost.
    end(ghost, at(1));
    let mut stranger = open();
    stranger.observed(at(1), Observation::RoleFound(Role::Monitor));
    kept.observed(at(1), Observation::RoleFound(Role::Application));
    assert_eq!(findings.lost(), 4);
    assert_eq!(directory.observations_lost(), 4);
    take(&mut observer);
    assert_ne!(believed(&observer), directory.open_connections());

    let mut reconciler = Reconciler::default();
    let mut corrected = Vec::new();
    for second in 2..8 {
        let mut told = Vec::new();
        let pools = observer.pools();
        reconciler.look(findings.lost(), &directory, pools, at(second), |entry| {
            told.push(entry);
        });
        corrected.push(!told.is_empty());
        for entry in told {
            observer.record(&entry, &mut Vec::new());
        }
    }
    assert_eq!(believed(&observer), directory.open_connections());
    let role = |recorder: &Recorder| observer.pools().connection(recorder.id()).unwrap().role;
    assert_eq!(role(&stranger), Role::Monitor);
    assert_eq!(role(&kept), Role::Application);
    // The first look corrects what cannot be on its way, the second the rest, and then there is rest.
    assert_eq!(corrected, [true, true, false, false, false, false]);
    drop(filler);
}

#[test]
fn stopping_tells_what_there_is_and_closes_the_journal() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("journal");
    let clock = Clock::start();
    let (feed, _findings, reasoning) = channel();
    let directory = directory(feed);
    let names = vec![UpstreamName {
        name: "db".to_owned(),
        address: "127.0.0.1:2".to_owned(),
    }];
    let journal = Journal::open(&path, 1 << 20, 2, names.clone(), clock.now()).unwrap();
    let running = reasoning
        .start(Arc::clone(&directory), names, clock, Some(journal))
        .unwrap();
    let peer = "10.0.0.1:1".parse().unwrap();
    let recorder = directory.open(UpstreamId(0), peer, clock.now());
    end(recorder, clock.now());
    running.stop();
    let text = std::fs::read_to_string(&path).unwrap();
    let has = |what: &str| text.lines().any(|line| line.contains(what));
    assert!(has("\"opened\"") && has("\"ended\""), "{text}");
    assert!(text.lines().next_back().unwrap().contains("\"mark\""));
}

/// What is found when this thread is held up for seconds while three connections work on, by what moment the late
/// counters are told with.
fn found_after_a_pause(moment: impl Fn(Timestamp, Timestamp) -> Timestamp) -> Vec<Cause> {
    let (mut observer, mut sequencer, mut news) = (observer(), Sequencer::default(), Vec::new());
    let tell = |at, connection: u64, fact| Entry {
        at,
        connection: ConnectionId(connection),
        fact,
    };
    for connection in 1..=3 {
        let opened = Opened {
            upstream: UpstreamId(0),
            peer: SocketAddr::from(([10, 0, 0, connection], 1)),
        };
        let client = Box::new(ClientMetadata::default());
        for fact in [
            Fact::Opened(opened),
            Fact::Dialled(Duration::from_millis(1)),
            Fact::Introduced {
                client,
                request_id: 1,
            },
            Fact::HelloAnswered(Duration::from_millis(1)),
            Fact::Ready(Duration::from_millis(2)),
            Fact::RoleFound(Role::Application),
        ] {
            sequencer.push(tell(at(0), connection.into(), fact));
        }
    }
    let mut due = at(1);
    for second in (1..20).chain([26, 27, 28]) {
        let now = at(second);
        for connection in 1..=3 {
            // One operation of 10 ms after the other, the last under way.
            let sample = Sample {
                requests: second * 100 + 2,
                operations: second * 100 + 1,
                in_flight: 1,
                busy_since: Some(now - Duration::from_millis(5)),
                busy: Duration::from_secs(second),
                from_client_at: now - Duration::from_millis(5),
                from_server_at: now - Duration::from_millis(5),
                ..Sample::default()
            };
            let entry = tell(moment(due, now), connection, Fact::Sampled(sample));
            sequencer.push(entry);
        }
        due = now + SAMPLE_EVERY;
        sequencer.advance(now, &mut observer, &mut news, |_| {});
    }
    let incidents = observer.incidents();
    let causes = incidents.iter().flat_map(|incident| &incident.causes);
    causes.map(|ranked| ranked.cause).collect()
}

#[test]
fn a_pause_of_our_own_is_not_taken_for_the_servers() {
    // That they came is all there is to tell.
    assert_eq!(found_after_a_pause(told_at), [Cause::ScaleOut]);
    // Were the counters told when they were read, there would be more.
    let causes = found_after_a_pause(|_, now| now);
    assert!(causes.contains(&Cause::ServerFreeze), "{causes:?}");
}
