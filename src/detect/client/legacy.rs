//! Stub.
use super::{Detector, Signal};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::Entry;

#[derive(Debug, Default)]
pub(super) struct Legacy;

impl Detector for Legacy {
    fn record(&mut self, _: &Entry, _: &Pools, _: &mut Vec<Signal>) {}
    fn tick(&mut self, _: Timestamp, _: &Pools, _: &mut Vec<Signal>) {}
}
