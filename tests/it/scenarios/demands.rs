//! What all cases together must come to: below it the suite fails.

use std::collections::BTreeMap;

use super::judge::Verdict;
use super::scores::Scores;
use super::table::Scenario;

/// Cases with the right cause at first rank, of all.
const RIGHT_MIN: f64 = 0.95;

/// Runs of each of [`OFTEN`], at least, when everything is played.
const HEALTHY_RUNS_MIN: usize = 20;

/// What services go through every day, and nobody may be alarmed by.
pub(super) const OFTEN: [&str; 6] = [
    "steady",
    "deploy",
    "scale_out",
    "idle_recycling",
    "health_checks",
    "graceful_close",
];

/// How often a scenario must be played when everything is.
pub(super) fn healthy_runs(scenario: &str) -> usize {
    if OFTEN.contains(&scenario) {
        HEALTHY_RUNS_MIN
    } else {
        1
    }
}

/// Of what cases are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Extent {
    /// Of those that were asked for: nothing is demanded that only all together can come to.
    #[default]
    Part,
    /// Of all that were recorded at some time.
    AllRecorded,
    /// Of all, played now.
    AllPlayed,
}

/// What cases came to, and their pool figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    extent: Extent,
    /// Runs by scenario that were played to their end.
    played: BTreeMap<&'static str, usize>,
    cases: usize,
    right: usize,
    /// Those without the right cause, and what was said instead; what was not played to its end has none.
    wrong: Vec<String>,
    /// Runs in which nothing was wrong, and somebody was alarmed.
    alarmed: Vec<String>,
    /// Cases with an alarm that was late.
    late: Vec<String>,
    scores: Scores,
    /// From the moment from which the evidence sufficed to the alarm, in seconds, by scenario.
    waited: BTreeMap<&'static str, Vec<f64>>,
}

impl Tally {
    pub(super) fn new(extent: Extent) -> Self {
        Self {
            extent,
            ..Self::default()
        }
    }

    /// Takes in a case; one that was not played has no figures.
    pub(super) fn add(
        &mut self,
        name: &str,
        scenario: &'static Scenario,
        verdict: &Verdict,
        scores: Scores,
    ) {
        self.cases += 1;
        *self.played.entry(scenario.name).or_default() += usize::from(verdict.is_played);
        let said = || format!("{name}: {}", verdict.faults.join("; "));
        if verdict.is_cause_right && verdict.is_played {
            self.right += 1;
        } else {
            self.wrong.push(said());
        }
        if scenario.is_healthy() && !verdict.causes.is_empty() {
            self.alarmed.push(said());
        }
        if verdict.is_late {
            self.late.push(said());
        }
        self.scores += scores;
        if let Some(waited) = verdict.waited {
            self.waited.entry(scenario.name).or_default().push(waited);
        }
    }

    /// All figures.
    pub(super) fn told(&self) -> String {
        let waited = self.waited.iter().map(|(name, waited)| {
            let mut waited = waited.clone();
            waited.sort_by(f64::total_cmp);
            let (median, most) = (waited[waited.len() / 2], waited[waited.len() - 1]);
            let count = waited.len();
            format!("{name} told {median:.2} s after its evidence sufficed, {most:.2} s at most, of {count}")
        });
        let lines: Vec<String> = waited.chain([self.scores.told()]).collect();
        lines.join("\n")
    }

    /// What is demanded and was not reached, with the cases that it is owed to.
    fn unmet(&self) -> Vec<String> {
        let mut unmet = Vec::new();
        if self.cases == 0 {
            unmet.push("no case was judged".to_owned());
        }
        if share(self.right, self.cases) < RIGHT_MIN {
            unmet.push(format!(
                "the right cause in {} of {} cases, and {RIGHT_MIN} of them are demanded:\n{}",
                self.right,
                self.cases,
                listed(&self.wrong)
            ));
        }
        if !self.alarmed.is_empty() {
            let alarmed = listed(&self.alarmed);
            unmet.push(format!("alarms although nothing was wrong:\n{alarmed}"));
        }
        if !self.late.is_empty() {
            unmet.push(format!("told late:\n{}", listed(&self.late)));
        }
        unmet.extend(self.scores.unmet());
        match self.extent {
            Extent::Part => {}
            Extent::AllRecorded => unmet.extend(self.scores.reasons_unmet()),
            Extent::AllPlayed => {
                unmet.extend(self.scores.reasons_unmet());
                unmet.extend(self.seldom_played());
            }
        }
        unmet
    }

