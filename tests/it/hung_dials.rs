//! Clients that lose patience while their server is still dialled.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::raw::{hello, op_msg};
use crate::support::{Poolscope, Port, epoch_seconds, eventually, eventually_equal};

const LIMIT: Duration = Duration::from_secs(20);

/// The clock of the proxy is set when it starts, and this one goes on being corrected.
const CLOCKS_APART: f64 = 0.05;

/// A listener with room for one connection, which is taken: SYNs of all others are dropped until that is accepted, and
/// are sent again after a second.
fn full(port: &Port) -> (TcpListener, TcpStream) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&port.addr().into()).unwrap();
    socket.listen(0).unwrap();
    let filler = TcpStream::connect(port.addr()).unwrap();
    (socket.into(), filler)
}

/// The value of this fact in a journal.
fn told(journal: &Path, fact: &str) -> Result<Value, String> {
    let text = fs::read_to_string(journal).map_err(|error| error.to_string())?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut lines = lines.filter(|line: &Value| line[fact].is_object() || line[fact].is_u64());
    lines.next().ok_or_else(|| format!("no {fact} in {text}"))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are enough")]
fn seconds(nanos: &Value) -> Option<f64> {
    nanos.as_u64().map(|nanos| nanos as f64 / 1e9)
}

#[test]
fn a_client_that_leaves_while_its_dial_hangs_is_served_and_it_is_told_when_it_left() {
    let port = Port::reserve();
    let (listener, _filler) = full(&port);
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let path = ["--journal.path", journal.to_str().unwrap()];
    let proxy = Poolscope::start_with(&[port.addr()], &path);

    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let said = op_msg(1, 0, &hello("hello", b"orders", b"nodejs").bytes());
    client.write_all(&said).unwrap();
    eventually_equal(LIMIT, &1.0, || {
        proxy.sum("poolscope_upstream_connections", &[])
    });
    let before = epoch_seconds();
    client.shutdown(Shutdown::Write).unwrap();

    // All that it said arrives, its farewell last, and it is answered.
    let (_filled, _) = listener.accept().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, said);
    server.write_all(b"the answer").unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"the answer");

    let ended = eventually(LIMIT, || told(&journal, "ended"));
    let dialled_at = seconds(&told(&journal, "dialled").unwrap()["at"]).unwrap();
    let left_at = seconds(&ended["ended"]["left_at"]);
    let left_at = left_at.unwrap_or_else(|| panic!("not told in {ended}"));
    assert!(left_at >= before - CLOCKS_APART, "{left_at} {before}");
    assert!(left_at < dialled_at, "{left_at} {dialled_at}");
    assert!(seconds(&ended["at"]) >= Some(dialled_at), "{ended}");
    assert_eq!(ended["ended"]["initiator"], "client");
    assert_eq!(ended["ended"]["phase"], "handshaking");
}

#[test]
fn a_client_that_stays_while_its_dial_hangs_left_at_no_other_moment() {
    let port = Port::reserve();
    let (listener, _filler) = full(&port);
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let path = ["--journal.path", journal.to_str().unwrap()];
    let proxy = Poolscope::start_with(&[port.addr()], &path);
    let client = TcpStream::connect(proxy.addr()).unwrap();
    let (_filled, _) = listener.accept().unwrap();
    let (_server, _) = listener.accept().unwrap();
    eventually(LIMIT, || told(&journal, "dialled"));
    drop(client);
    let ended = eventually(LIMIT, || told(&journal, "ended"));
    assert_eq!(ended["ended"]["left_at"], Value::Null);
    assert_eq!(ended["ended"]["initiator"], "client");
}
