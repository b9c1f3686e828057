//! Every decision of the plugin, as plain values: no pointer is followed, no clock read, nothing sent.
//!
//! The broker tells what happens, in the order in which it happens, and this module answers. Its state is who
//! is logged in as a user of the mesh, and where the message came from that is being routed just now.
//!
//! **How a message is known while it is routed.** A message of QoS 0 or 1 is routed inside the call that
//! received it: MESSAGE, then one READ check for each subscriber, with nothing of QoS 0 or 1 in between. So it
//! is enough to remember that the last MESSAGE came over a link, until anything but a READ check happens. The
//! message itself is not compared, and a plugin behind ours may rewrite it. A message of QoS 2 is routed later,
//! at its PUBREL, which raises no event of its own; it is found again by the place where its topic is stored.
//! READ checks for what the broker says by itself (`$SYS`, its log) come at any time, but always at QoS 2 and
//! from topics of their own.
//!
//! What this plugin publishes itself comes in like anything else; see the module `own`.
//!
//! **How a bypass is known.** The broker asks about each publish of a network client right before it tells of
//! the message. A message without that question, or a link with a subscription that nobody asked about, means
//! that another plugin answers in our place; READ checks would not reach us either. So does a link that is
//! connected and never logged in with us, which is found by throwing out whoever should not be there. The broker
//! then leaves the mesh: links are thrown out and stay out, and what its own bridges bring in is dropped.

use std::collections::HashSet;

use mesh_model::BrokerId;
use mesh_model::names::{
    CLIENT_ID_PREFIX, HEALTH_USER, LINK_USER, TOPIC_PREFIX, link_client_id, local_client_id, reader_client_id,
};
use mesh_model::topology::Link;

use crate::counters::LinkCounts;
use crate::options::{Options, Ordinary};
use crate::replication::seen::{Ranges, Seen};
use crate::replication::{Content, Entry, Notice, Now, Replication, Report, report};
use crate::retained::replica::{Replica, Restored};
use crate::retained::sync::{self, Contact};
use crate::stamp::{Hlc, Stamp, is_absurd};

mod held;
mod internal;
mod own;
mod sessions;
mod standstill;
#[cfg(test)]
mod tests;
mod vocabulary;
mod wills;

use held::{Held, HeldMessages};
pub use internal::{Internal, parse as parse_internal};
use own::OwnMessages;
pub use own::Purpose;
use sessions::{Part, Sessions};
pub use vocabulary::{
    Admission, Arrival, Bypass, ClientKey, Handling, Login, Published, Shown, TopicKey, Verdict,
};
pub use wills::Fate;
use wills::Moves;

/// The topic filter with which links fetch all but what is below `$mesh/`.
const ALL: &[u8] = b"#";

/// A peer's clock that is that far from ours is worth a line in the log, in milliseconds.
const CLOCK_OFF_MS: u64 = 60_000;

/// A session of a link without a connection is looked at again after so long, in milliseconds.
const VACANT_MS: u64 = 10_000;

/// Where the message came from that READ checks are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routing {
    /// From here, as far as we know.
    Local,
    /// Over a link, at QoS 0 or 1.
    Remote,
    /// Over a link, at QoS 2: the one whose topic is stored there.
    Released(TopicKey),
    /// At QoS 0 or 1, published here by ourselves, only to be stored; or older than what is known of its topic.
    Hidden,
    /// At QoS 2, and older than what is known of its topic: the one whose topic is stored there.
    Withheld(TopicKey),
    /// At QoS 0 or 1, for the second time, since the broker has stored something older after it. Whoever was there has
    /// seen it.
    Again,
}

#[derive(Debug)]
struct Peer {
    id: BrokerId,
    /// The session of the link that the peer fetches from here, once it has subscribed.
    link: Option<ClientKey>,
    /// It was said that its clock is off.
    clock_off: bool,
    /// The client id of the link that the peer fetches from here.
    link_id: String,
    /// The client id, in this broker, of its own bridge that fetches from the peer.
    bridge_id: String,
    /// That bridge, once it has brought something in, until it is disconnected.
    bridge: Option<ClientKey>,
    /// There is a session with the id of the link, but nobody was connected; until then it is left alone, in
    /// milliseconds since the start.
    vacant_until_ms: u64,
    counts: LinkCounts,
}

