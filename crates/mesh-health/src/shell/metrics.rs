//! `GET /metrics`: the snapshot and a few counters in Prometheus's text format.
//!
//! Base units, `mesh_` prefix, counters end in `_total`. What is not known has no sample, rather than a 0. Every
//! family is declared once, in [`FAMILIES`]; the table in `docs/METRICS.md` is made of that.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_model::{AdminState, EventName, HealthStatus, LinkState, MeshState, Role, Snapshot};

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

/// A metric with all its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: "gauge",
        labels,
        help,
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: "counter",
        labels,
        help,
    }
}

const BUILD: Family = gauge(
    "mesh_build_info",
    &["version"],
    "Always 1; the version of mesh-health.",
);
const STATE: Family = gauge(
    "mesh_state",
    &["state"],
    "1 for the state of the mesh, 0 for the others.",
);
const WANTED: Family = gauge(
    "mesh_plan_generation",
    &[],
    "Generation of the plan that the balancer shall run.",
);
const CONFIRMED: Family = gauge(
    "mesh_balancer_confirmed",
    &[],
    "1 if the balancer runs the wanted plan, else 0.",
);
const REJECTED: Family = gauge(
    "mesh_balancer_error",
    &[],
    "1 while the balancer refuses a plan, cannot be told of one or does not answer, else 0.",
);
const RUNNING: Family = gauge(
    "mesh_balancer_generation",
    &[],
    "Generation that the balancer answered last.",
);
const OLD_WORKERS: Family = gauge(
    "mesh_balancer_old_workers",
    &[],
    "Workers of earlier generations that still hold sessions.",
);
const CAN_MOVE: Family = gauge(
    "mesh_balancer_can_move_sessions",
    &[],
    "1 if the balancer's sessions to a broker that no longer serves can be closed, else 0.",
);
const HEALTH: Family = gauge(
    "mesh_broker_health",
    &["broker", "health"],
    "1 for the broker's health, 0 for the others.",
);
const ADMIN: Family = gauge(
    "mesh_broker_admin",
    &["broker", "admin"],
    "1 for what the operator wants of the broker, 0 for the others.",
);
const PRIMARY: Family = gauge(
    "mesh_broker_primary",
    &["broker"],
    "1 if clients are sent to this broker, else 0.",
);
const RTT: Family = gauge(
    "mesh_broker_rtt_seconds",
    &["broker"],
    "Time from the last PINGREQ to its PINGRESP.",
);
const CLIENTS: Family = gauge(
    "mesh_broker_clients",
    &["broker"],
    "Connected clients, without sessions of the mesh itself.",
);
const SESSIONS_LEFT: Family = gauge(
    "mesh_broker_sessions_left",
    &["broker"],
    "Sessions of the balancer that are still to be moved off this broker.",
);
const PUBLISH: Family = gauge(
    "mesh_broker_publish_per_second",
    &["broker", "direction"],
    "PUBLISH packets per second, received (in) and sent (out) by the broker.",
);
const RETAINED: Family = gauge(
    "mesh_broker_retained",
    &["broker"],
    "Retained messages, without those of $SYS.",
);
const IN_SYNC: Family = gauge(
    "mesh_broker_in_sync",
    &["broker"],
    "1 if the broker has what its peers retain, 0 if not; clients are sent elsewhere then.",
);
const LINK_UP: Family = gauge(
    "mesh_link_up",
    &["from", "to"],
    "1 if canaries pass, 0 if they do not though both ends are healthy.",
);
const LINK_LATENCY: Family = gauge(
    "mesh_link_latency_seconds",
    &["from", "to"],
    "Time from publishing the last canary to its arrival.",
);
const LINK_RECEIVED: Family = counter(
    "mesh_link_received_total",
    &["from", "to"],
    "Messages over this link since its receiver started.",
);
const LINK_BACKLOG: Family = gauge(
    "mesh_link_backlog",
    &["from", "to"],
    "Messages at the link's sender that its receiver has not yet told to have.",
);
const LINK_LOST: Family = gauge(
    "mesh_link_lost",
    &["from", "to"],
    "Messages that the link's sender keeps no longer and that its receiver is not known to have.",
);
const EVENTS: Family = counter("mesh_events_total", &["event"], "Events by name.");
const INSTALLS: Family = counter("mesh_installs_total", &[], "Plans handed to the balancer.");
const ANNOUNCEMENTS: Family = counter(
    "mesh_announcements_total",
    &["outcome"],
    "What became of announcements by command and webhook; failed counts attempts.",
);
const LAG: Family = gauge(
    "mesh_loop_lag_max_seconds",
    &[],
    "The most that the daemon's own loop was ever late.",
);

