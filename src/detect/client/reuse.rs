//! Connections that are not used again: opened for an operation each, then closed or left.
//!
//! Pools exist to use connections again. Where each operation opens one, connections grow with operations. A pool that
//! grows opens connections for single operations, too, but only while all that it has are at work: what counts is
//! opened after another had done its work. It is a finding beside others: who makes clients for each request, dials in
//! a loop or replaces idle connections after an instant is told elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{
    Detector, Signal, SignalKind, Taken, about, is_of_a_client, is_own, make_room, was_troubled,
};
use crate::pools::{Connection, Instance, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact};

/// Connections opened within this are looked at.
const WINDOW: Duration = Duration::from_secs(10);

/// Connections of an instance that are looked at: the newest.
const CONNECTIONS_MAX: usize = 256;

/// Counters are told once a second: what a connection did is known after this.
const KNOWN_AFTER: Duration = Duration::from_millis(1200);

/// So many connections show a habit.
const OPENED_MIN: u64 = 8;

/// A connection that has rested for so long was at hand.
const AT_HAND: Duration = Duration::from_millis(50);

/// What carried no more was not used again.
const OPERATIONS_MAX: u64 = 1;

/// The share of connections that carried no more, in percent.
const SHARE_PERCENT: u64 = 80;

/// A connection that carried more is used again.
const OPERATIONS_OF_A_POOL: u64 = 3;

/// Counters tell no more than once a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The name of Java's driver before 4.x.
const JAVA: &str = "mongo-java-driver";

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Reuse {
    looked_at: Timestamp,
    opened: BTreeMap<InstanceId, VecDeque<ConnectionId>>,
    episodes: BTreeMap<InstanceId, Episode>,
}

#[derive(Debug)]
struct Episode {
    began_at: Timestamp,
    told_at: Timestamp,
}

/// A connection whose first second is known.
#[derive(Clone, Copy, Debug)]
struct Life {
    opened_at: Timestamp,
    operations: u64,
    /// When it had done its work; `None` while it works, or where it was ended in the middle of it.
    rests_since: Option<Timestamp>,
    is_closed: bool,
}

impl Life {
    /// Without the operations by which its driver greets, and says goodbye.
    fn of(connection: &Connection, greeting: u64) -> Self {
        let last = &connection.last;
        let manners = greeting + u64::from(connection.said_goodbye_at.is_some());
        // A goodbye may be left unanswered.
        let rests = match connection.ended {
            Some(end) => !end.was_in_flight(),
            None => last.in_flight == 0,
        };
        Self {
            opened_at: connection.opened_at,
            operations: last.operations.saturating_sub(manners),
            rests_since: rests.then_some(last.from_server_at),
            is_closed: connection.ended.is_some(),
        }
    }
}

/// What the connections of an instance did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lives {
    opened: u64,
    closed: u64,
    operations: u64,
    single: u64,
    needless: u64,
    first_at: Timestamp,
    newest_at: Timestamp,
}

impl Lives {
    fn of(lives: &[Life]) -> Self {
        let count = |is_it: &dyn Fn(&Life) -> bool| {
            let many = lives.iter().filter(|life| is_it(life)).count();
            u64::try_from(many).unwrap_or(u64::MAX)
        };
        let at_hand = lives.iter().filter_map(|life| life.rests_since).min();
        let at_hand = at_hand.map(|since| since + AT_HAND);
        let moments = || lives.iter().map(|life| life.opened_at);
        Self {
            opened: count(&|_| true),
            closed: count(&|life| life.is_closed),
            operations: lives.iter().map(|life| life.operations).sum(),
            single: count(&|life| life.operations <= OPERATIONS_MAX && life.rests_since.is_some()),
            needless: count(&|life| at_hand.is_some_and(|since| life.opened_at > since)),
            first_at: moments().min().unwrap_or_default(),
            newest_at: moments().max().unwrap_or_default(),
        }
    }

    /// `reused` are older connections that go on working.
    const fn is_habit(&self, reused: u64) -> bool {
        self.needless >= OPENED_MIN
            && self.single * 100 >= self.opened * SHARE_PERCENT
            && reused * 2 <= self.opened
    }
}

