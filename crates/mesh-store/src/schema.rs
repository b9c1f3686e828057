//! The schema's versions, and how connections are opened.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

/// Each version's changes, in order. What has been released is never edited.
const VERSIONS: [(&str, &str); 5] = [
    ("log", include_str!("../migrations/0001_log.sql")),
    ("sessions", include_str!("../migrations/0002_sessions.sql")),
    ("history", include_str!("../migrations/0003_history.sql")),
    ("terms", include_str!("../migrations/0004_terms.sql")),
    ("retention", include_str!("../migrations/0005_retention.sql")),
];

/// The changes from nothing to version `last`.
pub(crate) fn migrator(last: usize) -> Migrator {
    let migrations = VERSIONS.iter().take(last).zip(1..);
    let migrations = migrations.map(|((name, sql), version)| {
        Migration::new(
            version,
            Cow::Borrowed(name),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator {
        migrations: Cow::Owned(migrations.collect()),
        ..Migrator::DEFAULT
    }
}

/// The version that this program writes.
pub(crate) const LATEST: usize = VERSIONS.len();

/// How the one writer opens the database.
pub(crate) fn for_writing(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .page_size(8192)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_millis(200))
        .pragma("cache_size", "-12000")
        .pragma("wal_autocheckpoint", "2000")
        .pragma("journal_size_limit", "67108864")
}

/// How readers open the database.
pub(crate) fn for_reading(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", "-8000")
        .pragma("query_only", "1")
}
