//! Opening the database for writing: who may, and what is done with one that is damaged.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::migrate::MigrateError;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use crate::error::{StoreError, Trouble, While};
use crate::schema;
use crate::writer::Writer;

/// What was found when a database was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Where a damaged database was moved to; a new one was begun.
    pub set_aside: Option<PathBuf>,
    /// The version of the schema before it was brought up to date; 0 for a new database.
    pub version_before: usize,
}

impl Writer {
    /// Opens the database `path` for writing, makes it if it is not there, and brings it up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] if another process writes it, [`StoreError::Newer`] if a later version wrote it, else what
    /// SQLite or the file system says. A damaged database is no error: it is set aside and a new one is begun.
    pub async fn open(path: &Path) -> Result<(Self, Opened), StoreError> {
        let lock = lock(path)?;
        let mut opened = Opened::default();
        if marker(path).exists() {
            opened.set_aside = Some(set_aside(path)?);
        }
        make(path)?;
        let (connection, before) = match connect(path).await {
            Err(error) if error.trouble() == Trouble::Corrupt => {
                opened.set_aside = Some(set_aside(path)?);
                make(path)?;
                connect(path).await?
            }
            connected => connected?,
        };
        opened.version_before = before;
        Ok((Self::new(connection, path.to_owned(), lock).await?, opened))
    }

    /// Has the next [`Self::open`] set this database aside: it was found to be damaged while it was in use.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`] if that cannot be noted.
    pub fn condemn(path: &Path) -> Result<(), StoreError> {
        let marker = marker(path);
        File::create(&marker).map_err(|source| StoreError::File {
            what: "make",
            path: marker,
            source,
        })?;
        Ok(())
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn marker(path: &Path) -> PathBuf {
    beside(path, ".damaged")
}

/// The lock belongs to this process for as long as the file is open.
fn lock(path: &Path) -> Result<File, StoreError> {
    let lock = beside(path, ".lock");
    let failed = |what, path: &Path, source| StoreError::File {
        what,
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|source| failed("make the folder", folder, source))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(&lock);
    let file = file.map_err(|source| failed("open", &lock, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Taken {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed("lock", &lock, source)),
    }
}

/// Makes the file if it is not there. SQLite would let nobody but its owner write it, whatever the umask says, and readers
/// have to write the files beside it, which get the same rights.
fn make(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().create(true).append(true).open(path);
    made.map_err(|source| StoreError::File {
        what: "make",
        path: path.to_owned(),
        source,
    })?;
    Ok(())
}

async fn connect(path: &Path) -> Result<(SqliteConnection, usize), StoreError> {
    let mut connection = schema::for_writing(path)
        .connect()
        .await
        .during("open the database")?;
    look(&mut connection, path).await?;
    let before = version(&mut connection).await?;
    if before > schema::LATEST {
        return Err(StoreError::Newer {
            path: path.to_owned(),
        });
    }
    let migrated = schema::migrator(schema::LATEST).run(&mut connection).await;
    migrated.map_err(|source| match source {
        MigrateError::VersionMissing(_) => StoreError::Newer {
            path: path.to_owned(),
        },
        source => StoreError::Migrate {
            path: path.to_owned(),
            source,
        },
    })?;
    Ok((connection, before))
}

/// A quick look for damage, independent of the size: that the file is a database, that it is as long as it says, and
/// that its ends can be read. What this does not find, [`crate::check`] does, or whoever stumbles over it.
async fn look(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let what = "look at the database";
    let row = sqlx::query("SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size")
        .fetch_one(&mut *connection)
        .await
        .during(what)?;
    let claimed: i64 = row.try_get("bytes").during(what)?;
    let has_wal = beside(path, "-wal").metadata().is_ok_and(|wal| wal.len() > 0);
    let length = path.metadata().map_or(0, |file| file.len());
    if !has_wal && length < claimed.unsigned_abs() {
        return Err(StoreError::Sqlite {
            what,
            source: sqlx::Error::Database(Box::new(Shorter { claimed, length })),
        });
    }
    for table in ["log", "source", "client_session"] {
        let known = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?")
            .bind(table)
            .fetch_optional(&mut *connection)
            .await
            .during(what)?;
        if known.is_some() {
            let ends = format!(
                "SELECT * FROM {table} WHERE rowid IN (SELECT min(rowid) FROM {table} UNION SELECT max(rowid) FROM {table})"
            );
            sqlx::query(sqlx::AssertSqlSafe(ends))
                .fetch_all(&mut *connection)
                .await
                .during(what)?;
        }
    }
    Ok(())
}

/// The version of the schema of an open database; 0 if it has none.
pub(crate) async fn version(connection: &mut SqliteConnection) -> Result<usize, StoreError> {
    let what = "read the version of the database";
    let known = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations'")
        .fetch_optional(&mut *connection)
        .await
        .during(what)?;
    if known.is_none() {
        return Ok(0);
    }
    let row = sqlx::query("SELECT coalesce(max(version), 0) AS version FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await
        .during(what)?;
    let version: i64 = row.try_get("version").during(what)?;
    Ok(usize::try_from(version).unwrap_or(0))
}

/// Moves the database with its companions to a name of its own.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%6f");
    let aside = beside(path, &format!(".damaged-{stamp}"));
    // What is not there need not be moved; a reader that ends at this moment takes the companions away.
    let moved = |from: &Path, to: &Path| match std::fs::rename(from, to) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::File {
            what: "set aside the damaged database",
            path: from.to_owned(),
            source,
        }),
        _ => Ok(()),
    };
    for companion in ["-wal", "-shm"] {
        moved(&beside(path, companion), &beside(&aside, companion))?;
    }
    moved(path, &aside)?;
    // Last, so that a crash on the way begins again.
    let marker = marker(path);
    if marker.exists() {
        std::fs::remove_file(&marker).map_err(|source| StoreError::File {
            what: "remove",
            path: marker,
            source,
        })?;
    }
    Ok(aside)
}

/// The file is shorter than the database in it; SQLite itself says so only when it comes to the missing end.
#[derive(Debug, thiserror::Error)]
#[error("the database says that it has {claimed} bytes, and its file has {length}")]
struct Shorter {
    claimed: i64,
    length: u64,
}

impl sqlx::error::DatabaseError for Shorter {
    fn message(&self) -> &str {
        "the file is shorter than the database in it"
    }

