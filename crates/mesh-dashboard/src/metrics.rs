//! `/metrics`: what this program counts of itself, in Prometheus's text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::feed::Feed;

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events of mesh-health that were told to the page.
    pub events: AtomicU64,
    /// Event streams that were refused because there were too many.
    pub refused: AtomicU64,
    /// Events that slow readers missed.
    pub missed: AtomicU64,
    /// Logins with a wrong token.
    pub wrong_logins: AtomicU64,
}

impl Counters {
    /// Counts one.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One metric: its name, its type and its help. `docs/METRICS.md` has the same table.
pub const FAMILIES: [(&str, &str, &str); 6] = [
    (
        "mesh_dashboard_source_up",
        "gauge",
        "Whether mesh-health answered when it was asked last.",
    ),
    ("mesh_dashboard_streams", "gauge", "Open event streams."),
    (
        "mesh_dashboard_streams_refused_total",
        "counter",
        "Event streams refused because there were too many.",
    ),
    (
        "mesh_dashboard_events_total",
        "counter",
        "Events of mesh-health told to the page.",
    ),
    (
        "mesh_dashboard_missed_events_total",
        "counter",
        "Events that slow readers missed, of all readers together.",
    ),
    (
        "mesh_dashboard_wrong_logins_total",
        "counter",
        "Logins with a wrong token.",
    ),
];

/// The table of `docs/METRICS.md`.
pub fn reference() -> String {
    let mut table = String::from("| metric | type | meaning |\n|---|---|---|\n");
    for (name, kind, help) in FAMILIES {
        // A String takes everything.
        writeln!(table, "| `{name}` | {kind} | {help} |").ok();
    }
    table
}

/// The page of metrics.
pub fn render(feed: &Feed, counters: &Counters) -> String {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let values = [
        u64::from(feed.now().state.health.reachable),
        u64::try_from(feed.open_streams()).unwrap_or(u64::MAX),
        count(&counters.refused),
        count(&counters.events),
        count(&counters.missed),
        count(&counters.wrong_logins),
    ];
    let mut page = String::new();
    for ((name, kind, help), value) in FAMILIES.iter().zip(values) {
        writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}").ok();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_what_there_is() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        let table = reference();
        assert!(docs.contains(&table), "put this into docs/METRICS.md:\n{table}");
    }
}
