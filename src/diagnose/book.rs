//! The incidents that are open, and the ones that were.
//!
//! A signal joins the case that it shares upstream (or replica set), clients and time with, or begins one. A case
//! becomes an incident when a rule is sure enough, and stays one, under the same id, until nothing was heard of it
//! for a while. Signs of healthy change have cases of their own: they neither raise an alarm nor hide one.
//!
//! **Invariant:** open cases, signals of a case and closed incidents are bounded.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::asides::Asides;
use super::kinship::{Tone, are_kin, tone};
use super::rules::RULES;
use super::telling::{self, Verdict};
use super::{Case, Cause, Incident, IncidentId, News, Opinion, Severity};
use crate::detect::Signal;
use crate::pools::Pools;
use crate::time::Timestamp;

/// Sure enough to open an incident.
pub(super) const SURE: f64 = 0.5;

/// Less than this is no cause worth naming.
const NAMED: f64 = 0.05;

/// A change of confidence that is told.
const CONFIDENCE_STEP: f64 = 0.1;

/// How much better another cause must be to take the first rank of an open incident.
pub(super) const LEAD: f64 = 0.05;

/// Quiet for so long, a case is over. Detectors tell of what goes on at least every few seconds.
pub(super) const QUIET: Duration = Duration::from_secs(15);

/// A server that cannot be reached keeps its incident open for so long without anyone trying.
pub(super) const UNREACHABLE_MAX: Duration = Duration::from_mins(5);

/// Open cases; beyond, the one heard of longest ago goes.
pub(super) const CASES_MAX: usize = 64;

/// Closed incidents that are kept.
pub(super) const CLOSED_MAX: usize = 200;

/// Which signal belongs to which case; which case is an incident.
#[derive(Debug, Default)]
pub struct Book {
    cases: Vec<Entry>,
    asides: Asides,
    closed: VecDeque<Arc<Incident>>,
    last_id: u64,
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    case: Case,
    tone: Tone,
    incident: Option<Arc<Incident>>,
    /// Signals came to it since asides were dealt last.
    has_grown: bool,
}

impl Book {
    /// Takes signals in; what they mean is considered on the next tick.
    pub fn add(
        &mut self,
        signals: Vec<Signal>,
        pools: &Pools,
        at: Timestamp,
        news: &mut Vec<News>,
    ) {
        for signal in signals {
            self.file(signal, pools, at, news);
        }
    }

    /// Takes signals in and looks at every case again.
    pub fn consider(
        &mut self,
        signals: Vec<Signal>,
        pools: &Pools,
        at: Timestamp,
        news: &mut Vec<News>,
    ) {
        self.add(signals, pools, at, news);
        let troubles = self.cases.iter_mut();
        let troubles = troubles.filter(|entry| entry.tone == Tone::Trouble);
        let troubles = troubles.map(|entry| (&mut entry.case, mem::take(&mut entry.has_grown)));
        self.asides.deal(troubles, pools, at);
        for entry in &mut self.cases {
            self.changes += u64::from(entry.judge(pools, at, &mut self.last_id, news));
        }
        for entry in self
            .cases
            .extract_if(.., |entry| entry.is_over(pools, at))
            .collect::<Vec<_>>()
        {
            let over_at = entry.case.heard_at();
            self.close(entry, over_at, news);
        }
    }

    /// Grows with every change of what [`Self::incidents`] gives, be it news or not.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Incidents, the newest first: open ones and those that closed lately.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        let mut open: Vec<&Arc<Incident>> = self
            .cases
            .iter()
            .filter_map(|entry| entry.incident.as_ref())
            .collect();
        open.sort_by_key(|incident| std::cmp::Reverse(incident.id));
        open.into_iter().chain(self.closed.iter())
    }

    fn file(&mut self, signal: Signal, pools: &Pools, at: Timestamp, news: &mut Vec<News>) {
        let tone = tone(&signal.kind);
        if tone == Tone::Aside {
            self.asides.add(signal);
            return;
        }
        // What is told again stays where it was told first.
        let known = self
            .cases
            .iter()
            .position(|entry| entry.case.knows(&signal));
        if let Some(entry) = known.and_then(|known| self.cases.get_mut(known)) {
            entry.take_in(signal, pools);
            return;
        }
        let mut kin: Vec<Entry> = self
            .cases
            .extract_if(.., |entry| {
                let cause = entry.incident.as_ref().map(|incident| incident.cause());
                entry.tone == tone && are_kin(&entry.case, cause, &signal, tone, pools)
            })
            .collect();
        // The older incident keeps its number.
        kin.sort_by_key(|entry| {
            let id = entry
                .incident
                .as_ref()
                .map_or(u64::MAX, |incident| incident.id.0);
            (id, entry.case.began_at())
        });
        let mut kin = kin.into_iter();
        let mut entry = kin.next().unwrap_or_else(|| Entry {
            case: Case::default(),
            tone,
            incident: None,
            has_grown: true,
        });
        let older = entry.incident.as_ref().map(|incident| incident.id);
        for other in kin {
            if let Some(incident) = other.incident {
                // Whoever was told of it finds it, and what became of it.
                let incident = Incident {
                    closed_at: Some(at),
                    merged_into: older,
                    ..(*incident).clone()
                };
                self.put_away(incident, news);
            }
            entry.case.absorb(other.case);
        }
        entry.take_in(signal, pools);
        self.cases.push(entry);
        if self.cases.len() > CASES_MAX {
            let oldest = (0..self.cases.len()).min_by_key(|&at| self.cases[at].case.heard_at());
            if let Some(oldest) = oldest {
                let oldest = self.cases.remove(oldest);
                self.close(oldest, at, news);
            }
        }
    }

    fn close(&mut self, entry: Entry, over_at: Timestamp, news: &mut Vec<News>) {
        if let Some(incident) = entry.incident {
            let incident = Incident {
                closed_at: Some(over_at.max(incident.opened_at)),
                ..(*incident).clone()
            };
            self.put_away(incident, news);
        }
    }

    fn put_away(&mut self, incident: Incident, news: &mut Vec<News>) {
        let incident = Arc::new(incident);
        self.closed.push_front(Arc::clone(&incident));
        self.closed.truncate(CLOSED_MAX);
        news.push(News::Closed(incident));
        self.changes += 1;
    }
}

