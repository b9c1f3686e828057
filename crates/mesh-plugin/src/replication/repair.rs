//! Repair: what a peer tells that it has seen, and what is sent to it again because of that.

use super::links::Link;
use super::replay::{Send, WINDOW};
use super::seen::Ranges;
use super::{Now, Replication, Report};

/// So many repaired messages may be on their way to a peer. It becomes less while the broker drops them, and more
/// while they arrive.
pub(super) const REPAIRS: usize = 1_024;
const LEAST_REPAIRS: usize = 8;

/// A message is not repaired more often than that.
const REPAIR_AGAIN_MS: u64 = 5_000;

/// A message with a gap before it may have overtaken what is missing; after that time it has not.
const OVERTAKEN_MS: u64 = 1_000;

/// A peer that gets no further for so long gets what it lacks again.
const GRACE_MS: u64 = 3_000;

/// For messages of others each broker waits that much longer than the one before it, so that not all help at once.
const GRACE_STEP_MS: u64 = 1_000;

impl Replication {
    /// `peer` has told what it has seen.
    pub fn reported(&mut self, at: usize, report: &Report, now: Now) {
        if let Some(numbers) = self.seen.of_mut(&self.ids[at], report.epoch)
            && !report.void.is_empty()
        {
            numbers.insert_all(&report.void);
            self.news = true;
        }
        let peer = &mut self.peers[at];
        peer.heard(now.up_ms);
        for (origin, epoch, numbers) in &report.seen {
            peer.told(origin, *epoch, numbers, now.up_ms);
        }
        let own = peer.seen.of(&self.me, self.epoch);
        self.own
            .seen_by(at, |stamp| own.is_some_and(|numbers| numbers.contains(stamp.seq)));
        let seen = &peer.seen;
        self.foreign
            .seen_by(at, |stamp| seen.contains(&stamp.origin, stamp.epoch, stamp.seq));
        if let Some(numbers) = peer.seen.of(&self.me, self.epoch) {
            peer.evicted.remove_all(numbers);
            peer.gone.remove_all(numbers);
            // Messages keep their order on a link: with a later one there, these do not come any more.
            let gone = peer.evicted.take_below(numbers.last().unwrap_or(0));
            peer.lost += gone.count();
            peer.gone.insert_all(&gone);
            for void in &mut self.voids {
                if void.lacking.contains(at) && numbers.contains(void.seq) {
                    void.lacking = void.lacking.without(at);
                }
            }
            self.voids.retain(|void| !void.lacking.is_empty());
        }
        match peer.link {
            Link::Live => self.repair(at, now),
            Link::Replaying { next } => {
                let ahead = self.own.lacked_after(at, next).count();
                peer.unconfirmed = self.own.lacked(at).saturating_sub(ahead);
                let stalled = peer.is_stalled(&self.me, self.epoch, GRACE_MS, now.up_ms);
                if peer.unconfirmed >= WINDOW && stalled {
                    // The broker has dropped them.
                    peer.unconfirmed = 0;
                    peer.link = Link::Replaying { next: 0 };
                }
            }
            Link::Closing | Link::Down => {}
        }
    }

    fn repair(&mut self, at: usize, now: Now) {
        let peer = &mut self.peers[at];
        let mut dropped = false;
        peer.repaired.retain(|(own, position), sent| {
            let log = if *own { &self.own } else { &self.foreign };
            let lacks = log.get(*position).is_some_and(|entry| entry.lacking.contains(at));
            let waits = now.up_ms < *sent + REPAIR_AGAIN_MS;
            dropped |= lacks && !waits;
            lacks && waits
        });
        peer.repairs = if dropped {
            (peer.repairs / 2).max(LEAST_REPAIRS)
        } else if peer.repaired.is_empty() {
            (peer.repairs * 2).clamp(LEAST_REPAIRS, REPAIRS)
        } else {
            peer.repairs
        };
        let mut left = peer.repairs.saturating_sub(peer.repaired.len());
        peer.help();
        for (own, log) in [(true, &self.own), (false, &self.foreign)] {
            let grace = if own {
                GRACE_MS
            } else {
                GRACE_MS + self.rank * GRACE_STEP_MS
            };
            let overtaken = if own { OVERTAKEN_MS } else { grace };
            for (position, entry) in log.lacked_after(at, log.lacked_from(at)) {
                let (stamp, age) = (&entry.stamp, now.up_ms.saturating_sub(entry.at_ms));
                if left == 0 || age < overtaken {
                    // Those behind are younger.
                    break;
                }
                let last = peer.seen.of(&stamp.origin, stamp.epoch).and_then(Ranges::last);
                let gap = last.is_some_and(|last| stamp.seq < last);
                let due =
                    gap || age >= grace && peer.needs_help(&stamp.origin, stamp.epoch, grace, now.up_ms);
                if due && !peer.repaired.contains_key(&(own, position)) {
                    peer.repaired.insert((own, position), now.up_ms);
                    left -= 1;
                    self.outbox.push_back(Send {
                        peer: at,
                        own,
                        position,
                    });
                }
            }
        }
    }
}
