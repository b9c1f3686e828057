//! Forgetting what is old, in small steps between batches, so that nobody waits for it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use crate::error::{StoreError, While};
use crate::index::{self, Part};
use crate::insert;
use crate::row::{COLUMNS, LogRow, NewRow};
use crate::writer::{Writer, begin, end};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For how long.
    pub age: Duration,
    /// In how many bytes of files.
    pub bytes: u64,
}

/// The size of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of the file of changes beside it.
    pub wal: u64,
    /// Bytes in them that hold nothing.
    pub free: u64,
}

/// A part of the index has about so many lines at most, …
const PART_LINES: u64 = 500_000;

/// … but fewer where little is kept, since what it has of deleted lines stays until the last of them is deleted: one for
/// so many bytes that are kept, which makes about ten parts of lines with 350 bytes.
const BYTES_PER_PART_LINE: u64 = 3500;

/// So many lines with a time in the future, by a clock that is wrong, are taken into a part that begins now.
const AHEAD: i64 = 5000;

/// How many free pages a step gives back to the file system.
const PAGES: u32 = 256;

impl Writer {
    /// Deletes at most `rows` of the oldest lines that are beyond `limits`. Gives how many; none means that all is kept
    /// that should be.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn forget(&mut self, limits: Limits, rows: u32) -> Result<u64, StoreError> {
        let now = Timestamp::now().as_nanosecond();
        let oldest = i64::try_from(now - limits.age.as_nanos() as i128).unwrap_or(0);
        let size = self.size().await?;
        let is_too_large = size.bytes.saturating_sub(size.free) > limits.bytes;
        let limit = if is_too_large {
            i64::MAX
        } else {
            crate::id::first_at(oldest)
        };
        begin(&mut self.connection).await?;
        let deleted = delete(
            &mut self.connection,
            limit,
            rows,
            (!is_too_large).then_some(oldest),
        )
        .await;
        let deleted = end(&mut self.connection, deleted).await?;
        if deleted > 0 {
            self.drop_parts().await?;
        }
        Ok(deleted)
    }

    /// Drops the oldest part of the index if its lines are gone.
    async fn drop_parts(&mut self) -> Result<(), StoreError> {
        let [oldest, next, ..] = self.parts.as_slice() else {
            return Ok(());
        };
        let row = sqlx::query("SELECT coalesce(min(id), ?) AS first FROM log")
            .bind(i64::MAX)
            .fetch_one(&mut self.connection)
            .await
            .during("look for the oldest line")?;
        let first: i64 = row.try_get("first").during("look for the oldest line")?;
        if first < next.first {
            return Ok(());
        }
        begin(&mut self.connection).await?;
        let dropped = index::forget(&mut self.connection, oldest).await;
        end(&mut self.connection, dropped).await?;
        self.parts.remove(0);
        Ok(())
    }

    /// Begins a new part of the index if the newest is full. Tells whether it did.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn divide(&mut self, limits: Limits) -> Result<bool, StoreError> {
        let full = PART_LINES.min(limits.bytes / BYTES_PER_PART_LINE).max(1);
        let newest = match self.parts.last() {
            Some(newest) if newest.lines.unsigned_abs() >= full => newest.clone(),
            _ => return Ok(false),
        };
        begin(&mut self.connection).await?;
        let divided = divide(&mut self.connection, &newest).await;
        let part = end(&mut self.connection, divided).await?;
        let has_begun = part.is_some();
        self.parts.extend(part);
        if has_begun {
            // Those for the words of the part before are needed no more, and are large.
            let forgotten = self.connection.clear_cached_statements().await;
            forgotten.during("forget prepared statements")?;
        }
        Ok(has_begun)
    }

    /// Gives some of the free pages back to the file system. Tells whether there are more.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn shrink(&mut self) -> Result<bool, StoreError> {
        let what = "give free pages back";
        let vacuum = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({PAGES})"));
        sqlx::query(vacuum)
            .fetch_all(&mut self.connection)
            .await
            .during(what)?;
        let row = sqlx::query("SELECT freelist_count AS pages FROM pragma_freelist_count")
            .fetch_one(&mut self.connection)
            .await
            .during(what)?;
        let left: i64 = row.try_get("pages").during(what)?;
        Ok(left > 0)
    }

    /// How large the database is.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn size(&mut self) -> Result<Size, StoreError> {
        let what = "measure the database";
        let row = sqlx::query(
            "SELECT page_count * page_size AS bytes, freelist_count * page_size AS free \
             FROM pragma_page_count, pragma_page_size, pragma_freelist_count",
        )
        .fetch_one(&mut self.connection)
        .await
        .during(what)?;
        let (bytes, free): (i64, i64) = (
            row.try_get("bytes").during(what)?,
            row.try_get("free").during(what)?,
        );
        Ok(Size {
            bytes: bytes.unsigned_abs(),
            wal: wal_bytes(self.path()),
            free: free.unsigned_abs(),
        })
    }
}

