//! What the core believes, for those who only look.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::{AdminState, BrokerId, HealthStatus, Link, LinkState, MeshState, Plan, Role};

use super::readings::{PeerReadings, Readings, Retained};
use super::{Core, Moment};

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct View<'a> {
    /// The state of the whole.
    pub state: MeshState,
    /// The plan that the balancer shall run.
    pub wanted: &'a Plan,
    /// The plan that it answered last.
    pub running: Option<&'a Plan>,
    /// Whether that is the wanted one.
    pub confirmed: bool,
    /// Worker processes of earlier generations that still hold sessions.
    pub old_workers: Option<u32>,
    /// Why the balancer does not do as it is told.
    pub error: Option<&'a str>,
    /// Whether its sessions can be closed.
    pub can_move_sessions: Option<bool>,
    /// Why they cannot, or were not at the last attempt.
    pub move_error: Option<&'a str>,
    /// The brokers in order of priority.
    pub brokers: Vec<BrokerView<'a>>,
    /// Every link.
    pub links: Vec<LinkView<'a>>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerView<'a> {
    /// Its name.
    pub id: &'a BrokerId,
    /// What is observed.
    pub health: HealthStatus,
    /// What the operator wants.
    pub admin: AdminState,
    /// The part it plays in the wanted plan.
    pub role: Option<Role>,
    /// Since when `health` is what it is.
    pub since: Moment,
    /// Why.
    pub reason: Option<&'a str>,
    /// How long the last answer took.
    pub rtt: Option<Duration>,
    /// Connected clients.
    pub clients: Option<u64>,
    /// PUBLISH packets received per second.
    pub in_per_s: Option<f64>,
    /// PUBLISH packets sent per second.
    pub out_per_s: Option<f64>,
    /// Sessions of the balancer that are still to be moved off it.
    pub sessions_left: Option<u64>,
    /// What it retains, and whether it believes to be in sync.
    pub retained: Option<&'a Retained>,
}

/// One link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkView<'a> {
    /// Which.
    pub link: &'a Link,
    /// Whether canaries pass.
    pub state: LinkState,
    /// How long the last one took.
    pub latency: Option<Duration>,
    /// Messages per second.
    pub per_s: Option<f64>,
    /// Messages since the receiving broker started.
    pub received: Option<u64>,
    /// Those of them that it had already.
    pub duplicates_dropped: Option<u64>,
    /// Those of them that were older than what it retains.
    pub stale_dropped: Option<u64>,
    /// Messages at the sending broker that the receiving one has not yet told to have.
    pub backlog: Option<u64>,
    /// Messages that the sending broker keeps no longer and that the receiving one is not known to have.
    pub lost: Option<u64>,
}

impl Core {
    /// What is believed at `now`.
    pub fn view(&self, now: Moment) -> View<'_> {
        // Fifty brokers have 2,450 links, so each broker is looked up but once.
        let told: BTreeMap<&BrokerId, &Readings> = self
            .topology
            .ids()
            .filter_map(|id| Some((id, self.told(id)?)))
            .collect();
        let links = self.links.iter().map(|(link, health)| {
            let receiver = told.get(&link.to).and_then(|told| told.of(&link.from));
            let sender = told.get(&link.from).and_then(|told| told.of(&link.to));
            LinkView {
                link,
                state: health.state(),
                latency: health.latency(),
                per_s: receiver.and_then(|told| told.per_s(now)),
                received: receiver.and_then(PeerReadings::received),
                duplicates_dropped: receiver.and_then(PeerReadings::duplicates_dropped),
                stale_dropped: receiver.and_then(PeerReadings::stale_dropped),
                backlog: sender.and_then(PeerReadings::backlog),
                lost: sender.and_then(PeerReadings::lost),
            }
        });
        View {
            state: self.state(),
            wanted: self.rollout.wanted(),
            running: self.rollout.running(),
            confirmed: self.rollout.is_confirmed(),
            old_workers: self.rollout.old_workers(),
            error: self.rollout.error(),
            can_move_sessions: self.can_move.as_ref().map(Result::is_ok),
            move_error: match &self.can_move {
                Some(Err(reason)) => Some(reason),
                _ => self.moves.error(),
            },
            brokers: self.topology.ids().map(|id| self.broker_view(id, now)).collect(),
            links: links.collect(),
        }
    }

    fn broker_view<'a>(&'a self, id: &'a BrokerId, now: Moment) -> BrokerView<'a> {
        let broker = &self.brokers[id];
        let told = self.told(id);
        BrokerView {
            id,
            health: broker.status(),
            admin: self.admin[id],
            role: self.rollout.wanted().role(id),
            since: broker.since(),
            reason: broker.reason(),
            rtt: broker.rtt(),
            clients: told.and_then(Readings::clients),
            in_per_s: told.and_then(|told| told.in_per_s(now)),
            out_per_s: told.and_then(|told| told.out_per_s(now)),
            sessions_left: self.moves.left(id),
            retained: told.and_then(Readings::retained),
        }
    }

    /// What a broker last told of itself; nothing while it does not answer.
    fn told(&self, id: &BrokerId) -> Option<&Readings> {
        let dead = self.brokers[id].status() == HealthStatus::Dead;
        self.readings.get(id).filter(|_| !dead)
    }

    fn state(&self) -> MeshState {
        let primary = &self.rollout.wanted().primary;
        let of_primary = self.brokers.get(primary).map(|broker| broker.status());
        let under_way = self.switch.as_ref().is_some_and(|switch| !switch.switched);
        if self.brokers.values().all(|b| b.status() == HealthStatus::Dead) || self.blocked {
            MeshState::NoEligibleBroker
        } else if self.rollout.error().is_some() {
            MeshState::Degraded
        } else if under_way || of_primary == Some(HealthStatus::Dead) {
            MeshState::FailingOver
        } else if of_primary == Some(HealthStatus::Healthy)
            && self.admin[primary] == AdminState::Enabled
            && self.rollout.is_confirmed()
        {
            if self.pinned {
                MeshState::Pinned
            } else {
                MeshState::Ok
            }
        } else {
            MeshState::Degraded
        }
    }
}
