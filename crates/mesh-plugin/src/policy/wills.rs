//! What becomes of wills, and of sessions of clients that have moved.
//!
//! The broker publishes a will without MESSAGE: it asks whether a client may WRITE that has no session any more. If
//! this broker may be sure that the client has not moved, the will takes its course, but what goes to links is a copy
//! with a stamp; links are asked about right after. Else it is held (see [`crate::wills`]).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::sessions::Part;
use super::{ClientKey, Policy, Purpose, TopicKey};
use crate::message::{Property, Publish, encode};
use crate::options::Ordinary;
use crate::presence::{Presence, Session};
use crate::replication::{Content, Now};
use crate::stamp::{Hlc, STAMP_PROPERTY, is_absurd};
use crate::standstill::{Standstill, Word};
use crate::wills::{Company, HEARD_MS, Will, Wills};

/// So many pairs of client and topic are remembered.
const MOST_WRITERS: usize = 100_000;

/// Clients, their moves and their wills.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) presence: Presence,
    pub(super) standstill: Standstill,
    /// What peers are to be told about standstills, after what they are to be told of clients.
    pub(super) words: Vec<(usize, Word)>,
    /// The broker reads its configuration again, and asks about every session that it has.
    pub(super) reloading: bool,
    wills: Wills,
    /// As things stood last, a will is simply published.
    steady: bool,
    /// The session whose connection ended last.
    departed: Option<(ClientKey, Session)>,
    /// Whom the last check was about, if it was whether a client from the network may publish.
    pub(super) writer: Option<ClientKey>,
    /// Who has published where, if that is somebody else's decision. As hashes.
    writers: HashSet<u64>,
    /// Links that have come since peers were told of clients.
    pub(super) newcomers: Vec<usize>,
}

/// What becomes of a message that a client may WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The broker goes on.
    Pass,
    /// It is a will, and nobody shall see it: its client has connected elsewhere.
    Drop,
    /// It is a will, and is held.
    Hold,
}

impl Policy {
    /// The broker reads its configuration again. Until the next TICK it asks about every session as if its client had
    /// come, also about those whose client is away, and maybe at another broker.
    pub fn reload(&mut self) {
        self.moves.reloading = true;
    }

    /// An ordinary client has logged in, whatever others will say.
    pub(super) fn client_login(&mut self, client: ClientKey, id: &[u8], now: Now) {
        if self.moves.reloading {
            return;
        }
        let clock = self.replication.clock();
        self.moves.presence.login(client, id, || clock.next(now.wall_ms));
    }

    /// How many ordinary clients are connected.
    pub fn clients(&self) -> usize {
        self.moves.presence.connected()
    }

    /// A connection has ended.
    pub(super) fn client_logout(&mut self, client: ClientKey, now: Now) {
        self.look(now);
        let departed = self.moves.presence.logout(client);
        self.moves.departed = departed.map(|session| (client, session));
    }

    /// An ordinary client has published to `topic`, and nobody was against it.
    pub(super) fn client_published(&mut self, id: &[u8], topic: &[u8]) {
        if self.options.acl == Ordinary::Defer {
            let writers = &mut self.moves.writers;
            if writers.len() == MOST_WRITERS {
                writers.clear();
            }
            writers.insert(pair(id, topic));
        }
    }

    /// What becomes of what `client` is about to publish, which came over the network. If it is a will that is not
    /// simply published, it is taken from `content`.
    pub fn fate(
        &mut self,
        client: ClientKey,
        id: &[u8],
        (qos, retain): (u8, bool),
        content: &Content<'_>,
        now: Now,
    ) -> Fate {
        if self.moves.presence.is_connected(client) || self.sessions.contains(client) {
            return Fate::Pass;
        }
        // Of a delayed will the session is forgotten.
        let session = match &self.moves.departed {
            Some((departed, session)) if *departed == client => session.clone(),
            _ => Session {
                id: id.into(),
                since: Hlc::default(),
            },
        };
        if self.moves.presence.has_moved(&session.id, session.since) {
            return Fate::Drop;
        }
        if self.moves.steady {
            return Fate::Pass;
        }
        let will = Will {
            id: session.id,
            since: session.since,
            topic: content.topic.into(),
            payload: content.payload.into(),
            qos,
            retain,
        };
        if self.moves.wills.hold(will, now.up_ms) {
            Fate::Hold
        } else {
            Fate::Drop
        }
    }

    /// Whether [`Self::fate`] must be asked.
    pub fn may_withhold(&self) -> bool {
        !self.moves.steady || self.moves.presence.any_moved()
    }

    fn look(&mut self, now: Now) {
        self.moves.wills.looked(now.up_ms);
        self.moves.steady = self.moves.wills.is_steady(self.company(now), now.up_ms);
    }

