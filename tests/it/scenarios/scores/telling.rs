//! Scores in words, and which of them are worse than is demanded.

use super::{OF_BEGINNINGS, OF_REASONS, Scores};
use crate::scenarios::told::REASONS;

/// Episodes of cleared pools that are found, of those that drivers tell, and real, of those that are inferred.
const CLEARS_MIN: f64 = 0.98;

/// Reasons of closes that are as drivers tell, where pools are not cleared many times a second.
const REASONS_MIN: f64 = 0.95;

impl Scores {
    /// All figures, and every exception.
    pub(crate) fn told(&self) -> String {
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
    pub(crate) fn unmet(&self) -> Vec<String> {
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
    pub(crate) fn reasons_unmet(&self) -> Option<String> {
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

/// `None` of nothing.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn proportion(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Nothing is demanded of it case by case.
fn is_measured_only(amiss: &str) -> bool {
    amiss.contains(OF_REASONS) || amiss.contains(OF_BEGINNINGS)
}