/// What a broker still knows from before its start.
#[derive(Default)]
pub struct Memory {
    /// What is retained, and what was.
    pub restored: Restored,
    /// Which messages of others were seen.
    pub seen: Seen,
    /// The greatest epoch of an earlier start.
    pub epoch: u64,
    /// It was away for longer than deletions are remembered.
    pub doubtful: bool,
}

/// The decisions and what they depend on.
pub struct Policy {
    options: Options,
    peers: Vec<Peer>,
    sessions: Sessions,
    routing: Routing,
    /// QoS 2 messages that came over a link and await their PUBREL.
    unreleased: HashSet<TopicKey>,
    /// Those that entered the mesh here.
    held: HeldMessages,
    /// The one of these that is being routed.
    released: Option<TopicKey>,
    /// What the broker has stored with another stamp than it has elsewhere, as it is elsewhere.
    to_store: Vec<Entry>,
    /// Stored messages are being delivered to this client, which subscribes.
    replaying: Option<ClientKey>,
    /// The bridge that brought the last message in, if nothing but READ checks has happened since.
    arriving: Option<ClientKey>,
    /// A peer whose bridge has just brought its first message in; until told.
    opened: Option<usize>,
    /// Who has subscribed since something older is stored than what was shown before.
    late_subscribers: HashSet<ClientKey>,
    /// What we publish ourselves.
    own: OwnMessages,
    /// Whom the last check was about, if it was whether that client may publish.
    writer: Option<ClientKey>,
    bypass: Option<Bypass>,
    /// Until told.
    alarm: Option<Bypass>,
    moves: Moves,
    replication: Replication,
    retained: Replica,
    /// The client id with which this plugin reads what its broker stores.
    reader_id: String,
}

impl Policy {
    /// A broker without clients that starts now.
    pub fn new(options: Options, now: Now) -> Self {
        let peers = options.peers.iter().map(|peer| {
            let (own, peer) = (options.broker_id.clone(), peer.id.clone());
            let outward = Link {
                from: own.clone(),
                to: peer.clone(),
            };
            Peer {
                id: peer.clone(),
                link: None,
                clock_off: false,
                link_id: link_client_id(&outward),
                bridge_id: local_client_id(&Link { from: peer, to: own }),
                bridge: None,
                vacant_until_ms: 0,
                counts: LinkCounts::default(),
            }
        });
        let peers: Vec<Peer> = peers.collect();
        let ids = peers.iter().map(|peer| peer.id.clone()).collect();
        Self {
            replication: Replication::new(options.broker_id.clone(), ids, options.replay, now.wall_ms),
            retained: Replica::new(
                Restored::at(sync::Now::from(now).wall),
                peers.len(),
                options.tombstone_ttl_s,
                false,
                sync::Now::from(now).wall,
            ),
            reader_id: reader_client_id(&options.broker_id),
            held: HeldMessages::new(options.replay),
            released: None,
            to_store: Vec::new(),
            peers,
            options,
            sessions: Sessions::default(),
            routing: Routing::Local,
            unreleased: HashSet::new(),
            replaying: None,
            arriving: None,
            opened: None,
            late_subscribers: HashSet::new(),
            own: OwnMessages::default(),
            writer: None,
            bypass: None,
            alarm: None,
            moves: Moves::default(),
        }
    }

    /// What this broker still knows from before its start. To be told first.
    pub fn remember(&mut self, memory: Memory, now: Now) {
        let Memory {
            restored,
            seen,
            epoch,
            doubtful,
        } = memory;
        self.replication.restore(seen);
        self.replication.begin_after(epoch);
        self.replication.clock().observe(Hlc(restored.newest()));
        let ttl = self.options.tombstone_ttl_s;
        let now = sync::Now::from(now);
        self.retained = Replica::new(restored, self.peers.len(), ttl, doubtful, now.wall).begin(now);
    }

