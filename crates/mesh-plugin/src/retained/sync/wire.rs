//! What two brokers say to each other to find out how they differ.
//!
//! One message is one payload: the version of this language, a kind, the number of a round, and a body; numbers
//! are in little-endian order. Peers log in with a password, but a broker of another version may say anything, so
//! every length is checked, and what is not understood is no message.

use crate::retained::digest::BUCKETS;
use crate::retained::{Expiry, Mark, State, Version};

const LANGUAGE: u8 = 1;

/// A topic with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The topic.
    pub topic: Box<str>,
    /// What is known of it.
    pub mark: Mark,
    /// When it expires; of what has ended, when it did.
    pub expiry: Expiry,
}

/// What is said in a round. Who began the round asks (`Ask`, `List`, `Want`), the other one answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saying {
    /// This is the digest of what is stored here. Said now and then, in no round.
    Here {
        /// The digest.
        digest: u128,
    },
    /// These are the digests of my buckets. Which of yours differ?
    Ask {
        /// One of each bucket.
        digests: Vec<u64>,
    },
    /// These differ.
    Differ {
        /// Whether I vouch for what I have; if not I was away for long and do not know what was deleted.
        settled: bool,
        /// The buckets.
        buckets: Vec<u16>,
    },
    /// What is in this bucket, from this place on?
    List {
        /// Which bucket.
        bucket: u16,
        /// A topic's place is the first half of its hash.
        from: u64,
    },
    /// This is.
    Listed {
        /// Which bucket.
        bucket: u16,
        /// Where to go on, if this is not all.
        next: Option<u64>,
        /// Topics.
        items: Vec<Item>,
    },
    /// Send me these values.
    Want {
        /// The number of this wish.
        slice: u32,
        /// The topics and what I believe you have.
        topics: Vec<(Box<str>, Mark)>,
    },
    /// All values of a wish are sent.
    Given {
        /// The number of the wish.
        slice: u32,
        /// What I could not send as wished, with what I know of it now; and values whose expiry I have learnt.
        items: Vec<Item>,
    },
}

impl Saying {
    /// As a payload.
    pub fn encode(&self, round: u32) -> Vec<u8> {
        let mut to = vec![LANGUAGE, 0];
        to.extend(round.to_le_bytes());
        to[1] = match self {
            Self::Here { digest } => {
                to.extend(digest.to_le_bytes());
                0
            }
            Self::Ask { digests } => {
                to.extend(digests.iter().flat_map(|digest| digest.to_le_bytes()));
                1
            }
            Self::Differ { settled, buckets } => {
                to.push((*settled).into());
                to.extend(buckets.iter().flat_map(|bucket| bucket.to_le_bytes()));
                2
            }
            Self::List { bucket, from } => {
                to.extend(bucket.to_le_bytes());
                to.extend(from.to_le_bytes());
                3
            }
            Self::Listed { bucket, next, items } => {
                to.extend(bucket.to_le_bytes());
                to.push(next.is_some().into());
                to.extend(next.unwrap_or_default().to_le_bytes());
                items.iter().for_each(|item| write_item(item, &mut to));
                4
            }
            Self::Want { slice, topics } => {
                to.extend(slice.to_le_bytes());
                for (topic, mark) in topics {
                    write_topic(topic, *mark, &mut to);
                }
                5
            }
            Self::Given { slice, items } => {
                to.extend(slice.to_le_bytes());
                items.iter().for_each(|item| write_item(item, &mut to));
                6
            }
        };
        to
    }

    /// A payload's round and what it says, if it is understood.
    pub fn decode(payload: &[u8]) -> Option<(u32, Self)> {
        let mut input = Input(payload);
        if input.u8()? != LANGUAGE {
            return None;
        }
        let kind = input.u8()?;
        let round = input.u32()?;
        let saying = match kind {
            0 => Self::Here {
                digest: input.take().map(u128::from_le_bytes)?,
            },
            1 => {
                let digests = input.all(Input::u64)?;
                (digests.len() == BUCKETS).then_some(Self::Ask { digests })?
            }
            2 => Self::Differ {
                settled: input.u8()? != 0,
                buckets: input.all(|input| input.u16().filter(|bucket| usize::from(*bucket) < BUCKETS))?,
            },
            3 => Self::List {
                bucket: input.u16()?,
                from: input.u64()?,
            },
            4 => {
                let bucket = input.u16()?;
                let more = input.u8()? != 0;
                let next = Some(input.u64()?).filter(|_| more);
                let items = input.all(Input::item)?;
                Self::Listed { bucket, next, items }
            }
            5 => Self::Want {
                slice: input.u32()?,
                topics: input.all(Input::topic)?,
            },
            6 => Self::Given {
                slice: input.u32()?,
                items: input.all(Input::item)?,
            },
            _ => return None,
        };
        Some((round, saying))
    }
}

