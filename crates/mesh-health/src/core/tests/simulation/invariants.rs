//! What must hold after everything that happens, and in the end.

use super::*;

impl World {
    /// Nobody is sent to a broker that lacks something while one that does not could serve.
    fn check_sync(&self, name: EventName, from: &BrokerId, to: &BrokerId) {
        if self.has_all(to) != Some(false) {
            return;
        }
        let failover = EventName::FailoverStarted;
        assert_eq!(name, failover, "a failback to {to}, which lacks something");
        let mut others = self.core.brokers.iter().filter(|(id, broker)| {
            *id != from
                && broker.status() == HealthStatus::Healthy
                && self.core.admin[*id] == AdminState::Enabled
        });
        let better = others.find(|(id, _)| self.has_all(id) == Some(true));
        assert!(
            better.is_none(),
            "{to} lacks something and is to serve, {better:?} has all"
        );
    }

    pub(super) fn told(&mut self, occurrence: Occurrence) {
        let Occurrence {
            name,
            from,
            to,
            generation,
            ..
        } = occurrence;
        let (Some(from), Some(to)) = (from, to) else {
            return;
        };
        if !matches!(name, EventName::FailoverStarted | EventName::FailbackStarted) {
            return;
        }
        self.check_sync(name, &from, &to);
        let is_enabled = self.core.admin[&from] == AdminState::Enabled;
        if name == EventName::FailoverStarted {
            let dead = self.core.brokers[&from].status() == HealthStatus::Dead;
            assert!(dead || !is_enabled, "a primary that may serve was demoted");
        } else if !self.is_operator && self.asked.as_ref() != Some(&to) {
            assert_ne!(
                self.rules.failback,
                Failback::Never,
                "nobody asked for a failback"
            );
            let window = self.rules.optional_switch_window;
            self.automatic.retain(|(then, _)| self.now.since(*then) < window);
            self.automatic.push((self.now, generation.unwrap()));
            assert!(self.automatic.len() <= 3, "too many optional switches");
        }
        // There and back while an installation lasts: Nginx may have come to avoid the primary meanwhile.
        self.excuse = true;
        self.owing.remove(&to);
        if self.running.primary == from {
            self.owing.insert(from.clone());
        }
        self.ever_demoted.insert(from.clone());
        self.demoted.insert(from);
    }

    /// A primary that cannot serve stays only while nobody else can.
    pub(super) fn check_primary(&mut self) {
        assert_eq!(self.core.memory(), self.core.remembered, "something is not kept");
        let primary = &self.core.rollout.wanted().primary;
        let is_dead = self.core.brokers[primary].status() == HealthStatus::Dead;
        self.excuse |= is_dead;
        if !is_dead && self.core.admin[primary] == AdminState::Enabled {
            return;
        }
        let candidates = self.core.candidates();
        let own = candidates[primary];
        let enabled = candidates
            .values()
            .filter(|other| other.admin == AdminState::Enabled);
        let out = enabled.clone().any(|other| other.status == HealthStatus::Unknown);
        let better = enabled.clone().any(Candidate::is_eligible);
        assert!(
            out || !better || !self.core.rollout.is_adopted(),
            "{own:?} stays though another is eligible"
        );
    }

    /// Everything is as it should be, but for the broker that hangs for good, if there is one.
    pub(super) fn unsettled(&self) -> Option<String> {
        let view = self.core.view(self.now);
        let primary = self.core.topology.priority(&view.wanted.primary).unwrap();
        let of_others = self.brokers.iter().enumerate().filter(|(n, _)| *n != primary);
        let stuck = of_others.filter(|(_, broker)| broker.real == Real::Hung);
        let stuck: u64 = stuck.map(|(_, broker)| broker.sessions).sum();
        let healthy = view.brokers.iter().zip(&self.brokers).all(|(believed, is)| {
            let expected = match is.real {
                Real::Up => HealthStatus::Healthy,
                _ => HealthStatus::Dead,
            };
            believed.health == expected && believed.admin == AdminState::Enabled
        });
        let goes_back = self.rules.failback != Failback::Never;
        let up = self.brokers.iter().filter(|broker| broker.real == Real::Up);
        let in_sync = up
            .into_iter()
            .all(|broker| !broker.tells || broker.told == Some(true));
        let belongs = !goes_back || self.core.failback_target(&self.core.candidates()).is_none();
        let lasts = |incident: &Incident| match &incident.subject {
            Subject::Broker(id) => self.core.brokers[id].status() != HealthStatus::Dead,
            _ => true,
        };
        let lasting = self.core.incidents().filter(|i| i.is_open() && lasts(i)).count();
        let quiet = |broker: &Broker| broker.real == Real::Hung || broker.heard == Some(broker.boot);
        let settled = view.state == MeshState::Ok
            && self.brokers.iter().all(quiet)
            && *view.wanted == self.running
            && healthy
            && stuck == 0
            && self.owing.is_empty()
            && !self.avoids
            && lasting == 0
            && self.waiting == 0
            && in_sync
            && belongs;
        let (owing, avoids, waiting) = (&self.owing, self.avoids, self.waiting);
        let what = || {
            format!("{stuck} stuck, {waiting} waiting, {owing:?} owe, avoids {avoids}, {lasting} incidents")
        };
        (!settled).then(|| format!("{}: {view:#?}", what()))
    }
}
