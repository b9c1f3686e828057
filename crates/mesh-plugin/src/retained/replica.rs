//! This broker's replica of the retained messages of the mesh: what is known of them, and what is to be done.
//!
//! Plain values, like all of the policy: events and the time go in, [`Action`]s come out, and only in
//! [`Replica::tick`]. What is done there happens in the same turn of the broker's loop, before anything else can
//! be stored; so a value is never removed that has come in the meantime.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::index::{Index, Offer, Topic};
use super::sync::{Command, Contact, Item, Now, Sync};
use super::{Expiry, Mark, State, Version, shared};
use crate::stamp::Stamp;

use awaited::Awaited;
use jobs::{Job, PROBE_EVERY, SWEEP_EVERY};
pub use restored::Restored;
use set_back::Floors;
use trust::Doubt;
pub use vocabulary::{Action, Event, Found, Status};

mod awaited;
mod jobs;
mod restored;
mod set_back;
mod trust;
mod vocabulary;

/// So much is done of each kind in one turn of the loop.
const TURN: usize = 400;

/// The replica.
pub struct Replica {
    /// At the last turn of the loop.
    now: Now,
    index: Index,
    doubt: Doubt,
    sync: Sync,
    ttl: u32,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    /// What peers told and is not yet done.
    ended: VecDeque<Item>,
    /// Topics where the broker stores something older than what was known of them; nothing before that is taken.
    floors: Floors,
    awaited: Awaited,
    /// The latest version that ended so.
    latest_ended: u64,
    /// Topics where nothing is to be stored, unless something comes in the meantime.
    unwanted: VecDeque<Box<str>>,
    actions: VecDeque<Action>,
    next_sweep: Duration,
    /// When others than new values are read again, and when anything is.
    next_probe: Duration,
    no_probe_before: Duration,
    in_sync: bool,
    /// Since when this broker is out of sync, or alone.
    since: Duration,
    /// Whether somebody was there the last time.
    met: bool,
    /// Something is still to be stored or removed here.
    storing: bool,
}

impl Replica {
    /// What a broker that has just started knows. `ttl` is how long what has ended is remembered, in seconds;
    /// `doubtful` is whether it was away for longer than that. `boot` tells this start from others.
    pub fn new(restored: Restored, peers: usize, ttl: u32, doubtful: bool, boot: u32) -> Self {
        let mut sync = Sync::new(peers, ttl, boot);
        let doubtful = doubtful && peers > 0;
        sync.set_settled(!doubtful);
        let Restored { index, unwanted, .. } = restored;
        let (index, doubt) = if doubtful {
            (Index::default(), Doubt::Held(index))
        } else {
            (index, Doubt::None)
        };
        Self {
            now: Now::default(),
            index,
            doubt,
            sync,
            ttl,
            jobs: BTreeMap::new(),
            next_job: 0,
            ended: VecDeque::new(),
            floors: Floors::default(),
            awaited: Awaited::default(),
            latest_ended: 0,
            unwanted: unwanted.into(),
            actions: VecDeque::new(),
            next_sweep: Duration::ZERO,
            next_probe: PROBE_EVERY,
            no_probe_before: Duration::ZERO,
            in_sync: peers == 0,
            since: Duration::ZERO,
            met: false,
            storing: false,
        }
    }

    /// This broker at this time, for what comes before the first turn of its loop.
    pub fn begin(mut self, now: Now) -> Self {
        self.now = now;
        self
    }

    /// Whether something that was decided is still to be stored or removed here.
    pub fn set_storing(&mut self, storing: bool) {
        self.storing = storing;
    }

    /// What is told about it.
    pub fn status(&self) -> Status {
        Status {
            count: self.index.digests().count(),
            digest: self.index.digests().present(),
            in_sync: self.in_sync,
        }
    }

