//! Messages: of clients, which get their stamp here, of peers, and what a broken link has left unread.

use std::ffi::c_int;

use super::{Plugin, tell};
use crate::ffi::socket::Socket;
use crate::ffi::{Client, Level, Message, abi, log};
use crate::message::{Property, Publish, encode};
use crate::policy::{self, Arrival, Handling, Internal, Published, Purpose};
use crate::replication::{Content, Now};
use crate::salvage;
use crate::stamp::{STAMP_PROPERTY, Stamp};

impl Plugin {
    /// MESSAGE.
    pub(crate) fn message(&self, message: &mut Message<'_>) -> c_int {
        #[cfg(feature = "panic-on-demand")]
        assert!(message.topic() != b"mesh-test/panic", "panic on demand");
        let client = message.client;
        let published = Published {
            client: client.key(),
            id: client.id().unwrap_or_default(),
            user: client.user(),
            network: client.is_network(),
            topic: message.topic_key,
            name: message.topic(),
            length: message.payload().len(),
            qos: message.qos,
            retain: message.retain,
        };
        let mut policy = self.policy.borrow_mut();
        let handling = policy.message(&published);
        let opened = policy.take_opened();
        let alarm = policy.take_alarm();
        drop(policy);
        tell(alarm);
        if let Some(peer) = opened {
            self.find_socket(peer);
        }
        match handling {
            Handling::Pass => abi::SUCCESS,
            Handling::Refuse => abi::ERR_ACL_DENIED,
            Handling::Stamp => self.stamp(&published, message),
            Handling::Arrive(peer) => self.arrive(peer, message),
        }
    }

    /// A message enters the mesh here.
    fn stamp(&self, published: &Published<'_>, message: &mut Message<'_>) -> c_int {
        let now = self.now();
        let Some(stamp) = self.policy.borrow_mut().stamp(published, now) else {
            message.set_retain(false);
            return abi::SUCCESS;
        };
        let mut text = self.stamp_text.borrow_mut();
        text.clear();
        stamp.write(&mut text);
        let mut properties = self.properties.borrow_mut();
        properties.clear();
        for property in message.properties() {
            encode(property, &mut properties);
        }
        encode(Property::User(STAMP_PROPERTY, &text), &mut properties);
        if let Err(code) = message.append(c"mesh", &mut text) {
            log(Level::Error, &format!("cannot stamp a message: error {code}"));
        }
        let content = Content {
            topic: message.topic(),
            payload: message.payload(),
            properties: &properties,
        };
        self.policy
            .borrow_mut()
            .publish(message.topic_key, stamp, &content, now);
        abi::SUCCESS
    }

    /// A message came over a link.
    fn arrive(&self, peer: Option<usize>, message: &mut Message<'_>) -> c_int {
        if let Some(topic) = policy::parse_internal(message.topic()) {
            self.told(peer, &topic, message.payload(), self.now());
            return abi::ERR_ACL_DENIED;
        }
        let mut properties = self.properties.borrow_mut();
        properties.clear();
        let mut stamp = None;
        for property in message.properties() {
            encode(property, &mut properties);
            stamp = stamp_in(property).or(stamp);
        }
        let content = Content {
            topic: message.topic(),
            payload: message.payload(),
            properties: &properties,
        };
        // Most that comes has none: then nobody looks at a clock for it.
        let stamped = stamp.and_then(Stamp::parse).map(|stamp| (stamp, self.now()));
        let arrival = self.policy.borrow_mut().arrive(peer, stamped, &content);
        match arrival {
            Arrival::New(retain) => {
                if let Some(retain) = retain {
                    message.set_retain(retain);
                }
                abi::SUCCESS
            }
            Arrival::Duplicate | Arrival::Stale => abi::ERR_ACL_DENIED,
        }
    }

    /// A peer's plugin says something to this one.
    fn told(&self, peer: Option<usize>, topic: &Internal<'_>, payload: &[u8], now: Now) {
        let Some(peer) = peer else {
            return;
        };
        let watch = self.watch();
        let clock_off = self.policy.borrow_mut().told(peer, topic, payload, now);
        self.stop(watch, topic.about.name());
        if let Some(off_ms) = clock_off {
            let (id, seconds) = (&self.options.peers[peer].id, off_ms.abs() / 1000);
            let which = if off_ms > 0 { "ahead of" } else { "behind" };
            log(
                Level::Warning,
                &format!("the clock of {id} is {seconds} s {which} the one here; set both by NTP"),
            );
        }
    }

    /// MESSAGE, after a panic: nothing is known of the message, so nothing that may come from a link is routed.
    pub(crate) fn message_failed(&self, client: Client<'_>) -> c_int {
        if policy::is_mesh_user(client.user()) {
            abi::ERR_ACL_DENIED
        } else {
            abi::SUCCESS
        }
    }

    /// DISCONNECT.
    pub(crate) fn disconnect(&self, client: Client<'_>) -> c_int {
        self.ended.set(true);
        let broken = self.policy.borrow_mut().disconnect(client.key(), self.now());
        if let Some(peer) = broken {
            self.take_unread(peer);
        }
        abi::SUCCESS
    }

    fn find_socket(&self, peer: usize) {
        if self.salvages {
            let socket = Socket::connected_to(self.options.peers[peer].address);
            self.sockets.borrow_mut()[peer] = socket;
        }
    }

    /// Takes what the link from a peer has left unread out of its socket, which is closed when this returns.
    fn take_unread(&self, peer: usize) {
        if let Some(socket) = self.sockets.borrow_mut()[peer].take() {
            self.salvage(peer, &socket.drain(salvage::MOST));
        }
    }

    /// Has published what a broken link has left unread, but for what plugins say to each other.
    fn salvage(&self, peer: usize, bytes: &[u8]) {
        let now = self.now();
        let mut count = 0;
        for message in salvage::parse(bytes) {
            if let Some(topic) = policy::parse_internal(message.topic.as_bytes()) {
                self.told(Some(peer), &topic, message.payload, now);
            } else {
                let message = Publish {
                    qos: message.qos.min(1),
                    ..message
                };
                self.policy
                    .borrow_mut()
                    .publish_own(&message, Purpose::Salvaged(peer));
                count += 1;
            }
        }
        if count > 0 {
            let peer = &self.options.peers[peer].id;
            log(
                Level::Notice,
                &format!("the link from {peer} broke; salvaged {count} messages of {peer}"),
            );
        }
    }
}

/// The stamp that a property is, if it is one.
fn stamp_in(property: Property<'_>) -> Option<&str> {
    match property {
        Property::User(STAMP_PROPERTY, value) => Some(value),
        _ => None,
    }
}
