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

use std::collections::HashSet;
use std::fmt;

use mesh_model::names::{
    CLIENT_ID_PREFIX, HEALTH_USER, LINK_USER, TOPIC_PREFIX, link_client_id, local_client_id,
    parse_link_client_id,
};
use mesh_model::topology::Link;

use crate::counters::LinkCounts;
use crate::options::{Options, Ordinary};

#[cfg(test)]
mod tests;

/// Tells a client from every other one that is connected at the same time. A later client may get the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(pub usize);

/// Tells a stored message from every other one that is stored at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicKey(pub usize);

/// The answer to a question of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accept,
    /// No.
    Refuse,
    /// Whoever comes next shall say.
    Defer,
}

/// The answer to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Welcome, as a user of the mesh; to be kept in mind until it disconnects.
    Mesh,
    /// Welcome.
    Accept,
    /// No, and why.
    Refuse(&'static str),
    /// Whoever comes next shall say.
    Defer,
}

/// Why this broker has left the mesh: another plugin answers in our place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// A client published and we were not asked.
    Publish,
    /// A link subscribed and we were not asked.
    Subscribe,
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Publish => "a client published",
            Self::Subscribe => "a link subscribed",
        };
        write!(
            f,
            "{what} without an ACL check of ours: another plugin answers first, messages would circle for ever. \
             This broker has left the mesh until it is restarted. Put the plugin line of mesh-plugin before \
             those of all other plugins and restart the broker"
        )
    }
}

/// A client that wants to connect.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Who.
    pub client: ClientKey,
    /// Its client id.
    pub id: &'a [u8],
    /// Its user name.
    pub user: Option<&'a [u8]>,
    /// Its password.
    pub password: Option<&'a [u8]>,
    /// Whether it wants no earlier session.
    pub clean_session: bool,
}

/// A message that was published.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// By whom.
    pub client: ClientKey,
    /// The client id.
    pub id: &'a [u8],
    /// The user name.
    pub user: Option<&'a [u8]>,
    /// Whether the client came over the network; a bridge that this broker runs did not.
    pub network: bool,
    /// Where its topic is stored.
    pub topic: TopicKey,
    /// The quality of service.
    pub qos: u8,
}

/// The part of a session that logged in as a user of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The link that a peer fetches from here; the peer's place in the options.
    Link(usize),
    Health,
}

impl Part {
    fn user(self) -> &'static [u8] {
        match self {
            Self::Link(_) => LINK_USER.as_bytes(),
            Self::Health => HEALTH_USER.as_bytes(),
        }
    }
}

#[derive(Debug)]
struct Session {
    client: ClientKey,
    part: Part,
    id: String,
    /// A session that is resumed has subscriptions that nobody asks about again.
    clean: bool,
    /// Whether we were ever asked about a subscription of it.
    asked: bool,
}

/// Where the message came from that READ checks are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routing {
    /// From here, as far as we know.
    Local,
    /// Over a link, at QoS 0 or 1.
    Remote,
    /// Over a link, at QoS 2: the one whose topic is stored there.
    Released(TopicKey),
}

/// What a peer's client ids are, in both directions.
#[derive(Debug)]
struct Peer {
    link_id: String,
    local_id: String,
}

/// The decisions and what they depend on.
pub struct Policy {
    options: Options,
    peers: Vec<Peer>,
    sessions: Vec<Session>,
    routing: Routing,
    /// QoS 2 messages that came over a link and await their PUBREL.
    unreleased: HashSet<TopicKey>,
    /// Retained messages are being delivered to a new subscriber.
    replaying: bool,
    /// Who was allowed to publish in the last check.
    writer: Option<ClientKey>,
    counts: Vec<LinkCounts>,
    bypass: Option<Bypass>,
    unsaid: Option<Bypass>,
    unkicked: bool,
}

impl Policy {
    /// A broker without clients.
    pub fn new(options: Options) -> Self {
        let own = &options.broker_id;
        let link = |from: &_, to: &_| Link {
            from: Clone::clone(from),
            to: Clone::clone(to),
        };
        let peers: Vec<Peer> = options
            .peers
            .iter()
            .map(|peer| Peer {
                link_id: link_client_id(&link(own, peer)),
                local_id: local_client_id(&link(peer, own)),
            })
            .collect();
        Self {
            counts: vec![LinkCounts::default(); peers.len()],
            options,
            peers,
            sessions: Vec::new(),
            routing: Routing::Local,
            unreleased: HashSet::new(),
            replaying: false,
            writer: None,
            bypass: None,
            unsaid: None,
            unkicked: false,
        }
    }

