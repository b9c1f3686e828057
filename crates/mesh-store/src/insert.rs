//! Lines and their words as statements that insert many rows at once.

use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use crate::error::{StoreError, While};
use crate::row::NewRow;

/// A row with its id.
type Row<'r> = (i64, &'r NewRow);

type Insert = Query<'static, Sqlite, SqliteArguments>;

/// What one kind of statement inserts.
struct Statement<'t> {
    table: &'t str,
    columns: &'static [&'static str],
    /// How many rows a statement may have, the most first. SQLite prepares each form once; a statement through sqlx costs
    /// as much as ten rows, so most rows go in large ones.
    forms: &'static [usize],
}

const COLUMNS: [&str; 12] = [
    "id",
    "time_ns",
    "observed_ns",
    "severity",
    "body",
    "attributes",
    "event",
    "node",
    "broker",
    "service",
    "client_id",
    "source",
];

/// Inserts lines.
pub(crate) async fn lines(
    connection: &mut SqliteConnection,
    rows: &[Row<'_>],
    observed: i64,
) -> Result<(), StoreError> {
    let statement = Statement {
        table: "log",
        columns: &COLUMNS,
        forms: &[512, 64, 8, 1],
    };
    run(connection, &statement, rows, |insert, (id, row)| {
        bind(insert, *id, row, observed)
    })
    .await
}

/// Inserts the words of lines into `table`.
pub(crate) async fn words(
    connection: &mut SqliteConnection,
    table: &str,
    rows: &[Row<'_>],
) -> Result<(), StoreError> {
    let statement = Statement {
        table,
        columns: &["rowid", "text"],
        // FTS5 writes what it has gathered whenever a statement with several rows begins, so these are as large as can be.
        forms: &[8192, 2048, 512, 64, 8, 1],
    };
    run(connection, &statement, rows, |insert, (id, row)| {
        insert.bind(*id).bind(Arc::clone(&row.text))
    })
    .await
}

impl Statement<'_> {
    fn insert(&self, rows: usize) -> Insert {
        let values = vec!["?"; self.columns.len()].join(",");
        let sql = format!(
            "INSERT INTO {} ({}) VALUES {}",
            self.table,
            self.columns.join(","),
            vec![format!("({values})"); rows].join(",")
        );
        sqlx::query(AssertSqlSafe(sql))
    }

    /// Rows as those of one statement each.
    fn split<'r, R>(&self, mut rows: &'r [R]) -> Vec<&'r [R]> {
        let mut parts = Vec::new();
        for form in self.forms {
            while rows.len() >= *form {
                let (part, rest) = rows.split_at(*form);
                parts.push(part);
                rows = rest;
            }
        }
        parts
    }
}

/// Inserts `rows`; while SQLite has some of them, the values of the next are gathered.
async fn run(
    connection: &mut SqliteConnection,
    statement: &Statement<'_>,
    rows: &[Row<'_>],
    bind: impl Fn(Insert, &Row<'_>) -> Insert,
) -> Result<(), StoreError> {
    let parts = statement.split(rows);
    let mut inserts = parts
        .iter()
        .map(|rows| rows.iter().fold(statement.insert(rows.len()), &bind));
    let mut ready = inserts.next();
    while let Some(insert) = ready {
        // The first is asked first, which hands it to the thread of SQLite.
        let (inserted, next) =
            tokio::join!(biased; insert.execute(&mut *connection), async { inserts.next() });
        inserted.during("store lines")?;
        ready = next;
    }
    Ok(())
}

fn bind(insert: Insert, id: i64, row: &NewRow, observed: i64) -> Insert {
    let event: Option<String> = row.event.as_ref().map(|event| event.as_ref().to_owned());
    insert
        .bind(id)
        .bind(row.time_ns)
        .bind(observed)
        .bind(i64::from(row.severity.number()))
        .bind(Arc::clone(&row.body))
        .bind(row.attributes.clone())
        .bind(event)
        .bind(row.node.clone())
        .bind(row.broker.clone())
        .bind(Arc::clone(&row.service))
        .bind(row.client_id.clone())
        .bind(row.source)
}
