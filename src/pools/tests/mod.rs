//! Timelines made by hand, and what is to be inferred from them.

mod clears;
mod clients;
mod closes;
mod grounds;
mod limits;
mod stage;
