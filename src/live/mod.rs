//! The thread that reasons about live traffic.
//!
//! ```text
//! connections ──Entry──▶ bounded queue ──▶ thread: Sequencer ▶ Observer ──▶ picture, news, journal
//! ```
//!
//! Whoever moves bytes never waits for it: what finds no place in the channel is counted and lost.

mod lag;
mod picture;
mod reconcile;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel as unbounded, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::broadcast;

pub use picture::{ClientCounts, ClientKey, MongoClientRow, PoolPicture};

use self::lag::Lag;
use self::picture::{Counted, Easel};
use self::reconcile::Reconciler;
use crate::clients::Directory;
use crate::clock::Clock;
use crate::diagnose::{Incident, News};
use crate::journal::Journal;
use crate::observer::{Observer, Sequencer, TICK};
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{Entry, Witness};

/// Entries that may wait.
const CHANNEL_LEN: usize = 65_536;

/// News a subscriber may be behind.
const NEWS_LEN: usize = 256;

/// Time between two turns of the thread. It is not woken for each entry: what is told within a turn is reasoned about
/// together, and whoever forwards pays for no wake-up.
const TURN: Duration = Duration::from_millis(50);

/// Time between two looks at the counters of every connection.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for the thread to stop.
const STOP_MAX: Duration = Duration::from_secs(3);

/// The sending end; belongs to the directory.
///
/// The ring of a bounded channel is touched all round sooner or later, and then stays resident. This one takes memory
/// for what waits only, and is bounded by counting that.
#[derive(Debug)]
pub struct Feed {
    sender: Sender<Box<Entry>>,
    waiting: AtomicUsize,
    waiting_max: usize,
    lost: AtomicU64,
}

