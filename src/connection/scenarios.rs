//! What real clients and servers do on a connection, as bytes, and what the tracker must tell of it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the facts it is about"
)]

use std::time::Duration;

use bson::raw::cstr;
use bson::rawdoc;

use super::testing::*;
use super::*;
use crate::wire::{Command, Direction};

fn metadata(script: &mut Script) -> ClientMetadata {
    let seen = script.take(|fact| match fact {
        Fact::Observed(Observation::HandshakeSeen { client, .. }) => Some(*client.clone()),
        _ => None,
    });
    let [metadata] = seen.try_into().unwrap();
    metadata
}

#[test]
fn a_plain_connection_passes_through_its_states() {
    let mut script = Script::dialled();
    script.ask(0, &first_hello());
    script.answer(0, &hello_reply());
    script.ask(1, &find());
    script.answer(1, &cursor(0));
    let states = script.activity();
    assert_eq!(
        states,
        [
            (State::Handshaking, 0),
            (State::Idle, 0),
            (State::Active, 1),
            (State::Idle, 0)
        ]
    );
    assert_eq!(metadata(&mut script).application, "orders");
    let [hello, server, ready, session, role] = script.observed().try_into().unwrap();
    // Asked at 1 ms, answered at 3 ms, handed on at 4 ms; the session is the one `find` carries.
    assert_eq!(hello, Observation::HelloAnswered(Duration::from_millis(2)));
    assert_eq!(session, Observation::SessionUsed([1; 16]));
    let Observation::ServerDescribed(server) = server else {
        panic!("{server:?} came first");
    };
    assert_eq!(server.role, ServerRole::Primary);
    assert_eq!(server.connection_id, Some(7));
    assert!(server.topology_version.is_some());
    let after = ms(4).since(ms(0));
    assert_eq!(ready, Observation::Ready { after });
    assert_eq!(role, Observation::RoleFound(Role::Application));
    assert_eq!(script.tracker.requests_count(), 2);
    assert!(script.tracker.is_at_rest());
}

#[test]
fn every_form_of_the_first_hello_is_read() {
    let old = rawdoc! { "ismaster": 1, "client": { "application": { "name": "orders" } } };
    let bare = rawdoc! { "isMaster": 1, "$db": "admin" };
    let check = |hello: &[u8], reply: &[u8], application: &str| {
        let mut script = Script::dialled();
        script.client(hello);
        script.server(reply);
        assert_eq!(metadata(&mut script).application, application);
        assert_eq!(script.tracker.state(), State::Idle);
    };
    let reply = hello_reply();
    check(
        &op_msg(0, 0, 0, &first_hello()),
        &op_msg(9, 0, 0, &reply),
        "orders",
    );
    check(&op_query(-3, &old), &op_reply(9, -3, &reply), "orders");
    check(&op_query(5, &old), &op_msg(9, 5, 0, &reply), "orders");
    check(
        &snappy_msg(5, 0, 0, &first_hello()),
        &snappy_msg(9, 5, 0, &reply),
        "orders",
    );
    check(&op_msg(5, 0, 0, &bare), &op_msg(9, 5, 0, &reply), "");
}

#[test]
fn a_client_that_never_says_hello_is_at_work_all_the_same() {
    let mut script = Script::dialled();
    script.ask(0, &rawdoc! { "ping": 1, "$db": "admin" });
    assert_eq!(script.tracker.state(), State::Active);
    let ready = Observation::Ready {
        after: ms(1).since(ms(0)),
    };
    assert_eq!(
        script.observed(),
        [Observation::RoleFound(Role::Application), ready]
    );

    let mut legacy = Script::ready();
    legacy.client(&message(1, 0, 2002, b"\0\0\0\0shop.a\0"));
    assert_eq!(legacy.roles(), [Role::Application]);
    assert_eq!(legacy.tracker.in_flight(), 0);
}

