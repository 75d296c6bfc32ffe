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
/// The same where each may be a process of its own (`PROCESSES_MIN`), and drivers of which each may be.
const LEFT_OF_PROCESSES: usize = 64;
const MAY_BE_PROCESSES: [&str; 2] = ["mongoc-1.23", "php-1.15"];
const RESTS: f64 = 10.0;
const RESTS_GAPS: f64 = 3.0;
const LASTED: f64 = 30.0;

/// Connections turned away that are no accident (`TURNED_AWAY_MIN`).
const TURNED_AWAY: usize = 3;

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
    /// The server turned as many connections away as are no accident: an application that starts with the fault fills
    /// the server first, and a virtual machine takes a second or two to begin with that.
    TurnedAway,
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
            Self::ClientsAtRest => at_rest(&made(truth, journal, fault_at), left_min(truth)),
            Self::Resent => resent(journal, fault_at),
            Self::TurnedAway => turned_away(journal, fault_at),
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

/// How many the driver under test has to leave behind.
fn left_min(truth: &Value) -> usize {
    let mut apps = truth["apps"].as_array().into_iter().flatten();
    let app = apps.find(|app| app["name"] == "orders");
    let driver = app.and_then(|app| app["driver"].as_str());
    if driver.is_some_and(|driver| MAY_BE_PROCESSES.contains(&driver)) {
        LEFT_OF_PROCESSES
    } else {
        LEFT
    }
}

/// When enough of them had rested for as long as it takes, while others were made.
#[expect(clippy::cast_precision_loss, reason = "a small count")]
fn at_rest(made: &[f64], left_min: usize) -> Option<f64> {
    let (first, enough) = (*made.first()?, *made.get(left_min - 1)?);
    let pace = (enough - first) / (left_min - 1) as f64;
    let rested = enough + RESTS.max(RESTS_GAPS * pace);
    let lasted = made.iter().find(|at| **at - first >= LASTED)?;
    Some(rested.max(*lasted))
}

/// When the server had ended so many connections whose first hello it had not answered.
fn turned_away(journal: &str, fault_at: f64) -> Option<f64> {
    let mut answered = BTreeSet::new();
    let mut count = 0;
    for line in journal.lines() {
        let line: Value = serde_json::from_str(line).ok()?;
        let connection = line["conn"].as_u64();
        if line["hello_answered"] != Value::Null {
            answered.insert(connection);
        }
        let Some(nanos) = line["at"].as_u64() else {
            continue;
        };
        let is_by_server = line["ended"]["initiator"] == "server";
        if is_by_server && seconds_of(nanos) >= fault_at && !answered.contains(&connection) {
            count += 1;
        }
        if count == TURNED_AWAY {
            return Some(seconds_of(nanos));
        }
    }
    None
}

/// What the kernel counted of a socket.
#[derive(Clone, Copy, Default)]
struct Counts {
    segments: u64,
    retransmits: u64,
    duplicates: u64,
}

/// A socket since the fault.
#[derive(Clone, Copy, Default)]
struct Socket {
    /// When it was known last, and what was known then, before, and when the fault began.
    at: u64,
    now: Counts,
    before: Counts,
    began: Counts,
}

impl Socket {
    /// Takes in what is known at `nanos`. Returns the second in which something was sent again that can be judged.
    fn sampled(&mut self, nanos: u64, now: Counts, is_after: bool) -> Option<u64> {
        let then = std::mem::replace(&mut self.at, nanos);
        let last = std::mem::replace(&mut self.now, now);
        if !is_after {
            (self.before, self.began) = (now, now);
            return None;
        }
        let judged = std::mem::replace(&mut self.before, last);
        (last.retransmits > judged.retransmits).then_some(then / 1_000_000_000)
    }

    /// Segments that were sent, and the lost ones of them. A segment that was sent again is lost where the other side
    /// does not say that it had it, for which it takes a round trip: of what one sample tells nothing is known before
    /// the next. By then it is said of more than was sent again meanwhile where it is late.
    fn sent_and_lost(&self) -> [u64; 2] {
        let lost = |from: Counts, to: Counts| {
            let resent = to.retransmits.saturating_sub(from.retransmits);
            let duplicates = to.duplicates.saturating_sub(from.duplicates);
            (
                resent.saturating_sub(duplicates),
                duplicates.saturating_sub(resent),
            )
        };
        let (judged, _) = lost(self.began, self.before);
        let (_, late) = lost(self.before, self.now);
        let sent = self.now.segments.saturating_sub(self.began.segments);
        [sent, judged.saturating_sub(late)]
    }
}

