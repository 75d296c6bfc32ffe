//! Listens to the events of a running instance, and comes back when it was cut off.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Without a sign of life for so long the instance has gone; it gives one every ten seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest event that is read.
const EVENT_LEN_MAX: usize = 4 * 1024 * 1024;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// Shows every event until `show` says that nobody reads any more. The first connection must succeed; later ones
/// are tried again and again, with what was heard last.
pub(super) async fn follow(
    address: &str,
    mut show: impl FnMut(&Event) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut last_id = None;
    let mut body = attach(address, None).await?;
    loop {
        let mut parser = Parser::default();
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            let Some(bytes) = frame.data_ref() else {
                continue;
            };
            for event in parser.push(bytes)? {
                if event.id.is_some() {
                    last_id.clone_from(&event.id);
                }
                if !show(&event)? {
                    return Ok(());
                }
            }
        }
        loop {
            tokio::time::sleep(PAUSE).await;
            if let Ok(again) = attach(address, last_id.as_deref()).await {
                body = again;
                break;
            }
        }
    }
}

async fn attach(address: &str, last_id: Option<&str>) -> anyhow::Result<Incoming> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| anyhow!("no poolscope at {address}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(|| format!("{address} answers, but not as poolscope does"))?;
    tokio::spawn(connection);
    let mut request = Request::get("/api/v1/events").header(header::HOST, address);
    if let Some(last_id) = last_id {
        request = request.header("last-event-id", last_id);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let answer: Response<Incoming> = sender
        .send_request(request)
        .await
        .with_context(|| format!("{address} answers, but not as poolscope does"))?;
    if answer.status() != StatusCode::OK {
        bail!("{address} gives no events: it said {}", answer.status());
    }
    Ok(answer.into_body())
}

/// Takes events from bytes, wherever these were cut.
#[derive(Debug, Default)]
struct Parser {
    waiting: Vec<u8>,
    event: Event,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Event>> {
        self.waiting.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.waiting.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut self.event.name),
                Some(("id", id)) => self.event.id = Some(id.to_owned()),
                Some(("data", data)) => data.clone_into(&mut self.event.data),
                _ if line.is_empty() && !self.event.name.is_empty() => {
                    events.push(std::mem::take(&mut self.event));
                }
                // A comment, or a field of a later version.
                _ => {}
            }
        }
        if self.waiting.len() > EVENT_LEN_MAX {
            bail!("an event has more than {EVENT_LEN_MAX} bytes");
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_wherever_they_are_cut() {
        let text = b": hi\n\nevent: hello\ndata: {}\n\nevent: x\nid: 7-1\ndata: {\"a\": \"b: c\"}\n\n: bye\n\n";
        for len in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for chunk in text.chunks(len) {
                events.extend(parser.push(chunk).unwrap());
            }
            assert_eq!(events.len(), 2);
            assert_eq!((&*events[0].name, &*events[0].data), ("hello", "{}"));
            assert_eq!(events[1].id.as_deref(), Some("7-1"));
            assert_eq!(events[1].data, "{\"a\": \"b: c\"}");
        }
        assert!(
            Parser::default()
                .push(&vec![b'x'; EVENT_LEN_MAX + 1])
                .is_err()
        );
    }
}
