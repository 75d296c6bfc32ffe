use super::endings::SIBLINGS_MAX;
use super::*;
use crate::clients::fixtures::{clean, directory, witnessed};
use crate::clients::{ClientRow, Snapshot};
use crate::connection::{
    ClientMetadata, CloseReason, CursorEffect, Ending, Exchange, Facts, Initiator, Observation,
    Phase, Role, State,
};
use crate::wire::{Command, Direction};

fn second(seconds: u64) -> Timestamp {
    Timestamp::default() + Duration::from_secs(1_000_000 + seconds)
}

fn peer(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 40_000))
}

fn open(directory: &Arc<Directory>, host: u8) -> Recorder {
    directory.open(UpstreamId(0), peer(host), second(0))
}

fn introduce(recorder: &mut Recorder, app: &str) {
    introduce_unanswered(recorder, app);
    recorder.observed(second(0), Observation::HelloAnswered(Duration::ZERO));
    recorder.activity_changed(second(0), State::Idle, 0);
}

fn introduce_unanswered(recorder: &mut Recorder, app: &str) {
    recorder.request_seen(second(0), Command::Hello, 1);
    let metadata = ClientMetadata {
        application: app.to_owned(),
        driver_name: "PyMongo|c".to_owned(),
        ..ClientMetadata::default()
    };
    recorder.observed(
        second(0),
        Observation::HandshakeSeen {
            client: Box::new(metadata),
            request_id: 1,
        },
    );
}

fn end(recorder: Recorder, seconds: u64) {
    recorder.ended(clean(), second(seconds));
}

fn row<'a>(snapshot: &'a Snapshot, address: &str, app: &str) -> &'a ClientRow {
    snapshot
        .clients
        .iter()
        .find(|row| &*row.address == address && &*row.app == app)
        .unwrap_or_else(|| panic!("no row of {address} {app}: {:?}", names(snapshot)))
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let rows = snapshot.clients.iter();
    rows.map(|row| format!("{}/{}", row.address, row.app))
        .collect()
}

fn open_count(row: &ClientRow) -> u64 {
    row.by_state.iter().sum()
}

#[test]
fn a_connection_moves_to_its_owner_once_and_takes_its_bytes_along() {
    let directory = directory(10);
    let mut recorder = open(&directory, 1);
    recorder.bytes_forwarded(Direction::ToServer, 300, second(0));

    let before = directory.snapshot(second(1), true);
    let shelter = row(&before, "10.0.0.1", "");
    assert_eq!((open_count(shelter), shelter.opened), (1, 0));
    assert_eq!(shelter.bytes, [0, 0], "nothing is counted in a shelter");
    assert_eq!(before.upstreams[0].opened, 1);
    assert_eq!(before.directory.tracked, 0);

    introduce(&mut recorder, "orders");
    recorder.bytes_forwarded(Direction::ToClient, 50, second(2));
    let after = directory.snapshot(second(2), true);
    assert_eq!(names(&after), ["10.0.0.1/orders"]);
    let owner = row(&after, "10.0.0.1", "orders");
    assert_eq!((open_count(owner), owner.opened), (1, 1));
    assert_eq!(owner.bytes, [300, 50]);
    assert_eq!(owner.requests, [(Command::Hello, 1)]);
    assert_eq!(after.connections[0].client, owner.id);
    assert_eq!(after.directory.tracked, 1);
    end(recorder, 3);
}

#[test]
fn a_connection_that_ends_unread_is_counted_without_a_name() {
    let directory = directory(10);
    let recorder = open(&directory, 1);
    end(recorder, 5);
    let snapshot = directory.snapshot(second(6), true);
    let unread = row(&snapshot, "10.0.0.1", "");
    assert_eq!((open_count(unread), unread.opened), (0, 1));
    assert_eq!(unread.closed, [(Initiator::Client, CloseReason::Clean, 1)]);
    assert_eq!(unread.lifetimes.sum.to_bits(), 5.0_f64.to_bits());
    assert_eq!(unread.pooled_opened, 0);
    assert!(snapshot.connections.is_empty());
}

