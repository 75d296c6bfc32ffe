//! Incidents made by hand.

use std::sync::Arc;
use std::time::Duration;

use super::AT;
use crate::diagnose::{
    Advice, Cause, ClientName, Evidence, Failures, Incident, IncidentId, Logged, Moment, Place,
    RankedCause, Severity,
};
use crate::live::{ClientKey, MongoClientRow, PoolPicture};
use crate::pools::{
    Basis, Clear, ClearSign, CloseBasis, Farewell, Inferred, Joined, MongoClientId, Pool,
    ReadySign, Standing,
};
use crate::time::Timestamp;
use crate::timeline::{Commands, ConnectionId, UpstreamId};
use crate::wire::Command;

/// Newest first: one that is open, one whose names are hostile, one that is over and was none.
pub(crate) fn incidents() -> Vec<Arc<Incident>> {
    vec![Arc::new(crash()), Arc::new(hostile()), Arc::new(deploy())]
}

fn before(millis: u64) -> Timestamp {
    AT - Duration::from_millis(millis)
}

fn evidence(at: Option<u64>, fact: &str, count: Option<u64>) -> Evidence {
    Evidence {
        at: at.map(before),
        fact: fact.to_owned(),
        count,
    }
}

fn name(address: &str, app: &str) -> ClientName {
    ClientName {
        address: address.into(),
        app: app.into(),
    }
}

fn moment(millis: u64, what: &str) -> Moment {
    Moment {
        at: before(millis),
        what: what.to_owned(),
    }
}

/// A crash of the server, told with everything there can be.
pub(crate) fn crash() -> Incident {
    let orders = name("10.0.0.11", "orders");
    Incident {
        id: IncidentId(3),
        severity: Severity::Critical,
        opened_at: before(95_000),
        evident_at: before(94_700),
        detected_at: before(94_200),
        closed_at: None,
        merged_into: None,
        upstream: UpstreamId(0),
        clients: vec![orders.clone(), name("10.0.0.12", "billing")],
        causes: vec![
            RankedCause {
                cause: Cause::ServerCrash,
                confidence: 0.94,
                evidence: vec![
                    evidence(
                        Some(95_000),
                        "the server's side ended every connection of every instance within 0.1 s, without an \
                         announcement",
                        Some(111),
                    ),
                    evidence(Some(94_900), "dials are refused since", Some(38)),
                ],
                against: Vec::new(),
            },
            RankedCause {
                cause: Cause::NetworkReset,
                confidence: 0.21,
                evidence: vec![evidence(
                    Some(95_000),
                    "connections with unread requests were reset",
                    Some(9),
                )],
                against: vec![evidence(
                    Some(94_900),
                    "dials are refused by the server's host: the network carries packets",
                    Some(38),
                )],
            },
            RankedCause {
                cause: Cause::ServerShutdown,
                confidence: 0.08,
                evidence: Vec::new(),
                against: vec![evidence(None, "no reply announced a shutdown", None)],
            },
        ],
        aggravations: vec![RankedCause {
            cause: Cause::ReconnectStorm,
            confidence: 0.8,
            evidence: vec![evidence(
                Some(93_000),
                "billing@10.0.0.12 opens 40 connections a second; 2 a minute are usual",
                Some(120),
            )],
            against: Vec::new(),
        }],
        summary: "mongo-0 died without a word at 21:24:53: 111 connections of 2 clients ended within 0.1 s, \
                  9 with requests unanswered, and dials are refused since"
            .to_owned(),
        timeline: vec![
            moment(95_000, "the server's side ended 111 connections within 0.1 s"),
            moment(94_900, "first dial refused"),
            moment(93_000, "billing@10.0.0.12 begins to dial 40 times a second"),
        ],
        advice: vec![
            Advice {
                text: "See why the process ended: killed for memory, or a crash.".to_owned(),
                place: Some(Place::Shell),
                command: Some("journalctl -k --since 21:24 | grep -i -E 'oom|mongod'".to_owned()),
            },
            Advice {
                text: "Let the driver move on sooner than after 30 s.".to_owned(),
                place: Some(Place::ConnectionString),
                command: Some("serverSelectionTimeoutMS=5000".to_owned()),
            },
            Advice {
                text: "Restart orders if it does not reconnect within a minute.".to_owned(),
                place: None,
                command: None,
            },
        ],
        logged: vec![Logged {
            message: "Pool was force destroyed".to_owned(),
            client: orders,
            wire_at: before(95_000),
            from: before(94_500),
            until: Some(before(85_000)),
            failed: Failures::About(79),
            basis: "requests unanswered when the connections were lost".to_owned(),
            hanging: 72,
            hanging_commands: {
                let mut commands = Commands::default();
                commands.add(Command::Find, 60);
                commands.add(Command::Update, 12);
                commands
            },
            trigger: "crash of the primary".to_owned(),
        }],
    }
}

