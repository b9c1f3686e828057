//! Whether a database is whole, and what is in it: `meshctl db check`.

use std::path::Path;

use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use crate::error::{StoreError, Trouble, While};
use crate::schema;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// What is wrong, in sentences; nothing if the database is whole.
    pub problems: Vec<String>,
    /// The version of its schema.
    pub version: usize,
    /// Its lines.
    pub lines: u64,
    /// The time of the first and the last of them, in nanoseconds since 1970.
    pub span_ns: Option<(i64, i64)>,
    /// Its sessions.
    pub sessions: u64,
    /// Its incidents.
    pub incidents: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// Reads all of the database `path` and compares what belongs together. It may be in use.
///
/// # Errors
///
/// If it cannot be looked at; that it is damaged is no error but a problem of the report.
pub async fn check(path: &Path) -> Result<Report, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing {
            path: path.to_owned(),
        });
    }
    let mut report = Report {
        bytes: path.metadata().map_or(0, |file| file.len()),
        ..Report::default()
    };
    match look(path, &mut report).await {
        Err(error) if error.trouble() == Trouble::Corrupt => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            report.problems.push(source.unwrap_or_else(|| error.to_string()));
            Ok(report)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(report),
    }
}

async fn look(path: &Path, report: &mut Report) -> Result<(), StoreError> {
    let what = "check the database";
    let mut connection = schema::for_reading(path).connect().await.during(what)?;
    report.version = crate::open::version(&mut connection).await?;
    if report.version > schema::LATEST {
        return Err(StoreError::Newer {
            path: path.to_owned(),
        });
    }
    let rows = sqlx::query("PRAGMA integrity_check")
        .fetch_all(&mut connection)
        .await
        .during(what)?;
    for row in rows {
        let text: String = row.try_get(0).during(what)?;
        if text != "ok" {
            report.problems.push(text);
        }
    }
    // One transaction, so that nothing is written between two of the questions.
    let mut transaction = connection.begin().await.during(what)?;
    report.lines = number(&mut transaction, "SELECT count(*) FROM log").await?;
    if report.lines > 0 {
        let row = sqlx::query("SELECT min(id) AS first, max(id) AS last FROM log")
            .fetch_one(&mut *transaction)
            .await
            .during(what)?;
        let (first, last) = (
            row.try_get("first").during(what)?,
            row.try_get("last").during(what)?,
        );
        report.span_ns = Some((crate::id::time_ns(first), crate::id::time_ns(last)));
    }
    let every_line = "SELECT count(*) FROM log_fts WHERE log_fts MATCH '\"\u{e000}vtrace\" OR \"\u{e000}vdebug\" OR \
         \"\u{e000}vinfo\" OR \"\u{e000}vwarn\" OR \"\u{e000}verror\" OR \"\u{e000}vfatal\"'";
    let indexed = number(&mut transaction, every_line).await?;
    if indexed != report.lines {
        let lines = report.lines;
        report.problems.push(format!(
            "{lines} lines are stored and {indexed} are in the full-text index"
        ));
    }
    if report.version >= 2 {
        report.sessions = number(&mut transaction, "SELECT count(*) FROM client_session").await?;
    }
    if report.version >= 3 {
        report.incidents = number(&mut transaction, "SELECT count(*) FROM incident").await?;
    }
    transaction.rollback().await.during(what)
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> Result<u64, StoreError> {
    let what = "check the database";
    let row = sqlx::query(sql).fetch_one(connection).await.during(what)?;
    Ok(row.try_get::<i64, _>(0).during(what)?.unsigned_abs())
}
