//! Surroundings in which a case is played. What is told of a fault must not hang on how many sockets there are, how
//! busy they are, or whether somebody else is there to compare with.

use std::time::Duration;

/// How long a packet takes from one place to the other.
const WIRE_DELAY: Duration = Duration::from_micros(1500);

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
    /// The server is in another place: an answer takes three milliseconds.
    Distant,
    /// The application is in another place.
    Remote,
    /// Clients log in.
    Secured,
}

impl Shape {
    /// Every one of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Usual,
        Self::Single,
        Self::Quiet,
        Self::Large,
        Self::Crowd,
        Self::Distant,
        Self::Remote,
        Self::Secured,
    ];

    /// Its name.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Single => "single",
            Self::Quiet => "quiet",
            Self::Large => "large",
            Self::Crowd => "crowd",
            Self::Distant => "distant",
            Self::Remote => "remote",
            Self::Secured => "secured",
        }
    }

    /// The one of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.label() == name)
    }

    /// Sockets of the pool of the application under test.
    pub(super) const fn pool(self) -> u64 {
        if matches!(self, Self::Large) { 30 } else { 4 }
    }

    /// How many readers it has, and how many milliseconds each pauses.
    pub(super) const fn readers(self) -> (u64, u64) {
        match self {
            Self::Quiet => (1, 500),
            Self::Large => (30, 150),
            Self::Usual
            | Self::Single
            | Self::Crowd
            | Self::Distant
            | Self::Remote
            | Self::Secured => (4, 25),
        }
    }

    /// Whether it writes, too.
    pub(super) fn writes(self) -> bool {
        self != Self::Quiet
    }

    /// How much longer each packet from and to the server takes, where it has a network of its own.
    pub(super) fn server_delay(self) -> Option<Duration> {
        (self == Self::Distant).then_some(WIRE_DELAY)
    }

    /// The same for the application under test.
    pub(super) fn application_delay(self) -> Option<Duration> {
        (self == Self::Remote).then_some(WIRE_DELAY)
    }

    /// Whether somebody is in a network of its own.
    pub(super) fn has_wire(self) -> bool {
        self.server_delay().or(self.application_delay()).is_some()
    }

    /// Whether clients authenticate, with SCRAM.
    pub(super) fn authenticates(self) -> bool {
        self == Self::Secured
    }

    /// How many instances of the neighbour are there.
    pub(super) const fn neighbours(self) -> usize {
        match self {
            Self::Single => 0,
            Self::Crowd => 3,
            Self::Usual
            | Self::Quiet
            | Self::Large
            | Self::Distant
            | Self::Remote
            | Self::Secured => 1,
        }
    }
}