    /// The counters of each peer, in the order of the options.
    pub fn counts(&self) -> &[LinkCounts] {
        &self.counts
    }

    /// How many sessions of users of the mesh there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Why this broker has left the mesh; told once.
    pub fn take_alarm(&mut self) -> Option<Bypass> {
        self.unsaid.take()
    }

    /// A client wants to connect, or the broker reloads its configuration and asks about a client again.
    pub fn basic_auth(&mut self, login: &Login<'_>) -> Admission {
        self.forget_message();
        // The key may have belonged to somebody else.
        let before = self.session(login.client).map(|at| self.sessions.swap_remove(at));
        let part = match login.user {
            Some(user) if user == LINK_USER.as_bytes() => self.admit_link(login),
            Some(user) if user == HEALTH_USER.as_bytes() => self.admit_health(login),
            _ if login.id.starts_with(CLIENT_ID_PREFIX.as_bytes()) => {
                return Admission::Refuse("the client id is reserved for the mesh");
            }
            _ => {
                return match self.options.auth {
                    Ordinary::Allow => Admission::Accept,
                    Ordinary::Defer => Admission::Defer,
                };
            }
        };
        match part {
            Err(reason) => Admission::Refuse(reason),
            Ok(part) => {
                self.sessions.push(Session {
                    client: login.client,
                    part,
                    id: String::from_utf8_lossy(login.id).into_owned(),
                    clean: login.clean_session,
                    asked: before.is_some_and(|session| session.part == part && session.asked),
                });
                Admission::Mesh
            }
        }
    }

