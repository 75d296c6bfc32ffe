//! Which signals become which incidents, by hand-made signals.

mod asides;
mod book;
mod causes;
mod course;
mod kinship;
mod rank;
mod refusals;
mod reopenings;
mod stage;
mod suspects;
mod unknown;
