//! Which logical sessions were used together: a bounded, expiring union of sessions and connections.
//!
//! A server session is drawn at random and lives in the session pool of one `MongoClient` (Driver Sessions
//! specification § Server session pool), so two connections that carry the same one belong to the same mongo
//! client, and so do all that one `endSessions` lists. What was used together is a *circle*. Circles only grow
//! together; the older one's number stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Timestamp;
use crate::timeline::SessionId;

/// The server forgets a session that was not used for so long (`localLogicalSessionTimeoutMinutes`, 30 by default).
const SESSION_TIMEOUT: Duration = Duration::from_mins(30);

/// Sessions remembered for one instance; the one used longest ago makes room.
const SESSIONS_MAX: usize = 4096;

/// A set of sessions that were used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CircleId(u64);

impl CircleId {
    /// A session that nobody draws, for a circle of which all are forgotten: what is random has a version in it.
    pub(super) fn stand_in(self) -> SessionId {
        SessionId(u128::from(self.0).to_be_bytes())
    }
}

/// The sessions of one instance.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: BTreeMap<SessionId, (CircleId, Timestamp)>,
    by_use: BTreeSet<(Timestamp, SessionId)>,
    /// Circles that grew together with an older one, and with which.
    joined: BTreeMap<CircleId, CircleId>,
    started: u64,
}

impl Sessions {
    /// A connection of `circle` used this session: the circle both belong to from now on. The second value is
    /// false when nothing new was learned.
    pub(super) fn used(
        &mut self,
        circle: Option<CircleId>,
        session: SessionId,
        at: Timestamp,
    ) -> (CircleId, bool) {
        let known = self.known.get(&session).copied();
        let own = circle.map(|circle| self.root(circle));
        let (united, is_news) = match (own, known) {
            (Some(own), Some((other, _))) => {
                let other = self.root(other);
                (self.join(own, other), own != other)
            }
            (Some(own), None) => (own, false),
            (None, Some((other, _))) => (self.root(other), true),
            (None, None) => (self.start(), true),
        };
        if let Some((_, used_at)) = known {
            self.by_use.remove(&(used_at, session));
        }
        self.known.insert(session, (united, at));
        self.by_use.insert((at, session));
        if self.known.len() > SESSIONS_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.known.remove(&oldest);
        }
        (united, is_news)
    }

    /// The circle that this one grew into.
    pub(super) fn root(&self, mut circle: CircleId) -> CircleId {
        while let Some(older) = self.joined.get(&circle) {
            circle = *older;
        }
        circle
    }

    /// Forgets sessions that the server has forgotten, and circles nobody refers to: `holders` are all references
    /// from outside, which are brought up to date.
    pub(super) fn tidy<'a>(
        &mut self,
        at: Timestamp,
        holders: impl Iterator<Item = &'a mut CircleId>,
    ) {
        while let Some((used_at, session)) = self.by_use.first().copied() {
            if at.since(used_at) < SESSION_TIMEOUT {
                break;
            }
            self.by_use.pop_first();
            self.known.remove(&session);
        }
        for holder in holders {
            *holder = self.root(*holder);
        }
        let joined = std::mem::take(&mut self.joined);
        let root = |mut circle: CircleId| {
            while let Some(older) = joined.get(&circle) {
                circle = *older;
            }
            circle
        };
        for (circle, _) in self.known.values_mut() {
            *circle = root(*circle);
        }
    }

    /// The sessions that are remembered, the circles they belong to and when they were used last.
    pub(super) fn known(&self) -> impl Iterator<Item = (SessionId, CircleId, Timestamp)> {
        let known = self.known.iter();
        known.map(|(session, (circle, used_at))| (*session, self.root(*circle), *used_at))
    }

    /// Circles of which a session is remembered; all of them after tidying.
    pub(super) fn remembered(&self) -> BTreeSet<CircleId> {
        self.known.values().map(|(circle, _)| *circle).collect()
    }

    fn start(&mut self) -> CircleId {
        self.started += 1;
        CircleId(self.started)
    }

    fn join(&mut self, one: CircleId, other: CircleId) -> CircleId {
        let (older, younger) = (one.min(other), one.max(other));
        if older != younger {
            self.joined.insert(younger, older);
        }
        older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId([number; 16])
    }

    fn second(seconds: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn what_shares_a_session_is_one_circle_and_the_older_number_stays() {
        let mut sessions = Sessions::default();
        let (first, _) = sessions.used(None, session(1), second(1));
        let (second_, _) = sessions.used(None, session(2), second(1));
        assert_ne!(first, second_);
        let (_, is_news) = sessions.used(Some(second_), session(3), second(2));
        assert!(!is_news);
        let (joined, is_news) = sessions.used(Some(second_), session(1), second(3));
        assert!(is_news);
        assert_eq!(joined, first);
        let (later, _) = sessions.used(None, session(3), second(4));
        assert_eq!(later, first);
        assert_eq!(sessions.root(second_), first);
    }

    #[test]
    fn tidying_forgets_old_sessions_and_keeps_what_is_held() {
        let mut sessions = Sessions::default();
        let (first, _) = sessions.used(None, session(1), second(0));
        let (mut held, _) = sessions.used(None, session(2), second(1000));
        sessions.used(Some(held), session(1), second(1000));
        sessions.used(None, session(9), second(0));
        sessions.tidy(second(1800), std::iter::once(&mut held));
        assert_eq!(held, first);
        assert!(sessions.joined.is_empty());
        assert_eq!(sessions.known.len(), 2);
        assert_eq!(sessions.by_use.len(), 2);
        let (circle, _) = sessions.used(None, session(2), second(1801));
        assert_eq!(circle, first);
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut sessions = Sessions::default();
        for number in 0..10_000_u128 {
            sessions.used(None, SessionId(number.to_be_bytes()), second(0));
        }
        assert_eq!(sessions.known.len(), SESSIONS_MAX);
        assert_eq!(sessions.by_use.len(), SESSIONS_MAX);
    }
}
