//! Reading.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use crate::timeline::lines::{Line, LineError, read_line};

/// No entry is longer; whatever is has not been written by us.
const LINE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot be read")]
    File(#[from] io::Error),
    /// A line.
    #[error("cannot be understood")]
    Line(#[from] LineError),
    /// A line without an end.
    #[error("cannot be understood: line {0} is longer than any journal has")]
    TooLong(u64),
    /// There is nothing.
    #[error("is empty")]
    Empty,
}

/// Reads a journal line by line.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
}

impl Reader<BufReader<File>> {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Ok(Self::new(BufReader::new(File::open(path)?)))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning of a journal.
    pub const fn new(from: R) -> Self {
        Self {
            from,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line; `None` at the end, which may lie in the midst of a line.
    ///
    /// # Errors
    ///
    /// When it cannot be read or understood.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        self.line.clear();
        let mut limited = (&mut self.from).take(LINE_LEN_MAX);
        let read = limited.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return if self.number == 0 {
                Err(ReadError::Empty)
            } else {
                Ok(None)
            };
        }
        self.number += 1;
        let is_whole = self.line.ends_with(b"\n");
        if !is_whole && u64::try_from(read).is_ok_and(|read| read >= LINE_LEN_MAX) {
            return Err(ReadError::TooLong(self.number));
        }
        let text = String::from_utf8_lossy(&self.line);
        match read_line(self.number, text.trim_end()) {
            Ok(line) => Ok(Some(line)),
            // A crash, or a writer that is at work, leaves half a line at the end; never at the beginning, which is
            // written at once.
            Err(LineError::Line { .. }) if !is_whole => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
