//! Who should serve.
//!
//! Guarantees: a primary that is healthy and enabled stays; leaving one that is dead is held back by nothing but
//! the first verdict on a broker that comes earlier in the plan; where nobody answers, nothing is touched.

use std::collections::BTreeMap;

use mesh_model::{AdminState, BrokerId, HealthStatus, Plan, Topology};

use super::Moment;

/// What the election knows of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What is observed.
    pub status: HealthStatus,
    /// What the operator wants.
    pub admin: AdminState,
    /// Since when it has answered without dying in between.
    pub answering_since: Option<Moment>,
    /// Whether it has what its peers retain, or never told.
    pub in_sync: bool,
}

impl Candidate {
    /// Whether it may serve without reserve.
    pub fn is_eligible(&self) -> bool {
        self.status == HealthStatus::Healthy && self.is_enabled() && self.in_sync
    }

    /// Whether clients may be sent there at all.
    pub fn is_enabled(&self) -> bool {
        self.admin == AdminState::Enabled
    }

    /// Whether it answers, in whatever state it is.
    pub fn answers(&self) -> bool {
        use HealthStatus::{Healthy, Recovering, Suspect};
        matches!(self.status, Healthy | Suspect | Recovering)
    }
}

/// What follows for the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It should be replaced, but a broker that would come first has no verdict yet.
    Wait,
    /// This broker takes over.
    Promote(BrokerId),
    /// It should be replaced and nobody answers.
    Blocked,
}

/// Decides whether the primary of `plan` stays.
pub fn elect(plan: &Plan, candidates: &BTreeMap<BrokerId, Candidate>) -> Verdict {
    let primary = candidates.get(&plan.primary);
    let dead = primary.is_none_or(|p| p.status == HealthStatus::Dead);
    if !dead && primary.is_some_and(Candidate::is_enabled) {
        // Unknown, suspect and recovering are no proof against it, and leaving it would cost its clients a
        // reconnect.
        return Verdict::Keep;
    }
    // The order of the running plan: Nginx has already sent clients to its first standby that answers.
    let known = |id: &BrokerId| candidates.get(id).copied();
    for (id, candidate) in plan.standbys.iter().filter_map(|id| Some((id, known(id)?))) {
        if candidate.is_eligible() {
            return Verdict::Promote(id.clone());
        }
        if candidate.is_enabled() && candidate.status == HealthStatus::Unknown {
            return Verdict::Wait;
        }
    }
    // Brokers that the plan does not list, because they were not enabled when it was made.
    let mut others = candidates.iter().filter(|(id, _)| plan.role(id).is_none());
    if let Some((id, _)) = others.find(|(_, candidate)| candidate.is_eligible()) {
        return Verdict::Promote(id.clone());
    }
    if primary.is_some_and(Candidate::answers) {
        return Verdict::Keep;
    }
    let in_need = candidates
        .iter()
        .filter(|(_, candidate)| candidate.is_enabled() && candidate.answers())
        .min_by_key(|(id, candidate)| (!candidate.in_sync, candidate.answering_since, *id));
    match in_need {
        Some((id, _)) => Verdict::Promote(id.clone()),
        None => Verdict::Blocked,
    }
}

/// The most preferred broker that may serve without reserve.
pub fn preferred(topology: &Topology, candidates: &BTreeMap<BrokerId, Candidate>) -> Option<BrokerId> {
    let eligible = |id: &&BrokerId| candidates.get(*id).is_some_and(Candidate::is_eligible);
    topology.ids().find(eligible).cloned()
}

/// Whether `plan` lists exactly the brokers that clients may be sent to. Its primary may stay longer than that.
pub fn lists_all_enabled(plan: &Plan, candidates: &BTreeMap<BrokerId, Candidate>) -> bool {
    let mut all = candidates.iter().filter(|(id, _)| **id != plan.primary);
    all.all(|(id, candidate)| plan.standbys.contains(id) == candidate.is_enabled())
}

