//! What is published and not acknowledged yet, in SQLite.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::error::ClientError;

const SCHEMA: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS outbox (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        payload BLOB NOT NULL,
        retain INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS name (name TEXT NOT NULL);
    INSERT INTO name SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT * FROM name);
";

/// Messages that are not acknowledged yet, in the order of their publication.
///
/// A killed program loses nothing that was added. A power cut may lose the last few: with `synchronous = FULL` it
/// would not, at the price of an fsync for each message. One program at a time can use an outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    database: Arc<Mutex<Connection>>,
    name: Arc<str>,
}

/// A message in the outbox. `row` rises with each message and is never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) row: i64,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

impl Outbox {
    /// An outbox in the file `path`, made if there is none.
    ///
    /// # Errors
    ///
    /// [`ClientError::Outbox`] if the file cannot be used, or if another program has it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::new(Connection::open(path)?)
    }

    /// An outbox that is gone with this process.
    ///
    /// # Errors
    ///
    /// [`ClientError::Outbox`] if SQLite has no memory.
    pub fn in_memory() -> Result<Self, ClientError> {
        Self::new(Connection::open_in_memory()?)
    }

    fn new(database: Connection) -> Result<Self, ClientError> {
        database.busy_timeout(Duration::from_secs(1))?;
        database.execute_batch(SCHEMA)?;
        let name: String = database.query_row("SELECT name FROM name", [], |row| row.get(0))?;
        Ok(Self {
            database: Arc::new(Mutex::new(database)),
            name: name.into(),
        })
    }

    /// An id that no other message has, of this outbox or another.
    pub(crate) fn message_id(&self, row: i64) -> String {
        format!("{}/{row}", self.name)
    }

    pub(crate) async fn add(
        &self,
        topic: String,
        payload: Vec<u8>,
        retain: bool,
    ) -> Result<i64, ClientError> {
        self.with(move |database| {
            let mut add = database.prepare_cached(
                "INSERT INTO outbox (topic, payload, retain) VALUES (?, ?, ?) RETURNING row",
            )?;
            add.query_row(params![topic, payload, retain], |row| row.get(0))
        })
        .await
    }

    /// The next messages behind `row`.
    pub(crate) async fn after(&self, row: i64, limit: usize) -> Result<Vec<Waiting>, ClientError> {
        self.with(move |database| {
            let mut after = database.prepare_cached(
                "SELECT row, topic, payload, retain FROM outbox WHERE row > ? ORDER BY row LIMIT ?",
            )?;
            let messages =
                after.query_map(params![row, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                    Ok(Waiting {
                        row: row.get(0)?,
                        topic: row.get(1)?,
                        payload: row.get(2)?,
                        retain: row.get(3)?,
                    })
                })?;
            messages.collect()
        })
        .await
    }

    pub(crate) async fn remove(&self, rows: Vec<i64>) -> Result<(), ClientError> {
        self.with(move |database| {
            let all = database.transaction()?;
            for row in rows {
                all.prepare_cached("DELETE FROM outbox WHERE row = ?")?
                    .execute([row])?;
            }
            all.commit()
        })
        .await
    }

    /// How many messages wait.
    ///
    /// # Errors
    ///
    /// [`ClientError::Outbox`] if the file cannot be read.
    pub async fn count(&self) -> Result<u64, ClientError> {
        let count = |database: &mut Connection| {
            database.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0))
        };
        Ok(self.with(count).await?.unsigned_abs())
    }

    /// Runs `work` where it may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ClientError> {
        let database = Arc::clone(&self.database);
        let run = move || work(&mut database.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tokio::task::spawn_blocking(run)
            .await
            .map_err(ClientError::Aborted)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_added_is_there_in_order_until_it_is_removed_and_rows_are_never_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let outbox = Outbox::open(&path).unwrap();
        for payload in ["one", "two", "three"] {
            outbox.add("a/b".to_owned(), payload.into(), false).await.unwrap();
        }
        let id = outbox.message_id(3);
        assert_eq!(outbox.after(1, 10).await.unwrap()[0].payload, b"two");
        outbox.remove(vec![1, 3]).await.unwrap();
        drop(outbox);

        let outbox = Outbox::open(&path).unwrap();
        let left = outbox.after(0, 10).await.unwrap();
        assert_eq!(left.iter().map(|left| left.row).collect::<Vec<_>>(), [2]);
        assert_eq!(
            outbox
                .add("a/b".to_owned(), b"four".to_vec(), true)
                .await
                .unwrap(),
            4
        );
        assert_eq!(outbox.count().await.unwrap(), 2);
        assert_eq!(outbox.message_id(3), id, "the file has a name of its own");
        assert_ne!(Outbox::in_memory().unwrap().message_id(3), id);
    }

    #[tokio::test]
    async fn two_programs_cannot_use_one_outbox() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let _first = Outbox::open(&path).unwrap();
        let message = Outbox::open(&path).unwrap_err().to_string();
        assert!(message.contains("does another program use it"), "{message}");
    }
}