impl Witness for Feed {
    fn saw(&self, entry: Entry) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else if self.sender.send(Box::new(entry)).is_err() {
            // The thread has stopped: there is nobody to miss it.
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What the thread publishes.
#[derive(Debug)]
pub struct Findings {
    incidents: Mutex<Vec<Arc<Incident>>>,
    news: broadcast::Sender<News>,
    easel: Easel,
    lag: Lag,
    feed: Arc<Feed>,
}

impl Findings {
    /// Incidents, the newest first.
    pub fn incidents(&self) -> Vec<Arc<Incident>> {
        self.incidents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// News from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// What is inferred about mongo clients, at most a second old at `now`. May block for a moment.
    pub fn pool_picture(&self, now: Timestamp) -> Arc<PoolPicture> {
        self.easel.look(now)
    }

    /// How far behind the traffic the thread was or is, at most, lately.
    pub fn lag(&self, now: Timestamp) -> Duration {
        self.lag.at(now)
    }

    /// Entries that found no place.
    pub fn lost(&self) -> u64 {
        self.feed.lost()
    }
}

/// What is needed to start the thread once the directory stands.
#[derive(Debug)]
pub struct Reasoning {
    receiver: Receiver<Box<Entry>>,
    findings: Arc<Findings>,
}

/// A feed for the directory, what will be found, and what starts the thread.
pub fn channel() -> (Arc<Feed>, Arc<Findings>, Reasoning) {
    channel_of(CHANNEL_LEN)
}

fn channel_of(len: usize) -> (Arc<Feed>, Arc<Findings>, Reasoning) {
    let (sender, receiver) = unbounded();
    let feed = Arc::new(Feed {
        sender,
        waiting: AtomicUsize::new(0),
        waiting_max: len,
        lost: AtomicU64::new(0),
    });
    let findings = Arc::new(Findings {
        incidents: Mutex::default(),
        news: broadcast::channel(NEWS_LEN).0,
        easel: Easel::default(),
        lag: Lag::default(),
        feed: Arc::clone(&feed),
    });
    let reasoning = Reasoning {
        receiver,
        findings: Arc::clone(&findings),
    };
    (feed, findings, reasoning)
}

/// The running thread.
#[derive(Debug)]
pub struct Running {
    is_stopping: Arc<AtomicBool>,
    thread: Thread,
    has_stopped: Receiver<()>,
}

impl Running {
    /// Tells the observer what there still is, and closes the journal. Blocks until that is done, or has taken too
    /// long: a disk that hangs must not keep the process.
    pub fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        self.thread.unpark();
        // Nothing is ever sent: the other end goes with the thread.
        if self.has_stopped.recv_timeout(STOP_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the observer does not stop; what it has not written is lost");
        }
    }
}

impl Reasoning {
    /// Starts the thread, which records in `journal` what the observer is told.
    pub fn start(
        self,
        directory: Arc<Directory>,
        upstreams: Vec<UpstreamName>,
        clock: Clock,
        journal: Option<Journal>,
    ) -> std::io::Result<Running> {
        self.findings.easel.attend();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopping);
        let (stopped, has_stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || {
                self.run(&directory, upstreams, clock, journal, &stop);
                drop(stopped);
            })?;
        Ok(Running {
            is_stopping,
            thread: thread.thread().clone(),
            has_stopped,
        })
    }

    fn run(
        self,
        directory: &Directory,
        upstreams: Vec<UpstreamName>,
        clock: Clock,
        mut journal: Option<Journal>,
        stop: &AtomicBool,
    ) {
        let mut observer = Observer::new(upstreams);
        let mut sequencer = Sequencer::default();
        let mut counted = Counted::default();
        let mut reconciler = Reconciler::default();
        let mut published = 0;
        let mut sampled_at = clock.now();
        directory.announce_look(sampled_at + SAMPLE_EVERY);
        loop {
            std::thread::park_timeout(TURN);
            let now = clock.now();
            // What comes from now on waits for the next turn, so that turns end.
            let is_stopping = stop.load(Ordering::Acquire);
            let mut waited = Duration::ZERO;
            for entry in self.take() {
                waited = waited.max(now.since(entry.at));
                sequencer.push(entry);
            }
            if !is_stopping && now.since(sampled_at) >= SAMPLE_EVERY {
                let at = told_at(sampled_at + SAMPLE_EVERY, now);
                sampled_at = now;
                directory.announce_look(sampled_at + SAMPLE_EVERY);
                directory.sample(at, |entry| sequencer.push(entry));
                let lost = self.findings.lost();
                reconciler.look(lost, directory, observer.pools(), now, |entry| {
                    sequencer.push(entry);
                });
            }
            let mut news = Vec::new();
            let told = |entry: &Entry| {
                if let Some(journal) = &mut journal {
                    journal.told(entry);
                }
            };
            let until = if is_stopping {
                sequencer.tell_until(now, &mut observer, &mut news, told);
                now
            } else {
                sequencer.advance(now, &mut observer, &mut news, told)
            };
            if let Some(journal) = &mut journal {
                journal.passed(until, observer.pools());
            }
            self.publish(&observer, &mut published, news);
            self.findings.easel.paint(now, &observer, &mut counted);
            self.findings.lag.looked(now, waited);
            if is_stopping {
                if let Some(journal) = journal {
                    journal.close(until);
                }
                return;
            }
        }
    }

    /// What waits, a bounded number of entries.
    fn take(&self) -> impl Iterator<Item = Box<Entry>> {
        let waiting = &self.findings.feed.waiting;
        let taken = self.receiver.try_iter().take(CHANNEL_LEN);
        taken.inspect(|_| {
            waiting.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// `published` is how far the observer's incidents had changed when they were shown last.
    fn publish(&self, observer: &Observer, published: &mut u64, news: Vec<News>) {
        // How long something has lasted is no news, and whoever asks is to read it nevertheless.
        if *published != observer.changes() {
            *published = observer.changes();
            *self
                .findings
                .incidents
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = observer.incidents();
        }
        for one in news {
            // Nobody may be listening.
            drop(self.findings.news.send(one));
        }
    }
}

/// The moment of counters that were due at `due` and are read at `now`.
///
/// When this thread was held up, the time that passed meanwhile is gone through afterwards, tick by tick. Whoever
/// waits for a sign of life must know by then what the counters say, or would take our own pause for the server's.
fn told_at(due: Timestamp, now: Timestamp) -> Timestamp {
    if now.since(due) > TICK { due } else { now }
}

#[cfg(test)]
mod tests;
