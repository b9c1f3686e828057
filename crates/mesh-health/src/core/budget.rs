//! How many switches that need not be are allowed.
//!
//! Leaving a dead primary and what an operator asks for never come here.

use std::time::Duration;

use super::Moment;

/// The optional switches of late.
#[derive(Debug, Default)]
pub struct Budget {
    taken: Vec<Moment>,
}

impl Budget {
    /// With the switches that were taken before the daemon was restarted.
    pub fn recalled(taken: Vec<Moment>) -> Self {
        Self { taken }
    }

    /// When the switches of late were taken.
    pub fn taken(&self) -> &[Moment] {
        &self.taken
    }

    /// Takes one switch, if there were fewer than `most` within `window`; else tells when there will be one.
    pub fn take(&mut self, most: u64, window: Duration, now: Moment) -> Result<(), Moment> {
        self.taken.retain(|then| now.since(*then) < window);
        match self.taken.first() {
            Some(first) if self.taken.len() as u64 >= most => Err(*first + window),
            _ => {
                self.taken.push(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_switch_waits_until_the_window_has_passed_the_first() {
        let mut budget = Budget::default();
        let at = |s| Moment::after_start(Duration::from_secs(s));
        let mut take = |s| budget.take(3, Duration::from_secs(300), at(s));
        assert_eq!([take(0), take(10), take(20)], [Ok(()); 3]);
        assert_eq!([take(30), take(299)], [Err(at(300)); 2]);
        assert_eq!(take(300), Ok(()));
        assert_eq!(take(301), Err(at(310)));
    }
}