#[test]
fn replies_that_cannot_be_read_still_answer() {
    let mut script = Script::ready();
    script.ask(1, &find());
    script.server(&message(9, 1, 2011, b"\0\0\0\0\0"));
    assert_eq!(script.tracker.in_flight(), 0);
    assert_eq!(script.exchanges().len(), 1);
}

#[test]
fn a_hello_beyond_the_capture_limit_introduces_nobody_but_counts() {
    let mut script = Script::dialled();
    let huge = with(
        first_hello(),
        cstr!("padding"),
        "x".repeat(32 * 1024).as_str(),
    );
    script.ask(0, &huge);
    script.answer(0, &hello_reply());
    assert_eq!(metadata(&mut script), ClientMetadata::default());
    assert_eq!(script.tracker.state(), State::Idle);
}

#[test]
fn a_refused_hello_leaves_the_connection_in_its_handshake() {
    let mut script = Script::dialled();
    script.ask(0, &first_hello());
    script.answer(0, &failed(462, "IngressRequestRateLimitExceeded"));
    assert_eq!(script.tracker.state(), State::Handshaking);
    assert_eq!(script.errors()[0].code, 462);
    assert_eq!(script.end(Initiator::Client).phase, Phase::Handshaking);
}

#[test]
fn streaming_hellos_make_a_monitor_that_is_always_at_rest() {
    let mut script = Script::ready();
    script.client(&op_msg(1, 0, EXHAUST_ALLOWED, &streaming_hello()));
    assert!(script.tracker.is_at_rest());
    let mut previous = script.answer_with(1, MORE_TO_COME, &hello_reply());
    for _ in 0..5 {
        previous = script.answer_with(previous, MORE_TO_COME, &hello_reply());
    }
    let observed = script.observed();
    let interval = Duration::from_secs(10);
    assert_eq!(
        observed,
        [
            Observation::RoleFound(Role::Monitor),
            Observation::HeartbeatInterval(interval)
        ]
    );
    assert_eq!(script.activity(), [(State::Monitoring, 0)]);
    assert_eq!(script.exchanges(), []);

    // The server begins its shutdown.
    script.answer(previous, &failed(91, "ShutdownInProgress"));
    let [error] = script.errors().try_into().unwrap();
    assert_eq!((error.code, error.command), (91, Command::Hello));
    assert_eq!(error.code_name.unwrap().as_str(), "ShutdownInProgress");
    let [stream] = script.exchanges().try_into().unwrap();
    assert!(!stream.is_timed && !stream.is_ok);
    assert_eq!(script.end(Initiator::Server).phase, Phase::Idle);
}

#[test]
fn the_servers_word_to_a_client_that_left_is_no_error() {
    let gone = failed(279, "ClientDisconnect");
    let mut monitor = Script::ready();
    monitor.client(&op_msg(1, 0, EXHAUST_ALLOWED, &streaming_hello()));
    let previous = monitor.answer_with(1, MORE_TO_COME, &hello_reply());
    monitor.answer(previous, &gone);
    assert_eq!(monitor.errors(), []);
    assert_eq!(monitor.exchanges().len(), 1);
    assert_eq!(monitor.end(Initiator::Client).phase, Phase::Idle);

    let mut worker = Script::ready();
    worker.ask(1, &find());
    worker.answer(1, &gone);
    assert_eq!(worker.errors(), []);
    let [exchange] = worker.exchanges().try_into().unwrap();
    assert!(!exchange.is_ok);
}

#[test]
fn streamed_replies_tell_of_the_server_only_what_changed() {
    let mut script = Script::ready();
    script.client(&snappy_msg(1, 0, EXHAUST_ALLOWED, &streaming_hello()));
    let mut previous = 1;
    let primary = hello_reply();
    let secondary = rawdoc! { "secondary": true, "setName": "rs0", "ok": 1.0 };
    for reply in [&primary, &primary, &secondary, &secondary, &primary] {
        script.server(&snappy_msg(previous + 100, previous, MORE_TO_COME, reply));
        previous += 100;
    }
    let roles = script.take(|fact| match fact {
        Fact::Observed(Observation::ServerDescribed(server)) => Some(server.role),
        _ => None,
    });
    assert_eq!(roles, [ServerRole::Secondary, ServerRole::Primary]);
}

