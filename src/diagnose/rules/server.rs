//! Causes that lie with the server or with the network.

use super::Rule;

pub(super) const RULES: &[Rule] = &[];