/// When the sockets of all connections together, as the kernel counted them, had lost so much.
fn resent(journal: &str, fault_at: f64) -> Option<f64> {
    let mut sockets: [BTreeMap<u64, Socket>; 2] = Default::default();
    let mut seconds: [BTreeSet<u64>; 2] = Default::default();
    for line in journal.lines().filter(|line| line.contains("\"sampled\"")) {
        let line: Value = serde_json::from_str(line).ok()?;
        let (nanos, connection) = (line["at"].as_u64()?, line["conn"].as_u64()?);
        let sides = line["sampled"]["tcp"].as_array().into_iter().flatten();
        for (side, tcp) in sides.enumerate() {
            let count = |field: &str| tcp[field].as_u64().unwrap_or(0);
            let counts = Counts {
                segments: count("segments"),
                retransmits: count("retransmits"),
                duplicates: count("duplicates"),
            };
            let socket = sockets[side].entry(connection).or_default();
            seconds[side].extend(socket.sampled(nanos, counts, seconds_of(nanos) >= fault_at));
            let all = sockets[side].values().map(Socket::sent_and_lost);
            let [sent, lost] = all.fold([0, 0], |sum, more| [sum[0] + more[0], sum[1] + more[1]]);
            if seconds[side].len() >= LOSS_SECONDS && !is_chance(sent, lost) {
                return Some(seconds_of(nanos));
            }
        }
    }
    None
}

/// Whether so many of those sent may be lost by chance: the tail of a Poisson distribution.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn is_chance(sent: u64, lost: u64) -> bool {
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
        assert_eq!(at_rest(&every(4.0, 11), LEFT), Some(40.0));
        assert_eq!(at_rest(&every(2.0, 20), LEFT), Some(30.0));
        assert_eq!(at_rest(&every(2.0, 14), LEFT), None);
        // The 64th is made after 126 s.
        let many = every(2.0, 80);
        assert_eq!(at_rest(&many, LEFT_OF_PROCESSES), Some(136.0));
    }

    /// From when on what was sent again by each second suffices, counted from the fault on. It begins two seconds
    /// before it, and a hundred segments are sent a second; of so many the other side says in each that it had them.
    #[track_caller]
    fn check_resent(resent: [u64; 7], duplicates: [u64; 7], expected: Option<f64>) {
        let counts = resent.into_iter().zip(duplicates);
        let journal: String = (998..)
            .zip(counts)
            .map(|(at, (resent, duplicates))| sample(at, 100 * (at - 997), resent, duplicates))
            .collect();
        let moment = Suffices::Resent.moment(&truth(), &journal);
        let after = moment.map(|moment| moment - FAULT);
        assert_eq!(after, expected, "{resent:?} {duplicates:?}");
    }

    #[test]
    fn lost_segments_suffice_when_three_seconds_can_be_judged_and_not_by_chance() {
        check_resent([0, 0, 4, 8, 12, 16, 20], [0; 7], Some(3.0));
        // It was there already, which is said later than it is sent again.
        let all = [0, 0, 4, 8, 12, 16, 20];
        check_resent(all, all, None);
        check_resent(all, [0, 0, 0, 4, 8, 12, 16], None);
        // Before the fault, by chance, or in one burst.
        check_resent([10, 20, 20, 20, 20, 20, 20], [0; 7], None);
        check_resent([0, 0, 1, 2, 3, 3, 3], [0; 7], None);
        check_resent([0, 0, 20, 20, 20, 20, 20], [0; 7], None);
    }

    #[test]
    fn connections_are_turned_away_that_the_server_ends_before_it_answers() {
        let line = |seconds: u64, connection: u64, fact: &str, what: Value| {
            format!(
                "{}\n",
                json!({ "at": seconds * 1_000_000_000, "conn": connection, fact: what })
            )
        };
        let ended = |seconds, connection, initiator| {
            let how = json!({ "initiator": initiator, "manner": "fin", "phase": "handshaking" });
            line(seconds, connection, "ended", how)
        };
        let journal = [
            // Before the fault, answered, and by the client.
            ended(999, 1, "server"),
            line(1001, 2, "hello_answered", json!(2_000_000)),
            ended(1002, 2, "server"),
            ended(1002, 3, "client"),
            ended(1003, 4, "server"),
            ended(1004, 5, "server"),
        ];
        let moment = |journal: &str| Suffices::TurnedAway.moment(&truth(), journal);
        assert_eq!(moment(&journal.concat()), None);
        let third = ended(1005, 6, "server");
        assert_eq!(moment(&(journal.concat() + &third)), Some(FAULT + 5.0));
    }
}
