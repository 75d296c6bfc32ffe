//! How drivers choose `requestID`, and so which connections may be one process's.
//!
//! Most drivers count for the whole process from its start: ids that go on are the same process, ids that start again
//! are a new one. The C extension of `PyMongo` draws them from `rand()` without a seed, so that each process begins
//! with the same one.

use crate::connection::ClientMetadata;

/// The first draw of glibc's `rand()` without a seed.
const FIRST_RAND: i32 = 1_804_289_383;

/// Where counting begins: Rust at 0, the others at 1.
const FIRST_COUNTED_MAX: i32 = 1;

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
}

impl Numbering {
    /// That of the driver which introduced itself so.
    pub(super) fn of(client: &ClientMetadata) -> Self {
        let driver = client.driver_name.as_str();
        let is_old_node = driver.starts_with("nodejs")
            && ["2.", "3."]
                .iter()
                .any(|major| client.driver_version.starts_with(major));
        if driver.starts_with("PyMongo") {
            Self::Drawn
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
            Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            numbering("mongoc / ext-mongodb:PHP", "1.23.1"),
            Numbering::Unknown
        );
    }

    #[test]
    fn processes_begin_alike() {
        assert!(Numbering::Counted.begins_process(0));
        assert!(Numbering::CountedApart.begins_process(1));
        assert!(!Numbering::Counted.begins_process(2));
        assert!(Numbering::Drawn.begins_process(FIRST_RAND));
        assert!(!Numbering::Drawn.begins_process(1));
        assert!(!Numbering::Unknown.begins_process(0));
    }
}