    /// Whether a comparison with a peer or a look into the store is under way.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || !self.ended.is_empty() || !self.actions.is_empty() || self.sync.is_busy()
    }

    /// How many deletions and expired values are remembered.
    pub fn ended(&self) -> usize {
        self.index.ended()
    }

    /// The latest time of what peers told to have ended. What is published from now on must be later than that.
    pub fn latest_ended(&self) -> u64 {
        self.latest_ended
    }

    /// This is stored now. Whether it is later than what was known, and is to be.
    pub fn take(&mut self, topic: &str, version: Version, empty: bool) -> bool {
        if self.floors.is_below(topic, version) {
            return false;
        }
        let state = if empty { State::Cleared } else { State::Present };
        let mark = Mark { version, state };
        let offer = self.index.offer(topic, mark, Expiry::Unknown, self.now.wall);
        let taken = matches!(offer, Offer::Taken(_));
        if taken && empty {
            self.actions
                .push_back(Action::Keep(topic.into(), mark, self.now.wall));
        }
        taken
    }

    /// A client published this here, to be kept; no payload clears the topic. It is later than all before.
    pub fn local(&mut self, topic: &[u8], stamp: &Stamp, payload: &[u8]) {
        self.offer(topic, stamp, payload);
    }

    /// This came over a link, to be kept. Whether it is later than what is retained here.
    pub fn offer(&mut self, topic: &[u8], stamp: &Stamp, payload: &[u8]) -> bool {
        let Some(topic) = shared(topic) else { return true };
        self.take(topic, Version::of(stamp, payload), payload.is_empty())
    }

    /// Whether a value is known to be stored at the topic.
    pub fn is_present(&self, topic: &[u8]) -> bool {
        let known = shared(topic).and_then(|topic| self.index.get(topic));
        known.is_some_and(|entry| entry.mark.state == State::Present)
    }

    /// A peer has said something about its retained messages.
    pub fn hear(&mut self, peer: usize, payload: &[u8]) {
        self.sync.hear(peer, payload, self.now, &mut self.index);
    }

    /// A peer has sent a value that it was asked for.
    pub fn answered(&mut self, peer: usize) {
        self.sync.heard_of(peer, self.now);
    }

    /// The loop has turned.
    pub fn tick(&mut self, now: Now, contacts: &[Contact]) {
        self.now = now;
        self.sync.tick(now, contacts, &self.index);
        for command in self.sync.take_commands() {
            self.follow(command, now);
        }
        for _ in 0..TURN {
            let Some(item) = self.ended.pop_front() else { break };
            self.end(&item, now);
        }
        for Topic { name, mark } in self.index.expire(now.wall, TURN) {
            self.actions.push_back(Action::Keep(name.clone(), mark, now.wall));
            self.remove(name, false);
        }
        self.judge(now, contacts);
        self.settle(now);
        for _ in 0..TURN {
            let Some(topic) = self.unwanted.pop_front() else {
                break;
            };
            let known = self.index.get(&topic).map(|entry| entry.mark.state);
            if known != Some(State::Present) {
                self.remove(topic, known != Some(State::Gone));
            }
        }
        if now.up >= self.next_sweep {
            self.next_sweep = now.up + SWEEP_EVERY;
            self.awaited.give_up(now);
            if self.met {
                self.floors.give_up(now, self.since);
            }
            self.sweep(now);
        }
    }

    /// What is to be done next; to be asked in the same turn of the loop as [`Self::tick`], until there is nothing.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn follow(&mut self, command: Command, now: Now) {
        match command {
            Command::Say(peer, payload) => self.actions.push_back(Action::Say(peer, payload)),
            Command::Ended(item) => self.ended.push_back(item),
            Command::Read(wish, topics) => self.read(Some(wish), topics, now),
            Command::Finished(finished) => {
                self.actions.push_back(Action::Tell(Event::Round(finished)));
                if finished.settled
                    && let Doubt::Held(index) = std::mem::replace(&mut self.doubt, Doubt::None)
                {
                    self.doubt = Doubt::Settling {
                        index,
                        bucket: 0,
                        count: 0,
                        drop: true,
                    };
                }
            }
        }
    }

    /// A peer told that the value of a topic has ended.
    fn end(&mut self, item: &Item, now: Now) {
        let offer = self.index.offer(&item.topic, item.mark, item.expiry, now.wall);
        let Offer::Taken(before) = offer else { return };
        // What was missing may have ended.
        self.floors.is_below(&item.topic, item.mark.version);
        self.latest_ended = self.latest_ended.max(item.mark.version.hlc);
        let second = match item.expiry {
            Expiry::At(second) => second,
            _ => now.wall,
        };
        self.actions
            .push_back(Action::Keep(item.topic.clone(), item.mark, second));
        if before.is_some_and(|before| before.state == State::Present) {
            self.remove(item.topic.clone(), item.mark.state == State::Cleared);
        }
    }

    fn remove(&mut self, topic: Box<str>, shown: bool) {
        self.actions.push_back(Action::Remove { topic, shown });
    }
}

#[cfg(test)]
mod tests;