impl Entry {
    fn take_in(&mut self, signal: Signal, pools: &Pools) {
        self.case.concern(&signal, pools);
        self.case.add(signal);
        self.has_grown = true;
    }

    /// Asks every rule; opens the incident or tells what changed about it. True when anything did, be it news or not.
    fn judge(
        &mut self,
        pools: &Pools,
        at: Timestamp,
        last_id: &mut u64,
        news: &mut Vec<News>,
    ) -> bool {
        let opinions: Vec<Opinion> = RULES
            .into_iter()
            .flatten()
            .filter_map(|rule| rule(&self.case, pools, at))
            .filter(|opinion| opinion.confidence > NAMED)
            .collect();
        let held = self.incident.as_ref().map(|incident| incident.cause());
        let Some(verdict) = rank(opinions, held) else {
            return false;
        };
        let Some(first) = verdict.causes.first() else {
            return false;
        };
        let Some(known) = &self.incident else {
            if first.confidence < SURE {
                return false;
            }
            *last_id += 1;
            let incident = telling::incident(IncidentId(*last_id), &self.case, verdict, pools, at);
            let incident = Arc::new(incident);
            news.push(News::Opened(Arc::clone(&incident)));
            self.incident = Some(incident);
            return true;
        };
        if first.confidence < SURE {
            // Nothing explains it better than what was said before.
            return false;
        }
        let mut incident = telling::incident(known.id, &self.case, verdict, pools, at);
        if incident.cause() == known.cause() {
            incident.opened_at = incident.opened_at.min(known.opened_at);
        }
        incident.evident_at = known.evident_at;
        incident.detected_at = known.detected_at;
        if incident == **known {
            return false;
        }
        let incident = Arc::new(incident);
        if is_news(known, &incident) {
            news.push(News::Updated(Arc::clone(&incident)));
        }
        self.incident = Some(incident);
        true
    }

    /// Nothing was heard of it for a while, and what it was about is over.
    fn is_over(&self, pools: &Pools, at: Timestamp) -> bool {
        let quiet = at.since(self.case.heard_at());
        if quiet < QUIET {
            return false;
        }
        let is_unreachable = self.incident.is_some()
            && pools
                .upstream(self.case.upstream())
                .is_some_and(|upstream| upstream.unreachable_since.is_some());
        !is_unreachable || quiet >= UNREACHABLE_MAX
    }
}

/// Whether something changed that a reader must hear of.
fn is_news(before: &Incident, now: &Incident) -> bool {
    let aggravations = |incident: &Incident| -> Vec<Cause> {
        let all = incident.aggravations.iter();
        all.map(|aggravation| aggravation.cause).collect()
    };
    before.cause() != now.cause()
        || before.severity != now.severity
        || before.clients != now.clients
        || before.logged != now.logged
        || (before.confidence() - now.confidence()).abs() > CONFIDENCE_STEP
        || aggravations(before) != aggravations(now)
}

/// The best opinion first. `held` is the cause at first rank so far.
pub(super) fn rank(mut opinions: Vec<Opinion>, held: Option<Cause>) -> Option<Verdict> {
    let weight = |opinion: &Opinion| {
        let is_held = held == Some(opinion.cause);
        opinion.confidence + if is_held { LEAD } else { 0.0 }
    };
    opinions.sort_by(|a, b| {
        class(b)
            .cmp(&class(a))
            .then(weight(b).total_cmp(&weight(a)))
            .then(a.cause.cmp(&b.cause))
    });
    let first = opinions.first()?;
    let (cause, evident_at) = (first.cause, first.evident_at);
    let (aggravations, causes) = opinions.into_iter().partition(|opinion| {
        opinion.cause == Cause::ReconnectStorm
            && cause != Cause::ReconnectStorm
            && opinion.confidence >= SURE
    });
    Some(Verdict {
        evident_at,
        causes,
        aggravations,
    })
}

/// What is sure outranks what is not; among what is sure, what is healthy does not outrank an alarm, a storm of
/// reconnects does not outrank what set it off, and `unknown` outranks nothing.
fn class(opinion: &Opinion) -> u8 {
    if opinion.confidence < SURE {
        0
    } else if opinion.cause == Cause::Unknown {
        1
    } else if opinion.cause.severity() == Severity::Info {
        2
    } else if opinion.cause == Cause::ReconnectStorm {
        3
    } else {
        4
    }
}
