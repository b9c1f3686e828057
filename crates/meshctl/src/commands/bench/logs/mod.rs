//! `meshctl bench logs`: how fast lines get into the database, at what cost, how soon they can be seen, and how soon
//! they are found, also while old ones are deleted; beside a plain program that inserts the same rows, and a shipper that reads the same files.

mod daemon;
mod latency;
mod lines;
mod plain;
mod queries;
mod report;
mod shipper;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_store::Reader;

use super::say;
use daemon::{Daemon, EVERYTHING};
use report::{Ingest, Report, Round};

/// Flags of `meshctl bench logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,

    /// Less of everything: figures to look at, not to rely on
    #[arg(long)]
    quick: bool,

    /// How many lines the database has in the end; queries are measured at half of that too
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
}

/// How long a step may take before it is taken to have failed.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Measures everything.
pub async fn run(args: LogsArgs) -> anyhow::Result<ExitCode> {
    let rows = args.rows.unwrap_or(if args.quick { 100_000 } else { 2_000_000 });
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut report = Report::default();
    let mut lines = lines::Lines::new(folder.path())?;
    for (number, rows) in [rows / 2, rows].into_iter().enumerate() {
        say(&format!("writing files of {rows} lines …"));
        lines.extend_to(rows)?;
        say(&format!("reading them up to {rows} lines …"));
        let ingest = ingest(folder.path(), &lines, number as u64 * (rows / 2)).await?;
        say(&format!("searching {rows} lines …"));
        let reader = Reader::open(&folder.path().join("mesh.db")).await?;
        let queries = queries::measure(&reader, if args.quick { 20 } else { 100 }).await?;
        reader.close().await;
        report.rounds.push(Round {
            rows,
            ingest,
            queries,
        });
    }
    say("inserting the same rows with a plain program …");
    report.plain = plain::measure(folder.path(), rows).await?;
    say("reading the same files with rsyslog …");
    report.shipper = shipper::measure(folder.path(), &lines);
    say("measuring how soon lines can be seen …");
    let seconds = if args.quick { 5 } else { 30 };
    report.latency = latency::measure(folder.path(), Duration::from_secs(seconds)).await?;
    say("deleting half of the lines meanwhile …");
    report.retention = latency::measure_while_deleting(folder.path(), Duration::from_secs(seconds)).await?;
    say("");
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", report.in_words());
    }
    Ok(ExitCode::SUCCESS)
}

/// Has mesh-logs read what it has not read yet.
async fn ingest(folder: &Path, lines: &lines::Lines, before: u64) -> anyhow::Result<Ingest> {
    let began = Instant::now();
    let daemon = Daemon::start(folder, &lines.sources(), EVERYTHING)?;
    daemon.until_stored(lines.count(), PATIENCE).await?;
    let took = began.elapsed();
    let usage = daemon.usage();
    daemon.stop().await?;
    let count = lines.count() - before;
    Ok(Ingest {
        lines: count,
        megabytes: lines.bytes() as f64 / 1e6 * count as f64 / lines.count() as f64,
        seconds: took.as_secs_f64(),
        lines_per_s: count as f64 / took.as_secs_f64(),
        cpu_s: usage.cpu.map(|cpu| cpu.as_secs_f64()),
        peak_mib: usage.peak.map(|peak| peak as f64 / 1024.0 / 1024.0),
        database_mb: std::fs::metadata(folder.join("mesh.db")).map_or(0.0, |file| file.len() as f64 / 1e6),
    })
}
