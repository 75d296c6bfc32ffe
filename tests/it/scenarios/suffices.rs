//! From which moment on the evidence of a case suffices, by harness, drivers and kernel.
//!
//! poolscope has a word of its own for it (`evident_at`). Where that is about the moment of telling by its nature, as of
//! silence, slowness and ages, only a moment from elsewhere shows whether it was late. The thresholds are those of
//! `src/detect/thresholds.rs` and the detectors; what a threshold takes to be reached at the load of a case is not waited
//! for, so that these moments are early rather than late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::scores::seconds_of;

/// Cut or lost connections that agree (`EQUAL_AGES_MIN`).
const CUTS: usize = 2;

/// Mongo clients that are no start of an application (`CREATED_MIN` of the detector of churn).
const CLIENTS: usize = 8;

/// Clients left behind that are no habit of a start, for how long each has to rest, after how long there is a leak
/// (`LEFT_MIN`, `RESTS_MIN`, `RESTS_GAPS` and `LASTED_MIN` of the detector of leaks), in seconds.
const LEFT: usize = 8;
const RESTS: f64 = 10.0;
const RESTS_GAPS: f64 = 3.0;
const LASTED: f64 = 30.0;

/// Seconds in which segments were lost (`LOSS_SECONDS_MIN`), the share that a path loses anyway (`LOSS_BY_CHANCE`), and
/// what is no accident (`LOSS_CHANCE`).
const LOSS_SECONDS: usize = 3;
const LOSS_BY_CHANCE: f64 = 0.002;
const LOSS_CHANCE: f64 = 1e-7;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Suffices {
    /// Nothing is wrong.
    Never,
    /// Nothing but the fault.
    AtOnce,
    /// So long after the fault a threshold of time is reached.
    After(Duration),
    /// As many idle connections were cut as agree.
    Cuts,
    /// The same, and they were used.
    CutsAtUse,
    /// As many mongo clients were made as no start needs.
    Clients,
    /// As many mongo clients rest as no start leaves behind.
    ClientsAtRest,
    /// The kernel sent so much again as no chance explains.
    Resent,
}

impl Suffices {
    /// The moment, in seconds since the epoch; `None` where it never came, or is not known.
    pub(super) fn moment(self, truth: &Value, journal: &str) -> Option<f64> {
        let fault_at = truth["fault_at"].as_f64()?;
        match self {
            Self::Never => None,
            Self::AtOnce => Some(fault_at),
            Self::After(time) => Some(fault_at + time.as_secs_f64()),
            Self::Cuts => cuts(truth),
            Self::CutsAtUse => Some(cuts(truth)?.max(truth["injected_at"].as_f64()?)),
            Self::Clients => made(truth, journal, fault_at).get(CLIENTS - 1).copied(),
            Self::ClientsAtRest => at_rest(&made(truth, journal, fault_at)),
            Self::Resent => resent(journal, fault_at),
        }
    }
}

/// When the relay had cut enough.
fn cuts(truth: &Value) -> Option<f64> {
    let notes = truth["notes"].as_array()?.iter();
    let cuts = notes.filter(|note| note["what"] == "idle connections were cut");
    cuts.filter_map(|note| note["value"].as_array())
        .flatten()
        .nth(CUTS - 1)?
        .as_f64()
}

/// When clients were made: by what the driver under test told of pools that it created, or, where drivers tell of none,
/// by the connections that their clients dialled for their operations.
fn made(truth: &Value, journal: &str, fault_at: f64) -> Vec<f64> {
    let apps = truth["apps"].as_array().into_iter().flatten();
    let events = apps
        .filter(|app| app["name"] == "orders")
        .filter_map(|app| app["events"].as_array())
        .flatten();
    let mut made: Vec<f64> = events
        .filter(|event| event["event"] == "pool_created")
        .filter_map(|event| event["at"].as_f64())
        .collect();
    if made.is_empty() {
        made = dialled(journal);
    }
    made.retain(|at| *at >= fault_at);
    made.sort_by(f64::total_cmp);
    made
}

