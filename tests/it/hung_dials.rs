//! Clients that lose patience while their server is still dialled.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::raw::{hello, op_msg};
use crate::support::{Poolscope, Port, epoch_seconds, eventually, eventually_equal};

const LIMIT: Duration = Duration::from_secs(20);

/// The clock of the proxy is set when it starts, and this one goes on being corrected.
const CLOCKS_APART: f64 = 0.05;

/// A proxy that keeps a journal, before a server with room for one connection, which is taken.
struct Rig {
    proxy: Poolscope,
    listener: TcpListener,
    _filler: TcpStream,
    _port: Port,
    directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let port = Port::reserve();
        let (listener, filler) = port.listen_full();
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal");
        let path = ["--journal.path", journal.to_str().unwrap()];
        Self {
            proxy: Poolscope::start_with(&[port.addr()], &path),
            listener,
            _filler: filler,
            _port: port,
            directory,
        }
    }

    /// Makes room: the server's side of the connection that was dialled meanwhile.
    fn accept(&self) -> TcpStream {
        let (_filled, _) = self.listener.accept().unwrap();
        let (server, _) = self.listener.accept().unwrap();
        server
    }

    /// The value of this fact in the journal.
    fn told(&self, fact: &str) -> Result<Value, String> {
        let journal = self.directory.path().join("journal");
        let text = fs::read_to_string(journal).map_err(|error| error.to_string())?;
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut lines = lines.filter(|line: &Value| line[fact].is_object() || line[fact].is_u64());
        lines.next().ok_or_else(|| format!("no {fact} in {text}"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are enough")]
fn seconds(nanos: &Value) -> Option<f64> {
    nanos.as_u64().map(|nanos| nanos as f64 / 1e9)
}

#[test]
fn a_client_that_leaves_while_its_dial_hangs_is_served_and_it_is_told_when_it_left() {
    let rig = Rig::new();
    let mut client = TcpStream::connect(rig.proxy.addr()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let said = op_msg(1, 0, &hello("hello", b"orders", b"nodejs").bytes());
    client.write_all(&said).unwrap();
    eventually_equal(LIMIT, &1.0, || {
        rig.proxy.sum("poolscope_upstream_connections", &[])
    });
    let before = epoch_seconds();
    client.shutdown(Shutdown::Write).unwrap();

    // All that it said arrives, its farewell last, and it is answered.
    let mut server = rig.accept();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, said);
    server.write_all(b"the answer").unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"the answer");

    let ended = eventually(LIMIT, || rig.told("ended"));
    let dialled_at = seconds(&rig.told("dialled").unwrap()["at"]).unwrap();
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
    let rig = Rig::new();
    let client = TcpStream::connect(rig.proxy.addr()).unwrap();
    let _server = rig.accept();
    eventually(LIMIT, || rig.told("dialled"));
    drop(client);
    let ended = eventually(LIMIT, || rig.told("ended"));
    assert_eq!(ended["ended"]["left_at"], Value::Null);
    assert_eq!(ended["ended"]["initiator"], "client");
}
