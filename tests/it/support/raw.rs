//! Messages made byte by byte, for what no driver sends, and a server that answers hellos of any kind.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `OP_MSG`, <https://github.com/mongodb/specifications/blob/master/source/message/OP_MSG.md>.
pub(crate) const OP_MSG: i32 = 2013;
/// `OP_QUERY`, with which old drivers shake hands.
pub(crate) const OP_QUERY: i32 = 2004;
const OP_REPLY: i32 = 1;
const OP_COMPRESSED: i32 = 2012;

/// A document whose texts may be any bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document(Vec<u8>);

impl Document {
    fn element(mut self, kind: u8, name: &str) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn int(self, name: &str, value: i32) -> Self {
        self.element(0x10, name).and(&value.to_le_bytes())
    }

    pub(crate) fn text(self, name: &str, value: &[u8]) -> Self {
        self.element(0x02, name)
            .and(&len(value.len() + 1))
            .and(value)
            .and(&[0])
    }

    pub(crate) fn binary(self, name: &str, value: &[u8]) -> Self {
        self.element(0x05, name)
            .and(&len(value.len()))
            .and(&[0])
            .and(value)
    }

    pub(crate) fn document(self, name: &str, value: &Self) -> Self {
        self.element(0x03, name).and(&value.bytes())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = len(4 + self.0.len() + 1).to_vec();
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        bytes
    }
}

/// A hello that names the application and the driver.
pub(crate) fn hello(command: &str, app: &[u8], driver: &[u8]) -> Document {
    let driver = Document::default()
        .text("name", driver)
        .text("version", b"1");
    let client = Document::default()
        .document("application", &Document::default().text("name", app))
        .document("driver", &driver)
        .document("os", &Document::default().text("type", b"Linux"));
    Document::default()
        .int(command, 1)
        .document("client", &client)
}

/// An `OP_MSG` with one section of kind 0.
pub(crate) fn op_msg(request_id: i32, response_to: i32, document: &[u8]) -> Vec<u8> {
    message(request_id, response_to, OP_MSG, &op_msg_body(document))
}

/// What comes after the header of an `OP_MSG`.
pub(crate) fn op_msg_body(document: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 5];
    body.extend_from_slice(document);
    body
}

/// An `OP_QUERY` for `admin.$cmd`.
pub(crate) fn op_query(request_id: i32, document: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(b"admin.$cmd\0");
    body.extend_from_slice(&0_i32.to_le_bytes());
    body.extend_from_slice(&(-1_i32).to_le_bytes());
    body.extend_from_slice(document);
    message(request_id, 0, OP_QUERY, &body)
}

/// An `OP_COMPRESSED` that was an `OP_MSG`; `stated_len` is what it says of its size before compression.
pub(crate) fn op_compressed(
    request_id: i32,
    response_to: i32,
    compressor: u8,
    stated_len: i32,
    compressed: &[u8],
) -> Vec<u8> {
    let mut body = OP_MSG.to_le_bytes().to_vec();
    body.extend_from_slice(&stated_len.to_le_bytes());
    body.push(compressor);
    body.extend_from_slice(compressed);
    message(request_id, response_to, OP_COMPRESSED, &body)
}

fn message(request_id: i32, response_to: i32, opcode: i32, body: &[u8]) -> Vec<u8> {
    let mut message = len(16 + body.len()).to_vec();
    for field in [request_id, response_to, opcode] {
        message.extend_from_slice(&field.to_le_bytes());
    }
    message.extend_from_slice(body);
    message
}

fn len(len: usize) -> [u8; 4] {
    i32::try_from(len).unwrap().to_le_bytes()
}

/// The length that the header at the beginning of `bytes` states.
pub(crate) fn stated_len(bytes: &[u8]) -> usize {
    usize::try_from(i32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap()
}

/// A server that answers every message as a standalone mongod answers a hello, whatever the message says.
#[derive(Debug)]
pub(crate) struct Answering {
    addr: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Answering {
    /// Listens on a port that the kernel chooses; nobody has to know it before.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The peer may leave in any way it likes.
                tokio::spawn(async move { drop(answer(stream).await) });
            }
        });
        Self {
            addr,
            _runtime: runtime,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let reply = Document::default()
        .int("maxWireVersion", 17)
        .int("minWireVersion", 0)
        .int("connectionId", 7)
        .element(0x08, "isWritablePrimary")
        .and(&[1])
        .element(0x01, "ok")
        .and(&1.0_f64.to_le_bytes())
        .bytes();
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header).await?;
        let mut body = vec![0; stated_len(&header) - 16];
        stream.read_exact(&mut body).await?;
        let field = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let answer = if field(12) == OP_QUERY {
            // Flags, cursor id, starting from, number returned.
            let mut body = vec![0; 16];
            body.extend_from_slice(&1_i32.to_le_bytes());
            body.extend_from_slice(&reply);
            message(1, field(4), OP_REPLY, &body)
        } else {
            op_msg(1, field(4), &reply)
        };
        stream.write_all(&answer).await?;
    }
}
