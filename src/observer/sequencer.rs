//! Entries in the order of their moments, and ticks between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Observer;
use crate::diagnose::News;
use crate::time::Timestamp;
use crate::timeline::Entry;

/// Ticks come at multiples of this since the epoch.
pub const TICK: Duration = Duration::from_millis(250);

/// Some looks come with one tick in several. The first tick is at the last multiple of this before anything happened, so
/// that they come at the same moments whenever the watching began: a journal begins later than the proxy that wrote it,
/// and may lack its first files.
const ROUND: Duration = Duration::from_secs(1);

/// Entries of different connections are read by different threads, so an earlier one may come later; by no more
/// than this, unless a thread is held up.
const HOLD: Duration = Duration::from_millis(100);

/// How much of a silence is gone through tick by tick from its beginning. Whatever is remembered for a time only, for
/// a quarter of an hour at the most, is forgotten by then; what is left does not change with more time.
const SETTLED: Duration = Duration::from_mins(20);

/// And how much up to its end: what is over by age is found over by these.
const WAKING: Duration = Duration::from_secs(30);

/// Drives an [`Observer`].
///
/// **Invariant:** a step of time, however long, takes no more ticks than `SETTLED` and `WAKING` have: moments that a damaged file
/// holds, or a process that was stopped for weeks, cannot keep it busy.
#[derive(Debug, Default)]
pub struct Sequencer {
    /// By moment, then in order of arrival. A second's counters of all connections come at once, and moments rise, so
    /// nodes stay half empty: boxes keep them small.
    waiting: BTreeMap<(Timestamp, u64), Box<Entry>>,
    arrived: u64,
    /// Everything up to here was told.
    told_until: Timestamp,
    /// Ticks came up to here; `None` before time begins.
    ticked_until: Option<Timestamp>,
}

impl Sequencer {
    /// An entry arrived.
    pub fn push(&mut self, entry: impl Into<Box<Entry>>) {
        let mut entry: Box<Entry> = entry.into();
        self.arrived += 1;
        // What comes too late for its place is told next, so that time never runs backwards.
        let at = entry.at.max(self.told_until);
        entry.at = at;
        self.waiting.insert((at, self.arrived), entry);
    }

    /// It is `now`: tells the observer what can no longer be overtaken, and returns up to when. `told` sees each
    /// entry in its final order.
    pub fn advance(
        &mut self,
        now: Timestamp,
        observer: &mut Observer,
        news: &mut Vec<News>,
        told: impl FnMut(&Entry),
    ) -> Timestamp {
        let until = now - HOLD;
        self.tell_until(until, observer, news, told);
        until
    }

    /// Tells everything there is, up to `until`; what came too late for its place, too.
    pub fn tell_until(
        &mut self,
        until: Timestamp,
        observer: &mut Observer,
        news: &mut Vec<News>,
        mut told: impl FnMut(&Entry),
    ) {
        let until = until.max(self.told_until);
        while let Some(first) = self.waiting.first_entry() {
            let at = first.key().0;
            if at > until {
                break;
            }
            let entry = first.remove();
            self.tick_until(at, observer, news);
            told(&entry);
            observer.record(&entry, news);
        }
        self.tick_until(until, observer, news);
    }

    fn tick_until(&mut self, at: Timestamp, observer: &mut Observer, news: &mut Vec<News>) {
        let ticked_until = self.ticked_until.unwrap_or_else(|| beginning(at));
        for due in ticks(ticked_until, at) {
            observer.tick(due, news);
        }
        self.ticked_until = Some(ticked_until.max(at));
        self.told_until = self.told_until.max(at);
    }
}

