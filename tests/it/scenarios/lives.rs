//! When pools were created, ready and closed, beside the drivers' own events: how often each ground was right.

use std::collections::BTreeMap;

use poolscope::pools::{Ground, MongoClientId, Pools};
use poolscope::time::Timestamp;
use poolscope::timeline::UpstreamId;
use serde_json::Value;

use super::scores::{Key, seconds_of};
use super::told::times;

/// A driver tells of the same so long before or after, in seconds.
const SLACK: f64 = 1.0;

/// What drivers tell of a pool.
const EVENTS: [&str; 3] = ["pool_created", "pool_ready", "pool_closed"];

/// An inferred moment of each of [`EVENTS`], and why it is believed.
type Moments = [Option<(Timestamp, Ground)>; EVENTS.len()];

/// Pools by mongo client and upstream: whose each is, whether it is open, and its moments.
#[derive(Debug, Default)]
pub(super) struct Lives(BTreeMap<(MongoClientId, UpstreamId), (Key, bool, Moments)>);

/// How often the moments that rest on a ground were right, of how many, by event, and what was claimed of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration(BTreeMap<(usize, String), (u64, u64, f64)>);

impl Lives {
    pub(super) fn note(&mut self, pools: &Pools) {
        // What was found to be another's is told there.
        self.0
            .retain(|(id, _), (_, is_open, _)| !*is_open || pools.mongo_client(*id).is_some());
        for client in pools.mongo_clients() {
            let Some(instance) = pools.instance(client.instance) else {
                continue;
            };
            let key = (instance.address.to_string(), instance.app.to_string());
            let standing = client.standing();
            for (upstream, pool) in &client.pools {
                let moments = [
                    Some((client.created_at, standing.created())),
                    pool.ready_at.zip(pool.ground_of_ready()),
                    client.closed_at.zip(standing.closed()),
                ];
                self.0.insert(
                    (client.id, *upstream),
                    (key.clone(), client.is_open(), moments),
                );
            }
        }
    }

    /// Compares those of an instance with what its applications tell.
    pub(super) fn compare(&self, key: &Key, apps: &[&Value]) -> Calibration {
        let mut found = Calibration::default();
        let own = self.0.values().filter(|(whose, _, _)| whose == key);
        for (_, _, moments) in own {
            for (event, moment) in moments.iter().enumerate() {
                let Some((at, ground)) = moment else {
                    continue;
                };
                if !apps.iter().all(|app| tells(app, EVENTS[event])) {
                    continue;
                }
                let at = seconds_of(at.as_nanos());
                let is_right = apps.iter().any(|app| {
                    let told = times(app, EVENTS[event]);
                    // A process that was killed tells nothing more.
                    let is_gone = EVENTS[event] == "pool_closed" && app["is_gone"] == true;
                    is_gone || told.iter().any(|told| (told - at).abs() <= SLACK)
                });
                found.add(event, ground, is_right);
            }
        }
        found
    }
}

/// The driver has such events.
fn tells(app: &Value, event: &str) -> bool {
    let driver = app["driver"].as_str().unwrap();
    let has_events = app["stats"]["source"] == "cmap" && !times(app, "pool_created").is_empty();
    let lacks = match event {
        "pool_ready" => ["node-3.6-unified", "pymongo-3.13", "go-1.8", "java-3.6"].as_slice(),
        "pool_closed" => &["pymongo-3.13"],
        _ => &[],
    };
    has_events && !lacks.contains(&driver)
}

impl Calibration {
    fn add(&mut self, event: usize, ground: &Ground, is_right: bool) {
        let (right, all, confidence) = self.0.entry((event, ground.evidence.clone())).or_default();
        *right += u64::from(is_right);
        *all += 1;
        *confidence = ground.confidence;
    }

    pub(super) fn join(&mut self, other: Self) {
        for (ground, (right, all, confidence)) in other.0 {
            let sums = self.0.entry(ground).or_default();
            *sums = (sums.0 + right, sums.1 + all, confidence);
        }
    }

    /// A line for each ground.
    pub(super) fn told(&self) -> Vec<String> {
        let lines = self
            .0
            .iter()
            .map(|((event, evidence), (right, all, confidence))| {
                let event = EVENTS[*event];
                format!(
                    "{event}: right in {right} of {all}, said to be {confidence} sure: {evidence}"
                )
            });
        lines.collect()
    }
}
