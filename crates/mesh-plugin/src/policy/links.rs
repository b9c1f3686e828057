//! Links and peers: what is told and heard over links, what is counted, and who must not be connected as one.

use super::sessions::Part;
use super::{Bypass, Internal, Policy, internal};
use crate::counters::LinkCounts;
use crate::replication::seen::Ranges;
use crate::replication::{Notice, Now, Report, report};
use crate::retained::sync::Contact;

/// A peer's clock that is that far from ours is worth a line in the log, and another one if it then jumps that far; in
/// milliseconds.
const CLOCK_OFF_MS: u64 = 60_000;

/// A session of a link without a connection is looked at again after so long, in milliseconds.
const VACANT_MS: u64 = 10_000;

impl Policy {
    /// `peer` says something to this plugin. Returns by how many milliseconds its clock is off, if that is to be said.
    pub fn told(&mut self, peer: usize, topic: &Internal<'_>, payload: &[u8], now: Now) -> Option<i64> {
        if topic.from != self.peers[peer].id.as_str() {
            return None;
        }
        self.awake(now);
        match topic.about {
            internal::About::Seen => {
                let report = Report::parse(str::from_utf8(payload).ok()?)?;
                self.replication.reported(peer, &report, now);
                let off = (report.wall_ms.wrapping_sub(now.wall_ms) as i64).max(-i64::MAX);
                let said = &mut self.peers[peer].clock_off;
                if off.unsigned_abs() <= CLOCK_OFF_MS {
                    *said = 0;
                    return None;
                }
                let news = off.abs_diff(*said) > CLOCK_OFF_MS;
                if news {
                    *said = off;
                }
                news.then_some(off)
            }
            internal::About::Presence => {
                self.clients_told(peer, payload, now);
                None
            }
            internal::About::Sync => {
                self.retained.hear(peer, payload);
                None
            }
        }
    }

    /// Whether peers are to be told now what was seen here. Says so once.
    pub fn report_due(&mut self, now: Now) -> bool {
        self.replication.report_due(now)
    }

    /// What was seen here, for each peer whose link is there.
    pub fn reports(&self, now: Now) -> Vec<(usize, String)> {
        let up = (0..self.peers.len()).filter(|peer| self.replication.is_up(*peer));
        up.map(|peer| (peer, self.replication.report(peer, now)))
            .collect()
    }

    /// What was seen here, as it is written into a journal.
    pub fn seen_text(&self) -> String {
        report::write(0, 0, &Ranges::default(), self.replication.seen())
    }

    /// What is to be said of what is kept for a peer; each once.
    pub fn take_notice(&mut self) -> Option<(usize, Notice)> {
        self.replication.take_notice()
    }

    /// The counters of each peer, in the order of the options.
    pub fn counts(&self) -> impl Iterator<Item = LinkCounts> {
        let all = self.peers.iter().zip(self.replication.totals());
        all.map(|(peer, totals)| LinkCounts {
            replayed: totals.replayed,
            lost: totals.lost,
            backlog: totals.backlog as u64,
            filling: totals.filling,
            ..peer.counts
        })
    }

    /// How many of this broker's own bridges to peers are known to be connected: those that brought something
    /// in since. Canaries cross each link every second, so this is soon true.
    pub fn bridges(&self) -> usize {
        self.peers.iter().filter(|peer| peer.bridge.is_some()).count()
    }

    pub(super) fn contact(&self, peer: usize) -> Contact {
        match (self.replication.is_live(peer), self.peers[peer].bridge.is_some()) {
            (true, true) => Contact::Up,
            (false, false) => Contact::Down,
            _ => Contact::Half,
        }
    }

    /// The client ids of links that must not be connected: those that did not log in with us, and all of them
    /// once this broker has left the mesh. Who answers logins in our place lets them in again, so this is asked
    /// again and again.
    pub fn unwanted(&self, now_ms: u64) -> Vec<String> {
        let left = self.bypass.is_some();
        if !left && self.sessions.has_links(self.peers.len()) {
            return Vec::new();
        }
        let unwanted = |at: &usize| {
            let is_vacant = now_ms < self.peers[*at].vacant_until_ms;
            (left || !self.sessions.has(Part::Link(*at))) && !is_vacant
        };
        (0..self.peers.len())
            .filter(unwanted)
            .map(|at| self.peers[at].link_id.clone())
            .collect()
    }

    /// One of [`Self::unwanted`] has a session, but is not connected. Each attempt to throw it out leaves something in
    /// the queue of that session, so they become rare.
    pub fn is_vacant(&mut self, link_id: &str, now_ms: u64) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.link_id == link_id) {
            peer.vacant_until_ms = now_ms + VACANT_MS;
        }
    }

    /// One of [`Self::unwanted`] was connected, and is no more.
    pub fn intruded(&mut self) {
        self.leave_mesh(Bypass::Login);
    }
}
