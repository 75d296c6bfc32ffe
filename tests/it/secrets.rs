//! What nobody may learn from the proxy: passwords, payloads of authentication, values of documents.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use serde_json::json;

use crate::support::{
    Agent, Connection, Driver, Mongod, MongodOptions, Poolscope, eventually_equal,
};

const LIMIT: Duration = Duration::from_secs(20);

/// The one secret of this test, in whatever role. No part of a longer word, and no character to be escaped.
const SECRET: &str = "Tr0ub4dor-xyzzy-Wachtmeister";

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 of `bytes` without padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | usize::from(group.get(at).copied().unwrap_or(0))
        });
        for digit in 0..=group.len() {
            text.push(char::from(BASE64[bits >> (18 - 6 * digit) & 63]));
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// How the secret would look when it leaks, by the name of the form.
fn forms() -> Vec<(String, String)> {
    let bytes = SECRET.as_bytes();
    let mut forms = vec![("plain".to_owned(), SECRET.to_owned())];
    // Something may stand before it, and where that ends decides which digits it becomes; those at both ends
    // depend on its neighbours.
    for before in 0..3 {
        let digits = base64(&[&vec![0; before][..], bytes].concat());
        let inner = digits[(before * 8).div_ceil(6)..digits.len() - 1].to_owned();
        forms.push((
            format!("base64 after {before}"),
            inner.replace('+', "-").replace('/', "_"),
        ));
        forms.push((format!("base64 after {before}"), inner));
    }
    let hex = hex(bytes);
    forms.push(("hex, upper case".to_owned(), hex.to_uppercase()));
    forms.push(("hex".to_owned(), hex));
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    forms.push(("numbers".to_owned(), numbers.join(", ")));
    // Half of it is too much as well.
    forms.push(("its beginning".to_owned(), SECRET[..12].to_owned()));
    forms.push(("its end".to_owned(), SECRET[SECRET.len() - 12..].to_owned()));
    forms
}

#[track_caller]
fn check_silent(place: &str, text: &str) {
    for (name, form) in forms() {
        if let Some(at) = text.find(&form) {
            let from = text.floor_char_boundary(at.saturating_sub(300));
            panic!(
                "{place} tells the secret ({name}): …{}",
                &text[from..at + form.len()]
            );
        }
    }
}

/// Everything that the proxy says.
#[track_caller]
fn check_everything(proxy: &Poolscope) {
    for path in [
        "/metrics",
        "/",
        "/api/v1/clients",
        "/api/v1/connections",
        "/api/v1/upstreams",
        "/api/v1/status",
        "/-/ready",
        "/-/healthy",
    ] {
        let response = proxy.get(path);
        assert_eq!(response.status, 200, "{path}");
        check_silent(path, &response.body);
        check_silent(path, &response.headers);
    }
    for command in ["clients", "connections", "upstreams", "status"] {
        check_silent(command, &proxy.show(&[command]));
    }
    check_silent("the log", &proxy.log().join("\n"));
}

#[test]
fn the_search_finds_every_form_of_the_secret() {
    let payload = format!("\0user\0{SECRET}");
    for leak in [
        format!("payload={payload:?}"),
        base64(payload.as_bytes()),
        base64(format!("x{payload}").as_bytes()),
        base64(format!("xy{payload}").as_bytes()),
        format!("{:?}", payload.as_bytes()),
        hex(payload.as_bytes()),
        hex(payload.as_bytes()).to_uppercase(),
    ] {
        assert!(
            std::panic::catch_unwind(|| check_silent("here", &leak)).is_err(),
            "{leak}"
        );
    }
}

fn payload(bytes: impl Into<Vec<u8>>) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.into(),
    })
}

fn sasl_start(mechanism: &str, bytes: impl Into<Vec<u8>>) -> Document {
    doc! { "saslStart": 1, "mechanism": mechanism, "payload": payload(bytes), "autoAuthorize": 1 }
}

