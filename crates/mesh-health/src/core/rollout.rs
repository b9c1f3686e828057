//! What the balancer is told, and whether it does it.
//!
//! Guarantees: nothing is installed before the running plan is known and, if it fits, adopted; one installation
//! at a time; none for a plan that runs already; a refused one is tried again, ever more rarely. What counts is
//! the generation that Nginx answers, never that a step went well.

use std::time::Duration;

use mesh_model::{BrokerId, Plan, Topology};

use super::Moment;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

/// What was found when the daemon started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The plan that Nginx answers.
    pub running: Option<Plan>,
    /// The plan in `upstream.conf`.
    pub on_disk: Option<Plan>,
    /// Whether `upstream.conf` is, byte for byte, what this program would write for that plan.
    pub is_current: bool,
}

/// How an installation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nginx answers the new generation.
    Confirmed,
    /// The file is in place and valid, but Nginx does not run. It reads the file when it starts.
    Written(String),
    /// The last good file is in place. With the reason.
    Rejected(String),
}

/// A look at the balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The plan that it answers, or why there is none.
    pub answer: Result<Plan, String>,
    /// Why nobody there could be told of a new plan, although there is an answer.
    pub unreachable: Option<String>,
    /// Worker processes of earlier generations that still hold sessions.
    pub old_workers: Option<u32>,
}

/// A change worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutChange {
    /// The wanted plan is confirmed.
    Confirmed,
    /// The balancer does not do as it is told.
    Rejected(String),
    /// It does so again.
    Restored,
}

/// The wanted plan and what is known of its way into the balancer.
#[derive(Debug, Clone)]
pub struct Rollout {
    wanted: Plan,
    adopted: bool,
    running: Option<Plan>,
    on_disk: Option<u64>,
    installing: Option<Plan>,
    highest: u64,
    /// The wanted plan is to be installed also if one of the same order runs.
    anew: bool,
    failures: u32,
    retry_at: Moment,
    error: Option<String>,
    /// When the balancer last did as it was told, or was told something new.
    well_at: Moment,
    old_workers: Option<u32>,
}

impl Rollout {
    /// Nothing known; `first` stands in until a running plan is adopted.
    pub fn new(first: Plan) -> Self {
        Self {
            wanted: first,
            adopted: false,
            running: None,
            on_disk: None,
            installing: None,
            highest: 0,
            anew: true,
            failures: 0,
            retry_at: Moment::START,
            error: None,
            well_at: Moment::START,
            old_workers: None,
        }
    }

    /// The plan that the balancer shall run.
    pub fn wanted(&self) -> &Plan {
        &self.wanted
    }

    /// Whether the plan to begin with is settled.
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// The plan that the balancer answered last.
    pub fn running(&self) -> Option<&Plan> {
        self.running.as_ref()
    }

    /// Whether that is the wanted one.
    pub fn is_confirmed(&self) -> bool {
        self.running.as_ref() == Some(&self.wanted)
    }

    /// The plan that is on its way.
    pub fn installing(&self) -> Option<&Plan> {
        self.installing.as_ref()
    }

    /// Why it is not, if that is known.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// When it last did as it was told, or was told something new.
    pub fn well_at(&self) -> Moment {
        self.well_at
    }

    /// Worker processes of earlier generations that still hold sessions.
    pub fn old_workers(&self) -> Option<u32> {
        self.old_workers
    }

    /// Begins with what runs, if it is a plan for these brokers; else with what Nginx would run if it started.
    pub fn adopt(&mut self, found: Found, topology: &Topology) {
        if self.adopted {
            return;
        }
        self.adopted = true;
        let generations = [&found.running, &found.on_disk].map(|plan| plan.as_ref().map(|p| p.generation));
        self.highest = generations.into_iter().flatten().max().unwrap_or(0);
        self.on_disk = found.on_disk.as_ref().map(|plan| plan.generation);
        self.running = found.running.clone();
        let file_is_wanted = found.is_current && (found.running.is_none() || found.running == found.on_disk);
        let Some(base) = found.running.or(found.on_disk) else {
            // Nothing runs and nothing is written: the first plan stands, and is written.
            return;
        };
        if fits(&base, topology) && file_is_wanted {
            self.wanted = base;
            return;
        }
        // Of another topology, or with other content than this configuration gives. The primary stays if it can.
        let primary = match topology.get(&base.primary) {
            Some(broker) => broker.id.clone(),
            None => self.wanted.primary.clone(),
        };
        let order: Vec<BrokerId> = if fits(&base, topology) {
            base.standbys
        } else {
            topology.ids().cloned().collect()
        };
        self.issue(primary, order);
    }

