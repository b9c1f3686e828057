//! What has to be looked after: values that expire, values of which nobody has told when they do, and deletions that are
//! remembered no more.

use super::super::digest::{BUCKETS, TopicHash, bucket_of};
use super::super::{Expiry, Mark, State};
use super::{Index, Slot};

/// A topic that needs something done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Box<str>,
    /// What was known of it.
    pub mark: Mark,
}

/// What a look at some of the topics has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// So many deletions were forgotten.
    pub forgotten: usize,
    /// Stored values of which nobody has told when they expire.
    pub unknown: Vec<Topic>,
}

impl Index {
    /// Values whose time is over at `now`, in seconds since 1970; `most` of them. They are gone now.
    pub fn expire(&mut self, now: u32, most: usize) -> Vec<Topic> {
        let mut topics = Vec::new();
        while topics.len() < most
            && let Some(&(second, place)) = self.expiring.first()
            && second <= now
        {
            self.expiring.pop_first();
            let bucket = bucket_of(place);
            let from = self.buckets[bucket].partition_point(|slot| slot.place < place);
            let same = self.buckets[bucket][from..]
                .iter()
                .take_while(|slot| slot.place == place);
            let due = same.enumerate().filter(|(_, slot)| {
                slot.mark.state == State::Present && slot.known && slot.second != 0 && slot.second <= now
            });
            let due: Vec<_> = due.map(|(nth, slot)| (from + nth, slot.topic.clone())).collect();
            for (at, name) in due {
                let hash = TopicHash::of(&name);
                self.forget(hash, at);
                let slot = self.slot(hash, at);
                slot.mark.state = State::Gone;
                let mark = slot.mark;
                self.note(hash, at, Expiry::Unknown, now);
                topics.push(Topic { name, mark });
            }
        }
        topics
    }

    /// Of the values that came last those of which nobody has told when they expire, about `most` of them; each once.
    pub fn take_fresh(&mut self, most: usize) -> Vec<Topic> {
        let mut places: Vec<u64> = self.fresh.drain(..self.fresh.len().min(most)).collect();
        places.sort_unstable();
        places.dedup();
        let unknown = places.into_iter().flat_map(|place| {
            let bucket = &self.buckets[bucket_of(place)];
            let from = bucket.partition_point(|slot| slot.place < place);
            let same = bucket[from..].iter().take_while(move |slot| slot.place == place);
            same.filter(|slot| slot.mark.state == State::Present && !slot.known)
        });
        let topic = |slot: &Slot| Topic {
            name: slot.topic.clone(),
            mark: slot.mark,
        };
        unknown.map(topic).collect()
    }

    /// Looks at about `most` topics, going on where the last call has ended: forgets what ended more than `ttl`
    /// seconds before `now`, and tells of `unknown` values at most that nobody knows when they expire.
    pub fn sweep(&mut self, now: u32, ttl: u32, most: usize, unknown: usize) -> Swept {
        let mut swept = Swept::default();
        let mut seen = 0;
        for _ in 0..BUCKETS {
            if seen >= most {
                break;
            }
            let bucket = self.sweep;
            self.sweep = (self.sweep + 1) % BUCKETS;
            // With few topics most are, and there are thousands of them.
            if self.buckets[bucket].is_empty() {
                continue;
            }
            seen += self.buckets[bucket].len();
            self.sweep_bucket(bucket, now.saturating_sub(ttl), unknown, &mut swept);
        }
        swept
    }

    fn sweep_bucket(&mut self, bucket: usize, before: u32, unknown: usize, swept: &mut Swept) {
        let digests = &mut self.digests;
        let forgotten = swept.forgotten;
        self.buckets[bucket].retain(|slot| {
            if slot.mark.state == State::Present {
                if !slot.known && swept.unknown.len() < unknown {
                    swept.unknown.push(Topic {
                        name: slot.topic.clone(),
                        mark: slot.mark,
                    });
                }
                return true;
            }
            let old = slot.second < before;
            if old {
                digests.remove(TopicHash::of(&slot.topic), slot.mark);
                swept.forgotten += 1;
            }
            !old
        });
        self.ended -= swept.forgotten - forgotten;
    }
}
