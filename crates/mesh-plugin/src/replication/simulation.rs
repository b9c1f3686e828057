//! Many brokers, random histories: links that are cut, queues that overflow, brokers that hang and are killed.
//!
//! What of Mosquitto matters is modelled: a link is a queue of bounded length; what the plugin sends is put into
//! queues at the beginning of the next turn of the loop; TICK comes at the end of a turn (2.0) or after those (2.1).
//! `MESH_SEED` replays one history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::testing::Random;

/// What travels over a link.
#[derive(Debug, Clone)]
enum Packet {
    Message(Stamp),
    Report(String),
}

/// One message, wherever it is.
type Key = (usize, u64, u64);

#[derive(Debug)]
struct Broker {
    plugin: Replication,
    /// What the plugin has sent in this turn.
    sent: VecDeque<(usize, Packet)>,
    hung_until: u64,
    /// What was delivered here since the last start, in order.
    delivered: Vec<Key>,
    /// What was delivered here ever.
    ever: BTreeSet<Key>,
    turns: u64,
}

/// What may happen in a history.
#[derive(Debug, Clone, Copy)]
struct Kind {
    brokers: usize,
    bounds: Bounds,
    /// The length of a link's queue.
    queue: usize,
    cuts: bool,
    hangs: bool,
    kills: bool,
    /// What was seen survives a kill.
    journal: bool,
    /// TICK comes before what arrives, as in Mosquitto 2.1.
    tick_first: bool,
}

struct World {
    kind: Kind,
    random: Random,
    now_ms: u64,
    brokers: Vec<Broker>,
    /// From one broker to another: `None` if there is no connection.
    links: BTreeMap<(usize, usize), Option<VecDeque<Packet>>>,
    published: BTreeSet<Key>,
    epochs: u64,
}

impl World {
    fn new(kind: Kind, seed: u64) -> Self {
        let mut world = Self {
            kind,
            random: Random::seeded(seed),
            now_ms: 0,
            brokers: Vec::new(),
            links: BTreeMap::new(),
            published: BTreeSet::new(),
            epochs: 0,
        };
        for at in 0..kind.brokers {
            let plugin = world.plugin(at);
            world.brokers.push(Broker {
                plugin,
                sent: VecDeque::new(),
                hung_until: 0,
                delivered: Vec::new(),
                ever: BTreeSet::new(),
                turns: 0,
            });
        }
        for from in 0..kind.brokers {
            for to in (0..kind.brokers).filter(|to| *to != from) {
                world.links.insert((from, to), None);
            }
        }
        world
    }

    fn plugin(&mut self, at: usize) -> Replication {
        self.epochs += 1;
        let ids = (0..self.kind.brokers).filter(|peer| *peer != at).map(id);
        Replication::new(id(at), ids.collect(), self.kind.bounds, self.epochs)
    }

