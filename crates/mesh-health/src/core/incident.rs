//! Faults of brokers, links and the balancer, each from its first sign to its end.
//!
//! Guarantees: each step of an incident is noted once, at the moment it was first true; what fails again before it
//! was well goes on with the same incident, unless it is a broker that had to be replaced a second time.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_model::{BrokerId, IncidentPhase, Link};

use super::Moment;

/// How many are remembered.
const KEPT: usize = 100;

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A broker.
    Broker(BrokerId),
    /// A link between two healthy brokers.
    Link(Link),
    /// Nginx, or what it makes of its configuration.
    Balancer,
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Counts from 1 for as long as the daemon's memory lasts.
    pub number: u64,
    /// What failed.
    pub subject: Subject,
    /// Where the clients of a failed primary were sent.
    pub to: Option<BrokerId>,
    /// The generation of the plan that did so, or that the balancer did not run.
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

    /// Whether it is a fault of this broker.
    pub fn is_of(&self, broker: &BrokerId) -> bool {
        matches!(&self.subject, Subject::Broker(failed) if failed == broker)
    }
}

/// A step that was reached: of which incident, of whom, which, and how long after the first sign.
pub type Step = (u64, Subject, IncidentPhase, Duration);

/// The incidents of late.
#[derive(Debug, Default)]
pub struct Incidents {
    last: u64,
    all: VecDeque<Incident>,
}

impl Incidents {
    /// Goes on after the incidents in `all`, of which the last ever had the number `last`.
    pub fn recalled(last: u64, all: impl IntoIterator<Item = Incident>) -> Self {
        let all: VecDeque<Incident> = all.into_iter().collect();
        let highest = all.iter().map(|incident| incident.number).max();
        Self {
            last: last.max(highest.unwrap_or(0)),
            all,
        }
    }

    /// All that are remembered, the oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.all.iter()
    }

    /// The number of the latest that there ever was.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The open incident of `subject`.
    pub fn open(&self, subject: &Subject) -> Option<&Incident> {
        self.all.iter().rfind(|i| i.subject == *subject && i.is_open())
    }

    /// The open incident of `broker`.
    pub fn of_broker(&self, broker: &BrokerId) -> Option<&Incident> {
        self.all.iter().rfind(|i| i.is_of(broker) && i.is_open())
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
        if self.of_broker(broker).is_some_and(goes_on) {
            return Vec::new();
        }
        self.begin(Subject::Broker(broker.clone()), None, reason, first_sign, now)
    }

    /// `subject`, which is no broker, failed. Returns the steps of a new incident, if it is one.
    pub fn failed(
        &mut self,
        subject: Subject,
        generation: Option<u64>,
        reason: Option<&str>,
        first_sign: Moment,
        now: Moment,
    ) -> Vec<Step> {
        if self.open(&subject).is_some() {
            return Vec::new();
        }
        self.begin(subject, generation, reason, first_sign, now)
    }

    fn begin(
        &mut self,
        subject: Subject,
        generation: Option<u64>,
        reason: Option<&str>,
        first_sign: Moment,
        now: Moment,
    ) -> Vec<Step> {
        if self.all.len() >= KEPT {
            // What lasts is worth more than what is over.
            let over = self.all.iter().position(|incident| !incident.is_open());
            self.all.remove(over.unwrap_or(0));
        }
        self.last += 1;
        let number = self.last;
        self.all.push_back(Incident {
            number,
            subject,
            to: None,
            generation,
            reason: reason.map(str::to_owned),
            began: first_sign,
            phases: Vec::new(),
        });
        let mut steps = self.reach(IncidentPhase::FirstSign, first_sign, |i| i.number == number);
        steps.extend(self.reach(IncidentPhase::Confirmed, now, |i| i.number == number));
        steps
    }

    /// A plan that sends the clients of `broker` elsewhere was made.
    pub fn replaced(&mut self, broker: &BrokerId, to: &BrokerId, generation: u64) {
        if let Some(open) = self.all.iter_mut().rfind(|i| i.is_of(broker) && i.is_open()) {
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
            (i.number, i.subject.clone(), phase, at.since(i.began))
        };
        self.all.iter_mut().filter(new).map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_remembered_longer_than_what_is_over() {
        let mut incidents = Incidents::default();
        let id = |n: usize| format!("b{n}").parse::<BrokerId>().unwrap();
        incidents.failed(
            Subject::Balancer,
            Some(3),
            Some("refused"),
            Moment::START,
            Moment::START,
        );
        for n in 0..2 * KEPT {
            incidents.died(&id(n), None, Moment::START, false, Moment::START);
            incidents.reach(IncidentPhase::Recovered, Moment::START, |i| i.is_of(&id(n)));
        }
        assert_eq!(incidents.all().count(), KEPT);
        assert!(incidents.open(&Subject::Balancer).is_some());
        assert_eq!(incidents.last(), 2 * KEPT as u64 + 1);
        let again = incidents.failed(Subject::Balancer, Some(4), None, Moment::START, Moment::START);
        assert_eq!(again, [], "it goes on");
    }
}
