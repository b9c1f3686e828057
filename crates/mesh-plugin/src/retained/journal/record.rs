//! The records of a journal, and what a file full of them comes to.
//!
//! A record is its length, the CRC-32 of what follows, a kind, and a body; numbers are in little-endian order. A
//! length or a checksum that is wrong ends the file: nothing behind it can be told apart.

use std::collections::HashMap;

use crate::retained::{Mark, State, Version};

/// What a journal begins with.
pub(super) const HEADER: &[u8; 16] = b"mqtt-mesh log 1\n";

/// No record is longer: a topic has 65,535 bytes at most.
const LONGEST: usize = 1 << 20;

/// Something that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// The value of a topic has ended, in this second since 1970.
    Ended(&'a str, Mark, u32),
    /// Which messages were seen, in the words of [`crate::replication`]. The last one counts.
    Seen(&'a [u8]),
    /// The broker has started and stamps with this epoch.
    Epoch(u64),
    /// The broker ran at this time, in milliseconds since 1970.
    Alive(u64),
}

impl<'a> Record<'a> {
    /// Appends the record.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend([0; 8]);
        match *self {
            Record::Ended(topic, mark, second) => {
                to.extend([1, mark.state as u8]);
                to.extend(mark.version.hlc.to_le_bytes());
                to.extend(mark.version.tie.to_le_bytes());
                to.extend(second.to_le_bytes());
                to.extend(topic.bytes());
            }
            Record::Seen(seen) => {
                to.push(2);
                to.extend(seen);
            }
            Record::Epoch(epoch) => {
                to.push(3);
                to.extend(epoch.to_le_bytes());
            }
            Record::Alive(at) => {
                to.push(4);
                to.extend(at.to_le_bytes());
            }
        }
        let length = to.len() - start - 8;
        let sum = crc32fast::hash(&to[start + 8..]);
        to[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        to[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }

    /// The next record and what follows it. Inside nothing if a later version of this plugin wrote it.
    fn read(bytes: &'a [u8]) -> Option<(Option<Self>, &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST {
            return None;
        }
        let (body, rest) = rest.split_at_checked(length)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        Some((Self::parse(body), rest))
    }

    fn parse(body: &'a [u8]) -> Option<Self> {
        let (kind, body) = body.split_first()?;
        let number = || Some(u64::from_le_bytes(*body.first_chunk()?));
        match kind {
            1 => {
                let (fixed, topic) = body.split_first_chunk::<21>()?;
                let state = match fixed[0] {
                    1 => State::Cleared,
                    2 => State::Gone,
                    _ => return None,
                };
                let version = Version {
                    hlc: u64::from_le_bytes(*fixed[1..].first_chunk()?),
                    tie: u64::from_le_bytes(*fixed[9..].first_chunk()?),
                };
                let second = u32::from_le_bytes(*fixed[17..].first_chunk()?);
                Some(Self::Ended(
                    str::from_utf8(topic).ok()?,
                    Mark { version, state },
                    second,
                ))
            }
            2 => Some(Self::Seen(body)),
            3 => number().map(Self::Epoch),
            4 => number().map(Self::Alive),
            _ => None,
        }
    }
}

/// What a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Values that have ended, and in which second since 1970.
    pub ended: HashMap<String, (Mark, u32)>,
    /// Which messages were seen.
    pub seen: Option<Vec<u8>>,
    /// The epoch of the last start.
    pub epoch: Option<u64>,
    /// When the broker last ran, in milliseconds since 1970.
    pub alive: Option<u64>,
    /// So many bytes at the end were torn or are no journal at all.
    pub torn: usize,
}

impl Kept {
    /// Reads a file. What ended before `oldest` is left out.
    pub(super) fn read(bytes: &[u8], oldest: u32) -> Self {
        let mut kept = Self::default();
        let Some(mut rest) = bytes.strip_prefix(HEADER) else {
            kept.torn = bytes.len();
            return kept;
        };
        while let Some((record, after)) = Record::read(rest) {
            rest = after;
            if let Some(record) = record {
                kept.apply(&record, oldest);
            }
        }
        kept.torn = rest.len();
        kept
    }

    fn apply(&mut self, record: &Record<'_>, oldest: u32) {
        match *record {
            Record::Ended(topic, mark, second) if second >= oldest => {
                let known = self.ended.entry(topic.to_owned()).or_insert((mark, second));
                if mark > known.0 {
                    *known = (mark, second);
                }
            }
            Record::Ended(..) => {}
            Record::Seen(seen) => self.seen = Some(seen.to_vec()),
            Record::Epoch(epoch) => self.epoch = Some(epoch),
            Record::Alive(at) => self.alive = Some(at),
        }
    }

    /// Appends records that come to the same.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        for (topic, (mark, second)) in &self.ended {
            Record::Ended(topic, *mark, *second).write(to);
        }
        let others = [
            self.seen.as_deref().map(Record::Seen),
            self.epoch.map(Record::Epoch),
            self.alive.map(Record::Alive),
        ];
        for record in others.into_iter().flatten() {
            record.write(to);
        }
    }
}
