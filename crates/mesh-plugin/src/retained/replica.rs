//! This broker's replica of the retained messages of the mesh: what is known of them, and what is to be done.
//!
//! Plain values, like all of the policy: events and the time go in, [`Action`]s come out, and only in
//! [`Replica::tick`]. What is done there happens in the same turn of the broker's loop, before anything else can
//! be stored; so a value is never removed that has come in the meantime.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::digest::BUCKETS;
use super::index::{Index, Offer, Topic};
use super::sync::{Command, Contact, Finished, Item, Now, Sync, Wish};
use super::{Expiry, Mark, State, Version, shared};
use crate::stamp::Stamp;

pub use restored::Restored;

mod restored;

/// Somebody who is not heard of for so long after the start is not there.
const ALONE: Duration = Duration::from_secs(5);
/// Peers that are heard but do not take part count as not there after this.
const DEAF: Duration = Duration::from_secs(30);
/// So much is done of each kind in one turn of the loop.
const TURN: usize = 400;
/// How often a part of the index is looked at, and how large a part.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP: usize = 2_000;
/// So many new values are read each time to learn when they expire…
const FRESH: usize = 100;
/// … and so often others that are found in the index, if there are no new ones, and so many.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE: usize = 200;
/// So many bytes are read for that in a microsecond, at most.
const PROBE_BYTES: usize = 4;
/// A job of the reader that is not done after this is given up.
const JOB_LOST: Duration = Duration::from_secs(60);
/// More deletions than this are forgotten before their time.
const MOST_ENDED: u64 = 1_000_000;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say this to a peer.
    Say(usize, Vec<u8>),
    /// Remove what is stored at this topic, and tell no link. `shown`: tell subscribers here.
    Remove {
        /// The topic.
        topic: Box<str>,
        /// Whether this is a deletion. That a value expires is not told to anyone.
        shown: bool,
    },
    /// Read these topics from this broker.
    Read(u64, Vec<Box<str>>),
    /// Send this value, which was read, to a peer.
    Send(usize, Vec<u8>),
    /// Remember beyond the broker's end that this has ended, in this second.
    Keep(Box<str>, Mark, u32),
    /// Say in the log.
    Tell(Event),
}

/// What an operator wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A round with a peer has ended well.
    Round(Finished),
    /// This broker is in sync, so long after it began to be out of it.
    InSync(Duration),
    /// Somebody is there again after nobody was, and may know more.
    OutOfSync,
    /// It was away for long; so many of its own values were dropped that no peer has.
    Dropped(usize),
    /// It was away for long, but so was everybody else: its own values count.
    Kept(usize),
}

/// What is told about the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// How many retained messages there are.
    pub count: u64,
    /// Equal on two brokers exactly when they hold the same.
    pub digest: u128,
    /// Whether this broker has compared itself with every peer that is there.
    pub in_sync: bool,
}

/// A value that the reader has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its topic.
    pub topic: Box<str>,
    /// Its version, from its stamp.
    pub version: Version,
    /// In how many seconds it expires, if it does.
    pub expires_in: Option<u32>,
    /// The packet that brought it.
    pub packet: Vec<u8>,
}

/// Values of a broker that was away for longer than deletions are remembered.
enum Doubt {
    None,
    /// They count as nothing for now.
    Held(Index),
    /// It is decided; this is the next bucket.
    Settling {
        index: Index,
        bucket: usize,
        count: usize,
        drop: bool,
    },
}

