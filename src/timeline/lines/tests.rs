use std::time::Duration;

use super::*;
use crate::connection::{Ending, ErrorKind, Initiator, Manner, Phase};
use crate::time::Timestamp;
use crate::timeline::{
    ConnectionId, Ended, ErrorReply, Fact, Opened, Sample, SessionId, UpstreamId,
};
use crate::wire::Command;

fn check(fact: Fact, written: &str) {
    let entry = Entry {
        at: Timestamp::from_nanos(1_795_469_188_123_456_789),
        connection: ConnectionId(17),
        fact,
    };
    let line = write_line(&entry);
    assert_eq!(
        line,
        format!("{{\"at\":1795469188123456789,\"conn\":17,{written}}}\n")
    );
    assert_eq!(read_entry(2, &line).unwrap(), entry);
}

#[test]
fn what_is_written_is_read_back() {
    let opened = Opened {
        upstream: UpstreamId(0),
        peer: "10.0.1.9:40122".parse().unwrap(),
    };
    check(
        Fact::Opened(opened),
        r#""opened":{"upstream":0,"peer":"10.0.1.9:40122"}"#,
    );
    check(
        Fact::Dialled(Duration::from_millis(1)),
        r#""dialled":1000000"#,
    );
    check(
        Fact::SessionsEnded(vec![SessionId([0xab; 16])]),
        r#""sessions_ended":["abababab-abab-abab-abab-abababababab"]"#,
    );
    check(Fact::TransactionEnded, r#""transaction_ended":null"#);
    check(
        Fact::Failed(ErrorReply {
            kind: ErrorKind::Command,
            command: Command::Find,
            code: 11600,
            count: 2,
        }),
        r#""failed":{"kind":"command","command":"find","code":11600,"count":2}"#,
    );
    check(
        Fact::Ended(Box::new(Ended {
            ending: Ending {
                initiator: Initiator::Server,
                manner: Manner::Reset,
                phase: Phase::InExchange,
                after_failed_authentication: false,
            },
            last: Sample {
                requests: 3,
                busy_since: Some(Timestamp::from_nanos(5)),
                ..Sample::default()
            },
            unanswered: [Command::Find, Command::Find].into_iter().collect(),
            left_at: Some(Timestamp::from_nanos(7)),
        })),
        concat!(
            r#""ended":{"initiator":"server","manner":"reset","phase":"in_exchange","#,
            r#""after_failed_authentication":false,"last":{"requests":3,"operations":0,"in_flight":0,"#,
            r#""busy_since":5,"busy":0,"from_client_at":0,"from_server_at":0,"request_id":0},"unanswered":{"find":2},"left_at":7}"#
        ),
    );
}

#[test]
fn a_header_says_what_follows() {
    let header = Header::new(vec![UpstreamName {
        name: "db".to_owned(),
        address: "10.0.0.5:27017".to_owned(),
    }]);
    assert_eq!(read_header(&write_line(&header)).unwrap(), header);
    let newer = r#"{"poolscope_journal":2,"upstreams":[]}"#;
    assert!(matches!(read_header(newer), Err(LineError::Version(2))));
    assert!(matches!(read_header("{}"), Err(LineError::Header(_))));
}
