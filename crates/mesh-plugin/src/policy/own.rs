//! What this plugin publishes itself to the clients and into the store of its broker.
//!
//! The API has a function for that, but what it publishes is routed at a time that nobody tells: right after TICK on
//! Mosquitto 2.0, after the next packets on 2.1. In between something later may have been stored, which would be
//! overwritten. So it goes over the session with which the plugin also reads what its broker stores: it comes in
//! with a MESSAGE like everything else, is judged at that moment, and routed inside the same call.
//!
//! The messages go out in batches, one after the other, in order. What a broken connection has left over goes out
//! again; those that came in before are known by that.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Policy;
use super::vocabulary::{Handling, Published};
use super::{Routing, Shown};
use crate::message::Publish;
use crate::stamp::{Hlc, Stamp};

/// So many messages are a batch at most…
const BATCH: usize = 1_000;
/// … and so many bytes, but for one.
const BATCH_BYTES: usize = 1 << 20;
/// After an error so long is waited, in milliseconds.
const RETRY_MS: u64 = 500;
/// A message that ends the connection so often is given up.
const TRIES: u32 = 3;

/// What a message is published for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// It came over the link from this peer, which broke before it was read.
    Salvaged(usize),
    /// Nothing is to be stored at its topic. `shown`: subscribers here are told.
    Removal {
        /// Whether this is a deletion. That a value expires is not told to anyone.
        shown: bool,
    },
    /// The broker has stored it with another stamp than it has elsewhere. Only to be stored.
    Store(Stamp),
    /// The will of a client that had connected here at that time.
    Will(Rc<[u8]>, Hlc),
}

#[derive(Debug)]
struct Own {
    purpose: Purpose,
    topic: Box<[u8]>,
    length: usize,
    retain: bool,
    packet: Vec<u8>,
}

impl Own {
    fn is(&self, shown: &Shown<'_>) -> bool {
        self.length == shown.length && self.retain == shown.retain && *self.topic == *shown.topic
    }
}

/// The messages that have not come in yet.
#[derive(Debug, Default)]
pub(super) struct OwnMessages {
    waiting: VecDeque<Own>,
    /// Those of the batch that is under way.
    sent: VecDeque<Own>,
    /// How large it was.
    batch: Option<usize>,
    tries: u32,
    not_before_ms: u64,
    next_id: u16,
}

impl OwnMessages {
    fn push(&mut self, message: &Publish<'_>, purpose: Purpose) {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.waiting.push_back(Own {
            purpose,
            topic: message.topic.as_bytes().into(),
            length: message.payload.len(),
            retain: message.retain,
            packet: message.packet(self.next_id),
        });
    }

    /// Whether nothing is to come in any more.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.batch.is_none()
    }

    fn next_batch(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if self.batch.is_some() || self.waiting.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        let mut bytes = Vec::new();
        while self.sent.len() < BATCH
            && let Some(next) = self
                .waiting
                .pop_front_if(|next| bytes.is_empty() || bytes.len() + next.packet.len() <= BATCH_BYTES)
        {
            bytes.extend_from_slice(&next.packet);
            self.sent.push_back(next);
        }
        self.batch = Some(self.sent.len());
        Some(bytes)
    }

    /// A message that looks like this comes in. Those before it did not: the broker did not take them.
    fn take(&mut self, shown: &Shown<'_>) -> Option<Purpose> {
        let at = self.sent.iter().position(|sent| sent.is(shown))?;
        self.sent.drain(..=at).next_back().map(|own| own.purpose)
    }

    /// A batch has been sent, and everything of it has come in; or it is not known what has. Returns the topic of a
    /// message that is given up.
    fn done(&mut self, all: bool, now_ms: u64) -> Option<Box<[u8]>> {
        let size = self.batch.take()?;
        if all {
            self.sent.clear();
            self.tries = 0;
            return None;
        }
        self.not_before_ms = now_ms + RETRY_MS;
        self.tries = if self.sent.len() == size {
            self.tries + 1
        } else {
            1
        };
        for left in self.sent.drain(..).rev() {
            self.waiting.push_front(left);
        }
        if self.tries < TRIES {
            return None;
        }
        self.tries = 0;
        self.waiting.pop_front().map(|given_up| given_up.topic)
    }
}

impl Policy {
    /// This is to be published here, at QoS 0 or 1.
    pub fn publish_own(&mut self, message: &Publish<'_>, purpose: Purpose) {
        if let Purpose::Salvaged(peer) = purpose {
            self.peers[peer].counts.salvaged += 1;
        }
        self.own.push(message, purpose);
    }

    /// What is to be sent next over the plugin's own session: packets, one after the other.
    pub fn next_batch(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        self.own.next_batch(now_ms)
    }

    /// The broker has answered everything in the last batch, or the connection broke. Returns the topic of a message
    /// that is given up.
    pub fn batch_done(&mut self, all: bool, now_ms: u64) -> Option<Box<[u8]>> {
        self.own.done(all, now_ms)
    }

    /// This came in over the plugin's own session.
    pub(super) fn message_of_own(&mut self, message: &Published<'_>) -> Handling {
        let shown = Shown {
            topic: message.name,
            length: message.length,
            retain: message.retain,
        };
        let (Some(purpose), None) = (self.own.take(&shown), self.bypass) else {
            return Handling::Refuse;
        };
        match purpose {
            Purpose::Salvaged(peer) => {
                self.routing = Routing::Remote;
                Handling::Arrive(Some(peer))
            }
            Purpose::Removal { shown } if !self.retained.is_present(message.name) => {
                let again = self.retained.removed(message.name);
                self.routing = match (shown, again) {
                    (false, _) => Routing::Hidden,
                    (true, true) => Routing::Again,
                    (true, false) => Routing::Remote,
                };
                Handling::Pass
            }
            Purpose::Store(stamp) if self.retained.is_newest(message.name, &stamp) => {
                self.routing = Routing::Hidden;
                Handling::Pass
            }
            Purpose::Will(id, since) if !self.moves.presence.has_moved(&id, since) => {
                self.handling_of_local(message)
            }
            Purpose::Removal { .. } | Purpose::Store(_) | Purpose::Will(..) => Handling::Refuse,
        }
    }
}
