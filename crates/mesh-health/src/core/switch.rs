//! From what is believed to what is done: who is to serve, which plan says so, whose sessions are moved.
//!
//! Everything here is level-triggered: [`Core::settle`] compares what is with what should be after whatever
//! happened, so nothing is missed because a notification was.

use std::collections::BTreeMap;

use mesh_model::{AdminState, BrokerId, EventName, HealthStatus, IncidentPhase};

use super::broker::BrokerHealth;
use super::election::{Candidate, Verdict, elect, lists_all_enabled, standby_order};
use super::moves::Pace;
use super::{Closed, Command, Core, Moment, Occurrence};

/// A change of the primary that is under way.
#[derive(Debug, Clone)]
pub(super) struct Switch {
    pub(super) kind: Kind,
    pub(super) from: BrokerId,
    pub(super) to: BrokerId,
    pub(super) generation: u64,
    /// When it became necessary.
    pub(super) since: Moment,
    pub(super) incident: Option<u64>,
    /// The balancer runs it.
    pub(super) switched: bool,
}

/// Why the primary changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It must not serve any longer.
    Failover,
    /// Another is preferred.
    Failback,
}

impl Core {
    /// Compares what is with what should be, from scratch, and does what is missing.
    pub(super) fn settle(&mut self, now: Moment) {
        if !self.rollout.is_adopted() {
            return;
        }
        self.failback_due = None;
        self.note_reborn();
        let candidates = self.candidates();
        let verdict = elect(self.rollout.wanted(), &candidates);
        if !self.must_pause(&verdict, &candidates, now) {
            match verdict {
                Verdict::Keep => self.keep(&candidates, now),
                Verdict::Wait => self.note_avoided(&candidates),
                Verdict::Promote(next) => self.promote(next, &candidates, now),
                Verdict::Blocked => self.block(&candidates),
            }
        }
        self.list_enabled(&candidates);
        self.follow_switch(now);
        if let Some(plan) = self.rollout.next_install(now) {
            // First what must not be forgotten if the daemon is killed meanwhile.
            self.remember();
            self.commands.push_back(Command::Install(plan));
        }
        self.move_sessions(now);
    }

    /// Whether a choice in need waits for a better one. Where all brokers hang at once, this keeps clients from
    /// being sent to one that is only dead a moment later; where all return at once, it keeps them where they are.
    fn must_pause(
        &mut self,
        verdict: &Verdict,
        candidates: &BTreeMap<BrokerId, Candidate>,
        now: Moment,
    ) -> bool {
        let in_need = match verdict {
            Verdict::Promote(next) => !candidates[next].is_eligible(),
            Verdict::Blocked => !self.blocked && self.primary_is_back(),
            Verdict::Keep | Verdict::Wait => false,
        };
        if !in_need {
            self.in_need = None;
            return false;
        }
        self.note_avoided(candidates);
        let since = *self.in_need.get_or_insert(now);
        now < since + self.rules.need_grace
    }

    /// Whether the primary died, but was started again and only has to answer.
    fn primary_is_back(&self) -> bool {
        let primary = self.brokers.get(&self.rollout.wanted().primary);
        primary.is_some_and(BrokerHealth::is_back)
    }

    /// Nginx avoids a primary that once refused a connection.
    fn note_avoided(&mut self, candidates: &BTreeMap<BrokerId, Candidate>) {
        let primary = candidates.get(&self.rollout.wanted().primary);
        if primary.is_some_and(|primary| primary.status == HealthStatus::Dead) {
            self.unsaved |= !std::mem::replace(&mut self.avoided, true);
        }
    }

    /// The same if the primary was started again while nobody watched it. Nginx avoids no standby.
    fn note_reborn(&mut self) {
        let primary = &self.rollout.wanted().primary;
        for (id, broker) in &mut self.brokers {
            if broker.take_reborn() && id == primary {
                self.unsaved |= !std::mem::replace(&mut self.avoided, true);
            }
        }
    }

