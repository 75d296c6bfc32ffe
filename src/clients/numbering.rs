//! How drivers choose `requestID`, and so which connections may be one process's.
//!
//! Most drivers count for the whole process from its start: ids that go on are the same process, ids that start again
//! are a new one. The C extension of `PyMongo` draws them from `rand()` without a seed, so that each process begins
//! with the same one.

use std::time::Duration;

use crate::connection::ClientMetadata;
use crate::time::Timestamp;

/// Moments of different connections may be so much out of order.
pub(crate) const JITTER: Duration = Duration::from_millis(50);

/// The same where each number tells its process by itself: a busy machine accepts late what was dialled first.
const JITTER_APART: Duration = Duration::from_millis(250);

/// The first draw of glibc's `rand()` without a seed.
const FIRST_RAND: i32 = 1_804_289_383;

/// Where counting begins: Rust at 0, the others at 1.
const FIRST_COUNTED_MAX: i32 = 1;

/// What began with more was not read: a server at its limit turns connections away before they say anything.
const FIRST_READ_MAX: i32 = 16;

/// Drivers that count request ids for the whole process. `libmongoc` counts for each client.
const COUNT_PROCESS_WIDE: [&str; 6] = [
    "nodejs",
    "mongo-rust-driver",
    "mongo-go-driver",
    "mongo-java-driver",
    "mongo-csharp-driver",
    "mongo-ruby-driver",
];

/// How a driver chooses request ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Numbering {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Counts from the start of the process.
    Counted,
    /// The same, with a count of its own for handshakes: Node up to 3.7 numbers `OP_QUERY` and `OP_MSG` apart.
    CountedApart,
    /// Random, the first one of a process excepted.
    Drawn,
    /// Each client counts its dials with the first messages: PHP.
    Dials,
}

impl Numbering {
    /// That of the driver which introduced itself so.
    pub(crate) fn of(client: &ClientMetadata) -> Self {
        let driver = client.driver_name.as_str();
        let is_old_node = driver.starts_with("nodejs")
            && ["2.", "3."]
                .iter()
                .any(|major| client.driver_version.starts_with(major));
        if driver.starts_with("PyMongo") {
            Self::Drawn
        } else if driver.contains("ext-mongodb:PHP") {
            Self::Dials
        } else if is_old_node {
            Self::CountedApart
        } else if COUNT_PROCESS_WIDE
            .iter()
            .any(|name| driver.starts_with(name))
        {
            Self::Counted
        } else {
            Self::Unknown
        }
    }

    /// Counts for the whole process.
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::Counted | Self::CountedApart)
    }

    /// Whether a first message with this id began a process.
    pub const fn begins_process(self, first_id: i32) -> bool {
        match self {
            Self::Counted | Self::CountedApart => first_id <= FIRST_COUNTED_MAX,
            Self::Drawn => first_id == FIRST_RAND,
            // A client, not a process.
            Self::Dials | Self::Unknown => false,
        }
    }

    /// Whether a first message with this id shows that the client which sent it had dialled before.
    pub const fn shows_earlier_dial(self, first_id: i32) -> bool {
        matches!(self, Self::Dials) && first_id > FIRST_COUNTED_MAX
    }
}

/// The first message of a connection whose driver counts request ids for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Introduction {
    /// When it was read.
    pub(crate) at: Timestamp,
    /// When the connection was accepted: it was sent between the two. What a client says before the server answers the
    /// dial is read only then, be it seconds later.
    pub(crate) opened_at: Timestamp,
    pub(crate) request_id: i32,
    /// Handshakes have a count of their own: each of a process's has the number after that of the one before.
    pub(crate) is_counted_apart: bool,
}

impl Introduction {
    /// Of a connection whose first message had this id; `None` where that does not tell its process.
    pub(crate) fn new(
        numbering: Numbering,
        request_id: i32,
        opened_at: Timestamp,
        at: Timestamp,
    ) -> Option<Self> {
        (numbering.is_counted() && request_id >= 0).then_some(Self {
            at,
            opened_at,
            request_id,
            is_counted_apart: numbering == Numbering::CountedApart,
        })
    }