    /// Makes a plan with the next generation that will be installed whatever runs, and returns its generation.
    pub fn issue(&mut self, primary: BrokerId, order: Vec<BrokerId>) -> u64 {
        self.anew = true;
        self.change(primary, order)
    }

    /// Makes a plan with the next generation, which need not be installed if one of the same order runs already
    /// when its turn comes. Returns its generation.
    pub fn change(&mut self, primary: BrokerId, order: Vec<BrokerId>) -> u64 {
        self.highest += 1;
        self.wanted = Plan::new(self.highest, primary, order);
        // A new plan is not held back by the failures of another.
        self.failures = 0;
        self.retry_at = Moment::START;
        self.highest
    }

    /// The plan to install now, if there is one; it is taken to be under way from here on.
    pub fn next_install(&mut self, now: Moment) -> Option<Plan> {
        if !self.is_due() || now < self.retry_at {
            return None;
        }
        let same = |running: &&Plan| running.same_order(&self.wanted);
        if let Some(running) = self.running.as_ref().filter(same)
            && !self.anew
            && self.on_disk == Some(running.generation)
        {
            self.wanted = running.clone();
            return None;
        }
        self.anew = false;
        if self.error.is_none() {
            self.well_at = now;
        }
        self.installing = Some(self.wanted.clone());
        Some(self.wanted.clone())
    }

    /// When [`Self::next_install`] has something.
    pub fn deadline(&self) -> Option<Moment> {
        self.is_due().then_some(self.retry_at)
    }

    fn is_due(&self) -> bool {
        let differs = self
            .running
            .as_ref()
            .is_some_and(|running| *running != self.wanted);
        let unwritten = self.on_disk != Some(self.wanted.generation);
        self.adopted && self.installing.is_none() && (differs || unwritten)
    }

    /// An installation ended.
    pub fn installed(&mut self, generation: u64, outcome: Outcome, now: Moment) -> Vec<RolloutChange> {
        let installed = self
            .installing
            .take()
            .filter(|plan| plan.generation == generation);
        match outcome {
            Outcome::Confirmed => {
                self.on_disk = Some(generation);
                self.running = installed;
                if !self.is_confirmed() {
                    return Vec::new();
                }
                self.failures = 0;
                let mut changes = vec![RolloutChange::Confirmed];
                changes.extend(self.clear_error());
                changes
            }
            Outcome::Written(reason) => {
                self.on_disk = Some(generation);
                self.running = None;
                self.hold_back(generation, now);
                self.complain(reason)
            }
            Outcome::Rejected(reason) => {
                self.on_disk = None;
                self.hold_back(generation, now);
                self.complain(reason)
            }
        }
    }

    fn hold_back(&mut self, generation: u64, now: Moment) {
        if generation == self.wanted.generation {
            self.anew = true;
            let delay = FIRST_RETRY.saturating_mul(1 << self.failures.min(10));
            self.retry_at = now + delay.min(SLOWEST_RETRY);
            self.failures += 1;
        }
    }

    /// The balancer was looked at.
    pub fn looked(&mut self, look: Look, now: Moment) -> Vec<RolloutChange> {
        self.old_workers = look.old_workers;
        let plan = match look.answer {
            Ok(plan) => plan,
            Err(reason) => {
                self.running = None;
                return self.complain(reason);
            }
        };
        let was_confirmed = self.is_confirmed();
        self.highest = self.highest.max(plan.generation);
        let foreign = plan != self.wanted && plan.generation >= self.wanted.generation;
        self.running = Some(plan);
        if let Some(reason) = look.unreachable {
            return self.complain(reason);
        }
        if self.is_confirmed() {
            self.well_at = now;
            if was_confirmed && self.error.is_none() {
                return Vec::new();
            }
            self.failures = 0;
            let mut changes = vec![RolloutChange::Confirmed];
            changes.extend(self.clear_error());
            return changes;
        }
        if foreign && self.adopted && self.installing.is_none() {
            // Somebody else wrote it. A number is never used for two plans.
            let wanted = self.wanted.clone();
            self.issue(wanted.primary, wanted.standbys);
            self.retry_at = now;
        }
        Vec::new()
    }

    fn complain(&mut self, reason: String) -> Vec<RolloutChange> {
        if self.error.as_ref() == Some(&reason) {
            return Vec::new();
        }
        self.error = Some(reason.clone());
        vec![RolloutChange::Rejected(reason)]
    }

    fn clear_error(&mut self) -> Option<RolloutChange> {
        self.error.take().map(|_| RolloutChange::Restored)
    }
}

/// Whether `plan` names only brokers of `topology`. It need not name all: some may be disabled.
fn fits(plan: &Plan, topology: &Topology) -> bool {
    let known = |id: &BrokerId| topology.get(id).is_some();
    known(&plan.primary) && plan.standbys.iter().all(known)
}
