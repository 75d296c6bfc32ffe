//! How well poolscope infers what pools went through, beside the drivers' own events.
//!
//! | module | what it is for |
//! |---|---|
//! | [`references`] | what drivers tell, as far as it can be relied on |
//! | [`telling`] | the figures in words, and those that are worse than is demanded |

mod references;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde_json::Value;

use self::references::{all_tell, at_rest, references, told_reasons};
use super::episodes;
use super::inferred::{Inferred, infer};
use super::lives::Calibration;
use super::pooled::{Agreement, Pooled};
use super::told::REASONS;

pub(super) use references::{is_rest_told, is_undecided};

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

#[expect(clippy::cast_precision_loss, reason = "microseconds are enough")]
pub(super) fn seconds_of(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