/// The moments of the grid after `from` up to `until`; of a long silence those at its ends.
fn ticks(from: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> {
    let settled_at = from + SETTLED;
    let waking_at = until - WAKING;
    let next = move |at: Timestamp| {
        let next = next_on_grid(at)?;
        let is_skipped = next > settled_at && next <= waking_at;
        let next = if is_skipped {
            next_multiple(ROUND, waking_at)?
        } else {
            next
        };
        (next <= until).then_some(next)
    };
    std::iter::successors(next(from), move |at| next(*at))
}

/// The moment just before the tick with which time begins where the first thing happens `at`.
fn beginning(at: Timestamp) -> Timestamp {
    at.floor(ROUND) - Duration::from_nanos(1)
}

/// The first moment of the grid after `at`; after the last that can be told there is none.
fn next_on_grid(at: Timestamp) -> Option<Timestamp> {
    next_multiple(TICK, at)
}

fn next_multiple(of: Duration, at: Timestamp) -> Option<Timestamp> {
    let of = u64::try_from(of.as_nanos()).ok()?;
    let next = (at.as_nanos() / of).checked_add(1)?.checked_mul(of)?;
    Some(Timestamp::from_nanos(next))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::timeline::lines::UpstreamName;
    use crate::timeline::{ConnectionId, Fact, Opened, UpstreamId};

    /// Ticks that one step takes at the most.
    const TICKS_MAX: usize = (20 * 60 + 30) * 4;

    const BEGAN_AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    fn observer() -> Observer {
        let name = UpstreamName {
            name: "db".to_owned(),
            address: "10.0.0.5:27017".to_owned(),
        };
        Observer::new(vec![name])
    }

    fn opened(at: Timestamp, connection: u64) -> Entry {
        let peer: SocketAddr = "10.0.1.9:40122".parse().unwrap();
        Entry {
            at,
            connection: ConnectionId(connection),
            fact: Fact::Opened(Opened {
                upstream: UpstreamId(0),
                peer,
            }),
        }
    }

    #[test]
    fn the_grid_ends_where_moments_end() {
        let check = |at: u64, expected: Option<u64>| {
            let next = next_on_grid(Timestamp::from_nanos(at));
            assert_eq!(next.map(Timestamp::as_nanos), expected, "after {at}");
        };
        let last = u64::MAX / 250_000_000 * 250_000_000;
        check(0, Some(250_000_000));
        check(249_999_999, Some(250_000_000));
        check(250_000_000, Some(500_000_000));
        check(last - 1, Some(last));
        check(last, None);
        check(u64::MAX, None);
    }

    #[test]
    fn the_first_tick_is_at_the_beginning_of_a_second_and_none_is_missing_after_it() {
        for millis in [0, 1, 249, 250, 600, 999] {
            let at = BEGAN_AT + Duration::from_millis(millis);
            let ticked: Vec<Timestamp> = ticks(beginning(at), BEGAN_AT + ROUND).collect();
            let expected: Vec<Timestamp> = (0..=4).map(|count| BEGAN_AT + TICK * count).collect();
            assert_eq!(ticked, expected, "{millis} ms");
        }
    }

    #[test]
    fn a_short_silence_is_gone_through_tick_by_tick() {
        let until = BEGAN_AT + SETTLED + WAKING;
        let ticked: Vec<Timestamp> = ticks(BEGAN_AT, until).collect();
        assert_eq!(ticked.len(), TICKS_MAX);
        assert!(ticked.windows(2).all(|two| two[1].since(two[0]) == TICK));
        assert_eq!(ticked.last(), Some(&until));
    }

    #[test]
    fn of_a_long_silence_both_ends_are_gone_through() {
        let until = BEGAN_AT + Duration::from_hours(24 * 365 * 50);
        let ticked: Vec<Timestamp> = ticks(BEGAN_AT, until).collect();
        assert_eq!(ticked.len(), TICKS_MAX - 3);
        let gaps: Vec<_> = ticked
            .windows(2)
            .filter(|two| two[1].since(two[0]) > TICK)
            .collect();
        assert_eq!(gaps, [[BEGAN_AT + SETTLED, until - WAKING + ROUND]]);
        assert_eq!(ticked.last(), Some(&until));
    }

    #[test]
    fn what_follows_an_entry_of_the_far_future_is_told_at_once() {
        let mut sequencer = Sequencer::default();
        let mut observer = observer();
        let mut told = Vec::new();
        let mut tell = |at: Timestamp, connection: u64| {
            sequencer.push(opened(at, connection));
            sequencer.tell_until(at, &mut observer, &mut Vec::new(), |entry| {
                told.push((entry.at, entry.connection.0));
            });
        };
        let last = Timestamp::from_nanos(u64::MAX);
        tell(BEGAN_AT, 1);
        tell(last, 2);
        tell(BEGAN_AT + TICK, 3);
        tell(last, 4);
        assert_eq!(told, [(BEGAN_AT, 1), (last, 2), (last, 3), (last, 4)]);
    }

    /// Moments of all magnitudes, and those at both ends.
    fn moment() -> impl Strategy<Value = Timestamp> {
        prop_oneof![
            any::<u64>(),
            (0..3_u64).prop_map(|few| u64::MAX - few),
            0..3_u64,
            (any::<u64>(), 0..64_u32).prop_map(|(nanos, bits)| nanos >> bits),
        ]
        .prop_map(Timestamp::from_nanos)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn no_step_takes_more_ticks_than_agreed(from in moment(), until in moment()) {
            let mut before = from;
            for (count, at) in (1..).zip(ticks(from, until)) {
                prop_assert!(count <= TICKS_MAX);
                prop_assert!(before < at && at <= until);
                before = at;
            }
        }

        #[test]
        fn any_moments_are_told_in_order(moments in prop::collection::vec(moment(), 1..8)) {
            let mut sequencer = Sequencer::default();
            let mut observer = observer();
            let mut told = Vec::new();
            for (number, at) in (1..).zip(&moments) {
                sequencer.push(opened(*at, number));
                sequencer.advance(*at, &mut observer, &mut Vec::new(), |entry| told.push(entry.at));
            }
            let last = Timestamp::from_nanos(u64::MAX);
            sequencer.tell_until(last, &mut observer, &mut Vec::new(), |entry| told.push(entry.at));
            prop_assert!(told.is_sorted());
            prop_assert_eq!(told.len(), moments.len());
        }
    }
}
