//! Threads that forward.
//!
//! Each worker is a thread with an event loop of its own: a connection stays on its thread for life, so that its
//! two sockets, its tap and the thread's scratch buffer never cross cores. The kernel deals new connections to
//! the workers' listening sockets by hash; one that would tip the balance is handed to the worker with the
//! fewest open.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::Poll;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::Shared;
use super::crew::Crew;
use super::worker::{self, Worker};

/// The threads that forward; dropped, they end, and connections still open on them are closed.
#[derive(Debug)]
pub struct Workers {
    crew: Arc<Crew>,
    polls: Vec<Poll>,
    threads: Vec<JoinHandle<()>>,
    sampling: Option<AbortHandle>,
}

impl Workers {
    /// Makes ready for `count` threads (at least one). To be called where `tokio` runs, which resolves names.
    pub fn new(count: usize) -> io::Result<Self> {
        let polls = (0..count.max(1))
            .map(|_| Poll::new())
            .collect::<io::Result<Vec<_>>>()?;
        let wakers = polls
            .iter()
            .map(|poll| mio::Waker::new(poll.registry(), worker::WAKE))
            .collect::<io::Result<_>>()?;
        let control = Handle::current();
        Ok(Self {
            crew: Arc::new(Crew::new(wakers, control)),
            polls,
            threads: Vec::new(),
            sampling: None,
        })
    }

    /// Where the workers are reached.
    pub fn crew(&self) -> Arc<Crew> {
        Arc::clone(&self.crew)
    }

    /// Starts the threads.
    pub fn start(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let sampling = self.crew().sample_forever(Arc::clone(shared));
        let sampling = self.crew.control().spawn(sampling);
        self.sampling = Some(sampling.abort_handle());
        for (number, poll) in std::mem::take(&mut self.polls).into_iter().enumerate() {
            let worker = Worker::new(number, poll, Arc::clone(shared), self.crew());
            let thread = std::thread::Builder::new()
                .name(format!("relay-{number}"))
                .spawn(move || worker.run())?;
            self.threads.push(thread);
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(sampling) = &self.sampling {
            sampling.abort();
        }
        self.crew.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}
