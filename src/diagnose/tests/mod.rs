//! Which signals become which incidents, by hand-made signals.

mod book;
mod kinship;
mod rank;
mod stage;
