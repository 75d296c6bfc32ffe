//! Pools and what they went through.
//!
//! Source of the words: Connection Monitoring and Pooling specification § Events.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::clear::{self, Signs};
use super::closings::{Circumstances, Closing};
use super::household::Unclaimed;
use super::idle_times::IdleTimes;
use super::rates::{self, Rates};
use super::reasons::{CloseBasis, CloseReason, CloseReasons};
use super::sizes::Sizes;
use super::{Clear, Connection, Inferred, ReadySign};
use crate::connection::Role;
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

/// Closed connections that wait for an explanation; beyond it the oldest are taken for errors.
const CLOSINGS_MAX: usize = 1024;

pub(super) const MINUTE: Duration = Duration::from_mins(1);

/// One mongo client's pooled connections to one server.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Open right now.
    pub open: BTreeSet<ConnectionId>,
    /// Most open at once.
    pub peak: u64,
    /// With a request in flight, as sampled.
    pub active: u64,
    /// When the server answered its mongo client first: from then on it opens connections.
    pub ready_at: Option<Timestamp>,
    /// Who was answered then.
    pub ready_sign: ReadySign,
    /// Connections created so far.
    pub created: u64,
    /// Those of them that carried operations or authenticated, which only pooled connections do.
    pub used: u64,
    /// Those of them that got through their handshake and authentication.
    pub ready: u64,
    /// Connections closed so far, by reason.
    pub closed: CloseReasons,
    /// Operations so far.
    pub operations: u64,
    /// Connections closed and replaced by others.
    pub recycled: u64,
    /// Episodes in which it was cleared, oldest first; bounded.
    pub clears: Vec<Clear>,
    /// `maxPoolSize`.
    pub max_size: Option<Inferred<u64>>,
    /// `minPoolSize`.
    pub min_size: Option<Inferred<u64>>,
    /// `maxIdleTimeMS`.
    pub max_idle: Option<Inferred<Duration>>,
    /// Shares of its connections' idle time at 50, 90 and 99 percent of check-outs.
    pub idle_before_use: [Option<Duration>; 3],
    /// Since when every connection is active while the pool is as large as it was seen to get.
    pub saturated_since: Option<Timestamp>,
    /// How often it was looked at since then.
    pub saturated_looks: u32,
    /// Those with a request in flight.
    pub(super) busy: BTreeSet<ConnectionId>,
    pub(super) closings: VecDeque<Closing>,
    /// When it was cleared, more finely than by episodes.
    pub(super) signs: Signs,
    /// Connections that were closed and not replaced yet.
    to_be_replaced: u64,
    pub(super) rates: Rates,
    pub(super) idle_times: IdleTimes,
    sizes: Sizes,
}

impl Pool {
    /// Connections opened a second, over the last minute.
    pub fn sockets_per_second(&self, at: Timestamp) -> f64 {
        float(self.rates.within(MINUTE, at).opened) / MINUTE.as_secs_f64()
    }

    /// Operations that each connection carried so far, on the average.
    pub fn operations_per_connection(&self) -> Option<f64> {
        (self.created > 0).then(|| float(self.operations) / float(self.created))
    }

    /// Connections replaced a minute, over the last five.
    pub fn recycled_per_minute(&self, at: Timestamp) -> f64 {
        let minutes = rates::WINDOW.as_secs_f64() / MINUTE.as_secs_f64();
        float(self.rates.within(rates::WINDOW, at).replaced) / minutes
    }

    /// Connections replaced for each thousand operations, over the last five minutes.
    pub fn recycled_per_thousand_operations(&self, at: Timestamp) -> Option<f64> {
        let happened = self.rates.within(rates::WINDOW, at);
        (happened.operations > 0)
            .then(|| float(happened.replaced) * 1000.0 / float(happened.operations))
    }

    /// Connections opened beyond those that replaced others, a minute, over the last five.
    pub fn grown_per_minute(&self, at: Timestamp) -> f64 {
        let minutes = rates::WINDOW.as_secs_f64() / MINUTE.as_secs_f64();
        let happened = self.rates.within(rates::WINDOW, at);
        float(happened.opened.saturating_sub(happened.replaced)) / minutes
    }

