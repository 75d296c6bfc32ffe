//! What holds of lines whatever they say.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::connection::{
    Authentication, AuthenticationResult, ClientMetadata, Ending, ErrorKind, Initiator, Manner,
    Mechanism, OpaqueReason, Phase, Role, ServerFacts, ServerRole,
};
use crate::timeline::{
    ConnectionId, DialFailure, Ended, ErrorReply, Fact, Opened, Sample, SessionId, TcpState,
    UpstreamId,
};
use crate::wire::{Command, Compressor, TopologyVersion};

fn one_of<T: Clone + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn moment() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_nanos)
}

/// As long as can be written: whole nanoseconds in 64 bits.
fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId)
}

fn compressor() -> impl Strategy<Value = Compressor> {
    one_of(&[
        Compressor::Noop,
        Compressor::Snappy,
        Compressor::Zlib,
        Compressor::Zstd,
    ])
}

/// Names that are told apart by `Command` are written as such, all others as one.
fn command() -> impl Strategy<Value = Command> {
    one_of(Command::ALL)
}

fn peer() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

fn client() -> impl Strategy<Value = ClientMetadata> {
    let texts = vec(any::<String>(), 5);
    (texts, vec(compressor(), 0..3), any::<[bool; 3]>()).prop_map(|(texts, compressors, flags)| {
        let [load_balanced, backpressure, announces_credentials] = flags;
        ClientMetadata {
            application: texts[0].clone(),
            driver_name: texts[1].clone(),
            driver_version: texts[2].clone(),
            platform: texts[3].clone(),
            env_region: texts[4].clone(),
            compressors_offered: compressors,
            load_balanced,
            backpressure,
            announces_credentials,
            ..ClientMetadata::default()
        }
    })
}

fn server() -> impl Strategy<Value = ServerFacts> {
    let topology =
        (any::<[u8; 12]>(), any::<i64>()).prop_map(|(process_id, counter)| TopologyVersion {
            process_id,
            counter,
        });
    (
        option::of(any::<i64>()),
        option::of(any::<String>()),
        vec(any::<String>(), 0..3),
        one_of(&ServerRole::ALL),
        option::of(topology),
        option::of(any::<i32>()),
        option::of(compressor()),
    )
        .prop_map(
            |(connection_id, set_name, members, role, topology_version, wire, compressor)| {
                ServerFacts {
                    connection_id,
                    set_name,
                    members,
                    role,
                    topology_version,
                    max_wire_version: wire,
                    compressor,
                    ..ServerFacts::default()
                }
            },
        )
}

fn tcp() -> impl Strategy<Value = [TcpState; 2]> {
    let one = || {
        (duration(), any::<[u32; 4]>(), duration()).prop_map(
            |(rtt, [segments, retransmits, duplicates, unacked], since_ack)| TcpState {
                rtt: rtt.into(),
                segments,
                retransmits,
                duplicates,
                unacked,
                since_ack: since_ack.into(),
            },
        )
    };
    [one(), one()]
}

fn sample() -> impl Strategy<Value = Sample> {
    (
        any::<[u64; 2]>(),
        any::<u32>(),
        option::of(moment()),
        duration(),
        [moment(), moment()],
        any::<i32>(),
        option::of(tcp()),
    )
        .prop_map(
            |([requests, operations], in_flight, busy_since, busy, bytes_at, request_id, tcp)| {
                let [from_client_at, from_server_at] = bytes_at;
                Sample {
                    requests,
                    operations,
                    in_flight,
                    busy_since,
                    busy,
                    from_client_at,
                    from_server_at,
                    request_id,
                    tcp,
                }
            },
        )
}

fn ended() -> impl Strategy<Value = Ended> {
    let manners = one_of(&[
        Manner::Fin,
        Manner::Reset,
        Manner::TimedOut,
        Manner::Refused,
        Manner::Unreachable,
        Manner::Drained,
        Manner::Limited,
        Manner::Internal,
    ]);
    let phases = one_of(&[
        Phase::Dialling,
        Phase::Handshaking,
        Phase::Authenticating,
        Phase::Idle,
        Phase::InExchange,
        Phase::MidMessage,
        Phase::Opaque,
    ]);
    let initiators = one_of(&Initiator::ALL);
    let commands = one_of(&[Command::Find, Command::Insert, Command::Other]);
    let unanswered = vec(commands, 0..4);
    (
        initiators,
        manners,
        phases,
        any::<bool>(),
        sample(),
        unanswered,
        option::of(moment()),
    )
        .prop_map(
            |(initiator, manner, phase, after_failed_authentication, last, unanswered, left_at)| {
                Ended {
                    ending: Ending {
                        initiator,
                        manner,
                        phase,
                        after_failed_authentication,
                    },
                    last,
                    unanswered: unanswered.into_iter().collect(),
                    left_at,
                }
            },
        )
}

