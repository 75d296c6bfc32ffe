//! The reasons of closes, and what each is concluded from.

/// Why a connection was closed, by the names of the Connection Monitoring and Pooling specification § Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// Idle for longer than `maxIdleTimeMS`.
    Idle,
    /// The pool was cleared.
    Stale,
    /// An error on the connection.
    Error,
    /// The pool was closed.
    PoolClosed,
}

impl CloseReason {
    /// The word of the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stale => "stale",
            Self::Error => "error",
            Self::PoolClosed => "pool_closed",
        }
    }
}

/// What the reason of a close is concluded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CloseBasis {
    /// Its mongo client said goodbye about then.
    SaidGoodbye,
    /// Its mongo client ended everything it had, and nothing had broken any of it.
    ClientLeft,
    /// Its mongo client was being closed, and its driver breaks first what is in use.
    BrokenByClose,
    /// The last authentication on it had failed.
    AuthenticationFailed,
    /// It ended before it could be used.
    NeverReady,
    /// It ended with a request under way.
    InUse,
    /// It was ended by the server's side, or reset, while it was idle.
    BrokenIdle,
    /// The same when its pool was cleared, by a driver that closes what is outdated without another look.
    BrokenWithClear,
    /// Its client closed it idle, and its pool was cleared since it was opened.
    Outdated,
    /// Its client closed it in use, in the moment it gave up its monitor.
    Interrupted,
    /// Its client closed it idle, and nothing else happened.
    Unused,
}

impl CloseBasis {
    /// Every ground, in the order of the variants.
    pub const ALL: [Self; 11] = [
        Self::SaidGoodbye,
        Self::ClientLeft,
        Self::BrokenByClose,
        Self::AuthenticationFailed,
        Self::NeverReady,
        Self::InUse,
        Self::BrokenIdle,
        Self::BrokenWithClear,
        Self::Outdated,
        Self::Interrupted,
        Self::Unused,
    ];

    /// The reason that follows.
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::SaidGoodbye | Self::ClientLeft => CloseReason::PoolClosed,
            Self::BrokenByClose
            | Self::AuthenticationFailed
            | Self::NeverReady
            | Self::InUse
            | Self::BrokenIdle => CloseReason::Error,
            Self::BrokenWithClear | Self::Outdated | Self::Interrupted => CloseReason::Stale,
            Self::Unused => CloseReason::Idle,
        }
    }

    /// How sure it is, from 0 to 1: what was on the wire is surer than what a driver is known to do about it, and
    /// that is surer than what follows because nothing else was seen.
    pub const fn confidence(self) -> f64 {
        match self {
            Self::SaidGoodbye | Self::AuthenticationFailed | Self::InUse => 0.95,
            Self::NeverReady | Self::BrokenIdle | Self::Outdated => 0.9,
            Self::ClientLeft | Self::Unused => 0.8,
            Self::BrokenByClose | Self::BrokenWithClear | Self::Interrupted => 0.75,
        }
    }

    /// As a reader is told.
    pub const fn told(self) -> &'static str {
        match self {
            Self::SaidGoodbye => "the client said goodbye (`endSessions`)",
            Self::ClientLeft => "the client closed everything it had, and nothing had broken",
            Self::BrokenByClose => {
                "in use when the client was closed; its driver breaks that first"
            }
            Self::AuthenticationFailed => "authentication failed",
            Self::NeverReady => "ended before it could be used",
            Self::InUse => "ended with a request under way",
            Self::BrokenIdle => "ended by the server's side, or reset, while idle",
            Self::BrokenWithClear => {
                "broke while idle as the pool was cleared; its driver closes what is outdated unseen"
            }
            Self::Outdated => "closed by the client while idle, after the pool was cleared",
            Self::Interrupted => "closed by the client while in use, as it gave up its monitor",
            Self::Unused => "closed by the client while idle, and nothing else had happened",
        }
    }
}

/// Closed connections by what the reason is concluded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseReasons([u64; CloseBasis::ALL.len()]);

impl CloseReasons {
    /// So many more.
    pub fn add(&mut self, basis: CloseBasis, count: u64) {
        if let Some(sum) = self.0.get_mut(basis as usize) {
            *sum += count;
        }
    }

    /// Those of another pool, too.
    pub(super) fn join(&mut self, others: Self) {
        for (basis, count) in others.counts() {
            self.add(basis, count);
        }
    }

    /// How many for this reason.
    pub fn of(&self, reason: CloseReason) -> u64 {
        let counts = self.counts();
        let own = counts.filter(|(basis, _)| basis.reason() == reason);
        own.map(|(_, count)| count).sum()
    }

    /// What there is, zero counts left out.
    pub fn counts(&self) -> impl Iterator<Item = (CloseBasis, u64)> {
        let counts = CloseBasis::ALL.into_iter().zip(self.0);
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ground_is_counted_in_its_own_place() {
        for (position, basis) in CloseBasis::ALL.into_iter().enumerate() {
            assert_eq!(basis as usize, position, "{basis:?}");
            let mut closed = CloseReasons::default();
            closed.add(basis, 2);
            let mut both = closed;
            both.join(closed);
            assert_eq!(both.counts().collect::<Vec<_>>(), [(basis, 4)]);
            assert_eq!(both.of(basis.reason()), 4);
        }
    }
}
