//! Entries as text: one JSON object a line, after one line that says what the rest is.
//!
//! ```text
//! {"poolscope_journal":1,"upstreams":[{"name":"db","address":"10.0.0.5:27017"}]}
//! {"at":1795469188123456789,"conn":17,"opened":{"upstream":0,"peer":"10.0.1.9:40122"}}
//! {"at":1795469188124456789,"conn":17,"dialled":1000000}
//! {"at":1795469189124456789,"mark":null}
//! ```
//!
//! A mark says that time passed up to there and nothing happened. A journal may go through several runs of the
//! proxy: each begins with a header, which forgets everything before it. One run may go through several files: each
//! begins with a header that names its [`Part`], followed by what was open, told again with the moments it had.
//!
//! Moments and durations are whole nanoseconds, so that what is read is exactly what was written. A line that ends
//! early is what a crash leaves behind and ends the reading without an error; anything else that cannot be
//! understood is one, with its line number. Unknown fields are passed over: a newer version may tell more.

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::time::Timestamp;

/// The version of the format that is written; older ones are read.
pub const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    #[serde(rename = "poolscope_journal")]
    pub version: u32,
    /// The upstreams by position.
    pub upstreams: Vec<UpstreamName>,
    /// Where the file belongs, when a run of the proxy wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// A part of what one run of the proxy told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// When the run began: its name.
    pub run: Timestamp,
    /// The position of the part, from 0.
    pub number: u64,
    /// So many entries follow that tell again what was open, in the order of their moments. Whoever has read the
    /// part before knows them.
    pub retold: u64,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Everything before is over.
    Header(Header),
    /// Something happened.
    Entry(Entry),
    /// Time passed.
    Mark(Timestamp),
}

#[derive(Serialize, Deserialize)]
struct Mark {
    at: Timestamp,
    #[serde(rename = "mark")]
    is_mark: (),
}

/// An upstream, as the reader of incidents knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamName {
    /// Its name.
    pub name: String,
    /// `host:port` of the server.
    pub address: String,
}

impl Header {
    /// The header of what is written now.
    pub const fn new(upstreams: Vec<UpstreamName>) -> Self {
        Self {
            version: VERSION,
            upstreams,
            part: None,
        }
    }
}

/// Why a text is not a journal.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The first line is not a header.
    #[error("line 1 is not the header of a poolscope journal: {0}")]
    Header(serde_json::Error),
    /// It was written by a newer poolscope.
    #[error("it has version {0}, and this poolscope reads versions up to {VERSION}")]
    Version(u32),
    /// A line cannot be understood.
    #[error("line {line} cannot be understood: {error}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// Why.
        error: serde_json::Error,
    },
}

/// A line, its end included.
///
/// # Panics
///
/// Never: every value has a form in JSON.
pub fn write_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Reads the first line.
pub fn read_header(line: &str) -> Result<Header, LineError> {
    let header: Header = serde_json::from_str(line).map_err(LineError::Header)?;
    if header.version > VERSION {
        return Err(LineError::Version(header.version));
    }
    Ok(header)
}

/// The line that says that time passed up to `at`, its end included.
pub fn write_mark(at: Timestamp) -> String {
    write_line(&Mark { at, is_mark: () })
}

/// Reads the line with this number.
pub fn read_line(number: u64, line: &str) -> Result<Line, LineError> {
    if number == 1 || line.starts_with(r#"{"poolscope_journal""#) {
        return read_header(line).map(Line::Header);
    }
    let error = match read_entry(number, line) {
        Ok(entry) => return Ok(Line::Entry(entry)),
        Err(error) => error,
    };
    // An entry is what most lines are, and its error says most about a line that is neither.
    serde_json::from_str(line)
        .map(|Mark { at, .. }| Line::Mark(at))
        .map_err(|_| error)
}

/// Reads an entry from the line with this number.
pub fn read_entry(number: u64, line: &str) -> Result<Entry, LineError> {
    serde_json::from_str(line).map_err(|error| LineError::Line {
        line: number,
        error,
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