/// When the connections were accepted on which the application under test sent operations.
fn dialled(journal: &str) -> Vec<f64> {
    let mut opened: BTreeMap<u64, f64> = BTreeMap::new();
    let (mut own, mut used) = (BTreeSet::new(), BTreeSet::new());
    for line in journal.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let (Some(connection), Some(at)) = (line["conn"].as_u64(), line["at"].as_u64()) else {
            continue;
        };
        if line["opened"].is_object() {
            opened.insert(connection, seconds_of(at));
        } else if line["introduced"]["client"]["application"] == "orders" {
            own.insert(connection);
        } else if line["role_found"] == "application" {
            used.insert(connection);
        }
    }
    let of_clients = own.intersection(&used);
    let moments = of_clients.filter_map(|connection| opened.get(connection));
    moments.copied().collect()
}

/// When enough of them had rested for as long as it takes, while others were made.
#[expect(clippy::cast_precision_loss, reason = "a small count")]
fn at_rest(made: &[f64]) -> Option<f64> {
    let (first, enough) = (*made.first()?, *made.get(LEFT - 1)?);
    let pace = (enough - first) / (LEFT - 1) as f64;
    let rested = enough + RESTS.max(RESTS_GAPS * pace);
    let lasted = made.iter().find(|at| **at - first >= LASTED)?;
    Some(rested.max(*lasted))
}

/// What the kernel counts of a socket: segments sent, those sent again, and those of them that were there already.
const COUNTS: [&str; 3] = ["segments", "retransmits", "duplicates"];

/// When the sockets of all connections together, as the kernel counted them, had sent so much again.
fn resent(journal: &str, fault_at: f64) -> Option<f64> {
    let mut before: BTreeMap<(u64, usize), [u64; 3]> = BTreeMap::new();
    let mut sums = [[0_u64; 3]; 2];
    let mut seconds: [BTreeSet<u64>; 2] = Default::default();
    for line in journal.lines().filter(|line| line.contains("\"sampled\"")) {
        let line: Value = serde_json::from_str(line).ok()?;
        let nanos = line["at"].as_u64()?;
        for (side, tcp) in line["sampled"]["tcp"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let counts = COUNTS.map(|field| tcp[field].as_u64().unwrap_or(0));
            let before = before.entry((line["conn"].as_u64()?, side)).or_default();
            let more = [0, 1, 2].map(|place| counts[place].saturating_sub(before[place]));
            *before = counts;
            if seconds_of(nanos) < fault_at {
                continue;
            }
            for (sum, more) in sums[side].iter_mut().zip(more) {
                *sum += more;
            }
            if more[1] > 0 {
                seconds[side].insert(nanos / 1_000_000_000);
            }
            if seconds[side].len() >= LOSS_SECONDS && !is_chance(sums[side]) {
                return Some(seconds_of(nanos));
            }
        }
    }
    None
}

