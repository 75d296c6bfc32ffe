//! The thread that reasons about live traffic.
//!
//! ```text
//! connection tasks ──Entry──▶ bounded channel ──▶ thread: Sequencer ▶ Observer ──▶ picture, news, journal
//! ```
//!
//! Whoever moves bytes never waits for it: what finds no place in the channel is counted and lost.

mod picture;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

pub use picture::{ClientCounts, ClientKey, MongoClientRow, PoolPicture};

use self::picture::{Counted, Easel};
use crate::clients::Directory;
use crate::clock::Clock;
use crate::diagnose::{Incident, News};
use crate::observer::{Observer, Sequencer};
use crate::time::Timestamp;
use crate::timeline::lines::UpstreamName;
use crate::timeline::{Entry, Witness};

/// Entries that may wait.
const CHANNEL_LEN: usize = 65_536;

/// News a subscriber may be behind.
const NEWS_LEN: usize = 256;

/// The thread looks at the time at least this often.
const TURN: Duration = Duration::from_millis(50);

/// Time between two looks at the counters of every connection.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// The sending end; belongs to the directory.
#[derive(Debug)]
pub struct Feed {
    sender: SyncSender<Entry>,
    lost: AtomicU64,
}

impl Witness for Feed {
    fn saw(&self, entry: Entry) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(entry) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the thread publishes.
#[derive(Debug)]
pub struct Findings {
    incidents: Mutex<Vec<Arc<Incident>>>,
    news: broadcast::Sender<News>,
    easel: Easel,
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

    /// Entries that found no place.
    pub fn lost(&self) -> u64 {
        self.feed.lost.load(Ordering::Relaxed)
    }
}

/// What is needed to start the thread once the directory stands.
#[derive(Debug)]
pub struct Reasoning {
    receiver: Receiver<Entry>,
    findings: Arc<Findings>,
}

/// A feed for the directory, what will be found, and what starts the thread.
pub fn channel() -> (Arc<Feed>, Arc<Findings>, Reasoning) {
    let (sender, receiver) = sync_channel(CHANNEL_LEN);
    let feed = Arc::new(Feed {
        sender,
        lost: AtomicU64::new(0),
    });
    let findings = Arc::new(Findings {
        incidents: Mutex::default(),
        news: broadcast::channel(NEWS_LEN).0,
        easel: Easel::default(),
        feed: Arc::clone(&feed),
    });
    let reasoning = Reasoning {
        receiver,
        findings: Arc::clone(&findings),
    };
    (feed, findings, reasoning)
}

impl Reasoning {
    /// Starts the thread; it ends with the process. `told` sees each entry in its final order.
    pub fn start(
        self,
        directory: Arc<Directory>,
        upstreams: Vec<UpstreamName>,
        clock: Clock,
        mut told: impl FnMut(&Entry) + Send + 'static,
    ) -> std::io::Result<()> {
        self.findings.easel.attend();
        std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || {
                let mut observer = Observer::new(upstreams);
                let mut sequencer = Sequencer::default();
                let mut counted = Counted::default();
                let mut sampled_at = clock.now();
                let mut turned_at = sampled_at;
                loop {
                    if let Ok(entry) = self.receiver.recv_timeout(TURN) {
                        sequencer.push(entry);
                    }
                    let now = clock.now();
                    if now.since(turned_at) < TURN {
                        continue;
                    }
                    turned_at = now;
                    if now.since(sampled_at) >= SAMPLE_EVERY {
                        sampled_at = now;
                        directory.sample(now);
                    }
                    let mut news = Vec::new();
                    sequencer.advance(now, &mut observer, &mut news, &mut told);
                    self.publish(&observer, news);
                    self.findings.easel.paint(now, &observer, &mut counted);
                }
            })
            .map(drop)
    }

    fn publish(&self, observer: &Observer, news: Vec<News>) {
        if news.is_empty() {
            return;
        }
        *self
            .findings
            .incidents
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = observer.incidents();
        for one in news {
            // Nobody may be listening.
            drop(self.findings.news.send(one));
        }
    }
}
