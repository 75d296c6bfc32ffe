//! What was told of a burst, until it is known what became of the process.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::lives::Trail;
use super::super::{Signal, SignalKind};
use super::{ROLLOUT, is_own, was_troubled};
use crate::pools::{Connection, InstanceId, Pools};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

/// A driver whose connections were reset dials within this; the legacy pool waits for a second.
const REDIAL: Duration = Duration::from_millis(1300);

/// A finding that may have to be told again.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) last_at: Timestamp,
    pub(super) signal: Signal,
    /// How far its process had counted.
    pub(super) trail: Option<Trail>,
    pub(super) closed: BTreeSet<ConnectionId>,
    /// All that speaks of trouble before it is that the connections were reset from the client's side.
    pub(super) is_merely_reset: bool,
    /// Whether its process goes on is known from what was opened since.
    pub(super) is_followed: bool,
}

impl Told {
    pub(super) fn tell_again(&mut self, at: Timestamp, signals: &mut Vec<Signal>) {
        self.signal.seen_at = at;
        signals.push(self.signal.clone());
    }

    /// It was busy while the rest of its client was being closed, and ends now.
    pub(super) fn is_awaiting(&mut self, connection: &Connection) -> bool {
        let SignalKind::ClientClosed {
            group, still_busy, ..
        } = &mut self.signal.kind
        else {
            return false;
        };
        let is_of_it = self.signal.subject.instance == connection.instance
            && (self.signal.subject.mongo_client.is_none()
                || self.signal.subject.mongo_client == connection.mongo_client);
        let is_late = *still_busy > 0 && is_of_it && connection.opened_at <= self.last_at;
        if is_late && self.closed.insert(connection.id) {
            group.closed += 1;
            if connection.ended.is_some_and(|end| end.was_in_flight()) {
                group.add_in_flight(connection);
            }
            group.span = connection
                .ended
                .map_or(group.span, |end| end.at.since(self.signal.at));
        }
        is_late
    }

    /// A connection that was opened since tells whether the process goes on. True when it does tell.
    pub(super) fn follow(&mut self, fresh: &Connection, pools: &Pools) -> bool {
        let began_at = self.signal.at;
        let SignalKind::ClientClosed {
            is_replaced,
            is_alive,
            is_after_trouble,
            group,
            ..
        } = &mut self.signal.kind
        else {
            return false;
        };
        let Some(trail) = self.trail else {
            return false;
        };
        if self.is_followed || fresh.opened_at < began_at || self.closed.contains(&fresh.id) {
            return false;
        }
        let others = pools.connections().filter(|other| {
            other.instance == fresh.instance
                && other.is_open()
                && other.opened_at < began_at
                && !self.closed.contains(&other.id)
        });
        let Some(goes_on) = trail.goes_on(fresh, others) else {
            return false;
        };
        self.is_followed = true;
        *is_replaced |= !goes_on;
        if std::mem::take(&mut self.is_merely_reset) {
            let was_let_go = group.was_let_go(self.last_at, fresh.opened_at);
            *is_after_trouble = goes_on && !was_let_go;
        }
        *is_alive = Some(goes_on);
        true
    }

    /// Whether another process replaced it, which instances of the same application tell.
    pub(super) fn look_again(
        &mut self,
        at: Timestamp,
        instance: InstanceId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let began_at = self.signal.at;
        let Some(own) = pools.instance(instance) else {
            return;
        };
        let is_news = {
            let SignalKind::ClientClosed {
                is_replaced,
                is_after_trouble,
                ..
            } = &mut self.signal.kind
            else {
                return;
            };
            let mut is_news = false;
            if !*is_replaced {
                *is_replaced = pools.instances().any(|other| {
                    other.id != instance
                        && other.app == own.app
                        && other.first_seen + ROLLOUT > began_at
                });
                is_news |= *is_replaced;
            }
            // The kernel resets what a dead process had not read. A living one would have dialled again.
            if self.is_merely_reset && at.since(began_at) >= REDIAL {
                self.is_merely_reset = false;
                let has_dialled = pools.connections().any(|fresh| {
                    fresh.peer.ip().to_canonical() == own.address && fresh.opened_at >= began_at
                });
                *is_after_trouble = has_dialled;
                is_news |= !has_dialled;
            }
            if !*is_after_trouble && at.since(began_at) < Duration::from_secs(3) {
                *is_after_trouble = was_troubled(pools, instance, began_at);
                is_news |= *is_after_trouble;
            }
            is_news
        };
        let is_followed = !self.is_followed && {
            // Connections that came between the closes and their telling.
            let mut since = pools
                .connections()
                .filter(|fresh| is_own(fresh, instance) && fresh.opened_at >= began_at);
            since.any(|fresh| self.follow(fresh, pools))
        };
        if is_news || is_followed {
            self.tell_again(at, signals);
        }
    }
}
