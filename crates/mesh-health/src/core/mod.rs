//! Every decision of mesh-health, without a clock, randomness or IO.
//!
//! What happened goes in through [`Core::handle`] together with the moment; what shall be done comes out of
//! [`Core::next_command`]. Equal inputs give equal commands, so a history replays from its inputs. The shell does
//! as it is told and reports how it went; it decides nothing.
//!
//! Invariants: there is exactly one wanted plan, with one primary; nothing is installed before the running plan
//! was adopted; a healthy, enabled primary is never replaced; a dead one is replaced as soon as somebody can
//! take over; no two plans share a generation.

pub mod broker;
pub mod election;
pub mod links;
mod moment;
pub mod readings;
pub mod rollout;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesh_model::{AdminState, BrokerId, EventName, HealthStatus, LinkState, Plan, Topology};
use mesh_runtime::config::Health;

pub use moment::Moment;
pub use view::{BrokerView, LinkView, View};

use broker::{BrokerHealth, Sign};
use election::{Candidate, Verdict, elect, standby_order};
use links::Links;
use readings::{Reading, Readings};
use rollout::{Found, Look, Outcome, Rollout, RolloutChange};

/// What the shell reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A probe of this broker learnt something.
    Probe(BrokerId, Sign),
    /// A canary that was published at one broker arrived at another.
    Canary {
        /// Where it was published.
        from: BrokerId,
        /// Where it arrived.
        to: BrokerId,
        /// How long it took.
        latency: Duration,
    },
    /// This broker told something of itself.
    Reading {
        /// The broker.
        broker: BrokerId,
        /// What it told.
        reading: Reading,
        /// Whether it is a retained value of unknown age.
        kept: bool,
    },
    /// Nothing that this broker told of itself holds any longer.
    ReadingsLost(BrokerId),
    /// What the balancer runs at the start.
    Found(Found),
    /// The installation of this generation ended.
    Installed(u64, Outcome),
    /// The balancer was looked at.
    Looked(Look),
    /// The operator wants something else of a broker.
    Admin(BrokerId, AdminState),
    /// The daemon's own loop was held up for this long, so silence meanwhile proves nothing.
    Lagged(Duration),
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make the balancer run this plan, and report with [`Input::Installed`].
    Install(Plan),
    /// Tell everyone.
    Emit(Occurrence),
}

/// An event, without the wall-clock time that the shell adds.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// What happened.
    pub name: EventName,
    /// The broker concerned.
    pub broker: Option<BrokerId>,
    /// The sending end of a link, or the broker that clients leave.
    pub from: Option<BrokerId>,
    /// The receiving end of a link, or the broker that clients go to.
    pub to: Option<BrokerId>,
    /// The generation of a plan.
    pub generation: Option<u64>,
    /// How long it took.
    pub elapsed: Option<Duration>,
    /// Why.
    pub reason: Option<String>,
}

impl Occurrence {
    fn new(name: EventName) -> Self {
        Self {
            name,
            broker: None,
            from: None,
            to: None,
            generation: None,
            elapsed: None,
            reason: None,
        }
    }
}

