//! The one that writes.
//!
//! A batch is one transaction: its rows, their words in the index, the sessions that they tell of, and how far each
//! source was read. After an error nothing of it is in the database, and the same batch can be committed again.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use crate::error::{StoreError, While};
use crate::index::{self, Part};
use crate::insert;
use crate::row::NewRow;
use crate::sessions::{ProxiedConnection, Session, SessionChanges};
use crate::source::{self, SourceState};

/// How long a batch can be asked for by [`crate::Reader::news`].
const BATCHES_KEPT: Duration = Duration::from_secs(600);

/// What is stored at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Lines, in any order.
    pub rows: Vec<NewRow>,
    /// How far the sources of these lines have been read by the end of it.
    pub sources: Vec<SourceState>,
    /// What these lines say of clients.
    pub sessions: SessionChanges,
}

impl Batch {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.sources.is_empty() && self.sessions.is_empty()
    }
}

/// The one connection that writes; see the module.
#[derive(Debug)]
pub struct Writer {
    pub(crate) connection: SqliteConnection,
    path: PathBuf,
    last_observed: i64,
    /// The parts of the full-text index, the oldest first.
    pub(crate) parts: Vec<Part>,
    _lock: File,
}

impl Writer {
    pub(crate) async fn new(
        mut connection: SqliteConnection,
        path: PathBuf,
        lock: File,
    ) -> Result<Self, StoreError> {
        let row = sqlx::query("SELECT coalesce(max(observed_ns), 0) AS last FROM batch")
            .fetch_one(&mut connection)
            .await
            .during("read the last batch")?;
        Ok(Self {
            last_observed: row.try_get("last").during("read the last batch")?,
            parts: index::for_writing(&mut connection).await?,
            connection,
            path,
            _lock: lock,
        })
    }

    /// The database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every stream that was ever read and not forgotten.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn sources(&mut self) -> Result<Vec<SourceState>, StoreError> {
        source::all(&mut self.connection).await
    }

    /// The sessions that have not ended, as far as is known, and the connections that wait for theirs.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn open_sessions(&mut self) -> Result<(Vec<Session>, Vec<ProxiedConnection>, i64), StoreError> {
        crate::sessions::load(&mut self.connection).await
    }

    /// A new stream of the source `name`.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn new_source(&mut self, name: &str, stream: &str) -> Result<SourceState, StoreError> {
        let what = "add a source";
        let row = sqlx::query("INSERT INTO source (name, stream) VALUES (?, ?) ON CONFLICT DO UPDATE SET name = name RETURNING *")
            .bind(name)
            .bind(stream)
            .fetch_one(&mut self.connection)
            .await
            .during(what)?;
        SourceState::read(&row).during(what)
    }

    /// Forgets streams that are gone for good. Their rows stay.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn forget_sources(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        for id in ids {
            sqlx::query("DELETE FROM source WHERE id = ?")
                .bind(id)
                .execute(&mut self.connection)
                .await
                .during("forget a source")?;
        }
        Ok(())
    }

    /// Stores `batch`; when this returns without an error, it is stored. Gives when, in nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// What SQLite says; nothing of the batch is stored then.
    pub async fn commit(&mut self, batch: &Batch) -> Result<i64, StoreError> {
        let mut order: Vec<(i64, &NewRow)> = batch.rows.iter().map(|row| (row.id, row)).collect();
        // In this order the index takes them without writing in between.
        order.sort_by_key(|(id, _)| *id);
        make_distinct(&mut order);
        match self.store(batch, &order).await {
            Err(error) if error.is_duplicate() => {
                self.find_room(&mut order).await?;
                self.store(batch, &order).await
            }
            stored => stored,
        }
    }

    async fn store(&mut self, batch: &Batch, rows: &[(i64, &NewRow)]) -> Result<i64, StoreError> {
        let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        let observed = now.max(self.last_observed + 1);
        begin(&mut self.connection).await?;
        let stored = write(&mut self.connection, &self.parts, batch, rows, observed).await;
        let grown = end(&mut self.connection, stored).await?;
        for (part, lines) in grown {
            self.parts[part].lines += lines;
        }
        self.last_observed = observed;
        Ok(observed)
    }

    /// Moves rows whose ids are taken to the next free microseconds: a clock was set back, or two sources share a
    /// number.
    async fn find_room(&mut self, rows: &mut [(i64, &NewRow)]) -> Result<(), StoreError> {
        let mut used = BTreeSet::new();
        for (id, _) in rows.iter_mut() {
            while used.contains(id) || self.is_taken(*id).await? {
                *id += crate::id::row_id(1, 0);
            }
            used.insert(*id);
        }
        rows.sort_by_key(|(id, _)| *id);
        Ok(())
    }

    async fn is_taken(&mut self, id: i64) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM log WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await
            .during("look for a row")?;
        Ok(row.is_some())
    }

    /// Ends the connection in order.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn close(self) -> Result<(), StoreError> {
        crate::open::close(self.connection).await
    }
}