    /// What is retained, here and at peers.
    pub fn retained(&mut self) -> &mut Replica {
        &mut self.retained
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

    /// How many sessions of users of the mesh there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many of this broker's own bridges to peers are known to be connected: those that brought something
    /// in since. Canaries cross each link every second, so this is soon true.
    pub fn bridges(&self) -> usize {
        self.peers.iter().filter(|peer| peer.bridge.is_some()).count()
    }

    /// Why this broker has left the mesh; told once.
    pub fn take_alarm(&mut self) -> Option<Bypass> {
        self.alarm.take()
    }

    /// A client wants to connect, or the broker reloads its configuration and asks about a client again.
    pub fn basic_auth(&mut self, login: &Login<'_>, now: Now) -> Admission {
        self.awake(now);
        self.forget_message();
        // The key may have belonged to somebody else.
        let before = self.sessions.forget(login.client);
        let part = if login.user == Some(LINK_USER.as_bytes()) {
            let ids = self.peers.iter().map(|peer| peer.link_id.as_str());
            match sessions::link(login, &self.options, &self.reader_id, ids) {
                Ok(_) if self.bypass.is_some() => Err("this broker has left the mesh"),
                part => part,
            }
        } else if login.user == Some(HEALTH_USER.as_bytes()) {
            sessions::health(login, &self.options)
        } else if login.id.starts_with(CLIENT_ID_PREFIX.as_bytes()) {
            Err("the client id is reserved for the mesh")
        } else {
            self.client_login(login.client, login.id, now);
            return match self.options.auth {
                Ordinary::Allow => Admission::Accept,
                Ordinary::Defer => Admission::Defer,
            };
        };
        match part {
            Err(reason) => Admission::Refuse(reason),
            Ok(part) => {
                self.sessions.admit(login, part, before);
                Admission::Mesh
            }
        }
    }

    /// The place of a peer whose bridge has brought its first message in since it connected; told once.
    pub fn take_opened(&mut self) -> Option<usize> {
        self.opened.take()
    }

    /// A connection ended. The message is not forgotten: it may be routed on after this.
    ///
    /// Tells the place of a peer if this is its bridge, and it ended while a message of it was being handled. The
    /// broker then stands at the border of a packet, and what has come after it is worth to be salvaged.
    pub fn disconnect(&mut self, client: ClientKey, now: Now) -> Option<usize> {
        self.awake(now);
        self.client_logout(client, now);
        let arriving = self.arriving.take() == Some(client);
        self.sessions.forget(client);
        self.late_subscribers.remove(&client);
        if let Some(peer) = self.peers.iter().position(|peer| peer.link == Some(client)) {
            self.peers[peer].link = None;
            self.replication.link_down(peer);
        }
        let peer = self.peers.iter().position(|peer| peer.bridge == Some(client))?;
        self.peers[peer].bridge = None;
        arriving.then_some(peer)
    }

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

    /// The broker asks whether `client` may receive a message. If it is not the one that has just subscribed, then
    /// what is stored has been delivered to that one. (In between the broker may say something in its log, below
    /// `$SYS`.)
    pub fn delivers(&mut self, client: ClientKey, topic: impl Fn() -> bool) {
        if self.replaying.is_some_and(|subscriber| subscriber != client) && !topic() {
            self.replaying = None;
        }
    }

    /// May `client` receive the message whose topic is stored at `topic`, which was published with `qos`?
    ///
    /// This is asked once a subscriber for every message of the broker, so a user of the mesh is known by its login
    /// alone: `user` is only asked for where somebody else may have taken such a name.
    pub fn read<'a>(
        &mut self,
        client: ClientKey,
        user: impl FnOnce() -> Option<&'a [u8]>,
        topic: TopicKey,
        qos: u8,
    ) -> Verdict {
        let is_hidden = match self.routing {
            Routing::Hidden => qos < 2,
            Routing::Withheld(released) => qos == 2 && released == topic,
            Routing::Again => qos < 2 && !self.late_subscribers.contains(&client),
            Routing::Local | Routing::Remote | Routing::Released(_) => false,
        };
        if is_hidden {
            return Verdict::Refuse;
        }
        let replaying = self.replaying.is_some();
        if qos == 2 && !replaying && !self.unreleased.is_empty() && self.unreleased.remove(&topic) {
            self.routing = Routing::Released(topic);
        }
        let peer = match self.sessions.logged_in(client) {
            None => return stranger(&self.options, user()),
            Some(Part::Health) => return Verdict::Accept,
            // What it did not ask for it would take for something else.
            Some(Part::Reader) if replaying => return Verdict::Accept,
            Some(Part::Reader) => return Verdict::Refuse,
            // A million stored messages at once would silence the broker for seconds. Links get what they lack
            // otherwise, and in pieces.
            Some(Part::Link(_)) if replaying => return Verdict::Refuse,
            Some(Part::Link(peer)) => peer,
        };
        let remote = match self.routing {
            Routing::Local | Routing::Withheld(_) => false,
            Routing::Remote | Routing::Hidden | Routing::Again => qos < 2,
            Routing::Released(released) => released == topic,
        };
        let counts = &mut self.peers[peer].counts;
        if remote {
            counts.held_back += 1;
            Verdict::Refuse
        } else if self.bypass.is_some()
            || (qos < 2 || self.released == Some(topic)) && !self.replication.route(peer)
        {
            Verdict::Refuse
        } else {
            counts.sent += 1;
            Verdict::Accept
        }
    }

