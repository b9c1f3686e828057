//! `GET /metrics`: the snapshot and a few counters in Prometheus's text format.
//!
//! Base units, `mesh_` prefix, counters end in `_total`. What is not known has no sample, rather than a 0. Every
//! family is declared once, in [`family`].

mod family;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_model::{AdminState, EventName, HealthStatus, LinkState, MeshState, Role, Snapshot};

pub use family::FAMILIES;
use family::{
    ADMIN, ANNOUNCEMENTS, BUILD, CAN_MOVE, CLIENTS, CONFIRMED, EVENTS, HEALTH, IN_SYNC, INSTALLS, LAG,
    LINK_BACKLOG, LINK_LATENCY, LINK_LOST, LINK_RECEIVED, LINK_UP, OLD_WORKERS, PRIMARY, PUBLISH, REJECTED,
    RETAINED, RTT, RUNNING, SESSIONS_LEFT, STATE, WANTED,
};
use mesh_runtime::metrics::Page;

/// How an announcement can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It was taken.
    Delivered,
    /// An attempt failed; more may follow.
    Failed,
    /// It was tried for long enough.
    GivenUp,
    /// The same was announced not long ago.
    Repeated,
    /// Too many were waiting.
    Dropped,
}

impl Announced {
    const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Failed,
        Self::GivenUp,
        Self::Repeated,
        Self::Dropped,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
            Self::Repeated => "repeated",
            Self::Dropped => "dropped",
        }
    }
}