/// Whether so many of those sent may be lost by chance: the tail of a Poisson distribution.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn is_chance([sent, resent, duplicates]: [u64; 3]) -> bool {
    let lost = resent.saturating_sub(duplicates);
    let expected = sent as f64 * LOSS_BY_CHANCE;
    let chance: f64 = (1..=lost).map(|count| expected / count as f64).product();
    lost as f64 <= expected || chance >= LOSS_CHANCE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FAULT: f64 = 1000.0;

    fn truth() -> Value {
        let created: Vec<Value> = (0..9)
            .map(|number| json!({ "event": "pool_created", "at": FAULT + 0.2 * f64::from(number) }))
            .collect();
        json!({
            "fault_at": FAULT, "injected_at": FAULT + 1.2,
            "notes": [{ "what": "idle connections were cut", "value": [FAULT, FAULT + 0.5, FAULT + 4.0] }],
            "apps": [{ "name": "orders", "events": created }],
        })
    }

    fn sample(seconds: u64, segments: u64, retransmits: u64, duplicates: u64) -> String {
        let socket = |retransmits: u64, duplicates: u64| json!({ "segments": segments, "retransmits": retransmits, "duplicates": duplicates });
        let tcp = [socket(0, 0), socket(retransmits, duplicates)];
        let line = json!({ "at": seconds * 1_000_000_000, "conn": 1, "sampled": { "tcp": tcp } });
        format!("{line}\n")
    }

    #[track_caller]
    fn check(suffices: Suffices, expected: Option<f64>) {
        let moment = suffices.moment(&truth(), "");
        let after = moment.map(|moment| ((moment - FAULT) * 10.0).round() / 10.0);
        assert_eq!(after, expected, "{suffices:?}");
    }

    #[test]
    fn moments_are_those_of_harness_and_driver() {
        check(Suffices::Never, None);
        check(Suffices::AtOnce, Some(0.0));
        check(Suffices::After(Duration::from_millis(1500)), Some(1.5));
        check(Suffices::Cuts, Some(0.5));
        check(Suffices::CutsAtUse, Some(1.2));
        check(Suffices::Clients, Some(1.4));
        check(Suffices::Resent, None);
    }

    #[test]
    fn a_driver_that_tells_of_no_pools_is_known_by_what_it_dials() {
        let mut truth = truth();
        truth["apps"] = json!([]);
        assert_eq!(Suffices::Clients.moment(&truth, ""), None);
        let line = |at: f64, connection: u64, fact: &str, value: &Value| {
            let at = Duration::from_secs_f64(at).as_nanos();
            format!("{{\"at\":{at},\"conn\":{connection},\"{fact}\":{value}}}\n")
        };
        // Two a client, of which one carries operations; one every half second.
        let dials = (0..9_u64).flat_map(|number| {
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let at = FAULT + number as f64 / 2.0;
            let client = json!({ "client": { "application": "orders" } });
            [2 * number, 2 * number + 1].map(|connection| {
                let role = if connection % 2 == 0 {
                    "monitor"
                } else {
                    "application"
                };
                line(at, connection, "opened", &json!({}))
                    + &line(at, connection, "introduced", &client)
                    + &line(at, connection, "role_found", &json!(role))
            })
        });
        let journal: String = dials.collect();
        assert_eq!(
            Suffices::Clients.moment(&truth, &journal),
            Some(FAULT + 3.5)
        );
    }

    #[test]
    fn clients_are_at_rest_when_the_eighth_is_and_others_were_made_since() {
        let every = |pace: f64, many: u32| -> Vec<f64> {
            (0..many).map(|number| pace * f64::from(number)).collect()
        };
        assert_eq!(at_rest(&every(4.0, 11)), Some(40.0));
        assert_eq!(at_rest(&every(2.0, 20)), Some(30.0));
        assert_eq!(at_rest(&every(2.0, 14)), None);
    }

    #[test]
    fn lost_segments_suffice_in_the_third_second_and_not_by_chance() {
        // From two seconds before the fault on, a hundred segments a second.
        let moment = |resent: [u64; 6], duplicates: u64| {
            let samples = (998..).zip(resent);
            let journal: String = samples
                .map(|(at, count)| sample(at, 100 * (at - 997), count, count * duplicates))
                .collect();
            Suffices::Resent.moment(&truth(), &journal)
        };
        assert_eq!(moment([0, 0, 4, 8, 12, 16], 0), Some(FAULT + 2.0));
        // It was there already.
        assert_eq!(moment([0, 0, 4, 8, 12, 16], 1), None);
        // Before the fault, by chance, or in one burst.
        assert_eq!(moment([10, 20, 20, 20, 20, 20], 0), None);
        assert_eq!(moment([0, 0, 1, 2, 3, 3], 0), None);
        assert_eq!(moment([0, 0, 20, 20, 20, 20], 0), None);
    }
}
