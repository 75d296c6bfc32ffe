//! Commands over `OP_MSG`, so that tests can ask a server without a driver.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bson::Document;

/// `OP_MSG`, <https://github.com/mongodb/specifications/blob/master/source/message/OP_MSG.md>.
const OP_MSG: i32 = 2013;

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    request_id: i32,
}

impl Connection {
    /// Connects; neither that nor any answer may take longer than half a minute.
    pub(crate) fn open(addr: SocketAddr) -> io::Result<Self> {
        let limit = Duration::from_secs(30);
        let stream = TcpStream::connect_timeout(&addr, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request_id: 0,
        })
    }

    /// Runs a command and returns the reply, whether `ok` or not.
    pub(crate) fn command(
        &mut self,
        database: &str,
        mut command: Document,
    ) -> io::Result<Document> {
        command.insert("$db", database);
        let body = command.to_vec().map_err(io::Error::other)?;
        self.request_id += 1;

        // Header (length, request id, response to, opcode), flags, a section of kind 0.
        let length = i32::try_from(16 + 4 + 1 + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::new();
        for field in [length, self.request_id, 0, OP_MSG, 0] {
            message.extend_from_slice(&field.to_le_bytes());
        }
        message.push(0);
        message.extend_from_slice(&body);
        self.stream.write_all(&message)?;

        let mut head = [0; 21];
        self.stream.read_exact(&mut head)?;
        let field = |at: usize| i32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        if field(8) != self.request_id || field(12) != OP_MSG || head[20] != 0 {
            return Err(io::Error::other(format!("unexpected reply: {head:?}")));
        }
        let mut body = vec![0; usize::try_from(field(0)).map_err(io::Error::other)? - head.len()];
        self.stream.read_exact(&mut body)?;
        Document::from_reader(body.as_slice()).map_err(io::Error::other)
    }
}
