//! `GET /metrics`, in Prometheus's text format: base units, `mesh_logs_` prefix, counters end in `_total`. What is not
//! known has no sample. Every family is declared once, in [`FAMILIES`]; the table in `docs/METRICS.md` is made of that.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::intake::now_ns;
use super::status::{COMMIT_BUCKETS_MS, SourceStatus, Status};

/// A metric with all its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `gauge`, `counter` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const SOURCE: &[&str] = &["source", "stream"];

const fn family(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
    }
}

const BUILD: Family = family(
    "mesh_logs_build_info",
    "gauge",
    &["version"],
    "Always 1; the version of mesh-logs.",
);
const LINES: Family = family(
    "mesh_logs_lines_total",
    "counter",
    SOURCE,
    "Lines stored of this source since ever.",
);
const BYTES: Family = family(
    "mesh_logs_bytes_total",
    "counter",
    SOURCE,
    "Bytes of those lines.",
);
const UNPARSED: Family = family(
    "mesh_logs_unparsed_lines_total",
    "counter",
    SOURCE,
    "Lines that no parser understood; they are stored whole.",
);
const GAPS: Family = family(
    "mesh_logs_gaps_total",
    "counter",
    SOURCE,
    "How often lines of this source may have been missed; each is a line with the event logs.gap.",
);
const LAG_LINES: Family = family(
    "mesh_logs_lag_lines",
    "gauge",
    SOURCE,
    "Lines that are there and not stored yet; those not read are estimated by their bytes.",
);
const LAG_SECONDS: Family = family(
    "mesh_logs_lag_seconds",
    "gauge",
    SOURCE,
    "Age of the line stored last while others wait, else 0.",
);
const SOURCE_UP: Family = family(
    "mesh_logs_source_up",
    "gauge",
    SOURCE,
    "1 if the source can be read, else 0.",
);
const COMMIT: Family = family(
    "mesh_logs_commit_seconds",
    "histogram",
    &[],
    "How long batches took to be committed.",
);
const STALLED: Family = family(
    "mesh_logs_stalled",
    "gauge",
    &["trouble"],
    "1 for the trouble for which sources wait, 0 for the others: locked, full, disk, corrupt, slow, other.",
);
const STALLS: Family = family(
    "mesh_logs_stalls_total",
    "counter",
    &[],
    "How often such trouble began.",
);
const DATABASE: Family = family(
    "mesh_logs_database_bytes",
    "gauge",
    &["part"],
    "Bytes of the database: in use, free for new rows, and in the file of changes (wal).",
);
const FORGOTTEN: Family = family(
    "mesh_logs_deleted_lines_total",
    "counter",
    &[],
    "Lines deleted since the start because they were old or too many.",
);
const SESSIONS: Family = family(
    "mesh_logs_sessions",
    "gauge",
    &["broker"],
    "Client sessions that are open according to the lines.",
);
const DRIFT: Family = family(
    "mesh_logs_session_drift",
    "gauge",
    &["broker"],
    "Those sessions less the clients that the broker counts, without links and probes.",
);
const DUPLICATES: Family = family(
    "mesh_logs_duplicate_clients",
    "gauge",
    &[],
    "Client ids that are connected to more than one broker.",
);

/// Every metric, in the order in which they are told.
pub const FAMILIES: &[Family] = &[
    BUILD,
    LINES,
    BYTES,
    UNPARSED,
    GAPS,
    LAG_LINES,
    LAG_SECONDS,
    SOURCE_UP,
    COMMIT,
    STALLED,
    STALLS,
    DATABASE,
    FORGOTTEN,
    SESSIONS,
    DRIFT,
    DUPLICATES,
];

/// The table of `docs/METRICS.md`.
pub fn reference() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!(
            "| `{}` | {} | {} | {} |\n",
            family.name,
            family.kind,
            labels.join(", "),
            family.help
        );
    }
    table
}

