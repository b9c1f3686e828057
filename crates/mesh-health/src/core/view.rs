//! What the core believes, for those who only look.

use std::time::Duration;

use mesh_model::{AdminState, BrokerId, HealthStatus, Link, LinkState, MeshState, Plan, Role};

use super::readings::{LinkCounter, Readings, Retained};
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
        let links = self.links.iter().map(|(link, health)| {
            let told = self.told(&link.to);
            let (received, per_s) = told.map_or((None, None), |told| told.link(&link.from, now));
            let receiver = |counter| told?.of_link(&link.from, counter);
            let sender = |counter| self.told(&link.from)?.of_link(&link.to, counter);
            LinkView {
                link,
                state: health.state(),
                latency: health.latency(),
                per_s,
                received,
                duplicates_dropped: receiver(LinkCounter::DuplicatesDropped),
                stale_dropped: receiver(LinkCounter::StaleDropped),
                backlog: sender(LinkCounter::Backlog),
                lost: sender(LinkCounter::Lost),
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
