//! What the balancer shall do: the whole desired content of `upstream.conf`.

use serde::{Deserialize, Serialize};

use crate::health::Role;
use crate::ids::BrokerId;

/// Who serves, and who follows, in order. There is always exactly one primary, and no broker appears twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Rises with every plan that is installed; 0 is the plan that was rendered at deployment.
    pub generation: u64,
    /// Where clients are sent.
    pub primary: BrokerId,
    /// Where clients go if the primary refuses them, in this order.
    pub standbys: Vec<BrokerId>,
}

impl Plan {
    /// A plan with `primary` first; `primary` is taken out of `order`, which is otherwise kept.
    pub fn new(generation: u64, primary: BrokerId, order: impl IntoIterator<Item = BrokerId>) -> Self {
        let standbys = order.into_iter().filter(|id| *id != primary).collect();
        Self {
            generation,
            primary,
            standbys,
        }
    }

    /// The first standby: the broker that Nginx turns to by itself.
    pub fn backup(&self) -> Option<&BrokerId> {
        self.standbys.first()
    }

    /// The part that `id` plays, or `None` if clients are never sent there.
    pub fn role(&self, id: &BrokerId) -> Option<Role> {
        if *id == self.primary {
            return Some(Role::Primary);
        }
        match self.standbys.iter().position(|standby| standby == id)? {
            0 => Some(Role::Backup),
            _ => Some(Role::Standby),
        }
    }

    /// Whether `other` sends clients to the same brokers in the same order, whatever its generation.
    pub fn same_order(&self, other: &Self) -> bool {
        self.primary == other.primary && self.standbys == other.standbys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_never_appears_among_the_standbys() {
        let id = |text: &str| text.parse::<BrokerId>().unwrap();
        let plan = Plan::new(1, id("b"), ["a", "b", "c"].map(id));
        assert_eq!(plan.standbys, [id("a"), id("c")]);
        assert_eq!(plan.role(&id("b")), Some(Role::Primary));
        assert_eq!(plan.role(&id("a")), Some(Role::Backup));
        assert_eq!(plan.role(&id("c")), Some(Role::Standby));
        assert_eq!(plan.role(&id("d")), None);
    }
}
