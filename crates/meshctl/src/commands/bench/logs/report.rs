//! The figures, as JSON and for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) rounds: Vec<Round>,
    pub(super) plain: Plain,
    pub(super) shipper: Shipper,
    pub(super) latency: Latency,
    pub(super) retention: Retention,
}

/// At one size of the database.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    pub(super) rows: u64,
    pub(super) ingest: Ingest,
    pub(super) queries: Vec<Search>,
}

/// What it took to read the files.
#[derive(Debug, Serialize)]
pub(super) struct Ingest {
    pub(super) lines: u64,
    pub(super) megabytes: f64,
    pub(super) seconds: f64,
    pub(super) lines_per_s: f64,
    pub(super) cpu_s: Option<f64>,
    pub(super) peak_mib: Option<f64>,
    pub(super) database_mb: f64,
}

/// One query.
#[derive(Debug, Serialize)]
pub(super) struct Search {
    pub(super) kind: &'static str,
    pub(super) query: &'static str,
    pub(super) found: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// The plain program.
#[derive(Debug, Default, Serialize)]
pub(super) struct Plain {
    pub(super) rows: u64,
    pub(super) seconds: f64,
    pub(super) rows_per_s: f64,
    pub(super) cpu_s: f64,
}

/// The shipper.
#[derive(Debug, Default, Serialize)]
pub(super) struct Shipper {
    pub(super) name: &'static str,
    pub(super) seconds: Option<f64>,
    pub(super) lines_per_s: Option<f64>,
    pub(super) cpu_s: Option<f64>,
    pub(super) peak_mib: Option<f64>,
    pub(super) does_not: &'static str,
    /// Why it was not measured, if so.
    pub(super) left_out: Option<String>,
}

/// From written to seen.
#[derive(Debug, Default, Serialize)]
pub(super) struct Latency {
    pub(super) lines: u64,
    pub(super) missing: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Latency {
    fn in_words(&self) -> String {
        format!(
            "p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms ({} lines, {} missing)",
            self.p50_ms, self.p99_ms, self.max_ms, self.lines, self.missing
        )
    }
}

/// What happens while old lines are deleted.
#[derive(Debug, Default, Serialize)]
pub(super) struct Retention {
    pub(super) deleted: u64,
    pub(super) seconds: f64,
    pub(super) visible: Latency,
    pub(super) slowest_search: &'static str,
    pub(super) slowest_ms: f64,
}

/// The value below which so many per cent of `sorted` are; 0 of nothing.
pub(super) fn percentile(sorted: &[f64], per_cent: f64) -> f64 {
    let place = (sorted.len() as f64 * per_cent / 100.0).ceil() as usize;
    sorted.get(place.max(1) - 1).copied().unwrap_or(0.0)
}

impl Report {
    pub(super) fn in_words(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let known =
            |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let mut table = table(["", "LINES", "SECONDS", "LINES/S", "CPU S", "PEAK MIB"]);
        for round in &self.rounds {
            let ingest = &round.ingest;
            table.add_row([
                format!("mesh-logs, up to {} lines", round.rows),
                ingest.lines.to_string(),
                format!("{:.1}", ingest.seconds),
                format!("{:.0}", ingest.lines_per_s),
                known(ingest.cpu_s, 1),
                known(ingest.peak_mib, 0),
            ]);
        }
        let plain = &self.plain;
        table.add_row([
            "plain inserts (no reading, no parsing)".to_owned(),
            plain.rows.to_string(),
            format!("{:.1}", plain.seconds),
            format!("{:.0}", plain.rows_per_s),
            format!("{:.1}", plain.cpu_s),
            "-".to_owned(),
        ]);
        let shipper = &self.shipper;
        if shipper.left_out.is_none() {
            table.add_row([
                shipper.name.to_owned(),
                self.rounds.last().map_or(0, |round| round.rows).to_string(),
                known(shipper.seconds, 1),
                known(shipper.lines_per_s, 0),
                known(shipper.cpu_s, 1),
                known(shipper.peak_mib, 0),
            ]);
        }
        writeln!(text, "Files into the database, parsed and indexed:\n\n{table}\n")?;
        let all: (u64, f64) = self.rounds.iter().fold((0, 0.0), |sum, round| {
            (sum.0 + round.ingest.lines, sum.1 + round.ingest.seconds)
        });
        let rate = all.0 as f64 / all.1;
        writeln!(
            text,
            "mesh-logs reads at {:.2} of the speed of plain inserts.",
            rate / plain.rows_per_s
        )?;
        match &shipper.left_out {
            Some(why) => writeln!(text, "rsyslog was left out: {why}")?,
            None => writeln!(text, "{}: {}.", shipper.name, shipper.does_not)?,
        }
        for round in &self.rounds {
            let mut table = self::table(["QUERY", "", "FOUND", "P50 MS", "P99 MS", ""]);
            for search in &round.queries {
                table.add_row([
                    search.kind.to_owned(),
                    search.query.to_owned(),
                    search.found.to_string(),
                    format!("{:.1}", search.p50_ms),
                    format!("{:.1}", search.p99_ms),
                    String::new(),
                ]);
            }
            let (rows, size) = (round.rows, round.ingest.database_mb);
            writeln!(
                text,
                "\nThe newest 200 of {rows} lines ({size:.0} MB):\n\n{table}"
            )?;
        }
        let latency = &self.latency;
        writeln!(
            text,
            "\nWritten to visible at 2,000 lines/s: {}",
            latency.in_words()
        )?;
        let retention = &self.retention;
        write!(
            text,
            "The same while {:.0} old lines/s are deleted: {}; the slowest search ({}) p99 {:.1} ms",
            retention.deleted as f64 / retention.seconds,
            retention.visible.in_words(),
            retention.slowest_search,
            retention.slowest_ms
        )
    }
}

fn table(header: [&str; 6]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for index in 2..6 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
