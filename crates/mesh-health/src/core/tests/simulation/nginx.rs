//! Nginx and its clients: what it runs, who is connected, and how sessions are moved.

use super::*;

impl World {
    /// Nginx runs `plan`, and begins anew with nobody to avoid. Returns what it ran before.
    pub(super) fn run_plan(&mut self, plan: Plan) -> Plan {
        self.avoids = false;
        if self.core.rollout.wanted().primary == plan.primary {
            self.demoted.remove(&plan.primary);
        }
        std::mem::replace(&mut self.running, plan)
    }

    pub(super) fn reload(&mut self, plan: Plan) {
        if self.core.rollout.wanted().primary != plan.primary && self.demoted.contains(&plan.primary) {
            // It was demoted again before it came to serve.
            self.owing.insert(plan.primary.clone());
        }
        self.asked.take_if(|asked| *asked == plan.primary);
        let before = self.run_plan(plan);
        self.old = (before, self.now + 100 * MS);
    }

    /// Clients without a session connect, as Nginx has them.
    pub(super) fn connect_clients(&mut self) {
        if !self.nginx_up || self.waiting == 0 {
            return;
        }
        let by_old = self.now < self.old.1 && self.random.below(2) == 0;
        let plan = if by_old { &self.old.0 } else { &self.running };
        let place = |id: &BrokerId| self.core.topology.priority(id).unwrap();
        let is_gone = |n: &usize| self.brokers[*n].real == Real::Gone;
        let has_standbys = !plan.standbys.is_empty();
        let primary = Some(place(&plan.primary)).filter(|_| by_old || !self.avoids || !has_standbys);
        let avoids = primary.as_ref().is_some_and(is_gone) && has_standbys && !by_old;
        let mut places = primary.into_iter().chain(plan.standbys.iter().map(place));
        let found = places.find(|n| !is_gone(n));
        self.avoids |= avoids;
        if let Some(n) = found {
            self.brokers[n].sessions += std::mem::take(&mut self.waiting);
        }
    }

    /// A demoted broker without sessions owes nothing, once no worker sends clients there any longer.
    pub(super) fn settle_debts(&mut self) {
        if !self.core.rollout.is_confirmed() || self.now < self.old.1 {
            return;
        }
        let primary = &self.core.rollout.wanted().primary;
        let sessions = |id: &BrokerId| self.brokers[self.core.topology.priority(id).unwrap()].sessions;
        self.owing.retain(|id| id != primary && sessions(id) > 0);
    }

    pub(super) fn install(&mut self, plan: Plan) {
        assert!(self.installing.is_none(), "two installations at a time");
        assert!(
            !plan.standbys.contains(&plan.primary),
            "a primary among the standbys"
        );
        let standbys: BTreeSet<_> = plan.standbys.iter().collect();
        assert_eq!(standbys.len(), plan.standbys.len(), "a standby twice");
        for (id, admin) in &self.core.admin {
            let enabled = *admin == AdminState::Enabled;
            let listed = standbys.contains(id);
            assert!(
                *id == plan.primary || enabled == listed,
                "{id} is {admin}: {plan:?}"
            );
        }
        assert!(plan.generation >= self.highest, "generations rise");
        let same = self.previous.same_order(&plan);
        assert!(!same || self.excuse, "a reload for equal content");
        self.highest = plan.generation;
        // A primary that is dead still needs another plan when it returns.
        self.excuse = self.core.brokers[&plan.primary].status() == HealthStatus::Dead;
        self.previous = plan.clone();
        let end = self.now + self.random.ms(20, 2000);
        self.installing = Some(Installation {
            plan,
            end,
            after: self.versions,
        });
    }

    pub(super) fn end_installation(&mut self, plan: Plan) {
        let outcome = match (self.nginx_up, self.random.below(10)) {
            (false, _) => Outcome::Written("Nginx does not run".to_owned()),
            (true, 0) => Outcome::Rejected("refused".to_owned()),
            (true, _) => Outcome::Confirmed,
        };
        self.excuse |= outcome != Outcome::Confirmed;
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.on_disk = plan.clone();
        }
        if outcome == Outcome::Confirmed {
            self.input(Input::Reloaded(plan.generation));
            self.reload(plan.clone());
        }
        self.input(Input::Installed(plan.generation, outcome));
    }

    pub(super) fn move_sessions(&mut self, from: BrokerId, generation: u64, at_most: Option<u32>) {
        let rollout = &self.core.rollout;
        assert!(rollout.is_confirmed(), "moved before the plan was confirmed");
        assert_eq!(generation, rollout.wanted().generation);
        assert_ne!(from, rollout.wanted().primary, "sessions of the primary are cut");
        let dead = self.core.brokers[&from].status() == HealthStatus::Dead;
        let unwanted = self.core.admin[&from] != AdminState::Enabled;
        assert!(
            dead || unwanted || self.demoted.contains(&from),
            "sessions of {from} are cut without a reason"
        );
        let twice = self.moving.iter().any(|(other, ..)| *other == from);
        assert!(!twice, "two orders for one broker");
        let end = self.now + self.random.ms(1, 200);
        self.moving.push((from, at_most, generation, end));
    }

    pub(super) fn end_move(&mut self, from: BrokerId, at_most: Option<u32>, generation: u64) {
        let result = if self.random.below(10) == 0 {
            Err("not permitted".to_owned())
        } else {
            self.input(Input::OldWorkersStopped(generation));
            let n = self.core.topology.priority(&from).unwrap();
            let most = at_most.map_or(u64::MAX, u64::from);
            // The shell looks once more before it closes.
            let serves = self.core.rollout.wanted().primary == from;
            let broker = &mut self.brokers[n];
            let closed = if serves { 0 } else { broker.sessions.min(most) };
            broker.sessions -= closed;
            self.waiting += closed;
            Ok(Closed {
                closed,
                left: broker.sessions,
            })
        };
        self.input(Input::Moved { from, result });
    }

    pub(super) fn look(&mut self) {
        let answer = match self.nginx_up {
            true => Ok(self.running.clone()),
            false => Err("Nginx does not answer".to_owned()),
        };
        let unreachable = (!self.nginx_up).then(|| "Nginx does not run".to_owned());
        self.input(Input::Looked(Look {
            answer,
            unreachable,
            old_workers: None,
        }));
    }
}