    fn company(&self, now: Now) -> Company {
        Company::of(self.replication.heard(HEARD_MS, now), self.peers.len())
    }

    /// Whether what is routed next may be a will.
    pub fn awaits_will(&self) -> bool {
        self.moves.writer.is_some()
    }

    /// A link is about to be asked about a message, and only a will comes without MESSAGE. It gets a stamp, and links
    /// get it from the log.
    pub fn will_routed(
        &mut self,
        (reader, user): (ClientKey, Option<&[u8]>),
        topic: TopicKey,
        (qos, retain): (u8, bool),
        content: &Content<'_>,
        now: Now,
    ) {
        let link = matches!(self.sessions.part(reader, user), Some(Part::Link(_)));
        let stamped = (qos > 0 || retain) && content.topic.first() != Some(&b'$');
        if !link || !stamped || self.released == Some(topic) || self.unreleased.contains(&topic) {
            return;
        }
        self.moves.writer = None;
        self.enter(qos, retain, content, now);
        self.released = Some(topic);
    }

    /// A message without MESSAGE enters the mesh here. Links get it as it stands in the log.
    fn enter(&mut self, qos: u8, retain: bool, content: &Content<'_>, now: Now) {
        let stamp = self.replication.stamp(retain, qos, now);
        if retain {
            self.retained.local(content.topic, &stamp, content.payload);
        }
        let mut properties = content.properties.to_vec();
        encode(
            Property::User(STAMP_PROPERTY, &stamp.to_string()),
            &mut properties,
        );
        let content = Content {
            properties: &properties,
            ..*content
        };
        let entry = self.replication.entry(stamp, &content, now);
        if retain && !content.payload.is_empty() {
            self.to_store.push(entry.copy());
        }
        self.replication.release(&entry, true);
    }

    /// Publishes the wills that need not be held any longer, and whose clients have not moved. Returns of how many
    /// nobody can tell any more whether their clients may publish them.
    pub fn execute_wills(&mut self, now: Now) -> usize {
        self.look(now);
        let company = self.company(now);
        let mut unproven = 0;
        for will in self.moves.wills.due(company, now.up_ms) {
            if self.options.acl == Ordinary::Defer
                && !self.moves.writers.contains(&pair(&will.id, &will.topic))
            {
                unproven += 1;
                continue;
            }
            let Ok(topic) = str::from_utf8(&will.topic) else {
                continue;
            };
            let message = Publish {
                topic,
                payload: &will.payload,
                qos: will.qos.min(1),
                retain: will.retain,
                properties: Vec::new(),
            };
            self.publish_own(&message, Purpose::Will(will.id.clone(), will.since));
        }
        unproven
    }

    /// What peers are to be told of clients here: a peer and a message each.
    pub fn announcements(&mut self) -> Vec<(usize, Vec<u8>)> {
        let news = self.moves.presence.turn();
        if news.is_empty() && self.moves.newcomers.is_empty() && self.moves.words.is_empty() {
            return Vec::new();
        }
        let newcomers = std::mem::take(&mut self.moves.newcomers);
        let mut messages = Vec::new();
        for peer in (0..self.peers.len()).filter(|peer| self.replication.is_up(*peer)) {
            let of_peer = if newcomers.contains(&peer) {
                self.moves.presence.all_recent()
            } else {
                news.clone()
            };
            messages.extend(of_peer.into_iter().map(|message| (peer, message)));
        }
        // Behind what was known when a question came.
        let words = std::mem::take(&mut self.moves.words);
        messages.extend(words.into_iter().map(|(peer, word)| (peer, word.encode())));
        messages
    }

    /// A peer has told of clients that have connected to it, or asks about that.
    pub(super) fn clients_told(&mut self, peer: usize, message: &[u8], now: Now) {
        match Word::decode(message) {
            Some(Word::Ask(question)) => return self.moves.words.push((peer, Word::Answer(question))),
            Some(Word::Answer(question)) => return self.moves.standstill.answered(peer, question),
            None => {}
        }
        let clock = self.replication.clock();
        let wall_ms = now.wall_ms.max(clock.last().ms());
        let standstill = &mut self.moves.standstill;
        self.moves.presence.told(message, |since| {
            let believed = !is_absurd(since, wall_ms);
            if believed {
                standstill.heard(since, now, clock);
                clock.observe(since);
            }
            believed
        });
    }

    /// The clients whose sessions here are to be ended without their wills.
    pub fn outdated_clients(&mut self) -> Vec<Rc<[u8]>> {
        self.moves.presence.take_outdated().collect()
    }
}

fn pair(id: &[u8], topic: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id, topic).hash(&mut hasher);
    hasher.finish()
}
