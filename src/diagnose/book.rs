//! The incidents that are open, and the ones that were.

use std::collections::VecDeque;
use std::sync::Arc;

use super::rules::RULES;
use super::{Case, Incident, News};
use crate::detect::Signal;
use crate::pools::Pools;
use crate::time::Timestamp;

/// Which signal belongs to which case; which case is an incident.
#[derive(Debug, Default)]
pub struct Book {
    cases: Vec<Case>,
    open: Vec<Arc<Incident>>,
    closed: VecDeque<Arc<Incident>>,
}

impl Book {
    /// Takes signals in and looks at every case again.
    pub fn consider(
        &mut self,
        signals: Vec<Signal>,
        pools: &Pools,
        at: Timestamp,
        news: &mut Vec<News>,
    ) {
        for signal in signals {
            match self.cases.first_mut() {
                Some(case) => case.add(signal),
                None => self.cases.push(Case::default()),
            }
        }
        for case in &self.cases {
            let _opinions = RULES
                .into_iter()
                .flatten()
                .filter_map(|rule| rule(case, pools, at));
        }
        let _ = news;
    }

    /// Incidents, the newest first: open ones and those that closed lately.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.open.iter().rev().chain(self.closed.iter())
    }
}
