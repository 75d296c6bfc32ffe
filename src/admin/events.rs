//! News of incidents as server-sent events.
//!
//! ```text
//! publish ─▶ numbered, rendered once ─┬▶ the recent ones, for those who come back
//!                                     └▶ broadcast ─▶ one task a subscriber ─▶ body
//! ```
//!
//! Source of the format: HTML Living Standard § 9.2 Server-sent events.
//!
//! **Invariant:** a slow subscriber holds up nobody: what it is too late for is counted and told to it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::api;
use crate::metrics::Health;
use crate::time::Timestamp;

/// Subscribers at a time; half of the connections there may be, so that others still get an answer.
pub(super) const SUBSCRIBERS_MAX: usize = 64;
/// Events a subscriber may be behind, and that are kept for those who come back. One has a few kilobytes.
const RECENT_MAX: usize = 256;
/// Frames that wait for the connection of a subscriber.
const FRAMES_MAX: usize = 4;
/// Time between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was opened.
    Opened,
    /// More is known.
    Updated,
    /// It is over.
    Closed,
}

impl EventKind {
    /// The value of the field `event`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "incident_opened",
            Self::Updated => "incident_updated",
            Self::Closed => "incident_closed",
        }
    }
}

/// An event as it is sent.
#[derive(Debug)]
struct Event {
    number: u64,
    text: Bytes,
}

/// Everything that is published, for as many as want to hear.
#[derive(Debug)]
pub struct Events {
    /// Tells our numbers from those of an earlier process.
    epoch: u64,
    version: &'static str,
    recent: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
    places: Arc<Semaphore>,
    health: Arc<Health>,
}

impl Events {
    /// Nothing was published yet. `health` counts subscribers.
    pub fn new(version: &'static str, started_at: Timestamp, health: Arc<Health>) -> Self {
        Self {
            epoch: started_at.as_millis(),
            version,
            recent: Mutex::default(),
            sender: broadcast::channel(RECENT_MAX).0,
            places: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            health,
        }
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every subscriber.
    pub fn publish(&self, kind: EventKind, incident: &api::Incident) {
        // The row consists of texts and numbers; JSON has no line breaks of its own and escapes those of texts.
        let Ok(data) = serde_json::to_string(incident) else {
            return;
        };
        let mut recent = self.recent();
        let number = recent.back().map_or(1, |last| last.number + 1);
        let (epoch, name) = (self.epoch, kind.label());
        let text = format!("event: {name}\nid: {epoch}-{number}\ndata: {data}\n\n");
        let event = Arc::new(Event {
            number,
            text: text.into(),
        });
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&event));
        // Sent under the lock, so that whoever subscribes gets each event once. Nobody may be listening.
        drop(self.sender.send(event));
    }

    /// The stream for one more subscriber, who has heard everything up to `last_id`, or `None` when there is no
    /// place. It ends at `stop`.
    pub(super) fn subscribe(
        &self,
        last_id: Option<&str>,
        at: Timestamp,
        stop: CancellationToken,
    ) -> Option<Response> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let subscriber = Subscriber::new(Arc::clone(&self.health), place);
        let (missed, receiver) = {
            let recent = self.recent();
            (self.missed(&recent, last_id), self.sender.subscribe())
        };
        let hello = json!({
            "api_version": api::API_VERSION,
            "version": self.version,
            "at": at.to_string(),
        });
        let mut beginning = format!("event: hello\ndata: {hello}\n\n").into_bytes();
        match missed {
            Missed::Events(events) => {
                for event in events {
                    beginning.extend_from_slice(&event.text);
                }
            }
            Missed::Unknown => beginning.extend(lagged(None)),
        }
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        tokio::spawn(async move {
            let sending = send(&sender, beginning.into(), receiver);
            tokio::select! {
                () = sending => {}
                () = sender.closed() => {}
                () = stop.cancelled() => {}
            }
            drop(subscriber);
        });
        let kind = HeaderValue::from_static("text/event-stream");
        Some(([(header::CONTENT_TYPE, kind)], Body::new(Frames { frames })).into_response())
    }

    /// What was published since `last_id`.
    fn missed(&self, recent: &VecDeque<Arc<Event>>, last_id: Option<&str>) -> Missed {
        let Some(last_id) = last_id else {
            return Missed::Events(Vec::new());
        };
        let number = last_id
            .split_once('-')
            .filter(|(epoch, _)| epoch.parse() == Ok(self.epoch))
            .and_then(|(_, number)| number.parse::<u64>().ok());
        let oldest = recent.front().map_or(1, |event| event.number);
        match number {
            Some(number) if number + 1 >= oldest => Missed::Events(
                recent
                    .iter()
                    .filter(|event| event.number > number)
                    .map(Arc::clone)
                    .collect(),
            ),
            Some(_) | None => Missed::Unknown,
        }
    }
}

/// What somebody who comes back has not heard.
enum Missed {
    /// These.
    Events(Vec<Arc<Event>>),
    /// More than is kept, or another process told them.
    Unknown,
}

/// Says that something was missed, and how much where that is known.
fn lagged(missed: Option<u64>) -> Vec<u8> {
    format!("event: lagged\ndata: {}\n\n", json!({ "missed": missed })).into_bytes()
}

/// Sends until the subscriber has gone.
async fn send(
    sender: &mpsc::Sender<Bytes>,
    beginning: Bytes,
    mut receiver: broadcast::Receiver<Arc<Event>>,
) {
    let mut frame = beginning;
    loop {
        if sender.send(frame).await.is_err() {
            return;
        }
        frame = match tokio::time::timeout(KEEP_ALIVE, receiver.recv()).await {
            Ok(Ok(event)) => event.text.clone(),
            Ok(Err(RecvError::Lagged(missed))) => lagged(Some(missed)).into(),
            Ok(Err(RecvError::Closed)) => return,
            Err(_) => Bytes::from_static(b": still here\n\n"),
        };
    }
}

/// Counts while it lives.
struct Subscriber {
    health: Arc<Health>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    fn new(health: Arc<Health>, place: OwnedSemaphorePermit) -> Self {
        health.subscribed();
        Self {
            health,
            _place: place,
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.health.unsubscribed();
    }
}

/// A body whose end nobody knows yet.
struct Frames {
    frames: mpsc::Receiver<Bytes>,
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = self.frames.poll_recv(context);
        polled.map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
