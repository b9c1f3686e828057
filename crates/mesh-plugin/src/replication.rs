//! Nothing lost and nothing twice, whatever happens to links: a state machine without clock or IO.
//!
//! - **Own log.** Every message that enters the mesh here gets the next number, and stays in the log until every
//!   peer has told that it has seen it.
//! - **Replay.** When a link subscribes, what the peer has not told of is sent to it from the log, in order; only
//!   then does the broker route to it again. A message from the log leaves at the next turn of the broker's loop, a
//!   routed one at once: so what is published between the last turn of a replay and the next one is sent from the
//!   log as well, behind the rest ([`links::Link::Closing`]).
//! - **Seen.** What comes over a link with a number that was seen is dropped.
//! - **Repair.** What a peer lacks although later messages have reached it, or without getting any further, is sent
//!   again: the broker drops messages for a peer whose queue is full. What other brokers sent is kept too
//!   (the foreign log), and sent to a peer that does not get it from them: they may have died.
//! - **Bounds.** Both logs are bounded. What leaves the own log before a peer has told that it has it is counted as
//!   lost to that peer (until it tells that it had it); it is said before that happens, and when it does.
//!
//! Order: the messages of one origin are seen in the order of their numbers, but for what had to be repaired.

use std::collections::VecDeque;

use mesh_model::BrokerId;

mod bytes;
mod links;
mod log;
mod notices;
mod repair;
mod replay;
pub mod report;
mod routing;
pub mod seen;
#[cfg(test)]
mod simulation;

use links::Peer;
pub use log::{Bounds, Content, Entry, Kept};
use log::{Log, Peers};
pub use notices::{Notice, Totals};
use replay::Send;
pub use report::Report;
use routing::Current;
use seen::Seen;

use crate::message::{Property, encode};
use crate::stamp::{Clock, Hlc, STAMP_PROPERTY, Stamp, is_absurd};

/// There may be so many peers.
pub const MOST_PEERS: usize = Peers::MOST;

/// A report is due so long after the last one if there is something new to tell.
const REPORT_MS: u64 = 200;

/// And so long if there is not.
const REPORT_IDLE_MS: u64 = 1_000;

/// So many void numbers are kept until all peers have taken them in.
const MOST_VOIDS: usize = 4_096;

/// The time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since the plugin was started; never runs backwards.
    pub up_ms: u64,
    /// Milliseconds since 1970, as the machine believes.
    pub wall_ms: u64,
}

/// A number that no message has.
#[derive(Debug)]
struct Void {
    seq: u64,
    lacking: Peers,
}

/// The state of one broker.
#[derive(Debug)]
pub struct Replication {
    me: BrokerId,
    ids: Vec<BrokerId>,
    /// How many brokers come before this one.
    rank: u64,
    epoch: u64,
    next_seq: u64,
    clock: Clock,
    own: Log,
    foreign: Log,
    seen: Seen,
    voids: Vec<Void>,
    peers: Vec<Peer>,
    replayed: Vec<u64>,
    current: Option<Current>,
    /// When the broker's loop last turned.
    turn: Now,
    outbox: VecDeque<Send>,
    /// Something was seen since the last report.
    news: bool,
    reported_ms: Option<u64>,
}

impl Replication {
    /// A broker that has just started. `epoch` is greater than that of each earlier start.
    pub fn new(me: BrokerId, ids: Vec<BrokerId>, bounds: Bounds, epoch: u64) -> Self {
        let count = ids.len();
        Self {
            rank: ids.iter().filter(|id| **id < me).count() as u64,
            me,
            epoch,
            next_seq: 1,
            clock: Clock::default(),
            own: Log::new(bounds, count),
            foreign: Log::new(bounds, count),
            seen: Seen::default(),
            voids: Vec::new(),
            peers: (0..count).map(|_| Peer::new(repair::REPAIRS / 4)).collect(),
            replayed: vec![0; count],
            current: None,
            turn: Now::default(),
            outbox: VecDeque::new(),
            news: false,
            reported_ms: None,
            ids,
        }
    }

