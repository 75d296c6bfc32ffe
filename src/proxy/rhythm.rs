//! When the kernel is asked about sockets: shortly before whoever reasons about them looks.
//!
//! Asked at any other time, what it says would be up to a second old when it is looked at, and whatever is found by it
//! as much later.

use std::time::Duration;

use crate::time::Timestamp;

/// The workers are asked so long before: they answer between two of their turns.
const LEAD: Duration = Duration::from_millis(50);

/// They are asked so often even where nobody looks, for the metrics. Looks are a second apart, and somewhat more when
/// whoever looks is held up.
const EVERY: Duration = Duration::from_millis(1500);

/// When it was done last, and for which look.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    asked_at: Timestamp,
    asked_for: Timestamp,
}

impl Rhythm {
    /// How long there is to wait before it is worth asking again what is due; `None` where it is due at `now`, and is
    /// done. `look_at` is when the next look is due.
    pub(super) fn due(&mut self, now: Timestamp, look_at: Timestamp) -> Option<Duration> {
        let is_news = look_at > self.asked_for;
        let is_near = look_at <= now + LEAD;
        if is_news && is_near || now.since(self.asked_at) >= EVERY {
            self.asked_at = now;
            self.asked_for = look_at.max(self.asked_for);
            return None;
        }
        let wait = if is_news {
            look_at.since(now + LEAD)
        } else {
            LEAD
        };
        Some(wait.min(EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    /// The milliseconds after the start at which sockets are asked about, within 3.5 s; looks are due at these, and the
    /// next one is announced with each.
    fn asked(looks: &[u64]) -> Vec<u64> {
        let after = |millis: u64| START + Duration::from_millis(millis);
        let mut rhythm = Rhythm {
            asked_at: START,
            asked_for: START,
        };
        let mut asked = Vec::new();
        let mut now = START;
        while now < after(3500) {
            let mut next = looks.iter().map(|look| after(*look));
            let next = next.find(|look| *look > now);
            match rhythm.due(now, next.unwrap_or(START)) {
                Some(wait) => now = now + wait,
                None => asked.push(u64::try_from(now.since(START).as_millis()).unwrap()),
            }
        }
        asked
    }

    #[test]
    fn sockets_are_asked_about_shortly_before_each_look() {
        assert_eq!(asked(&[1000, 2005, 3010]), [950, 1955, 2960]);
    }

    #[test]
    fn without_looks_they_are_asked_about_all_the_same() {
        assert_eq!(asked(&[]), [1500, 3000]);
        assert_eq!(asked(&[700]), [650, 2150]);
    }
}
