//! Sending clients back to a broker that is preferred: by itself within limits, or because the operator asked.

use std::collections::BTreeMap;

use mesh_model::{BrokerId, EventName, HealthStatus};
use mesh_runtime::config::Failback;

use super::election::{Candidate, preferred};
use super::switch::Kind;
use super::{Core, Moment, Occurrence};

impl Core {
    /// The broker that clients should go back to: preferred to the primary, and able to serve.
    pub(super) fn failback_target(&self, candidates: &BTreeMap<BrokerId, Candidate>) -> Option<BrokerId> {
        let rank = |id: &BrokerId| self.topology.priority(id);
        let target = preferred(&self.topology, candidates)?;
        (rank(&target) < rank(&self.rollout.wanted().primary)).then_some(target)
    }

    pub(super) fn consider_failback(&mut self, candidates: &BTreeMap<BrokerId, Candidate>, now: Moment) {
        let Failback::After(after) = self.rules.failback else {
            return;
        };
        let Some(target) = self.failback_target(candidates) else {
            self.pinned = false;
            return;
        };
        let is_calm = self.switch.is_none() && self.rollout.is_confirmed();
        let healthy_since = self.brokers[&target].healthy_since();
        let Some(due) = healthy_since.map(|since| since + after).filter(|_| is_calm) else {
            return;
        };
        if now < due {
            self.failback_due = Some(due);
            return;
        }
        let (most, window) = (self.rules.optional_switches, self.rules.optional_switch_window);
        self.unsaved = true;
        match self.budget.take(most, window, now) {
            Ok(()) => {
                let reason = format!("{target} is preferred and has been healthy for {after:?}");
                self.switch_to(target, Kind::Failback, reason, candidates, now);
            }
            Err(until) => {
                self.failback_due = Some(until);
                if !std::mem::replace(&mut self.pinned, true) {
                    let mut occurrence = Occurrence::new(EventName::FailbackBlocked);
                    occurrence.from = Some(self.rollout.wanted().primary.clone());
                    occurrence.to = Some(target);
                    occurrence.reason =
                        Some(format!("there were {most} optional switches within {window:?}"));
                    self.emit(occurrence);
                }
            }
        }
    }

    /// Does what the operator asked for before the daemon was restarted, as soon as it is known to be possible.
    pub(super) fn finish_failback(&mut self, candidates: &BTreeMap<BrokerId, Candidate>, now: Moment) {
        let is_idle = self.switch.is_none();
        let Some(to) = self.failback_to.clone().filter(|_| is_idle) else {
            return;
        };
        let wanted = &self.rollout.wanted().primary;
        let is_preferred = self.topology.priority(&to) < self.topology.priority(wanted);
        let target = candidates[&to];
        if !is_preferred || !target.is_enabled() || target.status == HealthStatus::Dead {
            self.failback_to = None;
            self.unsaved = true;
        } else if target.is_eligible() {
            let reason = "the operator had asked for it before mesh-health was restarted".to_owned();
            self.switch_to(to, Kind::Failback, reason, candidates, now);
        }
    }
}