#[test]
fn what_is_read_after_the_end_tells_whose_it_was() {
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<Fact>>);
    impl Witness for Told {
        fn saw(&self, entry: Entry) {
            lock(&self.0).push(entry.fact);
        }
    }

    let told = Arc::new(Told::default());
    let witness: Arc<dyn Witness> = Arc::clone(&told) as _;
    let directory = witnessed(10, Some(witness));
    let mut recorder = open(&directory, 1);
    let ending = Ending {
        initiator: Initiator::Server,
        phase: Phase::Handshaking,
        ..clean()
    };
    recorder.first_ended(ending, second(0));
    introduce(&mut recorder, "orders");
    recorder.ended(ending, second(1));
    let told = lock(&told.0);
    let is_told = matches!(
        &told[..],
        [Fact::Opened(_), Fact::Ended(_), Fact::Introduced { .. }]
    );
    assert!(is_told, "{told:?}");
    let snapshot = directory.snapshot(second(1), false);
    let row = row(&snapshot, "10.0.0.1", "orders");
    assert_eq!(
        (row.opened, row.pooled_opened, row.undecided_ended),
        (1, 0, 1)
    );
    directory.tick(second(3));
    let snapshot = directory.snapshot(second(3), false);
    assert_eq!(snapshot.clients[0].undecided_ended, 0);
}

/// A path that swallows everything keeps the server's side of what its client gave up, and the client dials again
/// meanwhile.
#[test]
fn monitors_that_were_left_are_no_siblings_although_their_servers_side_lingers() {
    let directory = directory(10);
    let mut left: Vec<_> = (0..2).map(|_| open(&directory, 1)).collect();
    let roles = [Role::Monitor, Role::RoundTripMonitor];
    for (member, role) in left.iter_mut().zip(roles) {
        introduce(member, "orders");
        member.observed(second(1), Observation::RoleFound(role));
    }
    let counts = |at| {
        let snapshot = directory.snapshot(second(at), false);
        let row = row(&snapshot, "10.0.0.1", "orders");
        let pooled = (row.pooled_opened, row.pooled_closed);
        (open_count(row), pooled, row.undecided, row.mongo_clients)
    };
    assert_eq!(counts(2), (2, (0, 0), 0, Some(1)));
    for member in &left {
        member.first_ended(clean(), second(10));
    }
    assert_eq!(counts(10), (2, (0, 0), 0, Some(0)));
    // The next check is given up as well; nothing but its hello was read.
    let mut attempt = directory.open(UpstreamId(0), peer(1), second(10));
    introduce_unanswered(&mut attempt, "orders");
    attempt.first_ended(clean(), second(12));
    assert_eq!(counts(14), (3, (0, 0), 0, Some(0)));
    attempt.ended(clean(), second(12));
    for member in left {
        member.ended(clean(), second(10));
    }
    assert_eq!(counts(16), (0, (0, 0), 0, Some(0)));
}

/// What its client left is closed for it, whatever it was found to be before, and is counted once.
#[test]
fn what_was_left_is_closed_at_once_and_only_once() {
    let directory = directory(10);
    let mut member = open(&directory, 1);
    introduce(&mut member, "orders");
    member.observed(second(1), Observation::RoleFound(Role::Application));
    let counts = || {
        let snapshot = directory.snapshot(second(40), false);
        let row = row(&snapshot, "10.0.0.1", "orders");
        let connections = row.requests_per_connection.count;
        (row.pooled_opened, row.pooled_closed, connections)
    };
    assert_eq!(counts(), (1, 0, 0));
    member.first_ended(clean(), second(2));
    assert_eq!(counts(), (1, 1, 1));
    end(member, 2);
    assert_eq!(counts(), (1, 1, 1));
}

#[test]
fn shelters_take_no_place_from_real_clients() {
    let directory = directory(3);
    let mut recorders: Vec<_> = (1..=3).map(|host| open(&directory, host)).collect();
    for recorder in &mut recorders {
        introduce(recorder, "app");
    }
    let waiting: Vec<_> = (11..=19).map(|host| open(&directory, host)).collect();
    let snapshot = directory.snapshot(second(1), false);
    assert_eq!(snapshot.directory.tracked, 3);
    assert_eq!(snapshot.directory.overflowed, 0);
    assert_eq!(snapshot.clients.len(), 7, "3 clients, 3 shelters, other");
    assert_eq!(open_count(row(&snapshot, "other", "other")), 6);
    drop(waiting);
    let snapshot = directory.snapshot(second(1), false);
    assert_eq!(names(&snapshot).len(), 4);
    assert_eq!(row(&snapshot, "other", "other").opened, 9);
}

