//! How well poolscope infers what pools went through, beside the drivers' own events.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde_json::Value;

use super::episodes;
use super::inferred::{Inferred, infer};
use super::lives::Calibration;
use super::pooled::{Agreement, Pooled};
use super::told::{self, REASONS};

/// Episodes of cleared pools that are found, of those that drivers tell, and real, of those that are inferred.
const CLEARS_MIN: f64 = 0.98;

/// Reasons of closes that are as drivers tell, where pools are not cleared many times a second.
const REASONS_MIN: f64 = 0.95;

/// The cases in which they are.
const WITHOUT_PEACE: &str = "pool_capacity/";

/// What an exception begins with that is about the reasons of closes.
const OF_REASONS: &str = "reasons of closes";

/// The same of one that is about the beginning of an episode.
const OF_BEGINNINGS: &str = "an episode begins";

/// Counts over one case, or many.
#[derive(Clone, Debug, Default)]
pub(super) struct Scores {
    /// Episodes of cleared pools that drivers told of, those that were inferred, those that are the same, and those of
    /// the latter whose beginnings are the same, too.
    clears_true: u64,
    clears_inferred: u64,
    clears_paired: u64,
    clears_begun_together: u64,
    /// Instances, and those whose number of mongo clients was right.
    instances: u64,
    mongo_clients_right: u64,
    /// Instances with pool events, and those whose opened, closed and open connections were right.
    pools: u64,
    pools_right: u64,
    /// Those that are right when the journal is replayed.
    pools_replayed: u64,
    /// Instances whose applications were brought to rest, and those whose connections were all told to be idle then.
    rested: u64,
    rested_right: u64,
    /// Those of the former of which nothing at all is told otherwise, and those whose driver had not told of all sockets
    /// that were closed on it.
    pools_strict: u64,
    pools_unnoticed: u64,
    /// Connections that drivers created and that are nobody's, and how many could have been.
    lacking: u64,
    lacking_allowed: u64,
    /// Connections whose close a driver gave a reason for, and those of them with the same reason.
    closes: u64,
    closes_right: u64,
    /// The same where pools are not cleared many times a second.
    closes_in_peace: u64,
    closes_in_peace_right: u64,
    /// The same for each driver and reason.
    closes_by_driver: BTreeMap<String, [(u64, u64); REASONS.len()]>,
    /// Connections that a driver told to have failed, and that ended before they said whose they are.
    closes_anonymous: u64,
    /// How often what is said of the lives of pools was right.
    lives: Calibration,
    /// What was not right.
    amiss: Vec<String>,
}

/// A client instance: address and application.
pub(super) type Key = (String, String);
/// When an episode began and ended, in seconds since the epoch.
pub(super) type Span = (f64, f64);

/// Something is told otherwise than by drivers because it is not decided yet: what has not said a word since its handshake
/// is a pooled connection or a monitor, and shows which only when a monitor would speak.
pub(super) fn is_undecided(truth: &Value, clients: &Value) -> bool {
    let rows = clients["clients"].as_array().unwrap();
    references(truth).into_iter().any(|(key, apps)| {
        let mut own = rows.iter().filter(|row| row["address"] == key.0.as_str());
        let has_undecided = own.any(|row| {
            let counts = ["undecided", "undecided_ended"].map(|field| row[field].as_u64());
            row["app"] == key.1.as_str() && counts.into_iter().any(|count| count > Some(0))
        });
        let differs = |live: Pooled| live.compare(&apps, u64::MAX).is_err();
        has_undecided
            && all_tell(&apps, "created")
            && Pooled::live(clients, &key).is_some_and(differs)
    })
}

/// Instances of which every application is at rest, and what is told of their connections.
fn at_rest(rest: &Value) -> impl Iterator<Item = (Key, Vec<&Value>, Pooled)> {
    let of_all = references(rest).into_iter().filter(|(_, apps)| {
        let rests = apps.iter().all(|app| app["is_at_rest"] == true);
        rests && all_tell(apps, "created")
    });
    of_all.filter_map(|(key, apps)| {
        let live = Pooled::live(&rest["clients"], &key)?;
        Some((key, apps, live))
    })
}