#[test]
fn the_compressor_of_the_handshake_outlives_later_hellos_without_one() {
    let mut script = Script::dialled();
    script.ask(0, &first_hello());
    let reply = rawdoc! { "ismaster": true, "compression": ["zstd", "zlib"], "ok": 1.0 };
    script.answer(0, &reply);
    script.ask(1, &bare_hello());
    script.answer(1, &rawdoc! { "ismaster": true, "ok": 1.0 });
    let described = script.take(|fact| match fact {
        Fact::Observed(Observation::ServerDescribed(server)) => Some(server.compressor),
        _ => None,
    });
    assert_eq!(described, [Some(crate::wire::Compressor::Zstd)]);
}

#[test]
fn hello_again_and_again_is_a_round_trip_monitor_until_it_works() {
    let mut script = Script::ready();
    for id in 1..4 {
        script.client(&op_query(id, &rawdoc! { "hello": 1 }));
        script.server(&op_reply(id + 50, id, &hello_reply()));
    }
    assert_eq!(script.roles(), [Role::RoundTripMonitor]);
    assert_eq!(script.tracker.state(), State::Monitoring);
    assert_eq!(script.exchanges().iter().filter(|e| e.is_timed).count(), 3);
    script.ask(9, &find());
    assert_eq!(script.roles(), [Role::Application]);
    assert_eq!(script.tracker.state(), State::Active);
}

#[test]
fn small_talk_of_old_java_decides_nothing() {
    let mut script = Script::ready();
    script.client(&op_query(1, &rawdoc! { "buildinfo": 1 }));
    script.server(&op_reply(50, 1, &ok()));
    script.client(&op_query(2, &rawdoc! { "getlasterror": 1 }));
    script.server(&op_reply(51, 2, &failed(352, "UnsupportedOpQueryCommand")));
    assert_eq!(script.roles(), []);
    script.client(&op_query(3, &rawdoc! { "ismaster": 1 }));
    assert_eq!(script.roles(), [Role::RoundTripMonitor]);
}

#[test]
fn legacy_node_checks_its_servers_on_connections_of_the_application() {
    let mut script = Script::dialled();
    let hello = rawdoc! {
        "ismaster": true,
        "client": {
            "driver": { "name": "nodejs", "version": "3.6.12" },
            "platform": "'Node.js v14.21.3, LE (legacy)",
        },
    };
    script.client(&op_query(1, &hello));
    script.server(&op_reply(50, 1, &hello_reply()));
    for id in 2..5 {
        script.client(&op_query(id, &rawdoc! { "ismaster": true }));
        script.server(&op_reply(50 + id, id, &hello_reply()));
    }
    assert_eq!(script.roles(), [Role::Application]);
    assert_eq!(script.tracker.state(), State::Idle);
}

#[test]
fn who_leaves_with_a_goodbye_leaves_nothing_unfinished() {
    let goodbye = rawdoc! { "endSessions": [{ "id": 1 }], "$db": "admin" };
    let mut script = Script::ready();
    script.ask(1, &goodbye);
    assert_eq!(script.tracker.in_flight(), 1);
    assert_eq!(script.end(Initiator::Client).phase, Phase::Idle);

    let mut script = Script::ready();
    script.ask(1, &find());
    script.ask(2, &goodbye);
    assert_eq!(script.end(Initiator::Client).phase, Phase::InExchange);
}

