//! Messages that came over a link and were published here by ourselves.
//!
//! The broker routes what plugins publish at the beginning of a turn of its loop, right after TICK, in the order of
//! publication, and raises no MESSAGE for it. All that is asked then is who may READ. So from the end of TICK until
//! the next thing that happens, each message asked about is looked for among those that were published, by what
//! can be seen of it. Those that nobody subscribes to are never asked about, and skipped.

use std::collections::VecDeque;

/// What a READ check shows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The topic.
    pub topic: &'a [u8],
    /// The length of the payload.
    pub length: usize,
    /// The quality of service that it was published with.
    pub qos: u8,
    /// Whether it was published to be kept.
    pub retain: bool,
}

#[derive(Debug)]
struct Entry {
    topic: Box<[u8]>,
    length: usize,
    qos: u8,
    retain: bool,
    hidden: bool,
}

impl Entry {
    fn is(&self, shown: &Shown<'_>) -> bool {
        self.length == shown.length
            && self.qos == shown.qos
            && self.retain == shown.retain
            && *self.topic == *shown.topic
    }
}

/// What was published and is not yet known to be routed.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    entries: VecDeque<Entry>,
    /// It is being routed now.
    due: bool,
}

impl Salvaged {
    /// The messages will be published, in this order. `hidden`: only to be stored, and shown to nobody.
    pub(super) fn publish<'a>(&mut self, messages: impl Iterator<Item = Shown<'a>>, hidden: bool) {
        // What is due was routed before anything could be published.
        self.clear_due();
        self.entries.extend(messages.map(|message| Entry {
            topic: message.topic.into(),
            length: message.length,
            qos: message.qos,
            retain: message.retain,
            hidden,
        }));
    }

    /// What was published is routed next.
    pub(super) fn route(&mut self) {
        self.due = !self.entries.is_empty();
    }

    /// Whether what is asked about may be one of these.
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// What was published has been routed.
    pub(super) fn clear_due(&mut self) {
        if self.due {
            *self = Self::default();
        }
    }

    /// Whether the message is one of these, and if so whether it is hidden. It stays, for the next subscriber; those
    /// before it have gone by.
    pub(super) fn find(&mut self, shown: &Shown<'_>) -> Option<bool> {
        let at = self.entries.iter().position(|entry| entry.is(shown))?;
        self.entries.drain(..at);
        self.entries.front().map(|entry| entry.hidden)
    }
}
