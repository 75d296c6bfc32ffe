use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::connection::{ClientMetadata, Ending, Initiator, Manner, Phase, Role};
use crate::diagnose::News;
use crate::observer::{Observer, Sequencer};
use crate::pools::MongoClientId;
use crate::time::Timestamp;
use crate::timeline::lines::{Line, LineError, UpstreamName};
use crate::timeline::{
    Commands, ConnectionId, Ended, Entry, Fact, Opened, Sample, SessionId, UpstreamId,
};

fn upstreams() -> Vec<UpstreamName> {
    vec![UpstreamName {
        name: "db".to_owned(),
        address: "10.0.0.5:27017".to_owned(),
    }]
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000) + Duration::from_millis(millis)
}

fn entry(at: u64, connection: u64, fact: Fact) -> Entry {
    Entry {
        at: ms(at),
        connection: ConnectionId(connection),
        fact,
    }
}

fn opened(at: u64, connection: u64) -> Entry {
    let fact = Opened {
        upstream: UpstreamId(0),
        peer: "10.0.1.9:40122".parse().unwrap(),
    };
    entry(at, connection, Fact::Opened(fact))
}

/// Tells journal and observer the same.
fn tell(journal: &mut Journal, observer: &mut Observer, entries: &[Entry]) {
    for entry in entries {
        journal.told(entry);
        observer.record(entry, &mut Vec::new());
        journal.passed(entry.at, observer.pools());
    }
}

fn open(path: &Path, run: u64) -> Journal {
    Journal::open(path, 64 << 10, 3, upstreams(), ms(run)).unwrap()
}

fn lines(path: &Path) -> Vec<Line> {
    let mut reader = Reader::open(path).unwrap();
    std::iter::from_fn(|| reader.next_line().unwrap()).collect()
}

fn entries(path: &Path) -> Vec<Entry> {
    lines(path)
        .into_iter()
        .filter_map(|line| match line {
            Line::Entry(entry) => Some(entry),
            Line::Header(_) | Line::Mark(_) => None,
        })
        .collect()
}

#[test]
fn what_is_told_is_read_back_and_time_passes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path, 0);
    let mut observer = Observer::new(upstreams());
    tell(&mut journal, &mut observer, &[opened(10, 1)]);
    journal.passed(ms(500), observer.pools());
    journal.passed(ms(1010), observer.pools());
    journal.close(ms(1500));
    let lines: [Line; 4] = lines(&path).try_into().unwrap();
    let [
        Line::Header(header),
        Line::Entry(first),
        Line::Mark(silent),
        Line::Mark(end),
    ] = lines
    else {
        panic!("other lines");
    };
    assert_eq!(header.upstreams, upstreams());
    assert_eq!(first, opened(10, 1));
    assert_eq!((silent, end), (ms(1010), ms(1500)));
}

#[test]
fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    open(&path, 0).close(ms(1));
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_crash_loses_a_second_and_leaves_half_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path, 0);
    let mut observer = Observer::new(upstreams());
    tell(
        &mut journal,
        &mut observer,
        &[opened(10, 1), opened(1020, 2), opened(1500, 3)],
    );
    // As a crash does: what is in the buffer is gone.
    std::mem::forget(journal);
    assert_eq!(entries(&path).len(), 2);

    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let mut replay = Replay::default();
        let read = Reader::open(&path).and_then(|mut reader| replay.read(&mut reader));
        let header = whole.iter().position(|byte| *byte == b'\n').unwrap();
        assert_eq!(read.is_ok(), len >= header, "cut at {len}: {read:?}");
    }

    // The next run removes what is half, and goes on behind it.
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let mut journal = open(&path, 9000);
    let mut observer = Observer::new(upstreams());
    tell(&mut journal, &mut observer, &[opened(9010, 1)]);
    journal.close(ms(9020));
    assert_eq!(entries(&path), [opened(10, 1), opened(9010, 1)]);
}

