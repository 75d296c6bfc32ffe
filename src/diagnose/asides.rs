//! What goes with trouble: it neither opens nor joins cases, nor does it keep them open.
//!
//! It may be told before the trouble is, so it waits for a while. Whether it goes with a case changes only when one of
//! the two does, or when upstreams turn out to be one replica set: nothing else is compared again.
//!
//! **Invariant:** what waits is bounded.

use std::collections::VecDeque;
use std::time::Duration;

use super::Case;
use super::kinship::{Tone, are_kin};
use crate::detect::Signal;
use crate::pools::{Pools, Upstream};
use crate::time::Timestamp;

/// What goes with trouble may be told so long before the trouble is.
pub(super) const ASIDES_KEPT: Duration = Duration::from_secs(30);

/// So many of them wait; beyond, the oldest go.
pub(super) const ASIDES_MAX: usize = 1024;

/// What goes with trouble, as told lately.
#[derive(Debug, Default)]
pub(super) struct Asides {
    waiting: VecDeque<Aside>,
    /// Replica sets of the upstreams, as known when they were dealt last.
    sets: Vec<Option<String>>,
}

#[derive(Debug)]
struct Aside {
    signal: Signal,
    /// It was told, or told again, since they were dealt last.
    is_new: bool,
}

impl Asides {
    /// Takes one in; a telling of one that is there replaces it.
    pub(super) fn add(&mut self, signal: Signal) {
        let aside = Aside {
            signal,
            is_new: true,
        };
        let mut known = self.waiting.iter_mut();
        if let Some(known) = known.find(|known| known.signal.tells_of(&aside.signal)) {
            *known = aside;
            return;
        }
        if self.waiting.len() >= ASIDES_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(aside);
    }

    /// Lets them accompany the cases of trouble that they belong to; of each case it is said whether it changed since
    /// this was done last.
    pub(super) fn deal<'a>(
        &mut self,
        cases: impl Iterator<Item = (&'a mut Case, bool)>,
        pools: &Pools,
        at: Timestamp,
    ) {
        self.waiting
            .retain(|aside| at.since(aside.signal.seen_at) < ASIDES_KEPT);
        let are_sets_new = self.learn_sets(pools);
        for (case, has_changed) in cases {
            let is_open = |aside: &&Aside| has_changed || are_sets_new || aside.is_new;
            for aside in self.waiting.iter().filter(is_open) {
                if are_kin(case, None, &aside.signal, Tone::Aside, pools) {
                    case.accompany(&aside.signal);
                }
            }
        }
        for aside in &mut self.waiting {
            aside.is_new = false;
        }
    }

    /// True when a replica set is known by another name than before.
    fn learn_sets(&mut self, pools: &Pools) -> bool {
        let sets = || pools.upstreams().iter().map(Upstream::set_name);
        let are_new = !sets().eq(self.sets.iter().map(Option::as_deref));
        if are_new {
            self.sets = sets().map(|set| set.map(ToOwned::to_owned)).collect();
        }
        are_new
    }
}
