//! Whether messages pass from each broker to each other one, judged by canaries.
//!
//! Guarantees: a link is `down` only if both ends are healthy and both are seen to take and deliver canaries of
//! their own, so that a probe session that broke is never blamed on a link.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_model::{BrokerId, HealthStatus, Link, LinkState};
use mesh_runtime::config::Health;

use super::Moment;

/// What is believed of one link.
#[derive(Debug, Clone)]
pub struct LinkHealth {
    state: LinkState,
    latency: Option<Duration>,
    arrived: Option<Moment>,
    /// Since when both ends have been healthy without a break.
    ready_since: Option<Moment>,
}

impl LinkHealth {
    /// Whether canaries pass.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// How long the last canary took; `None` unless the link is up.
    pub fn latency(&self) -> Option<Duration> {
        self.latency.filter(|_| self.state == LinkState::Up)
    }
}

/// A link whose state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub link: Link,
    /// Its state now.
    pub state: LinkState,
    /// When all was last well: a canary arrived, or else both ends came to be healthy.
    pub last: Moment,
}

/// All links.
#[derive(Debug, Clone)]
pub struct Links {
    links: BTreeMap<Link, LinkHealth>,
    /// When a broker last delivered its own canary to us.
    echoes: BTreeMap<BrokerId, Moment>,
    judged: Moment,
}

impl Links {
    /// Links of which nothing is known.
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        let fresh = LinkHealth {
            state: LinkState::Unknown,
            latency: None,
            arrived: None,
            ready_since: None,
        };
        Self {
            links: links.into_iter().map(|link| (link, fresh.clone())).collect(),
            echoes: BTreeMap::new(),
            judged: Moment::START,
        }
    }

    /// Every link.
    pub fn iter(&self) -> impl Iterator<Item = (&Link, &LinkHealth)> {
        self.links.iter()
    }

    /// A canary that was published at `from` arrived at our subscription at `to`.
    pub fn arrived(&mut self, from: BrokerId, to: BrokerId, latency: Duration, now: Moment) {
        if from == to {
            self.echoes.insert(from, now);
        } else if let Some(link) = self.links.get_mut(&Link { from, to }) {
            link.arrived = Some(now);
            link.latency = Some(latency);
        }
    }

    /// Judges every link anew. Returns those whose state changed.
    pub fn judge(
        &mut self,
        status: impl Fn(&BrokerId) -> HealthStatus,
        now: Moment,
        rules: &Health,
    ) -> Vec<Turn> {
        self.judged = now;
        let echo_age = rules.canary_interval * 3 / 2;
        let echoes = &self.echoes;
        let watched = |id: &BrokerId| echoes.get(id).is_some_and(|at| now.since(*at) <= echo_age);
        let mut changes = Vec::new();
        // Links are in order of their senders, each of which is looked up but once.
        let mut sender: Option<(&BrokerId, HealthStatus)> = None;
        for (link, health) in &mut self.links {
            let from = match sender {
                Some((id, status)) if *id == link.from => status,
                _ => sender.insert((&link.from, status(&link.from))).1,
            };
            let ends = [from, status(&link.to)];
            let ready = ends
                .iter()
                .all(|end| matches!(end, HealthStatus::Healthy | HealthStatus::Suspect));
            match (ready, health.ready_since) {
                (true, None) => health.ready_since = Some(now),
                (false, _) => health.ready_since = None,
                _ => {}
            }
            let fresh = |at: Moment| now.since(at) < rules.link_down_after;
            let state = if ends.contains(&HealthStatus::Dead) {
                LinkState::Unknown
            } else if health.arrived.is_some_and(fresh) {
                LinkState::Up
            } else if health.ready_since.is_some_and(|at| !fresh(at)) {
                // Without both echoes it is our own sessions that are broken: no news either way.
                let seen = watched(&link.from) && watched(&link.to);
                if seen { LinkState::Down } else { health.state }
            } else if health.state == LinkState::Down && ready {
                LinkState::Down
            } else {
                LinkState::Unknown
            };
            if state != health.state {
                health.state = state;
                // An older canary may have come before one of the ends died.
                let last = health.arrived.max(health.ready_since).unwrap_or(now);
                changes.push(Turn {
                    link: link.clone(),
                    state,
                    last,
                });
            }
        }
        changes
    }

    /// When [`Self::judge`] is due again.
    pub fn deadline(&self, rules: &Health) -> Moment {
        self.judged + rules.canary_interval / 20
    }

    /// The daemon itself was asleep for `lag`: that much silence proves nothing.
    pub fn excuse(&mut self, lag: Duration, now: Moment) {
        let shift = |at: &mut Moment| *at = now.min(*at + lag);
        for health in self.links.values_mut() {
            health.arrived.as_mut().map(shift);
            health.ready_since.as_mut().map(shift);
        }
        self.echoes.values_mut().for_each(shift);
    }
}
