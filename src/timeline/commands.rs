//! Requests by their commands.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::Command;

/// How many requests of which command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands(BTreeMap<Command, u64>);

impl Commands {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many more of this command.
    pub fn add(&mut self, command: Command, count: u64) {
        if count > 0 {
            let sum = self.0.entry(command).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Those of another connection, too.
    pub fn join(&mut self, others: &Self) {
        for (command, count) in &others.0 {
            self.add(*command, *count);
        }
    }

    /// The most frequent first.
    pub fn ranked(&self) -> Vec<(Command, u64)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(command, count)| (*command, *count))
            .collect();
        all.sort_by_key(|(command, count)| (u64::MAX - count, command.label()));
        all
    }
}

impl FromIterator<Command> for Commands {
    fn from_iter<I: IntoIterator<Item = Command>>(commands: I) -> Self {
        let mut all = Self::default();
        for command in commands {
            all.add(command, 1);
        }
        all
    }
}

/// `find ×2, update`, the most frequent first.
impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (command, count)) in self.ranked().into_iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(command.label())?;
            if count > 1 {
                write!(f, " ×{count}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Commands {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|(command, count)| (command.label(), count)),
        )
    }
}

impl<'de> Deserialize<'de> for Commands {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Commands;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names of commands to counts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Commands, A::Error> {
                let mut all = Commands::default();
                while let Some((name, count)) = map.next_entry::<String, u64>()? {
                    all.add(Command::from_wire(name.as_bytes()), count);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_map(Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_is_named_first() {
        let mut commands: Commands = [Command::Update, Command::Find, Command::Find]
            .into_iter()
            .collect();
        commands.join(&[Command::Insert].into_iter().collect());
        commands.add(Command::Count, 0);
        assert_eq!(commands.to_string(), "find ×2, insert, update");
        assert_eq!(Commands::default().to_string(), "");
    }

    #[test]
    fn a_name_that_this_version_does_not_know_is_other() {
        let commands: Commands = serde_json::from_str(r#"{"find":2,"teleport":1,"":3}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&commands).unwrap(),
            r#"{"other":4,"find":2}"#
        );
        assert!(serde_json::from_str::<Commands>(r#"{"find":-1}"#).is_err());
    }
}
