//! Which files make up a journal.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// With this every journal begins.
const BEGINNING: &[u8] = br#"{"poolscope_journal""#;

/// The files that are meant by `paths`, in the order in which they are to be read, each once:
///
/// * a directory means all journals in it,
/// * the path that was given to the proxy means the whole journal, `FILE.2`, `FILE.1` and `FILE`,
/// * the path of one of its older parts means just that part.
///
/// Parts of one journal come in the order in which they were written, whatever the order of `paths`.
///
/// # Errors
///
/// When a directory cannot be read, or has no journal in it. Files are not looked at: what is none of ours fails when
/// it is read.
pub fn parts(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<Part> = Vec::new();
    for path in paths {
        let meant = if path.is_dir() {
            of_directory(path)?
        } else {
            of_file(path)?
        };
        for part in meant {
            if !found.contains(&part) {
                found.push(part);
            }
        }
    }
    // Journals stay in the order in which they were named, their parts do not.
    let journals: Vec<PathBuf> = found.iter().map(|part| part.journal.clone()).collect();
    let position = |journal: &Path| journals.iter().position(|other| other == journal);
    found.sort_by_cached_key(|part| (position(&part.journal), std::cmp::Reverse(part.number)));
    Ok(found.into_iter().map(Part::into_path).collect())
}

/// A file of a journal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    /// The path that was given to the proxy.
    journal: PathBuf,
    /// 0 for that path, from 1 for older ones.
    number: u64,
}

impl Part {
    fn at(path: &Path) -> Self {
        Self::older(path).unwrap_or_else(|| Self {
            journal: path.to_owned(),
            number: 0,
        })
    }

    /// The part that `FILE.1` is.
    fn older(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(OsStr::to_str)?;
        let number: u64 = extension.parse().ok().filter(|number| *number > 0)?;
        if number.to_string() != extension {
            return None;
        }
        Some(Self {
            journal: path.with_extension(""),
            number,
        })
    }

    fn into_path(self) -> PathBuf {
        super::writer::numbered(&self.journal, self.number)
    }
}

fn of_directory(directory: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.is_file() && is_journal(&path) {
            parts.push(Part::at(&path));
        }
    }
    if parts.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no journal in this directory",
        ));
    }
    parts.sort();
    Ok(parts)
}

fn of_file(path: &Path) -> io::Result<Vec<Part>> {
    if let Some(part) = Part::older(path) {
        return Ok(vec![part]);
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let mut parts = Vec::new();
    // A file may be readable in a directory that is not.
    for file in std::fs::read_dir(directory).into_iter().flatten() {
        let found = path.with_file_name(file?.file_name());
        if let Some(part) = Part::older(&found)
            && part.journal == path
        {
            parts.push(part);
        }
    }
    // Without any there is nothing, which reading it will say.
    if parts.is_empty() || path.exists() {
        parts.push(Part {
            journal: path.to_owned(),
            number: 0,
        });
    }
    Ok(parts)
}

/// One that cannot be read is told apart later, with the reason.
fn is_journal(path: &Path) -> bool {
    let mut beginning = Vec::new();
    File::open(path)
        .map(|file| file.take(BEGINNING.len() as u64))
        .and_then(|mut file| file.read_to_end(&mut beginning))
        .is_err()
        || beginning == BEGINNING
}