/// Deletes at most `rows` lines before the id `limit`, and everything else before `oldest`, or before those lines.
async fn delete(
    connection: &mut SqliteConnection,
    limit: i64,
    rows: u32,
    oldest: Option<i64>,
) -> Result<u64, StoreError> {
    let what = "delete old lines";
    let last = sqlx::query("SELECT max(id) AS last, count(*) AS count FROM (SELECT id FROM log WHERE id < ? ORDER BY id LIMIT ?)")
        .bind(limit)
        .bind(rows)
        .fetch_one(&mut *connection)
        .await
        .during(what)?;
    let count: i64 = last.try_get("count").during(what)?;
    if count > 0 {
        let last: i64 = last.try_get("last").during(what)?;
        sqlx::query("DELETE FROM log WHERE id <= ?")
            .bind(last)
            .execute(&mut *connection)
            .await
            .during(what)?;
        let cut = oldest.unwrap_or(crate::id::time_ns(last));
        for (table, key, time) in [
            ("client_session", "id", "disconnected_at"),
            ("incident", "rowid", "ended_at"),
            ("sample", "(series, target, at)", "at"),
        ] {
            let columns = key.trim_matches(['(', ')']);
            let delete = format!(
                "DELETE FROM {table} WHERE {key} IN \
                 (SELECT {columns} FROM {table} WHERE {time} < ? ORDER BY {time} LIMIT ?)"
            );
            sqlx::query(AssertSqlSafe(delete))
                .bind(cut)
                .bind(rows)
                .execute(&mut *connection)
                .await
                .during(what)?;
        }
    }
    Ok(count.unsigned_abs())
}

/// A new part of the index after `newest`, for the lines that come from now on; with those that are there already because
/// their time is in the future. None if `newest` itself begins in the future.
async fn divide(connection: &mut SqliteConnection, newest: &Part) -> Result<Option<Part>, StoreError> {
    let what = "divide the index";
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
    let row = sqlx::query(
        "SELECT max(id) AS last, (SELECT id FROM log ORDER BY id DESC LIMIT 1 OFFSET ?) AS many FROM log",
    )
    .bind(AHEAD)
    .fetch_one(&mut *connection)
    .await
    .during(what)?;
    let id = |name: &str| -> Result<i64, StoreError> {
        let id: Option<i64> = row.try_get(name).during(what)?;
        Ok(id.map_or(i64::MIN, |id| id.saturating_add(1)))
    };
    let first = crate::id::first_at(now).max(id("many")?).min(id("last")?);
    if first <= newest.first {
        return Ok(None);
    }
    let mut part = index::begin_after(connection, newest, first).await?;
    let ask = format!("SELECT {COLUMNS} FROM log l WHERE l.id >= ? ORDER BY l.id");
    let ahead = sqlx::query(AssertSqlSafe(ask))
        .bind(first)
        .fetch_all(&mut *connection)
        .await
        .during(what)?;
    let ahead: Vec<NewRow> = ahead
        .iter()
        .map(|row| LogRow::read(row).map(NewRow::from_stored))
        .collect::<Result<_, _>>()
        .during(what)?;
    let rows: Vec<_> = ahead.iter().map(|row| (row.id, row)).collect();
    let words = insert::words(&part.words, &rows);
    insert::run(connection, words).await.during(what)?;
    part.lines = rows.len() as i64;
    index::grown(connection, &part, part.lines).await?;
    Ok(Some(part))
}

fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |file| file.len())
}