    /// May `client` publish to `topic`? Asked for messages and wills, and (for somebody not on the network)
    /// whether a stored message may still be delivered that its publisher was once allowed to send.
    pub fn write(&mut self, client: ClientKey, user: Option<&[u8]>, network: bool, topic: &[u8]) -> Verdict {
        if network || self.replaying.is_none() {
            self.asked_to_publish(client);
        }
        self.moves.writer = network.then_some(client);
        // What is stored is read as it is: whether its publisher may still publish is asked by who gets it in the end.
        let reading = || {
            self.replaying
                .is_some_and(|reader| self.sessions.is(reader, Part::Reader))
        };
        if !network && (is_mesh_user(user) || reading()) {
            return Verdict::Accept;
        }
        let reserved = topic.starts_with(TOPIC_PREFIX.as_bytes());
        match self.sessions.part(client, user) {
            Some(Part::Reader) if network => Verdict::Accept,
            Some(Part::Health) if reserved && internal::parse(topic).is_none() => Verdict::Accept,
            Some(_) => Verdict::Refuse,
            None if reserved => Verdict::Refuse,
            None => stranger(&self.options, user),
        }
    }

    /// We are asked whether `client` may publish, whatever the answer will be.
    pub fn asked_to_publish(&mut self, client: ClientKey) {
        self.forget_message();
        self.writer = Some(client);
    }

    /// May `client` subscribe with this topic filter?
    pub fn subscribe(&mut self, client: ClientKey, user: Option<&[u8]>, filter: &[u8]) -> Verdict {
        self.sessions.asked(client);
        let verdict = self.other_access(client, user);
        if let Some(Part::Link(peer)) = self.sessions.part(client, user)
            && filter == ALL
        {
            self.peers[peer].link = Some(client);
            if !self.is_linked() {
                self.log_held();
            }
            self.replication.link_up(peer);
            self.moves.newcomers.push(peer);
        }
        if self.retained.is_set_back() {
            self.late_subscribers.insert(client);
        }
        self.replaying = Some(client);
        verdict
    }

