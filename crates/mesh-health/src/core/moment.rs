//! Time as the core knows it: how long after the oldest that the daemon remembers.

use std::ops::Add;
use std::time::Duration;

/// An instant of the daemon's own monotonic clock, counted from the oldest moment that it remembers; without a
/// memory that is its start.
///
/// The core never asks for it: every input comes with the moment at which it is handled. Wall-clock times are
/// added by the shell, where something leaves the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The oldest moment.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment `elapsed` after [`Self::START`].
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time since [`Self::START`].
    pub const fn elapsed(self) -> Duration {
        self.0
    }

    /// The time since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