/// A change of the primary that is under way.
#[derive(Debug, Clone)]
struct Failover {
    from: BrokerId,
    to: BrokerId,
    generation: u64,
    first_sign: Moment,
    switched: bool,
}

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
    failover: Option<Failover>,
    /// Nobody can take over, and that was said.
    blocked: bool,
    /// The primary died and nobody has taken over yet, so Nginx may be avoiding it.
    avoided: bool,
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
            failover: None,
            blocked: false,
            avoided: false,
            commands: VecDeque::new(),
            rules,
            topology,
        }
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
            Input::Admin(id, wanted) => {
                if let Some(admin) = self.admin.get_mut(&id) {
                    *admin = wanted;
                    self.settle(now);
                }
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
        let others = [Some(self.links.deadline(&self.rules)), self.rollout.deadline()];
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
        self.emit(occurrence);
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

    /// Compares what is with what should be, from scratch, and does what is missing.
    fn settle(&mut self, now: Moment) {
        if !self.rollout.is_adopted() {
            return;
        }
        let candidates = self.candidates();
        let primary = self.rollout.wanted().primary.clone();
        match elect(self.rollout.wanted(), &candidates) {
            Verdict::Keep => self.keep(&primary),
            Verdict::Wait => self.avoided |= candidates[&primary].status == HealthStatus::Dead,
            Verdict::Promote(next) => self.promote(next, &candidates, now),
            Verdict::Blocked => self.block(&primary),
        }
        self.follow_failover(now);
        if let Some(plan) = self.rollout.next_install(now) {
            self.commands.push_back(Command::Install(plan));
        }
    }

    fn keep(&mut self, primary: &BrokerId) {
        self.blocked = false;
        if std::mem::take(&mut self.avoided) {
            // It died, nobody took over, and it is back. Nginx avoids a primary that once refused a connection
            // for `fail_timeout`, and only a new generation makes it forget.
            let order = self.rollout.wanted().standbys.clone();
            self.rollout.issue(primary.clone(), order);
        }
    }

    fn block(&mut self, primary: &BrokerId) {
        self.avoided = true;
        if !std::mem::replace(&mut self.blocked, true) {
            let mut occurrence = Occurrence::new(EventName::FailoverBlocked);
            occurrence.from = Some(primary.clone());
            occurrence.reason = Some("no enabled broker answers".to_owned());
            self.emit(occurrence);
        }
    }

    fn promote(&mut self, next: BrokerId, candidates: &BTreeMap<BrokerId, Candidate>, now: Moment) {
        let from = self.rollout.wanted().primary.clone();
        let leaving = self.brokers.get(&from);
        let died = leaving.filter(|broker| broker.status() == HealthStatus::Dead);
        let first_sign = died.and_then(BrokerHealth::first_sign).unwrap_or(now);
        let reason = match died.map(BrokerHealth::reason) {
            Some(reason) => format!("{from} is dead: {}", reason.unwrap_or("it does not answer")),
            None => format!("{from} is not to serve"),
        };
        let order = standby_order(&self.topology, candidates);
        let generation = self.rollout.issue(next.clone(), order);
        self.blocked = false;
        self.avoided = false;
        let mut occurrence = Occurrence::new(EventName::FailoverStarted);
        occurrence.from = Some(from.clone());
        occurrence.to = Some(next.clone());
        occurrence.generation = Some(generation);
        occurrence.reason = Some(reason);
        self.emit(occurrence);
        self.failover = Some(Failover {
            from,
            to: next,
            generation,
            first_sign,
            switched: false,
        });
    }

    fn follow_failover(&mut self, now: Moment) {
        let Some(mut failover) = self.failover.take() else {
            return;
        };
        if failover.to != self.rollout.wanted().primary || !self.rollout.is_confirmed() {
            self.failover = Some(failover);
            return;
        }
        // The order may have been issued again under a later number before it was confirmed.
        failover.generation = self.rollout.wanted().generation;
        if !std::mem::replace(&mut failover.switched, true) {
            self.emit(Self::step(EventName::FailoverSwitched, &failover, now));
        }
        if self.brokers[&failover.to].status() == HealthStatus::Healthy {
            self.emit(Self::step(EventName::FailoverCompleted, &failover, now));
        } else {
            self.failover = Some(failover);
        }
    }

    fn step(name: EventName, failover: &Failover, now: Moment) -> Occurrence {
        let mut occurrence = Occurrence::new(name);
        occurrence.from = Some(failover.from.clone());
        occurrence.to = Some(failover.to.clone());
        occurrence.generation = Some(failover.generation);
        occurrence.elapsed = Some(now.since(failover.first_sign));
        occurrence
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

    fn emit(&mut self, occurrence: Occurrence) {
        self.commands.push_back(Command::Emit(occurrence));
    }
}

#[cfg(test)]
mod tests;