impl Detector for Reuse {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        if !matches!(entry.fact, Fact::Introduced { .. }) {
            return;
        }
        let Some(instance) = connection.instance else {
            return;
        };
        make_room(&mut self.opened, instance);
        let opened = self.opened.entry(instance).or_default();
        if opened.len() >= CONNECTIONS_MAX {
            opened.pop_front();
        }
        opened.push_back(connection.id);
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        self.opened.retain(|_, opened| {
            while let Some(oldest) = opened.front() {
                let oldest = pools.connection(*oldest);
                if oldest.is_some_and(|oldest| at.since(oldest.opened_at) <= WINDOW) {
                    break;
                }
                opened.pop_front();
            }
            !opened.is_empty()
        });
        if at.since(self.looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at = at;
        let opened = &self.opened;
        self.episodes.retain(|id, _| opened.contains_key(id));
        for (instance, opened) in &self.opened {
            let known = self.episodes.get(instance);
            let is_due = known.is_none_or(|known| at.since(known.told_at) >= TELL_EVERY);
            let is_enough = u64::try_from(opened.len()).is_ok_and(|many| many >= OPENED_MIN);
            if !is_due || !is_enough {
                continue;
            }
            let own = || opened.iter().filter_map(|id| pools.connection(*id));
            let greeting = greeting(pools.instance(*instance));
            // What carries nothing is no pool's, or dialled for another reason.
            let known = own()
                .filter(|one| is_known(one, at))
                .map(|one| Life::of(one, greeting));
            let worked: Vec<Life> = known.filter(|life| life.operations > 0).collect();
            let lives = Lives::of(&worked);
            let Some(upstream) = own().next().map(|one| one.upstream) else {
                continue;
            };
            if lives.needless < OPENED_MIN || !lives.is_habit(reused(pools, *instance, at)) {
                continue;
            }
            if !self.episodes.contains_key(instance) && was_troubled(pools, *instance, at) {
                continue;
            }
            let episode = self.episodes.entry(*instance).or_insert(Episode {
                began_at: lives.first_at,
                told_at: at,
            });
            episode.told_at = at;
            signals.push(about(
                upstream,
                *instance,
                episode.began_at,
                at,
                SignalKind::NoReuse {
                    opened: lives.opened,
                    closed: lives.closed,
                    operations: lives.operations,
                    needless: lives.needless,
                    window: lives.newest_at.since(lives.first_at),
                },
            ));
        }
    }
}

/// Operations that a driver sends on each connection by itself: Java's of 3.x asks for `buildInfo` and `getLastError`.
fn greeting(instance: Option<&Instance>) -> u64 {
    let is_java = instance.is_some_and(|own| own.client.driver_name.starts_with(JAVA));
    if is_java { 2 } else { 0 }
}

/// It carries operations of its application, and what it did in its first second is known.
fn is_known(connection: &Connection, at: Timestamp) -> bool {
    let is_old = connection.ended.is_some() || at.since(connection.opened_at) >= KNOWN_AFTER;
    is_old
        && is_of_a_client(connection)
        && !connection.role.is_monitor()
        && !connection.found.is_monitor()
        && connection.ready_at.is_some()
}

/// Older connections of the instance that go on working.
fn reused(pools: &Pools, instance: InstanceId, at: Timestamp) -> u64 {
    let is_it = |connection: &&Connection| {
        is_own(connection, instance)
            && connection.is_open()
            && !connection.role.is_monitor()
            && connection.last.operations >= OPERATIONS_OF_A_POOL
            && at.since(connection.opened_at) > WINDOW
            && at.since(connection.last.from_client_at) <= WINDOW
    };
    let many = pools.connections().filter(is_it).count();
    u64::try_from(many).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    /// Opened at a moment, at work for so long.
    fn life(opened: u64, works: u64, operations: u64) -> Life {
        let opened_at = AT + Duration::from_millis(opened);
        Life {
            opened_at,
            operations,
            rests_since: Some(opened_at + Duration::from_millis(works)),
            is_closed: false,
        }
    }

    #[track_caller]
    fn check(lives: &[Life], reused: u64, expected: bool) {
        let lives = Lives::of(lives);
        assert_eq!(lives.is_habit(reused), expected, "{lives:?}");
    }

    fn one_after_the_other(operations: u64) -> Vec<Life> {
        (0..9)
            .map(|number| life(100 * number, 5, operations))
            .collect()
    }

    #[test]
    fn a_connection_for_each_operation_is_no_reuse() {
        check(&one_after_the_other(1), 0, true);
        let lives = Lives::of(&one_after_the_other(1));
        assert_eq!((lives.opened, lives.operations, lives.needless), (9, 9, 8));
    }

    #[test]
    fn connections_that_carry_much_are_used_again() {
        check(&[], 0, false);
        check(&one_after_the_other(5), 0, false);
    }

    #[test]
    fn a_pool_that_grows_opens_connections_while_all_are_at_work() {
        let growing: Vec<Life> = (0..20).map(|number| life(10 * number, 500, 1)).collect();
        check(&growing, 0, false);
    }

    #[test]
    fn a_few_connections_that_fail_to_be_used_again_beside_a_working_pool_are_no_habit() {
        check(&one_after_the_other(1), 4, true);
        check(&one_after_the_other(1), 5, false);
    }

    #[test]
    fn what_works_on_is_not_left() {
        let mut lives = one_after_the_other(1);
        for life in lives.iter_mut().skip(1).step_by(2) {
            life.rests_since = None;
        }
        check(&lives, 0, false);
    }
}
