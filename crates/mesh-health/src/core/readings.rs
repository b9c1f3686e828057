//! What a broker tells of itself under `$SYS`, and how fast its counters rise.
//!
//! Guarantees: what the broker has not told, or told too long ago, is `None`.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::BrokerId;

use super::Moment;

/// A rate is given up when its counter has not been told for this long; brokers tell each second.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// Samples closer together than this say nothing about a rate.
const SHORTEST_STEP: Duration = Duration::from_millis(300);

/// One value that a broker told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Sessions with a connection, those of the mesh included.
    Connected(u64),
    /// Sessions of the mesh's own users: links that peers fetch, probes.
    MeshSessions(u64),
    /// The broker's own bridges to its peers that are connected.
    OwnBridges(u64),
    /// Connected clients, without sessions of the mesh; an older plugin does not tell it.
    Clients(u64),
    /// PUBLISH packets received since the broker started.
    Received(u64),
    /// PUBLISH packets sent since the broker started.
    Sent(u64),
    /// A counter of the links from and to this peer.
    Link(BrokerId, LinkCounter, u64),
    /// The retained messages, and whether they are what the peers have.
    Retained(Retained),
}

/// What a broker counts of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkCounter {
    /// Messages that came from it since the broker started.
    Received,
    /// Those of them that the broker had already.
    DuplicatesDropped,
    /// Those of them that were older than what the broker retains.
    StaleDropped,
    /// Messages that it has not yet told to have.
    Backlog,
    /// Messages that are kept no longer and that it is not known to have.
    Lost,
    /// 1 while what is kept for it nearly fills the bounds.
    Filling,
}

/// The retained messages of a broker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Retained {
    /// How many.
    pub count: u64,
    /// Equal on two brokers exactly if they retain the same.
    pub digest: Option<String>,
    /// Whether the broker has compared itself with its peers.
    pub in_sync: bool,
}

/// The last values of one broker.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    connected: Option<u64>,
    mesh_sessions: Option<u64>,
    own_bridges: Option<u64>,
    clients: Option<u64>,
    received: Counter,
    sent: Counter,
    peers: BTreeMap<BrokerId, PeerReadings>,
    retained: Option<Retained>,
}

impl Readings {
    /// Takes in a value. A `kept` one was retained, so nobody knows how old it is.
    pub fn take(&mut self, reading: Reading, kept: bool, now: Moment) {
        match reading {
            Reading::Connected(count) => self.connected = Some(count),
            Reading::MeshSessions(count) => self.mesh_sessions = Some(count),
            Reading::OwnBridges(count) => self.own_bridges = Some(count),
            Reading::Clients(count) => self.clients = Some(count),
            Reading::Received(count) => self.received.take(count, kept, now),
            Reading::Sent(count) => self.sent.take(count, kept, now),
            Reading::Link(peer, counter, count) => {
                self.peers
                    .entry(peer)
                    .or_default()
                    .take(counter, count, kept, now);
            }
            Reading::Retained(retained) => self.retained = Some(retained),
        }
    }

    /// Forgets everything: the broker can no longer be asked.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Connected clients, without sessions of the mesh. Where the plugin does not tell, what Mosquitto counts is all there
    /// is: it counts a bridge as a client at both its ends, and sessions of the mesh that last for a few milliseconds.
    pub fn clients(&self) -> Option<u64> {
        if self.clients.is_some() {
            return self.clients;
        }
        let mesh = self.mesh_sessions? + self.own_bridges?;
        Some(self.connected?.saturating_sub(mesh))
    }

    /// PUBLISH packets received per second.
    pub fn in_per_s(&self, now: Moment) -> Option<f64> {
        self.received.per_s(now)
    }

    /// PUBLISH packets sent per second.
    pub fn out_per_s(&self, now: Moment) -> Option<f64> {
        self.sent.per_s(now)
    }

    /// What it told of the links from and to `peer`.
    pub fn of(&self, peer: &BrokerId) -> Option<&PeerReadings> {
        self.peers.get(peer)
    }

    /// What is retained.
    pub fn retained(&self) -> Option<&Retained> {
        self.retained.as_ref()
    }
}