#[test]
fn hostile_names_overflow_into_one_row() {
    let directory = directory(250);
    let mut recorders = Vec::new();
    for number in 0..6000 {
        let mut recorder = open(&directory, 1);
        introduce(
            &mut recorder,
            &format!("{number}\n\"}}\\ \u{202e}{}", "x".repeat(4096)),
        );
        recorders.push(recorder);
    }
    let snapshot = directory.snapshot(second(1), false);
    assert_eq!(snapshot.clients.len(), 251);
    assert_eq!(snapshot.directory.overflowed, 5750);
    let other = snapshot.clients.last().unwrap();
    assert_eq!((&*other.address, &*other.app), ("other", "other"));
    assert_eq!(open_count(other), 5750);
    for row in &snapshot.clients {
        assert!(row.app.len() <= 64, "{}", row.app);
        assert!(!row.app.contains(['\n', '"', '\\', '\u{202e}']));
    }
    // Whoever is in the overflow stays there for life, also when places are free.
    let late = recorders.pop().unwrap();
    for recorder in recorders {
        end(recorder, 2);
    }
    directory.tick(second(3000));
    let snapshot = directory.snapshot(second(3000), false);
    assert_eq!(names(&snapshot), ["other/other"]);
    assert_eq!(open_count(&snapshot.clients[0]), 1);
    end(late, 3001);
    assert_eq!(directory.connection_count(), 0);
}

#[test]
fn a_client_expires_after_its_time_without_connections() {
    let directory = directory(10);
    let mut first = open(&directory, 1);
    introduce(&mut first, "orders");
    directory.tick(second(5000));
    assert_eq!(directory.snapshot(second(5000), false).clients.len(), 1);
    end(first, 5000);
    directory.tick(second(5900));
    assert_eq!(directory.snapshot(second(5900), false).clients.len(), 1);
    directory.tick(second(5901));
    let snapshot = directory.snapshot(second(5901), false);
    assert!(snapshot.clients.is_empty());
    assert_eq!(snapshot.directory.expired, 1);
    assert_eq!(snapshot.directory.tracked, 0);
}

#[test]
fn a_dropped_recorder_leaves_no_gauge_behind() {
    let directory = directory(10);
    let mut recorder = open(&directory, 1);
    introduce(&mut recorder, "orders");
    recorder.activity_changed(second(1), State::Active, 1);
    recorder.bytes_forwarded(Direction::ToServer, 1, second(4));
    drop(recorder);
    let snapshot = directory.snapshot(second(9), true);
    let client = row(&snapshot, "10.0.0.1", "orders");
    assert_eq!(open_count(client), 0);
    assert_eq!(client.in_flight, 0);
    assert_eq!(client.busy, Duration::from_secs(3));
    assert_eq!(
        client.closed,
        [(Initiator::Proxy, CloseReason::Internal, 1)]
    );
    assert_eq!(snapshot.upstreams[0].endings[0].0.phase, Phase::InExchange);
}

#[test]
fn waiting_for_data_is_no_latency() {
    let directory = directory(10);
    let mut opener = open(&directory, 1);
    let mut other = open(&directory, 1);
    introduce(&mut opener, "stream");
    introduce(&mut other, "stream");
    let exchange = |command, cursor, seconds: u64| Exchange {
        command,
        started_at: second(10),
        ended_at: second(10 + seconds),
        is_ok: true,
        is_timed: true,
        cursor,
    };
    let begun = |id, awaits_data| CursorEffect::Opened { id, awaits_data };
    opener.exchange_ended(&exchange(Command::Aggregate, begun(1, true), 1));
    opener.exchange_ended(&exchange(Command::Find, begun(2, false), 1));
    let continued = |id| CursorEffect::Continued { id };
    other.exchange_ended(&exchange(Command::GetMore, continued(1), 60));
    other.exchange_ended(&exchange(Command::GetMore, continued(2), 2));
    let snapshot = directory.snapshot(second(20), false);
    let client = row(&snapshot, "10.0.0.1", "stream");
    assert_eq!(client.command_times.count, 3);
    assert_eq!(client.cursors_open, 2);
    let getmores: Vec<_> = snapshot.upstreams[0]
        .command_times
        .iter()
        .filter(|(command, _)| *command == Command::GetMore)
        .map(|(_, times)| times.count)
        .collect();
    assert_eq!(getmores, [1]);
    other.exchange_ended(&exchange(
        Command::GetMore,
        CursorEffect::Exhausted { id: 2 },
        1,
    ));
    other.cursor_killed(second(21), 1);
    let snapshot = directory.snapshot(second(21), false);
    assert_eq!(row(&snapshot, "10.0.0.1", "stream").cursors_open, 0);
}