#[test]
fn each_file_can_be_read_alone_and_the_oldest_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path, 0);
    let mut observer = Observer::new(upstreams());
    let told: Vec<Entry> = (0..3000)
        .map(|at| match at {
            0 | 1 => opened(at, at + 1),
            _ => {
                let sample = Sample {
                    requests: at,
                    from_client_at: ms(at),
                    ..Sample::default()
                };
                entry(at, at % 2 + 1, Fact::Sampled(sample))
            }
        })
        .collect();
    tell(&mut journal, &mut observer, &told);
    journal.close(ms(3000));

    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["journal", "journal.1", "journal.2"]);
    for name in &names {
        let path = directory.path().join(name);
        assert!(path.metadata().unwrap().len() < 70 << 10);
        let open: Vec<ConnectionId> = entries(&path)
            .iter()
            .filter(|entry| matches!(entry.fact, Fact::Opened(_)))
            .map(|entry| entry.connection)
            .collect();
        assert_eq!(open, [ConnectionId(1), ConnectionId(2)], "{name}");
    }

    let mut replay = Replay::default();
    for name in names.iter().rev() {
        let mut reader = Reader::open(&directory.path().join(name)).unwrap();
        replay.read(&mut reader).unwrap();
    }
    let replayed = replay.finish();
    // What the first file tells again is learnt; what the later ones do is known.
    let first = entries(&directory.path().join("journal.2"));
    let fresh = told.iter().position(|entry| *entry == first[4]).unwrap();
    assert_eq!(replayed.entries, u64::try_from(told.len() - fresh).unwrap());
    assert_eq!(replayed.until, ms(3000));
}

#[test]
fn a_disk_that_is_full_from_the_beginning_ends_the_recording_and_not_the_start() {
    // Every write there says that no space is left (full(4)).
    let mut journal = open(Path::new("/dev/full"), 0);
    let health = journal.health();
    assert_eq!(health.errors(), 1);
    assert!(health.failure().unwrap().contains("switched off"));
    let written = health.written_bytes();
    let mut observer = Observer::new(upstreams());
    tell(&mut journal, &mut observer, &[opened(10, 1)]);
    journal.close(ms(20));
    assert_eq!((health.errors(), health.written_bytes()), (1, written));
    // What cannot be meant is still a mistake of the configuration.
    let nowhere = Path::new("/nowhere/journal");
    assert!(Journal::open(nowhere, 64 << 10, 3, upstreams(), ms(0)).is_err());
}

#[test]
fn a_rotation_that_fails_ends_the_recording_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path, 0);
    let health = journal.health();
    let mut observer = Observer::new(upstreams());
    // Rotation fails where the older file cannot be replaced: a directory that is not empty.
    std::fs::create_dir_all(directory.path().join("journal.1/x")).unwrap();
    std::fs::create_dir_all(directory.path().join("journal.2/x")).unwrap();
    let told: Vec<Entry> = (0..2000).map(|at| opened(at, at + 1)).collect();
    tell(&mut journal, &mut observer, &told);
    assert_eq!(health.errors(), 1);
    assert!(health.failure().unwrap().contains("switched off"));
    journal.close(ms(2000));
    assert_eq!(health.errors(), 1);
}

/// Two mongo clients without monitors in one process, told apart by their sessions only.
fn two_session_pools() -> Vec<Entry> {
    let mut told = Vec::new();
    let client = ClientMetadata {
        driver_name: "mongo-rust-driver".to_owned(),
        load_balanced: true,
        application: "orders".to_owned(),
        ..ClientMetadata::default()
    };
    for connection in 1..=4_u64 {
        let at = connection * 1000;
        let session = SessionId([u8::try_from(connection % 2).unwrap() + 1; 16]);
        let client = Box::new(client.clone());
        let sample = Sample {
            requests: 1000,
            operations: 1000,
            from_client_at: ms(at + 50),
            from_server_at: ms(at + 50),
            ..Sample::default()
        };
        told.extend([
            opened(at, connection),
            entry(at + 1, connection, Fact::Dialled(Duration::from_millis(1))),
            entry(
                at + 2,
                connection,
                Fact::Introduced {
                    client,
                    request_id: 1,
                },
            ),
            entry(
                at + 3,
                connection,
                Fact::HelloAnswered(Duration::from_millis(1)),
            ),
            entry(at + 4, connection, Fact::Ready(Duration::from_millis(4))),
            entry(at + 5, connection, Fact::RoleFound(Role::Application)),
            entry(at + 6, connection, Fact::SessionUsed(session)),
            entry(at + 60, connection, Fact::Sampled(sample)),
        ]);
    }
    told
}

/// The connections of each mongo client.
fn households(observer: &Observer) -> BTreeSet<BTreeSet<ConnectionId>> {
    let mut clients: BTreeMap<MongoClientId, BTreeSet<ConnectionId>> = BTreeMap::new();
    for connection in observer.pools().connections() {
        let client = connection.mongo_client.unwrap();
        clients.entry(client).or_default().insert(connection.id);
    }
    clients.into_values().collect()
}