/// Everything, as Prometheus reads it.
pub fn render(status: &Status) -> String {
    let mut page = Page(String::with_capacity(8 * 1024));
    page.family(&BUILD);
    page.sample(&BUILD, &[&env!("CARGO_PKG_VERSION")], 1);
    of_sources(&mut page, &status.sources());
    of_commits(&mut page, status);
    page.family(&STALLED);
    let stall = status.stall();
    for trouble in mesh_store::Trouble::ALL {
        let is_it = stall.as_ref().is_some_and(|stall| stall.trouble == trouble);
        page.sample(&STALLED, &[&trouble.as_str()], u8::from(is_it));
    }
    page.family(&STALLS);
    page.sample(&STALLS, &[], status.stalls());
    page.family(&DATABASE);
    let size = status.size();
    page.sample(&DATABASE, &[&"used"], size.bytes.saturating_sub(size.free));
    page.sample(&DATABASE, &[&"free"], size.free);
    page.sample(&DATABASE, &[&"wal"], size.wal);
    page.family(&FORGOTTEN);
    page.sample(&FORGOTTEN, &[], status.forgotten.load(Ordering::Relaxed));
    let drift = status.drift();
    page.family(&SESSIONS);
    for (broker, drift) in &drift {
        page.sample(&SESSIONS, &[broker], drift.sessions);
    }
    page.family(&DRIFT);
    for (broker, drift) in &drift {
        if let Some(clients) = drift.clients {
            page.sample(
                &DRIFT,
                &[broker],
                drift.sessions.cast_signed() - clients.cast_signed(),
            );
        }
    }
    page.family(&DUPLICATES);
    page.sample(&DUPLICATES, &[], status.duplicates.load(Ordering::Relaxed));
    page.0
}

fn of_sources(page: &mut Page, sources: &[SourceStatus]) {
    let now = now_ns();
    let mut each = |family: &Family, value: &dyn Fn(&SourceStatus) -> f64| {
        page.family(family);
        for source in sources {
            let labels: [&dyn Display; 2] = [&source.stored.name, &source.stored.stream];
            page.sample(family, &labels, value(source));
        }
    };
    each(&LINES, &|source| source.stored.lines as f64);
    each(&BYTES, &|source| source.stored.bytes as f64);
    each(&UNPARSED, &|source| source.stored.unparsed as f64);
    each(&GAPS, &|source| source.stored.gaps as f64);
    each(&LAG_LINES, &|source| lag_lines(source));
    each(&LAG_SECONDS, &|source| {
        if lag_lines(source) > 0.0 && source.last_time_ns > 0 {
            (now - source.last_time_ns).max(0) as f64 / 1e9
        } else {
            0.0
        }
    });
    each(&SOURCE_UP, &|source| f64::from(u8::from(source.error.is_none())));
}

fn lag_lines(source: &SourceStatus) -> f64 {
    let stored = &source.stored;
    // Before the first line is known, a guess.
    let bytes_a_line = stored.bytes.checked_div(stored.lines).unwrap_or(100).max(1);
    (source.waiting + source.unread / bytes_a_line) as f64
}

fn of_commits(page: &mut Page, status: &Status) {
    let (counts, micros) = status.commits();
    page.family(&COMMIT);
    let name = COMMIT.name;
    let mut sum = 0;
    for (count, bound) in counts.iter().zip(COMMIT_BUCKETS_MS) {
        sum += count;
        page.write(format_args!(
            "{name}_bucket{{le=\"{}\"}} {sum}\n",
            bound as f64 / 1000.0
        ));
    }
    sum += counts.last().copied().unwrap_or(0);
    page.write(format_args!("{name}_bucket{{le=\"+Inf\"}} {sum}\n"));
    page.write(format_args!(
        "{name}_sum {}\n{name}_count {sum}\n",
        micros as f64 / 1e6
    ));
}

struct Page(String);

impl Page {
    fn family(&mut self, family: &Family) {
        let Family { name, kind, help, .. } = family;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, family: &Family, labels: &[&dyn Display], value: impl Display) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        self.write(format_args!("{}", family.name));
        for (index, (key, label)) in family.labels.iter().zip(labels).enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{key}=\"{}\"", quoted(&label.to_string())));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{after} {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a string cannot fail");
    }
}

/// Names of files may contain anything.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
