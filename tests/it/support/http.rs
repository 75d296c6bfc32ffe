//! An HTTP GET over a plain socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Header lines as they came, without the status line.
    pub(crate) headers: String,
    /// The body.
    pub(crate) body: String,
}

/// Asks for `path`. HTTP/1.0, so that the body simply ends with the connection.
pub(crate) fn get(addr: SocketAddr, path: &str) -> io::Result<Response> {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&addr, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;

    let unexpected = || io::Error::other(format!("no HTTP answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(unexpected)?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.ok_or_else(unexpected)?,
        headers: headers.into(),
        body: body.into(),
    })
}
