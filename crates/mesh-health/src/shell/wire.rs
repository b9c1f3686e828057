//! Turns what the core believes into what travels, and adds the wall clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mesh_model::{
    BalancerSnapshot, BrokerId, BrokerSnapshot, Event, IncidentKind, IncidentList, IncidentPhase,
    IncidentStep, Link, LinkSnapshot, RetainedSnapshot, Snapshot, Topology,
};

use super::memory::{self, Kept, KeptBroker};
use crate::core::broker::Past;
use crate::core::{Core, Incident, Memory, Moment, Occurrence, Subject, View};

/// What is longer ago is said to be this long ago.
const LONGEST_MEMORY: Duration = Duration::from_secs(366 * 24 * 3600);

/// Remembers what the wall clock said when a broker's health changed, so that a `since` once told stays the same
/// when the wall clock is set.
#[derive(Debug)]
pub struct Wall {
    /// A part of the names of incidents; see [`Kept::epoch_ms`].
    epoch_ms: i64,
    since: BTreeMap<BrokerId, (Moment, Timestamp)>,
    began: BTreeMap<u64, Timestamp>,
}

impl Wall {
    /// The wall that goes on with what was kept.
    pub fn new(kept: &Kept) -> Self {
        let numbered = kept.incidents.iter();
        let began = numbered.filter_map(|incident| Some((number_of(&incident.id)?, incident.began_at)));
        Self {
            epoch_ms: kept.epoch_ms,
            since: BTreeMap::new(),
            began: began.collect(),
        }
    }

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
            retained: broker.retained.map(|retained| RetainedSnapshot {
                count: retained.count,
                digest: retained.digest.clone(),
                in_sync: Some(retained.in_sync),
            }),
        });
        let brokers = brokers.collect();
        let links = view.links.iter().map(|link| LinkSnapshot {
            from: link.link.from.clone(),
            to: link.link.to.clone(),
            state: link.state,
            latency_ms: link.latency.map(millis),
            per_s: link.per_s.map(tenths),
            received: link.received,
            duplicates_dropped: link.duplicates_dropped,
            stale_dropped: link.stale_dropped,
            backlog: link.backlog,
            lost: link.lost,
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
        let incidents = kept.into_iter();
        IncidentList {
            incidents: incidents
                .map(|incident| self.incident(incident, now, at))
                .collect(),
        }
    }

    fn incident(&mut self, incident: &Incident, now: Moment, at: Timestamp) -> mesh_model::Incident {
        let told = at - now.since(incident.began);
        let began = *self.began.entry(incident.number).or_insert(told);
        let steps = incident.phases.iter().map(|(phase, reached)| {
            // As exact as it is told, so that it stays the same over a restart.
            let elapsed_ms = millis(reached.since(incident.began));
            IncidentStep {
                phase: *phase,
                at: began + Duration::from_micros((elapsed_ms * 1e3).round() as u64),
                elapsed_ms,
            }
        });
        let phases: Vec<IncidentStep> = steps.collect();
        let end = phases.iter().find(|step| step.phase == IncidentPhase::Recovered);
        let (kind, broker, from, to) = match incident.subject.clone() {
            Subject::Broker(broker) => (IncidentKind::Broker, Some(broker), None, incident.to.clone()),
            Subject::Link(link) => (IncidentKind::Link, None, Some(link.from), Some(link.to)),
            Subject::Balancer => (IncidentKind::Balancer, None, None, None),
        };
        mesh_model::Incident {
            id: self.incident_id(incident.number),
            kind,
            broker,
            from,
            to,
            generation: incident.generation,
            reason: incident.reason.clone(),
            began_at: began,
            ended_at: end.map(|step| step.at),
            phases,
        }
    }

    /// The name of the incident `number`: with the time at which this memory began, since numbers begin anew with
    /// each.
    pub fn incident_id(&self, number: u64) -> String {
        format!("i-{number}-{}", self.epoch_ms)
    }

    /// `memory` as it is kept.
    pub fn kept(&mut self, memory: &Memory, now: Moment) -> Kept {
        let at = Timestamp::now();
        let times = |moments: &[Moment]| moments.iter().map(|then| at - now.since(*then)).collect();
        let broker = |(id, past): (&BrokerId, &Past)| {
            let deaths = times(&past.deaths);
            let boot = past.boot;
            (id.clone(), KeptBroker { boot, deaths })
        };
        let incidents = memory.incidents.iter();
        Kept {
            version: memory::VERSION,
            epoch_ms: self.epoch_ms,
            admin: memory.admin.clone(),
            brokers: memory.brokers.iter().map(broker).collect(),
            demoted: memory.demoted.clone(),
            failback_to: memory.failback_to.clone(),
            avoided: memory.avoided,
            optional_switches: times(&memory.optional_switches),
            last_incident: memory.last_incident,
            incidents: incidents
                .map(|incident| self.incident(incident, now, at))
                .collect(),
        }
    }

    /// The event of `occurrence`, which happened now.
    pub fn event(&self, occurrence: Occurrence) -> Event {
        Event {
            broker: occurrence.broker,
            from: occurrence.from,
            to: occurrence.to,
            generation: occurrence.generation,
            incident: occurrence.incident.map(|number| self.incident_id(number)),
            phase: occurrence.phase,
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

/// How long ago the oldest of what was kept is, at `at`.
pub fn age(kept: &Kept, at: Timestamp) -> Duration {
    let deaths = kept.brokers.values().flat_map(|broker| &broker.deaths);
    let began = kept.incidents.iter().map(|incident| &incident.began_at);
    let oldest = deaths.chain(began).chain(&kept.optional_switches).min();
    oldest.map_or(Duration::ZERO, |oldest| ago(*oldest, at))
}

/// What was kept, for a core whose clock says `now` at `at`.
pub fn recalled(kept: Kept, now: Moment, at: Timestamp) -> Memory {
    let moment = |then: Timestamp| Moment::after_start(now.elapsed().saturating_sub(ago(then, at)));
    let moments = |times: Vec<Timestamp>| times.into_iter().map(moment).collect();
    let broker = |(id, broker): (BrokerId, KeptBroker)| {
        let (boot, deaths) = (broker.boot, moments(broker.deaths));
        (id, Past { boot, deaths })
    };
    let incident = |incident: mesh_model::Incident| {
        let began = moment(incident.began_at);
        let (subject, to) = match (incident.kind, incident.broker, incident.from, incident.to) {
            (IncidentKind::Broker, Some(broker), _, to) => (Subject::Broker(broker), to),
            (IncidentKind::Link, _, Some(from), Some(to)) => (Subject::Link(Link { from, to }), None),
            (IncidentKind::Balancer, ..) => (Subject::Balancer, None),
            _ => return None,
        };
        let phases = incident.phases.iter().map(|step| {
            let elapsed = Duration::try_from_secs_f64(step.elapsed_ms / 1e3).unwrap_or_default();
            (step.phase, began + elapsed.min(LONGEST_MEMORY))
        });
        Some(Incident {
            number: number_of(&incident.id)?,
            subject,
            to,
            generation: incident.generation,
            reason: incident.reason,
            began,
            phases: phases.collect(),
        })
    };
    Memory {
        admin: kept.admin,
        brokers: kept.brokers.into_iter().map(broker).collect(),
        demoted: kept.demoted,
        failback_to: kept.failback_to,
        avoided: kept.avoided,
        optional_switches: moments(kept.optional_switches),
        last_incident: kept.last_incident,
        incidents: kept.incidents.into_iter().filter_map(incident).collect(),
    }
}

/// How long ago `then` was at `at`; no time if the wall clock was set back since.
fn ago(then: Timestamp, at: Timestamp) -> Duration {
    let ago = Duration::try_from(at.duration_since(then)).unwrap_or_default();
    ago.min(LONGEST_MEMORY)
}

/// The number in a name that [`Wall::incident_id`] gave.
fn number_of(id: &str) -> Option<u64> {
    let (number, _) = id.strip_prefix("i-")?.split_once('-')?;
    number.parse().ok()
}

/// Milliseconds with three decimals.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