/// Every metric, in the order in which they are told.
pub const FAMILIES: &[Family] = &[
    BUILD,
    STATE,
    WANTED,
    CONFIRMED,
    REJECTED,
    RUNNING,
    OLD_WORKERS,
    CAN_MOVE,
    HEALTH,
    ADMIN,
    PRIMARY,
    RTT,
    CLIENTS,
    SESSIONS_LEFT,
    PUBLISH,
    RETAINED,
    IN_SYNC,
    LINK_UP,
    LINK_LATENCY,
    LINK_RECEIVED,
    LINK_BACKLOG,
    LINK_LOST,
    EVENTS,
    INSTALLS,
    ANNOUNCEMENTS,
    LAG,
];

/// The table of `docs/METRICS.md`.
pub fn reference() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for Family {
        name,
        kind,
        labels,
        help,
    } in FAMILIES
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        table += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    table
}

/// Everything, as Prometheus reads it.
pub fn render(snapshot: &Snapshot, counters: &Counters) -> String {
    let mut page = Page(String::with_capacity(8 * 1024));
    page.family(&BUILD);
    page.sample(&BUILD, &[&env!("CARGO_PKG_VERSION")], 1);
    of_mesh(&mut page, snapshot);
    of_brokers(&mut page, snapshot);
    of_links(&mut page, snapshot);
    of_daemon(&mut page, counters);
    page.0
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

/// The values of a family's labels, in its order.
type Labels<'a> = &'a [&'a dyn Display];

struct Page(String);

impl Page {
    fn family(&mut self, family: &Family) {
        let Family { name, kind, help, .. } = family;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn known(&mut self, family: &Family, labels: Labels<'_>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(family, labels, value);
        }
    }

    /// No label value of ours needs quoting: ids, spelled names and versions have a small alphabet.
    fn sample(&mut self, family: &Family, labels: Labels<'_>, value: impl Display) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        self.write(format_args!("{}", family.name));
        for (index, (key, label)) in family.labels.iter().zip(labels).enumerate() {
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
        let things = counter("mesh_x_total", &["from", "to"], "Things.");
        let whole = gauge("mesh_y", &[], "A whole.");
        let mut page = Page(String::new());
        page.family(&things);
        page.sample(&things, &[&"a", &"b"], 7);
        page.known(&things, &[&"a", &"c"], None::<u64>);
        page.sample(&whole, &[], 0.5);
        let expected = "# HELP mesh_x_total Things.\n# TYPE mesh_x_total counter\n\
            mesh_x_total{from=\"a\",to=\"b\"} 7\nmesh_y 0.5\n";
        assert_eq!(page.0, expected);
    }

    #[test]
    fn names_follow_prometheus_conventions() {
        for family in FAMILIES {
            assert!(family.name.starts_with("mesh_"), "{}", family.name);
            let counts = family.name.ends_with("_total");
            assert_eq!(family.kind == "counter", counts, "{}", family.name);
            assert!(!family.name.contains("_ms"), "{}: base units", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }

    #[test]
    fn outcomes_are_counted_where_they_are_told() {
        let counters = Counters::default();
        for (position, outcome) in Announced::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, position);
            counters.announced(outcome);
        }
        let mut page = Page(String::new());
        of_daemon(&mut page, &counters);
        for outcome in Announced::ALL {
            let line = format!("mesh_announcements_total{{outcome=\"{}\"}} 1\n", outcome.as_str());
            assert!(page.0.contains(&line), "{}", page.0);
        }
    }
}