    /// A connection became its own.
    pub(super) fn enter(&mut self, connection: &mut Connection) {
        self.created += 1;
        connection.is_counted = true;
        let opened_at = connection.opened_at;
        self.rates.at(opened_at).opened += 1;
        if self.to_be_replaced > 0 {
            self.to_be_replaced -= 1;
            self.recycled += 1;
            self.rates.at(opened_at).replaced += 1;
        }
        connection.operations_counted = 0;
        connection.is_ready_counted = false;
        connection.is_use_counted = false;
        self.count_progress(connection, opened_at);
        if connection.is_open() {
            self.open.insert(connection.id);
            self.note_activity(connection, opened_at);
            let is_unused = connection.last.operations == 0 && connection.role == Role::Unknown;
            if is_unused {
                self.sizes.filled_up(count(self.open.len()));
                self.min_size = self.sizes.min_size();
            }
        } else {
            self.note_closing(connection);
        }
        self.peak = self.peak.max(count(self.open.len())).max(1);
    }

    /// It had been cleared before it was known whose it is.
    pub(super) fn was_cleared(&mut self, sign: &Unclaimed) {
        self.signs.add(Some(sign.opened_at), sign.at);
        clear::sign(&mut self.clears, sign.at, sign.sign);
        if let Some(ready_at) = self.ready_at {
            clear::succeeded(&mut self.clears, ready_at, ready_at, self.ready_sign);
        }
    }

    /// The server answered its mongo client, where it did.
    pub(super) fn answered(&mut self, at: Option<Timestamp>, sign: ReadySign) {
        let Some(at) = at else {
            return;
        };
        if self.ready_at.is_none_or(|ready_at| at < ready_at) {
            self.ready_at = Some(at);
            self.ready_sign = sign;
        }
    }

    /// A connection turned out to be another's. It may have been taken for a monitor.
    pub(super) fn disown(&mut self, connection: &mut Connection) {
        if !std::mem::take(&mut connection.is_counted) {
            return;
        }
        self.created = self.created.saturating_sub(1);
        if std::mem::take(&mut connection.is_ready_counted) {
            self.ready = self.ready.saturating_sub(1);
        }
        if std::mem::take(&mut connection.is_use_counted) {
            self.used = self.used.saturating_sub(1);
        }
        self.operations = self
            .operations
            .saturating_sub(std::mem::take(&mut connection.operations_counted));
        self.open.remove(&connection.id);
        self.busy.remove(&connection.id);
        self.active = count(self.busy.len());
        self.closings
            .retain(|closing| closing.connection != connection.id);
    }

    /// Its counters were told.
    pub(super) fn sampled(&mut self, connection: &mut Connection, at: Timestamp) {
        self.count_progress(connection, at);
        let (before, last) = (&connection.before, &connection.last);
        let uses = last.operations.saturating_sub(before.operations);
        if uses > 0 && before.operations > 0 {
            let idle = if uses == 1 {
                last.from_client_at.since(before.from_server_at)
            } else {
                let passed = last.from_server_at.since(before.from_server_at);
                let idle = passed.saturating_sub(last.busy.saturating_sub(before.busy));
                idle / u32::try_from(uses).unwrap_or(u32::MAX)
            };
            self.rested(idle, uses);
        }
        self.note_activity(connection, at);
    }

    /// A connection was idle for so long before each of so many uses.
    pub(crate) fn rested(&mut self, idle: Duration, uses: u64) {
        self.idle_times.add(idle, uses);
        self.idle_before_use = self.idle_times.quantiles();
    }

    /// One of its connections ended.
    pub(super) fn ended(&mut self, connection: &mut Connection, at: Timestamp) {
        self.count_progress(connection, at);
        self.busy.remove(&connection.id);
        if self.open.remove(&connection.id) {
            self.note_closing(connection);
        }
        self.see_saturation(at);
    }

    /// It was cleared and does not work again yet.
    pub(super) fn is_cleared(&self) -> bool {
        self.clears
            .last()
            .is_some_and(|clear| clear.ready_at.is_none())
    }

