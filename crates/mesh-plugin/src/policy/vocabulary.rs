//! What the broker tells the policy, and what the policy answers.

use std::fmt;

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

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// The broker goes on as without us.
    Pass,
    /// It goes no further.
    Refuse,
    /// It enters the mesh here, and gets a stamp.
    Stamp,
    /// It came over the link from this peer, if that is known.
    Arrive(Option<usize>),
}

/// What becomes of a message that came over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is new. With a stamp, that tells whether it is to be kept for later subscribers.
    New(Option<bool>),
    /// It was seen before.
    Duplicate,
    /// It is retained, and what is retained here is not older.
    Stale,
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

/// Why this broker has left the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// A client published and we were not asked.
    Publish,
    /// A link subscribed and we were not asked.
    Subscribe,
    /// A link was connected and we had not let it in.
    Login,
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Publish => "a client published without an ACL check",
            Self::Subscribe => "a link subscribed without an ACL check",
            Self::Login => "a link logged in without a check",
        };
        write!(
            f,
            "{what} of ours: another plugin answers first, messages would circle for ever. \
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
    /// The topic.
    pub name: &'a [u8],
    /// The length of its payload.
    pub length: usize,
    /// The quality of service.
    pub qos: u8,
    /// Whether it was published to be kept.
    pub retain: bool,
}

/// What is seen of a message when it comes in or is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The topic.
    pub topic: &'a [u8],
    /// The length of the payload.
    pub length: usize,
    /// Whether it was published to be kept.
    pub retain: bool,
}
