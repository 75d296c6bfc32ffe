//! Writing.

use std::fs::{File, OpenOptions};
use std::io::{
    self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _,
};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::retell::retell;
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::Entry;
use crate::timeline::lines::{Header, Part, UpstreamName, write_line, write_mark};

/// A crash loses no more than this.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// A mark is written when nothing else was for so long.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// What is gathered before the system is called.
const BUFFER_LEN: usize = 64 * 1024;

/// How far the end of an older file is searched for a line that was cut.
const CUT_MAX: u64 = 1024 * 1024;

/// How the recording goes.
#[derive(Debug, Default)]
pub struct JournalHealth {
    written_bytes: AtomicU64,
    errors: AtomicU64,
    failure: OnceLock<String>,
}

impl JournalHealth {
    /// Bytes recorded so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Errors of the disk; the first ended the recording.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Acquire)
    }

    /// Why the recording ended, when it did.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

/// Records what an observer is told.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    size_max: u64,
    files_max: usize,
    upstreams: Vec<UpstreamName>,
    part: Part,
    /// `None` once an error ended the recording.
    out: Option<BufWriter<File>>,
    /// Bytes of the file.
    len: u64,
    /// Bytes at its beginning that tell what was open.
    retold_len: u64,
    /// The moment of the last line.
    written_at: Timestamp,
    flushed_at: Timestamp,
    health: Arc<JournalHealth>,
}

impl Journal {
    /// Goes on in the file at `path`, which a run of the proxy before may have begun; `run` is when this one began.
    ///
    /// A disk without space is no reason not to start, or a proxy that is started again would take the traffic with it:
    /// the recording ends at once, as it would have later.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or written for another reason.
    pub fn open(
        path: &Path,
        size_max_bytes: usize,
        files_max: usize,
        upstreams: Vec<UpstreamName>,
        run: Timestamp,
    ) -> io::Result<Self> {
        let mut file = open_file(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            size_max: u64::try_from(size_max_bytes).unwrap_or(u64::MAX),
            files_max,
            upstreams,
            part: Part {
                run,
                number: 0,
                retold: 0,
            },
            len: cut_half_line(&mut file)?,
            out: None,
            retold_len: 0,
            written_at: run,
            flushed_at: run,
            health: Arc::default(),
        };
        if journal.len >= journal.size_max {
            drop(file);
            file = journal.next_file()?;
        }
        journal.out = Some(BufWriter::with_capacity(BUFFER_LEN, file));
        match journal.begin(std::iter::empty()) {
            Ok(()) => {}
            Err(error) if is_without_space(&error) => journal.give_up(&error),
            Err(error) => return Err(error),
        }
        Ok(journal)
    }

    /// How the recording goes.
    pub fn health(&self) -> Arc<JournalHealth> {
        Arc::clone(&self.health)
    }

    /// The observer is told this.
    pub fn told(&mut self, entry: &Entry) {
        self.written_at = entry.at;
        let line = write_line(entry);
        self.attempt(|journal| journal.write(&line));
    }

    /// The observer was told everything up to `until`, and knows `pools` now.
    pub fn passed(&mut self, until: Timestamp, pools: &Pools) {
        self.attempt(|journal| {
            if until.since(journal.written_at) >= MARK_EVERY {
                journal.mark(until)?;
            }
            if journal.len >= journal.size_max.max(journal.retold_len.saturating_mul(2)) {
                journal.rotate(until, pools)?;
            }
            if until.since(journal.flushed_at) >= FLUSH_EVERY {
                journal.flushed_at = until;
                journal.flush()?;
            }
            Ok(())
        });
    }

    /// The observer was told everything there is; it knows the time to be `until`.
    pub fn close(mut self, until: Timestamp) {
        self.attempt(|journal| {
            journal.mark(until)?;
            journal.flush()
        });
    }

    /// Does it unless an error ended the recording, and ends it when this is one.
    fn attempt(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.out.is_none() {
            return;
        }
        if let Err(error) = act(self) {
            self.give_up(&error);
        }
    }

    /// Ends the recording.
    fn give_up(&mut self, error: &io::Error) {
        let text = format!(
            "the journal {} is switched off: {error}",
            self.path.display()
        );
        tracing::warn!("{text}");
        // It is the first one: after it nothing is attempted.
        drop(self.health.failure.set(text));
        // Whoever sees the count finds the rest.
        self.health.errors.fetch_add(1, Ordering::Release);
        if let Some(out) = self.out.take() {
            // What is still in the buffer cannot be written; half a line is what a reader expects of an end.
            drop(out.into_parts());
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        out.write_all(line.as_bytes())?;
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.len = self.len.saturating_add(len);
        self.health.written_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn mark(&mut self, at: Timestamp) -> io::Result<()> {
        self.written_at = at;
        self.write(&write_mark(at))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), io::Write::flush)
    }

    fn rotate(&mut self, until: Timestamp, pools: &Pools) -> io::Result<()> {
        self.flush()?;
        let next = self.next_file()?;
        self.out = Some(BufWriter::with_capacity(BUFFER_LEN, next));
        self.part.number += 1;
        self.begin(retell(pools))?;
        self.mark(until)
    }

    /// Moves the files on and opens an empty one.
    fn next_file(&mut self) -> io::Result<File> {
        // Without a place for older files the only one begins anew.
        let files_max = u64::try_from(self.files_max).unwrap_or(u64::MAX);
        for number in (0..files_max).rev() {
            let from = numbered(&self.path, number);
            let moved = if number + 1 < files_max {
                std::fs::rename(from, numbered(&self.path, number + 1))
            } else {
                std::fs::remove_file(from)
            };
            match moved {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.len = 0;
        open_file(&self.path)
    }

    /// The beginning of a part.
    fn begin(&mut self, retold: impl ExactSizeIterator<Item = Entry>) -> io::Result<()> {
        let begins_at = self.len;
        self.part.retold = u64::try_from(retold.len()).unwrap_or(u64::MAX);
        let header = Header {
            part: Some(self.part),
            ..Header::new(self.upstreams.clone())
        };
        self.write(&write_line(&header))?;
        for entry in retold {
            self.write(&write_line(&entry))?;
        }
        self.retold_len = self.len - begins_at;
        self.flush()
    }
}

/// Of the disk, or of what this user or process may have of it.
fn is_without_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The file itself, or an older one: `FILE.1`, `FILE.2`.
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// It tells who is connected, so only its owner may read it.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(path)
}

/// Removes the half line that a crash may have left at the end; returns the length.
fn cut_half_line(file: &mut File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    let len = metadata.len();
    if !metadata.is_file() || len == 0 {
        return Ok(0);
    }
    let from = len.saturating_sub(CUT_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut end = from;
    let mut reader = BufReader::new(file.take(CUT_MAX));
    let mut at = from;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        at += u64::try_from(read).unwrap_or(u64::MAX);
        if line.ends_with(b"\n") {
            end = at;
        }
    }
    if end < len {
        file.set_len(end)?;
    }
    Ok(end)
}
