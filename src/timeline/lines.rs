//! Entries as text: one JSON object a line, after one line that says what the rest is.
//!
//! ```text
//! {"poolscope_journal":1,"upstreams":[{"name":"db","address":"10.0.0.5:27017"}]}
//! {"at":1795469188123456789,"conn":17,"opened":{"upstream":0,"peer":"10.0.1.9:40122"}}
//! {"at":1795469188124456789,"conn":17,"dialled":1000000}
//! ```
//!
//! Moments and durations are whole nanoseconds, so that what is read is exactly what was written. A line that ends
//! early is what a crash leaves behind and ends the reading without an error; anything else that cannot be
//! understood is one, with its line number. Unknown fields are passed over: a newer version may tell more.

use serde::{Deserialize, Serialize};

use super::Entry;

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

/// Reads an entry from the line with this number.
pub fn read_entry(number: u64, line: &str) -> Result<Entry, LineError> {
    serde_json::from_str(line).map_err(|error| LineError::Line {
        line: number,
        error,
    })
}

#[cfg(test)]
mod tests;