#[test]
fn pipelined_requests_are_matched_by_their_identifiers() {
    let mut script = Script::ready();
    let ids = [1, -7, 0, 1, i32::MIN];
    for id in ids {
        script.ask(id, &find());
    }
    assert_eq!(script.tracker.in_flight(), 5);
    assert!(!script.tracker.is_at_rest());
    assert_eq!(script.end(Initiator::Client).phase, Phase::InExchange);
    assert_eq!(
        script.facts.0.last(),
        Some(&Fact::Unanswered(vec![Command::Find; 5]))
    );
    for id in ids {
        script.answer(id, &cursor(0));
    }
    let started: Vec<_> = script
        .exchanges()
        .iter()
        .map(|exchange| exchange.started_at)
        .collect();
    assert_eq!(started.len(), 5);
    assert!(started.is_sorted());
    assert_eq!(script.tracker.state(), State::Idle);
}

#[test]
fn replies_that_answer_nothing_are_passed_over() {
    let mut script = Script::ready();
    script.answer(77, &failed(1, "X"));
    script.ask(5, &find());
    script.answer(4, &ok());
    assert_eq!(script.tracker.in_flight(), 1);
    assert_eq!(script.errors(), []);
    script.answer(5, &ok());
    assert_eq!(script.exchanges().len(), 1);
    assert_eq!(script.tracker.in_flight(), 0);
}

#[test]
fn requests_without_reply_wait_for_none() {
    let mut script = Script::ready();
    let insert = rawdoc! { "insert": "a", "documents": [{ "x": 1 }], "$db": "shop" };
    for id in 0..300 {
        script.client(&op_msg(id, 0, MORE_TO_COME, &insert));
    }
    assert_eq!(script.tracker.in_flight(), 0);
    assert_eq!(script.tracker.requests_count(), 301);
    for id in 300..320 {
        script.ask(id, &find());
        script.answer(id, &cursor(0));
    }
    let exchanges = script.exchanges();
    assert_eq!(exchanges.len(), 20);
    assert!(exchanges.iter().all(|exchange| exchange.is_timed));
}

#[test]
fn an_exhaust_cursor_is_one_exchange_and_the_next_are_measured() {
    let mut script = Script::ready();
    script.ask(1, &find());
    script.answer(1, &cursor(9));
    let get_more = rawdoc! { "getMore": 9_i64, "collection": "a", "$db": "shop" };
    script.client(&op_msg(2, 0, EXHAUST_ALLOWED, &get_more));
    let batch = |id: i64| rawdoc! { "cursor": { "id": id, "nextBatch": [{ "a": 1 }] }, "ok": 1.0 };
    let mut previous = 2;
    for _ in 0..10 {
        previous = script.answer_with(previous, MORE_TO_COME, &batch(9));
    }
    assert_eq!(script.tracker.in_flight(), 1);
    script.answer(previous, &batch(0));
    for id in 3..23 {
        script.ask(id, &find());
        script.answer(id, &cursor(0));
    }
    let exchanges = script.exchanges();
    assert_eq!(exchanges.len(), 22);
    let opened = CursorEffect::Opened {
        id: 9,
        awaits_data: false,
    };
    assert_eq!(exchanges[0].cursor, opened);
    assert_eq!(exchanges[1].cursor, CursorEffect::Exhausted { id: 9 });
    assert!(!exchanges[1].is_timed);
    assert_eq!(exchanges.iter().filter(|e| e.is_timed).count(), 21);
}

#[test]
fn cursors_that_wait_for_data_are_not_timed() {
    let mut script = Script::ready();
    let tailing = rawdoc! { "find": "a", "tailable": true, "awaitData": true, "$db": "shop" };
    script.ask(1, &tailing);
    script.answer(1, &cursor(9));
    let get_more = rawdoc! { "getMore": 9_i64, "collection": "a", "$db": "shop" };
    let full = rawdoc! { "cursor": { "id": 9_i64, "nextBatch": [{ "a": 1 }] }, "ok": 1.0 };
    script.ask(2, &get_more);
    script.answer(2, &full);
    script.ask(3, &get_more);
    script.answer(3, &failed(43, "CursorNotFound"));
    let exchanges = script.exchanges();
    let timed: Vec<_> = exchanges.iter().map(|e| e.is_timed).collect();
    assert_eq!(timed, [true, false, false]);
    assert_eq!(exchanges[2].cursor, CursorEffect::Exhausted { id: 9 });
}

