//! A simulated mesh: real replicas, stores that are maps, links that are queues. There is no other replication than
//! the live message and what the replicas fetch, so that whatever is missed has to be found by them.

use super::super::*;
use crate::retained::Version;
use crate::retained::digest::BUCKETS;
use crate::retained::sync::Saying;

pub(super) const STEP: Duration = Duration::from_millis(50);
pub(super) const START: u32 = 1_000_000;
pub(super) const TTL: u32 = 3600;

/// A value as it travels: its topic, its version, and in which second it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) topic: String,
    pub(super) version: Version,
    pub(super) empty: bool,
    pub(super) expires: Option<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum Packet {
    Live(Value),
    Sent(Value),
    Said(Vec<u8>),
}

pub(super) type Store = BTreeMap<String, (Version, Option<u32>)>;

pub(super) struct Broker {
    pub(super) replica: Replica,
    pub(super) store: Store,
    pub(super) kept: BTreeMap<String, (Mark, u32)>,
    pub(super) contacts: Vec<Contact>,
    /// What the reader is about to do.
    pub(super) jobs: VecDeque<(u64, Vec<Box<str>>)>,
    pub(super) values: Vec<Value>,
    pub(super) boots: u32,
}

impl Broker {
    pub(super) fn start(
        store: Store,
        kept: BTreeMap<String, (Mark, u32)>,
        peers: usize,
        doubtful: bool,
        boots: u32,
        wall: u32,
    ) -> Self {
        let mut restored = Restored::at(wall);
        for (topic, (mark, second)) in &kept {
            restored.ended(topic, *mark, *second);
        }
        for (topic, (version, expires)) in &store {
            restored.stored(topic, *version, *expires);
        }
        Self {
            replica: Replica::new(restored, peers, TTL, doubtful, boots << 16),
            store,
            kept,
            contacts: vec![Contact::default(); peers],
            jobs: VecDeque::new(),
            values: Vec::new(),
            boots,
        }
    }
}

pub(super) struct Mesh {
    pub(super) random: fastrand::Rng,
    pub(super) now: Now,
    pub(super) brokers: Vec<Broker>,
    /// Up or down, from and to.
    pub(super) links: BTreeMap<(usize, usize), bool>,
    pub(super) queues: BTreeMap<(usize, usize), VecDeque<Packet>>,
    pub(super) loss: f64,
    pub(super) hlc: u64,
    pub(super) said: usize,
    pub(super) events: Vec<(usize, Event)>,
}

impl Mesh {
    pub(super) fn new(seed: u64, brokers: usize) -> Self {
        let pairs = (0..brokers).flat_map(|a| (0..brokers).filter(move |b| *b != a).map(move |b| (a, b)));
        let now = Now {
            up: Duration::ZERO,
            wall: START,
        };
        Self {
            random: fastrand::Rng::with_seed(seed),
            now,
            brokers: (0..brokers)
                .map(|_| Broker::start(Store::new(), BTreeMap::new(), brokers - 1, false, 1, START))
                .collect(),
            links: pairs.clone().map(|pair| (pair, true)).collect(),
            queues: pairs.map(|pair| (pair, VecDeque::new())).collect(),
            loss: 0.0,
            hlc: 1,
            said: 0,
            events: Vec::new(),
        }
    }

    /// The place of `other` among the peers of `broker`, and back.
    pub(super) fn place(broker: usize, other: usize) -> usize {
        other - usize::from(other > broker)
    }

    pub(super) fn peer(broker: usize, place: usize) -> usize {
        place + usize::from(place >= broker)
    }

    pub(super) fn publish(&mut self, at: usize, topic: &str, empty: bool, expires: Option<u32>) {
        self.hlc += 1;
        let version = Version {
            hlc: self.hlc,
            tie: at as u64,
        };
        let value = Value {
            topic: topic.to_owned(),
            version,
            empty,
            expires,
        };
        self.store(at, &value);
        self.brokers[at].replica.take(topic, version, empty);
        for to in (0..self.brokers.len()).filter(|to| *to != at) {
            self.send(at, to, Packet::Live(value.clone()));
        }
    }