/// Whether what is told of applications at rest is what their drivers tell, or may be as far as it was seen.
pub(super) fn is_rest_told(rest: &Value) -> bool {
    at_rest(rest).all(|(_, apps, live)| live.compare_at_rest(&apps, 0).is_ok())
}

/// Applications by instance, where all of them tell of themselves.
fn references(truth: &Value) -> BTreeMap<Key, Vec<&Value>> {
    let mut by_key: BTreeMap<Key, Vec<&Value>> = BTreeMap::new();
    for app in truth["apps"].as_array().unwrap() {
        let text = |field: &str| app[field].as_str().unwrap().to_owned();
        by_key
            .entry((text("address"), text("name")))
            .or_default()
            .push(app);
    }
    // Whoever did not answer, or was never connected, is no reference.
    let is_reference = |app: &&Value| match app["stats"]["source"].as_str() {
        Some("cmap") => app["stats"]["ready"].as_u64() > Some(0),
        Some("sdam") => app["stats"]["heartbeats"]["succeeded"].as_u64() > Some(0),
        _ => false,
    };
    by_key.retain(|_, apps| apps.iter().all(is_reference));
    by_key
}

/// Some drivers tell nothing of clears, others nothing of connections.
fn all_tell(apps: &[&Value], what: &str) -> bool {
    apps.iter().all(|app| app["stats"][what].is_u64())
}

/// Scores one case, and what was told when its applications had come to rest, where that is known.
pub(super) fn score(
    case: &str,
    truth: &Value,
    journal: &str,
    clients: &Value,
    rest: Option<&Value>,
) -> Scores {
    let inferred = infer(journal);
    let mut scores = Scores::default();
    scores.score_case(case, truth, clients, &inferred);
    if let Some(rest) = rest {
        scores.score_case_at_rest(case, rest, &inferred);
    }
    scores
}

impl Scores {
    fn score_case(&mut self, case: &str, truth: &Value, clients: &Value, inferred: &Inferred) {
        let counts = inferred.anonymous.iter();
        let mut anonymous: BTreeMap<String, u64> = counts
            .map(|(address, ended)| (address.clone(), ended.len() as u64))
            .collect();
        let end = seconds_of(inferred.until.as_nanos());
        for (key, apps) in references(truth) {
            let name = format!("{case} {}@{}", key.1, key.0);
            self.lives.join(inferred.lives.compare(&key, &apps));
            if all_tell(&apps, "cleared") {
                let told = apps.iter().flat_map(|app| episodes::told(app, end));
                let told: Vec<Span> = told.collect();
                let mut found = inferred.episodes(&key, end);
                if apps
                    .iter()
                    .any(|app| episodes::has_several_clients(app, inferred.servers))
                {
                    found = episodes::fused(found);
                }
                self.score_clears(&name, &told, &found);
            }
            let open = inferred.open.get(&key).copied().unwrap_or(0);
            self.score_mongo_clients(&name, &apps, open);
            if !all_tell(&apps, "created") {
                continue;
            }
            if let Some(live) = Pooled::live(clients, &key) {
                let ended = inferred.ended_by_server(&key);
                let replayed = Pooled::replayed(inferred, &key, &live);
                self.score_pools(&name, &apps, &live, ended);
                self.score_replayed(&name, &apps, &replayed, ended);
            }
            let reasons = inferred.closed.get(&key).copied().unwrap_or_default();
            let anonymous = anonymous.entry(key.0.clone()).or_default();
            // The journal of a case may end a moment before the driver was asked.
            let told = told_reasons(&apps, end);
            self.score_reasons(&name, apps[0], told, reasons, anonymous);
        }
    }

