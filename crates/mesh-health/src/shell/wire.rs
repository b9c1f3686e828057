//! Turns what the core believes into what travels, and adds the wall clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mesh_model::{BalancerSnapshot, BrokerId, BrokerSnapshot, Event, LinkSnapshot, Snapshot, Topology};

use crate::core::{Moment, Occurrence, View};

/// Remembers what the wall clock said when a broker's health changed, so that a `since` once told stays the same
/// when the wall clock is set.
#[derive(Debug, Default)]
pub struct Wall {
    since: BTreeMap<BrokerId, (Moment, Timestamp)>,
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
            },
            brokers,
            links: links.collect(),
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

/// The event of `occurrence`, which happened now.
pub fn event(occurrence: Occurrence) -> Event {
    Event {
        broker: occurrence.broker,
        from: occurrence.from,
        to: occurrence.to,
        generation: occurrence.generation,
        elapsed_ms: occurrence.elapsed.map(millis),
        reason: occurrence.reason,
        ..Event::new(occurrence.name, Timestamp::now())
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