/// The brokers of a new plan behind its primary: all that are enabled, in order of priority, those that are not
/// healthy last. Nginx passes over one that refuses in microseconds, but waits for one that hangs.
pub fn standby_order(topology: &Topology, candidates: &BTreeMap<BrokerId, Candidate>) -> Vec<BrokerId> {
    let enabled = |id: &&BrokerId| candidates.get(*id).is_some_and(Candidate::is_enabled);
    let mut order: Vec<BrokerId> = topology.ids().filter(enabled).cloned().collect();
    // Stable: equals stay in order of priority.
    order.sort_by_key(|id| !candidates[id].is_eligible());
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use AdminState::{Disabled, Draining, Enabled};
    use HealthStatus::{Dead, Healthy, Recovering, Suspect, Unknown};
    use std::time::Duration;

    fn id(n: usize) -> BrokerId {
        format!("b{n}").parse().unwrap()
    }

    fn candidate(status: HealthStatus, admin: AdminState, since_s: u64) -> Candidate {
        let since = Moment::after_start(Duration::from_secs(since_s));
        Candidate {
            status,
            admin,
            answering_since: Some(since),
            in_sync: true,
        }
    }

    /// Elects among `b1`, `b2`, …, of which `b1` is primary.
    fn verdict(states: &[(HealthStatus, AdminState)]) -> Verdict {
        let candidates = states.iter().enumerate();
        // Later ones have answered for longer.
        let candidates = candidates
            .map(|(n, (s, a))| (id(n + 1), candidate(*s, *a, 100 - n as u64)))
            .collect();
        elect(&Plan::new(1, id(1), (2..=states.len()).map(id)), &candidates)
    }

    #[test]
    fn the_primary_is_left_only_for_a_reason() {
        let promote = |n| Verdict::Promote(id(n));
        for (states, expected) in [
            (vec![(Healthy, Enabled), (Healthy, Enabled)], Verdict::Keep),
            (vec![(Suspect, Enabled), (Healthy, Enabled)], Verdict::Keep),
            (vec![(Unknown, Enabled), (Healthy, Enabled)], Verdict::Keep),
            (vec![(Recovering, Enabled), (Healthy, Enabled)], Verdict::Keep),
            (
                vec![(Dead, Enabled), (Healthy, Enabled), (Healthy, Enabled)],
                promote(2),
            ),
            (
                vec![(Dead, Enabled), (Suspect, Enabled), (Healthy, Enabled)],
                promote(3),
            ),
            (
                vec![(Dead, Enabled), (Dead, Enabled), (Healthy, Enabled)],
                promote(3),
            ),
            (
                vec![(Dead, Enabled), (Healthy, Draining), (Healthy, Enabled)],
                promote(3),
            ),
            (
                vec![(Draining, Healthy), (Enabled, Healthy)]
                    .into_iter()
                    .map(|(a, s)| (s, a))
                    .collect(),
                promote(2),
            ),
        ] {
            assert_eq!(verdict(&states), expected, "{states:?}");
        }
    }

    #[test]
    fn a_verdict_that_is_still_out_is_awaited_only_where_it_matters() {
        let wait = verdict(&[(Dead, Enabled), (Unknown, Enabled), (Healthy, Enabled)]);
        assert_eq!(wait, Verdict::Wait);
        let go = verdict(&[(Dead, Enabled), (Healthy, Enabled), (Unknown, Enabled)]);
        assert_eq!(go, Verdict::Promote(id(2)));
        let go = verdict(&[(Dead, Enabled), (Unknown, Disabled), (Healthy, Enabled)]);
        assert_eq!(go, Verdict::Promote(id(3)));
    }

    #[test]
    fn in_need_the_one_that_has_answered_longest_serves() {
        let states = [(Dead, Enabled), (Recovering, Enabled), (Recovering, Enabled)];
        assert_eq!(verdict(&states), Verdict::Promote(id(3)));
        let states = [(Dead, Enabled), (Recovering, Enabled), (Recovering, Disabled)];
        assert_eq!(verdict(&states), Verdict::Promote(id(2)));
        assert_eq!(verdict(&[(Dead, Enabled), (Dead, Enabled)]), Verdict::Blocked);
        // A draining primary still serves if nobody else can.
        assert_eq!(verdict(&[(Healthy, Draining), (Dead, Enabled)]), Verdict::Keep);
    }

    #[test]
    fn who_is_not_in_sync_serves_only_in_need() {
        let mut candidates: BTreeMap<BrokerId, Candidate> = [(Dead, 1), (Healthy, 1), (Healthy, 5)]
            .into_iter()
            .enumerate()
            .map(|(n, (status, since))| (id(n + 1), candidate(status, Enabled, since)))
            .collect();
        let plan = Plan::new(1, id(1), [id(2), id(3)]);
        let mut out = |n| candidates.get_mut(&id(n)).unwrap().in_sync = false;
        out(2);
        let promoted = elect(&plan, &candidates);
        assert_eq!(
            promoted,
            Verdict::Promote(id(3)),
            "the next in order lacks something"
        );
        candidates.get_mut(&id(3)).unwrap().status = Recovering;
        let promoted = elect(&plan, &candidates);
        assert_eq!(
            promoted,
            Verdict::Promote(id(3)),
            "in need too, what it has counts first"
        );
        candidates.get_mut(&id(3)).unwrap().in_sync = false;
        assert_eq!(elect(&plan, &candidates), Verdict::Promote(id(2)));
        candidates.get_mut(&id(1)).unwrap().status = Healthy;
        candidates.get_mut(&id(1)).unwrap().in_sync = false;
        assert_eq!(
            elect(&plan, &candidates),
            Verdict::Keep,
            "a primary that serves is not left for it"
        );
    }

    #[test]
    fn standbys_that_are_not_healthy_come_last() {
        let broker = |n: usize| mesh_model::Broker::new(id(n), ([127, 0, 0, 1], 1000 + n as u16).into());
        let topology = Topology::new((1..=5).map(broker).collect()).unwrap();
        let states = [
            (Dead, Enabled),
            (Healthy, Enabled),
            (Recovering, Enabled),
            (Healthy, Disabled),
            (Healthy, Enabled),
        ];
        let candidates = states.iter().enumerate();
        let candidates = candidates
            .map(|(n, (s, a))| (id(n + 1), candidate(*s, *a, 0)))
            .collect();
        assert_eq!(standby_order(&topology, &candidates), [2, 5, 1, 3].map(id));
    }
}