    fn score_case_at_rest(&mut self, case: &str, rest: &Value, inferred: &Inferred) {
        for (key, apps, live) in at_rest(rest) {
            let name = format!("{case} {}@{}", key.1, key.0);
            self.score_rest(&name, &apps, &live, inferred.ended_by_server(&key));
        }
    }

    fn score_clears(&mut self, name: &str, told: &[Span], inferred: &[Span]) {
        let pairs = episodes::paired(told, inferred);
        let together = pairs.iter().filter(|pair| episodes::begin_together(pair));
        let (paired, together) = (pairs.len() as u64, together.count() as u64);
        let (count_told, count_inferred) = (told.len() as u64, inferred.len() as u64);
        self.clears_true += count_told;
        self.clears_inferred += count_inferred;
        self.clears_paired += paired;
        self.clears_begun_together += together;
        let (missed, invented) = (count_told - paired, count_inferred - paired);
        if missed + invented > 0 {
            self.amiss.push(format!(
                "{name}: {missed} of {count_told} clears missed, {invented} invented: {inferred:.2?} instead of {told:.2?}"
            ));
        }
        for (told, inferred) in pairs.iter().filter(|pair| !episodes::begin_together(pair)) {
            self.amiss.push(format!(
                "{name}: {OF_BEGINNINGS} {:.2} s after the driver cleared its pool",
                inferred.0 - told.0
            ));
        }
    }

    fn score_mongo_clients(&mut self, name: &str, apps: &[&Value], inferred: u64) {
        let told: u64 = apps
            .iter()
            .map(|app| app["stats"]["clients"].as_u64().unwrap())
            .sum();
        self.instances += 1;
        if told == inferred {
            self.mongo_clients_right += 1;
        } else {
            self.amiss.push(format!(
                "{name}: {inferred} mongo clients instead of {told}"
            ));
        }
    }

    fn score_pools(&mut self, name: &str, apps: &[&Value], live: &Pooled, ended_by_server: u64) {
        self.pools += 1;
        match live.compare(apps, ended_by_server) {
            Ok(agreement) => self.agreed(agreement),
            Err(difference) => self.amiss.push(format!("{name}: {difference}")),
        }
    }

    fn score_rest(&mut self, name: &str, apps: &[&Value], live: &Pooled, ended_by_server: u64) {
        self.rested += 1;
        match live.compare_at_rest(apps, ended_by_server) {
            Ok(()) => self.rested_right += 1,
            Err(difference) => self.amiss.push(format!("{name} at rest: {difference}")),
        }
    }

    fn agreed(&mut self, agreement: Agreement) {
        self.pools_right += 1;
        self.pools_strict += u64::from(agreement.is_strict());
        self.pools_unnoticed += u64::from(agreement.unnoticed > 0);
        self.lacking += agreement.lacking;
        self.lacking_allowed += agreement.allowed;
    }

    fn score_replayed(
        &mut self,
        name: &str,
        apps: &[&Value],
        replayed: &Pooled,
        ended_by_server: u64,
    ) {
        match replayed.compare(apps, ended_by_server) {
            Ok(_) => self.pools_replayed += 1,
            Err(difference) => self.amiss.push(format!("{name} replayed: {difference}")),
        }
    }

    fn score_reasons(
        &mut self,
        name: &str,
        app: &Value,
        mut told: [u64; REASONS.len()],
        inferred: [u64; REASONS.len()],
        anonymous: &mut u64,
    ) {
        // What broke before it said whose it is cannot be anybody's.
        let [_, _, failed, _] = &mut told;
        let unknown = failed.saturating_sub(inferred[2]).min(*anonymous);
        *anonymous -= unknown;
        *failed -= unknown;
        self.closes_anonymous += unknown;
        let driver = app["driver"].as_str().unwrap();
        let by_reason = self.closes_by_driver.entry(driver.to_owned()).or_default();
        for ((told, inferred), sums) in told.iter().zip(inferred).zip(by_reason) {
            let right = *told.min(&inferred);
            self.closes += told;
            self.closes_right += right;
            if !name.starts_with(WITHOUT_PEACE) {
                self.closes_in_peace += told;
                self.closes_in_peace_right += right;
            }
            sums.0 += right;
            sums.1 += told;
        }
        if told
            .iter()
            .zip(inferred)
            .any(|(told, inferred)| *told > inferred)
        {
            self.amiss.push(format!(
                "{name}: {OF_REASONS} {inferred:?} instead of {told:?} ({})",
                REASONS.join(", ")
            ));
        }
    }

