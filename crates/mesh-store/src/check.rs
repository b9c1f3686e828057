//! Whether a database is whole, and what is in it: `meshctl db check`.

use std::path::Path;

use mesh_model::Severity;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};

use crate::error::{StoreError, Trouble, While};
use crate::tags::{self, Kind};
use crate::{index, schema};

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
    let mut indexed = 0;
    let parts = index::parts(&mut transaction, report.version).await?;
    for (part, first, end) in index::ranges(&parts) {
        indexed += number(&mut transaction, every_line(&part.words, first, end)).await?;
    }
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

/// How many lines there are in this part of the index, without those that are deleted.
fn every_line(words: &str, first: i64, end: i64) -> String {
    let levels = Severity::CLASSES.map(|name| {
        let mut tag = String::new();
        tags::push(&mut tag, Kind::Severity, name);
        format!("\"{tag}\"")
    });
    format!(
        "SELECT count(*) FROM {words} WHERE {words} MATCH '{}' AND rowid >= {first} AND rowid < {end} \
         AND rowid >= (SELECT min(id) FROM log)",
        levels.join(" OR ")
    )
}

async fn number(connection: &mut SqliteConnection, sql: impl Into<String>) -> Result<u64, StoreError> {
    let what = "check the database";
    let row = sqlx::query(AssertSqlSafe(sql.into()))
        .fetch_one(connection)
        .await
        .during(what)?;
    Ok(row.try_get::<i64, _>(0).during(what)?.unsigned_abs())
}