/// Names and facts that try to break lines, tables and terminals.
fn hostile() -> Incident {
    let evil = "b\u{1b}[31m\nad\u{202e}\t\"";
    Incident {
        id: IncidentId(2),
        severity: Severity::Warning,
        opened_at: before(200_000),
        evident_at: before(200_000),
        detected_at: before(199_000),
        closed_at: Some(before(120_000)),
        merged_into: None,
        upstream: UpstreamId(1),
        clients: (0..40)
            .map(|n| {
                name(
                    &format!("2001:db8::{n}"),
                    &format!("{evil}{}", "x".repeat(90)),
                )
            })
            .collect(),
        causes: vec![RankedCause {
            cause: Cause::AuthFailures,
            confidence: 0.987_654,
            evidence: vec![evidence(
                None,
                &format!("{evil} is refused"),
                Some(u64::MAX),
            )],
            against: Vec::new(),
        }],
        aggravations: Vec::new(),
        summary: format!("the credentials of {evil} are refused\r\nINFO forged"),
        timeline: vec![moment(200_000, evil)],
        advice: vec![Advice {
            text: evil.to_owned(),
            place: Some(Place::Shell),
            command: Some(format!("echo {evil}")),
        }],
        logged: Vec::new(),
    }
}

fn deploy() -> Incident {
    Incident {
        id: IncidentId(1),
        severity: Severity::Info,
        opened_at: before(7_200_000),
        evident_at: before(7_190_000),
        detected_at: before(7_189_000),
        closed_at: Some(before(7_100_000)),
        merged_into: None,
        upstream: UpstreamId(0),
        clients: vec![name("10.0.0.21", "web"), name("10.0.0.22", "web")],
        causes: vec![RankedCause {
            cause: Cause::Deploy,
            confidence: 0.9,
            evidence: vec![evidence(
                Some(7_200_000),
                "each instance said goodbye before it closed its connections",
                Some(2),
            )],
            against: Vec::new(),
        }],
        aggravations: Vec::new(),
        summary: "2 instances of web were replaced one after the other, each saying goodbye"
            .to_owned(),
        timeline: vec![moment(7_200_000, "web@10.0.0.21 said goodbye")],
        advice: Vec::new(),
        logged: Vec::new(),
    }
}

/// Two mongo clients of `orders`, one of them closed.
pub(crate) fn picture() -> PoolPicture {
    let key = ClientKey {
        upstream: UpstreamId(0),
        address: [10, 0, 0, 11].into(),
        app: "orders".into(),
    };
    let mut pool = Pool::default();
    pool.open = (10..30).map(ConnectionId).collect();
    pool.peak = 25;
    pool.active = 12;
    pool.created = 40;
    pool.ready_at = Some(before(7_000_000));
    pool.ready = 39;
    for (basis, count) in [
        (CloseBasis::Unused, 2),
        (CloseBasis::Outdated, 8),
        (CloseBasis::NeverReady, 1),
        (CloseBasis::InUse, 8),
        (CloseBasis::SaidGoodbye, 1),
    ] {
        pool.closed.add(basis, count);
    }
    pool.operations = 8000;
    pool.clears = vec![Clear {
        at: before(95_000),
        newest: before(95_000),
        ready_at: Some(before(90_000)),
        ready_sign: ReadySign::Check,
        given_up_at: None,
        sign: ClearSign::MonitorLost,
        closed: 17,
    }];
    pool.max_size = Some(Inferred {
        value: 25,
        confidence: 0.8,
        basis: Basis::Saturated(Duration::from_secs(48)),
    });
    pool.used = 38;
    pool.ready_sign = ReadySign::Check;
    pool.rested(Duration::from_millis(3), 1);
    let row = |id, closed_at, pool| MongoClientRow {
        key: key.clone(),
        id: MongoClientId(id),
        created_at: before(7_000_000),
        closed_at,
        joined: Joined::Sessions,
        confidence: 0.98,
        standing: Standing {
            is_alone: closed_at.is_none(),
            has_sessions: true,
            is_watched: true,
            began_watching: true,
            farewell: closed_at.map(|_| Farewell::SaidGoodbye),
        },
        monitors: 2,
        monitors_proven: 1,
        pool,
    };
    PoolPicture {
        at: AT,
        mongo_clients: vec![
            row(1, Some(before(10_000)), Pool::default()),
            row(2, None, pool),
        ],
        ..PoolPicture::default()
    }
}
