//! Which connections are one process's, as far as request ids tell.
//!
//! Most drivers count `requestID` for the whole process from its start: ids that go on are the same process, ids
//! that start again are a new one. The C extension of `PyMongo` draws them from `rand()` without a seed, so that each
//! process begins with the same one.

use crate::pools::Instance;

/// The first draw of glibc's `rand()` without a seed.
const FIRST_RAND: i32 = 1_804_289_383;

/// How a driver chooses request ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// Counts from the start of the process.
    Counted,
    /// Random, the first one of a process excepted.
    Drawn,
    /// Nothing is known.
    Unknown,
}

impl Numbering {
    pub(super) fn of(instance: &Instance) -> Self {
        let driver = &*instance.client.driver_name;
        let is = |name: &str| driver.starts_with(name);
        if is("PyMongo") {
            Self::Drawn
        } else if is("nodejs")
            || is("mongo-rust-driver")
            || is("mongo-go-driver")
            || is("mongo-java-driver")
            || is("mongo-csharp-driver")
        {
            Self::Counted
        } else {
            Self::Unknown
        }
    }

    /// Whether a connection whose first message had this id was opened by another process than those before;
    /// `highest` is the highest first id of these.
    pub(super) fn is_new_process(self, first_id: i32, highest: Option<i32>) -> Option<bool> {
        match self {
            Self::Counted => highest.map(|highest| first_id <= highest),
            Self::Drawn => Some(first_id == FIRST_RAND),
            Self::Unknown => None,
        }
    }
}

/// Whether the driver never cuts an operation when its client is closed: what ends in the middle of a request was
/// not closed by the application.
pub(super) fn never_cuts(instance: &Instance) -> bool {
    let client = &instance.client;
    client.driver_name.starts_with("PyMongo") && !client.driver_name.contains("async")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_ids_that_start_again_are_another_process() {
        let counted = Numbering::Counted;
        assert_eq!(counted.is_new_process(41, Some(40)), Some(false));
        assert_eq!(counted.is_new_process(1, Some(40)), Some(true));
        assert_eq!(counted.is_new_process(1, None), None);
    }

    #[test]
    fn every_process_of_pymongo_begins_alike() {
        let drawn = Numbering::Drawn;
        assert_eq!(drawn.is_new_process(FIRST_RAND, None), Some(true));
        assert_eq!(drawn.is_new_process(7, Some(FIRST_RAND)), Some(false));
    }
}
