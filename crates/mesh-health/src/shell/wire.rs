//! Turns what the core believes into what travels, and adds the wall clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mesh_model::{
    BalancerSnapshot, BrokerId, BrokerSnapshot, Event, IncidentList, IncidentPhase, IncidentStep,
    LinkSnapshot, Snapshot, Topology,
};

use crate::core::{Core, Incident, Moment, Occurrence, View};

/// Remembers what the wall clock said when a broker's health changed, so that a `since` once told stays the same
/// when the wall clock is set.
#[derive(Debug)]
pub struct Wall {
    started: Timestamp,
    since: BTreeMap<BrokerId, (Moment, Timestamp)>,
    began: BTreeMap<u64, Timestamp>,
}

impl Default for Wall {
    fn default() -> Self {
        Self {
            started: Timestamp::now(),
            since: BTreeMap::new(),
            began: BTreeMap::new(),
        }
    }
}

impl Wall {
    /// The snapshot of `view`, which was taken at `now`.
    pub fn snapshot(&mut self, view: &View<'_>, topology: &Topology, now: Moment) -> Snapshot {
        let at = Timestamp::now();
        let brokers = view.brokers.iter().zip(topology.brokers());
        let brokers = brokers.map(|(broker, entry)| BrokerSnapshot {
            id: broker.id.clone(),
            address: entry.address,
            health: broker.health,
            admin: broker.admin,
            role: broker.role,
            since: self.since(broker.id, broker.since, now, at),
            reason: broker.reason.map(str::to_owned),
            rtt_ms: broker.rtt.map(millis),
            clients: broker.clients,
            in_per_s: broker.in_per_s.map(tenths),
            out_per_s: broker.out_per_s.map(tenths),
            sessions_left: broker.sessions_left,
            retained: None,
        });
        let brokers = brokers.collect();
        let links = view.links.iter().map(|link| LinkSnapshot {
            from: link.link.from.clone(),
            to: link.link.to.clone(),
            state: link.state,
            latency_ms: link.latency.map(millis),
            per_s: link.per_s.map(tenths),
            received: link.received,
            duplicates_dropped: None,
            stale_dropped: None,
        });
        Snapshot {
            generation: view.wanted.generation,
            at,
            state: view.state,
            primary: view.wanted.primary.clone(),
            backup: view.wanted.backup().cloned(),
            balancer: BalancerSnapshot {
                generation: view.running.map(|plan| plan.generation),
                confirmed: view.confirmed,
                old_workers: view.old_workers,
                error: view.error.map(str::to_owned),
                can_move_sessions: view.can_move_sessions,
                move_error: view.move_error.map(str::to_owned),
            },
            brokers,
            links: links.collect(),
        }
    }

    /// The incidents of `core`, the newest first.
    pub fn incidents(&mut self, core: &Core, now: Moment) -> IncidentList {
        let at = Timestamp::now();
        let kept: Vec<&Incident> = core.incidents().rev().collect();
        let oldest = kept.last().map_or(0, |incident| incident.number);
        self.began.retain(|number, _| *number >= oldest);
        let incidents = kept.into_iter().map(|incident| {
            let told = at - now.since(incident.began);
            let began = *self.began.entry(incident.number).or_insert(told);
            self.incident(incident, began)
        });
        IncidentList {
            incidents: incidents.collect(),
        }
    }

    fn incident(&self, incident: &Incident, began: Timestamp) -> mesh_model::Incident {
        let steps = incident.phases.iter().map(|(phase, reached)| {
            let elapsed = reached.since(incident.began);
            IncidentStep {
                phase: *phase,
                at: began + elapsed,
                elapsed_ms: millis(elapsed),
            }
        });
        let phases: Vec<IncidentStep> = steps.collect();
        let end = phases.iter().find(|step| step.phase == IncidentPhase::Recovered);
        mesh_model::Incident {
            id: self.incident_id(incident.number),
            broker: incident.broker.clone(),
            to: incident.to.clone(),
            generation: incident.generation,
            reason: incident.reason.clone(),
            began_at: began,
            ended_at: end.map(|step| step.at),
            phases,
        }
    }

    /// The name of the incident `number`: with the time of this start, since numbers begin anew with each.
    pub fn incident_id(&self, number: u64) -> String {
        format!("i-{number}-{}", self.started.as_millisecond())
    }

    /// The event of `occurrence`, which happened now.
    pub fn event(&self, occurrence: Occurrence) -> Event {
        Event {
            broker: occurrence.broker,
            from: occurrence.from,
            to: occurrence.to,
            generation: occurrence.generation,
            incident: occurrence.incident.map(|number| self.incident_id(number)),
            elapsed_ms: occurrence.elapsed.map(millis),
            reason: occurrence.reason,
            ..Event::new(occurrence.name, Timestamp::now())
        }
    }

    fn since(&mut self, id: &BrokerId, since: Moment, now: Moment, at: Timestamp) -> Timestamp {
        match self.since.get(id) {
            Some((known, told)) if *known == since => *told,
            _ => {
                let told = at - now.since(since);
                self.since.insert(id.clone(), (since, told));
                told
            }
        }
    }
}

/// Milliseconds with three decimals.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
