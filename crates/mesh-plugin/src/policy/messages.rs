//! What becomes of a message: where it comes from, and what the links get of it.

use mesh_model::names::LINK_USER;

use super::held::Held;
use super::sessions::Part;
use super::{Arrival, Bypass, Handling, Peer, Policy, Published, Routing, Shown, TopicKey};
use crate::counters::LinkCounts;
use crate::replication::{Content, Entry, Now};
use crate::stamp::Stamp;

impl Policy {
    /// A message of QoS 2 is being routed, or was stored. If it is one that entered here, it was just released.
    pub fn released(&mut self, topic: TopicKey, shown: &Shown<'_>) {
        if self.replaying.is_some() || self.held.is_empty() {
            return;
        }
        let Some(Held { entry, void, logged }) = self.held.release(topic, shown) else {
            return;
        };
        self.replication.forget_current();
        self.released = Some(topic);
        let content = entry.content();
        // It stands in the log already, and counts; but for one that was taken for one that is not stored.
        if logged && !self.retained.came(content.topic, &entry.stamp, content.payload) {
            return;
        }
        // What has come between must not win over it elsewhere if it does not here.
        let late =
            void || logged || entry.stamp.retain && !self.retained.is_newest(content.topic, &entry.stamp);
        let entry = if late {
            let Some(again) = self.released_late(&entry) else {
                return self.released_too_late(topic, &entry, void);
            };
            again
        } else {
            entry
        };
        if entry.stamp.retain {
            let content = entry.content();
            self.retained.local(content.topic, &entry.stamp, content.payload);
            if late {
                self.to_store.push(entry.copy());
            }
        }
        self.replication.release(&entry, late);
    }

    /// A message was published. It is routed next, unless it is refused or has QoS 2.
    pub fn message(&mut self, message: &Published<'_>) -> Handling {
        let asked = self.writer == Some(message.client);
        self.forget_message();
        if !self.unreleased.is_empty() {
            self.unreleased.remove(&message.topic);
        }
        if !self.held.is_empty()
            && let Some(gone) = self.held.remove(message.topic)
        {
            // Its place is used again, so it is gone. Without links nobody was asked about it if it was released.
            if gone.logged {
                let content = gone.entry.content();
                self.retained
                    .came(content.topic, &gone.entry.stamp, content.payload);
            } else if self.is_linked() {
                self.replication.void(gone.entry.stamp.seq);
            } else {
                self.log_unseen(gone.entry);
            }
        }
        if !asked {
            // Nobody is asked about what a bridge of this broker brings in; about everybody else we had to be.
            let peer = self.bridge(message);
            let bridge =
                message.user == Some(LINK_USER.as_bytes()) && !self.sessions.contains(message.client);
            if bridge && (peer.is_some() || !message.network) {
                return self.message_from_link(peer, message);
            }
            if message.network {
                self.leave_mesh(Bypass::Publish);
            }
        }
        if asked && self.sessions.is(message.client, Part::Reader) {
            return self.message_of_own(message);
        }
        if asked && self.moves.presence.is_outdated(message.id) {
            return Handling::Refuse;
        }
        if asked {
            self.client_published(message.id, message.name);
        }
        self.handling_of_local(message)
    }

    pub(super) fn handling_of_local(&self, message: &Published<'_>) -> Handling {
        let reserved = message.name.first() == Some(&b'$');
        let wanted = self.options.stamps && (message.qos > 0 || message.retain);
        let stamped = wanted && !reserved && self.bypass.is_none();
        if stamped { Handling::Stamp } else { Handling::Pass }
    }

    /// The place of the peer whose bridge publishes this.
    fn bridge(&self, message: &Published<'_>) -> Option<usize> {
        let is = |peer: &Peer| peer.bridge_id.as_bytes() == message.id;
        // Most likely one that has brought something in before.
        let known = self
            .peers
            .iter()
            .position(|peer| peer.bridge == Some(message.client));
        known
            .filter(|at| is(&self.peers[*at]))
            .or_else(|| self.peers.iter().position(is))
    }

    fn message_from_link(&mut self, peer: Option<usize>, message: &Published<'_>) -> Handling {
        if let Some(peer) = peer
            && self.peers[peer].bridge.replace(message.client) != Some(message.client)
        {
            self.opened = Some(peer);
        }
        if self.bypass.is_some() {
            return Handling::Refuse;
        }
        if peer.is_some() {
            self.arriving = Some(message.client);
        }
        if message.qos < 2 {
            self.routing = Routing::Remote;
        } else {
            self.unreleased.insert(message.topic);
        }
        Handling::Arrive(peer)
    }

    /// That message, stamped, is routed next, unless it has QoS 2.
    pub fn publish(&mut self, topic: TopicKey, stamp: Stamp, content: &Content<'_>, now: Now) {
        if stamp.qos == 2 {
            self.held.hold(topic, self.replication.entry(stamp, content, now));
            return;
        }
        if stamp.retain {
            self.retained.local(content.topic, &stamp, content.payload);
        }
        self.replication.publish(stamp, content, now);
    }

    /// Without links nobody is asked about a message that is released. So those that are held may have been, and are
    /// sent to links that come: a receiver may pass a message on before it is released.
    pub(super) fn log_held(&mut self) {
        let unlogged = self.held.unlogged().map(|held| {
            held.logged = true;
            held.entry.copy()
        });
        let unlogged: Vec<Entry> = unlogged.collect();
        for entry in unlogged {
            if entry.stamp.retain {
                let content = entry.content();
                self.retained.awaits(content.topic, &entry.stamp, content.payload);
            }
            self.log_unseen(entry);
        }
    }

    fn log_unseen(&mut self, entry: Entry) {
        if entry.stamp.retain {
            let content = entry.content();
            self.retained.local(content.topic, &entry.stamp, content.payload);
        }
        self.replication.release(&entry, false);
        self.replication.forget_current();
    }

    /// Whether any peer fetches from here.
    pub(super) fn is_linked(&self) -> bool {
        (0..self.peers.len()).any(|peer| self.replication.is_up(peer))
    }

    /// A message came over the link from `peer`: with this stamp, and now.
    pub fn arrive(
        &mut self,
        peer: Option<usize>,
        stamped: Option<(Stamp, Now)>,
        content: &Content<'_>,
    ) -> Arrival {
        let stamped = stamped.filter(|(stamp, now)| self.replication.is_believed(stamp, *now));
        if let Some((stamp, now)) = &stamped {
            self.heard(stamp.time, *now);
        }
        let mut nobody = LinkCounts::default();
        let counts = peer.map_or(&mut nobody, |peer| &mut self.peers[peer].counts);
        counts.received += 1;
        let Some((stamp, now)) = stamped else {
            return Arrival::New(None);
        };
        if !self.replication.arrived(&stamp) {
            counts.duplicates_dropped += 1;
            return Arrival::Duplicate;
        }
        let retain = stamp.retain;
        let is_back = retain && self.retained.is_missing(content.topic, &stamp, content.payload);
        if retain && !self.retained.offer(content.topic, &stamp, content.payload) {
            counts.stale_dropped += 1;
            return Arrival::Stale;
        }
        // What is missing comes at QoS 1 at most.
        if is_back && self.routing == Routing::Remote {
            self.routing = Routing::Again;
        }
        if stamp.requested {
            peer.into_iter().for_each(|peer| self.retained.answered(peer));
        } else {
            self.replication.keep(stamp, content, now);
        }
        Arrival::New(Some(retain))
    }
}
