//! Values that count although the broker may not have stored them yet: those of QoS 2 that are in the log, but were not
//! seen to be released. That they are not found in the store tells nothing.

use std::collections::HashMap;
use std::time::Duration;

use super::Replica;
use crate::retained::sync::Now;
use crate::retained::{Mark, State, Version, shared};
use crate::stamp::Stamp;

/// A client that has not released a message for so long may never do it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which these are, by topic, and since when.
#[derive(Debug, Default)]
pub(super) struct Awaited(HashMap<Box<str>, (Version, Duration)>);

impl Awaited {
    /// Whether this may be stored later.
    pub(super) fn is(&self, topic: &str, mark: Mark) -> bool {
        self.0
            .get(topic)
            .is_some_and(|(version, _)| *version == mark.version)
    }

    /// Some time has passed.
    pub(super) fn give_up(&mut self, now: Now) {
        self.0
            .retain(|_, (_, since)| now.up.saturating_sub(*since) < PATIENCE);
    }
}

impl Replica {
    /// This is told to peers, and the broker stores it later or has done so. To be told before [`Self::local`].
    pub fn awaits(&mut self, topic: &[u8], stamp: &Stamp, payload: &[u8]) {
        if let Some(topic) = shared(topic) {
            let version = Version::of(stamp, payload);
            self.awaited.0.insert(topic.into(), (version, self.now.up));
        }
    }

    /// The broker stores that now, or never will. Whether it was given up, and nothing has come since.
    pub fn came(&mut self, topic: &[u8], stamp: &Stamp, payload: &[u8]) -> bool {
        let Some(topic) = shared(topic) else { return false };
        let version = Version::of(stamp, payload);
        if self.awaited.is(topic, Mark::present(version)) {
            self.awaited.0.remove(topic);
        }
        let known = self.index.get(topic).map(|entry| entry.mark);
        stamp.retain && known.is_some_and(|known| known.version == version && known.state == State::Gone)
    }
}
