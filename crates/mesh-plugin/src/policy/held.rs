//! Messages of QoS 2 that entered the mesh here and wait for their PUBREL.
//!
//! The broker tells of them when they are published and routes them when they are released, which raises no event of
//! its own. They get their stamp at the first and enter the log at the second, known by where their topic is stored.

use std::collections::HashMap;

use super::{Shown, TopicKey};
use crate::replication::{Bounds, Entry};

/// A client that has not released a message for so long may never do it, in milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// A message.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) entry: Entry,
    /// Peers were told that its number will not come.
    pub(super) void: bool,
    /// It stands in the log although it was not seen to be released.
    pub(super) logged: bool,
}

/// The messages, by where their topics are stored.
#[derive(Debug)]
pub(super) struct HeldMessages {
    messages: HashMap<TopicKey, Held>,
    bytes: usize,
    bounds: Bounds,
    /// No message is older than that, in milliseconds since the start.
    oldest_ms: u64,
}

impl HeldMessages {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            messages: HashMap::new(),
            bytes: 0,
            bounds,
            oldest_ms: u64::MAX,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Holds a message. Beyond the bounds it is not held: it then goes to the links that are there when it is
    /// released, and is not kept for others.
    pub(super) fn hold(&mut self, topic: TopicKey, entry: Entry) {
        let size = entry.size();
        if self.messages.len() >= self.bounds.count || self.bytes + size > self.bounds.bytes {
            return;
        }
        self.bytes += size;
        self.oldest_ms = self.oldest_ms.min(entry.at_ms);
        let held = Held {
            entry,
            void: false,
            logged: false,
        };
        self.messages.insert(topic, held);
    }

    /// Takes out the message whose topic is stored there.
    pub(super) fn remove(&mut self, topic: TopicKey) -> Option<Held> {
        let held = self.messages.remove(&topic)?;
        self.bytes -= held.entry.size();
        Some(held)
    }

    /// Takes out the message whose topic is stored there, if it looks like this: the place may have been given to
    /// somebody else.
    pub(super) fn release(&mut self, topic: TopicKey, shown: &Shown<'_>) -> Option<Held> {
        let content = self.messages.get(&topic)?.entry.content();
        let same = content.topic == shown.topic && content.payload.len() == shown.length;
        if same { self.remove(topic) } else { None }
    }

    /// All messages that are not in the log.
    pub(super) fn unlogged(&mut self) -> impl Iterator<Item = &mut Held> {
        self.messages
            .values_mut()
            .filter(|held| !held.logged && !held.void)
    }

    /// Gives up the numbers of those that have waited too long, and returns them.
    pub(super) fn give_up(&mut self, now_ms: u64) -> Vec<u64> {
        let too_old = |at_ms: u64| at_ms.saturating_add(PATIENCE_MS) < now_ms;
        if !too_old(self.oldest_ms) {
            return Vec::new();
        }
        self.oldest_ms = u64::MAX;
        let mut given_up = Vec::new();
        for held in self.unlogged() {
            if too_old(held.entry.at_ms) {
                held.void = true;
                given_up.push(held.entry.stamp.seq);
            }
        }
        let waiting = self.unlogged().map(|held| held.entry.at_ms);
        self.oldest_ms = waiting.min().unwrap_or(u64::MAX);
        given_up
    }
}
