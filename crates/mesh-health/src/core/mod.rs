//! Every decision of mesh-health, without a clock, randomness or IO.
//!
//! What happened goes in through [`Core::handle`] together with the moment; what shall be done comes out of
//! [`Core::next_command`]. Equal inputs give equal commands, so a history replays from its inputs. The shell does
//! as it is told and reports how it went; it decides nothing.
//!
//! Invariants: there is exactly one wanted plan, with one primary; nothing is installed before the running plan
//! was adopted; a healthy, enabled primary is replaced only by a failback or because the operator says so; a dead
//! one is replaced as soon as somebody can take over; no two plans share a generation; no session is closed but
//! of a broker that was demoted, is dead, or shall not serve; what must survive a restart is told before the plan
//! that follows from it.

mod backlog;
pub mod broker;
mod budget;
pub mod election;
mod exchange;
mod failback;
pub mod incident;
pub mod links;
pub mod memory;
mod moment;
mod moves;
mod operator;
pub mod readings;
pub mod rollout;
mod switch;
mod sync;
mod told;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_model::{AdminState, BrokerId, HealthStatus, IncidentPhase, Plan, Topology};
use mesh_runtime::config::Health;

pub use exchange::{Closed, Command, Input, Occurrence};
pub use incident::{Incident, Subject};
pub use memory::Memory;
pub use moment::Moment;
pub use operator::{Granted, Refusal, Request};
pub use view::{BrokerView, LinkView, View};

use backlog::Backlogs;
use broker::{BrokerHealth, Sign};
use budget::Budget;
use election::Candidate;
use incident::Incidents;
use links::Links;
use moves::Moves;
use readings::Readings;
use rollout::{Outcome, Rollout};
use switch::Switch;
use sync::Sync;

/// The state of the mesh, as far as it is known, and what follows from it.
#[derive(Debug)]
pub struct Core {
    rules: Health,
    topology: Topology,
    brokers: BTreeMap<BrokerId, BrokerHealth>,
    admin: BTreeMap<BrokerId, AdminState>,
    readings: BTreeMap<BrokerId, Readings>,
    syncs: BTreeMap<BrokerId, Sync>,
    backlogs: Backlogs,
    links: Links,
    rollout: Rollout,
    switch: Option<Switch>,
    /// Nobody can take over, and that was said.
    blocked: bool,
    /// The primary died since Nginx was last told to reload, so Nginx may be avoiding it.
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
    /// Where the operator wants clients to be sent back to, until they are.
    failback_to: Option<BrokerId>,
    incidents: Incidents,
    /// What was last told to be kept.
    remembered: Memory,
    /// Something of it may have changed.
    unsaved: bool,
    commands: VecDeque<Command>,
}

impl Core {
    /// A core that knows nothing yet. `first` is the plan of a fresh deployment.
    pub fn new(topology: Topology, rules: Health, first: Plan, now: Moment) -> Self {
        let of_each = |id: &BrokerId| (id.clone(), BrokerHealth::new(now));
        let mut core = Self {
            brokers: topology.ids().map(of_each).collect(),
            admin: topology
                .ids()
                .map(|id| (id.clone(), AdminState::Enabled))
                .collect(),
            readings: topology
                .ids()
                .map(|id| (id.clone(), Readings::default()))
                .collect(),
            syncs: topology.ids().map(|id| (id.clone(), Sync::default())).collect(),
            backlogs: Backlogs::default(),
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
            failback_to: None,
            incidents: Incidents::default(),
            remembered: Memory::default(),
            unsaved: false,
            commands: VecDeque::new(),
            rules,
            topology,
        };
        core.remembered = core.memory();
        core
    }

    /// The incidents of late, the oldest first.
    pub fn incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.all()
    }

    /// Takes in what happened, at `now`.
    pub fn handle(&mut self, input: Input, now: Moment) {
        self.take(input, now);
        self.remember();
    }

    fn take(&mut self, input: Input, now: Moment) {
        match input {
            Input::Probe(id, sign) => {
                let Some(broker) = self.brokers.get_mut(&id) else {
                    return;
                };
                let is_news = matches!(sign, Sign::Boot(boot) if broker.past().boot != Some(boot));
                self.unsaved |= is_news;
                if let Some(status) = broker.sign(sign, now, &self.rules) {
                    self.broker_turned(&id, status, now);
                } else if is_news {
                    self.settle(now);
                }
            }
            Input::Canary { from, to, latency } => self.links.arrived(from, to, latency, now),
            Input::Reading {
                broker,
                reading,
                kept,
            } => {
                self.note_sync(&broker, &reading, kept, now);
                self.note_backlog(&broker, &reading, kept);
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
                if matches!(outcome, Outcome::Written(_)) {
                    self.forget_avoided();
                }
                let changes = self.rollout.installed(generation, outcome, now);
                self.rollout_changed(changes, now);
                self.settle(now);
            }
            Input::Looked(look) => {
                let answers = look.answer.is_ok();
                if look.unreachable.is_some() {
                    self.forget_avoided();
                }
                let changes = self.rollout.looked(look, now);
                self.rollout_changed(changes, now);
                if answers {
                    self.balancer_reached(IncidentPhase::Answering, now);
                }
                self.settle(now);
            }
            Input::Reloaded(generation) => {
                // Nginx begins anew with nobody to avoid, unless it finds a new reason.
                let primary = self.rollout.installing().map(|plan| &plan.primary);
                let primary = primary.and_then(|id| self.brokers.get(id));
                self.avoided = primary.is_some_and(|broker| broker.status() == HealthStatus::Dead);
                self.unsaved = true;
                let steps = self
                    .incidents
                    .reach(IncidentPhase::PlanInstalled, now, |incident| {
                        incident.to.is_some() && incident.generation.is_some_and(|own| own <= generation)
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
        self.remember();
    }

    /// The next thing to do, in order.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Nginx does not run, or was started again: it avoids nobody.
    fn forget_avoided(&mut self) {
        self.unsaved |= std::mem::take(&mut self.avoided);
    }

    fn candidates(&self) -> BTreeMap<BrokerId, Candidate> {
        let candidate = |(id, broker): (&BrokerId, &BrokerHealth)| {
            let candidate = Candidate {
                status: broker.status(),
                admin: self.admin[id],
                answering_since: broker.answering_since(),
                in_sync: self.syncs[id].is_in(),
            };
            (id.clone(), candidate)
        };
        self.brokers.iter().map(candidate).collect()
    }
}

#[cfg(test)]
mod tests;