#[test]
fn a_client_is_shown_by_what_its_connections_are_for() {
    let directory = directory(10);
    let mut members: Vec<_> = (0..6).map(|_| open(&directory, 1)).collect();
    for member in &mut members {
        introduce(member, "orders");
    }
    let told = [
        Role::Monitor,
        Role::RoundTripMonitor,
        Role::Application,
        Role::Application,
    ];
    for (member, role) in members.iter_mut().zip(told) {
        member.observed(second(1), Observation::RoleFound(role));
    }
    members[2].activity_changed(second(1), State::Active, 3);

    let snapshot = directory.snapshot(second(3), true);
    let client = row(&snapshot, "10.0.0.1", "orders");
    assert_eq!(client.mongo_clients, Some(1));
    assert_eq!(client.by_state[State::Monitoring.index()], 2);
    assert_eq!((client.pooled_active, client.pooled_idle), (1, 1));
    assert_eq!((client.pooled_opened, client.pooled_closed), (2, 0));
    assert_eq!(client.undecided, 2);
    assert_eq!(client.in_flight, 3);
    assert_eq!(client.longest_idle, Some(Duration::from_secs(3)));
    assert_eq!(snapshot.connections[0].state, State::Monitoring);
    assert_eq!(snapshot.connections[5].role, Role::Unknown);

    let snapshot = directory.snapshot(second(13), true);
    let client = row(&snapshot, "10.0.0.1", "orders");
    assert_eq!((client.pooled_active, client.pooled_idle), (1, 3));
    assert_eq!((client.pooled_opened, client.pooled_closed), (4, 0));
    assert_eq!(client.undecided, 0);
    assert_eq!(snapshot.connections[5].role, Role::Application);

    for member in members {
        end(member, 14);
    }
    let snapshot = directory.snapshot(second(15), true);
    let client = row(&snapshot, "10.0.0.1", "orders");
    assert_eq!((client.pooled_opened, client.pooled_closed), (4, 4));
    assert_eq!(client.requests_per_connection.count, 4);
    assert_eq!(open_count(client), 0);
}

#[test]
fn what_was_counted_as_pooled_stays_counted() {
    let directory = directory(10);
    let mut members: Vec<_> = (0..3).map(|_| open(&directory, 1)).collect();
    for member in &mut members {
        introduce(member, "orders");
    }
    members[0].observed(second(0), Observation::RoleFound(Role::Monitor));
    let counts = |at| {
        let snapshot = directory.snapshot(second(at), false);
        let client = row(&snapshot, "10.0.0.1", "orders");
        (
            client.pooled_opened,
            client.pooled_closed,
            client.pooled_idle,
        )
    };
    assert_eq!(counts(29), (0, 0, 0));
    // Longer silent than its driver's monitors ever are, unless the whole process stood still.
    assert_eq!(counts(31), (2, 0, 2));
    members[1].observed(second(32), Observation::RoleFound(Role::RoundTripMonitor));
    assert_eq!(counts(32), (2, 1, 1));
    // A picture that was begun before, and is done after the others.
    assert_eq!(counts(5), (2, 1, 1));
    for member in members {
        end(member, 33);
    }
    assert_eq!(counts(34), (2, 2, 0));
}

#[test]
fn a_slow_heartbeat_leaves_silence_longer_undecided() {
    let directory = directory(10);
    let mut monitors: Vec<_> = (0..2).map(|_| open(&directory, 1)).collect();
    let mut silent = open(&directory, 1);
    for (monitor, interval) in monitors.iter_mut().zip([60, 10]) {
        introduce(monitor, "orders");
        monitor.observed(second(0), Observation::RoleFound(Role::Monitor));
        let interval = Duration::from_secs(interval);
        monitor.observed(second(0), Observation::HeartbeatInterval(interval));
    }
    introduce(&mut silent, "orders");
    let pooled = |at| directory.snapshot(second(at), false).clients[0].pooled_opened;
    assert_eq!((pooled(31), pooled(179), pooled(181)), (0, 0, 1));
}

