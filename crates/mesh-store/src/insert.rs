//! Statements that insert many rows at once.
//!
//! A statement through sqlx costs as much as ten rows, so rows go in large ones. SQLite prepares each form of a statement
//! once; that is why there are few forms.

use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

use crate::row::NewRow;

/// A row with its id.
pub(crate) type Row<'r> = (i64, &'r NewRow);

/// A statement with its values.
pub(crate) type Insert = Query<'static, Sqlite, SqliteArguments>;

/// What one kind of statement inserts.
pub(crate) struct Statement<'t> {
    /// What comes before the rows, e.g. `INSERT INTO log (id, body)`.
    pub(crate) into: &'t str,
    /// How many values a row has.
    pub(crate) columns: usize,
    /// How many rows it may have.
    pub(crate) forms: Forms,
    /// What comes after the rows.
    pub(crate) then: &'t str,
}

/// The numbers of rows that a kind of statement may have, the most first.
#[derive(Clone, Copy)]
pub(crate) enum Forms {
    /// As many statements as it takes to have just these rows.
    Exact(&'static [usize]),
    /// As few statements as can be: one may have more rows than there are, which are left out because their first value is
    /// null.
    Filled(&'static [usize]),
}

const LOG: Statement<'static> = Statement {
    // Whatever fails, the whole transaction is undone. So SQLite need not note how to undo this statement alone.
    into: "INSERT OR FAIL INTO log (id, time_ns, observed_ns, severity, body, attributes, event, node, broker, service, \
           client_id, source)",
    columns: 12,
    forms: Forms::Exact(&[512, 64, 8, 1]),
    then: "",
};

/// Inserts lines.
pub(crate) fn lines<'r>(rows: &'r [Row<'r>], observed: i64) -> impl Iterator<Item = Insert> + 'r {
    LOG.of(rows, move |insert, (id, row)| bind(insert, *id, row, observed))
}

/// Inserts the words of lines into `table`. FTS5 writes what it has gathered whenever a statement with several rows begins,
/// and merges what it has written again and again: one statement for all rows takes a third less work than ten.
pub(crate) fn words<'r>(table: &str, rows: &'r [Row<'r>]) -> impl Iterator<Item = Insert> + use<'r> {
    let statement = Statement {
        into: &format!("INSERT INTO {table} (rowid, text)"),
        columns: 2,
        // SQLite takes 32,766 values. A large batch of mesh-logs has 8192 rows and some.
        forms: Forms::Filled(&[16_383, 8704, 4096, 1024, 128, 16, 1]),
        then: "",
    };
    statement.of(rows, |insert, (id, row)| {
        insert.bind(*id).bind(Arc::clone(&row.text))
    })
}

impl Statement<'_> {
    /// The statements that insert `rows`, each made when it is asked for; `bind` gives the values of a row.
    pub(crate) fn of<'r, R, B>(&self, rows: &'r [R], bind: B) -> impl Iterator<Item = Insert> + use<'r, R, B>
    where
        B: Fn(Insert, &R) -> Insert,
    {
        let parts = self.forms.split(rows);
        let parts: Vec<_> = parts
            .into_iter()
            .map(|(form, part)| (self.sql(form), part))
            .collect();
        parts.into_iter().map(move |(sql, part)| {
            let insert = sqlx::query(AssertSqlSafe(sql));
            part.iter().fold(insert, &bind)
        })
    }

    fn sql(&self, rows: usize) -> String {
        let row = format!("({}?),", "?,".repeat(self.columns - 1));
        let rows = row.repeat(rows);
        let values = format!("VALUES {}", rows.trim_end_matches(','));
        let values = match self.forms {
            Forms::Exact(_) => values,
            Forms::Filled(_) => format!("SELECT * FROM ({values}) WHERE column1 IS NOT NULL"),
        };
        format!("{} {values} {}", self.into, self.then)
    }
}

impl Forms {
    /// `rows` as those of one statement each, with how many rows that statement has room for.
    fn split<R>(self, mut rows: &[R]) -> Vec<(usize, &[R])> {
        let mut parts = Vec::new();
        while !rows.is_empty() {
            let form = match self {
                Self::Exact(forms) => forms.iter().find(|form| **form <= rows.len()),
                Self::Filled(forms) => forms.iter().rfind(|form| **form >= rows.len()).or(forms.first()),
            };
            let form = form.copied().unwrap_or(1);
            let (part, rest) = rows.split_at(form.min(rows.len()));
            parts.push((form, part));
            rows = rest;
        }
        parts
    }
}

/// Runs `inserts`; while SQLite has one of them, the values of the next are gathered.
pub(crate) async fn run(
    connection: &mut SqliteConnection,
    mut inserts: impl Iterator<Item = Insert>,
) -> Result<(), sqlx::Error> {
    let mut ready = inserts.next();
    while let Some(insert) = ready {
        // The first is asked first, which hands it to the thread of SQLite.
        let (inserted, next) =
            tokio::join!(biased; insert.execute(&mut *connection), async { inserts.next() });
        inserted?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_into_few_statements() {
        let sizes = |forms: Forms, rows: usize| -> Vec<(usize, usize)> {
            let rows = vec![(); rows];
            let parts = forms.split(&rows);
            parts.into_iter().map(|(form, part)| (form, part.len())).collect()
        };
        let exact = Forms::Exact(&[8, 3, 1]);
        assert_eq!(sizes(exact, 20), [(8, 8), (8, 8), (3, 3), (1, 1)]);
        let filled = Forms::Filled(&[8, 3, 1]);
        assert_eq!(sizes(filled, 20), [(8, 8), (8, 8), (8, 4)]);
        assert_eq!(sizes(filled, 3), [(3, 3)]);
        assert_eq!(sizes(filled, 0), []);
    }

    #[test]
    fn what_a_statement_has_room_for_beyond_its_rows_is_left_out() {
        let statement = Statement {
            into: "INSERT INTO t (a, b)",
            columns: 2,
            forms: Forms::Filled(&[2]),
            then: "ON CONFLICT DO NOTHING",
        };
        assert_eq!(
            statement.sql(2),
            "INSERT INTO t (a, b) SELECT * FROM (VALUES (?,?),(?,?)) WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING"
        );
    }
}
