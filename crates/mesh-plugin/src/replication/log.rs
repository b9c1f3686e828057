//! Messages that not every peer is known to have seen, in the order in which they came.
//!
//! An entry stays until every peer that needs it has reported it, so normally the log holds what was sent in the
//! last tenths of a second. It is bounded by count and bytes: then the oldest entry goes, whoever lacks it.

use std::collections::VecDeque;

use super::bytes::{Bytes, Place};
use crate::message::{Publish, decode};
use crate::stamp::Stamp;

/// A set of peers, a bit for each, by their place in the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peers(u64);

impl Peers {
    /// How many peers there may be.
    pub const MOST: usize = u64::BITS as usize;

    /// The first `count` peers.
    pub fn all(count: usize) -> Self {
        Self((0..count).fold(0, |bits, peer| bits | 1 << peer))
    }

    /// Whether `peer` is one of these.
    pub fn contains(self, peer: usize) -> bool {
        self.0 & 1 << peer != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These without `peer`.
    pub fn without(self, peer: usize) -> Self {
        Self(self.0 & !(1 << peer))
    }

    /// Each of these.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let peer = left.trailing_zeros() as usize;
            // The lowest bit goes.
            left &= left.wrapping_sub(1);
            (peer < Self::MOST).then_some(peer)
        })
    }
}

/// What of a message is kept.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The topic.
    pub topic: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// The properties with the stamp, as [`crate::message::encode`] writes them.
    pub properties: &'a [u8],
}

/// A message that stands in no log.
#[derive(Debug)]
pub struct Entry {
    /// Its stamp.
    pub stamp: Stamp,
    /// Who needs it and is not known to have it.
    pub lacking: Peers,
    /// When it came, in milliseconds since the start.
    pub at_ms: u64,
    topic_length: usize,
    payload_length: usize,
    /// Topic, payload and properties, one after the other.
    bytes: Box<[u8]>,
}

impl Entry {
    /// An entry with a copy of `content`.
    pub fn new(stamp: Stamp, content: &Content<'_>, lacking: Peers, at_ms: u64) -> Self {
        let bytes = [content.topic, content.payload, content.properties].concat();
        Self {
            stamp,
            lacking,
            at_ms,
            topic_length: content.topic.len(),
            payload_length: content.payload.len(),
            bytes: bytes.into(),
        }
    }

    /// A copy of it.
    pub fn copy(&self) -> Self {
        Self::new(self.stamp.clone(), &self.content(), self.lacking, self.at_ms)
    }

    /// What was kept.
    pub fn content(&self) -> Content<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_length);
        let (payload, properties) = rest.split_at(self.payload_length);
        Content {
            topic,
            payload,
            properties,
        }
    }

    /// The message, as a link carries it.
    pub fn publish(&self) -> Option<Publish<'_>> {
        publish(&self.stamp, self.content())
    }

    /// What it takes in memory, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

fn publish<'a>(stamp: &Stamp, content: Content<'a>) -> Option<Publish<'a>> {
    Some(Publish {
        topic: str::from_utf8(content.topic).ok()?,
        payload: content.payload,
        qos: stamp.qos.min(1),
        retain: stamp.retain,
        properties: decode(content.properties)?,
    })
}

/// A message in a log.
#[derive(Debug)]
pub struct Logged {
    /// Its stamp.
    pub stamp: Stamp,
    /// Who needs it and is not known to have it.
    pub lacking: Peers,
    /// When it came, in milliseconds since the start.
    pub at_ms: u64,
    topic_length: usize,
    payload_length: usize,
    /// Topic, payload and properties, one after the other.
    bytes: Place,
}

impl Logged {
    /// What it takes in memory, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.length() + size_of::<Self>()
    }
}

/// A message in a log, with its content.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Its stamp.
    pub stamp: &'a Stamp,
    content: Content<'a>,
}

impl<'a> Kept<'a> {
    /// The message, as a link carries it.
    pub fn publish(&self) -> Option<Publish<'a>> {
        publish(self.stamp, self.content)
    }
}

/// How much a log may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages.
    pub count: usize,
    /// Bytes of memory.
    pub bytes: usize,
}

/// The entries. Each has a position, which it keeps; positions ascend without gaps.
#[derive(Debug)]
pub struct Log {
    entries: VecDeque<Logged>,
    /// The position of the first entry.
    first: u64,
    /// The contents of the entries, in the same order.
    contents: Bytes,
    /// The size of all entries.
    bytes: usize,
    bounds: Bounds,
    peers: Vec<OfPeer>,
}

/// What one peer lacks.
#[derive(Debug, Clone, Copy, Default)]
struct OfPeer {
    /// It lacks no entry before this position.
    from: u64,
    /// How many entries it lacks.
    count: usize,
    /// Their size in bytes.
    bytes: usize,
}