#[test]
fn transactions_are_counted_by_session_whatever_the_connection() {
    let directory = directory(10);
    let mut first = open(&directory, 1);
    let mut other = open(&directory, 1);
    introduce(&mut first, "orders");
    introduce(&mut other, "orders");
    let open_transactions = || {
        let snapshot = directory.snapshot(second(9), false);
        row(&snapshot, "10.0.0.1", "orders").transactions_open
    };
    for session in [1, 2] {
        let lsid = Some([session; 16]);
        first.observed(second(0), Observation::TransactionStarted { lsid });
    }
    assert_eq!(open_transactions(), 2);
    let lsid = Some([1; 16]);
    other.observed(second(1), Observation::TransactionEnded { lsid });
    assert_eq!(open_transactions(), 1);
    directory.tick(second(61));
    assert_eq!(open_transactions(), 0);
}

#[test]
fn a_connection_without_hello_or_opaque_settles_without_a_name() {
    let directory = directory(10);
    let mut bare = open(&directory, 1);
    bare.request_seen(second(0), Command::Ping, 1);
    let mut opaque = open(&directory, 2);
    opaque.observed(second(0), Observation::TurnedOpaque(OpaqueReason::Tls));
    let snapshot = directory.snapshot(second(1), true);
    assert_eq!(row(&snapshot, "10.0.0.1", "").opened, 1);
    assert_eq!(row(&snapshot, "10.0.0.2", "").opened, 1);
    assert_eq!(snapshot.directory.tracked, 2);
    assert_eq!(snapshot.directory.opaque[0], 1);
    assert_eq!(snapshot.connections[1].opaque, Some(OpaqueReason::Tls));
}

#[test]
fn thousands_of_silent_connections_end_in_bounded_work() {
    let directory = directory(10);
    let mut monitor = open(&directory, 1);
    introduce(&mut monitor, "orders");
    monitor.observed(second(0), Observation::RoleFound(Role::Monitor));
    let mut silent = Vec::new();
    for _ in 0..3 * SIBLINGS_MAX {
        let mut recorder = open(&directory, 1);
        introduce(&mut recorder, "orders");
        silent.push(recorder);
    }
    for recorder in silent.drain(1..).rev() {
        end(recorder, 5);
    }
    let snapshot = directory.snapshot(second(6), false);
    let closed = row(&snapshot, "10.0.0.1", "orders").pooled_closed;
    assert_eq!(closed, 3 * 1024 - 1, "the first is the round-trip monitor");
}

#[test]
fn counts_stay_whole_under_threads() {
    let directory = directory(8);
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let directory = Arc::clone(&directory);
            std::thread::spawn(move || {
                for round in 0..250_u64 {
                    let mut recorder = open(&directory, thread);
                    introduce(&mut recorder, &format!("app-{}", round % 4));
                    recorder.request_seen(second(1), Command::Find, 1);
                    recorder.activity_changed(second(1), State::Active, 1);
                    recorder.bytes_forwarded(Direction::ToServer, 7, second(1));
                    recorder.activity_changed(second(2), State::Idle, 0);
                    if round % 2 == 0 {
                        end(recorder, 3);
                    }
                    if round % 50 == 0 {
                        directory.tick(second(3));
                        directory.snapshot(second(3), true);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let snapshot = directory.snapshot(second(4), true);
    let clients = snapshot.clients.iter();
    let sum = |value: fn(&ClientRow) -> u64| clients.clone().map(value).sum::<u64>();
    assert_eq!(sum(|row| row.opened), 1000);
    assert_eq!(
        sum(|row| row.closed.iter().map(|(_, _, count)| count).sum()),
        1000
    );
    assert_eq!(sum(|row| row.bytes[0]), 7000);
    assert_eq!(sum(|row| row.busy.as_secs()), 1000);
    assert_eq!(sum(open_count), 0);
    assert_eq!(snapshot.upstreams[0].opened, 1000);
    assert_eq!(snapshot.upstreams[0].by_state.iter().sum::<u64>(), 0);
    assert_eq!(directory.connection_count(), 0);
    assert_eq!(snapshot.directory.tracked, 8);
    assert!(snapshot.connections.is_empty());
}