#[test]
fn killed_cursors_are_told_once_the_server_agrees() {
    let mut script = Script::ready();
    let kill = rawdoc! { "killCursors": "a", "cursors": [4_i64, 5_i64], "$db": "shop" };
    let killed = |fact: &Fact| match fact {
        Fact::Killed(id) => Some(*id),
        _ => None,
    };
    script.ask(1, &kill);
    script.answer(1, &failed(13, "Unauthorized"));
    assert!(script.take(killed).is_empty());
    script.ask(2, &kill);
    script.answer(2, &ok());
    assert_eq!(script.take(killed), [4, 5]);
}

#[test]
fn transactions_are_told_with_their_session() {
    let mut script = Script::ready();
    let begin = rawdoc! {
        "insert": "a", "txnNumber": 1_i64, "startTransaction": true, "autocommit": false,
        "$db": "shop",
    };
    let go_on = rawdoc! { "find": "a", "txnNumber": 1_i64, "autocommit": false, "$db": "shop" };
    let commit = rawdoc! {
        "commitTransaction": 1, "txnNumber": 1_i64, "autocommit": false, "$db": "admin",
    };
    let started = Observation::TransactionStarted {
        lsid: Some([3; 16]),
    };
    let ended = Observation::TransactionEnded {
        lsid: Some([3; 16]),
    };
    script.ask(1, &with_session(begin.clone(), 3));
    script.answer(1, &ok());
    script.ask(2, &with_session(go_on.clone(), 3));
    script.answer(2, &ok());
    script.roles();
    // The session is told once, not with every request of the transaction.
    let used = Observation::SessionUsed([3; 16]);
    assert_eq!(script.observed(), [used, started.clone()]);
    assert!(script.tracker.is_at_rest());
    script.ask(3, &with_session(commit, 3));
    script.answer(3, &ok());
    assert_eq!(script.observed(), std::slice::from_ref(&ended));

    script.ask(4, &with_session(begin, 3));
    script.answer(4, &failed(11000, "DuplicateKey"));
    assert_eq!(script.observed(), [started]);
    script.ask(5, &with_session(go_on, 3));
    let gone = rawdoc! {
        "ok": 0.0, "code": 112, "codeName": "WriteConflict",
        "errorLabels": ["TransientTransactionError"],
    };
    script.answer(5, &gone);
    assert_eq!(script.observed(), [ended]);
    script.end(Initiator::Client);
    assert_eq!(script.observed(), []);
}

#[test]
fn errors_are_told_by_place_and_code() {
    let mut script = Script::ready();
    script.ask(1, &rawdoc! { "insert": "a", "$db": "shop" });
    let reply = rawdoc! {
        "n": 0,
        "writeErrors": [
            { "index": 0, "code": 11000 }, { "index": 1, "code": 121 }, { "index": 2, "code": 11000 },
        ],
        "writeConcernError": { "code": 64, "codeName": "WriteConcernFailed" },
        "ok": 1.0,
    };
    script.answer(1, &reply);
    let errors: Vec<_> = script
        .errors()
        .iter()
        .map(|error| (error.kind, error.code, error.count))
        .collect();
    assert_eq!(
        errors,
        [
            (ErrorKind::Write, 11000, 2),
            (ErrorKind::Write, 121, 1),
            (ErrorKind::WriteConcern, 64, 1)
        ]
    );
    assert!(script.exchanges()[0].is_ok);
}