/// What a broker told of its links from and to one peer.
#[derive(Debug, Clone, Default)]
pub struct PeerReadings {
    received: Counter,
    duplicates_dropped: Option<u64>,
    stale_dropped: Option<u64>,
    backlog: Option<u64>,
    lost: Option<u64>,
}

impl PeerReadings {
    fn take(&mut self, counter: LinkCounter, count: u64, kept: bool, now: Moment) {
        match counter {
            LinkCounter::Received => self.received.take(count, kept, now),
            LinkCounter::DuplicatesDropped => self.duplicates_dropped = Some(count),
            LinkCounter::StaleDropped => self.stale_dropped = Some(count),
            LinkCounter::Backlog => self.backlog = Some(count),
            LinkCounter::Lost => self.lost = Some(count),
            // Whoever is to be told of it was, when it came.
            LinkCounter::Filling => {}
        }
    }

    /// Messages that came from the peer since the broker started.
    pub fn received(&self) -> Option<u64> {
        self.received.value
    }

    /// Messages that come from the peer per second.
    pub fn per_s(&self, now: Moment) -> Option<f64> {
        self.received.per_s(now)
    }

    /// [`LinkCounter::DuplicatesDropped`].
    pub fn duplicates_dropped(&self) -> Option<u64> {
        self.duplicates_dropped
    }

    /// [`LinkCounter::StaleDropped`].
    pub fn stale_dropped(&self) -> Option<u64> {
        self.stale_dropped
    }

    /// [`LinkCounter::Backlog`].
    pub fn backlog(&self) -> Option<u64> {
        self.backlog
    }

    /// [`LinkCounter::Lost`].
    pub fn lost(&self) -> Option<u64> {
        self.lost
    }
}

/// A counter that rises until its broker restarts.
#[derive(Debug, Clone, Default)]
struct Counter {
    value: Option<u64>,
    last: Option<(Moment, u64)>,
    rate: Option<f64>,
}

impl Counter {
    fn take(&mut self, value: u64, kept: bool, now: Moment) {
        self.value = Some(value);
        if kept {
            return;
        }
        match self.last {
            Some((at, before)) if value >= before => {
                let step = now.since(at);
                if step < SHORTEST_STEP {
                    return;
                }
                self.rate = Some((value - before) as f64 / step.as_secs_f64());
            }
            // The first sample, or the first after a restart.
            _ => self.rate = None,
        }
        self.last = Some((now, value));
    }

    fn per_s(&self, now: Moment) -> Option<f64> {
        let (at, _) = self.last?;
        self.rate.filter(|_| now.since(at) < STALE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_rate_needs_two_fresh_values_and_survives_no_restart() {
        let mut counter = Counter::default();
        counter.take(1_000, true, at(0));
        counter.take(1_000, false, at(100));
        assert_eq!((counter.value, counter.per_s(at(100))), (Some(1_000), None));
        counter.take(1_500, false, at(1_100));
        assert_eq!(counter.per_s(at(1_200)), Some(500.0));
        assert_eq!(counter.per_s(at(7_000)), None, "stale");
        counter.take(3, false, at(2_100));
        assert_eq!((counter.value, counter.per_s(at(2_100))), (Some(3), None));
    }

    #[test]
    fn clients_are_unknown_until_the_plugin_tells_of_the_meshs_own_sessions() {
        let mut readings = Readings::default();
        readings.take(Reading::Connected(12), false, at(0));
        readings.take(Reading::MeshSessions(6), false, at(0));
        assert_eq!(readings.clients(), None);
        readings.take(Reading::OwnBridges(4), false, at(0));
        assert_eq!(readings.clients(), Some(2));
        readings.take(Reading::OwnBridges(9), false, at(0));
        assert_eq!(readings.clients(), Some(0));
        readings.take(Reading::Clients(3), false, at(0));
        readings.take(Reading::Connected(14), false, at(0));
        assert_eq!(readings.clients(), Some(3), "a probe's session is no client");
        readings.forget();
        assert_eq!(readings.clients(), None);
    }
}