    /// All figures, and every exception.
    pub(super) fn told(&self) -> String {
        let reasons = self.reasons_by_driver();
        let reasons = reasons.iter().map(|reasons| format!("closes of {reasons}"));
        let amiss = self.amiss.iter().map(|amiss| format!("- {amiss}"));
        let lines: Vec<String> = std::iter::once(self.summary())
            .chain(reasons)
            .chain(self.lives.told())
            .chain(amiss)
            .collect();
        lines.join("\n")
    }

    /// Reasons of closes that were right, of those told, for each driver.
    fn reasons_by_driver(&self) -> Vec<String> {
        let lines = self.closes_by_driver.iter().map(|(driver, by_reason)| {
            let by_reason = REASONS.iter().zip(by_reason);
            let told = by_reason.filter(|(_, (_, told))| *told > 0);
            let words = told.map(|(reason, (right, told))| format!("{reason} {right} of {told}"));
            format!("{driver}: {}", words.collect::<Vec<_>>().join(", "))
        });
        lines.collect()
    }

    /// Figures that are worse than is demanded of them, and what they are owed to.
    pub(super) fn unmet(&self) -> Vec<String> {
        let demanded = [
            (
                "cleared pools found",
                self.clears_paired,
                self.clears_true,
                CLEARS_MIN,
            ),
            (
                "cleared pools real",
                self.clears_paired,
                self.clears_inferred,
                CLEARS_MIN,
            ),
            (
                "numbers of mongo clients exact",
                self.mongo_clients_right,
                self.instances,
                1.0,
            ),
            (
                "opened, closed and open connections as drivers tell",
                self.pools_right,
                self.pools,
                1.0,
            ),
            (
                "the same from journals",
                self.pools_replayed,
                self.pools,
                1.0,
            ),
            (
                "active and idle connections of applications at rest",
                self.rested_right,
                self.rested,
                1.0,
            ),
        ];
        let missed = demanded.into_iter().filter(|(_, part, whole, least)| {
            proportion(*part, *whole).is_some_and(|share| share < *least)
        });
        let mut unmet: Vec<String> = missed
            .map(|(what, part, whole, least)| {
                format!("{what}: {part} of {whole}, and {least} of them are demanded")
            })
            .collect();
        if !unmet.is_empty() {
            let owed_to = self.amiss.iter().filter(|line| !is_measured_only(line));
            unmet.extend(owed_to.map(|line| format!("- {line}")));
        }
        unmet
    }

    /// Whether the reasons of closes are not those of the drivers, over many cases.
    pub(super) fn reasons_unmet(&self) -> Option<String> {
        let (right, closes) = (self.closes_in_peace_right, self.closes_in_peace);
        let is_met = proportion(right, closes).is_none_or(|share| share >= REASONS_MIN);
        (!is_met).then(|| {
            format!("{OF_REASONS} as drivers tell: {right} of {closes}, and {REASONS_MIN} of them are demanded")
        })
    }

