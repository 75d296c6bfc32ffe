//! Packet captures instead of live traffic: the same reasoning where no proxy may stand.
//!
//! ```text
//! FILE ─▶ file: packets ─▶ segment: TCP segments ─┬─▶ servers: who is one          (first reading)
//!                                                 └─▶ flow ─▶ Tracker ─▶ Recorder  (second reading)
//!                                                      │ stream: bytes in order     │
//!                                                      │ sender: round trips        ▼
//!                                                      └─ handshake, ends      Sequencer ▶ Observer
//! ```
//!
//! Files are read twice, as a stream, because servers must be known before anything is told of them. The moments
//! are those of the packets: no clock is read.
//!
//! **Invariant:** a capture is hostile input. What is remembered is bounded: connections, bytes out of order, servers;
//! whatever does not fit is counted and said. What was not captured is never guessed: a connection with a hole that
//! a message cannot be read across becomes opaque.

mod analysis;
mod file;
mod flow;
mod segment;
mod sender;
mod servers;
mod stream;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clients::Snapshot;
use crate::diagnose::Incident;
use crate::live::PoolPicture;
use crate::time::Timestamp;

use analysis::Analysis;
use file::{FileEnd, read_packets, unpacked};
use segment::{Seen, segment};
use servers::Scout;

pub use file::ReadError;

/// What a capture shows.
#[derive(Debug)]
pub struct Findings {
    /// What was read, and what of it could not be used.
    pub counts: Counts,
    /// The first and the last moment.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Who held which connections, at the last moment.
    pub snapshot: Snapshot,
    /// What is inferred about mongo clients, at the last moment.
    pub pools: PoolPicture,
    /// Incidents with the names of their upstreams, the newest first.
    pub incidents: Vec<(Arc<Incident>, String)>,
    /// What makes the findings less than they could be, in words.
    pub warnings: Vec<String>,
}

/// How much was read, and how much of it could not be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets in the files.
    pub packets: u64,
    /// Those that belong to a connection with a server.
    pub used: u64,
    /// Those whose headers could not be read: unknown link types, fragments, too short.
    pub unreadable: u64,
    /// Connections with a server.
    pub connections: u64,
    /// Of these: begun before the capture did.
    pub begun_before: u64,
    /// Of these: with packets that were not captured, so that not everything could be decoded.
    pub with_holes: u64,
    /// Connections for which there was no room.
    pub untracked: u64,
}

/// Why a capture cannot be analysed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// Nobody in it speaks the protocol.
    #[error(
        "none of its {packets} packets tells of a MongoDB server; name its address with --server"
    )]
    NoServer {
        /// How many were looked at.
        packets: u64,
    },
}

/// Analyses `paths`, parts of one capture. Only connections to `servers` are looked at; when there are none, the
/// servers are found out.
///
/// # Errors
///
/// When a file cannot be read or holds no capture, or no server can be found.
pub fn analyze(paths: &[PathBuf], servers: &[SocketAddr]) -> Result<Findings, CaptureError> {
    let mut warnings = Vec::new();
    let mut scout = Scout::default();
    let mut packets = 0_u64;
    let mut parts = Vec::new();
    for path in paths {
        let mut first = None;
        let end = read(path, |at, link, data| {
            packets = packets.saturating_add(1);
            first.get_or_insert(at);
            // A given server needs no finding, only the first moment of each part.
            if servers.is_empty()
                && let Seen::Segment(segment) = segment(link, data)
            {
                scout.see(&segment);
            }
        })?;
        match end {
            FileEnd::Whole => {}
            FileEnd::Cut => {
                warnings.push(format!("{} ends in the midst of a packet", path.display()));
            }
            FileEnd::Damaged => warnings.push(format!(
                "{} is damaged: what follows its packet {packets} was not read",
                path.display()
            )),
        }
        parts.push((first, path));
    }
    // Rotated files may be given in any order.
    parts.sort_by_key(|(first, _)| *first);
    let servers = if servers.is_empty() {
        scout.into_servers(&mut warnings)
    } else {
        servers.to_vec()
    };
    if servers.is_empty() {
        return Err(CaptureError::NoServer { packets });
    }
    let mut analysis = Analysis::new(&servers);
    for (_, path) in parts {
        read(path, |at, link, data| {
            analysis.packet(at, link, data);
        })?;
    }
    Ok(analysis.finish(warnings))
}

fn read(
    path: &Path,
    each: impl FnMut(Timestamp, segment::Link, &[u8]),
) -> Result<FileEnd, CaptureError> {
    let opened = std::fs::File::open(path).map_err(ReadError::from);
    opened
        .and_then(|file| read_packets(unpacked(file)?, each))
        .map_err(|error| CaptureError::File {
            path: path.to_owned(),
            error,
        })
}
