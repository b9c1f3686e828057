//! The topics on which plugins talk with each other over links. Nobody else writes there, and nobody else sees what
//! is said: it is put into the queues of links, and goes no further at the other end.

use mesh_model::names::{PRESENCE_PREFIX, SEEN_PREFIX, SYNC_PREFIX, TOPIC_PREFIX};

/// What a message between plugins is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What its sender has seen.
    Seen,
    /// The state of what is retained.
    Sync,
    /// Who has connected to its sender.
    Presence,
}

impl About {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Sync => "sync",
            Self::Presence => "presence",
        }
    }
}

/// The topic of a message between plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Internal<'a> {
    /// What it is about.
    pub about: About,
    /// The broker that says it.
    pub from: &'a str,
}

/// Reads such a topic; `None` if it is another one.
pub fn parse(topic: &[u8]) -> Option<Internal<'_>> {
    if !topic.starts_with(TOPIC_PREFIX.as_bytes()) {
        return None;
    }
    let topic = str::from_utf8(topic).ok()?;
    let all = [
        (About::Seen, SEEN_PREFIX),
        (About::Sync, SYNC_PREFIX),
        (About::Presence, PRESENCE_PREFIX),
    ];
    all.into_iter().find_map(|(about, prefix)| {
        let from = topic.strip_prefix(prefix)?;
        Some(Internal { about, from })
    })
}