struct Job {
    wish: Option<Wish>,
    /// When it was given, the broker had stored all that it is known to have.
    sure: bool,
    began: Duration,
    /// What was known of each topic when it was asked for, and what the peer believed.
    topics: HashMap<Box<str>, (Option<Mark>, Mark)>,
    items: Vec<Item>,
}

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
    /// Versions that were known of topics where the broker has stored something older since; nothing before them is taken.
    floors: HashMap<Box<str>, Version>,
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
            floors: HashMap::new(),
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
        if self.floors.get(topic).is_some_and(|floor| version < *floor) {
            return false;
        }
        self.floors.remove(topic);
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

    /// Whether nothing later than this stamp is known of the topic.
    pub fn is_newest(&self, topic: &[u8], stamp: &Stamp) -> bool {
        let Some(topic) = shared(topic) else { return true };
        let version = Version::of(stamp, b"");
        let known = self.index.get(topic).map(|entry| entry.mark.version);
        known.max(self.floors.get(topic).copied()) <= Some(version)
    }

    /// The broker stores this although something later is known of the topic. That is fetched again from a peer that has
    /// it; where it is that there is nothing, this is removed.
    pub fn stored_older(&mut self, topic: &[u8], stamp: &Stamp, payload: &[u8]) {
        let Some(topic) = shared(topic) else { return };
        let Some(known) = self.index.get(topic).map(|entry| entry.mark) else {
            return;
        };
        let floor = self.floors.entry(topic.into()).or_insert(known.version);
        *floor = known.version.max(*floor);
        if known.state != State::Present {
            return self.unwanted.push_back(topic.into());
        }
        let version = Version::of(stamp, payload);
        let stored = if payload.is_empty() {
            Mark::cleared(version)
        } else {
            Mark::present(version)
        };
        self.index
            .correct(topic, known, stored, Expiry::Unknown, self.now.wall);
    }

    /// Whether something older is stored anywhere than what was stored and shown before; see [`Self::stored_older`].
    pub fn is_set_back(&self) -> bool {
        !self.floors.is_empty()
    }

    /// What is stored at the topic is removed now. Whether it was older than what was shown before; if that was the end
    /// of a value, then all is as it was.
    pub fn removed(&mut self, topic: &[u8]) -> bool {
        let Some(topic) = shared(topic) else { return false };
        let Some(floor) = self.floors.get(topic) else {
            return false;
        };
        let known = self.index.get(topic).map(|entry| entry.mark.version);
        if known >= Some(*floor) {
            self.floors.remove(topic);
        }
        true
    }

    /// Whether this is what is missing at its topic. Asked before it is offered.
    pub fn is_missing(&self, topic: &[u8], stamp: &Stamp, payload: &[u8]) -> bool {
        if self.floors.is_empty() {
            return false;
        }
        let floor = shared(topic).and_then(|topic| self.floors.get(topic));
        floor == Some(&Version::of(stamp, payload))
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
        // What was missing has ended.
        if self
            .floors
            .get(&item.topic)
            .is_some_and(|floor| *floor <= item.mark.version)
        {
            self.floors.remove(&item.topic);
        }
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

    /// Whether this broker is in sync.
    fn judge(&mut self, now: Now, contacts: &[Contact]) {
        if contacts.is_empty() {
            return;
        }
        let met = contacts.contains(&Contact::Up);
        let heard = contacts.contains(&Contact::Half);
        if met != self.met {
            self.met = met;
            self.since = now.up;
            if met && self.in_sync {
                self.in_sync = false;
                self.actions.push_back(Action::Tell(Event::OutOfSync));
            }
        }
        let took = now.up.saturating_sub(self.since);
        let alone = !met && took >= if heard { DEAF } else { ALONE };
        let through = met
            && self.sync.is_through()
            && self.ended.is_empty()
            && self.unwanted.is_empty()
            && !self.storing;
        if self.in_sync || !(alone || through) {
            return;
        }
        match std::mem::replace(&mut self.doubt, Doubt::None) {
            Doubt::None => {
                self.in_sync = true;
                self.actions.push_back(Action::Tell(Event::InSync(took)));
            }
            // Nobody could vouch for what there is: then what this broker has is as good as anything.
            Doubt::Held(index) => {
                self.doubt = Doubt::Settling {
                    index,
                    bucket: 0,
                    count: 0,
                    drop: false,
                }
            }
            settling @ Doubt::Settling { .. } => self.doubt = settling,
        }
    }

    /// Does something about the values that were in doubt.
    fn settle(&mut self, now: Now) {
        let Doubt::Settling {
            index,
            bucket,
            count,
            drop,
        } = &mut self.doubt
        else {
            return;
        };
        let mut left = TURN;
        while left > 0 && *bucket < BUCKETS {
            for (topic, mark, expiry) in index.take_bucket(*bucket) {
                left = left.saturating_sub(1);
                let stored = mark.state == State::Present;
                if !*drop {
                    self.index.offer(&topic, mark, expiry, now.wall);
                }
                let known = self.index.get(&topic).map(|entry| entry.mark.state);
                let stays = known == Some(State::Present);
                *count += usize::from(stored && stays != *drop);
                if stored && !stays {
                    self.unwanted.push_back(topic);
                }
            }
            *bucket += 1;
        }
        if *bucket == BUCKETS {
            let event = if *drop {
                Event::Dropped(*count)
            } else {
                Event::Kept(*count)
            };
            self.actions.push_back(Action::Tell(event));
            self.doubt = Doubt::None;
            self.sync.set_settled(true);
        }
    }

    fn sweep(&mut self, now: Now) {
        // Deletions of a million topics are forgotten sooner, so that a client cannot fill the memory with them.
        let ttl = u64::from(self.ttl) * MOST_ENDED / (self.index.ended() as u64).max(MOST_ENDED);
        let ttl = u32::try_from(ttl).unwrap_or(self.ttl);
        let is_probing = self.jobs.values().any(|job| job.wish.is_none());
        // What is still to be stored would be read as it was before.
        let probes = now.up >= self.no_probe_before && !is_probing && !self.storing;
        let mut unknown = if probes {
            self.index.take_fresh(FRESH)
        } else {
            Vec::new()
        };
        let looks = probes && unknown.is_empty() && now.up >= self.next_probe;
        let most = if looks { PROBE } else { 0 };
        let swept = self.index.sweep(now.wall, ttl, SWEEP, most);
        if !swept.unknown.is_empty() {
            self.next_probe = now.up + PROBE_EVERY;
            unknown = swept.unknown;
        }
        if !unknown.is_empty() {
            let topics = unknown.into_iter().map(|topic| (topic.name, topic.mark));
            self.read(None, topics.collect(), now);
        }
        self.jobs
            .retain(|_, job| now.up.saturating_sub(job.began) < JOB_LOST);
    }

    fn read(&mut self, wish: Option<Wish>, topics: Vec<(Box<str>, Mark)>, now: Now) {
        let mut job = Job {
            wish,
            sure: !self.storing,
            began: now.up,
            topics: HashMap::with_capacity(topics.len()),
            items: Vec::new(),
        };
        let mut names = Vec::with_capacity(topics.len());
        for (topic, wished) in topics {
            let known = self.index.get(&topic);
            match known.map(|entry| (entry.mark, entry.expiry)) {
                // There is nothing to read.
                Some((mark, expiry)) if mark.state != State::Present => {
                    job.items.push(Item { topic, mark, expiry })
                }
                known => {
                    names.push(topic.clone());
                    job.topics.insert(topic, (known.map(|(mark, _)| mark), wished));
                }
            }
        }
        if names.is_empty() {
            if let Some(wish) = wish {
                self.sync.given(wish, job.items);
            }
            return;
        }
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, job);
        self.actions.push_back(Action::Read(id, names));
    }

    /// The reader has found a value; `now` is not before that, so that nothing is taken to expire too early.
    pub fn found(&mut self, job: u64, found: Found, now: Now) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        let Some((known, wished)) = job.topics.remove(&found.topic) else {
            return;
        };
        let mark = Mark::present(found.version);
        let expiry = match found.expires_in {
            None => Expiry::Never,
            Some(seconds) => Expiry::At(now.wall.saturating_add(seconds)),
        };
        match known {
            // The store is right, unless something else has been stored since.
            Some(known) if known != mark && job.sure => {
                self.index.correct(&found.topic, known, mark, expiry, now.wall);
            }
            _ if self
                .index
                .get(&found.topic)
                .is_none_or(|entry| entry.mark == mark) =>
            {
                self.index.offer(&found.topic, mark, expiry, now.wall);
            }
            _ => {}
        }
        let Some(wish) = job.wish else {
            let pause = Duration::from_micros((found.packet.len() / PROBE_BYTES) as u64);
            self.no_probe_before = self.no_probe_before.max(now.up) + pause;
            return;
        };
        if mark >= wished {
            self.actions.push_back(Action::Send(wish.peer, found.packet));
        }
        if mark != wished || expiry != Expiry::Never {
            job.items.push(Item {
                topic: found.topic,
                mark,
                expiry,
            });
        }
    }

    /// The reader has done a job: there is nothing at the topics that it has not found. Or it could not.
    pub fn read_done(&mut self, id: u64, done: bool) {
        let now = self.now;
        let Some(mut job) = self.jobs.remove(&id) else {
            return;
        };
        if !done {
            // The peer will ask again.
            return;
        }
        for (topic, (known, _)) in std::mem::take(&mut job.topics) {
            if let Some(known) = known.filter(|known| known.state == State::Present && job.sure) {
                let gone = Mark::gone(known.version);
                if self.index.correct(&topic, known, gone, Expiry::Unknown, now.wall) {
                    self.actions
                        .push_back(Action::Keep(topic.clone(), gone, now.wall));
                }
            }
            if let Some(entry) = self.index.get(&topic) {
                let (mark, expiry) = (entry.mark, entry.expiry);
                job.items.push(Item { topic, mark, expiry });
            }
        }
        if let Some(wish) = job.wish {
            self.sync.given(wish, job.items);
        }
    }
}

#[cfg(test)]
mod tests;