impl Log {
    /// A log for so many peers.
    pub fn new(bounds: Bounds, peers: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            contents: Bytes::default(),
            bytes: 0,
            bounds,
            peers: vec![OfPeer::default(); peers],
        }
    }

    /// The position of the next entry.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The entry at `position`, if it is still there.
    pub fn get(&self, position: u64) -> Option<&Logged> {
        let at = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    /// The entry at `position` with its content, if it is still there.
    pub fn kept(&self, position: u64) -> Option<Kept<'_>> {
        let entry = self.get(position)?;
        let (topic, rest) = self.contents.get(entry.bytes).split_at(entry.topic_length);
        let (payload, properties) = rest.split_at(entry.payload_length);
        Some(Kept {
            stamp: &entry.stamp,
            content: Content {
                topic,
                payload,
                properties,
            },
        })
    }

    /// The entries that `peer` lacks from `position` on, with their positions.
    pub fn lacked_after(&self, peer: usize, position: u64) -> impl Iterator<Item = (u64, &Logged)> {
        let start = position.max(self.first);
        let skipped = usize::try_from(start - self.first).unwrap_or(usize::MAX);
        let entries = (start..).zip(self.entries.iter().skip(skipped));
        entries.filter(move |(_, entry)| entry.lacking.contains(peer))
    }

    /// The position before which `peer` lacks nothing.
    pub fn lacked_from(&self, peer: usize) -> u64 {
        self.peers[peer].from.max(self.first)
    }

    /// How many entries `peer` lacks.
    pub fn lacked(&self, peer: usize) -> usize {
        self.peers[peer].count
    }

    /// How much of the log is held for `peer`, in percent of its bounds.
    pub fn filled_for(&self, peer: usize) -> usize {
        let of_peer = &self.peers[peer];
        let percent = |part: usize, whole: usize| part.saturating_mul(100) / whole.max(1);
        percent(of_peer.count, self.bounds.count).max(percent(of_peer.bytes, self.bounds.bytes))
    }

    /// Appends an entry and returns its position. Those that must go for it are given to `evicted`; the new one
    /// always stays.
    pub fn append(
        &mut self,
        stamp: Stamp,
        content: &Content<'_>,
        lacking: Peers,
        at_ms: u64,
        mut evicted: impl FnMut(&Logged),
    ) -> u64 {
        let parts = [content.topic, content.payload, content.properties];
        let size = parts.iter().map(|part| part.len()).sum::<usize>() + size_of::<Logged>();
        while !self.entries.is_empty()
            && (self.entries.len() >= self.bounds.count || self.bytes + size > self.bounds.bytes)
        {
            if let Some(oldest) = self.pop() {
                evicted(&oldest);
            }
        }
        let position = self.end();
        for peer in lacking.iter() {
            let of_peer = &mut self.peers[peer];
            if of_peer.count == 0 {
                of_peer.from = position;
            }
            of_peer.count += 1;
            of_peer.bytes += size;
        }
        self.bytes += size;
        self.entries.push_back(Logged {
            stamp,
            lacking,
            at_ms,
            topic_length: content.topic.len(),
            payload_length: content.payload.len(),
            bytes: self.contents.push(parts),
        });
        position
    }

    /// Takes the last entry back.
    pub fn take_last(&mut self) {
        if let Some(last) = self.entries.pop_back() {
            self.contents.take_last(last.bytes);
            self.gone(&last);
        }
    }

    /// `peer` has every entry that `has` says; those that everyone has go.
    pub fn seen_by(&mut self, peer: usize, mut has: impl FnMut(&Stamp) -> bool) {
        let start = self.lacked_from(peer);
        let mut from = None;
        let of_peer = &mut self.peers[peer];
        let mut left = of_peer.count;
        let skipped = (start - self.first) as usize;
        for (position, entry) in (start..).zip(self.entries.iter_mut().skip(skipped)) {
            if left == 0 {
                break;
            }
            if !entry.lacking.contains(peer) {
                continue;
            }
            left -= 1;
            if has(&entry.stamp) {
                entry.lacking = entry.lacking.without(peer);
                of_peer.count -= 1;
                of_peer.bytes -= entry.size();
            } else if from.is_none() {
                from = Some(position);
            }
        }
        of_peer.from = from.unwrap_or(start);
        while self.entries.front().is_some_and(|entry| entry.lacking.is_empty()) {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Logged> {
        let oldest = self.entries.pop_front()?;
        self.first += 1;
        self.contents.take_first(oldest.bytes);
        self.gone(&oldest);
        Some(oldest)
    }

    fn gone(&mut self, entry: &Logged) {
        let size = entry.size();
        self.bytes -= size;
        for peer in entry.lacking.iter() {
            self.peers[peer].count -= 1;
            self.peers[peer].bytes -= size;
        }
    }
}