#[test]
fn a_part_alone_knows_whose_connections_are_whose_and_what_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = open(&path, 0);
    let mut observer = Observer::new(upstreams());
    let mut sequencer = Sequencer::default();
    for entry in two_session_pools() {
        sequencer.push(entry);
    }
    let mut until = ms(0);
    // Until the first file is full of counters.
    for turn in 0..1000_u64 {
        until = ms(10_000 + turn * 50);
        let sample = Sample {
            requests: 1000 + turn,
            operations: 1000 + turn,
            from_client_at: until,
            from_server_at: until,
            ..Sample::default()
        };
        sequencer.push(entry(
            10_000 + turn * 50,
            turn % 4 + 1,
            Fact::Sampled(sample),
        ));
        let told = |told: &Entry| journal.told(told);
        sequencer.tell_until(until, &mut observer, &mut Vec::new(), told);
        journal.passed(until, observer.pools());
    }
    journal.close(until);
    let pairs = [[1, 3], [2, 4]].map(|pair| pair.map(ConnectionId).into_iter().collect());
    assert_eq!(households(&observer), BTreeSet::from(pairs));

    let read = |paths: &[&str]| {
        let mut replay = Replay::default();
        let paths: Vec<PathBuf> = paths
            .iter()
            .map(|name| directory.path().join(name))
            .collect();
        for path in parts(&paths).unwrap() {
            replay.read(&mut Reader::open(&path).unwrap()).unwrap();
        }
        let known = households(replay.observer().unwrap());
        (known, replay.finish().warnings)
    };
    let (known, warnings) = read(&["journal.1"]);
    assert_eq!(known, households(&observer));
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains(" not there: what was open is told again"),
        "{warning}"
    );
    for whole in [&["journal"][..], &["."], &["journal", "journal.1"]] {
        let (known, warnings) = read(whole);
        assert_eq!(known, households(&observer), "{whole:?}");
        assert_eq!(warnings, [""; 0], "{whole:?}");
    }
}

#[test]
fn parts_are_found_and_read_in_the_order_in_which_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let header = "{\"poolscope_journal\":1,\"upstreams\":[]}\n";
    let journals = ["a", "a.1", "a.2", "a.10", "b.1", "b.3", "c.d.1"];
    for name in journals {
        std::fs::write(at(name), header).unwrap();
    }
    // None of these is one.
    std::fs::write(at("a.01"), "{}").unwrap();
    std::fs::write(at("log"), "").unwrap();
    std::fs::create_dir(at("e")).unwrap();
    let check = |paths: &[&str], expected: &[&str]| {
        let paths: Vec<PathBuf> = paths.iter().map(|name| at(name)).collect();
        let expected: Vec<PathBuf> = expected.iter().map(|name| at(name)).collect();
        assert_eq!(parts(&paths).unwrap(), expected, "{paths:?}");
    };
    check(&["a"], &["a.10", "a.2", "a.1", "a"]);
    check(&["a.2"], &["a.2"]);
    check(&["a", "a.2", "a"], &["a.10", "a.2", "a.1", "a"]);
    check(&["a.1", "b.1", "a.2"], &["a.2", "a.1", "b.1"]);
    // One that was moved away, and one that never was.
    check(&["b"], &["b.3", "b.1"]);
    check(&["z"], &["z"]);
    check(&["z.7"], &["z.7"]);
    check(&["c.d"], &["c.d.1"]);
    check(&[""], &["a.10", "a.2", "a.1", "a", "b.3", "b.1", "c.d.1"]);
    assert!(parts(&[at("e")]).is_err());
}

/// What a replay of these lines warns of, each without the moments in it.
#[track_caller]
fn check_warnings(lines: &[&str], expected: &[&str]) {
    let mut replay = Replay::default();
    let text = lines.join("\n") + "\n";
    replay.read(&mut Reader::new(Cursor::new(text))).unwrap();
    let warnings = replay.finish().warnings;
    let is_as_expected = |(warning, expected): (&String, &&str)| warning.contains(expected);
    assert!(
        warnings.len() == expected.len() && warnings.iter().zip(expected).all(is_as_expected),
        "{warnings:#?}"
    );
}

#[test]
fn what_a_journal_lacks_is_said() {
    let part = |number: u64| {
        format!(
            "{{\"poolscope_journal\":1,\"upstreams\":[],\"part\":{{\"run\":5,\"number\":{number},\"retold\":0}}}}"
        )
    };
    let [first, second, fifth] = [0, 1, 4].map(part);
    let mark = |seconds: u64| format!("{{\"at\":{seconds}000000000,\"mark\":null}}");
    let [early, next, late] = [100, 101, 1000].map(mark);
    check_warnings(&[&first, &early, &next, &second, &next], &[]);
    check_warnings(&[&second, &early], &["part 1 of the run"]);
    check_warnings(&[&fifth, &early], &["parts 1 to 4 of the run"]);
    check_warnings(&[&first, &early, &fifth, &next], &["follows part 1"]);
    check_warnings(&[&first, &early, &late], &["nothing was written between"]);
    check_warnings(&[&first, &late, &early, &next], &["2 lines are older"]);
    let last = format!("{{\"at\":{},\"mark\":null}}", u64::MAX);
    check_warnings(
        &[&first, &early, &last, &next],
        &["one line is older", "nothing was written"],
    );
}

