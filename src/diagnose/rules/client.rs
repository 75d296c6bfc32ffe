//! Causes that lie with the application, its driver or its settings.

use super::Rule;

pub(super) const RULES: &[Rule] = &[];
