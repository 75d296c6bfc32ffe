//! Surroundings in which a case is played. What is told of a fault must not hang on how many sockets there are, how
//! busy they are, or whether somebody else is there to compare with.

/// How an application uses its client, and who else is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// Four sockets, steadily busy, and a neighbour on another driver.
    Usual,
    /// The same with nobody else.
    Single,
    /// Next to nothing to do: a read every half a second.
    Quiet,
    /// Thirty sockets.
    Large,
    /// Three instances of the neighbour, on other drivers.
    Crowd,
}

impl Shape {
    /// Every one of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Usual,
        Self::Single,
        Self::Quiet,
        Self::Large,
        Self::Crowd,
    ];

    /// Its name.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Single => "single",
            Self::Quiet => "quiet",
            Self::Large => "large",
            Self::Crowd => "crowd",
        }
    }

    /// The one of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.label() == name)
    }

    /// Sockets of the pool of the application under test.
    pub(super) const fn pool(self) -> u64 {
        match self {
            Self::Usual | Self::Single | Self::Quiet | Self::Crowd => 4,
            Self::Large => 30,
        }
    }

    /// How many readers it has, and how many milliseconds each pauses.
    pub(super) const fn readers(self) -> (u64, u64) {
        match self {
            Self::Usual | Self::Single | Self::Crowd => (4, 25),
            Self::Quiet => (1, 500),
            Self::Large => (30, 150),
        }
    }

    /// Whether it writes, too.
    pub(super) fn writes(self) -> bool {
        self != Self::Quiet
    }

    /// How many instances of the neighbour are there.
    pub(super) const fn neighbours(self) -> usize {
        match self {
            Self::Single => 0,
            Self::Usual | Self::Quiet | Self::Large => 1,
            Self::Crowd => 3,
        }
    }
}
