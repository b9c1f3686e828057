//! Replay: what a peer lacks is sent to it from the log when its link subscribes, a slice in each turn of the loop.

use super::links::Link;
use super::{Kept, Now, Replication};

/// So many messages are sent to one peer from the log in one turn of the broker's loop, at most…
const SLICE: usize = 500;

/// … and so many bytes, unless a single message is larger.
const SLICE_BYTES: usize = 1 << 20;

/// So many replayed messages may be on their way to a peer. More would not fit into the queue that the broker has
/// for it.
pub(super) const WINDOW: usize = 8_000;

/// A peer that tells nothing for so long gets the next window all the same: perhaps it cannot reach us.
const UNHEARD_MS: u64 = 1_000;

/// A message with its place in a log that is to be sent to a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Send {
    pub peer: usize,
    pub own: bool,
    pub position: u64,
}

impl Replication {
    /// The link of `peer` has subscribed.
    pub fn link_up(&mut self, peer: usize) {
        let next = self.own.lacked_from(peer);
        let peer = &mut self.peers[peer];
        peer.link = Link::Replaying { next };
        peer.repaired.clear();
        peer.unconfirmed = 0;
    }

    /// The link of `peer` has ended.
    pub fn link_down(&mut self, peer: usize) {
        self.peers[peer].link = Link::Down;
    }

    /// Whether the link of `peer` is there.
    pub fn is_up(&self, peer: usize) -> bool {
        self.peers[peer].link != Link::Down
    }

    /// Whether the broker routes to the link of `peer`.
    pub fn is_live(&self, peer: usize) -> bool {
        self.peers[peer].link == Link::Live
    }

    /// The broker's loop has turned: whatever was sent before is on its way.
    pub fn tick(&mut self, now: Now) {
        self.turn = now;
        for peer in 0..self.peers.len() {
            match self.peers[peer].link {
                Link::Closing => self.peers[peer].link = Link::Live,
                Link::Replaying { next } => self.replay(peer, next, now),
                Link::Live | Link::Down => {}
            }
        }
    }

    fn replay(&mut self, at: usize, next: u64, now: Now) {
        let peer = &mut self.peers[at];
        let heard_ms = peer.reported_ms.unwrap_or(0).max(peer.window_ms);
        if now.up_ms > heard_ms + UNHEARD_MS {
            peer.window_ms = now.up_ms;
            peer.unconfirmed = 0;
        }
        let room = WINDOW.saturating_sub(peer.unconfirmed).min(SLICE);
        let (mut sent, mut bytes) = (0, 0);
        let mut after = next.max(self.own.lacked_from(at));
        for (position, entry) in self.own.lacked_after(at, after) {
            if sent >= room || bytes >= SLICE_BYTES {
                break;
            }
            sent += 1;
            bytes += entry.size();
            after = position + 1;
            self.outbox.push_back(Send {
                peer: at,
                own: true,
                position,
            });
        }
        let done = self.own.lacked_after(at, after).next().is_none();
        let peer = &mut self.peers[at];
        peer.unconfirmed += sent;
        peer.link = if done {
            Link::Closing
        } else {
            Link::Replaying { next: after }
        };
    }

    /// The next message that is to be sent, and to which peer. All of them are to be sent in the turn of the loop in
    /// which they are told.
    pub fn next_send(&mut self) -> Option<(usize, Kept<'_>)> {
        loop {
            let send = self.outbox.pop_front()?;
            let log = if send.own { &self.own } else { &self.foreign };
            if let Some(kept) = log.kept(send.position) {
                self.replayed[send.peer] += 1;
                return Some((send.peer, kept));
            }
        }
    }

    /// Whether there is anything to send.
    pub fn has_sends(&self) -> bool {
        !self.outbox.is_empty()
    }
}