    /// `SQLITE_CORRUPT`.
    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some("11".into())
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> sqlx::error::ErrorKind {
        sqlx::error::ErrorKind::Other
    }
}

/// Ends a connection in order, so that the log of changes is merged into the database.
pub(crate) async fn close(connection: SqliteConnection) -> Result<(), StoreError> {
    connection.close().await.during("close the database")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Place;
    use crate::{Batch, NewRow, Query, Reader};
    use mesh_model::{Attributes, LogRecord, Severity};

    fn batch(body: &str, key: i64) -> Batch {
        let record = LogRecord {
            time_ns: key * 1000,
            severity: Severity::INFO,
            body: body.to_owned(),
            attributes: Attributes::default(),
            event: None,
            node: None,
            broker: None,
            service: "mosquitto".into(),
            client_id: None,
        };
        Batch {
            rows: vec![NewRow::new(record, 1, key)],
            ..Batch::default()
        }
    }

    async fn found(reader: &Reader, query: &str) -> Vec<String> {
        let query: Query = query.parse().unwrap();
        let page = reader.page(&query, Place::Newest, 10).await.unwrap();
        page.rows.into_iter().map(|row| row.body).collect()
    }

    #[tokio::test]
    async fn every_older_version_is_brought_up_to_date_with_its_lines() {
        for old in 1..schema::LATEST {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("mesh.db");
            let mut connection = schema::for_writing(&path).connect().await.unwrap();
            schema::migrator(old).run(&mut connection).await.unwrap();
            let words = if old < 5 { "log_fts" } else { "words_1" };
            for insert in [
                "INSERT INTO log VALUES (1024, 1000, 1, 9, 'of yesterday', NULL, NULL, NULL, NULL, 'mosquitto', NULL, 1)",
                &format!("INSERT INTO {words} (rowid, text) VALUES (1024, 'of yesterday \u{e000}vinfo')"),
                "INSERT INTO batch VALUES (1, 1024, 1024)",
            ] {
                let insert = sqlx::query(sqlx::AssertSqlSafe(insert));
                insert.execute(&mut connection).await.unwrap();
            }
            close(connection).await.unwrap();
            let reader = Reader::open(&path).await.unwrap();
            assert_eq!(found(&reader, "yesterday level:info").await, ["of yesterday"]);

            let (mut writer, opened) = Writer::open(&path).await.unwrap();
            assert_eq!((opened.version_before, opened.set_aside), (old, None));
            writer.commit(&batch("of today", 2)).await.unwrap();
            // Who had it open before goes on.
            assert_eq!(found(&reader, "").await, ["of today", "of yesterday"]);
            assert_eq!(found(&reader, "yesterday level:info").await, ["of yesterday"]);
            assert_eq!(writer.open_sessions().await.unwrap().2, 1);
        }
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh.db");
        let (mut writer, _) = Writer::open(&path).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'x', 1, x'00', 0)",
        )
        .execute(&mut writer.connection)
        .await
        .unwrap();
        writer.close().await.unwrap();
        for _ in 0..2 {
            assert!(matches!(Writer::open(&path).await, Err(StoreError::Newer { .. })));
            assert!(matches!(Reader::open(&path).await, Err(StoreError::Newer { .. })));
        }
    }
}