    /// Counting began not long before.
    pub(crate) const fn begins_process(&self) -> bool {
        self.request_id <= FIRST_READ_MAX
    }

    /// One process may have counted both: the later has the higher number, and no number comes twice.
    pub(crate) fn may_be_counted_with(&self, other: &Self) -> bool {
        if self.request_id == other.request_id {
            return self == other;
        }
        let (lower, higher) = if self.request_id < other.request_id {
            (self, other)
        } else {
            (other, self)
        };
        let jitter = if self.is_counted_apart {
            JITTER_APART
        } else {
            JITTER
        };
        higher.at + jitter >= lower.opened_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_introductions_of_one_process_the_later_has_the_higher_number() {
        let told = |opened_ms, read_ms, request_id| Introduction {
            at: Timestamp::default() + Duration::from_millis(read_ms),
            opened_at: Timestamp::default() + Duration::from_millis(opened_ms),
            request_id,
            is_counted_apart: false,
        };
        let early = told(1_000, 1_001, 7);
        assert!(early.may_be_counted_with(&told(2_000, 2_001, 8)));
        assert!(!early.may_be_counted_with(&told(2_000, 2_001, 6)));
        assert!(!early.may_be_counted_with(&told(2_000, 2_001, 7)));
        assert!(!told(2_000, 2_001, 7).may_be_counted_with(&early));
        assert!(
            early.may_be_counted_with(&told(1_030, 1_031, 6)),
            "read in any order"
        );
        assert!(early.may_be_counted_with(&early), "it is the same one");
        assert!(
            !early.may_be_counted_with(&told(1_007, 1_008, 7)),
            "two processes that start together count in step"
        );
        let apart = |introduction| Introduction {
            is_counted_apart: true,
            ..introduction
        };
        assert!(apart(early).may_be_counted_with(&apart(told(1_200, 1_201, 6))));
        assert!(!apart(early).may_be_counted_with(&apart(told(1_300, 1_301, 6))));
        // The dial of the first hung, and what it had said was read after the hello of the second.
        assert!(told(1_000, 4_000, 7).may_be_counted_with(&told(3_000, 3_001, 9)));
        assert!(!told(1_000, 2_000, 9).may_be_counted_with(&told(3_000, 3_001, 7)));
    }

    fn numbering(driver: &str, version: &str) -> Numbering {
        Numbering::of(&ClientMetadata {
            driver_name: driver.into(),
            driver_version: version.into(),
            ..ClientMetadata::default()
        })
    }

    #[test]
    fn drivers_are_known_by_name_and_version() {
        assert_eq!(numbering("nodejs", "3.6.12"), Numbering::CountedApart);
        assert_eq!(numbering("nodejs|mongoose", "6.0.0"), Numbering::Counted);
        assert_eq!(numbering("mongo-rust-driver", "3.9.1"), Numbering::Counted);
        assert_eq!(numbering("PyMongo|c", "4.20.0|"), Numbering::Drawn);
        assert_eq!(
            numbering("mongoc / ext-mongodb:PHP ", "1.23.1 / 1.15.0"),
            Numbering::Dials
        );
        assert_eq!(numbering("mongoc", "1.23.1"), Numbering::Unknown);
    }

    #[test]
    fn processes_begin_alike() {
        assert!(Numbering::Counted.begins_process(0));
        assert!(Numbering::CountedApart.begins_process(1));
        assert!(!Numbering::Counted.begins_process(2));
        assert!(Numbering::Drawn.begins_process(FIRST_RAND));
        assert!(!Numbering::Drawn.begins_process(1));
        assert!(!Numbering::Unknown.begins_process(0));
        assert!(!Numbering::Dials.begins_process(1));
        assert!(Numbering::Dials.shows_earlier_dial(2));
        assert!(!Numbering::Dials.shows_earlier_dial(1));
        assert!(!Numbering::Unknown.shows_earlier_dial(7));
    }
}