/// Every way in which a secret travels to a server, and what the server says to it: some of the answers repeat it.
#[expect(clippy::too_many_lines, reason = "a list, to be read as one")]
fn commands() -> Vec<(&'static str, Document)> {
    let jwt = doc! { "jwt": SECRET }.to_vec().unwrap();
    let aws = doc! { "a": format!("AWS4-HMAC-SHA256 Credential={SECRET}"), "d": "20260101T000000Z", "t": SECRET };
    let speculative = |mut command: Document| {
        command.insert("db", "$external");
        doc! { "hello": 1, "speculativeAuthenticate": command }
    };
    vec![
        (
            "$external",
            sasl_start("PLAIN", format!("\0user\0{SECRET}")),
        ),
        (
            "admin",
            doc! { "saslStart": 1, "mechanism": "PLAIN", "payload": base64(format!("\0user\0{SECRET}").as_bytes()) },
        ),
        (
            "admin",
            speculative(sasl_start("PLAIN", format!("\0user\0{SECRET}"))),
        ),
        (
            "$external",
            sasl_start("MONGODB-AWS", aws.to_vec().unwrap()),
        ),
        (
            "$external",
            speculative(sasl_start("MONGODB-AWS", aws.to_vec().unwrap())),
        ),
        ("$external", sasl_start("MONGODB-OIDC", jwt.clone())),
        ("$external", speculative(sasl_start("MONGODB-OIDC", jwt))),
        ("$external", sasl_start("GSSAPI", SECRET)),
        ("admin", sasl_start(SECRET, SECRET)),
        // The client's proof, and a first message that claims to be one and carries something else.
        (
            "admin",
            sasl_start("SCRAM-SHA-256", "n,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL"),
        ),
        (
            "admin",
            doc! { "saslContinue": 1, "conversationId": 1, "payload": payload(format!("c=biws,r=fyko,p={SECRET}")) },
        ),
        (
            "admin",
            sasl_start("SCRAM-SHA-1", format!("\0alice\0{SECRET}")),
        ),
        (
            "$external",
            doc! { "authenticate": 1, "mechanism": "MONGODB-X509", "user": "CN=client", "key": SECRET },
        ),
        (
            "admin",
            doc! { "authenticate": 1, "user": "alice", "nonce": "2375531c32080ae8", "key": SECRET },
        ),
        (
            "admin",
            doc! { "createUser": "alice", "pwd": SECRET, "roles": [], "mechanisms": ["SCRAM-SHA-1", "SCRAM-SHA-256"] },
        ),
        (
            "admin",
            doc! { "createUser": "bob", "pwd": SECRET, "roles": SECRET },
        ),
        ("admin", doc! { "updateUser": "alice", "pwd": SECRET }),
        ("admin", doc! { "updateUser": "nobody", "pwd": SECRET }),
        (
            "shop",
            doc! { "insert": "cards", "documents": [{ "_id": SECRET, "number": SECRET, SECRET: 1 }] },
        ),
        // A duplicate key: the error message repeats the value, and so do the next ones.
        (
            "shop",
            doc! { "insert": "cards", "documents": [{ "_id": SECRET }] },
        ),
        (
            "shop",
            doc! { "find": "cards", "filter": { "number": SECRET } },
        ),
        (
            "shop",
            doc! { "find": "cards", "filter": { "number": { format!("${SECRET}"): 1 } } },
        ),
        ("shop", doc! { "find": "cards", "filter": {}, SECRET: 1 }),
        (
            "shop",
            doc! { "update": "cards", "updates": [{ "q": { "_id": SECRET }, "u": { format!("${SECRET}"): 1 } }] },
        ),
        (
            "shop",
            doc! { "aggregate": "cards", "pipeline": [{ format!("${SECRET}"): {} }], "cursor": {} },
        ),
        (
            "shop",
            doc! { "aggregate": "cards", "pipeline": [{ "$match": { "number": SECRET } }], "cursor": {}, "comment": SECRET },
        ),
        ("shop", doc! { "find": SECRET }),
        ("shop", doc! { SECRET: 1 }),
        (SECRET, doc! { "ping": 1 }),
        ("shop", doc! { "ping": 1, "lsid": { "id": SECRET } }),
        (
            "admin",
            doc! { "failCommand": SECRET, "configureFailPoint": SECRET },
        ),
        // A server error whose code name and labels come from the client.
        (
            "admin",
            doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": {
            "failCommands": ["count"], "errorCode": 12345, "errorLabels": [SECRET], "appName": "secretive" } },
        ),
        ("shop", doc! { "count": "cards" }),
    ]
}

/// A client that names itself, so that its rows are there to be searched.
fn introduced(proxy: &Poolscope) -> Connection {
    let mut connection = Connection::open(proxy.addr()).unwrap();
    let hello = doc! { "hello": 1, "saslSupportedMechs": "admin.alice", "client": {
        "application": { "name": "secretive" },
        "driver": { "name": "raw", "version": "1" },
        "os": { "type": "Linux" },
    } };
    connection.command("admin", hello).unwrap();
    connection
}