    /// It was cleared, and works again since a moment after `at`.
    pub(super) fn is_ready_again(&self, at: Timestamp) -> bool {
        let ready_at = self.clears.last().and_then(|clear| clear.ready_at);
        ready_at.is_some_and(|ready_at| ready_at > at)
    }

    /// The connection accepted last, or one before it, is still open.
    pub(super) fn has_kept(&self, newest: ConnectionId) -> bool {
        self.open.first().is_some_and(|oldest| *oldest <= newest)
    }

    /// Takes in what turned out to be the same pool.
    pub(super) fn absorb(&mut self, other: Self) {
        self.open.extend(other.open);
        self.busy.extend(other.busy);
        self.active = count(self.busy.len());
        self.peak = self.peak.max(other.peak).max(count(self.open.len()));
        self.answered(other.ready_at, other.ready_sign);
        self.created += other.created;
        self.used += other.used;
        self.ready += other.ready;
        self.operations += other.operations;
        self.recycled += other.recycled;
        self.closed.join(other.closed);
        self.rates.absorb(other.rates);
        self.idle_times.absorb(&other.idle_times);
        self.closings.extend(other.closings);
        self.signs.absorb(other.signs);
        self.clears.extend(other.clears);
        self.clears.sort_by_key(|clear| clear.at);
    }

    fn note_closing(&mut self, connection: &Connection) {
        if let Some(closing) = Closing::of(connection) {
            if self.closings.len() >= CLOSINGS_MAX
                && let Some(oldest) = self.closings.pop_front()
            {
                self.explained(&oldest, CloseBasis::BrokenIdle);
            }
            self.closings.push_back(closing);
        }
    }

    /// Says why connections were closed, once what happened around it is known.
    pub(super) fn explain(&mut self, mut circumstances: Circumstances, at: Timestamp) {
        // What is closed in an outage needs no other explanation.
        circumstances.is_undecided &= !self.is_cleared();
        while let Some(closing) = self.closings.front().copied()
            && closing.is_due(circumstances, &self.signs, at)
        {
            self.closings.pop_front();
            let basis = closing.basis(circumstances, &self.clears, &self.signs);
            let mut clears = self.clears.iter_mut().rev();
            if let Some(clear) = clears.find(|clear| clear.takes_along(&closing)) {
                clear.closed += 1;
            }
            self.explained(&closing, basis);
        }
    }

    fn explained(&mut self, closing: &Closing, basis: CloseBasis) {
        self.closed.add(basis, 1);
        let reason = basis.reason();
        if reason != CloseReason::PoolClosed {
            self.to_be_replaced = (self.to_be_replaced + 1).min(self.peak);
        }
        if reason == CloseReason::Idle {
            self.sizes.closed_idle(closing.idle);
            self.max_idle = self.sizes.max_idle();
        }
    }

    fn count_progress(&mut self, connection: &mut Connection, at: Timestamp) {
        if connection.ready_at.is_some() && !connection.is_ready_counted {
            connection.is_ready_counted = true;
            self.ready += 1;
        }
        if !connection.is_use_counted && connection.has_worked() {
            connection.is_use_counted = true;
            self.used += 1;
        }
        let carried = connection.last.operations;
        let new = carried.saturating_sub(connection.operations_counted);
        if new > 0 {
            connection.operations_counted = carried;
            self.operations += new;
            self.rates.at(at).operations += new;
        }
    }

    fn note_activity(&mut self, connection: &Connection, at: Timestamp) {
        if connection.last.in_flight > 0 {
            self.busy.insert(connection.id);
        } else {
            self.busy.remove(&connection.id);
        }
        self.see_saturation(at);
    }

    fn see_saturation(&mut self, at: Timestamp) {
        self.active = count(self.busy.len());
        let open = count(self.open.len());
        if self.active == open && open > 1 && open >= self.peak {
            let since = *self.saturated_since.get_or_insert(at);
            self.saturated_looks = self.saturated_looks.saturating_add(1);
            self.sizes.saturated(open, at.since(since));
        } else {
            self.saturated_since = None;
            self.saturated_looks = 0;
            self.sizes.grew_to(open);
        }
        self.max_size = self.sizes.max_size();
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are read by people")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
