//! The same retained messages on every broker, whatever happened in between.
//!
//! Each broker keeps an [`index`] of its retained messages: for every topic the [`Version`] of what is stored
//! there, or of what ended it. Two brokers merge what they know of a topic by taking the greater [`Mark`]. That is
//! commutative, associative and idempotent, so the order in which brokers hear of values does not matter, nor how
//! often; a deletion is a mark like a value, and a value that was deleted cannot come back.
//!
//! - [`store_file`] reads the index from the broker's own database at its start, so that the two cannot disagree.
//! - [`journal`] keeps what the database does not hold: deletions, and what was seen.
//! - [`digest`] makes one number of an index. Two brokers with equal digests hold the same retained messages.
//! - [`sync`] finds and fetches what differs between two brokers, over their links and in small pieces.
//! - [`replica`] puts these together.
//! - [`reader`] fetches stored messages from this very broker, since the plugin API has no way to do so.
//!
//! Topics that begin with `$` are each broker's own and not part of this.

use crate::message::Property;
use crate::retained::digest::hash64;
use crate::stamp::{STAMP_PROPERTY, Stamp};

pub mod digest;
pub mod index;
pub mod journal;
pub mod reader;
pub mod replica;
pub mod store_file;
pub mod sync;

/// Which of two values of a topic is the later one: the one whose stamp has the greater time, and of equal times
/// that of one broker, always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The hybrid logical clock of the stamp; 0 for a value from before there were stamps.
    pub hlc: u64,
    /// Made from the origin; for a value without a stamp from its payload. Equal everywhere for equal values.
    pub tie: u64,
}

impl Version {
    /// The version of a value with this stamp. One whose time is 0 stands for a value without a stamp, which had to
    /// be given one to travel.
    pub fn of(stamp: &Stamp, payload: &[u8]) -> Self {
        if stamp.time.0 == 0 {
            return Self::unstamped(payload);
        }
        Self {
            hlc: stamp.time.0,
            tie: hash64(stamp.origin.as_str().as_bytes()),
        }
    }

    /// The version of a stored value: of its last stamp, if it has one.
    pub fn stored(properties: &[Property<'_>], payload: &[u8]) -> Self {
        match stamp_of(properties) {
            Some(stamp) => Self::of(&stamp, payload),
            None => Self::unstamped(payload),
        }
    }

    /// The version of a value without a stamp. Every broker that has it makes the same of it.
    pub fn unstamped(payload: &[u8]) -> Self {
        Self {
            hlc: 0,
            tie: hash64(payload),
        }
    }
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// It is stored.
    Present = 0,
    /// It is a deletion: a retained message without a payload.
    Cleared = 1,
    /// It was stored and its time is over.
    Gone = 2,
}

/// What is known of a topic. Of two marks the greater one counts: the later version, and of one version what came
/// of it in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Which value.
    pub version: Version,
    /// What became of it.
    pub state: State,
}

impl Mark {
    /// A value that is stored.
    pub fn present(version: Version) -> Self {
        let state = State::Present;
        Self { version, state }
    }

    /// A deletion.
    pub fn cleared(version: Version) -> Self {
        let state = State::Cleared;
        Self { version, state }
    }

    /// A value that has expired.
    pub fn gone(version: Version) -> Self {
        let state = State::Gone;
        Self { version, state }
    }
}

/// When a stored value expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// Nobody has told. Mosquitto 2.0 hides the expiry of what is published from its plugins.
    #[default]
    Unknown,
    /// Never.
    Never,
    /// In this second since 1970.
    At(u32),
}

/// A topic that takes part in the mesh's retained state, as text; `None` for others.
pub fn shared(topic: &[u8]) -> Option<&str> {
    str::from_utf8(topic).ok().filter(|topic| !topic.starts_with('$'))
}

/// The last stamp among the properties of a message.
pub fn stamp_of(properties: &[Property<'_>]) -> Option<Stamp> {
    let last = properties.iter().rev().find_map(|property| match property {
        Property::User(STAMP_PROPERTY, value) => Some(*value),
        _ => None,
    });
    last.and_then(Stamp::parse)
}
