//! What drivers and mongod said to each other, as recorded under `tests/fixtures/wire`, with the fields that differ
//! from connection to connection filled in.

use crate::messages::{HEADER, header};

/// How long a server lets a streaming monitor wait (`heartbeatFrequencyMS` by default).
pub const HEARTBEAT_MS: i32 = 10_000;

/// The server process that all replies are from.
const PROCESS: [u8; 12] = *b"fleet-member";

/// The requests of one driver.
pub struct Driver {
    /// Request ids are counted for the whole process, otherwise drawn.
    pub counts_requests: bool,
    /// The round-trip connection comes one heartbeat after the monitor, otherwise with it.
    pub measures_later: bool,
    pub pooled_hello: Vec<u8>,
    pub monitor_hello: Vec<u8>,
    pub streaming: Vec<u8>,
    pub round_trip_hello: Vec<u8>,
    pub find: Vec<u8>,
    pub end_sessions: Vec<u8>,
}

/// The replies of one server.
pub struct Replies {
    /// To a hello that came as `OP_QUERY`.
    pub hello_to_query: Vec<u8>,
    /// To one that came as `OP_MSG`.
    pub hello: Vec<u8>,
    /// To a streaming hello, again and again.
    pub streaming: Vec<u8>,
    pub find: Vec<u8>,
}

macro_rules! recorded {
    ($driver:literal, $what:literal) => {
        bytes(include_str!(concat!(
            "../../../../../tests/fixtures/wire/",
            $driver,
            "/",
            $what,
            ".hex"
        )))
    };
}

macro_rules! driver {
    ($name:literal, $counts:literal, $later:literal) => {
        Driver {
            counts_requests: $counts,
            measures_later: $later,
            pooled_hello: recorded!($name, "application.hello.request"),
            monitor_hello: recorded!($name, "monitor.hello.request"),
            streaming: streaming(recorded!($name, "monitor.streaming.request")),
            round_trip_hello: recorded!($name, "round_trip.hello.request"),
            find: recorded!($name, "application.find.request"),
            end_sessions: recorded!($name, "application.end_sessions.request"),
        }
    };
}

/// Drivers with monitors of their own.
pub fn drivers() -> Vec<Driver> {
    vec![
        driver!("node6-6.22.0", true, true),
        driver!("pymongo-4.20.0", false, false),
        driver!("rust-3.9.1", true, false),
        driver!("node4-4.17.2", true, true),
    ]
}

/// The recorded replies, all of one process.
pub fn replies() -> Replies {
    let mut replies = Replies {
        hello_to_query: recorded!("node6-6.22.0", "monitor.hello.reply"),
        hello: recorded!("pymongo-4.20.0", "monitor.hello.reply"),
        streaming: recorded!("pymongo-4.20.0", "monitor.streaming.next.reply"),
        find: recorded!("pymongo-4.20.0", "application.find.reply"),
    };
    for hello in [
        &mut replies.hello_to_query,
        &mut replies.hello,
        &mut replies.streaming,
    ] {
        put(hello, b"\x07processId\0", &PROCESS);
    }
    replies
}

/// The request, waiting as long as drivers let servers wait, on what the server above says.
fn streaming(mut request: Vec<u8>) -> Vec<u8> {
    // Four bytes or eight: the lower come first.
    put(
        &mut request,
        b"maxAwaitTimeMS\0",
        &HEARTBEAT_MS.to_le_bytes(),
    );
    put(&mut request, b"\x07processId\0", &PROCESS);
    request
}

/// The message with these ids; its other fields are as recorded.
pub fn with_ids(message: &[u8], request_id: i32, response_to: i32) -> Vec<u8> {
    let mut message = message.to_vec();
    // The opcode stays: handshakes may be OP_QUERY and OP_REPLY.
    let ids = header(message.len(), request_id, response_to);
    message[..HEADER - 4].copy_from_slice(&ids[..HEADER - 4]);
    message
}

/// The reply of the server to its connection of this number.
pub fn with_connection_id(mut reply: Vec<u8>, number: i32) -> Vec<u8> {
    put(&mut reply, b"\x10connectionId\0", &number.to_le_bytes());
    reply
}

/// The request with this logical session.
pub fn with_session(mut request: Vec<u8>, session: &[u8; 16]) -> Vec<u8> {
    // After the name: length and subtype of the binary value.
    put(&mut request, b"\x05id\0\x10\0\0\0\x04", session);
    request
}

/// The handshake of this application; its name is as long as the recorded one.
pub fn with_app(mut hello: Vec<u8>, number: usize) -> Vec<u8> {
    let name = format!("app-{:03}", number % 1000);
    put(
        &mut hello,
        b"application\0\x17\0\0\0\x02name\0\x08\0\0\0",
        name.as_bytes(),
    );
    hello
}

/// Overwrites the value of the field that begins so.
fn put(message: &mut [u8], field: &[u8], value: &[u8]) {
    let found = message.windows(field.len()).position(|part| part == field);
    let at = found.expect("recorded messages have it") + field.len();
    message[at..at + value.len()].copy_from_slice(value);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter_map(|digit| (digit as char).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Framer, command};

    #[test]
    fn recorded_messages_are_whole() {
        let replies = replies();
        let mut all = vec![
            replies.hello,
            replies.hello_to_query,
            replies.streaming,
            replies.find,
        ];
        for driver in drivers() {
            assert_eq!(command(&driver.find), Some(("find", Some("items"))));
            all.extend([
                driver.pooled_hello,
                driver.monitor_hello,
                driver.streaming,
                driver.round_trip_hello,
                driver.find,
                driver.end_sessions,
            ]);
        }
        for message in all {
            let mut framer = Framer::new();
            let header_len = framer.push(&message).unwrap();
            framer.push(&message[header_len..]).unwrap();
            assert!(framer.done() && framer.total() == message.len());
        }
    }

    #[test]
    fn fields_are_filled_in() {
        let find = with_session(drivers()[1].find.clone(), &[7; 16]);
        let find = with_ids(&find, 5, 0);
        assert!(find.windows(16).any(|part| part == [7; 16]));
        assert_eq!(find[4..8], 5_i32.to_le_bytes());
        assert_eq!(find[12..16], 2013_i32.to_le_bytes());
    }
}