fn check_commands(format: &str) {
    let mongod = Mongod::standalone();
    let proxy = Poolscope::start_with(
        &[mongod.addr()],
        &["--log.level", "trace", "--log.format", format],
    );
    let mut kept = Vec::new();
    let mut echoes = 0;
    for (database, command) in commands() {
        // Each on a connection of its own, since a failed authentication may end one; all stay open for a while.
        let mut connection = introduced(&proxy);
        if let Ok(reply) = connection.command(database, command.clone()) {
            echoes += usize::from(reply.to_string().contains(SECRET));
        }
        kept.push(connection);
    }
    assert!(echoes >= 5, "only {echoes} answers repeated the secret");
    assert!(proxy.sum("poolscope_requests_total", &[("app", "secretive")]) > 50.0);
    assert!(proxy.sum("poolscope_authentications_total", &[("mechanism", "PLAIN")]) > 0.0);
    assert!(proxy.sum("poolscope_command_errors_total", &[]) > 5.0);
    check_everything(&proxy);

    // What is no message at all is not quoted either. The server closes such connections at once.
    for (count, bytes) in &[
        (1.0, format!("AUTH {SECRET}\r\n")),
        (2.0, format!("GET /?password={SECRET} HTTP/1.1\r\n\r\n")),
    ] {
        let mut stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        eventually_equal(LIMIT, count, || {
            proxy.sum("poolscope_opaque_connections_total", &[])
        });
        check_everything(&proxy);
    }
    drop(kept);
    eventually_equal(LIMIT, &0.0, || {
        proxy.sum("poolscope_upstream_connections", &[])
    });
    check_everything(&proxy);
    assert!(
        proxy
            .log()
            .iter()
            .any(|line| line.contains("connection ended")),
        "trace is on"
    );
}

#[test]
fn no_secret_of_a_command_shows_anywhere() {
    check_commands("human");
}

#[test]
fn no_secret_of_a_command_shows_in_json_either() {
    check_commands("json");
}

#[test]
fn no_password_of_a_driver_shows_anywhere() {
    let mongod = Mongod::start(MongodOptions {
        auth: true,
        args: vec![
            "--setParameter".into(),
            "authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256,PLAIN,MONGODB-X509".into(),
        ],
        ..MongodOptions::default()
    });
    let proxy = Poolscope::start_with(&[mongod.addr()], &["--log.level", "trace"]);
    let mut admin = Agent::spawn(Driver::PyMongo4);
    admin.open("admin", &mongod.uri());
    let create = json!({ "createUser": "alice", "pwd": SECRET, "roles": ["readWriteAnyDatabase"] });
    admin.run(
        "admin",
        "command",
        1,
        &json!({ "command": create, "on": "admin" }),
    );

    let uri = |mechanism: &str, password: &str| {
        let addr = proxy.addr();
        format!(
            "mongodb://alice:{password}@{addr}/?directConnection=true&appName=secretive&authMechanism={mechanism}&authSource=admin&serverSelectionTimeoutMS=5000"
        )
    };
    for driver in [Driver::PyMongo4, Driver::Node6, Driver::Rust] {
        let mut agent = Agent::spawn(driver);
        for mechanism in ["SCRAM-SHA-1", "SCRAM-SHA-256"] {
            agent.open(mechanism, &uri(mechanism, SECRET));
            agent.run(
                mechanism,
                "insert",
                3,
                &json!({ "prefix": format!("{SECRET}-{driver:?}-{mechanism}") }),
            );
            agent.run(mechanism, "find", 3, &json!({}));
        }
        check_everything(&proxy);
        // The right password of the wrong kind, and the wrong one.
        for (name, mechanism, password) in [
            ("wrong", "SCRAM-SHA-256", format!("{SECRET}!")),
            ("plain", "PLAIN", SECRET.to_owned()),
        ] {
            let uri = uri(mechanism, &password).replace(
                "authSource=admin",
                if name == "plain" {
                    "authSource=$external"
                } else {
                    "authSource=admin"
                },
            );
            // Some drivers connect when they are made, others with the first operation.
            let open = agent.submit(json!({ "do": "open", "name": name, "uri": uri }));
            if agent.answer(open)["ok"] == true {
                let id = agent
                    .submit(json!({ "do": "run", "name": name, "operation": "ping", "count": 1 }));
                assert_ne!(
                    agent.answer(id)["done"],
                    json!(1),
                    "{driver:?} got in by {name}"
                );
            }
        }
        check_everything(&proxy);
    }
    for (mechanism, result) in [
        ("SCRAM-SHA-1", "ok"),
        ("SCRAM-SHA-256", "ok"),
        ("SCRAM-SHA-256", "failed"),
        ("PLAIN", "failed"),
    ] {
        let labels = [("mechanism", mechanism), ("result", result)];
        let count = proxy.sum("poolscope_authentications_total", &labels);
        assert!(count > 0.0, "{mechanism} {result}");
    }
    eventually_equal(LIMIT, &0.0, || {
        proxy.sum("poolscope_upstream_connections", &[])
    });
    check_everything(&proxy);
}