/// What is counted.
#[derive(Debug)]
pub struct Counters {
    events: Vec<AtomicU64>,
    announcements: [AtomicU64; Announced::ALL.len()],
    /// Plans handed to the balancer.
    pub installs: AtomicU64,
    /// When the loop last turned, in milliseconds since the start.
    pub beat_ms: AtomicU64,
    worst_lag_us: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            events: EventName::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            announcements: Default::default(),
            installs: AtomicU64::new(0),
            beat_ms: AtomicU64::new(0),
            worst_lag_us: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts an event.
    pub fn count(&self, name: EventName) {
        let index = EventName::ALL.iter().position(|other| *other == name);
        if let Some(counter) = index.and_then(|index| self.events.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what became of an announcement.
    pub fn announced(&self, outcome: Announced) {
        self.announcements[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how late the loop was.
    pub fn note_lag(&self, lag: Duration) {
        let lag = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.worst_lag_us.fetch_max(lag, Ordering::Relaxed);
    }
}

/// Everything, as Prometheus reads it.
pub fn render(snapshot: &Snapshot, counters: &Counters) -> String {
    let mut page = Page::default();
    page.family(&BUILD);
    page.sample(&BUILD, &[&env!("CARGO_PKG_VERSION")], 1);
    of_mesh(&mut page, snapshot);
    of_brokers(&mut page, snapshot);
    of_links(&mut page, snapshot);
    of_daemon(&mut page, counters);
    page.into_text()
}

fn of_mesh(page: &mut Page, snapshot: &Snapshot) {
    page.family(&STATE);
    for state in MeshState::ALL {
        page.sample(&STATE, &[state], u8::from(*state == snapshot.state));
    }
    page.family(&WANTED);
    page.sample(&WANTED, &[], snapshot.generation);
    let balancer = &snapshot.balancer;
    page.family(&CONFIRMED);
    page.sample(&CONFIRMED, &[], u8::from(balancer.confirmed));
    page.family(&REJECTED);
    page.sample(&REJECTED, &[], u8::from(balancer.error.is_some()));
    page.family(&RUNNING);
    page.known(&RUNNING, &[], balancer.generation);
    page.family(&OLD_WORKERS);
    page.known(&OLD_WORKERS, &[], balancer.old_workers);
    page.family(&CAN_MOVE);
    page.known(&CAN_MOVE, &[], balancer.can_move_sessions.map(u8::from));
}

fn of_brokers(page: &mut Page, snapshot: &Snapshot) {
    let brokers = &snapshot.brokers;
    page.family(&HEALTH);
    for broker in brokers {
        for health in HealthStatus::ALL {
            page.sample(&HEALTH, &[&broker.id, health], u8::from(*health == broker.health));
        }
    }
    page.family(&ADMIN);
    for broker in brokers {
        for admin in AdminState::ALL {
            page.sample(&ADMIN, &[&broker.id, admin], u8::from(*admin == broker.admin));
        }
    }
    page.family(&PRIMARY);
    for broker in brokers {
        let primary = u8::from(broker.role == Some(Role::Primary));
        page.sample(&PRIMARY, &[&broker.id], primary);
    }
    page.family(&RTT);
    for broker in brokers {
        page.known(&RTT, &[&broker.id], broker.rtt_ms.map(seconds));
    }
    page.family(&CLIENTS);
    for broker in brokers {
        page.known(&CLIENTS, &[&broker.id], broker.clients);
    }
    page.family(&SESSIONS_LEFT);
    for broker in brokers {
        page.known(&SESSIONS_LEFT, &[&broker.id], broker.sessions_left);
    }
    page.family(&PUBLISH);
    for broker in brokers {
        page.known(&PUBLISH, &[&broker.id, &"in"], broker.in_per_s);
        page.known(&PUBLISH, &[&broker.id, &"out"], broker.out_per_s);
    }
    page.family(&RETAINED);
    for broker in brokers {
        let retained = broker.retained.as_ref();
        page.known(&RETAINED, &[&broker.id], retained.map(|retained| retained.count));
    }
    page.family(&IN_SYNC);
    for broker in brokers {
        let in_sync = broker.retained.as_ref().and_then(|retained| retained.in_sync);
        page.known(&IN_SYNC, &[&broker.id], in_sync.map(u8::from));
    }
}

fn of_links(page: &mut Page, snapshot: &Snapshot) {
    let links = &snapshot.links;
    page.family(&LINK_UP);
    for link in links {
        let up = match link.state {
            LinkState::Up => Some(1),
            LinkState::Down => Some(0),
            LinkState::Unknown => None,
        };
        page.known(&LINK_UP, &[&link.from, &link.to], up);
    }
    page.family(&LINK_LATENCY);
    for link in links {
        page.known(
            &LINK_LATENCY,
            &[&link.from, &link.to],
            link.latency_ms.map(seconds),
        );
    }
    page.family(&LINK_RECEIVED);
    for link in links {
        page.known(&LINK_RECEIVED, &[&link.from, &link.to], link.received);
    }
    page.family(&LINK_BACKLOG);
    for link in links {
        page.known(&LINK_BACKLOG, &[&link.from, &link.to], link.backlog);
    }
    page.family(&LINK_LOST);
    for link in links {
        page.known(&LINK_LOST, &[&link.from, &link.to], link.lost);
    }
}

fn of_daemon(page: &mut Page, counters: &Counters) {
    let told = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.family(&EVENTS);
    for (name, count) in EventName::ALL.iter().zip(&counters.events) {
        page.sample(&EVENTS, &[name], told(count));
    }
    page.family(&INSTALLS);
    page.sample(&INSTALLS, &[], told(&counters.installs));
    page.family(&ANNOUNCEMENTS);
    for (outcome, count) in Announced::ALL.iter().zip(&counters.announcements) {
        page.sample(&ANNOUNCEMENTS, &[&outcome.as_str()], told(count));
    }
    page.family(&LAG);
    page.sample(&LAG, &[], told(&counters.worst_lag_us) as f64 / 1e6);
}

fn seconds(millis: f64) -> f64 {
    millis / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_where_they_are_told() {
        let counters = Counters::default();
        for (position, outcome) in Announced::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, position);
            counters.announced(outcome);
        }
        let mut page = Page::default();
        of_daemon(&mut page, &counters);
        let page = page.into_text();
        for outcome in Announced::ALL {
            let line = format!("mesh_announcements_total{{outcome=\"{}\"}} 1\n", outcome.as_str());
            assert!(page.contains(&line), "{page}");
        }
    }
}
