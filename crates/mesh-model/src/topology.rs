//! Which brokers there are, where they answer, and in what order they are preferred.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::BrokerId;

/// One broker of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Its name.
    pub id: BrokerId,
    /// Where it takes MQTT connections.
    pub address: SocketAddr,
    /// Where it takes MQTT over WebSockets, if it does.
    pub websockets: Option<SocketAddr>,
    /// Where it takes MQTT over TLS from its peers, if links are encrypted.
    pub tls: Option<SocketAddr>,
}

impl Broker {
    /// A broker that takes plain MQTT only.
    pub fn new(id: BrokerId, address: SocketAddr) -> Self {
        Self {
            id,
            address,
            websockets: None,
            tls: None,
        }
    }

    /// Every address that it listens on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        [Some(self.address), self.websockets, self.tls]
            .into_iter()
            .flatten()
    }
}

/// One direction between two brokers. The bridge that runs it belongs to the `to` side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// The broker whose messages are carried.
    pub from: BrokerId,
    /// The broker that fetches them.
    pub to: BrokerId,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.from, self.to)
    }
}

/// All brokers in order of priority; at least one, without duplicate ids or addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    brokers: Vec<Broker>,
}

/// Why a list of brokers is not a [`Topology`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The list is empty.
    #[error("there is no broker; at least one is needed")]
    Empty,
    /// Two brokers have the same name. The positions count from 0.
    #[error("broker {id} is listed twice (entries {} and {})", .first + 1, .second + 1)]
    DuplicateId {
        /// The name.
        id: BrokerId,
        /// Position of the first entry.
        first: usize,
        /// Position of the second entry.
        second: usize,
    },
    /// Two listeners have the same address. The positions count from 0, and are the same if both are of one broker.
    #[error("address {address} is used twice (entries {} and {})", .first + 1, .second + 1)]
    DuplicateAddress {
        /// The address.
        address: SocketAddr,
        /// Position of the first entry.
        first: usize,
        /// Position of the second entry.
        second: usize,
    },
}

impl TopologyError {
    /// The same error with each position `p` replaced by `positions[p]`, for a list that was part of a longer one.
    pub fn at(self, positions: &[usize]) -> Self {
        let at = |position: usize| positions.get(position).copied().unwrap_or(position);
        match self {
            Self::Empty => Self::Empty,
            Self::DuplicateId { id, first, second } => Self::DuplicateId {
                id,
                first: at(first),
                second: at(second),
            },
            Self::DuplicateAddress {
                address,
                first,
                second,
            } => Self::DuplicateAddress {
                address,
                first: at(first),
                second: at(second),
            },
        }
    }
}

impl Topology {
    /// Checks `brokers`, which are in order of priority.
    ///
    /// # Errors
    ///
    /// Every problem of the list, not only the first.
    pub fn new(brokers: Vec<Broker>) -> Result<Self, Vec<TopologyError>> {
        let mut errors = Vec::new();
        if brokers.is_empty() {
            errors.push(TopologyError::Empty);
        }
        for (second, broker) in brokers.iter().enumerate() {
            if let Some(first) = brokers[..second].iter().position(|b| b.id == broker.id) {
                errors.push(TopologyError::DuplicateId {
                    id: broker.id.clone(),
                    first,
                    second,
                });
            }
            for (place, address) in broker.addresses().enumerate() {
                let own = broker.addresses().take(place).any(|other| other == address);
                let taken = brokers[..second]
                    .iter()
                    .position(|other| other.addresses().any(|other| other == address));
                if let Some(first) = taken.or(own.then_some(second)) {
                    errors.push(TopologyError::DuplicateAddress {
                        address,
                        first,
                        second,
                    });
                }
            }
        }
        if errors.is_empty() {
            Ok(Self { brokers })
        } else {
            Err(errors)
        }
    }

    /// The brokers, the most preferred first.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// The ids, the most preferred first.
    pub fn ids(&self) -> impl Iterator<Item = &BrokerId> {
        self.brokers.iter().map(|broker| &broker.id)
    }

    /// The broker named `id`.
    pub fn get(&self, id: &BrokerId) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.id == *id)
    }

    /// The place of `id` in the order of priority, 0 being the most preferred.
    pub fn priority(&self, id: &BrokerId) -> Option<usize> {
        self.brokers.iter().position(|broker| broker.id == *id)
    }

    /// All brokers but `id`, the most preferred first.
    pub fn peers<'a>(&'a self, id: &'a BrokerId) -> impl Iterator<Item = &'a Broker> {
        self.brokers.iter().filter(move |broker| broker.id != *id)
    }

    /// Every link of the full mesh: N × (N − 1), ordered.
    pub fn links(&self) -> BTreeSet<Link> {
        let pair = |from: &BrokerId, to: &BrokerId| Link {
            from: from.clone(),
            to: to.clone(),
        };
        self.ids()
            .flat_map(|to| self.peers(to).map(move |from| pair(&from.id, to)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(id: &str, port: u16) -> Broker {
        Broker::new(id.parse().unwrap(), ([127, 0, 0, 1], port).into())
    }

    #[test]
    fn five_brokers_have_twenty_links() {
        let brokers = (1..=5).map(|n| broker(&format!("broker{n}"), 1883 + n)).collect();
        let topology = Topology::new(brokers).unwrap();
        assert_eq!(topology.links().len(), 20);
        assert!(topology.links().iter().all(|link| link.from != link.to));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let errors = Topology::new(vec![broker("a", 1), broker("a", 2), broker("b", 1)]).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(Topology::new(vec![]).unwrap_err(), [TopologyError::Empty]);
        let mut two = vec![broker("a", 1), broker("b", 2)];
        two[0].websockets = Some(two[1].address);
        two[1].tls = Some(two[1].address);
        assert_eq!(Topology::new(two).unwrap_err().len(), 2);
    }
}
