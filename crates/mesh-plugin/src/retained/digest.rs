//! Numbers that are equal exactly when two indexes are.
//!
//! Each topic with its mark is hashed for itself, and the hashes are added up. A change is therefore one
//! subtraction and one addition, and the order in which topics came does not matter. SipHash with a fixed key is
//! equal on all machines and versions. It is no defence against somebody who looks for collisions; all they could
//! hide is a difference, until the next change of that topic.

use siphasher::sip128::SipHasher13;

use super::{Mark, State};

/// An index is divided into so many buckets, by the hashes of topics, so that differences are found in pieces.
pub const BUCKETS: usize = 4096;

/// The first bits of a hash are the bucket.
const SHIFT: u32 = u64::BITS - BUCKETS.trailing_zeros();

const KEY: [u8; 16] = *b"mqtt-mesh digest";

/// The bucket of a topic with this hash.
pub fn bucket_of(topic: u64) -> usize {
    (topic >> SHIFT) as usize
}

/// A hash that is equal on every broker.
pub fn hash64(bytes: &[u8]) -> u64 {
    SipHasher13::new_with_key(&KEY).hash(bytes).h1
}

/// A topic's hash: its first half says where it stands in an index, both say which it is in a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicHash {
    pub(super) place: u64,
    rest: u64,
}

impl TopicHash {
    /// The hash of `topic`.
    pub fn of(topic: &str) -> Self {
        let hash = SipHasher13::new_with_key(&KEY).hash(topic.as_bytes());
        Self {
            place: hash.h1,
            rest: hash.h2,
        }
    }

    /// The hash of this topic with `mark`.
    fn with(self, mark: Mark) -> u128 {
        let mut bytes = [0; 33];
        let words = [self.place, self.rest, mark.version.hlc, mark.version.tie];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32] = mark.state as u8;
        SipHasher13::new_with_key(&KEY).hash(&bytes).into()
    }
}

/// The digests of an index.
pub struct Digests {
    buckets: Box<[u64; BUCKETS]>,
    present: u128,
    count: u64,
}

impl Default for Digests {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            present: 0,
            count: 0,
        }
    }
}

impl Digests {
    /// A topic has got this mark.
    pub fn add(&mut self, topic: TopicHash, mark: Mark) {
        let hash = topic.with(mark);
        let bucket = &mut self.buckets[bucket_of(topic.place)];
        *bucket = bucket.wrapping_add(hash as u64);
        if mark.state == State::Present {
            self.present = self.present.wrapping_add(hash);
            self.count += 1;
        }
    }

    /// A topic has this mark no more.
    pub fn remove(&mut self, topic: TopicHash, mark: Mark) {
        let hash = topic.with(mark);
        let bucket = &mut self.buckets[bucket_of(topic.place)];
        *bucket = bucket.wrapping_sub(hash as u64);
        if mark.state == State::Present {
            self.present = self.present.wrapping_sub(hash);
            self.count -= 1;
        }
    }

    /// How many topics have a stored value.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digest of all stored values: equal on two brokers exactly when they hold the same.
    pub fn present(&self) -> u128 {
        self.present
    }

    /// The digest of each bucket, deletions included.
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retained::Version;

    fn mark(hlc: u64, state: State) -> Mark {
        let version = Version { hlc, tie: 7 };
        Mark { version, state }
    }

    #[test]
    fn a_digest_is_the_same_on_every_machine() {
        assert_eq!(hash64(b"broker1"), 0xb9fd_f9c0_4173_f1ad);
        let mut digests = Digests::default();
        digests.add(TopicHash::of("a/b"), mark(5, State::Present));
        assert_eq!(
            format!("{:032x}", digests.present()),
            "0d9507b557a7880b2b0aa3ef670210e7"
        );
    }

    #[test]
    fn what_is_added_and_removed_leaves_nothing() {
        let mut digests = Digests::default();
        let topics: Vec<_> = (0..100).map(|n| TopicHash::of(&format!("t/{n}"))).collect();
        for topic in &topics {
            digests.add(*topic, mark(1, State::Present));
            digests.add(*topic, mark(2, State::Gone));
        }
        assert_eq!(digests.count(), 100);
        for topic in topics.iter().rev() {
            digests.remove(*topic, mark(2, State::Gone));
            digests.remove(*topic, mark(1, State::Present));
        }
        assert_eq!((digests.count(), digests.present()), (0, 0));
        assert!(digests.buckets().iter().all(|bucket| *bucket == 0));
    }

    #[test]
    fn everything_that_tells_values_apart_changes_it() {
        let base = TopicHash::of("t").with(mark(1, State::Present));
        let other = Version { hlc: 1, tie: 8 };
        assert_ne!(base, TopicHash::of("u").with(mark(1, State::Present)));
        assert_ne!(base, TopicHash::of("t").with(mark(2, State::Present)));
        assert_ne!(base, TopicHash::of("t").with(mark(1, State::Gone)));
        assert_ne!(base, TopicHash::of("t").with(Mark::present(other)));
    }
}