#[test]
fn a_speculative_authentication_is_ready_after_its_last_step() {
    let mut script = Script::dialled();
    script.ask(
        1,
        &speculative_hello("SCRAM-SHA-256", b"n,,n=alice,r=nonce"),
    );
    let accepted = rawdoc! {
        "isWritablePrimary": true,
        "speculativeAuthenticate": { "conversationId": 1, "done": false, "payload": binary(b"s=SALT") },
        "ok": 1.0,
    };
    script.answer(1, &accepted);
    assert_eq!(script.tracker.state(), State::Authenticating);
    assert!(!script.tracker.is_at_rest());
    script.ask(2, &sasl_continue());
    script.observed();
    script.answer(2, &rawdoc! { "conversationId": 1, "done": true, "ok": 1.0 });
    let [authenticated, ready] = script.observed().try_into().unwrap();
    let Observation::Authenticated(authenticated) = authenticated else {
        panic!("{authenticated:?} came first");
    };
    assert_eq!(authenticated.mechanism, Mechanism::ScramSha256);
    assert_eq!(authenticated.result, AuthenticationResult::Ok);
    assert_eq!(authenticated.user.as_deref(), Some("shop.alice"));
    assert!(matches!(ready, Observation::Ready { .. }));
    assert_eq!(script.tracker.state(), State::Idle);
    assert_eq!(script.tracker.role(), Role::Application);
}

#[test]
fn a_speculative_certificate_is_ready_with_the_hello() {
    let mut script = Script::dialled();
    let hello = rawdoc! {
        "hello": 1,
        "speculativeAuthenticate": { "authenticate": 1, "mechanism": "MONGODB-X509", "db": "$external" },
    };
    script.ask(1, &hello);
    let reply = rawdoc! {
        "isWritablePrimary": true,
        "speculativeAuthenticate": { "dbname": "$external", "user": "CN=app" },
        "ok": 1.0,
    };
    script.answer(1, &reply);
    assert_eq!(script.tracker.state(), State::Idle);
    let users = script.take(|fact| match fact {
        Fact::Observed(Observation::Authenticated(authentication)) => authentication.user.clone(),
        _ => None,
    });
    assert_eq!(users, ["$external.CN=app"]);
}

#[test]
fn a_wrong_password_ends_as_a_failed_authentication() {
    let mut script = Script::ready();
    let start = rawdoc! {
        "saslStart": 1, "mechanism": "SCRAM-SHA-1",
        "payload": binary(b"n,,n=bob,r=nonce"), "$db": "admin",
    };
    script.ask(1, &start);
    script.answer(1, &rawdoc! { "done": false, "ok": 1.0 });
    assert_eq!(script.tracker.state(), State::Authenticating);
    script.ask(2, &sasl_continue());
    script.answer(2, &failed(18, "AuthenticationFailed"));
    let ending = script.end(Initiator::Client);
    assert!(ending.after_failed_authentication);
    let results = script.take(|fact| match fact {
        Fact::Observed(Observation::Authenticated(a)) => Some((a.result, a.user.clone())),
        _ => None,
    });
    assert_eq!(
        results,
        [(AuthenticationResult::Failed, Some("admin.bob".into()))]
    );
    assert_eq!(script.errors()[0].code, 18);
}

#[test]
fn a_server_that_shuts_down_refuses_no_credentials() {
    let mut script = Script::dialled();
    script.ask(0, &first_hello());
    script.answer(0, &hello_reply());
    let start = rawdoc! {
        "saslStart": 1, "mechanism": "SCRAM-SHA-1",
        "payload": binary(b"n,,n=bob,r=nonce"), "$db": "admin",
    };
    script.ask(1, &sasl_continue());
    script.answer(1, &failed(17, "ProtocolError"));
    script.ask(2, &start);
    script.answer(2, &failed(91, "ShutdownInProgress"));
    let ending = script.end(Initiator::Client);
    assert!(!ending.after_failed_authentication);
    let results = script.take(|fact| match fact {
        Fact::Observed(Observation::Authenticated(a)) => Some(a.result),
        _ => None,
    });
    assert_eq!(results, [AuthenticationResult::Abandoned; 2]);
}