    /// Healthy scenarios that were not played often enough.
    fn seldom_played(&self) -> impl Iterator<Item = String> {
        OFTEN.iter().filter_map(|name| {
            let runs = self.played.get(name).copied().unwrap_or(0);
            let is_seldom = runs < HEALTHY_RUNS_MIN;
            is_seldom.then(|| format!("{runs} runs of {name}, and {HEALTHY_RUNS_MIN} are demanded"))
        })
    }

    /// Fails unless everything that is demanded was reached.
    #[track_caller]
    pub(super) fn assert_met(&self) {
        let unmet = self.unmet();
        assert!(unmet.is_empty(), "{}", unmet.join("\n"));
    }
}

/// A part of a whole; of nothing everything.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    part as f64 / whole as f64
}

fn listed(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("- {line}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::table::SCENARIOS;
    use super::*;

    fn scenario(name: &str) -> &'static Scenario {
        let mut scenarios = SCENARIOS.iter();
        scenarios.find(|scenario| scenario.name == name).unwrap()
    }

    fn verdict(causes: &[&str], is_cause_right: bool) -> Verdict {
        Verdict {
            causes: causes.iter().map(|&cause| cause.to_owned()).collect(),
            is_cause_right,
            is_played: true,
            ..Verdict::not_played(String::new())
        }
    }

    /// Adds so many cases of each kind, and looks for words in what is unmet; nothing is when there are none.
    #[track_caller]
    fn check(cases: &[(usize, &str, Verdict)], expected: &[&str]) {
        let mut tally = Tally::default();
        for (count, name, verdict) in cases {
            for _ in 0..*count {
                tally.add(name, scenario(name), verdict, Scores::default());
            }
        }
        let unmet = tally.unmet();
        assert_eq!(unmet.len(), expected.len(), "{unmet:?}");
        for (unmet, words) in unmet.iter().zip(expected) {
            assert!(unmet.contains(words), "{unmet}");
        }
    }

    #[test]
    fn one_case_in_twenty_may_have_another_cause() {
        let right = verdict(&["server_crash"], true);
        let wrong = verdict(&["failover"], false);
        check(
            &[
                (19, "server_crash", right.clone()),
                (1, "server_crash", wrong.clone()),
            ],
            &[],
        );
        check(
            &[(18, "server_crash", right), (1, "server_crash", wrong)],
            &["in 18 of 19 cases"],
        );
    }

    #[test]
    fn what_was_not_played_was_not_shown() {
        let mut broken_off = verdict(&["server_crash"], true);
        broken_off.is_played = false;
        for unplayed in [
            Verdict::not_played("not played: no mongod".to_owned()),
            broken_off,
        ] {
            check(&[(1, "server_crash", unplayed)], &["in 0 of 1 cases"]);
        }
        check(&[], &["no case was judged"]);
    }

    #[test]
    fn no_share_of_right_cases_makes_up_for_a_false_alarm() {
        check(
            &[
                (1000, "steady", verdict(&[], true)),
                (1, "steady", verdict(&["server_crash"], false)),
            ],
            &["although nothing was wrong"],
        );
    }

    #[test]
    fn healthy_scenarios_are_to_be_played_twenty_times_where_everything_is() {
        let cases = [
            (Extent::Part, 1, 0),
            (Extent::AllRecorded, 1, 0),
            (Extent::AllPlayed, 19, 6),
            (Extent::AllPlayed, 20, 0),
        ];
        for (extent, runs, expected) in cases {
            let mut tally = Tally::new(extent);
            for name in OFTEN {
                for _ in 0..runs {
                    let verdict = verdict(&[], true);
                    tally.add(name, scenario(name), &verdict, Scores::default());
                }
            }
            let unmet = tally.unmet();
            assert_eq!(unmet.len(), expected, "{unmet:?}");
        }
    }

    #[test]
    fn one_late_alarm_fails() {
        let late = Verdict {
            is_late: true,
            ..verdict(&["server_crash"], true)
        };
        check(
            &[
                (1000, "server_crash", verdict(&["server_crash"], true)),
                (1, "server_crash", late),
            ],
            &["told late"],
        );
    }
}