    fn now(&self) -> Now {
        Now {
            up_ms: self.now_ms,
            wall_ms: 1_800_000_000_000 + self.now_ms,
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        let link = self.links.get_mut(&(from, to)).unwrap();
        if link.is_none() {
            *link = Some(VecDeque::new());
            self.brokers[from].plugin.link_up(place(from, to));
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        if self.links.insert((from, to), None).flatten().is_some() {
            self.brokers[from].plugin.link_down(place(from, to));
        }
    }

    fn queue(&mut self, from: usize, to: usize, packet: Packet) {
        if let Some(queue) = self.links.get_mut(&(from, to)).unwrap()
            && queue.len() < self.kind.queue
        {
            queue.push_back(packet);
        }
    }

    fn kill(&mut self, at: usize) {
        for peer in (0..self.kind.brokers).filter(|peer| *peer != at) {
            // Of what is in the socket some is read.
            let arrived = self.random.below(20);
            for _ in 0..arrived {
                self.receive(at, peer);
            }
            self.cut(at, peer);
            self.cut(peer, at);
        }
        let mut plugin = self.plugin(at);
        if self.kind.journal {
            plugin.restore(self.brokers[at].plugin.seen().clone());
        }
        let broker = &mut self.brokers[at];
        broker.plugin = plugin;
        broker.sent.clear();
        if !self.kind.journal {
            broker.delivered.clear();
        }
    }

    fn publish(&mut self, at: usize) {
        let now = self.now();
        let qos = self.random.below(2) as u8;
        let stamp = self.brokers[at].plugin.stamp(qos == 0, qos, now);
        let content = Content {
            topic: b"t",
            payload: b"p",
            properties: b"",
        };
        let refused = self.random.percent(2);
        let plugin = &mut self.brokers[at].plugin;
        plugin.publish(stamp.clone(), &content, now);
        let up = |to: usize| self.links[&(at, to)].is_some();
        let peers: Vec<usize> = (0..self.kind.brokers).filter(|to| *to != at && up(*to)).collect();
        // Somebody behind us may refuse it; where nobody can see that, it counts as routed.
        if refused && !peers.is_empty() {
            plugin.forget_current();
            return;
        }
        self.published.insert(key(&stamp));
        for to in peers {
            if self.brokers[at].plugin.route(place(at, to)) {
                self.queue(at, to, Packet::Message(stamp.clone()));
            }
            self.take_sends(at);
        }
        self.brokers[at].plugin.forget_current();
    }

    fn take_sends(&mut self, at: usize) {
        while let Some((peer, entry)) = self.brokers[at].plugin.next_send() {
            let packet = Packet::Message(entry.stamp.clone());
            self.brokers[at].sent.push_back((broker(at, peer), packet));
        }
    }

    /// `to` reads one packet of the link from `from`.
    fn receive(&mut self, from: usize, to: usize) -> bool {
        let now = self.now();
        let Some(packet) = self
            .links
            .get_mut(&(from, to))
            .unwrap()
            .as_mut()
            .and_then(VecDeque::pop_front)
        else {
            return false;
        };
        let receiver = &mut self.brokers[to];
        match packet {
            Packet::Report(text) => {
                let report = Report::parse(&text).unwrap();
                receiver.plugin.reported(place(to, from), &report, now);
            }
            Packet::Message(stamp) => {
                assert!(receiver.plugin.is_believed(&stamp, now));
                if receiver.plugin.arrived(&stamp) {
                    receiver.delivered.push(key(&stamp));
                    receiver.ever.insert(key(&stamp));
                    let content = Content {
                        topic: b"t",
                        payload: b"p",
                        properties: b"",
                    };
                    receiver.plugin.keep(stamp, &content, now);
                }
            }
        }
        true
    }

    fn tick(&mut self, at: usize) {
        let now = self.now();
        let plugin = &mut self.brokers[at].plugin;
        plugin.tick(now);
        if plugin.report_due(now) {
            for peer in 0..self.kind.brokers - 1 {
                if self.brokers[at].plugin.is_up(peer) {
                    let report = self.brokers[at].plugin.report(peer, now);
                    self.brokers[at]
                        .sent
                        .push_back((broker(at, peer), Packet::Report(report)));
                }
            }
        }
        self.take_sends(at);
        while self.brokers[at].plugin.take_notice().is_some() {}
    }

    fn turn(&mut self, at: usize, publishes: usize) {
        if self.brokers[at].hung_until > self.now_ms {
            return;
        }
        self.brokers[at].turns += 1;
        while let Some((to, packet)) = self.brokers[at].sent.pop_front() {
            self.queue(at, to, packet);
        }
        if self.kind.tick_first {
            self.tick(at);
        }
        for _ in 0..publishes {
            self.publish(at);
        }
        for from in (0..self.kind.brokers).filter(|from| *from != at) {
            let most = self.random.below(40);
            (0..most).any(|_| !self.receive(from, at));
        }
        if !self.kind.tick_first {
            self.tick(at);
        }
    }

    /// A stretch of the history in which anything may happen.
    fn storm(&mut self, turns: usize) {
        for _ in 0..turns {
            self.now_ms += 10 + self.random.below(40) as u64;
            let (from, to) = (
                self.random.below(self.kind.brokers),
                self.random.below(self.kind.brokers),
            );
            if from != to {
                if self.kind.cuts && self.random.percent(4) {
                    self.cut(from, to);
                } else if self.random.percent(30) {
                    self.connect(from, to);
                }
                if self.kind.hangs && self.random.percent(1) {
                    self.brokers[from].hung_until = self.now_ms + self.random.below(6_000) as u64;
                }
                if self.kind.kills && self.random.percent(1) {
                    self.kill(from);
                }
            }
            for at in 0..self.kind.brokers {
                let publishes = self.random.below(8);
                self.turn(at, publishes);
            }
        }
    }

    /// Everything is whole again, and nobody publishes.
    fn calm(&mut self, ms: u64) {
        for at in 0..self.kind.brokers {
            self.brokers[at].hung_until = 0;
            for to in (0..self.kind.brokers).filter(|to| *to != at) {
                self.connect(at, to);
            }
        }
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += 50;
            for at in 0..self.kind.brokers {
                self.turn(at, 0);
            }
        }
    }

    /// The messages of the present boot of `origin` that `at` never got.
    fn missing(&self, origin: usize, at: usize) -> Vec<Key> {
        let epoch = self.brokers[origin].plugin.epoch();
        let all = self
            .published
            .iter()
            .filter(|key| (key.0, key.1) == (origin, epoch));
        all.filter(|key| !self.brokers[at].ever.contains(key))
            .copied()
            .collect()
    }
}

fn id(at: usize) -> BrokerId {
    format!("b{at}").parse().unwrap()
}

fn number(id: &BrokerId) -> usize {
    id.as_str()[1..].parse().unwrap()
}

fn key(stamp: &Stamp) -> Key {
    (number(&stamp.origin), stamp.epoch, stamp.seq)
}

/// The place of `peer` among the peers of `at`.
fn place(at: usize, peer: usize) -> usize {
    peer - usize::from(peer > at)
}

/// The peer of `at` in that place.
fn broker(at: usize, place: usize) -> usize {
    place + usize::from(place >= at)
}

const ROOMY: Bounds = Bounds {
    count: 1_000_000,
    bytes: 1 << 30,
};

const KIND: Kind = Kind {
    brokers: 3,
    bounds: ROOMY,
    queue: 1_000_000,
    cuts: true,
    hangs: false,
    kills: false,
    journal: true,
    tick_first: false,
};

/// Runs a history for each seed, or for the one that `MESH_SEED` names.
fn histories(count: u64, calm_ms: u64, kind: impl Fn(u64) -> Kind, check: impl Fn(&World, &str)) {
    let only = std::env::var("MESH_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let mut world = World::new(kind(seed), seed);
        world.storm(400);
        world.calm(calm_ms);
        check(&world, &format!("MESH_SEED={seed} {:?}", world.kind));
    }
}

fn check_never_twice(world: &World, about: &str) {
    for (at, broker) in world.brokers.iter().enumerate() {
        let different: BTreeSet<&Key> = broker.delivered.iter().collect();
        assert_eq!(
            different.len(),
            broker.delivered.len(),
            "{about}: b{at} got something twice"
        );
    }
}

fn check_in_order(world: &World, about: &str) {
    for (at, broker) in world.brokers.iter().enumerate() {
        let mut last: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (origin, epoch, seq) in &broker.delivered {
            let before = last.insert(*origin, (*epoch, *seq));
            assert!(
                before.is_none_or(|before| before < (*epoch, *seq)),
                "{about}: b{at} got {epoch}/{seq} of b{origin} after {before:?}"
            );
        }
    }
}

fn check_complete(world: &World, about: &str) {
    for origin in 0..world.kind.brokers {
        for at in (0..world.kind.brokers).filter(|at| *at != origin) {
            let missing = world.missing(origin, at);
            assert!(missing.is_empty(), "{about}: b{at} lacks {missing:?}");
        }
    }
    // Nothing is kept once all have it.
    for broker in &world.brokers {
        for totals in broker.plugin.totals() {
            assert_eq!((totals.backlog, totals.lost), (0, 0), "{about}");
        }
        assert_eq!(
            broker.plugin.own.end(),
            broker.plugin.own.lacked_from(0),
            "{about}"
        );
    }
}

#[test]
fn links_that_are_cut_lose_nothing_repeat_nothing_and_keep_the_order() {
    let kind = |seed| Kind {
        brokers: 2 + (seed % 4) as usize,
        tick_first: seed % 2 == 1,
        hangs: seed % 3 == 0,
        ..KIND
    };
    histories(60, 30_000, kind, |world, about| {
        check_never_twice(world, about);
        check_complete(world, about);
        check_in_order(world, about);
    });
}

#[test]
fn what_a_full_queue_drops_is_sent_again() {
    let kind = |seed| Kind {
        brokers: 2 + (seed % 3) as usize,
        queue: 40 + 40 * (seed % 5) as usize,
        tick_first: seed % 2 == 1,
        hangs: true,
        ..KIND
    };
    histories(30, 90_000, kind, |world, about| {
        check_never_twice(world, about);
        check_complete(world, about);
    });
}

#[test]
fn what_one_broker_got_of_a_dead_one_all_get() {
    let kind = |seed| Kind {
        brokers: 3 + (seed % 3) as usize,
        kills: true,
        hangs: seed % 3 == 0,
        journal: seed % 2 == 0,
        ..KIND
    };
    histories(60, 30_000, kind, |world, about| {
        check_never_twice(world, about);
        for key in &world.published {
            let has = |at: &usize| *at == key.0 || world.brokers[*at].ever.contains(key);
            let having = (0..world.kind.brokers).filter(has).count();
            let alive = world.brokers[key.0].plugin.epoch() == key.1;
            // One that has it may itself have been killed before it could help.
            let helpers = (0..world.kind.brokers).filter(has).filter(|at| *at != key.0);
            let helped = helpers.clone().count() > 0 && !world.kind.kills || alive;
            assert!(!helped || having == world.kind.brokers, "{about}: {key:?}");
        }
    });
}

#[test]
fn what_leaves_the_log_unseen_is_counted_exactly() {
    let mut lost = 0;
    for seed in 0..20 {
        let bounds = Bounds { count: 40, ..ROOMY };
        let kind = Kind {
            brokers: 2,
            bounds,
            tick_first: seed % 2 == 1,
            ..KIND
        };
        let mut world = World::new(kind, seed);
        world.storm(300);
        for broker in &world.brokers {
            assert!(broker.plugin.own.end() - broker.plugin.own.lacked_from(0) <= 40);
        }
        world.calm(20_000);
        check_never_twice(&world, "small log");
        for (origin, at) in [(0, 1), (1, 0)] {
            let missing = world.missing(origin, at).len() as u64;
            let counted = world.brokers[origin].plugin.totals().next().unwrap();
            assert_eq!(
                counted.lost, missing,
                "MESH_SEED={seed}: what b{at} lacks of b{origin}"
            );
            assert_eq!(counted.backlog, 0);
            lost += missing;
        }
    }
    assert!(lost > 100, "only {lost} messages were lost");
}
