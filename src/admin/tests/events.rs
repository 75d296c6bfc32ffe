//! Streams of events over real sockets.

use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::admin::events::SUBSCRIBERS_MAX;
use crate::admin::sample::incidents::crash;
use crate::metrics::Health;

/// A subscriber that reads event by event.
struct Subscriber {
    stream: BufReader<TcpStream>,
}

/// An event as it came.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    event: String,
    id: Option<String>,
    data: Value,
}

impl Subscriber {
    async fn attach(server: &Server, last_id: Option<&str>) -> Self {
        let mut stream = server.connect().await;
        let last_id = last_id.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let request = format!("GET /api/v1/events HTTP/1.1\r\nhost: x\r\n{last_id}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut subscriber = Self {
            stream: BufReader::new(stream),
        };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            subscriber.line(&mut head).await;
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        subscriber
    }

    async fn line(&mut self, text: &mut String) -> usize {
        let read = self.stream.read_line(text);
        timeout(DEADLINE, read).await.unwrap().unwrap()
    }

    /// The next event; `None` at the end of the stream. The sizes of chunks stand on lines of their own.
    async fn next(&mut self) -> Option<Heard> {
        let mut heard = Heard::default();
        loop {
            let mut line = String::new();
            if self.line(&mut line).await == 0 {
                return None;
            }
            let line = line.trim_end();
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut heard.event);
            } else if let Some(id) = line.strip_prefix("id: ") {
                heard.id = Some(id.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                heard.data = serde_json::from_str(data).unwrap();
            } else if line.is_empty() && !heard.event.is_empty() {
                return Some(heard);
            }
        }
    }
}

struct Stage {
    server: Server,
    events: Arc<Events>,
    health: Arc<Health>,
}

impl Stage {
    async fn set() -> Self {
        let health = Arc::new(Health::new());
        let mut source = fixed();
        source.events = Arc::new(Events::new("0.1.0", sample::AT, Arc::clone(&health)));
        let events = Arc::clone(&source.events);
        Self {
            server: Server::start(source, Bounds::default()).await,
            events,
            health,
        }
    }

    fn publish(&self, kind: EventKind) {
        self.events
            .publish(kind, &incident_row(&crash(), "mongo-0"));
    }

    async fn until_subscribers_are(&self, count: u64) {
        let reached = async {
            while self.health.event_subscribers() != count {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap();
    }
}

#[tokio::test]
async fn news_come_as_events_in_one_line() {
    let stage = Stage::set().await;
    let mut subscriber = Subscriber::attach(&stage.server, None).await;
    let hello = subscriber.next().await.unwrap();
    assert_eq!((hello.event.as_str(), hello.id), ("hello", None));
    assert_eq!(hello.data["api_version"], "v1");
    assert_eq!(hello.data["version"], "0.1.0");
    let kinds = [EventKind::Opened, EventKind::Updated, EventKind::Closed];
    for (number, kind) in (1..).zip(kinds) {
        stage.publish(kind);
        let heard = subscriber.next().await.unwrap();
        assert_eq!(heard.event, kind.label());
        assert_eq!(
            heard.id,
            Some(format!("{}-{number}", sample::AT.as_millis()))
        );
        let row: api::Incident = serde_json::from_value(heard.data).unwrap();
        assert_eq!(row, incident_row(&crash(), "mongo-0"));
    }
}

#[tokio::test]
async fn who_comes_back_hears_what_was_missed() {
    let stage = Stage::set().await;
    for _ in 0..3 {
        stage.publish(EventKind::Updated);
    }
    let epoch = sample::AT.as_millis();
    let mut back = Subscriber::attach(&stage.server, Some(&format!("{epoch}-1"))).await;
    assert_eq!(back.next().await.unwrap().event, "hello");
    for number in [2, 3] {
        let heard = back.next().await.unwrap();
        assert_eq!(heard.id, Some(format!("{epoch}-{number}")));
    }
    stage.publish(EventKind::Closed);
    assert_eq!(back.next().await.unwrap().event, "incident_closed");

    for stranger in ["7-1", "nothing", "", &format!("{epoch}-x")] {
        let mut back = Subscriber::attach(&stage.server, Some(stranger)).await;
        assert_eq!(back.next().await.unwrap().event, "hello");
        let lagged = back.next().await.unwrap();
        assert_eq!(lagged.event, "lagged", "{stranger}");
        assert_eq!(lagged.data["missed"], Value::Null);
    }
}

#[tokio::test]
async fn who_is_too_slow_is_told_so_and_goes_on() {
    let stage = Stage::set().await;
    let mut slow = Subscriber::attach(&stage.server, None).await;
    assert_eq!(slow.next().await.unwrap().event, "hello");
    // More than the buffers of both sockets and the channel hold.
    for _ in 0..6_000 {
        stage.publish(EventKind::Updated);
        tokio::task::yield_now().await;
    }
    stage.publish(EventKind::Closed);
    let (mut lagged, mut heard) = (0, 0);
    loop {
        let event = slow.next().await.unwrap();
        match event.event.as_str() {
            "lagged" => lagged += event.data["missed"].as_u64().unwrap(),
            "incident_closed" => break,
            _ => heard += 1,
        }
    }
    assert!(lagged > 0);
    assert_eq!(lagged + heard, 6_000);
}

#[tokio::test]
async fn subscribers_are_counted_bounded_and_let_go_at_the_end() {
    let stage = Stage::set().await;
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS_MAX {
        let mut subscriber = Subscriber::attach(&stage.server, None).await;
        assert_eq!(subscriber.next().await.unwrap().event, "hello");
        subscribers.push(subscriber);
    }
    assert_eq!(stage.health.event_subscribers(), 64);
    let (status, refusal) = stage.server.json("/api/v1/events").await;
    assert_eq!(
        (status, &refusal["error"]),
        (
            503,
            &"there are 64 subscribers, and no place for more".into()
        )
    );
    assert_eq!(stage.server.ask("GET", "/-/healthy").await.0, 200);

    subscribers.truncate(1);
    stage.until_subscribers_are(1).await;
    stage.server.shutdown.cancel();
    let left = &mut subscribers[0];
    assert_eq!(left.next().await, None);
    stage.until_subscribers_are(0).await;
    timeout(DEADLINE, stage.server.task).await.unwrap().unwrap();
}
