//! `GET /metrics`: the snapshot and a few counters in Prometheus's text format.
//!
//! Base units, `mesh_` prefix, counters end in `_total`. What is not known has no sample, rather than a 0.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_model::{EventName, HealthStatus, LinkState, MeshState, Role, Snapshot};

/// What the driver counts.
#[derive(Debug)]
pub struct Counters {
    events: Vec<AtomicU64>,
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

    /// Notes how late the loop was.
    pub fn note_lag(&self, lag: Duration) {
        let lag = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.worst_lag_us.fetch_max(lag, Ordering::Relaxed);
    }
}

/// Everything, as Prometheus reads it.
pub fn render(snapshot: &Snapshot, counters: &Counters) -> String {
    let mut page = Page(String::with_capacity(8 * 1024));
    of_mesh(&mut page, snapshot);
    of_brokers(&mut page, snapshot);
    of_links(&mut page, snapshot);
    of_daemon(&mut page, counters);
    page.0
}

fn of_mesh(page: &mut Page, snapshot: &Snapshot) {
    page.family(
        "mesh_state",
        "gauge",
        "1 for the state of the mesh, 0 for the others.",
    );
    for state in MeshState::ALL {
        page.sample(
            "mesh_state",
            &[("state", state)],
            u8::from(*state == snapshot.state),
        );
    }
    page.family(
        "mesh_plan_generation",
        "gauge",
        "Generation of the plan that the balancer shall run.",
    );
    page.sample("mesh_plan_generation", &[], snapshot.generation);
    let balancer = &snapshot.balancer;
    page.family(
        "mesh_balancer_confirmed",
        "gauge",
        "Whether the balancer runs the wanted plan.",
    );
    page.sample("mesh_balancer_confirmed", &[], u8::from(balancer.confirmed));
    page.family(
        "mesh_balancer_generation",
        "gauge",
        "Generation that the balancer answered last.",
    );
    page.known("mesh_balancer_generation", &[], balancer.generation);
    page.family(
        "mesh_balancer_old_workers",
        "gauge",
        "Workers of earlier generations that still hold sessions.",
    );
    page.known("mesh_balancer_old_workers", &[], balancer.old_workers);
}

fn of_brokers(page: &mut Page, snapshot: &Snapshot) {
    page.family(
        "mesh_broker_health",
        "gauge",
        "1 for the broker's health, 0 for the others.",
    );
    for broker in &snapshot.brokers {
        for health in HealthStatus::ALL {
            let labels: Labels<'_> = &[("broker", &broker.id), ("health", health)];
            page.sample("mesh_broker_health", labels, u8::from(*health == broker.health));
        }
    }
    page.family(
        "mesh_broker_primary",
        "gauge",
        "Whether clients are sent to this broker.",
    );
    for broker in &snapshot.brokers {
        let primary = u8::from(broker.role == Some(Role::Primary));
        page.sample("mesh_broker_primary", &[("broker", &broker.id)], primary);
    }
    page.family(
        "mesh_broker_rtt_seconds",
        "gauge",
        "Time from the last PINGREQ to its PINGRESP.",
    );
    for broker in &snapshot.brokers {
        page.known(
            "mesh_broker_rtt_seconds",
            &[("broker", &broker.id)],
            broker.rtt_ms.map(seconds),
        );
    }
    page.family(
        "mesh_broker_clients",
        "gauge",
        "Connected clients, without sessions of the mesh itself.",
    );
    for broker in &snapshot.brokers {
        page.known("mesh_broker_clients", &[("broker", &broker.id)], broker.clients);
    }
    page.family(
        "mesh_broker_publish_per_second",
        "gauge",
        "PUBLISH packets per second, by direction as the broker sees it.",
    );
    for broker in &snapshot.brokers {
        for (direction, rate) in [("in", broker.in_per_s), ("out", broker.out_per_s)] {
            let labels: Labels<'_> = &[("broker", &broker.id), ("direction", &direction)];
            page.known("mesh_broker_publish_per_second", labels, rate);
        }
    }
}

fn of_links(page: &mut Page, snapshot: &Snapshot) {
    page.family(
        "mesh_link_up",
        "gauge",
        "1 if canaries pass, 0 if they do not though both ends are healthy.",
    );
    for link in &snapshot.links {
        let up = match link.state {
            LinkState::Up => Some(1),
            LinkState::Down => Some(0),
            LinkState::Unknown => None,
        };
        page.known("mesh_link_up", &[("from", &link.from), ("to", &link.to)], up);
    }
    page.family(
        "mesh_link_latency_seconds",
        "gauge",
        "Time from publishing the last canary to its arrival.",
    );
    for link in &snapshot.links {
        let labels: Labels<'_> = &[("from", &link.from), ("to", &link.to)];
        page.known("mesh_link_latency_seconds", labels, link.latency_ms.map(seconds));
    }
    page.family(
        "mesh_link_received_total",
        "counter",
        "Messages over this link since its receiver started.",
    );
    for link in &snapshot.links {
        let labels: Labels<'_> = &[("from", &link.from), ("to", &link.to)];
        page.known("mesh_link_received_total", labels, link.received);
    }
}

fn of_daemon(page: &mut Page, counters: &Counters) {
    page.family("mesh_events_total", "counter", "Events by name.");
    for (name, count) in EventName::ALL.iter().zip(&counters.events) {
        page.sample(
            "mesh_events_total",
            &[("event", name)],
            count.load(Ordering::Relaxed),
        );
    }
    page.family("mesh_installs_total", "counter", "Plans handed to the balancer.");
    page.sample(
        "mesh_installs_total",
        &[],
        counters.installs.load(Ordering::Relaxed),
    );
    page.family(
        "mesh_loop_lag_seconds_max",
        "gauge",
        "The most that the daemon's own loop was ever late.",
    );
    let lag = counters.worst_lag_us.load(Ordering::Relaxed) as f64 / 1e6;
    page.sample("mesh_loop_lag_seconds_max", &[], lag);
}

fn seconds(millis: f64) -> f64 {
    millis / 1000.0
}

type Labels<'a> = &'a [(&'a str, &'a dyn Display)];

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn known(&mut self, name: &str, labels: Labels<'_>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(name, labels, value);
        }
    }

    /// No label value of ours needs quoting: ids and spelled names have a small alphabet.
    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.write(format_args!("{name}"));
        for (index, (key, label)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{key}=\"{label}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{after} {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_labels_and_unknown_values_have_none() {
        let mut page = Page(String::new());
        page.family("mesh_x_total", "counter", "Things.");
        page.sample("mesh_x_total", &[("from", &"a"), ("to", &"b")], 7);
        page.sample("mesh_x_total", &[], 0.5);
        page.known("mesh_x_total", &[], None::<u64>);
        let expected = "# HELP mesh_x_total Things.\n# TYPE mesh_x_total counter\n\
            mesh_x_total{from=\"a\",to=\"b\"} 7\nmesh_x_total 0.5\n";
        assert_eq!(page.0, expected);
    }
}
