//! Ways through a network on which latency is measured.

use std::fmt;

use serde::Serialize;

/// From a publisher's broker to a subscriber's, in a network whose first broker is a star's hub. A broker that is sent
/// a message last waits for the others, so each has its turn at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// From the first broker to another.
    OneHop,
    /// Between two that are not the first.
    LeafToLeaf,
}

impl Path {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OneHop, Self::LeafToLeaf];

    /// The places of the brokers where it begins and ends in a round, in a network of at least three.
    pub fn ends(self, round: usize, brokers: usize) -> (usize, usize) {
        let leaf = |number: usize| 1 + number % (brokers - 1);
        match self {
            Self::OneHop => (0, leaf(round)),
            Self::LeafToLeaf => (leaf(round), leaf(round + 1)),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OneHop => "one hop",
            Self::LeafToLeaf => "leaf to leaf",
        })
    }
}