    fn keep(&mut self, candidates: &BTreeMap<BrokerId, Candidate>, now: Moment) {
        self.blocked = false;
        let wanted = self.rollout.wanted();
        let answers = candidates.get(&wanted.primary).is_some_and(Candidate::answers);
        if answers && self.rollout.is_confirmed() && self.avoided {
            // It died, nobody took over, and it is back. Nginx avoids a primary that once refused a connection
            // for `fail_timeout`, and only a reload makes it forget.
            let (primary, order) = (wanted.primary.clone(), wanted.standbys.clone());
            self.rollout.issue(primary, order);
        }
        self.finish_failback(candidates, now);
        self.consider_failback(candidates, now);
    }

    /// Has the plan list the brokers that clients may be sent to, which is up to the operator alone.
    fn list_enabled(&mut self, candidates: &BTreeMap<BrokerId, Candidate>) {
        let wanted = self.rollout.wanted();
        if !lists_all_enabled(wanted, candidates) {
            let primary = wanted.primary.clone();
            let order = standby_order(&self.topology, candidates);
            self.rollout.change(primary, order);
        }
    }

    fn block(&mut self, candidates: &BTreeMap<BrokerId, Candidate>) {
        self.in_need = None;
        self.note_avoided(candidates);
        if !std::mem::replace(&mut self.blocked, true) {
            let mut occurrence = Occurrence::new(EventName::FailoverBlocked);
            let primary = self.rollout.wanted().primary.clone();
            occurrence.incident = self.incidents.of_broker(&primary).map(|incident| incident.number);
            occurrence.from = Some(primary);
            occurrence.reason = Some("no enabled broker answers".to_owned());
            self.emit(occurrence);
        }
    }

    fn promote(&mut self, next: BrokerId, candidates: &BTreeMap<BrokerId, Candidate>, now: Moment) {
        let from = self.rollout.wanted().primary.clone();
        let leaving = self.brokers.get(&from);
        let died = leaving.filter(|broker| broker.status() == HealthStatus::Dead);
        let since = died.and_then(BrokerHealth::first_sign).unwrap_or(now);
        let reason = match died.map(BrokerHealth::reason) {
            Some(reason) => format!("{from} is dead: {}", reason.unwrap_or("it does not answer")),
            None => format!("{from} is {}", self.admin[&from]),
        };
        self.in_need = None;
        self.switch_to(next, Kind::Failover, reason, candidates, since);
    }

    /// Makes `next` the primary of a new plan, and returns its generation.
    pub(super) fn switch_to(
        &mut self,
        next: BrokerId,
        kind: Kind,
        reason: String,
        candidates: &BTreeMap<BrokerId, Candidate>,
        since: Moment,
    ) -> u64 {
        // Until the next reload, which a successor may have to do.
        self.note_avoided(candidates);
        let from = self.rollout.wanted().primary.clone();
        let order = standby_order(&self.topology, candidates);
        let generation = self.rollout.issue(next.clone(), order);
        self.blocked = false;
        self.pinned = false;
        self.failback_due = None;
        self.failback_to = None;
        self.unsaved = true;
        self.demoted.insert(from.clone());
        let mut incident = None;
        if kind == Kind::Failover {
            self.incidents.replaced(&from, &next, generation);
            incident = self.incidents.of_broker(&from).map(|open| open.number);
        }
        let switch = Switch {
            kind,
            from,
            to: next,
            generation,
            since,
            incident,
            switched: false,
        };
        let name = match kind {
            Kind::Failover => EventName::FailoverStarted,
            Kind::Failback => EventName::FailbackStarted,
        };
        let mut occurrence = switch.occurrence(name);
        occurrence.reason = Some(reason);
        self.emit(occurrence);
        self.switch = Some(switch);
        generation
    }