    /// The broker stores something older than what it has, and nobody is told.
    fn release_late(&mut self, at: usize, topic: &str, empty: bool) {
        let known = self.brokers[at]
            .replica
            .index
            .get(topic)
            .map(|entry| entry.mark.version.hlc);
        let Some(known) = known.filter(|hlc| *hlc > 1) else {
            return;
        };
        let version = Version {
            hlc: self.random.u64(1..known),
            tie: u64::MAX - at as u64,
        };
        let value = Value {
            topic: topic.to_owned(),
            version,
            empty,
            expires: None,
        };
        self.store(at, &value);
        self.brokers[at].replica.set_back(topic, version, empty);
    }

    pub(super) fn store(&mut self, at: usize, value: &Value) {
        let store = &mut self.brokers[at].store;
        if value.empty {
            store.remove(&value.topic);
        } else {
            store.insert(value.topic.clone(), (value.version, value.expires));
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.links[&(from, to)] && self.random.f64() >= self.loss {
            self.queues.get_mut(&(from, to)).unwrap().push_back(packet);
        }
    }

    pub(super) fn receive(&mut self, from: usize, to: usize, packet: Packet) {
        let place = Self::place(to, from);
        let replica = &mut self.brokers[to].replica;
        match packet {
            Packet::Live(value) | Packet::Sent(value) => {
                replica.answered(place);
                if replica.take(&value.topic, value.version, value.empty) {
                    self.store(to, &value);
                }
            }
            Packet::Said(payload) => replica.hear(place, &payload),
        }
    }

    /// One turn of everybody's loop.
    pub(super) fn step(&mut self) {
        self.now.up += STEP;
        self.now.wall = START + self.now.up.as_secs() as u32;
        let pairs: Vec<_> = self.queues.keys().copied().collect();
        for (from, to) in &pairs {
            for packet in std::mem::take(self.queues.get_mut(&(*from, *to)).unwrap()) {
                self.receive(*from, *to, packet);
            }
        }
        for at in 0..self.brokers.len() {
            self.read(at);
            self.turn(at);
        }
    }

    pub(super) fn read(&mut self, at: usize) {
        let now = self.now;
        let broker = &mut self.brokers[at];
        let jobs = broker.jobs.len();
        for _ in 0..jobs {
            if self.random.bool() {
                return;
            }
            let (job, topics) = broker.jobs.pop_front().unwrap();
            for topic in topics {
                let Some((version, expires)) = broker.store.get(&*topic) else {
                    continue;
                };
                if expires.is_some_and(|second| second <= now.wall) {
                    continue;
                }
                let value = Value {
                    topic: topic.to_string(),
                    version: *version,
                    empty: false,
                    expires: *expires,
                };
                broker.values.push(value);
                let found = Found {
                    topic,
                    version: *version,
                    expires_in: expires.map(|second| second - now.wall),
                    packet: (broker.values.len() - 1).to_le_bytes().to_vec(),
                };
                broker.replica.found(job, found, now);
            }
            broker.replica.read_done(job, true);
        }
    }

    pub(super) fn turn(&mut self, at: usize) {
        let peers = self.brokers.len() - 1;
        for place in 0..peers {
            let other = Self::peer(at, place);
            self.brokers[at].contacts[place] = match (self.links[&(at, other)], self.links[&(other, at)]) {
                (true, true) => Contact::Up,
                (false, false) => Contact::Down,
                _ => Contact::Half,
            };
        }
        let broker = &mut self.brokers[at];
        broker.replica.tick(self.now, &broker.contacts);
        let mut removes = false;
        while let Some(action) = self.brokers[at].replica.next_action() {
            removes |= matches!(action, Action::Remove { .. });
            match action {
                Action::Tell(Event::InSync(_)) if removes => {
                    panic!("in sync, with something still to be removed")
                }
                Action::Say(place, payload) => {
                    let here = matches!(Saying::decode(&payload), Some((_, Saying::Here { .. })));
                    self.said += usize::from(!here);
                    self.send(at, Self::peer(at, place), Packet::Said(payload));
                }
                Action::Remove { topic, .. } => {
                    self.brokers[at].store.remove(&*topic);
                    self.brokers[at].replica.removed(topic.as_bytes());
                }
                Action::Read(job, topics) => self.brokers[at].jobs.push_back((job, topics)),
                Action::Send(place, packet) => {
                    let value = usize::from_le_bytes(packet.try_into().unwrap());
                    let value = self.brokers[at].values[value].clone();
                    self.send(at, Self::peer(at, place), Packet::Sent(value));
                }
                Action::Keep(topic, mark, second) => {
                    self.brokers[at].kept.insert(topic.into(), (mark, second));
                }
                Action::Tell(event) => self.events.push((at, event)),
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now.up + time;
        while self.now.up < end {
            self.step();
        }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, up: bool) {
        self.links.insert((from, to), up);
        self.queues.get_mut(&(from, to)).unwrap().clear();
    }

    pub(super) fn isolate(&mut self, at: usize, up: bool) {
        for other in (0..self.brokers.len()).filter(|other| *other != at) {
            self.cut(at, other, up);
            self.cut(other, at, up);
        }
    }

    pub(super) fn restart(
        &mut self,
        at: usize,
        store: Store,
        kept: BTreeMap<String, (Mark, u32)>,
        doubtful: bool,
    ) {
        let boots = self.brokers[at].boots + 1;
        let peers = self.brokers.len() - 1;
        let wall = self.now.wall;
        let store = store
            .into_iter()
            .filter(|(_, (_, expires))| expires.is_none_or(|second| second > wall));
        self.brokers[at] = Broker::start(store.collect(), kept, peers, doubtful, boots, wall);
        self.isolate(at, true);
    }

    /// What a subscriber would be shown at `at`.
    pub(super) fn shown(&self, at: usize) -> BTreeMap<&str, Version> {
        let alive = self.brokers[at].store.iter();
        let alive = alive.filter(|(_, (_, expires))| expires.is_none_or(|second| second > self.now.wall));
        alive
            .map(|(topic, (version, _))| (topic.as_str(), *version))
            .collect()
    }

    pub(super) fn indexed(&self, at: usize) -> BTreeMap<&str, Version> {
        let index = &self.brokers[at].replica.index;
        let entries = (0..BUCKETS).flat_map(|bucket| index.list(bucket, 0, usize::MAX).0);
        let present = entries.filter(|entry| entry.mark.state == State::Present);
        present.map(|entry| (entry.topic, entry.mark.version)).collect()
    }

    /// Everybody shows the same, says so, and knows what he shows.
    pub(super) fn agree(&self) -> Result<(), String> {
        let first = self.shown(0);
        for at in 0..self.brokers.len() {
            let status = self.brokers[at].replica.status();
            if self.shown(at) != first {
                return Err(format!("{at} shows {:?} and not {first:?}", self.shown(at)));
            }
            if self.indexed(at) != self.shown(at) {
                return Err(format!(
                    "{at} shows {:?} and indexes {:?}",
                    self.shown(at),
                    self.indexed(at)
                ));
            }
            if status != self.brokers[0].replica.status() || !status.in_sync {
                return Err(format!(
                    "{at} tells {status:?}, and 0 {:?}",
                    self.brokers[0].replica.status()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, patience: Duration, about: &str) {
        let end = self.now.up + patience;
        while let Err(why) = self.agree() {
            assert!(self.now.up < end, "{about}: {why}");
            self.step();
        }
    }

    pub(super) fn traffic(&mut self, messages: usize) {
        for _ in 0..messages {
            let (at, topic) = (self.random.usize(..self.brokers.len()), self.random.usize(..40));
            let topic = format!("t/{topic}");
            let expires = (self.random.u8(..8) == 0).then(|| self.now.wall + self.random.u32(1..30));
            let empty = self.random.u8(..4) == 0;
            if self.random.u8(..16) == 0 {
                self.release_late(at, &topic, empty);
            } else {
                self.publish(at, &topic, empty, expires.filter(|_| !empty));
            }
            if self.random.bool() {
                self.step();
            }
        }
    }
}
