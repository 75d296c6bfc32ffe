//! What the threads that forward share: where each is reached, and how much it has to do.
//!
//! A worker owns its connections; nobody else touches them. Whoever wants something of them leaves an order in the
//! worker's inbox and wakes it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::Shared;
use super::connection::Accepted;
use super::listener::Acceptor;
use super::rhythm::Rhythm;
use crate::clients::{ConnectionId, DialFailure};

/// How many connections more than the least loaded worker one may have before it hands new ones over. Handing
/// over costs a wake-up of another thread.
const IMBALANCE: usize = 2;

/// Time between two looks at whether all connections have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Part of the drain time over which the calls are spread; the rest is for exchanges under way.
const SPREAD_PARTS: (u32, u32) = (3, 4);

/// Something a worker is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Take connections from here.
    Accept(Acceptor),
    /// Take over a connection that was accepted elsewhere.
    Settle(Box<Accepted>),
    /// The name of an upstream was resolved for a connection that waits in a place.
    Resolved {
        place: usize,
        connection: ConnectionId,
        addresses: Result<Vec<SocketAddr>, DialFailure>,
    },
    /// Ask the kernel about sockets.
    Sample,
    /// Accept no more, and end every connection at its next moment of rest, spread over this time.
    Drain(Duration),
    /// End every connection.
    EndNow,
    /// End the thread.
    Stop,
}

/// All workers, as others see them.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    /// Where names are resolved, and sampling is timed.
    control: Handle,
}

#[derive(Debug)]
struct Member {
    orders: Mutex<Vec<Order>>,
    waker: mio::Waker,
    open: AtomicUsize,
}

/// A connection's place on a worker; counted for as long as it is held.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) worker: usize,
    crew: Arc<Crew>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(member) = self.crew.members.get(self.worker) {
            member.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Crew {
    /// A crew whose members are woken by `wakers`.
    pub(super) fn new(wakers: Vec<mio::Waker>, control: Handle) -> Self {
        let member = |waker| Member {
            orders: Mutex::default(),
            waker,
            open: AtomicUsize::new(0),
        };
        Self {
            members: wakers.into_iter().map(member).collect(),
            control,
        }
    }

    /// Connections open now.
    pub fn open_count(&self) -> usize {
        let loads = self.members.iter().map(Member::load);
        loads.sum()
    }

    /// A seat for a connection that was accepted on worker `here`: there, unless another has clearly fewer.
    pub(super) fn seat(self: &Arc<Self>, here: usize) -> Seat {
        let load_here = self.members.get(here).map_or(0, Member::load);
        let least = self
            .members
            .iter()
            .enumerate()
            .min_by_key(|(_, member)| member.load());
        let worker = match least {
            Some((other, member)) if member.load() + IMBALANCE < load_here => other,
            _ => here,
        };
        if let Some(member) = self.members.get(worker) {
            member.open.fetch_add(1, Ordering::Relaxed);
        }
        Seat {
            worker,
            crew: Arc::clone(self),
        }
    }

    /// Leaves an order for a worker and wakes it.
    pub(super) fn order(&self, worker: usize, order: Order) {
        let Some(member) = self.members.get(worker) else {
            return;
        };
        member.lock().push(order);
        if let Err(error) = member.waker.wake() {
            tracing::error!(worker, %error, "cannot wake a worker");
        }
    }

    /// The orders left for a worker since it last asked.
    pub(super) fn orders_of(&self, worker: usize) -> Vec<Order> {
        let member = self.members.get(worker);
        member.map_or_else(Vec::new, |member| std::mem::take(&mut *member.lock()))
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for worker in 0..self.members.len() {
            self.order(worker, order());
        }
    }

    /// Accepts no more, ends every connection within `time`, and returns when all have ended; those that have not
    /// when the time is up are ended at once.
    pub async fn drain(&self, time: Duration) {
        let spread = time * SPREAD_PARTS.0 / SPREAD_PARTS.1;
        self.order_all(|| Order::Drain(spread));
        if tokio::time::timeout(time, self.ended()).await.is_err() {
            self.order_all(|| Order::EndNow);
            // Waiting for the last one keeps the counts exact.
            self.ended().await;
        }
    }

    /// Waits until no connection is left.
    async fn ended(&self) {
        let mut pause = tokio::time::interval(LOOK_EVERY);
        while self.open_count() > 0 {
            pause.tick().await;
        }
    }

    /// Has the sockets of every worker's connections sampled for ever, about once a second.
    pub(super) async fn sample_forever(self: Arc<Self>, shared: Arc<Shared>) {
        let mut rhythm = Rhythm::default();
        loop {
            let due = rhythm.due(shared.clock.now(), shared.directory.next_look());
            if let Some(wait) = due {
                tokio::time::sleep(wait).await;
            } else {
                self.order_all(|| Order::Sample);
            }
        }
    }

    /// Where tasks of the process run.
    pub(super) const fn control(&self) -> &Handle {
        &self.control
    }

    /// Ends all threads.
    pub(super) fn stop(&self) {
        self.order_all(|| Order::Stop);
    }

    /// Resolves the name of an upstream for a connection of a worker.
    pub(super) fn resolve(
        self: &Arc<Self>,
        worker: usize,
        place: usize,
        connection: ConnectionId,
        name: String,
    ) {
        let crew = Arc::clone(self);
        self.control.spawn(async move {
            let found: io::Result<Vec<SocketAddr>> =
                tokio::net::lookup_host(name).await.map(Iterator::collect);
            let addresses = found.map_err(|_| DialFailure::Dns);
            crew.order(
                worker,
                Order::Resolved {
                    place,
                    connection,
                    addresses,
                },
            );
        });
    }
}

impl Member {
    fn load(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
