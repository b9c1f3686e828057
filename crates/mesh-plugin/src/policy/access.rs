//! Who may do what: answers to the broker's questions, which it asks before it does anything for a client.

use mesh_model::names::{CLIENT_ID_PREFIX, HEALTH_USER, LINK_USER, TOPIC_PREFIX};

use super::sessions::{self, Part};
use super::{Admission, ClientKey, Login, Policy, Routing, TopicKey, Verdict, internal};
use crate::options::{Options, Ordinary};
use crate::replication::Now;

/// The topic filter with which links fetch all but what is below `$mesh/`.
const ALL: &[u8] = b"#";

impl Policy {
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