    /// May `client` do anything else that the broker asks about, such as unsubscribe?
    pub fn other_access(&mut self, client: ClientKey, user: Option<&[u8]>) -> Verdict {
        self.forget_message();
        match self.sessions.part(client, user) {
            Some(_) => Verdict::Accept,
            None => stranger(&self.options, user),
        }
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

    fn handling_of_local(&self, message: &Published<'_>) -> Handling {
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
    fn log_held(&mut self) {
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
    fn is_linked(&self) -> bool {
        (0..self.peers.len()).any(|peer| self.replication.is_up(peer))
    }

    /// A message came over the link from `peer`, with this stamp.
    pub fn arrive(
        &mut self,
        peer: Option<usize>,
        stamp: Option<Stamp>,
        content: &Content<'_>,
        now: Now,
    ) -> Arrival {
        let stamp = stamp.filter(|stamp| self.replication.is_believed(stamp, now));
        if let Some(stamp) = &stamp {
            self.heard(stamp.time, now);
        }
        let mut nobody = LinkCounts::default();
        let counts = peer.map_or(&mut nobody, |peer| &mut self.peers[peer].counts);
        counts.received += 1;
        let Some(stamp) = stamp else {
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
                let off = report.wall_ms.abs_diff(now.wall_ms);
                let before = std::mem::replace(&mut self.peers[peer].clock_off, off > CLOCK_OFF_MS);
                (off > CLOCK_OFF_MS && !before).then(|| report.wall_ms as i64 - now.wall_ms as i64)
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

    /// The boot of this broker.
    pub fn epoch(&self) -> u64 {
        self.replication.epoch()
    }

    /// The state of what is kept for peers.
    pub fn replication(&mut self) -> &mut Replication {
        &mut self.replication
    }

    /// What is to be said of what is kept for a peer; each once.
    pub fn take_notice(&mut self) -> Option<(usize, Notice)> {
        self.replication.take_notice()
    }

    /// The broker's loop has turned.
    pub fn turn(&mut self) {
        self.forget_message();
        self.moves.reloading = false;
    }

    /// What the broker has stored with another stamp than it has elsewhere is to be stored anew, unless something newer
    /// is known. Else it would come back as a newer value after the next start.
    pub fn store_anew(&mut self) {
        for entry in std::mem::take(&mut self.to_store) {
            if let Some(message) = entry.publish() {
                self.publish_own(&message, Purpose::Store(entry.stamp.clone()));
            }
        }
    }

    /// Whether something waits for [`Self::tick`] and what follows it: the loop may stand still for a while after this
    /// turn.
    pub fn is_waiting(&self) -> bool {
        let replication = &self.replication;
        !self.to_store.is_empty()
            || !self.own.is_idle()
            || !self.moves.newcomers.is_empty()
            || self.moves.presence.is_waiting()
            || !self.moves.words.is_empty()
            || self.retained.is_busy()
            || (0..self.peers.len()).any(|peer| replication.is_up(peer) && !replication.is_live(peer))
    }

    /// The broker's loop has turned, and some time has passed. `subscriptions` tells how many a client has.
    pub fn tick(&mut self, now: Now, subscriptions: impl Fn(ClientKey) -> Option<usize>) {
        self.turn();
        self.awake(now);
        self.ask_about_moves(now);
        for seq in self.held.give_up(now.up_ms) {
            self.replication.void(seq);
        }
        self.replication.tick(now);
        let contacts: Vec<_> = (0..self.peers.len()).map(|peer| self.contact(peer)).collect();
        self.retained
            .set_storing(!self.own.is_idle() || !self.to_store.is_empty());
        self.retained.tick(now.into(), &contacts);
        if !self.retained.is_set_back() {
            self.late_subscribers.clear();
        }
        // A deletion by a clock that is ahead of this one must not beat what clients here set after it.
        let ended = Hlc(self.retained.latest_ended());
        if !is_absurd(ended, now.wall_ms) {
            self.replication.clock().observe(ended);
        }
        if self.bypass.is_none() && self.sessions.any_unasked(subscriptions) {
            self.leave_mesh(Bypass::Subscribe);
        }
    }

    fn contact(&self, peer: usize) -> Contact {
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

    fn leave_mesh(&mut self, why: Bypass) {
        if self.bypass.is_none() {
            self.bypass = Some(why);
            self.alarm = Some(why);
        }
    }

    /// What is routed next is not what the last MESSAGE was about.
    fn forget_message(&mut self) {
        self.routing = Routing::Local;
        self.replaying = None;
        self.writer = None;
        self.moves.writer = None;
        self.arriving = None;
        self.released = None;
        self.replication.forget_current();
    }
}

/// The answer to an access of somebody who is not logged in as a user of the mesh. Who has the name of one was
/// let in by somebody else, and gets nothing.
pub fn stranger(options: &Options, user: Option<&[u8]>) -> Verdict {
    if is_mesh_user(user) {
        return Verdict::Refuse;
    }
    match options.acl {
        Ordinary::Allow => Verdict::Accept,
        Ordinary::Defer => Verdict::Defer,
    }
}

/// Whether `user` is a name that the mesh keeps for itself.
pub fn is_mesh_user(user: Option<&[u8]>) -> bool {
    user.is_some_and(|user| user == LINK_USER.as_bytes() || user == HEALTH_USER.as_bytes())
}