fn write_topic(topic: &str, mark: Mark, to: &mut Vec<u8>) {
    to.push(mark.state as u8);
    to.extend(mark.version.hlc.to_le_bytes());
    to.extend(mark.version.tie.to_le_bytes());
    // No topic of MQTT is longer.
    to.extend((topic.len() as u16).to_le_bytes());
    to.extend(topic.bytes());
}

fn write_item(item: &Item, to: &mut Vec<u8>) {
    let (kind, second) = match item.expiry {
        Expiry::Unknown => (0, 0),
        Expiry::Never => (1, 0),
        Expiry::At(second) => (2u8, second),
    };
    to.push(kind);
    to.extend(second.to_le_bytes());
    write_topic(&item.topic, item.mark, to);
}

/// What is not yet read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn topic(&mut self) -> Option<(Box<str>, Mark)> {
        let state = match self.u8()? {
            0 => State::Present,
            1 => State::Cleared,
            2 => State::Gone,
            _ => return None,
        };
        let (hlc, tie) = (self.u64()?, self.u64()?);
        let version = Version { hlc, tie };
        let length = self.u16()?;
        let (topic, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        let topic = str::from_utf8(topic).ok()?;
        // It becomes a topic filter of the reader, and a topic here.
        let is_topic = !topic.is_empty() && !topic.contains(['#', '+', '\0']) && !topic.starts_with('$');
        is_topic.then(|| (topic.into(), Mark { version, state }))
    }

    fn item(&mut self) -> Option<Item> {
        let (kind, second) = (self.u8()?, self.u32()?);
        let expiry = match kind {
            0 => Expiry::Unknown,
            1 => Expiry::Never,
            2 => Expiry::At(second),
            _ => return None,
        };
        let (topic, mark) = self.topic()?;
        Some(Item { topic, mark, expiry })
    }

    /// All that is left.
    fn all<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(one(self)?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let version = Version {
            hlc: u64::MAX,
            tie: 1,
        };
        [
            ("a", Mark::present(version), Expiry::Never),
            ("ö/b", Mark::cleared(version), Expiry::At(77)),
            ("c", Mark::gone(version), Expiry::Unknown),
        ]
        .map(|(topic, mark, expiry)| Item {
            topic: topic.into(),
            mark,
            expiry,
        })
        .to_vec()
    }

    fn sayings() -> Vec<Saying> {
        let topics = items().into_iter().map(|item| (item.topic, item.mark)).collect();
        let digests = (0..BUCKETS as u64).collect();
        let items = items();
        vec![
            Saying::Here {
                digest: u128::MAX - 5,
            },
            Saying::Ask { digests },
            Saying::Differ {
                settled: true,
                buckets: vec![0, 4095],
            },
            Saying::List {
                bucket: 9,
                from: 1 << 60,
            },
            Saying::Listed {
                bucket: 9,
                next: None,
                items: Vec::new(),
            },
            Saying::Listed {
                bucket: 9,
                next: Some(7),
                items: items.clone(),
            },
            Saying::Want { slice: 5, topics },
            Saying::Given { slice: 5, items },
        ]
    }

    #[test]
    fn what_is_said_is_understood() {
        for saying in sayings() {
            assert_eq!(Saying::decode(&saying.encode(42)), Some((42, saying)));
        }
    }

    #[test]
    fn no_payload_makes_it_panic() {
        let mut random = fastrand::Rng::with_seed(3);
        for saying in sayings() {
            let good = saying.encode(1);
            for end in 0..good.len().min(200) {
                Saying::decode(&good[..end]);
            }
            for _ in 0..2000 {
                let mut bytes = good[..good.len().min(300)].to_vec();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
                Saying::decode(&bytes);
            }
        }
    }

    #[test]
    fn what_is_no_topic_is_not_understood() {
        let mark = Mark::present(Version { hlc: 1, tie: 1 });
        for topic in ["", "#", "a/+", "$SYS/x", "a\0b"] {
            let topics = vec![(topic.into(), mark)];
            let payload = Saying::Want { slice: 1, topics }.encode(1);
            assert_eq!(Saying::decode(&payload), None, "{topic:?}");
        }
    }
}
