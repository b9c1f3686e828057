//! The limit: the same rows into the same schema, with prepared statements, by a program that does nothing else. Each
//! session is inserted once, as it was in the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_store::reader::Place;
use mesh_store::row::NewRow;
use mesh_store::{Query, Reader, Writer};
use rusqlite::Connection;

use super::report::Plain;
use crate::commands::bench::usage;

/// Rows of one transaction, as many as mesh-logs stores at once when it has a backlog.
const BATCH: u32 = 8192;

/// Lines of a part of the full-text index, as many as mesh-logs puts into one.
const PART: u64 = 500_000;

pub(super) async fn measure(folder: &Path, rows: u64) -> anyhow::Result<Plain> {
    let path = folder.join("plain.db");
    // The same schema, with the same settings of the file.
    Writer::open(&path).await?.0.close().await?;
    let reader = Reader::open(&folder.join("mesh.db")).await?;
    let mut connection = Connection::open(&path).context("cannot open the database")?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -12000; PRAGMA wal_autocheckpoint = 2000; \
         PRAGMA journal_size_limit = 67108864",
    )?;
    let mut sessions = Sessions::open(&folder.join("mesh.db"))?;
    let (mut place, mut inserted, mut took, mut cpu) =
        (Place::After(i64::MIN), 0, Duration::ZERO, Duration::ZERO);
    while inserted < rows {
        let page = reader.page(&Query::default(), place, BATCH).await?;
        let Some(last) = page.rows.last() else { break };
        place = Place::After(last.id);
        let batch: Vec<NewRow> = page.rows.into_iter().map(NewRow::from_stored).collect();
        let of_clients = sessions.next(batch.len() as u64, rows)?;
        let (began, cpu_before) = (Instant::now(), usage::cpu_of_thread());
        let part = inserted / PART + 1;
        connection.execute_batch(&format!(
            "CREATE VIRTUAL TABLE IF NOT EXISTS words_{part} USING fts5 (text, content = '', columnsize = 0)"
        ))?;
        insert(&mut connection, &batch, part, &of_clients)?;
        took += began.elapsed();
        cpu += usage::cpu_of_thread() - cpu_before;
        inserted += batch.len() as u64;
    }
    reader.close().await;
    Ok(Plain {
        rows: inserted,
        seconds: took.as_secs_f64(),
        rows_per_s: inserted as f64 / took.as_secs_f64(),
        cpu_s: cpu.as_secs_f64(),
    })
}

/// The values of a row.
type Values = Vec<rusqlite::types::Value>;

/// Columns of `client_session`.
const COLUMNS: usize = 12;

/// The sessions of the database, handed out evenly with the lines.
struct Sessions {
    connection: Connection,
    count: u64,
    last_id: i64,
    lines: u64,
    given: u64,
}

impl Sessions {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        let count: i64 = connection.query_row("SELECT count(*) FROM client_session", [], |row| row.get(0))?;
        Ok(Self {
            connection,
            count: count.unsigned_abs(),
            last_id: 0,
            lines: 0,
            given: 0,
        })
    }

    /// Those for the next `lines` of `all` lines.
    fn next(&mut self, lines: u64, all: u64) -> rusqlite::Result<Vec<Values>> {
        self.lines += lines;
        let due = (self.count * self.lines / all).saturating_sub(self.given);
        let mut query = self
            .connection
            .prepare_cached("SELECT * FROM client_session WHERE id > ? ORDER BY id LIMIT ?")?;
        let values = |row: &rusqlite::Row<'_>| (0..COLUMNS).map(|column| row.get(column)).collect();
        let next: Vec<Values> = query
            .query_map((self.last_id, due as i64), values)?
            .collect::<rusqlite::Result<_>>()?;
        self.given += next.len() as u64;
        if let Some(rusqlite::types::Value::Integer(id)) = next.last().and_then(|values| values.first()) {
            self.last_id = *id;
        }
        Ok(next)
    }
}

fn insert(
    connection: &mut Connection,
    rows: &[NewRow],
    part: u64,
    sessions: &[Values],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut log = transaction.prepare_cached(
            "INSERT INTO log (id, time_ns, observed_ns, severity, body, attributes, event, node, broker, service, client_id, \
             source) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let words = format!("INSERT INTO words_{part} (rowid, text) VALUES (?, ?)");
        let mut words = transaction.prepare_cached(&words)?;
        for row in rows {
            let row = row.columns();
            log.execute(rusqlite::params![
                row.id,
                row.time_ns,
                row.time_ns,
                row.severity,
                row.body,
                row.attributes,
                row.event,
                row.node,
                row.broker,
                row.service,
                row.client_id,
                row.source
            ])?;
            words.execute(rusqlite::params![row.id, row.text])?;
        }
        let mut session = transaction
            .prepare_cached("INSERT INTO client_session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
        for values in sessions {
            session.execute(rusqlite::params_from_iter(values))?;
        }
    }
    transaction.commit()
}
