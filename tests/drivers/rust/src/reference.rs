//! What the driver's events say about one client.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::event::command::CommandEvent;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::ClientOptions;
use serde_json::{Value, json};

use crate::{now, write};

/// The counts of one client, fed by the driver's events.
pub struct Reference {
    name: String,
    stream: bool,
    counts: Mutex<Counts>,
}

#[derive(Clone, Default)]
struct Counts {
    created: u64,
    ready: u64,
    open: HashSet<(String, u32)>,
    closed: BTreeMap<String, u64>,
    checked_out: i64,
    checkout_failed: BTreeMap<String, u64>,
    cleared: u64,
    sleeping: u64,
    heartbeats_started: u64,
    heartbeats_succeeded: u64,
    heartbeats_failed: u64,
}

/// Spells a reason as the specification of CMAP does: `PoolClosed` becomes `poolClosed`.
fn reason(name: String) -> String {
    let mut chars = name.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

impl Reference {
    pub fn new(name: &str, stream: bool) -> Self {
        Self {
            name: name.into(),
            stream,
            counts: Mutex::default(),
        }
    }

    /// Subscribes to all events that `options` can hand out.
    pub fn listen(self: &Arc<Self>, options: &mut ClientOptions) {
        let this = self.clone();
        options.cmap_event_handler = Some(EventHandler::callback(move |event| this.cmap(event)));
        let this = self.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| this.sdam(event)));
        let this = self.clone();
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            if let CommandEvent::Started(started) = event
                && started.command_name == "sleep"
            {
                this.counts.lock().unwrap().sleeping += 1;
            }
        }));
    }

    /// Commands called `sleep` that were sent.
    pub fn sleeping(&self) -> u64 {
        self.counts.lock().unwrap().sleeping
    }

    fn saw(&self, event: &str, mut details: Value) {
        if self.stream {
            details["event"] = event.into();
            details["name"] = self.name.clone().into();
            details["at"] = now().into();
            write(&details);
        }
    }

    fn cmap(&self, event: CmapEvent) {
        let mut counts = self.counts.lock().unwrap();
        match event {
            CmapEvent::ConnectionCreated(event) => {
                counts.created += 1;
                let key = (event.address.to_string(), event.connection_id);
                counts.open.insert(key);
                self.saw("created", json!({ "connection": event.connection_id }));
            }
            CmapEvent::ConnectionReady(event) => {
                counts.ready += 1;
                self.saw("ready", json!({ "connection": event.connection_id }));
            }
            CmapEvent::ConnectionClosed(event) => {
                let why = reason(format!("{:?}", event.reason));
                let details = json!({ "connection": event.connection_id, "reason": why });
                let key = (event.address.to_string(), event.connection_id);
                if counts.open.remove(&key) {
                    *counts.closed.entry(why).or_default() += 1;
                }
                self.saw("closed", details);
            }
            CmapEvent::ConnectionCheckoutFailed(event) => {
                let why = reason(format!("{:?}", event.reason));
                self.saw("checkout_failed", json!({ "reason": why }));
                *counts.checkout_failed.entry(why).or_default() += 1;
            }
            CmapEvent::ConnectionCheckedOut(_) => counts.checked_out += 1,
            CmapEvent::ConnectionCheckedIn(_) => counts.checked_out -= 1,
            CmapEvent::PoolCleared(_) => {
                counts.cleared += 1;
                self.saw("pool_cleared", json!({}));
            }
            CmapEvent::PoolCreated(_) => self.saw("pool_created", json!({})),
            CmapEvent::PoolReady(_) => self.saw("pool_ready", json!({})),
            CmapEvent::PoolClosed(_) => self.saw("pool_closed", json!({})),
            _ => {}
        }
    }

    fn sdam(&self, event: SdamEvent) {
        let mut counts = self.counts.lock().unwrap();
        match event {
            SdamEvent::ServerHeartbeatStarted(_) => counts.heartbeats_started += 1,
            SdamEvent::ServerHeartbeatSucceeded(_) => counts.heartbeats_succeeded += 1,
            SdamEvent::ServerHeartbeatFailed(event) => {
                counts.heartbeats_failed += 1;
                let details = json!({ "error": event.failure.to_string() });
                self.saw("heartbeat_failed", details);
            }
            _ => {}
        }
    }
}

/// The counts of all clients of one name, closed ones included.
pub fn stats(references: &[Arc<Reference>], clients: usize) -> Value {
    let all: Vec<Counts> = references
        .iter()
        .map(|reference| reference.counts.lock().unwrap().clone())
        .collect();
    let sum = |count: fn(&Counts) -> u64| all.iter().map(count).sum::<u64>();
    let merge = |reasons: fn(&Counts) -> &BTreeMap<String, u64>| {
        let mut merged = BTreeMap::<String, u64>::new();
        for (reason, count) in all.iter().flat_map(reasons) {
            *merged.entry(reason.clone()).or_default() += count;
        }
        merged
    };
    json!({
        "source": "cmap",
        "clients": clients,
        "created": sum(|counts| counts.created),
        "ready": sum(|counts| counts.ready),
        "closed": merge(|counts| &counts.closed),
        "open": all.iter().map(|counts| counts.open.len()).sum::<usize>(),
        "checked_out": all.iter().map(|counts| counts.checked_out).sum::<i64>(),
        "checkout_failed": merge(|counts| &counts.checkout_failed),
        "cleared": sum(|counts| counts.cleared),
        "heartbeats": {
            "started": sum(|counts| counts.heartbeats_started),
            "succeeded": sum(|counts| counts.heartbeats_succeeded),
            "failed": sum(|counts| counts.heartbeats_failed),
        },
    })
}
