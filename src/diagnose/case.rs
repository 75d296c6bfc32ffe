//! Signals that belong together.

use crate::detect::Signal;
use crate::time::Timestamp;

/// What rules look at: the signals of one incident to be, the earliest first.
#[derive(Clone, Debug, Default)]
pub struct Case {
    signals: Vec<Signal>,
}

impl Case {
    /// Its signals, the earliest first.
    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// The first event.
    pub fn began_at(&self) -> Timestamp {
        self.signals
            .first()
            .map_or_else(Timestamp::default, |first| first.at)
    }

    /// Takes a signal in; a telling of one that is there replaces it.
    pub fn add(&mut self, signal: Signal) {
        let known = self.signals.iter_mut().find(|known| {
            known.at == signal.at
                && known.subject == signal.subject
                && known.kind.is_like(&signal.kind)
        });
        match known {
            Some(known) => *known = signal,
            None => self.signals.push(signal),
        }
        self.signals.sort_by_key(|signal| signal.at);
    }
}