    /// The clock that gives the times of stamps.
    pub fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// The boot of this broker.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The epoch shall be greater than this one. To be told before anything is stamped.
    pub fn begin_after(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch.saturating_add(1));
    }

    /// What was seen of others.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What was seen before this start.
    pub fn restore(&mut self, seen: Seen) {
        self.seen = seen;
        self.news = true;
    }

    /// A stamp for a message that enters the mesh here now.
    pub fn stamp(&mut self, retain: bool, qos: u8, now: Now) -> Stamp {
        let time = self.clock.next(now.wall_ms);
        self.stamp_at(time, retain, qos)
    }

    /// A stamp for a message that counts as sent at `time`.
    pub fn stamp_at(&mut self, time: Hlc, retain: bool, qos: u8) -> Stamp {
        let seq = self.next_seq;
        self.next_seq += 1;
        Stamp {
            origin: self.me.clone(),
            epoch: self.epoch,
            seq,
            time,
            retain,
            requested: false,
            qos,
        }
    }

    /// No message gets the last stamp: its number is given to the next one.
    pub fn take_back(&mut self) {
        self.next_seq -= 1;
    }

    /// A message with its stamp, that every peer needs.
    pub fn entry(&self, stamp: Stamp, content: &Content<'_>, now: Now) -> Entry {
        Entry::new(stamp, content, Peers::all(self.peers.len()), now.up_ms)
    }

    /// The message with a new stamp, behind the one that it has, of this time or of now.
    pub fn restamp(&mut self, entry: &Entry, time: Option<Hlc>) -> Entry {
        let time = time.unwrap_or_else(|| self.clock.next(self.turn.wall_ms));
        let stamp = self.stamp_at(time, entry.stamp.retain, entry.stamp.qos);
        let content = entry.content();
        let mut properties = content.properties.to_vec();
        encode(
            Property::User(STAMP_PROPERTY, &stamp.to_string()),
            &mut properties,
        );
        let content = Content {
            properties: &properties,
            ..content
        };
        self.entry(stamp, &content, self.turn)
    }

    /// How many peers have told something in the last `within_ms` milliseconds.
    pub fn heard(&self, within_ms: u64, now: Now) -> usize {
        let lately = |at_ms: u64| now.up_ms <= at_ms + within_ms;
        let peers = self.peers.iter();
        peers.filter(|peer| peer.reported_ms.is_some_and(lately)).count()
    }

    /// Whether a stamp that came over a link is believed.
    pub fn is_believed(&self, stamp: &Stamp, now: Now) -> bool {
        !is_absurd(stamp.time, now.wall_ms.max(self.clock.last().ms()))
    }

    /// A message with this stamp came over a link. Whether it is new.
    pub fn arrived(&mut self, stamp: &Stamp) -> bool {
        self.clock.observe(stamp.time);
        if stamp.requested {
            return true;
        }
        if stamp.origin == self.me {
            // What is retained elsewhere since an earlier boot comes back to a broker that has lost it.
            return stamp.retain && stamp.epoch < self.epoch;
        }
        let numbers = self.seen.of_mut(&stamp.origin, stamp.epoch);
        let new = numbers.is_some_and(|numbers| numbers.insert(stamp.seq));
        self.news |= new;
        new
    }

    /// Keeps what came over a link, for peers that may not get it otherwise.
    pub fn keep(&mut self, stamp: Stamp, content: &Content<'_>, now: Now) {
        let mut lacking = Peers::all(self.peers.len());
        for (at, peer) in self.peers.iter().enumerate() {
            if self.ids[at] == stamp.origin || peer.seen.contains(&stamp.origin, stamp.epoch, stamp.seq) {
                lacking = lacking.without(at);
            }
        }
        if !lacking.is_empty() {
            // What leaves this log is not lost: its origin has it, or had it.
            self.foreign.append(stamp, content, lacking, now.up_ms, |_| {});
        }
    }

    /// A number that was given to a message which will never be routed.
    pub fn void(&mut self, seq: u64) {
        if self.peers.is_empty() {
            return;
        }
        if self.voids.len() == MOST_VOIDS {
            self.voids.remove(0);
        }
        self.voids.push(Void {
            seq,
            lacking: Peers::all(self.peers.len()),
        });
    }

    /// Whether peers are to be told now what was seen here. Says so once.
    pub fn report_due(&mut self, now: Now) -> bool {
        let every = if self.news { REPORT_MS } else { REPORT_IDLE_MS };
        let due = self.reported_ms.is_none_or(|at| now.up_ms >= at + every);
        if due {
            self.reported_ms = Some(now.up_ms);
            self.news = false;
        }
        due
    }

    /// What is told to `peer`.
    pub fn report(&self, peer: usize, now: Now) -> String {
        let mut void = self.peers[peer].gone.clone();
        for number in self.voids.iter().filter(|void| void.lacking.contains(peer)) {
            void.insert(number.seq);
        }
        report::write(self.epoch, now.wall_ms, &void, &self.seen)
    }
}