#[test]
fn what_is_no_journal_is_refused() {
    let read = |text: &str| {
        let mut replay = Replay::default();
        replay.read(&mut Reader::new(Cursor::new(text.to_owned())))
    };
    let header = r#"{"poolscope_journal":1,"upstreams":[]}"#;
    assert!(matches!(read(""), Err(ReadError::Empty)));
    assert!(matches!(
        read("hello\n"),
        Err(ReadError::Line(LineError::Header(_)))
    ));
    assert!(matches!(
        read(&format!("{header}\nhello\n{{}}\n")),
        Err(ReadError::Line(LineError::Line { line: 2, .. }))
    ));
    assert!(matches!(
        read(&format!("{header}\n{}", "x".repeat(5 << 20))),
        Err(ReadError::TooLong(2))
    ));
    assert!(read(&format!("{header}\n{header}\n{{\"at\":5,\"mark\":null}}\n")).is_ok());
}

/// As the live thread does: entries arrive late and out of order, time is looked at now and then.
fn run_live(journal: &mut Journal, arrivals: &[Entry]) -> (Observer, Vec<News>, Timestamp) {
    let mut observer = Observer::new(upstreams());
    let mut sequencer = Sequencer::default();
    let mut news = Vec::new();
    let mut until = Timestamp::default();
    for (turn, arrived) in arrivals.chunks(7).enumerate() {
        for entry in arrived {
            sequencer.push(entry.clone());
        }
        // Later than any of these, and now and then by far: the observer was held up.
        let newest = arrived.iter().map(|entry| entry.at).max().unwrap();
        let delay = Duration::from_millis(if turn % 5 == 0 { 170 } else { 50 });
        let now = (newest + delay).max(until);
        until = sequencer.advance(now, &mut observer, &mut news, |told| journal.told(told));
        journal.passed(until, observer.pools());
    }
    until = until + Duration::from_secs(3);
    sequencer.tell_until(until, &mut observer, &mut news, |told| journal.told(told));
    journal.passed(until, observer.pools());
    (observer, news, until)
}

#[test]
fn a_replay_is_told_what_the_live_observer_was_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = Journal::open(&path, 64 << 10, 100, upstreams(), ms(0)).unwrap();
    let arrivals: Vec<Entry> = (0..4000_u64)
        .map(|number| {
            // Up to 300 ms out of order, more than the sequencer waits for.
            let at = number * 10 + (number * 7919) % 300;
            let connection = number / 40 + 1;
            match number % 40 {
                0 => opened(at, connection),
                1 => entry(at, connection, Fact::Dialled(Duration::from_millis(1))),
                2 => entry(at, connection, Fact::RoleFound(Role::Application)),
                39 if number % 80 == 39 => entry(at, connection, ended(at)),
                _ => {
                    let sample = Sample {
                        requests: number,
                        from_client_at: ms(at),
                        ..Sample::default()
                    };
                    entry(at, connection, Fact::Sampled(sample))
                }
            }
        })
        .collect();
    let (live, news, until) = run_live(&mut journal, &arrivals);
    journal.close(until);

    let mut parts: Vec<PathBuf> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    parts.sort_by_key(|path| {
        let number = path.extension().map(|number| number.to_str().unwrap());
        std::cmp::Reverse(number.map_or(0, |number| number.parse::<u32>().unwrap()))
    });
    assert!(parts.len() > 5, "{parts:?}");
    let mut replay = Replay::default();
    for part in &parts {
        replay.read(&mut Reader::open(part).unwrap()).unwrap();
    }
    let replayed = replay.observer().unwrap();
    // Everything it knows, not only what it says.
    assert_eq!(format!("{replayed:#?}"), format!("{live:#?}"));
    let replayed = replay.finish();
    assert_eq!(replayed.news, news);
    assert_eq!(replayed.until, until);
    assert_eq!(replayed.entries, 4000);
}

fn ended(at: u64) -> Fact {
    let ending = Ending {
        initiator: Initiator::Client,
        manner: Manner::Fin,
        phase: Phase::Idle,
        after_failed_authentication: false,
    };
    let last = Sample {
        from_client_at: ms(at),
        ..Sample::default()
    };
    Fact::Ended(Box::new(Ended {
        ending,
        last,
        unanswered: Commands::default(),
        left_at: None,
    }))
}
