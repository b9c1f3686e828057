//! What is to be counted and said of each peer.

use super::Replication;

/// In percent: a log that is fuller than that for a peer is worth a warning, and one that is emptier ends it.
const WARN_AT: usize = 80;

const CALM_AT: usize = 50;

/// What is to be said of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The log is nearly full of what this peer lacks; tells how many messages that is.
    Filling(usize),
    /// Messages are being lost to it.
    Losing,
    /// It lacks little again; tells how many messages are lost to it, since the start.
    Calm(u64),
}

/// What one link has to tell, beside what the policy counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages sent from a log.
    pub replayed: u64,
    /// Messages that left the log unseen.
    pub lost: u64,
    /// Messages in the own log that the peer has not told of.
    pub backlog: usize,
    /// The log fills up for this peer.
    pub filling: bool,
}

impl Replication {
    /// What is to be counted for each peer.
    pub fn totals(&self) -> impl Iterator<Item = Totals> {
        self.peers.iter().enumerate().map(|(at, peer)| Totals {
            replayed: self.replayed[at],
            lost: peer.lost + peer.evicted.count(),
            backlog: self.own.lacked(at),
            filling: peer.warned,
        })
    }

    /// What is to be said of a peer; each once.
    pub fn take_notice(&mut self) -> Option<(usize, Notice)> {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let filled = self.own.filled_for(at);
            if !peer.warned && filled >= WARN_AT {
                peer.warned = true;
                return Some((at, Notice::Filling(self.own.lacked(at))));
            }
            if !peer.losing && !peer.evicted.is_empty() {
                peer.losing = true;
                return Some((at, Notice::Losing));
            }
            if peer.warned && filled < CALM_AT {
                (peer.warned, peer.losing) = (false, false);
                return Some((at, Notice::Calm(peer.lost + peer.evicted.count())));
            }
        }
        None
    }
}