    fn summary(&self) -> String {
        let share = |part: u64, whole: u64| {
            proportion(part, whole).map_or_else(
                || "none".to_owned(),
                |share| format!("{share:.3} ({part} of {whole})"),
            )
        };
        format!(
            "pool clears: recall {}, precision {}, beginning within a second of each other {}; mongo clients per instance exact {}; opened, closed and open as CMAP {}, \
             replayed {}, without any allowance {}, sockets closed but not noticed by the driver in {} of them, {} created \
             and lacking where {} may be; active and idle at rest {}; reasons of closes {}, without those at a server's limit {}, beside {} that ended \
             before they said whose they are",
            share(self.clears_paired, self.clears_true),
            share(self.clears_paired, self.clears_inferred),
            share(self.clears_begun_together, self.clears_paired),
            share(self.mongo_clients_right, self.instances),
            share(self.pools_right, self.pools),
            share(self.pools_replayed, self.pools),
            share(self.pools_strict, self.pools),
            self.pools_unnoticed,
            self.lacking,
            self.lacking_allowed,
            share(self.rested_right, self.rested),
            share(self.closes_right, self.closes),
            share(self.closes_in_peace_right, self.closes_in_peace),
            self.closes_anonymous,
        )
    }
}

impl AddAssign for Scores {
    fn add_assign(&mut self, other: Self) {
        self.clears_true += other.clears_true;
        self.clears_inferred += other.clears_inferred;
        self.clears_paired += other.clears_paired;
        self.clears_begun_together += other.clears_begun_together;
        self.instances += other.instances;
        self.mongo_clients_right += other.mongo_clients_right;
        self.pools += other.pools;
        self.pools_right += other.pools_right;
        self.pools_replayed += other.pools_replayed;
        self.rested += other.rested;
        self.rested_right += other.rested_right;
        self.pools_strict += other.pools_strict;
        self.pools_unnoticed += other.pools_unnoticed;
        self.lacking += other.lacking;
        self.lacking_allowed += other.lacking_allowed;
        self.closes += other.closes;
        self.closes_right += other.closes_right;
        self.closes_in_peace += other.closes_in_peace;
        self.closes_in_peace_right += other.closes_in_peace_right;
        self.closes_anonymous += other.closes_anonymous;
        for (driver, by_reason) in other.closes_by_driver {
            let sums = self.closes_by_driver.entry(driver).or_default();
            for (sum, (right, told)) in sums.iter_mut().zip(by_reason) {
                sum.0 += right;
                sum.1 += told;
            }
        }
        self.lives.join(other.lives);
        self.amiss.extend(other.amiss);
    }
}

