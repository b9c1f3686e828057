//! What happens to brokers, links and the balancer, as events and as steps of incidents.

use mesh_model::{BrokerId, EventName, HealthStatus, IncidentPhase, Link, LinkState};

use super::incident::{Step, Subject};
use super::links::Turn;
use super::readings::{Reading, Readings};
use super::rollout::RolloutChange;
use super::{Command, Core, Moment, Occurrence, sync};

impl Core {
    pub(super) fn broker_turned(&mut self, id: &BrokerId, status: HealthStatus, now: Moment) {
        let name = match status {
            HealthStatus::Unknown => return,
            HealthStatus::Healthy => EventName::BrokerHealthy,
            HealthStatus::Suspect => EventName::BrokerSuspect,
            HealthStatus::Dead => EventName::BrokerDead,
            HealthStatus::Recovering => EventName::BrokerRecovering,
        };
        let mut occurrence = Occurrence::new(name);
        occurrence.broker = Some(id.clone());
        occurrence.reason = self.brokers[id].reason().map(str::to_owned);
        if let Some(sync) = self.syncs.get_mut(id) {
            match status {
                HealthStatus::Dead => sync.died(),
                _ => sync.returned(now),
            }
        }
        if status == HealthStatus::Dead {
            let first_sign = self.brokers[id].first_sign().unwrap_or(now);
            let is_primary = *id == self.rollout.wanted().primary;
            let reason = occurrence.reason.as_deref();
            let steps = self.incidents.died(id, reason, first_sign, is_primary, now);
            self.tell(steps);
        }
        self.unsaved = true;
        occurrence.incident = self.incidents.of_broker(id).map(|incident| incident.number);
        self.emit(occurrence);
        if status == HealthStatus::Healthy {
            let steps = self
                .incidents
                .reach(IncidentPhase::Recovered, now, |i| i.is_of(id));
            self.tell(steps);
        }
        self.judge_links(now);
        self.settle(now);
    }

    pub(super) fn judge_links(&mut self, now: Moment) {
        let brokers = &self.brokers;
        let status = |id: &BrokerId| brokers[id].status();
        for Turn { link, state, last } in self.links.judge(status, now, &self.rules) {
            let subject = Subject::Link(link.clone());
            let incident = self.incidents.open(&subject).map(|open| open.number);
            let name = match (state, incident) {
                (LinkState::Down, _) => EventName::LinkDown,
                (LinkState::Up, Some(_)) => EventName::LinkUp,
                _ => continue,
            };
            let mut occurrence = Occurrence::new(name);
            occurrence.from = Some(link.from);
            occurrence.to = Some(link.to);
            occurrence.incident = incident;
            if state == LinkState::Down {
                let silence = self.rules.link_down_after;
                let reason = format!("no canary for {silence:.1?} though both ends are healthy");
                let steps = self
                    .incidents
                    .failed(subject.clone(), None, Some(&reason), last, now);
                occurrence.incident = self.incidents.open(&subject).map(|open| open.number);
                occurrence.reason = Some(reason);
                self.tell(steps);
                self.emit(occurrence);
            } else {
                self.emit(occurrence);
                let recovered = IncidentPhase::Recovered;
                let steps = self.incidents.reach(recovered, now, |i| i.subject == subject);
                self.tell(steps);
            }
        }
    }

    pub(super) fn rollout_changed(&mut self, changes: Vec<RolloutChange>, now: Moment) {
        for change in changes {
            let generation = Some(self.rollout.wanted().generation);
            let (name, reason) = match change {
                RolloutChange::Confirmed => continue,
                RolloutChange::Rejected(reason) => (EventName::BalancerRejected, Some(reason)),
                RolloutChange::Restored => (EventName::BalancerRestored, None),
            };
            if let Some(reason) = &reason {
                let (subject, well) = (Subject::Balancer, self.rollout.well_at());
                let steps = self
                    .incidents
                    .failed(subject, generation, Some(reason), well, now);
                self.tell(steps);
            }
            let mut occurrence = Occurrence::new(name);
            occurrence.generation = generation;
            occurrence.incident = self.incidents.open(&Subject::Balancer).map(|open| open.number);
            occurrence.reason = reason;
            self.emit(occurrence);
        }
        if self.rollout.is_confirmed() && self.rollout.error().is_none() {
            // Also of an incident that a predecessor has left open.
            self.balancer_reached(IncidentPhase::Answering, now);
            self.balancer_reached(IncidentPhase::Recovered, now);
        }
    }

    pub(super) fn balancer_reached(&mut self, phase: IncidentPhase, now: Moment) {
        let steps = self
            .incidents
            .reach(phase, now, |i| i.subject == Subject::Balancer);
        self.tell(steps);
    }

    /// Whether a broker has what its peers have decides whether clients may be sent to it.
    pub(super) fn note_sync(&mut self, broker: &BrokerId, reading: &Reading, kept: bool, now: Moment) {
        let (Reading::Retained(retained), Some(sync)) = (reading, self.syncs.get_mut(broker)) else {
            return;
        };
        let Some(turn) = sync.take(retained.in_sync, kept, now) else {
            return;
        };
        let (name, elapsed) = match turn {
            sync::Turn::In(elapsed) => (EventName::MeshInSync, Some(elapsed)),
            sync::Turn::Out => (EventName::MeshOutOfSync, None),
        };
        let mut occurrence = Occurrence::new(name);
        occurrence.broker = Some(broker.clone());
        occurrence.elapsed = elapsed;
        self.emit(occurrence);
        self.settle(now);
    }

    /// What waits for a peer that is away is told when it nearly fills the bounds, and when it does.
    pub(super) fn note_backlog(&mut self, broker: &BrokerId, reading: &Reading, kept: bool) {
        let Reading::Link(peer, counter, count) = reading else {
            return;
        };
        let (from, to) = (broker.clone(), peer.clone());
        let link = Link { from, to };
        if let Some(name) = self.backlogs.take(link.clone(), *counter, *count, kept) {
            let mut occurrence = Occurrence::new(name);
            occurrence.reason = (name == EventName::LinkLosing).then(|| format!("{count} messages so far"));
            occurrence.from = Some(link.from);
            occurrence.to = Some(link.to);
            self.emit(occurrence);
        }
    }

    /// A client was seen at the new primary.
    pub(super) fn note_client_back(&mut self, now: Moment) {
        let primary = &self.rollout.wanted().primary;
        let clients = self.readings.get(primary).and_then(Readings::clients);
        if clients.is_some_and(|count| count > 0) {
            let steps = self
                .incidents
                .reach(IncidentPhase::FirstClientBack, now, |incident| {
                    incident.has(IncidentPhase::GenerationConfirmed) && incident.to.as_ref() == Some(primary)
                });
            self.tell(steps);
        }
    }

    pub(super) fn tell(&mut self, steps: Vec<Step>) {
        for (incident, subject, phase, elapsed) in steps {
            self.unsaved = true;
            let mut occurrence = Occurrence::new(EventName::IncidentStep);
            match subject {
                Subject::Broker(broker) => occurrence.broker = Some(broker),
                Subject::Link(link) => {
                    occurrence.from = Some(link.from);
                    occurrence.to = Some(link.to);
                }
                Subject::Balancer => {}
            }
            occurrence.incident = Some(incident);
            occurrence.phase = Some(phase);
            occurrence.elapsed = Some(elapsed);
            self.emit(occurrence);
        }
    }

    pub(super) fn emit(&mut self, occurrence: Occurrence) {
        self.commands.push_back(Command::Emit(occurrence));
    }
}