fn authentication() -> impl Strategy<Value = Authentication> {
    let mechanisms = one_of(&[Mechanism::ScramSha256, Mechanism::X509, Mechanism::Other]);
    let results = one_of(&[
        AuthenticationResult::Ok,
        AuthenticationResult::Failed,
        AuthenticationResult::Abandoned,
    ]);
    (mechanisms, results, option::of(any::<String>())).prop_map(|(mechanism, result, user)| {
        Authentication {
            mechanism,
            result,
            user,
        }
    })
}

fn failed() -> impl Strategy<Value = ErrorReply> {
    let kinds = one_of(&ErrorKind::ALL);
    (kinds, command(), any::<i32>(), any::<u32>()).prop_map(|(kind, command, code, count)| {
        ErrorReply {
            kind,
            command,
            code,
            count,
        }
    })
}

fn fact() -> impl Strategy<Value = Fact> {
    let opened = (any::<u16>(), peer()).prop_map(|(upstream, peer)| {
        Fact::Opened(Opened {
            upstream: UpstreamId(upstream),
            peer,
        })
    });
    let introduced = (client(), any::<i32>()).prop_map(|(client, request_id)| Fact::Introduced {
        client: Box::new(client),
        request_id,
    });
    prop_oneof![
        opened,
        duration().prop_map(Fact::Dialled),
        one_of(&DialFailure::ALL).prop_map(Fact::DialFailed),
        introduced,
        server().prop_map(|server| Fact::Described(Box::new(server))),
        duration().prop_map(Fact::HelloAnswered),
        authentication().prop_map(Fact::Authenticated),
        duration().prop_map(Fact::Ready),
        one_of(&Role::ALL).prop_map(Fact::RoleFound),
        duration().prop_map(Fact::Heartbeat),
        session().prop_map(Fact::SessionUsed),
        vec(session(), 0..4).prop_map(Fact::SessionsEnded),
        failed().prop_map(Fact::Failed),
        Just(Fact::TransactionStarted),
        Just(Fact::TransactionEnded),
        one_of(&OpaqueReason::ALL).prop_map(Fact::TurnedOpaque),
        sample().prop_map(Fact::Sampled),
        ended().prop_map(|ended| Fact::Ended(Box::new(ended))),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (moment(), any::<u64>(), fact()).prop_map(|(at, connection, fact)| Entry {
        at,
        connection: ConnectionId(connection),
        fact,
    })
}

proptest! {
    #[test]
    fn an_entry_is_one_line_and_is_read_back(entry in entry()) {
        let line = write_line(&entry);
        prop_assert_eq!(line.matches('\n').count(), 1, "{}", line);
        prop_assert_eq!(read_entry(2, &line).unwrap(), entry.clone());
        prop_assert_eq!(read_line(2, line.trim_end()).unwrap(), Line::Entry(entry));
    }

    #[test]
    fn what_is_cut_is_an_error_and_nothing_else(entry in entry(), at in any::<proptest::sample::Index>()) {
        let line = write_line(&entry);
        let line = line.trim_end().as_bytes();
        let cut = String::from_utf8_lossy(&line[..at.index(line.len())]);
        let is_line_error = matches!(read_line(2, &cut), Err(LineError::Line { line: 2, .. }));
        prop_assert!(is_line_error, "{}", cut);
    }

    #[test]
    fn garbage_is_never_more_than_an_error(
        number in 1..4_u64,
        bytes in vec(any::<u8>(), 0..200),
        entry in entry(),
        at in any::<proptest::sample::Index>(),
    ) {
        // Reading must return, whatever it says.
        let text = String::from_utf8_lossy(&bytes);
        drop(read_line(number, &text));
        drop(read_line(number, &format!("{{\"poolscope_journal\"{text}")));
        let mut line = write_line(&entry).into_bytes();
        let at = at.index(line.len());
        line.splice(at..at, bytes.iter().copied().take(3));
        drop(read_line(number, &String::from_utf8_lossy(&line)));
    }
}