#[test]
fn an_authentication_cut_off_is_abandoned() {
    let mut script = Script::dialled();
    script.ask(
        1,
        &speculative_hello("SCRAM-SHA-256", b"n,,n=alice,r=nonce"),
    );
    let accepted = rawdoc! { "speculativeAuthenticate": { "done": false }, "ok": 1.0 };
    script.answer(1, &accepted);
    script.observed();
    assert_eq!(script.end(Initiator::Client).phase, Phase::Authenticating);
    let observed = script.observed();
    let [Observation::Authenticated(abandoned)] = observed.as_slice() else {
        panic!("{observed:?}");
    };
    assert_eq!(abandoned.result, AuthenticationResult::Abandoned);
}

#[test]
fn a_client_that_authenticates_again_is_authenticating_meanwhile() {
    let mut script = Script::ready();
    script.ask(1, &find());
    script.answer(1, &failed(391, "ReauthenticationRequired"));
    let start = rawdoc! {
        "saslStart": 1, "mechanism": "MONGODB-OIDC", "payload": binary(b"jwt"), "$db": "$external",
    };
    script.activity();
    script.ask(2, &start);
    script.answer(2, &rawdoc! { "done": true, "ok": 1.0 });
    assert_eq!(
        script.activity(),
        [(State::Authenticating, 0), (State::Idle, 0)]
    );
}

#[test]
fn nothing_secret_is_told() {
    let mut script = Script::dialled();
    script.ask(1, &speculative_hello("PLAIN", b"\0alice\0hunter2secret"));
    script.answer(1, &hello_reply());
    let start = rawdoc! {
        "saslStart": 1, "mechanism": "PLAIN",
        "payload": binary(b"\0alice\0hunter2secret"), "$db": "$external",
    };
    script.ask(2, &start);
    script.answer(2, &rawdoc! { "done": true, "ok": 1.0 });
    let scram = rawdoc! {
        "saslStart": 1, "mechanism": "SCRAM-SHA-1",
        "payload": binary(b"n,,n=alice,r=NONCENONCE"), "$db": "admin",
    };
    script.ask(3, &scram);
    script.answer(
        3,
        &rawdoc! { "done": false, "payload": binary(b"s=SALTSALT"), "ok": 1.0 },
    );
    script.ask(4, &sasl_continue());
    assert_nothing_secret(&format!("{:?}", script.tracker));
    script.answer(
        4,
        &rawdoc! { "done": true, "payload": binary(b"v=SIGN"), "ok": 1.0 },
    );
    script.ask(
        5,
        &rawdoc! { "createUser": "eve", "pwd": "hunter2secret", "$db": "admin" },
    );
    script.answer(5, &ok());
    script.ask(
        6,
        &rawdoc! { "insert": "a", "documents": [{ "pin": "hunter2secret" }] },
    );
    script.answer(6, &failed(2, "BadValue"));
    script.end(Initiator::Client);
    assert_nothing_secret(&format!("{:?}", script.facts));
    let users = script.take(|fact| match fact {
        Fact::Observed(Observation::Authenticated(a)) => Some(a.user.clone()),
        _ => None,
    });
    assert_eq!(users, [None, Some("admin.alice".into())]);
}

fn assert_nothing_secret(printed: &str) {
    assert!(printed.len() > 200);
    for secret in ["hunter2", "NONCE", "SALT", "PROOF", "SIGN", "eve"] {
        assert!(!printed.contains(secret), "{secret} is in {printed}");
        // Byte strings are printed as lists of numbers.
        let numbers = format!("{:?}", secret.as_bytes());
        let numbers = numbers.trim_matches(['[', ']']);
        assert!(!printed.contains(numbers), "{secret} is in {printed}");
    }
}