/// Why connections of an instance were closed, as its drivers tell.
fn told_reasons(apps: &[&Value], until: f64) -> [u64; REASONS.len()] {
    let mut sums = [0; REASONS.len()];
    for counts in apps.iter().map(|app| told::reasons(app, until)) {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sums
}

/// `None` of nothing.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn proportion(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Nothing is demanded of it case by case.
fn is_measured_only(amiss: &str) -> bool {
    amiss.contains(OF_REASONS) || amiss.contains(OF_BEGINNINGS)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds are enough")]
pub(super) fn seconds_of(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::judge::moment;
    use super::*;

    const AT: f64 = 1_795_947_800.0;

    /// An application that tells of two connections, one of them closed since, and of a pool cleared with it.
    fn app() -> Value {
        let event = |name: &str, connection: u64, ago: f64| json!({ "event": name, "connection": connection, "at": AT - ago });
        json!({
            "name": "orders", "address": "10.0.0.1", "driver": "node-7",
            "events": [
                event("created", 1, 60.0), event("ready", 1, 60.0), event("created", 2, 60.0), event("ready", 2, 60.0),
                event("pool_cleared", 0, 30.0), event("closed", 2, 30.0),
            ],
            "stats": {
                "source": "cmap", "clients": 1, "cleared": 1, "created": 2, "ready": 2, "closed": { "stale": 1 }, "open": 1,
            },
        })
    }

    #[track_caller]
    fn pools(opened: u64, closed: u64, open: u64, is_right: bool) {
        let app = app();
        let mut scores = Scores::default();
        let live = picture(opened, closed, 0, open);
        scores.score_pools("a case", &[&app], &live, 0);
        scores.score_replayed("a case", &[&app], &live, 0);
        assert_eq!(scores.unmet().is_empty(), is_right, "{:?}", scores.unmet());
    }

    /// What poolscope tells of the application's pool.
    fn picture(opened: u64, closed: u64, active: u64, idle: u64) -> Pooled {
        let pooled = json!({ "opened": opened, "closed": closed, "active": active, "idle": idle });
        let rows = [json!({ "address": "10.0.0.1", "app": "orders", "pooled": pooled })];
        let at = "2026-11-29T10:23:20.000000Z";
        assert!((moment(&json!(at)) - AT).abs() < 0.001);
        let clients = json!({ "at": at, "clients": rows });
        Pooled::live(&clients, &("10.0.0.1".to_owned(), "orders".to_owned())).unwrap()
    }

    #[test]
    fn what_is_in_use_although_the_application_is_at_rest_fails() {
        for (active, idle, is_right) in [(0, 1, true), (1, 0, false), (0, 0, false), (0, 2, false)]
        {
            let mut scores = Scores::default();
            scores.score_rest("a case", &[&app()], &picture(2, 1, active, idle), 0);
            assert_eq!(scores.unmet().is_empty(), is_right, "{active} {idle}");
        }
    }

    #[test]
    fn what_was_opened_is_open_or_closed() {
        pools(2, 0, 1, false);
        pools(2, 2, 1, false);
    }

    #[test]
    fn each_wrong_count_of_connections_fails() {
        pools(2, 1, 1, true);
        pools(3, 2, 1, false);
        pools(1, 0, 1, false);
        pools(2, 0, 2, false);
        pools(2, 2, 0, false);
    }

    #[test]
    fn each_wrong_number_of_mongo_clients_fails() {
        for (inferred, is_right) in [(0, false), (1, true), (2, false)] {
            let mut scores = Scores::default();
            scores.score_mongo_clients("a case", &[&app()], inferred);
            assert_eq!(scores.unmet().is_empty(), is_right, "{inferred}");
        }
    }

    #[track_caller]
    fn clears(inferred: &[f64], is_right: bool) {
        let mut scores = Scores::default();
        let inferred: Vec<Span> = inferred
            .iter()
            .map(|ago| (AT - ago, AT - ago + 0.1))
            .collect();
        scores.score_clears("a case", &episodes::told(&app(), AT - 20.0), &inferred);
        assert_eq!(scores.unmet().is_empty(), is_right, "{:?}", scores.unmet());
    }

    #[test]
    fn episodes_that_are_missed_or_invented_fail() {
        clears(&[30.0], true);
        clears(&[], false);
        clears(&[30.0, 10.0], false);
        clears(&[10.0], false);
        clears(&[30.0, 25.0], false);
    }

    #[test]
    fn one_in_twenty_closes_may_have_another_reason() {
        let app = app();
        let check = |case: &str, right: u64, wrong: u64, is_met: bool| {
            let mut scores = Scores::default();
            let told = [0, right + wrong, 0, 0];
            scores.score_reasons(case, &app, told, [0, right, wrong, 0], &mut 0);
            assert_eq!(scores.reasons_unmet().is_none(), is_met, "{case}");
        };
        check("server_crash/node-7", 19, 1, true);
        check("server_crash/node-7", 18, 1, false);
        check("pool_capacity/node-7", 0, 1, true);
    }

    #[test]
    fn two_in_a_hundred_episodes_may_be_missed_and_no_count_may_differ() {
        let mut scores = Scores {
            clears_true: 100,
            clears_inferred: 100,
            clears_paired: 98,
            ..Scores::default()
        };
        assert_eq!(scores.unmet(), [""; 0]);
        scores.clears_paired = 97;
        assert_eq!(scores.unmet().len(), 2);
        scores.clears_paired = 98;
        scores.pools = 1000;
        (scores.pools_right, scores.pools_replayed) = (999, 1000);
        assert_eq!(scores.unmet().len(), 1);
    }
}
