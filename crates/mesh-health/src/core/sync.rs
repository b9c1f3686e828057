//! Whether a broker has what its peers retain, by what its plugin tells.
//!
//! Guarantees: a broker whose plugin never told counts as in sync, since an older plugin tells nothing; one that has
//! told is not in sync from its death until it says so anew, however it answers before; a value that was retained,
//! and so may be from before, does not make it so.

use std::time::Duration;

use super::Moment;

/// What is believed of one broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sync {
    told: Option<bool>,
    /// Since when it has been answering without being in sync.
    since: Option<Moment>,
}

/// A change that is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The broker has what its peers have, after so long.
    In(Duration),
    /// It has not, or no longer.
    Out,
}

impl Sync {
    /// Whether clients may be sent to the broker, as far as retained messages are concerned.
    pub fn is_in(&self) -> bool {
        self.told != Some(false)
    }

    /// Takes in what the plugin tells. A `kept` value was retained, so nobody knows how old it is.
    pub fn take(&mut self, in_sync: bool, kept: bool, now: Moment) -> Option<Turn> {
        let before = self.told;
        if in_sync && kept && before == Some(false) {
            return None;
        }
        self.told = Some(in_sync);
        match (before, in_sync) {
            (Some(false), true) => Some(Turn::In(now.since(self.since.take().unwrap_or(now)))),
            (None | Some(true), false) => {
                self.since = Some(now);
                // Every broker begins so, and that is no news.
                before.map(|_| Turn::Out)
            }
            _ => None,
        }
    }

    /// The broker died: whatever it was, it is no longer.
    pub fn died(&mut self) {
        self.told = self.told.map(|_| false);
        self.since = None;
    }

    /// The broker answers again.
    pub fn returned(&mut self, now: Moment) {
        if !self.is_in() {
            self.since.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::after_start(Duration::from_secs(s))
    }

    #[test]
    fn a_broker_that_returns_is_in_sync_when_it_says_so_itself() {
        let mut sync = Sync::default();
        assert!(sync.is_in(), "an older plugin tells nothing");
        sync.died();
        assert!(sync.is_in());
        assert_eq!(sync.take(true, true, at(1)), None);
        sync.died();
        assert!(!sync.is_in());
        sync.returned(at(5));
        assert_eq!(sync.take(true, true, at(6)), None, "that may be from before");
        assert_eq!(sync.take(false, false, at(6)), None, "that was known");
        assert!(!sync.is_in());
        assert_eq!(
            sync.take(true, false, at(8)),
            Some(Turn::In(Duration::from_secs(3)))
        );
        assert!(sync.is_in());
    }

    #[test]
    fn a_broker_that_falls_behind_says_so() {
        let mut sync = Sync::default();
        assert_eq!(sync.take(false, true, at(1)), None, "every broker begins so");
        assert!(!sync.is_in());
        assert_eq!(sync.take(false, false, at(2)), None);
        assert_eq!(
            sync.take(true, false, at(4)),
            Some(Turn::In(Duration::from_secs(3)))
        );
        assert_eq!(sync.take(false, false, at(9)), Some(Turn::Out));
    }
}