#[test]
fn a_request_is_timed_from_its_first_byte_to_the_last_byte_of_its_reply() {
    let mut script = Script::ready();
    let request = op_msg(1, 0, 0, &find());
    let began = script.now;
    for part in request.chunks(7) {
        script.client(part);
    }
    let reply = op_msg(9, 1, 0, &cursor(0));
    let (head, tail) = reply.split_at(reply.len() - 1);
    script.server(head);
    assert_eq!(script.end(Initiator::Client).phase, Phase::MidMessage);
    assert!(!script.tracker.is_at_rest());
    let last = script.now;
    script.server(tail);
    let [exchange] = script.exchanges().try_into().unwrap();
    assert_eq!(exchange.started_at, ms(began));
    assert_eq!(exchange.ended_at, ms(last + 1));

    // Two requests whose boundary lies inside the second chunk.
    let both = [op_msg(2, 0, 0, &find()), op_msg(3, 0, 0, &find())].concat();
    let first = script.now;
    let (head, tail) = both.split_at(10);
    script.client(head);
    script.client(tail);
    script.answer(2, &ok());
    script.answer(3, &ok());
    let started: Vec<_> = script.exchanges().iter().map(|e| e.started_at).collect();
    assert_eq!(started, [ms(first), ms(first + 2)]);
}

#[test]
fn what_cannot_be_decoded_turns_opaque_once() {
    let mut script = Script::ready();
    script.ask(1, &find());
    script.server(&message(9, 1, 2013, &[0xff; 40]));
    script.server(&[0xff; 64]);
    script.ask(2, &find());
    assert_eq!(script.tracker.state(), State::Opaque);
    assert_eq!(script.tracker.in_flight(), 0);
    assert_eq!(script.tracker.requests_count(), 2);
    let (direction, _) = script.tracker.decode_failure().unwrap();
    assert_eq!(direction, Direction::ToClient);
    script.roles();
    assert_eq!(
        script.observed(),
        [
            Observation::SessionUsed([1; 16]),
            Observation::TurnedOpaque(OpaqueReason::DecodeFailure)
        ]
    );
    assert_eq!(script.end(Initiator::Client).phase, Phase::Opaque);
}

#[test]
fn tls_and_other_protocols_are_told_apart() {
    let mut tls = Script::dialled();
    tls.client(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0]);
    assert_eq!(
        tls.observed(),
        [Observation::TurnedOpaque(OpaqueReason::Tls)]
    );
    let mut http = Script::dialled();
    http.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        http.observed(),
        [
            Observation::RoleFound(Role::Probe),
            Observation::TurnedOpaque(OpaqueReason::UnknownProtocol)
        ]
    );
}

#[test]
fn a_client_that_says_nothing_is_a_probe_unless_it_was_turned_away() {
    let mut silent = Script::dialled();
    let ending = silent.end(Initiator::Client);
    assert_eq!(ending.phase, Phase::Handshaking);
    assert_eq!(silent.roles(), [Role::Probe]);

    let mut turned_away = Script::dialled();
    turned_away.end(Initiator::Server);
    assert_eq!(turned_away.roles(), []);

    let mut spoke = Script::ready();
    spoke.end(Initiator::Client);
    assert_eq!(spoke.roles(), []);
}

#[test]
fn draining_outranks_work_and_waits_for_it() {
    let mut script = Script::ready();
    script.ask(1, &find());
    let now = ms(script.now);
    script.tracker.start_draining(now, &mut script.facts);
    assert_eq!(script.tracker.state(), State::Draining);
    assert!(!script.tracker.is_at_rest());
    script.answer(1, &ok());
    assert!(script.tracker.is_at_rest());
    let activity = script.activity();
    assert_eq!(
        activity,
        [
            (State::Idle, 0),
            (State::Active, 1),
            (State::Draining, 1),
            (State::Draining, 0)
        ]
        .split_at(1)
        .1
    );
}

#[test]
fn a_connection_costs_little_when_idle() {
    let size = size_of::<Tracker>();
    assert!(size <= 700, "the tracker takes {size} bytes");
}
