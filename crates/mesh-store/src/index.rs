//! The full-text index, in parts that each hold the lines of a span of time.
//!
//! FTS5 merges what it has written again and again, and of a word all lines at once: a word that is in each of ten million
//! lines, as fields are, keeps it busy for seconds, in which nothing can be stored. So a part has some hundred thousand
//! lines at most. And old lines need not be taken out of the index, which is as much work as to put them in: a part is
//! dropped with its last line, and what it says of lines that are gone already is not asked for.

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use crate::error::{StoreError, While};

/// A part of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    number: i64,
    /// The first id that belongs here; the last is the one before the next part's.
    pub(crate) first: i64,
    /// How many lines were put in.
    pub(crate) lines: i64,
    /// The table of words.
    pub(crate) words: String,
    /// The table of its terms, if there is one.
    pub(crate) terms: Option<String>,
}

impl Part {
    fn new(number: i64, first: i64, lines: i64) -> Self {
        Self {
            number,
            first,
            lines,
            words: format!("words_{number}"),
            terms: Some(format!("terms_{number}")),
        }
    }

    /// The whole index, as it was before it had parts.
    fn undivided(version: usize) -> Self {
        Self {
            words: "log_fts".into(),
            terms: (version >= 4).then(|| "log_term".into()),
            ..Self::new(0, i64::MIN, 0)
        }
    }
}

/// All parts of a database of this version, the oldest first.
pub(crate) async fn parts(
    connection: &mut SqliteConnection,
    version: usize,
) -> Result<Vec<Part>, StoreError> {
    let what = "read the parts of the index";
    if version < 5 {
        return Ok(vec![Part::undivided(version)]);
    }
    let rows = sqlx::query("SELECT number, first_id, lines FROM part ORDER BY first_id")
        .fetch_all(connection)
        .await
        .during(what)?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Part::new(
            row.try_get("number")?,
            row.try_get("first_id")?,
            row.try_get("lines")?,
        ))
    };
    rows.iter().map(read).collect::<Result<_, _>>().during(what)
}

/// The same parts, for the one that writes: there is at least one.
pub(crate) async fn for_writing(connection: &mut SqliteConnection) -> Result<Vec<Part>, StoreError> {
    let mut found = parts(connection, crate::schema::LATEST).await?;
    if found.is_empty() {
        found.push(begin(connection, 1, i64::MIN).await?);
    }
    Ok(found)
}

/// Which of `parts` the line `id` belongs to.
pub(crate) fn place(parts: &[Part], id: i64) -> usize {
    parts.partition_point(|part| part.first <= id).saturating_sub(1)
}

/// Each of `parts` with its first id and the one after its last. What is before the first part belongs to it.
pub(crate) fn ranges(parts: &[Part]) -> impl Iterator<Item = (&Part, i64, i64)> {
    parts.iter().enumerate().map(|(number, part)| {
        let first = if number == 0 { i64::MIN } else { part.first };
        let end = parts.get(number + 1).map_or(i64::MAX, |next| next.first);
        (part, first, end)
    })
}

/// A new part after `newest`, from the line `first` on.
pub(crate) async fn begin_after(
    connection: &mut SqliteConnection,
    newest: &Part,
    first: i64,
) -> Result<Part, StoreError> {
    begin(connection, newest.number + 1, first).await
}

async fn begin(connection: &mut SqliteConnection, number: i64, first: i64) -> Result<Part, StoreError> {
    let part = Part::new(number, first, 0);
    drop_tables(connection, number).await?;
    // Only the index is stored, and not how long each line is, which nobody asks for.
    let words = format!(
        "CREATE VIRTUAL TABLE words_{number} USING fts5 (text, content = '', columnsize = 0, tokenize = \"unicode61\")"
    );
    let terms = format!("CREATE VIRTUAL TABLE terms_{number} USING fts5vocab('words_{number}', 'instance')");
    for create in [words, terms] {
        run(connection, create).await?;
    }
    sqlx::query("INSERT INTO part (number, first_id, lines) VALUES (?, ?, 0)")
        .bind(number)
        .bind(first)
        .execute(connection)
        .await
        .during("begin a part of the index")?;
    Ok(part)
}

/// Drops `part`.
pub(crate) async fn forget(connection: &mut SqliteConnection, part: &Part) -> Result<(), StoreError> {
    drop_tables(connection, part.number).await?;
    sqlx::query("DELETE FROM part WHERE number = ?")
        .bind(part.number)
        .execute(connection)
        .await
        .during("drop a part of the index")?;
    Ok(())
}

/// Notes that `lines` were put into `part`.
pub(crate) async fn grown(
    connection: &mut SqliteConnection,
    part: &Part,
    lines: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE part SET lines = lines + ? WHERE number = ?")
        .bind(lines)
        .bind(part.number)
        .execute(connection)
        .await
        .during("note how large a part of the index is")?;
    Ok(())
}

async fn drop_tables(connection: &mut SqliteConnection, number: i64) -> Result<(), StoreError> {
    for table in ["terms", "words"] {
        run(connection, format!("DROP TABLE IF EXISTS {table}_{number}")).await?;
    }
    Ok(())
}

async fn run(connection: &mut SqliteConnection, sql: String) -> Result<(), StoreError> {
    let ran = sqlx::query(AssertSqlSafe(sql)).execute(connection).await;
    ran.during("change the parts of the index")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_belongs_to_the_last_part_that_begins_before_it() {
        let parts = [
            Part::new(1, i64::MIN, 0),
            Part::new(2, 100, 0),
            Part::new(3, 200, 0),
        ];
        for (id, expected) in [(0, 0), (99, 0), (100, 1), (199, 1), (200, 2), (i64::MAX, 2)] {
            assert_eq!(place(&parts, id), expected, "{id}");
        }
        // The first part may have been dropped since.
        assert_eq!(place(&parts[1..], 5), 0);
        let ranges: Vec<_> = ranges(&parts[1..]).map(|(_, first, end)| (first, end)).collect();
        assert_eq!(ranges, [(i64::MIN, 200), (200, i64::MAX)]);
    }
}
