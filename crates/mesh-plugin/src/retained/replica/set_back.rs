//! Topics where the broker stores something older than what it has shown: what a client releases late cannot be
//! refused. What was shown is fetched again, or its end carried out again, and nothing in between is taken for new.
//! Should no peer have it any more, then what they have counts after a while.

use std::collections::HashMap;
use std::time::Duration;

use super::Replica;
use crate::retained::sync::Now;
use crate::retained::{Expiry, Mark, State, Version, shared};
use crate::stamp::Stamp;

/// Peers that are there are asked several times within that.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The latest that was known of a topic where something older is stored.
#[derive(Debug, Clone, Copy)]
struct Floor {
    version: Version,
    since: Duration,
}

/// All such topics.
#[derive(Debug, Default)]
pub(super) struct Floors(HashMap<Box<str>, Floor>);

impl Floors {
    /// The latest that was known of the topic, if something older is stored there.
    fn get(&self, topic: &str) -> Option<Version> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(topic).map(|floor| floor.version)
    }

    /// Whether this is older than what was known. If it is not, there is nothing more to wait for.
    pub(super) fn is_below(&mut self, topic: &str, version: Version) -> bool {
        match self.get(topic) {
            Some(floor) if version < floor => true,
            Some(_) => {
                self.0.remove(topic);
                false
            }
            None => false,
        }
    }

    /// Gives up what was not found although somebody is there since this time.
    pub(super) fn give_up(&mut self, now: Now, there_since: Duration) {
        self.0
            .retain(|_, floor| now.up.saturating_sub(floor.since.max(there_since)) < GIVE_UP);
    }
}

impl Replica {
    /// Whether nothing later than this stamp is known of the topic.
    pub fn is_newest(&self, topic: &[u8], stamp: &Stamp) -> bool {
        let Some(topic) = shared(topic) else { return true };
        let version = Version::of(stamp, b"");
        let known = self.index.get(topic).map(|entry| entry.mark.version);
        known.max(self.floors.get(topic)) <= Some(version)
    }

    /// The broker stores this although something later is known of the topic. That is fetched again from a peer that has
    /// it; where it is that there is nothing, this is removed.
    pub fn stored_older(&mut self, topic: &[u8], stamp: &Stamp, payload: &[u8]) {
        if let Some(topic) = shared(topic) {
            self.set_back(topic, Version::of(stamp, payload), payload.is_empty());
        }
    }

    /// What [`Self::stored_older`] does.
    pub(super) fn set_back(&mut self, topic: &str, version: Version, empty: bool) {
        let Some(known) = self.index.get(topic).map(|entry| entry.mark) else {
            return;
        };
        let floor = Floor {
            version: self
                .floors
                .get(topic)
                .map_or(known.version, |floor| floor.max(known.version)),
            since: self.now.up,
        };
        self.floors.0.insert(topic.into(), floor);
        if known.state != State::Present {
            return self.unwanted.push_back(topic.into());
        }
        let stored = if empty {
            Mark::cleared(version)
        } else {
            Mark::present(version)
        };
        self.index
            .correct(topic, known, stored, Expiry::Unknown, self.now.wall);
    }

    /// Whether something older is stored anywhere than what was stored and shown before; see [`Self::stored_older`].
    pub fn is_set_back(&self) -> bool {
        !self.floors.0.is_empty()
    }

    /// What is stored at the topic is removed now. Whether it was older than what was shown before; if that was the end
    /// of a value, then all is as it was.
    pub fn removed(&mut self, topic: &[u8]) -> bool {
        let Some(topic) = shared(topic) else { return false };
        let Some(floor) = self.floors.get(topic) else {
            return false;
        };
        let known = self.index.get(topic).map(|entry| entry.mark.version);
        if known >= Some(floor) {
            self.floors.0.remove(topic);
        }
        true
    }

    /// Whether this is what is missing at its topic. Asked before it is offered.
    pub fn is_missing(&self, topic: &[u8], stamp: &Stamp, payload: &[u8]) -> bool {
        let floor = shared(topic).and_then(|topic| self.floors.get(topic));
        floor == Some(Version::of(stamp, payload))
    }
}
