//! From a line that is written to a row that a reader sees, at 2,000 lines a second.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mesh_lab::wait_until;
use mesh_store::{Query, Reader};

use super::daemon::{Daemon, EVERYTHING};
use super::queries;
use super::report::{Latency, Retention, percentile};

const PER_S: u64 = 2000;

/// Lines are written in this rhythm.
const STEP: Duration = Duration::from_millis(5);

/// With a new database.
pub(super) async fn measure(folder: &Path, span: Duration) -> anyhow::Result<Latency> {
    let folder = folder.join("latency");
    std::fs::create_dir(&folder)?;
    let live = Live::start(&folder, EVERYTHING).await?;
    let latency = live.measure(span).await?;
    live.daemon.stop().await?;
    Ok(latency)
}

/// With the database of the bench, while the older half of its lines is deleted and others search.
pub(super) async fn measure_while_deleting(folder: &Path, span: Duration) -> anyhow::Result<Retention> {
    let database = folder.join("mesh.db");
    let bytes = std::fs::metadata(&database)?.len();
    let count = || -> rusqlite::Result<i64> {
        rusqlite::Connection::open(&database)?.query_row("SELECT count(*) FROM log", [], |row| row.get(0))
    };
    let before = count()?;
    let live = Live::start(folder, bytes / 2).await?;
    let searches = async {
        let (mut all, began) = (Vec::new(), Instant::now());
        while began.elapsed() < span {
            all.extend(queries::measure(&live.reader, 5).await?);
        }
        anyhow::Ok(all)
    };
    let (visible, searches) = tokio::join!(live.measure(span), searches);
    let (visible, searches) = (visible?, searches?);
    live.daemon.stop().await?;
    let deleted = (before.unsigned_abs() + visible.lines).saturating_sub(count()?.unsigned_abs());
    let slowest = searches
        .iter()
        .max_by(|a, b| a.p99_ms.total_cmp(&b.p99_ms))
        .map(|search| (search.kind, search.p99_ms));
    Ok(Retention {
        deleted,
        seconds: span.as_secs_f64(),
        visible,
        slowest_search: slowest.map_or("", |(kind, _)| kind),
        slowest_ms: slowest.map_or(0.0, |(_, millis)| millis),
    })
}

/// A daemon that follows a file, and a reader that waits for its lines.
struct Live {
    daemon: Daemon,
    reader: Reader,
    file: PathBuf,
}

impl Live {
    async fn start(folder: &Path, keep_bytes: u64) -> anyhow::Result<Self> {
        let file = folder.join("live.log");
        let source = format!(
            "[[logs.source]]\nname = \"live\"\npath = \"{}\"\nformat = \"mosquitto\"\nbroker = \"broker1\"\n",
            file.display()
        );
        let daemon = Daemon::start(folder, &source, keep_bytes)?;
        let database = folder.join("mesh.db");
        let reader = wait_until("a database", Duration::from_secs(30), async || {
            Reader::open(&database).await
        })
        .await?;
        Ok(Self { daemon, reader, file })
    }

    async fn measure(&self, span: Duration) -> anyhow::Result<Latency> {
        let stop = Arc::new(AtomicBool::new(false));
        let (to_stop, to_write) = (Arc::clone(&stop), self.file.clone());
        let mut seen = self.reader.last_observed().await?;
        let writer = std::thread::spawn(move || write(&to_write, span, &to_stop));
        let mut millis = Vec::new();
        let query: Query = "written".parse()?;
        let expected = PER_S * span.as_secs();
        let deadline = Instant::now() + span + Duration::from_secs(30);
        while (millis.len() as u64) < expected && Instant::now() < deadline {
            let news = self.reader.news(&query, seen, u32::MAX).await?;
            seen = news.until;
            let now = Timestamp::now().as_nanosecond();
            for row in &news.rows {
                let written = row
                    .body
                    .rsplit(' ')
                    .next()
                    .and_then(|text| text.parse::<i128>().ok());
                millis.extend(written.map(|written| (now - written) as f64 / 1e6));
            }
            if news.rows.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer failed"))??;
        millis.sort_by(f64::total_cmp);
        Ok(Latency {
            lines: millis.len() as u64,
            missing: expected - millis.len() as u64,
            p50_ms: percentile(&millis, 50.0),
            p99_ms: percentile(&millis, 99.0),
            max_ms: percentile(&millis, 100.0),
        })
    }
}

fn write(path: &Path, span: Duration, stop: &AtomicBool) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let began = Instant::now();
    let mut written = 0;
    let all = PER_S * span.as_secs();
    while written < all && !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * PER_S as f64) as u64;
        let mut text = String::new();
        while written < due.min(all) {
            let now = Timestamp::now();
            let line = format!(
                "{}: Client sensor-{written} written {}\n",
                now.as_second(),
                now.as_nanosecond()
            );
            text += &line;
            written += 1;
        }
        file.write_all(text.as_bytes())?;
        std::thread::sleep(STEP);
    }
    Ok(())
}
