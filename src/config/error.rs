//! Why a configuration was refused.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `file:line:column`, `environment NAME`, `flag --name`.
    pub place: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Every mistake that was found, so that they can be mended in one go; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The mistakes in the order in which they were found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {}", problem.place, problem.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
