//! Pools that replace connections which were idle for too long (`maxIdleTimeMS`).
//!
//! Each is closed by its client with nothing in flight, after at least the same time without a byte; the server and
//! the network have nothing to do with it. Node 3.x closes idle sockets at `socketTimeoutMS` as well: that is no
//! habit of a pool and not told here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Detector, Signal, SignalKind, Taken, about, is_of_a_client, is_own, make_room, was_troubled,
};
use crate::connection::{Initiator, Manner, Phase};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::{ConnectionId, Fact};

/// Idle for less, a connection is closed for another reason.
const AGE_MIN: Duration = Duration::from_millis(400);

/// Closes that show a habit.
const COUNT_MIN: u64 = 3;

/// When it is known that a close was not part of a client's end.
const JUDGED_AFTER: Duration = Duration::from_millis(1500);

/// The habit is over when nothing was closed for so long.
const OVER_AFTER: Duration = Duration::from_mins(1);

/// Told again while it goes on.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Closes that wait for judgement.
const WAITING_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Recycling {
    waiting: Vec<Close>,
    habits: BTreeMap<InstanceId, Habit>,
}

#[derive(Debug)]
struct Close {
    at: Timestamp,
    instance: InstanceId,
    connection: ConnectionId,
    age: Duration,
}

#[derive(Debug)]
struct Habit {
    first_at: Timestamp,
    last_at: Timestamp,
    told_at: Timestamp,
    shortest: Duration,
    count: u64,
    moments: u64,
}

impl Detector for Recycling {
    fn record(&mut self, taken: &Taken<'_>, _: &mut Vec<Signal>) {
        let (entry, connection) = (taken.entry, taken.connection);
        if let Fact::Ended(_) = &entry.fact
            && let Some(instance) = connection.instance
            && is_idle_close(connection)
            && self.waiting.len() < WAITING_MAX
        {
            self.waiting.push(Close {
                at: entry.at,
                instance,
                connection: connection.id,
                age: connection.idle_age(entry.at),
            });
        }
    }

    fn tick(&mut self, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        let due: Vec<Close> = self
            .waiting
            .extract_if(.., |close| at.since(close.at) >= JUDGED_AFTER)
            .collect();
        for close in due {
            self.judge(&close, at, pools, signals);
        }
        self.habits
            .retain(|_, habit| at.since(habit.last_at) < OVER_AFTER);
    }
}

/// Closed by its client, in the orderly way, with nothing in flight, after it had worked.
fn is_idle_close(connection: &Connection) -> bool {
    connection.ended.is_some_and(|end| {
        end.ending.initiator == Initiator::Client
            && end.ending.manner == Manner::Fin
            && end.ending.phase == Phase::Idle
            && connection.idle_age(end.at) >= AGE_MIN
    }) && is_of_a_client(connection)
        && !connection.role.is_monitor()
        && connection.said_goodbye_at.is_none()
        && connection.last.operations > 0
}

impl Recycling {
    fn judge(&mut self, close: &Close, at: Timestamp, pools: &Pools, signals: &mut Vec<Signal>) {
        let Some(connection) = pools.connection(close.connection) else {
            return;
        };
        let own = || {
            pools.connections().filter(|other| {
                is_own(other, close.instance)
                    && (connection.mongo_client.is_none()
                        || other.mongo_client == connection.mongo_client)
            })
        };
        let is_client_there = own().any(Connection::is_open);
        let is_farewell = own().any(|other| {
            other
                .said_goodbye_at
                .is_some_and(|said| said + Duration::from_secs(2) >= close.at)
        });
        if !is_client_there
            || is_farewell
            || connection.has_legacy_pool
            || was_troubled(pools, close.instance, close.at)
            || was_troubled(pools, close.instance, at)
        {
            return;
        }
        make_room(&mut self.habits, close.instance);
        let habit = self.habits.entry(close.instance).or_insert(Habit {
            first_at: close.at,
            last_at: Timestamp::default(),
            told_at: Timestamp::default(),
            shortest: close.age,
            count: 0,
            moments: 0,
        });
        habit.shortest = habit.shortest.min(close.age);
        habit.count += 1;
        habit.moments += u64::from(close.at.since(habit.last_at) > AGE_MIN / 2);
        habit.last_at = close.at;
        if habit.count < COUNT_MIN || habit.moments < 2 || at.since(habit.told_at) < TELL_EVERY {
            return;
        }
        habit.told_at = at;
        signals.push(about(
            connection.upstream,
            close.instance,
            habit.first_at,
            at,
            SignalKind::IdleRecycling {
                age: habit.shortest,
                closed: habit.count,
            },
        ));
    }
}
