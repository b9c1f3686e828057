//! A [hybrid logical clock](https://cse.buffalo.edu/tech-reports/2014-04.pdf): milliseconds of the wall clock in the
//! upper 48 bits, a counter below. It never runs backwards, and is later than everything this broker has seen. So order
//! holds even if clocks are wrong; only between writers who have not heard of each other do clocks decide.

/// No clock of a machine that runs this is right before that: 2026-01-01 in milliseconds since 1970. A machine
/// without a battery begins in 1970, and would take its peers for liars.
const EARLIEST_MS: u64 = 1_767_225_600_000;

/// A stamp that is so far ahead of the wall clock is not believed: a year, in milliseconds. It would else drag the
/// clock of the whole mesh along for ever.
const ABSURD_MS: u64 = 366 * 24 * 3600 * 1000;

/// A point in hybrid logical time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first point at a time of the wall clock, in milliseconds since 1970.
    pub fn at_ms(ms: u64) -> Self {
        Self(ms.min(u64::MAX >> 16) << 16)
    }

    /// At a time of the wall clock, in milliseconds since 1970, with a counter. `None` if one of them is too great.
    pub fn new(ms: u64, counter: u64) -> Option<Self> {
        let fits = ms <= u64::MAX >> 16 && counter <= 0xffff;
        fits.then_some(Self(ms << 16 | counter))
    }

    /// Its part of the wall clock, in milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// Its place among the points at that time of the wall clock.
    pub fn counter(self) -> u64 {
        self.0 & 0xffff
    }
}

/// The clock of one broker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A point later than all before. `wall_ms` is the time in milliseconds since 1970.
    pub fn next(&mut self, wall_ms: u64) -> Hlc {
        self.last = Hlc::at_ms(wall_ms).max(Hlc(self.last.0.saturating_add(1)));
        self.last
    }

    /// Everything from now on is later than `seen`.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }

    /// The latest point so far.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

/// Whether a stamp of this time cannot be true at this time of the wall clock.
pub fn is_absurd(time: Hlc, wall_ms: u64) -> bool {
    time.ms() > wall_ms.max(EARLIEST_MS).saturating_add(ABSURD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut clock = Clock::default();
        let wall = [1_000, 1_000, 500, 2_000, 0, 2_000];
        let times: Vec<_> = wall.iter().map(|ms| clock.next(*ms)).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert_eq!((times[0], times[3]), (Hlc::at_ms(1_000), Hlc::at_ms(2_000)));
    }

    #[test]
    fn what_comes_after_a_message_is_later_whatever_the_clocks_say() {
        let (mut fast, mut slow) = (Clock::default(), Clock::default());
        let first = fast.next(7_200_000);
        slow.observe(first);
        let second = slow.next(0);
        assert!(second > first);
        fast.observe(second);
        assert!(fast.next(7_200_001) > second);
        slow.observe(Hlc(1));
        assert!(slow.next(0) > second, "what is old changes nothing");
    }

    #[test]
    fn a_year_ahead_is_absurd_and_a_clock_that_begins_in_1970_does_not_matter() {
        let now = EARLIEST_MS + 1_000;
        assert!(!is_absurd(Hlc::at_ms(now + ABSURD_MS), now));
        assert!(is_absurd(Hlc::at_ms(now + ABSURD_MS + 1), now));
        assert!(!is_absurd(Hlc::at_ms(now), 0));
        assert!(is_absurd(Hlc(u64::MAX), now));
    }
}