    fn follow_switch(&mut self, now: Moment) {
        let Some(mut switch) = self.switch.take() else {
            return;
        };
        if switch.to != self.rollout.wanted().primary || !self.rollout.is_confirmed() {
            self.switch = Some(switch);
            return;
        }
        // The order may have been issued again under a later number before it was confirmed.
        switch.generation = self.rollout.wanted().generation;
        let elapsed = Some(now.since(switch.since));
        if !std::mem::replace(&mut switch.switched, true) {
            self.unsaved |= self.failback_to.take().is_some();
            let of_switch = |incident: &super::Incident| Some(incident.number) == switch.incident;
            let confirmed = IncidentPhase::GenerationConfirmed;
            let steps = self.incidents.reach(confirmed, now, of_switch);
            self.tell(steps);
            self.note_client_back(now);
            if switch.kind == Kind::Failover {
                let mut occurrence = switch.occurrence(EventName::FailoverSwitched);
                occurrence.elapsed = elapsed;
                self.emit(occurrence);
            }
        }
        if self.brokers[&switch.to].status() != HealthStatus::Healthy {
            self.switch = Some(switch);
            return;
        }
        let name = match switch.kind {
            Kind::Failover => EventName::FailoverCompleted,
            Kind::Failback => EventName::FailbackCompleted,
        };
        let mut occurrence = switch.occurrence(name);
        occurrence.elapsed = elapsed;
        self.emit(occurrence);
    }

    /// Orders what is to be closed of Nginx's sessions. Nothing is closed before Nginx sends clients to a primary
    /// that answers: they would be no better off.
    fn move_sessions(&mut self, now: Moment) {
        let primary = &self.rollout.wanted().primary;
        self.unsaved |= self.demoted.remove(primary);
        let pace = |id: &BrokerId| match (self.brokers[id].status(), self.admin[id]) {
            _ if id == primary => None,
            (HealthStatus::Dead, _) | (_, AdminState::Disabled) => Some(Pace::AtOnce),
            (_, AdminState::Draining) => Some(Pace::Over(self.rules.drain_time)),
            _ => self.demoted.contains(id).then_some(Pace::AtOnce),
        };
        let ids = self.topology.ids();
        let wanted = ids.filter_map(|id| Some((id.clone(), pace(id)?))).collect();
        let answers = matches!(
            self.brokers[primary].status(),
            HealthStatus::Healthy | HealthStatus::Suspect | HealthStatus::Recovering
        );
        let may_move = answers && self.rollout.is_confirmed();
        self.moves.settle(&wanted, may_move, now);
        while let Some((from, at_most)) = self.moves.next_order(now) {
            self.commands.push_back(Command::MoveSessions {
                from,
                generation: self.rollout.wanted().generation,
                at_most,
            });
        }
    }

    pub(super) fn sessions_moved(&mut self, from: &BrokerId, result: Result<Closed, String>, now: Moment) {
        let Some(progress) = self.moves.moved(from, result, now) else {
            return;
        };
        if progress.emptied {
            let steps = self.incidents.reach(IncidentPhase::SessionsCut, now, |incident| {
                incident.is_of(from) && incident.has(IncidentPhase::GenerationConfirmed)
            });
            self.tell(steps);
        }
        let Some(closed) = progress.finished else {
            return;
        };
        self.unsaved |= self.demoted.remove(from);
        if closed > 0 {
            let mut occurrence = Occurrence::new(EventName::SessionsMoved);
            occurrence.from = Some(from.clone());
            occurrence.to = Some(self.rollout.wanted().primary.clone());
            occurrence.generation = Some(self.rollout.wanted().generation);
            let open = self.incidents.of_broker(from);
            occurrence.incident = open.map(|incident| incident.number);
            occurrence.elapsed = open.map(|incident| now.since(incident.began));
            occurrence.reason = Some(format!("{closed} closed"));
            self.emit(occurrence);
        }
        if self.admin[from] == AdminState::Draining {
            let mut occurrence = Occurrence::new(EventName::BrokerDrained);
            occurrence.broker = Some(from.clone());
            self.emit(occurrence);
        }
    }
}

impl Switch {
    fn occurrence(&self, name: EventName) -> Occurrence {
        let mut occurrence = Occurrence::new(name);
        occurrence.from = Some(self.from.clone());
        occurrence.to = Some(self.to.clone());
        occurrence.generation = Some(self.generation);
        occurrence.incident = self.incident;
        occurrence
    }
}
