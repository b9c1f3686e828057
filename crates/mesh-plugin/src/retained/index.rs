//! What this broker knows of each topic that ever had a retained message and was not forgotten since.
//!
//! Built for a million topics and more on the broker's only thread: a change costs about a microsecond, a topic
//! about 50 bytes and itself, and everything that takes longer is done in pieces that the caller bounds. Topics
//! stand sorted by their hash in [`BUCKETS`] small tables, since that is how [`super::sync`] walks through them.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use super::digest::{BUCKETS, Digests, TopicHash, bucket_of};
use super::{Expiry, Mark, State};

pub use upkeep::{Swept, Topic};

mod upkeep;

/// So many new values are kept in mind of which nobody has told when they expire. The others are found by a sweep.
const MOST_FRESH: usize = 20_000;

/// What an offer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is later than what was known, and known now. Inside, what was known before.
    Taken(Option<Mark>),
    /// It is what was known.
    Known,
    /// Something later is known.
    Stale,
}

/// A topic with what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The topic.
    pub topic: &'a str,
    /// What is known of it.
    pub mark: Mark,
    /// When it expires, if it is stored.
    pub expiry: Expiry,
}

struct Slot {
    place: u64,
    mark: Mark,
    /// The second in which the value expires; of a value that has ended, in which it did. 0: never, or not known.
    second: u32,
    /// Whether `second` is to be trusted.
    known: bool,
    topic: Box<str>,
}

impl Slot {
    fn expiry(&self) -> Expiry {
        match (self.known, self.second) {
            (false, _) => Expiry::Unknown,
            (true, 0) => Expiry::Never,
            (true, second) => Expiry::At(second),
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            topic: &self.topic,
            mark: self.mark,
            expiry: self.expiry(),
        }
    }
}

/// The index.
pub struct Index {
    buckets: Box<[Vec<Slot>]>,
    digests: Digests,
    /// Values that expire, by the second in which they do.
    expiring: BTreeSet<(u32, u64)>,
    /// Where values came of which nobody has told when they expire, in that order. Some of it may be known by now.
    fresh: VecDeque<u64>,
    /// How many marks are not of stored values.
    ended: usize,
    /// The next bucket that is looked at.
    sweep: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
            digests: Digests::default(),
            expiring: BTreeSet::new(),
            fresh: VecDeque::new(),
            ended: 0,
            sweep: 0,
        }
    }
}

impl Index {
    /// The digests of what is known.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// How many deletions and expired values are remembered.
    pub fn ended(&self) -> usize {
        self.ended
    }

