//! Every decision of mesh-health, without a clock, randomness or IO.
//!
//! What happened goes in through [`Core::handle`] together with the moment; what shall be done comes out of
//! [`Core::next_command`]. Equal inputs give equal commands, so a history replays from its inputs. The shell does
//! as it is told and reports how it went; it decides nothing.
//!
//! Invariants: there is exactly one wanted plan, with one primary; nothing is installed before the running plan
//! was adopted; a healthy, enabled primary is replaced only by a failback or because the operator says so; a dead
//! one is replaced as soon as somebody can take over; no two plans share a generation; no session is closed but
//! of a broker that was demoted, is dead, or shall not serve.

pub mod broker;
mod budget;
pub mod election;
mod exchange;
pub mod incident;
pub mod links;
mod moment;
mod moves;
mod operator;
pub mod readings;
pub mod rollout;
mod switch;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_model::{AdminState, BrokerId, EventName, HealthStatus, IncidentPhase, LinkState, Plan, Topology};
use mesh_runtime::config::Health;

pub use exchange::{Closed, Command, Input, Occurrence};
pub use incident::Incident;
pub use moment::Moment;
pub use operator::{Granted, Refusal, Request};
pub use view::{BrokerView, LinkView, View};

use broker::BrokerHealth;
use budget::Budget;
use election::Candidate;
use incident::{Incidents, Step};
use links::Links;
use moves::Moves;
use readings::Readings;
use rollout::{Rollout, RolloutChange};
use switch::Switch;

/// The state of the mesh, as far as it is known, and what follows from it.
#[derive(Debug)]
pub struct Core {
    rules: Health,
    topology: Topology,
    brokers: BTreeMap<BrokerId, BrokerHealth>,
    admin: BTreeMap<BrokerId, AdminState>,
    readings: BTreeMap<BrokerId, Readings>,
    links: Links,
    rollout: Rollout,
    switch: Option<Switch>,
    /// Nobody can take over, and that was said.
    blocked: bool,
    /// The primary died and nobody has taken over yet, so Nginx may be avoiding it.
    avoided: bool,
    /// Since when somebody could take over in need.
    in_need: Option<Moment>,
    /// Brokers that stopped being primary and may still have sessions.
    demoted: BTreeSet<BrokerId>,
    moves: Moves,
    can_move: Option<Result<(), String>>,
    budget: Budget,
    /// A failback is held back, and that was said.
    pinned: bool,
    failback_due: Option<Moment>,
    incidents: Incidents,
    commands: VecDeque<Command>,
}

impl Core {
    /// A core that knows nothing yet. `first` is the plan of a fresh deployment.
    pub fn new(topology: Topology, rules: Health, first: Plan, now: Moment) -> Self {
        let of_each = |id: &BrokerId| (id.clone(), BrokerHealth::new(now));
        Self {
            brokers: topology.ids().map(of_each).collect(),
            admin: topology
                .ids()
                .map(|id| (id.clone(), AdminState::Enabled))
                .collect(),
            readings: topology
                .ids()
                .map(|id| (id.clone(), Readings::default()))
                .collect(),
            links: Links::new(topology.links()),
            rollout: Rollout::new(first),
            switch: None,
            blocked: false,
            avoided: false,
            in_need: None,
            demoted: BTreeSet::new(),
            moves: Moves::default(),
            can_move: None,
            budget: Budget::default(),
            pinned: false,
            failback_due: None,
            incidents: Incidents::default(),
            commands: VecDeque::new(),
            rules,
            topology,
        }
    }

    /// The same with what the operator wanted before the daemon was restarted; unknown brokers are passed over.
    pub fn with_admin(mut self, wanted: BTreeMap<BrokerId, AdminState>) -> Self {
        for (id, wanted) in wanted {
            if let Some(admin) = self.admin.get_mut(&id) {
                *admin = wanted;
            }
        }
        self
    }

