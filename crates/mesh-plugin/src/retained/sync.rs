//! Finds and fetches what differs between this broker and its peers, in rounds.
//!
//! In a **round** this broker asks one peer. It sends the digests of its buckets, is told which differ, has those
//! listed in pages, takes over deletions at once, and asks for the values that are later at the peer, some hundred
//! at a time. The values come over the link like any retained message, and are judged like one. Only the side that
//! asks changes: the peer finds out in a round of its own what it lacks.
//!
//! A round is due when a link to a peer has come up, and when a peer's digest has been another one for a while. One
//! round runs at a time, so that a fresh broker does not fetch everything from everyone. Nothing is relied on: what
//! is lost on the way makes the round stall, and it is begun again later.
//!
//! Who asks remembers everything, who answers nothing but what is being read for a peer. Both do only so much at a
//! time; how much stands in the constants.

use std::time::Duration;

use super::Mark;
use super::index::Index;
use crate::replication;

use answers::MOST_REQUESTS;
pub use peer::Contact;
use peer::Peer;
use round::Round;
pub use wire::{Item, Saying};

mod answers;
mod peer;
mod round;
mod wire;

/// The time, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since the broker started.
    pub up: Duration,
    /// In seconds since 1970.
    pub wall: u32,
}

impl From<replication::Now> for Now {
    fn from(now: replication::Now) -> Self {
        Self {
            up: Duration::from_millis(now.up_ms),
            wall: u32::try_from(now.wall_ms / 1000).unwrap_or(u32::MAX),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Say this to a peer.
    Say(usize, Vec<u8>),
    /// A peer told that this has ended.
    Ended(Item),
    /// Read these values from this broker, for a wish of a peer.
    Read(Wish, Vec<(Box<str>, Mark)>),
    /// A round has ended well.
    Finished(Finished),
}

/// A wish of a peer, which has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wish {
    /// Whose.
    pub peer: usize,
    round: u32,
    slice: u32,
}

/// A round that has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// With whom.
    pub peer: usize,
    /// How long it took.
    pub took: Duration,
    /// How many values were fetched.
    pub fetched: u64,
    /// How many deletions were taken over.
    pub ended: u64,
    /// Whether the peer vouches for what it has.
    pub settled: bool,
}

/// Rounds with all peers.
pub struct Sync {
    peers: Vec<Peer>,
    round: Option<Round>,
    next_round: u32,
    /// How long what has ended is remembered, in seconds.
    ttl: u32,
    /// Whether this broker vouches for what it has.
    settled: bool,
    commands: Vec<Command>,
}

impl Sync {
    /// No round with any of so many peers yet. `first_round` tells the rounds of this boot from those of others.
    pub fn new(peers: usize, ttl: u32, first_round: u32) -> Self {
        Self {
            peers: (0..peers).map(|_| Peer::default()).collect(),
            round: None,
            next_round: first_round,
            ttl,
            settled: true,
            commands: Vec::new(),
        }
    }

    /// Whether this broker vouches for what it has: it was not away for so long that it may hold what was deleted.
    pub fn set_settled(&mut self, settled: bool) {
        self.settled = settled;
    }

    /// Whether a round has ended well with each peer that is there, and somebody is.
    pub fn is_through(&self) -> bool {
        let mut there = self.peers.iter().filter(|peer| peer.is_up()).peekable();
        there.peek().is_some() && there.all(Peer::is_through)
    }

    /// Whether a round runs, or a peer waits for an answer.
    pub fn is_busy(&self) -> bool {
        self.round.is_some() || self.peers.iter().any(|peer| !peer.requests.is_empty())
    }

    /// What is to be done since the last time.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// The loop has turned. `contacts` tells how it stands with each peer.
    pub fn tick(&mut self, now: Now, contacts: &[Contact], index: &Index) {
        let own = index.digests().present();
        for (peer, contact) in self.peers.iter_mut().zip(contacts) {
            peer.look(*contact, own, now.up);
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].is_up() && now.up >= self.peers[peer].tell {
                self.peers[peer].tell = now.up + peer::TOLD_EVERY;
                self.say(peer, 0, &Saying::Here { digest: own });
            }
        }
        if let Some(round) = &self.round {
            let peer = &mut self.peers[round.peer];
            if !peer.is_up() {
                self.round = None;
            } else if now.up.saturating_sub(round.heard) > peer::STALLED {
                peer.failed(now.up);
                self.round = None;
            }
        }
        if self.round.is_none()
            && let Some(peer) = self.peers.iter().position(|peer| peer.is_due(now.up))
        {
            self.begin(peer, now, index);
        }
        self.answer(index);
    }

    fn begin(&mut self, peer: usize, now: Now, index: &Index) {
        let id = self.next_round;
        self.next_round = self.next_round.wrapping_add(1);
        self.round = Some(Round::new(peer, id, now));
        let digests = index.digests().buckets().to_vec();
        self.say(peer, id, &Saying::Ask { digests });
    }

    fn say(&mut self, peer: usize, round: u32, saying: &Saying) {
        self.commands.push(Command::Say(peer, saying.encode(round)));
    }

    /// A peer has sent a value that was asked for.
    pub fn heard_of(&mut self, peer: usize, now: Now) {
        if let Some(round) = self.round.as_mut().filter(|round| round.peer == peer) {
            round.heard = now.up;
        }
    }

    /// A peer has said this.
    pub fn hear(&mut self, peer: usize, payload: &[u8], now: Now, index: &mut Index) {
        let Some((id, saying)) = Saying::decode(payload) else {
            return;
        };
        match saying {
            Saying::Here { digest } => self.peers[peer].digest = Some(digest),
            Saying::Ask { digests } => {
                let own = index.digests().buckets().iter();
                let differ = own
                    .zip(&digests)
                    .enumerate()
                    .filter(|(_, (own, theirs))| own != theirs);
                let buckets = differ.map(|(bucket, _)| bucket as u16).collect();
                // Whatever it still waited for it does not any more.
                self.peers[peer].requests.clear();
                let settled = self.settled;
                self.say(peer, id, &Saying::Differ { settled, buckets });
            }
            Saying::List { .. } | Saying::Want { .. } => {
                let requests = &mut self.peers[peer].requests;
                if requests.len() < MOST_REQUESTS {
                    requests.push_back((id, saying));
                }
            }
            Saying::Differ { .. } | Saying::Listed { .. } | Saying::Given { .. } => {
                // Taken out, so that it can be changed while commands are added.
                let Some(mut round) = self.round.take() else {
                    return;
                };
                if (round.peer, round.id) == (peer, id) {
                    round.heard = now.up;
                    self.answered(&mut round, saying, now, index);
                    if self.go_on(&mut round, now) {
                        return;
                    }
                }
                self.round = Some(round);
            }
        }
    }
}
