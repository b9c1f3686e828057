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
use mesh_model::names::{link_client_id, local_client_id, reader_client_id};
use mesh_model::topology::Link;

use crate::counters::LinkCounts;
use crate::options::Options;
use crate::replication::seen::Seen;
use crate::replication::{Entry, Now, Replication};
use crate::retained::replica::{Replica, Restored};
use crate::retained::sync;
use crate::stamp::{Hlc, Stamp, is_absurd};

mod access;
mod held;
mod internal;
mod links;
mod messages;
mod own;
mod sessions;
mod standstill;
#[cfg(test)]
mod tests;
mod vocabulary;
mod wills;

pub use access::{is_mesh_user, stranger};
use held::HeldMessages;
pub use internal::{Internal, parse as parse_internal};
use own::OwnMessages;
pub use own::Purpose;
use sessions::Sessions;
pub use vocabulary::{
    Admission, Arrival, Bypass, ClientKey, Handling, Login, Published, Shown, TopicKey, Verdict,
};
pub use wills::Fate;
use wills::Moves;

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
    /// By how many milliseconds its clock was off when that was last said; 0 while it is right.
    clock_off: i64,
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
                clock_off: 0,
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

    /// How many sessions of users of the mesh there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Why this broker has left the mesh; told once.
    pub fn take_alarm(&mut self) -> Option<Bypass> {
        self.alarm.take()
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

    /// The boot of this broker.
    pub fn epoch(&self) -> u64 {
        self.replication.epoch()
    }

    /// The state of what is kept for peers.
    pub fn replication(&mut self) -> &mut Replication {
        &mut self.replication
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
