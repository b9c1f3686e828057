//! What a broker knows when it starts: from its journal what has ended, from its database what is stored.

use crate::retained::digest::TopicHash;
use crate::retained::index::{Index, Offer};
use crate::retained::store_file::Stored;
use crate::retained::{Expiry, Mark, Version, shared};

/// The broker drops values from its database that have expired. One whose last second has just begun it takes for
/// one that never does, so these are removed once more.
const JUST_NOW: u32 = 10;

/// What is known so far.
#[derive(Default)]
pub struct Restored {
    pub(super) index: Index,
    /// Topics where the broker holds what the index does not.
    pub(super) unwanted: Vec<Box<str>>,
    newest: u64,
    now: u32,
}

impl Restored {
    /// Nothing yet, at this second since 1970.
    pub fn at(now: u32) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// The value of a topic has ended, in this second. To be told before what is stored.
    pub fn ended(&mut self, topic: &str, mark: Mark, second: u32) {
        self.newest = self.newest.max(mark.version.hlc);
        self.index.offer(topic, mark, Expiry::At(second), self.now);
    }

    /// The database holds these values, with their versions.
    pub fn all_stored(&mut self, mut all: Vec<Stored<Version>>) {
        // In the order in which they stand in the index, each is put behind the one before, and nothing is moved.
        all.sort_by_cached_key(|stored| TopicHash::of(&stored.topic).place);
        for Stored {
            topic,
            expires,
            about,
        } in &all
        {
            self.stored(topic, *about, *expires);
        }
    }

    /// The database holds a value.
    pub fn stored(&mut self, topic: &str, version: Version, expires: Option<u32>) {
        if shared(topic.as_bytes()).is_none() {
            return;
        }
        self.newest = self.newest.max(version.hlc);
        let expired = expires.filter(|second| *second <= self.now);
        if let Some(second) = expired {
            self.index
                .offer(topic, Mark::gone(version), Expiry::At(second), self.now);
            if second.saturating_add(JUST_NOW) < self.now {
                return;
            }
            self.unwanted.push(topic.into());
        } else {
            let expiry = expires.map_or(Expiry::Never, Expiry::At);
            if self.index.offer(topic, Mark::present(version), expiry, self.now) == Offer::Stale {
                self.unwanted.push(topic.into());
            }
        }
    }

    /// The latest time of a stamp: the clock must not begin before it.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// How many values are stored.
    pub fn count(&self) -> u64 {
        self.index.digests().count()
    }
}
