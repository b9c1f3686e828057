//! Routing: the message that the broker is about to route stands in the own log, and each link is asked about.

use super::links::Link;
use super::log::Peers;
use super::replay::Send;
use super::{Content, Entry, Now, Replication};
use crate::stamp::Stamp;

/// The message that is being routed just now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    position: u64,
    /// A link was there to be asked about.
    asked: bool,
    /// One was asked about.
    routed: bool,
    /// Links get what stands in the log.
    from_log: bool,
}

impl Replication {
    /// The message with that stamp is routed next.
    pub fn publish(&mut self, stamp: Stamp, content: &Content<'_>, now: Now) {
        if let Some(position) = self.append(stamp, content, now.up_ms) {
            self.current = Some(Current {
                position,
                asked: self.peers.iter().any(|peer| peer.link != Link::Down),
                routed: false,
                from_log: false,
            });
        }
    }

    /// A message of QoS 2 is being routed. With `from_log` links get it as it stands here, and not as the broker has
    /// it.
    pub fn release(&mut self, entry: &Entry, from_log: bool) {
        if let Some(position) = self.append(entry.stamp.clone(), &entry.content(), self.turn.up_ms) {
            self.current = Some(Current {
                position,
                asked: true,
                routed: true,
                from_log,
            });
        }
    }

    fn append(&mut self, stamp: Stamp, content: &Content<'_>, at_ms: u64) -> Option<u64> {
        if self.peers.is_empty() {
            return None;
        }
        let all = Peers::all(self.peers.len());
        let peers = &mut self.peers;
        Some(self.own.append(stamp, content, all, at_ms, |evicted| {
            for peer in evicted.lacking.iter() {
                peers[peer].evicted.insert(evicted.stamp.seq);
            }
        }))
    }

    /// What is routed next is something else. A message that no link was asked about was refused by somebody behind
    /// us: its number is given to the next one.
    pub fn forget_current(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        if current.asked && !current.routed && current.position + 1 == self.own.end() {
            self.own.take_last();
            self.next_seq -= 1;
        }
    }

    /// May the broker route the current message to `peer`? If not, it is sent from the log.
    pub fn route(&mut self, peer: usize) -> bool {
        let Some(current) = &mut self.current else {
            return true;
        };
        current.routed = true;
        match self.peers[peer].link {
            Link::Live if !current.from_log => true,
            Link::Live | Link::Closing => {
                self.outbox.push_back(Send {
                    peer,
                    own: true,
                    position: current.position,
                });
                false
            }
            Link::Replaying { .. } | Link::Down => false,
        }
    }
}
