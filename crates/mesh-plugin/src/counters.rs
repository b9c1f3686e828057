//! What the plugin counts, and the retained `$SYS` topics on which it tells.

use std::time::Duration;

use mesh_model::BrokerId;
use mesh_model::names::{
    BOOT_TOPIC, BRIDGES_TOPIC, CLIENTS_TOPIC, SESSIONS_TOPIC, link_counter, link_counter_topic,
};

/// How often the counters are published.
pub const EVERY: Duration = Duration::from_secs(1);

/// The counters of one peer, since the broker started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Messages that came over the link from the peer.
    pub received: u64,
    /// Messages that went to the link which the peer fetches.
    pub sent: u64,
    /// Messages kept from that link, because they had come over a link.
    pub held_back: u64,
    /// Those of `received` that were taken out of the socket of a broken link.
    pub salvaged: u64,
    /// Those of `received` that had been seen before.
    pub duplicates_dropped: u64,
    /// Those of `received` that were retained and older than what is retained here.
    pub stale_dropped: u64,
    /// Messages sent to the peer again, or late.
    pub replayed: u64,
    /// Messages that are kept for it no more, and that it is not known to have.
    pub lost: u64,
    /// Messages from here that it has not told to have.
    pub backlog: u64,
    /// Whether what is kept for it nearly fills the bounds.
    pub filling: bool,
}

/// The names of the counters of a peer, and how to read them.
type Counter = (&'static str, fn(&LinkCounts) -> u64);
const COUNTERS: [Counter; 10] = [
    (link_counter::RECEIVED, |counts| counts.received),
    (link_counter::SENT, |counts| counts.sent),
    (link_counter::HELD_BACK, |counts| counts.held_back),
    (link_counter::SALVAGED, |counts| counts.salvaged),
    (link_counter::DUPLICATES_DROPPED, |counts| {
        counts.duplicates_dropped
    }),
    (link_counter::STALE_DROPPED, |counts| counts.stale_dropped),
    (link_counter::REPLAYED, |counts| counts.replayed),
    (link_counter::LOST, |counts| counts.lost),
    (link_counter::BACKLOG, |counts| counts.backlog),
    (link_counter::FILLING, |counts| counts.filling.into()),
];

/// The topics of the counters, made once, and when they were last published.
#[derive(Debug)]
pub struct Board {
    links: Vec<[String; COUNTERS.len()]>,
    boot: u64,
    next: Duration,
}

impl Board {
    /// A board for these peers; due at once. `boot` is a number that no other start of the broker has.
    pub fn new<'a>(peers: impl IntoIterator<Item = &'a BrokerId>, boot: u64) -> Self {
        let topics = |peer| COUNTERS.map(|(name, _)| link_counter_topic(peer, name));
        Self {
            links: peers.into_iter().map(topics).collect(),
            boot,
            next: Duration::ZERO,
        }
    }

    /// Whether it is time to publish, `now` being the time since the start. Says so once each [`EVERY`].
    pub fn due(&mut self, now: Duration) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + EVERY;
        }
        due
    }

    /// Every topic with its value. `counts` come in the order of the peers.
    pub fn lines(
        &self,
        counts: impl Iterator<Item = LinkCounts>,
        sessions: usize,
        bridges: usize,
        clients: usize,
    ) -> impl Iterator<Item = (&str, u64)> {
        let of_links = self.links.iter().zip(counts).flat_map(|(topics, count)| {
            let values = COUNTERS.map(|(_, value)| value(&count));
            topics.iter().map(String::as_str).zip(values)
        });
        of_links.chain([
            (SESSIONS_TOPIC, sessions as u64),
            (BRIDGES_TOPIC, bridges as u64),
            (BOOT_TOPIC, self.boot),
            (CLIENTS_TOPIC, clients as u64),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_published_once_a_second() {
        let mut board = Board::new(&[], 5);
        let due: Vec<u64> = (0..30)
            .map(|step| step * 100)
            .filter(|ms| board.due(Duration::from_millis(*ms)))
            .collect();
        assert_eq!(due, [0, 1000, 2000]);
    }

    #[test]
    fn every_peer_has_its_counters() {
        let peers = ["b2", "b3"].map(|id| id.parse().unwrap());
        let counts = [
            LinkCounts {
                received: 1,
                sent: 2,
                held_back: 3,
                salvaged: 1,
                filling: true,
                ..LinkCounts::default()
            },
            LinkCounts::default(),
        ];
        let board = Board::new(&peers, 5);
        let lines: Vec<_> = board.lines(counts.into_iter(), 4, 2, 7).collect();
        assert_eq!(lines.len(), 2 * COUNTERS.len() + 4);
        assert_eq!(lines[0], ("$SYS/broker/mesh/link/b2/received", 1));
        assert_eq!(lines[1], ("$SYS/broker/mesh/link/b2/sent", 2));
        assert_eq!(lines[2], ("$SYS/broker/mesh/link/b2/held_back", 3));
        assert_eq!(lines[3], ("$SYS/broker/mesh/link/b2/salvaged", 1));
        assert_eq!(lines[9], ("$SYS/broker/mesh/link/b2/filling", 1));
        assert_eq!(lines[10], ("$SYS/broker/mesh/link/b3/received", 0));
        assert_eq!(lines[20], ("$SYS/broker/mesh/sessions", 4));
        assert_eq!(lines[21], ("$SYS/broker/mesh/bridges", 2));
        assert_eq!(lines[22], ("$SYS/broker/mesh/boot", 5));
        assert_eq!(lines[23], ("$SYS/broker/mesh/clients", 7));
    }
}
