//! The figures of `meshctl bench dashboard`, as JSON and as a table.

use std::fmt;

use serde::Serialize;

use crate::commands::bench::times::Times;

use crate::commands::bench::report::{figure, table};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether there was less of everything.
    pub quick: bool,
    /// From the navigation until the picture is painted, with nothing kept from before.
    pub first_page_ms: Option<Times>,
    /// The same with what a browser keeps.
    pub first_page_kept_ms: Option<Times>,
    /// How many events were measured.
    pub events: usize,
    /// From mesh-health's decision until the page has the event.
    pub event_ms: Option<Times>,
    /// From mesh-health's decision that a broker is dead until the picture shows it.
    pub picture_ms: Option<Times>,
    /// The server while nobody reads.
    pub idle: Cost,
    /// How many read at once.
    pub readers: usize,
    /// The server while they do.
    pub crowd: Cost,
    /// Bytes a second that each of them gets.
    pub crowd_bytes_per_s_each: f64,
    /// How long after the first of them the last one was told of an event.
    pub crowd_last_after_first_ms: Option<f64>,
}

/// What a process costs; `None` where that cannot be told.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Percent of one core.
    pub cpu_percent: Option<f64>,
    /// Memory in MiB.
    pub rss_mib: Option<f64>,
    /// For how many seconds it was watched.
    pub seconds: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = table(["MILLISECONDS", "P50", "P99", "MAX"]);
        for (name, of) in [
            ("first page, nothing kept", self.first_page_ms),
            ("first page, kept files", self.first_page_kept_ms),
            ("decision to event in the page", self.event_ms),
            ("decision to picture", self.picture_ms),
        ] {
            let of = |value: fn(&Times) -> f64| figure(of.as_ref().map(value), 1);
            times.add_row([name.to_owned(), of(|t| t.p50), of(|t| t.p99), of(|t| t.max)]);
        }
        let mut costs = table(["SERVER", "CPU %", "MIB"]);
        for (name, cost) in [
            ("read by nobody".to_owned(), self.idle),
            (format!("{} readers", self.readers), self.crowd),
        ] {
            costs.add_row([name, figure(cost.cpu_percent, 2), figure(cost.rss_mib, 1)]);
        }
        writeln!(f, "{times}\n\n{costs}\n")?;
        write!(
            f,
            "{} events. Each of {} readers gets {} KiB a second; an event reaches the last one {} ms after the first.",
            self.events,
            self.readers,
            figure(Some(self.crowd_bytes_per_s_each / 1024.0), 1),
            figure(self.crowd_last_after_first_ms, 0),
        )
    }
}