    /// What is known of `topic`.
    pub fn get(&self, topic: &str) -> Option<Entry<'_>> {
        let hash = TopicHash::of(topic);
        let bucket = &self.buckets[bucket_of(hash.place)];
        let at = find(bucket, hash.place, topic).ok()?;
        Some(bucket[at].entry())
    }

    /// What the mark of `topic` would be if `mark` were offered now.
    pub fn would(&self, topic: &str, mark: Mark) -> Offer {
        match self.get(topic).map(|entry| entry.mark) {
            Some(known) if known == mark => Offer::Known,
            Some(known) if known > mark => Offer::Stale,
            known => Offer::Taken(known),
        }
    }

    /// Somebody says this of `topic`. `now` is in seconds since 1970.
    pub fn offer(&mut self, topic: &str, mark: Mark, expiry: Expiry, now: u32) -> Offer {
        let hash = TopicHash::of(topic);
        let bucket = &mut self.buckets[bucket_of(hash.place)];
        match find(bucket, hash.place, topic) {
            Err(at) => {
                if bucket.len() == bucket.capacity() {
                    // By an eighth and not to the double: that is most of the memory of a large index.
                    bucket.reserve_exact(bucket.len() / 8 + 1);
                }
                let slot = Slot {
                    place: hash.place,
                    mark,
                    second: 0,
                    known: false,
                    topic: topic.into(),
                };
                bucket.insert(at, slot);
                self.note(hash, at, expiry, now);
                Offer::Taken(None)
            }
            Ok(at) => {
                let known = bucket[at].mark;
                if mark > known {
                    self.forget(hash, at);
                    self.slot(hash, at).mark = mark;
                    self.note(hash, at, expiry, now);
                    Offer::Taken(Some(known))
                } else if mark < known {
                    Offer::Stale
                } else {
                    if mark.state == State::Present && !bucket[at].known {
                        self.forget(hash, at);
                        self.note(hash, at, expiry, now);
                    }
                    Offer::Known
                }
            }
        }
    }

    /// The store was seen to hold something else than `known`, which was said of `topic`. The store is right.
    /// Does nothing if something else is known by now.
    pub fn correct(&mut self, topic: &str, known: Mark, stored: Mark, expiry: Expiry, now: u32) -> bool {
        let hash = TopicHash::of(topic);
        let bucket = &self.buckets[bucket_of(hash.place)];
        let Ok(at) = find(bucket, hash.place, topic) else {
            return false;
        };
        if bucket[at].mark != known {
            return false;
        }
        self.forget(hash, at);
        self.slot(hash, at).mark = stored;
        self.note(hash, at, expiry, now);
        true
    }

    /// Some topics of a bucket, from the place `from` on, and the place where the next ones begin. At least
    /// `most`, unless there are no more; more than that only if hashes are equal.
    pub fn list(
        &self,
        bucket: usize,
        from: u64,
        most: usize,
    ) -> (impl Iterator<Item = Entry<'_>>, Option<u64>) {
        let slots = self.buckets.get(bucket).map_or(&[][..], Vec::as_slice);
        let start = slots.partition_point(|slot| slot.place < from);
        let rest = &slots[start..];
        let mut end = rest.len().min(most);
        while end > 0 && end < rest.len() && rest[end].place == rest[end - 1].place {
            end += 1;
        }
        let next = rest.get(end).map(|slot| slot.place);
        (rest[..end].iter().map(Slot::entry), next)
    }

    /// Takes a bucket out.
    pub fn take_bucket(&mut self, bucket: usize) -> Vec<(Box<str>, Mark, Expiry)> {
        let slots = mem::take(&mut self.buckets[bucket]);
        for slot in &slots {
            let hash = TopicHash::of(&slot.topic);
            self.digests.remove(hash, slot.mark);
            match slot.mark.state {
                State::Present => {
                    self.expiring.remove(&(slot.second, slot.place));
                }
                _ => self.ended -= 1,
            }
        }
        let taken = slots.into_iter().map(|slot| {
            let expiry = slot.expiry();
            (slot.topic, slot.mark, expiry)
        });
        taken.collect()
    }

    fn slot(&mut self, hash: TopicHash, at: usize) -> &mut Slot {
        &mut self.buckets[bucket_of(hash.place)][at]
    }

    /// Takes what is known at this slot out of all sums.
    fn forget(&mut self, hash: TopicHash, at: usize) {
        let slot = &self.buckets[bucket_of(hash.place)][at];
        self.digests.remove(hash, slot.mark);
        if slot.mark.state != State::Present {
            self.ended -= 1;
        } else if slot.second != 0 {
            self.expiring.remove(&(slot.second, slot.place));
        }
    }

    /// Adds what is known at this slot to all sums.
    fn note(&mut self, hash: TopicHash, at: usize, expiry: Expiry, now: u32) {
        let slot = &mut self.buckets[bucket_of(hash.place)][at];
        let present = slot.mark.state == State::Present;
        (slot.known, slot.second) = match expiry {
            Expiry::At(second) if present => (true, second.max(1)),
            Expiry::Never if present => (true, 0),
            _ if present => (false, 0),
            // Since when it has ended.
            Expiry::At(second) => (false, second),
            _ => (false, now),
        };
        if !present {
            self.ended += 1;
        } else if slot.second != 0 {
            self.expiring.insert((slot.second, slot.place));
        } else if !slot.known && self.fresh.len() < MOST_FRESH {
            self.fresh.push_back(slot.place);
        }
        self.digests.add(hash, slot.mark);
    }
}

/// Where `topic` stands in a bucket, or would.
fn find(bucket: &[Slot], place: u64, topic: &str) -> Result<usize, usize> {
    let from = bucket.partition_point(|slot| slot.place < place);
    let same = bucket[from..].iter().take_while(|slot| slot.place == place);
    let mut end = from;
    for slot in same {
        if *slot.topic == *topic {
            return Ok(end);
        }
        end += 1;
    }
    Err(end)
}

#[cfg(test)]
mod tests;
