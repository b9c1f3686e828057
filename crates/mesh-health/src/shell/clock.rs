//! The daemon's clock, and the little randomness that it needs.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::core::Moment;

/// Counts from the oldest moment that the daemon remembers. All tasks hold copies of one clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// What the clock said then.
    remembered: Duration,
}

impl Clock {
    /// A clock that starts now, and has moments for what happened up to `remembered` ago.
    pub fn start(remembered: Duration) -> Self {
        Self {
            start: Instant::now(),
            remembered,
        }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        Moment::after_start(self.remembered + self.start.elapsed())
    }

    /// `moment` for tokio's timers.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        (self.start + moment.elapsed().saturating_sub(self.remembered)).into()
    }
}

/// A small generator (SplitMix64) that keeps the timers of many tasks apart. Not for secrets.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator that differs from every other one's.
    pub fn new() -> Self {
        Self(
            std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish(),
        )
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `interval`, varied by up to 10 % either way.
    pub fn around(&mut self, interval: Duration) -> Duration {
        let share = (self.draw() % 2001) as f64 / 10_000.0;
        interval.mul_f64(0.9 + share)
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_vary_by_a_tenth() {
        let mut jitter = Jitter::new();
        let interval = Duration::from_millis(200);
        let some: Vec<Duration> = (0..1000).map(|_| jitter.around(interval)).collect();
        let expected = Duration::from_millis(180)..=Duration::from_millis(221);
        assert!(some.iter().all(|one| expected.contains(one)));
        assert!(some.iter().any(|one| *one != some[0]));
    }
}
