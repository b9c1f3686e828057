//! Faults of brokers, each from its first sign to its end.
//!
//! Guarantees: each step of an incident is noted once, at the moment it was first true; a broker that dies again
//! before it was healthy goes on with the same incident, unless it had to be replaced a second time.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_model::{BrokerId, IncidentPhase};

use super::Moment;

/// How many are remembered.
const KEPT: usize = 100;

/// One fault of one broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Counts from 1 at the start of the daemon.
    pub number: u64,
    /// The broker that failed.
    pub broker: BrokerId,
    /// Where its clients were sent.
    pub to: Option<BrokerId>,
    /// The generation of the plan that did so.
    pub generation: Option<u64>,
    /// What was wrong.
    pub reason: Option<String>,
    /// The first sign.
    pub began: Moment,
    /// The steps in the order in which they happened.
    pub phases: Vec<(IncidentPhase, Moment)>,
}

impl Incident {
    /// Whether this step was reached.
    pub fn has(&self, phase: IncidentPhase) -> bool {
        self.phases.iter().any(|(reached, _)| *reached == phase)
    }

    /// Whether it lasts.
    pub fn is_open(&self) -> bool {
        !self.has(IncidentPhase::Recovered)
    }
}

/// A step that was reached: of which incident, of which broker, which, and how long after the first sign.
pub type Step = (u64, BrokerId, IncidentPhase, Duration);

/// The incidents of late.
#[derive(Debug, Default)]
pub struct Incidents {
    last: u64,
    all: VecDeque<Incident>,
}

impl Incidents {
    /// All that are remembered, the oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.all.iter()
    }

    /// The open incident of `broker`.
    pub fn open(&self, broker: &BrokerId) -> Option<&Incident> {
        self.all.iter().rfind(|i| i.broker == *broker && i.is_open())
    }

    /// `broker` died. Returns the steps of a new incident, if it is one.
    pub fn died(
        &mut self,
        broker: &BrokerId,
        reason: Option<&str>,
        first_sign: Moment,
        is_primary: bool,
        now: Moment,
    ) -> Vec<Step> {
        let goes_on = |open: &Incident| open.generation.is_none() || !is_primary;
        if self.open(broker).is_some_and(goes_on) {
            return Vec::new();
        }
        if self.all.len() == KEPT {
            self.all.pop_front();
        }
        self.last += 1;
        self.all.push_back(Incident {
            number: self.last,
            broker: broker.clone(),
            to: None,
            generation: None,
            reason: reason.map(str::to_owned),
            began: first_sign,
            phases: Vec::new(),
        });
        let number = self.last;
        let mut steps = self.reach(IncidentPhase::FirstSign, first_sign, |i| i.number == number);
        steps.extend(self.reach(IncidentPhase::Confirmed, now, |i| i.number == number));
        steps
    }

    /// A plan that sends the clients of `broker` elsewhere was made.
    pub fn replaced(&mut self, broker: &BrokerId, to: &BrokerId, generation: u64) {
        if let Some(open) = self.all.iter_mut().rfind(|i| i.broker == *broker && i.is_open()) {
            open.to = Some(to.clone());
            open.generation = Some(generation);
        }
    }

    /// Notes that open incidents which `concerned` picks reached `phase`.
    pub fn reach(
        &mut self,
        phase: IncidentPhase,
        at: Moment,
        concerned: impl Fn(&Incident) -> bool,
    ) -> Vec<Step> {
        let new = |i: &&mut Incident| i.is_open() && !i.has(phase) && concerned(i);
        let step = |i: &mut Incident| {
            i.phases.push((phase, at));
            (i.number, i.broker.clone(), phase, at.since(i.began))
        };
        self.all.iter_mut().filter(new).map(step).collect()
    }
}
