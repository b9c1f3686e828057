//! The limit: the same rows into the same schema, with prepared statements, by a program that does nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_store::reader::Place;
use mesh_store::row::NewRow;
use mesh_store::{Query, Reader, Writer};
use rusqlite::Connection;

use super::report::Plain;

/// Rows of one transaction, as many as mesh-logs stores at once when it has a backlog.
const BATCH: u32 = 8192;

pub(super) async fn measure(folder: &Path, rows: u64) -> anyhow::Result<Plain> {
    let path = folder.join("plain.db");
    // The same schema, with the same settings of the file.
    Writer::open(&path).await?.0.close().await?;
    let reader = Reader::open(&folder.join("mesh.db")).await?;
    let mut connection = Connection::open(&path).context("cannot open the database")?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16000; PRAGMA wal_autocheckpoint = 2000; \
         PRAGMA journal_size_limit = 67108864",
    )?;
    let (mut place, mut inserted, mut took) = (Place::After(i64::MIN), 0, Duration::ZERO);
    while inserted < rows {
        let page = reader.page(&Query::default(), place, BATCH).await?;
        let Some(last) = page.rows.last() else { break };
        place = Place::After(last.id);
        let batch: Vec<NewRow> = page.rows.into_iter().map(NewRow::from_stored).collect();
        let began = Instant::now();
        insert(&mut connection, &batch)?;
        took += began.elapsed();
        inserted += batch.len() as u64;
    }
    reader.close().await;
    Ok(Plain {
        rows: inserted,
        seconds: took.as_secs_f64(),
        rows_per_s: inserted as f64 / took.as_secs_f64(),
    })
}

fn insert(connection: &mut Connection, rows: &[NewRow]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut log = transaction.prepare_cached(
            "INSERT INTO log (id, time_ns, observed_ns, severity, body, attributes, event, node, broker, service, client_id, \
             source) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut words = transaction.prepare_cached("INSERT INTO log_fts (rowid, text) VALUES (?, ?)")?;
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
    }
    transaction.commit()
}