    fn admit_link(&self, login: &Login<'_>) -> Result<Part, &'static str> {
        if !same_secret(login.password, &self.options.link_password) {
            return Err("wrong password");
        }
        let peer = self
            .peers
            .iter()
            .position(|peer| peer.link_id.as_bytes() == login.id);
        let peer = peer.ok_or("the client id is not that of a link from this broker to one of its peers")?;
        if self.bypass.is_some() {
            return Err("this broker has left the mesh");
        }
        Ok(Part::Link(peer))
    }

    fn admit_health(&self, login: &Login<'_>) -> Result<Part, &'static str> {
        if !same_secret(login.password, &self.options.health_password) {
            return Err("wrong password");
        }
        let id = String::from_utf8_lossy(login.id);
        // With the id of a link it would throw that link out.
        if !id.starts_with(CLIENT_ID_PREFIX) || parse_link_client_id(&id).is_some() {
            return Err("the client id is not one of mesh-health");
        }
        Ok(Part::Health)
    }

    /// A connection ended. The next message is not forgotten here: no message begins or ends with this.
    pub fn disconnect(&mut self, client: ClientKey) {
        if let Some(at) = self.session(client) {
            self.sessions.swap_remove(at);
        }
    }

    /// May `client` receive the message whose topic is stored at `topic`, which was published with `qos`?
    pub fn read(&mut self, client: ClientKey, user: Option<&[u8]>, topic: TopicKey, qos: u8) -> Verdict {
        if qos == 2 && !self.replaying && !self.unreleased.is_empty() && self.unreleased.remove(&topic) {
            self.routing = Routing::Released(topic);
        }
        let part = match self.part(client, user) {
            Err(verdict) => return verdict,
            Ok(part) => part,
        };
        let Part::Link(peer) = part else {
            return Verdict::Accept;
        };
        let remote = match self.routing {
            Routing::Local => false,
            Routing::Remote => qos < 2,
            Routing::Released(released) => released == topic,
        };
        if remote {
            self.counts[peer].held_back += 1;
            Verdict::Refuse
        } else if self.bypass.is_some() {
            Verdict::Refuse
        } else {
            self.counts[peer].sent += 1;
            Verdict::Accept
        }
    }

    /// May `client` publish to `topic`? Asked for messages and wills, and (for somebody not on the network)
    /// whether a stored message may still be delivered that its publisher was once allowed to send.
    pub fn write(&mut self, client: ClientKey, user: Option<&[u8]>, network: bool, topic: &[u8]) -> Verdict {
        self.forget_message();
        if !network && is_mesh_user(user) {
            return Verdict::Accept;
        }
        self.writer = Some(client);
        let reserved = topic.starts_with(TOPIC_PREFIX.as_bytes());
        match self.part(client, user) {
            Ok(Part::Health) if reserved => Verdict::Accept,
            Ok(_) => Verdict::Refuse,
            Err(_) if reserved => Verdict::Refuse,
            Err(verdict) => verdict,
        }
    }

    /// May `client` subscribe?
    pub fn subscribe(&mut self, client: ClientKey, user: Option<&[u8]>) -> Verdict {
        self.forget_message();
        self.replaying = true;
        if let Some(at) = self.session(client) {
            self.sessions[at].asked = true;
        }
        self.part(client, user)
            .map_or_else(|verdict| verdict, |_| Verdict::Accept)
    }

    /// May `client` do anything else that the broker asks about, such as unsubscribe?
    pub fn other_access(&mut self, client: ClientKey, user: Option<&[u8]>) -> Verdict {
        self.forget_message();
        self.part(client, user)
            .map_or_else(|verdict| verdict, |_| Verdict::Accept)
    }

    /// A message was published. It is routed next, unless it is refused or has QoS 2.
    pub fn message(&mut self, message: &Published<'_>) -> Verdict {
        let asked = self.writer == Some(message.client);
        self.forget_message();
        if !self.unreleased.is_empty() {
            self.unreleased.remove(&message.topic);
        }
        if asked {
            return Verdict::Accept;
        }
        // Nobody is asked about what a bridge of this broker brings in; for everybody else we were to be asked.
        let from_link = message.user == Some(LINK_USER.as_bytes()) && self.session(message.client).is_none();
        let peer = self
            .peers
            .iter()
            .position(|peer| peer.local_id.as_bytes() == message.id);
        if from_link && (peer.is_some() || !message.network) {
            return self.message_from_link(peer, message);
        }
        if message.network {
            self.leave_mesh(Bypass::Publish);
        }
        Verdict::Accept
    }

    fn message_from_link(&mut self, peer: Option<usize>, message: &Published<'_>) -> Verdict {
        if self.bypass.is_some() {
            return Verdict::Refuse;
        }
        if let Some(peer) = peer {
            self.counts[peer].received += 1;
        }
        if message.qos < 2 {
            self.routing = Routing::Remote;
        } else {
            self.unreleased.insert(message.topic);
        }
        Verdict::Accept
    }

    /// The broker's loop has turned. Returns the client ids of sessions to end. `subscriptions` tells how many
    /// a client has.
    pub fn tick(&mut self, subscriptions: impl Fn(ClientKey) -> Option<usize>) -> Vec<String> {
        self.forget_message();
        let unasked = |session: &Session| {
            let link = matches!(session.part, Part::Link(_));
            link && session.clean
                && !session.asked
                && subscriptions(session.client).is_some_and(|count| count > 0)
        };
        if self.bypass.is_none() && self.sessions.iter().any(unasked) {
            self.leave_mesh(Bypass::Subscribe);
        }
        if !std::mem::take(&mut self.unkicked) {
            return Vec::new();
        }
        let links = self
            .sessions
            .iter()
            .filter(|session| matches!(session.part, Part::Link(_)));
        links.map(|session| session.id.clone()).collect()
    }

    fn leave_mesh(&mut self, why: Bypass) {
        if self.bypass.is_none() {
            self.bypass = Some(why);
            self.unsaid = Some(why);
            self.unkicked = true;
        }
    }

    /// What is about to be routed is not what the last MESSAGE was about.
    fn forget_message(&mut self) {
        self.routing = Routing::Local;
        self.replaying = false;
        self.writer = None;
    }

    fn session(&self, client: ClientKey) -> Option<usize> {
        self.sessions.iter().position(|session| session.client == client)
    }

    /// The part that `client` plays in the mesh; if none, the answer to any access of it. Who has the name of a
    /// user of the mesh and did not log in here was let in by somebody else, and gets nothing.
    fn part(&self, client: ClientKey, user: Option<&[u8]>) -> Result<Part, Verdict> {
        let session = self.session(client).map(|at| self.sessions[at].part);
        match session {
            Some(part) if user == Some(part.user()) => Ok(part),
            _ => Err(stranger(&self.options, user)),
        }
    }
}

/// The answer to an access of somebody who is not logged in as a user of the mesh.
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

/// Compares without telling by its duration how much is right.
fn same_secret(given: Option<&[u8]>, secret: &str) -> bool {
    let given = given.unwrap_or_default();
    let secret = secret.as_bytes();
    let mut difference = given.len() ^ secret.len();
    for (at, expected) in secret.iter().enumerate() {
        let byte = given.get(at).copied().unwrap_or_default();
        difference |= usize::from(std::hint::black_box(byte ^ expected));
    }
    difference == 0
}
