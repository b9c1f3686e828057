//! What clients had sent to this broker before it stood still, and what has become of it elsewhere; see
//! [`crate::standstill`].

use super::{ClientKey, Entry, Hlc, Now, Policy, Published, Routing, Stamp, TopicKey};

impl Policy {
    /// Something happens now. To be told before anything is made of it.
    pub(super) fn awake(&mut self, now: Now) {
        self.moves.standstill.look(now, self.replication.clock());
    }

    /// Something with this time came over a link.
    pub(super) fn heard(&mut self, time: Hlc, now: Now) {
        self.awake(now);
        self.moves.standstill.heard(time, now, self.replication.clock());
    }

    /// Has peers asked, as long as it is not known which clients have moved.
    pub(super) fn ask_about_moves(&mut self, now: Now) {
        let replication = &self.replication;
        let is_there = |peer| replication.is_up(peer);
        if let Some((peers, word)) = self.moves.standstill.tick(now, self.peers.len(), is_there) {
            self.moves
                .words
                .extend(peers.into_iter().map(|peer| (peer, word)));
        }
    }

    /// The stamp for the message that [`Self::message`] was about. `None` if it is retained and counts as sent before
    /// what is retained already: then it is acknowledged, and neither stored nor shown.
    pub fn stamp(&mut self, message: &Published<'_>, now: Now) -> Option<Stamp> {
        self.awake(now);
        let Some(time) = self.late(message.client) else {
            return Some(self.replication.stamp(message.retain, message.qos, now));
        };
        let stamp = self.replication.stamp_at(time, message.retain, message.qos);
        // Of QoS 2 it is seen when it is released: then its client is there for sure.
        let beaten = message.retain && message.qos < 2 && !self.retained.is_newest(message.name, &stamp);
        if beaten {
            self.replication.take_back();
            self.routing = Routing::Hidden;
        }
        (!beaten).then_some(stamp)
    }

    /// The time that a message of this client counts as sent at, if that is not now.
    fn late(&mut self, client: ClientKey) -> Option<Hlc> {
        if !self.moves.standstill.is_open() || self.sessions.contains(client) {
            return None;
        }
        let since = self.moves.presence.since(client);
        self.moves.standstill.late(since.unwrap_or_default())
    }

    /// A message of QoS 2 is released and needs a new stamp. `None` if something is retained that is later all the same:
    /// the release may have lain in the socket, and whoever sent it publishes with such times too.
    pub(super) fn released_late(&mut self, entry: &Entry) -> Option<Entry> {
        let time = self.moves.standstill.again(entry.stamp.time);
        let again = |time| Stamp {
            time,
            ..entry.stamp.clone()
        };
        let topic = entry.content().topic;
        let beaten = time.is_some_and(|time| !self.retained.is_newest(topic, &again(time)));
        if entry.stamp.retain && beaten {
            return None;
        }
        Some(self.replication.restamp(entry, time))
    }

    /// The broker stores a message of QoS 2 that is older than what is known of its topic. Nobody is shown it, and what
    /// is known is stored again.
    pub(super) fn released_too_late(&mut self, place: TopicKey, entry: &Entry, void: bool) {
        let content = entry.content();
        self.retained
            .stored_older(content.topic, &entry.stamp, content.payload);
        if !void {
            self.replication.void(entry.stamp.seq);
        }
        self.routing = Routing::Withheld(place);
    }
}
