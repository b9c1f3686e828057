//! What the core must not forget when the daemon ends, and how it goes on with that.
//!
//! Guarantees: a change is told before the plan that follows from it ([`Command::Remember`] comes before
//! [`Command::Install`]), so a daemon that is killed in the middle of a switch knows afterwards whose sessions are
//! still to be moved; nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{AdminState, BrokerId};

use super::broker::Past;
use super::budget::Budget;
use super::incident::{Incident, Incidents, Subject};
use super::{Command, Core, Moment};

/// What survives a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// What the operator wants of each broker.
    pub admin: BTreeMap<BrokerId, AdminState>,
    /// What was seen of each broker.
    pub brokers: BTreeMap<BrokerId, Past>,
    /// Brokers that stopped being primary and may still have sessions.
    pub demoted: BTreeSet<BrokerId>,
    /// Where the operator wants clients to be sent back to, until they are.
    pub failback_to: Option<BrokerId>,
    /// Nginx may be avoiding the primary.
    pub avoided: bool,
    /// The switches of late that need not have been.
    pub optional_switches: Vec<Moment>,
    /// The number of the latest incident that there ever was.
    pub last_incident: u64,
    /// The incidents of late, the oldest first.
    pub incidents: Vec<Incident>,
}

impl Memory {
    /// The oldest moment in it.
    pub fn oldest(&self) -> Option<Moment> {
        let began = self.incidents.iter().map(|incident| incident.began);
        let died = self.brokers.values().flat_map(|past| past.deaths.iter().copied());
        began
            .chain(died)
            .chain(self.optional_switches.iter().copied())
            .min()
    }
}

impl Core {
    /// The same with what was known before the daemon was restarted. Brokers that are no longer part of the mesh are
    /// passed over, and so are open incidents of theirs.
    pub fn recalling(mut self, memory: Memory) -> Self {
        for (id, wanted) in memory.admin {
            if let Some(admin) = self.admin.get_mut(&id) {
                *admin = wanted;
            }
        }
        for (id, past) in memory.brokers {
            if let Some(broker) = self.brokers.get_mut(&id) {
                broker.recall(past);
            }
        }
        let is_known = |id: &BrokerId| self.topology.get(id).is_some();
        self.demoted = memory.demoted.into_iter().filter(is_known).collect();
        self.failback_to = memory.failback_to.filter(is_known);
        self.avoided = memory.avoided;
        self.budget = Budget::recalled(memory.optional_switches);
        let concerns_us = |incident: &Incident| match &incident.subject {
            Subject::Broker(id) => is_known(id),
            Subject::Link(link) => is_known(&link.from) && is_known(&link.to),
            Subject::Balancer => true,
        };
        let incidents = memory.incidents.into_iter();
        let incidents = incidents.filter(|incident| !incident.is_open() || concerns_us(incident));
        self.incidents = Incidents::recalled(memory.last_incident, incidents);
        self.remembered = self.memory();
        self
    }

    /// What is to be kept.
    pub(super) fn memory(&self) -> Memory {
        let past = |(id, broker): (&BrokerId, &super::BrokerHealth)| (id.clone(), broker.past());
        Memory {
            admin: self.admin.clone(),
            brokers: self.brokers.iter().map(past).collect(),
            demoted: self.demoted.clone(),
            failback_to: self.failback_to.clone(),
            avoided: self.avoided,
            optional_switches: self.budget.taken().to_vec(),
            last_incident: self.incidents.last(),
            incidents: self.incidents.all().cloned().collect(),
        }
    }

    /// Has what changed kept. Cheap where nothing did.
    pub(super) fn remember(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let memory = self.memory();
        if memory != self.remembered {
            self.remembered = memory.clone();
            self.commands.push_back(Command::Remember(Box::new(memory)));
        }
    }
}
