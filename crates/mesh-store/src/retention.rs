//! Forgetting what is old, in small steps between batches, so that nobody waits for it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use crate::error::{StoreError, While};
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

/// How many pages of the index a step may merge.
const MERGED: i64 = 64;

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
        end(&mut self.connection, deleted).await
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
        let words = "DELETE FROM log_fts WHERE rowid IN (SELECT id FROM log WHERE id <= ?)";
        for delete in [words, "DELETE FROM log WHERE id <= ?"] {
            sqlx::query(delete)
                .bind(last)
                .execute(&mut *connection)
                .await
                .during(what)?;
        }
        // Only a merge frees what the index holds of deleted lines.
        sqlx::query("INSERT INTO log_fts (log_fts, rank) VALUES ('merge', ?)")
            .bind(MERGED)
            .execute(&mut *connection)
            .await
            .during(what)?;
        let cut = oldest.unwrap_or(crate::id::time_ns(last));
        for delete in [
            "DELETE FROM client_session WHERE disconnected_at < ?",
            "DELETE FROM incident WHERE ended_at < ?",
            "DELETE FROM sample WHERE at < ?",
        ] {
            sqlx::query(delete)
                .bind(cut)
                .execute(&mut *connection)
                .await
                .during(what)?;
        }
    }
    Ok(count.unsigned_abs())
}

fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |file| file.len())
}
