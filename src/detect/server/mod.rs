//! What happens to the server, and on the way to it.

use super::Detector;

pub(super) fn detectors() -> Vec<Box<dyn Detector>> {
    Vec::new()
}
