//! What the replica has done, and what it tells.

use std::time::Duration;

use crate::retained::sync::Finished;
use crate::retained::{Mark, Version};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say this to a peer.
    Say(usize, Vec<u8>),
    /// Remove what is stored at this topic, and tell no link. `shown`: tell subscribers here.
    Remove {
        /// The topic.
        topic: Box<str>,
        /// Whether this is a deletion. That a value expires is not told to anyone.
        shown: bool,
    },
    /// Read these topics from this broker.
    Read(u64, Vec<Box<str>>),
    /// Send this value, which was read, to a peer.
    Send(usize, Vec<u8>),
    /// Remember beyond the broker's end that this has ended, in this second.
    Keep(Box<str>, Mark, u32),
    /// Say in the log.
    Tell(Event),
}

/// What an operator wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A round with a peer has ended well.
    Round(Finished),
    /// This broker is in sync, so long after it began to be out of it.
    InSync(Duration),
    /// Somebody is there again after nobody was, and may know more.
    OutOfSync,
    /// It was away for long; so many of its own values were dropped that no peer has.
    Dropped(usize),
    /// It was away for long, but so was everybody else: its own values count.
    Kept(usize),
}

/// What is told about the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// How many retained messages there are.
    pub count: u64,
    /// Equal on two brokers exactly when they hold the same.
    pub digest: u128,
    /// Whether this broker has compared itself with every peer that is there.
    pub in_sync: bool,
}

/// A value that the reader has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its topic.
    pub topic: Box<str>,
    /// Its version, from its stamp.
    pub version: Version,
    /// In how many seconds it expires, if it does.
    pub expires_in: Option<u32>,
    /// The packet that brought it.
    pub packet: Vec<u8>,
}
