//! `GET /metrics`, in Prometheus's text format: base units, `mesh_logs_` prefix, counters end in `_total`. What is not
//! known has no sample. Every family is declared once, in [`FAMILIES`]; the table in `docs/METRICS.md` is made of that.

use std::fmt::Display;
use std::sync::atomic::Ordering;

pub use mesh_runtime::metrics::Family;
use mesh_runtime::metrics::Page;

use super::intake::now_ns;
use super::status::{COMMIT_BUCKETS_MS, SourceStatus, Status};

const SOURCE: &[&str] = &["source", "stream"];

const BUILD: Family = Family::gauge(
    "mesh_logs_build_info",
    &["version"],
    "Always 1; the version of mesh-logs.",
);
const LINES: Family = Family::counter(
    "mesh_logs_lines_total",
    SOURCE,
    "Lines stored of this source since ever.",
);
const BYTES: Family = Family::counter("mesh_logs_bytes_total", SOURCE, "Bytes of those lines.");
const UNPARSED: Family = Family::counter(
    "mesh_logs_unparsed_lines_total",
    SOURCE,
    "Lines that no parser understood; they are stored whole.",
);
const GAPS: Family = Family::counter(
    "mesh_logs_gaps_total",
    SOURCE,
    "How often lines of this source may have been missed; each is a line with the event logs.gap.",
);
const LAG_LINES: Family = Family::gauge(
    "mesh_logs_lag_lines",
    SOURCE,
    "Lines that are there and not stored yet; those not read are estimated by their bytes.",
);
const LAG_SECONDS: Family = Family::gauge(
    "mesh_logs_lag_seconds",
    SOURCE,
    "Age of the line stored last while others wait, else 0.",
);
const SOURCE_UP: Family = Family::gauge(
    "mesh_logs_source_up",
    SOURCE,
    "1 if the source can be read, else 0.",
);
const COMMIT: Family = Family::histogram(
    "mesh_logs_commit_seconds",
    &[],
    "How long batches took to be committed.",
);
const STALLED: Family = Family::gauge(
    "mesh_logs_stalled",
    &["trouble"],
    "1 for the trouble for which sources wait, 0 for the others: locked, full, disk, corrupt, slow, other.",
);
const STALLS: Family = Family::counter("mesh_logs_stalls_total", &[], "How often such trouble began.");
const DATABASE: Family = Family::gauge(
    "mesh_logs_database_bytes",
    &["part"],
    "Bytes of the database: in use, free for new rows, and in the file of changes (wal).",
);
const FORGOTTEN: Family = Family::counter(
    "mesh_logs_deleted_lines_total",
    &[],
    "Lines deleted since the start because they were old or too many.",
);
const SESSIONS: Family = Family::gauge(
    "mesh_logs_sessions",
    &["broker"],
    "Client sessions that are open according to the lines.",
);
const DRIFT: Family = Family::gauge(
    "mesh_logs_session_drift",
    &["broker"],
    "Those sessions less the clients that the broker counts, without links and probes.",
);
const DUPLICATES: Family = Family::gauge(
    "mesh_logs_duplicate_clients",
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

/// Everything, as Prometheus reads it.
pub fn render(status: &Status) -> String {
    let mut page = Page::default();
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
    page.into_text()
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
    let bounds = COMMIT_BUCKETS_MS.map(|millis| millis as f64 / 1000.0);
    page.family(&COMMIT);
    page.buckets(&COMMIT, &counts, &bounds, micros as f64 / 1e6);
}
