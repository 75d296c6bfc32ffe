//! Threads that forward.
//!
//! Each worker is a thread with a runtime of its own: a connection stays on its thread for life, so that its
//! two sockets, its tap and the thread's scratch buffer never cross cores. The kernel deals new connections to
//! the workers' listening sockets by hash; one that would tip the balance is handed to the worker with the
//! fewest open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::tcp_info::sample_forever;

/// How many connections more than the least loaded worker one may have before it hands new ones over. Handing
/// over costs a wake-up and a second registration of the socket.
const IMBALANCE: usize = 2;

/// The threads that forward.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    open: Arc<AtomicUsize>,
}

/// A connection's place on a worker; counted for as long as it is held.
#[derive(Debug)]
pub(super) struct Seat {
    worker: usize,
    open: Arc<AtomicUsize>,
}

impl Seat {
    pub(super) fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` threads (at least one).
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let workers = (0..count.max(1))
            .map(|number| Worker::start(number, stop.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self { workers, stop })
    }

    /// The runtime of a worker.
    pub(super) fn handle(&self, worker: usize) -> &Handle {
        &self.workers[worker].handle
    }

    /// A seat for a connection that was accepted on worker `here`: there, unless another has clearly fewer.
    pub(super) fn seat(&self, here: usize) -> Seat {
        let load = |worker: &Worker| worker.open.load(Ordering::Relaxed);
        let least = self
            .workers
            .iter()
            .enumerate()
            .min_by_key(|(_, worker)| load(worker));
        let chosen = match least {
            Some((other, worker)) if load(worker) + IMBALANCE < load(&self.workers[here]) => other,
            _ => here,
        };
        let open = Arc::clone(&self.workers[chosen].open);
        open.fetch_add(1, Ordering::Relaxed);
        Seat {
            worker: chosen,
            open,
        }
    }
}

impl Drop for Workers {
    /// Ends the threads; connections still open on them are closed.
    fn drop(&mut self) {
        self.stop.cancel();
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

impl Worker {
    fn start(number: usize, stop: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("relay-{number}"))
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sample_forever() => {}
                    }
                });
            })?;
        Ok(Self {
            handle,
            thread: Some(thread),
            open: Arc::default(),
        })
    }
}