/// Begins a transaction that nobody else's can hold up later.
pub(crate) async fn begin(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(connection).await;
    begun.during("begin a transaction")?;
    Ok(())
}

/// Commits if all went well, else undoes everything. A commit too can fail, on a full disk, and leave the transaction
/// open; sqlx's own transactions are of no use after that.
pub(crate) async fn end<T>(
    connection: &mut SqliteConnection,
    result: Result<T, StoreError>,
) -> Result<T, StoreError> {
    let committed = match &result {
        Ok(_) => sqlx::query("COMMIT")
            .execute(&mut *connection)
            .await
            .during("commit")
            .map(drop),
        Err(_) => Ok(()),
    };
    if result.is_err() || committed.is_err() {
        // SQLite may have undone it by itself, and then there is nothing to undo.
        sqlx::query("ROLLBACK").execute(connection).await.ok();
    }
    committed?;
    result
}

/// Writes all of `batch`. Tells how many lines came into which part of the index.
async fn write(
    connection: &mut SqliteConnection,
    parts: &[Part],
    batch: &Batch,
    rows: &[(i64, &NewRow)],
    observed: i64,
) -> Result<Vec<(usize, i64)>, StoreError> {
    let in_parts: Vec<(usize, &[insert::Row<'_>])> = rows
        .chunk_by(|(a, _), (b, _)| index::place(parts, *a) == index::place(parts, *b))
        .map(|rows| (index::place(parts, rows[0].0), rows))
        .collect();
    let words = in_parts
        .iter()
        .flat_map(|(place, rows)| insert::words(&parts[*place].words, rows));
    let inserts = insert::lines(rows, observed)
        .chain(words)
        .chain(batch.sessions.inserts())
        .chain(source::places(&batch.sources));
    insert::run(connection, inserts).await.during("store lines")?;
    let mut grown = Vec::new();
    for (place, rows) in in_parts {
        index::grown(connection, &parts[place], rows.len() as i64).await?;
        grown.push((place, rows.len() as i64));
    }
    batch.sessions.save_connections(connection).await?;
    if let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) {
        sqlx::query("INSERT INTO batch (observed_ns, first_id, last_id) VALUES (?, ?, ?)")
            .bind(observed)
            .bind(first)
            .bind(last)
            .execute(&mut *connection)
            .await
            .during("note the batch")?;
        sqlx::query("DELETE FROM batch WHERE observed_ns < ?")
            .bind(observed - BATCHES_KEPT.as_nanos() as i64)
            .execute(&mut *connection)
            .await
            .during("forget old batches")?;
    }
    Ok(grown)
}

/// Sources that share the ten bits of their number could give two rows of a batch one id.
fn make_distinct(rows: &mut [(i64, &NewRow)]) {
    let step = crate::id::row_id(1, 0);
    let mut moved = false;
    for index in 1..rows.len() {
        if rows[index].0 <= rows[index - 1].0 && rows[index].0 & (step - 1) == rows[index - 1].0 & (step - 1)
        {
            rows[index].0 = rows[index - 1].0 + step;
            moved = true;
        }
    }
    if moved {
        rows.sort_by_key(|(id, _)| *id);
    }
}