    /// The incidents of late, the oldest first.
    pub fn incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.all()
    }

    /// Takes in what happened, at `now`.
    pub fn handle(&mut self, input: Input, now: Moment) {
        match input {
            Input::Probe(id, sign) => {
                let change = self
                    .brokers
                    .get_mut(&id)
                    .and_then(|b| b.sign(sign, now, &self.rules));
                if let Some(status) = change {
                    self.broker_turned(&id, status, now);
                }
            }
            Input::Canary { from, to, latency } => self.links.arrived(from, to, latency, now),
            Input::Reading {
                broker,
                reading,
                kept,
            } => {
                if let Some(readings) = self.readings.get_mut(&broker) {
                    readings.take(reading, kept, now);
                }
                self.note_client_back(now);
            }
            Input::ReadingsLost(id) => {
                if let Some(readings) = self.readings.get_mut(&id) {
                    readings.forget();
                }
            }
            Input::Found(found) => {
                self.rollout.adopt(found, &self.topology);
                self.settle(now);
            }
            Input::Installed(generation, outcome) => {
                let changes = self.rollout.installed(generation, outcome, now);
                self.rollout_changed(changes);
                self.settle(now);
            }
            Input::Looked(look) => {
                let changes = self.rollout.looked(look, now);
                self.rollout_changed(changes);
                self.settle(now);
            }
            Input::Reloaded(generation) => {
                let steps = self
                    .incidents
                    .reach(IncidentPhase::PlanInstalled, now, |incident| {
                        incident.generation.is_some_and(|own| own <= generation)
                    });
                self.tell(steps);
            }
            Input::CanMoveSessions(result) => self.can_move = Some(result),
            Input::OldWorkersStopped(generation) => {
                let steps = self
                    .incidents
                    .reach(IncidentPhase::OldWorkersStopped, now, |incident| {
                        incident.has(IncidentPhase::GenerationConfirmed)
                            && incident.generation.is_some_and(|own| own <= generation)
                    });
                self.tell(steps);
            }
            Input::Moved { from, result } => {
                self.sessions_moved(&from, result, now);
                self.settle(now);
            }
            Input::Lagged(lag) => {
                for broker in self.brokers.values_mut() {
                    broker.excuse(lag, now);
                }
                self.links.excuse(lag, now);
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let brokers = self.brokers.values().filter_map(|b| b.deadline(&self.rules));
        let others = [
            Some(self.links.deadline(&self.rules)),
            self.rollout.deadline(),
            self.moves.deadline(),
            self.in_need.map(|since| since + self.rules.need_grace),
            self.failback_due,
        ];
        brokers.chain(others.into_iter().flatten()).min()
    }

    /// Draws the consequences of time.
    pub fn handle_timeout(&mut self, now: Moment) {
        let rules = &self.rules;
        let timeouts = self.brokers.iter_mut();
        let changed: Vec<_> = timeouts
            .filter_map(|(id, broker)| Some((id.clone(), broker.timeout(now, rules)?)))
            .collect();
        for (id, status) in changed {
            self.broker_turned(&id, status, now);
        }
        if now >= self.links.deadline(&self.rules) {
            self.judge_links(now);
        }
        self.settle(now);
    }

    /// The next thing to do, in order.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn broker_turned(&mut self, id: &BrokerId, status: HealthStatus, now: Moment) {
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
        if status == HealthStatus::Dead {
            let first_sign = self.brokers[id].first_sign().unwrap_or(now);
            let is_primary = *id == self.rollout.wanted().primary;
            let reason = occurrence.reason.as_deref();
            let steps = self.incidents.died(id, reason, first_sign, is_primary, now);
            self.tell(steps);
        }
        occurrence.incident = self.incidents.open(id).map(|incident| incident.number);
        self.emit(occurrence);
        if status == HealthStatus::Healthy {
            let steps = self
                .incidents
                .reach(IncidentPhase::Recovered, now, |i| i.broker == *id);
            self.tell(steps);
        }
        self.judge_links(now);
        self.settle(now);
    }

    fn judge_links(&mut self, now: Moment) {
        let brokers = &self.brokers;
        let status = |id: &BrokerId| brokers[id].status();
        for (link, before, state) in self.links.judge(status, now, &self.rules) {
            let name = match (before, state) {
                (_, LinkState::Down) => EventName::LinkDown,
                (LinkState::Down, LinkState::Up) => EventName::LinkUp,
                _ => continue,
            };
            let mut occurrence = Occurrence::new(name);
            occurrence.from = Some(link.from);
            occurrence.to = Some(link.to);
            occurrence.reason = (state == LinkState::Down).then(|| {
                format!(
                    "no canary for {:.1?} though both ends are healthy",
                    self.rules.link_down_after
                )
            });
            self.emit(occurrence);
        }
    }

    fn rollout_changed(&mut self, changes: Vec<RolloutChange>) {
        for change in changes {
            let (name, reason) = match change {
                RolloutChange::Confirmed => continue,
                RolloutChange::Rejected(reason) => (EventName::BalancerRejected, Some(reason)),
                RolloutChange::Restored => (EventName::BalancerRestored, None),
            };
            let mut occurrence = Occurrence::new(name);
            occurrence.generation = Some(self.rollout.wanted().generation);
            occurrence.reason = reason;
            self.emit(occurrence);
        }
    }

    fn candidates(&self) -> BTreeMap<BrokerId, Candidate> {
        let candidate = |(id, broker): (&BrokerId, &BrokerHealth)| {
            let candidate = Candidate {
                status: broker.status(),
                admin: self.admin[id],
                answering_since: broker.answering_since(),
            };
            (id.clone(), candidate)
        };
        self.brokers.iter().map(candidate).collect()
    }

    /// A client was seen at the new primary.
    fn note_client_back(&mut self, now: Moment) {
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

    fn tell(&mut self, steps: Vec<Step>) {
        for (incident, broker, phase, elapsed) in steps {
            self.commands.push_back(Command::Step {
                incident,
                broker,
                phase,
                elapsed,
            });
        }
    }

    fn emit(&mut self, occurrence: Occurrence) {
        self.commands.push_back(Command::Emit(occurrence));
    }
}

#[cfg(test)]
mod tests;
