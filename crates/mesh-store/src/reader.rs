//! Everything that is asked of log lines. Readers only read; they wait for nobody and nobody waits for them.

use std::path::Path;

use serde::Serialize;
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use sqlx::{QueryBuilder, Row, SqlitePool};

use crate::error::{StoreError, While};
use crate::query::{Plan, Query, sql};
use crate::row::{COLUMNS, LogRow};
use crate::schema;
use crate::snapshot::Snapshot;
use crate::source::SourceState;

/// Connections of a reader.
const CONNECTIONS: u32 = 4;

/// Where many clients begin as is asked for, so many lines are looked at one by one before the index is asked for all of
/// these clients.
const COMPARED: i64 = 5000;

/// A pool of read-only connections.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: SqlitePool,
}

/// Some lines, and where to go on.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// The lines; see [`Reader::page`] for their order.
    pub rows: Vec<LogRow>,
    /// What to give as [`Place::Before`] for the next older page; `None` if there is none.
    pub older: Option<i64>,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// With the newest line.
    Newest,
    /// With the line before the one with this id.
    Before(i64),
    /// With the line after the one with this id, going on towards newer ones.
    After(i64),
}

/// What was stored lately, for who follows.
#[derive(Debug, Default)]
pub struct News {
    /// The newest lines, oldest first.
    pub rows: Vec<LogRow>,
    /// How many lines before them were left out, since there were more than were asked for.
    pub left_out: u64,
    /// What to give the next time, in nanoseconds since 1970.
    pub until: i64,
}

impl Reader {
    /// Opens the database `path`, which must be there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`], or what SQLite says.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing {
                path: path.to_owned(),
            });
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(schema::for_reading(path))
            .await
            .during("open the database for reading")?;
        let mut connection = pool.acquire().await.during("open the database for reading")?;
        let version = crate::open::version(&mut connection).await?;
        drop(connection);
        match version {
            0 => Err(StoreError::Missing {
                path: path.to_owned(),
            }),
            version if version > schema::LATEST => Err(StoreError::Newer {
                path: path.to_owned(),
            }),
            _ => Ok(Self { pool }),
        }
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Ends all connections.
    pub async fn close(self) {
        self.pool.close().await;
    }

    /// At most `limit` lines that `query` asks for: the newest first, but after [`Place::After`] the oldest first.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn page(&self, query: &Query, place: Place, limit: u32) -> Result<Page, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let mut plan = snapshot.plan(query).await?;
        let is_rising = match place {
            Place::Newest => false,
            Place::Before(id) => {
                plan.to = plan.to.min(id);
                false
            }
            Place::After(id) => {
                plan.from = plan.from.max(id.saturating_add(1));
                true
            }
        };
        let rows = lines(&mut snapshot, &plan, is_rising, limit).await?;
        let is_full = rows.len() == limit as usize;
        let oldest = if is_rising { rows.first() } else { rows.last() };
        Ok(Page {
            older: oldest.filter(|_| is_full || is_rising).map(|row| row.id),
            rows,
        })
    }

    /// The lines that `query` asks for and that were stored after `observed_ns`, at most the newest `limit` of them. It
    /// covers some batches at a time: nothing is left when it comes back with the `observed_ns` that it was given.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn news(&self, query: &Query, observed_ns: i64, limit: u32) -> Result<News, StoreError> {
        let what = "ask for new lines";
        let row = sqlx::query(
            "SELECT min(first_id) AS first, max(last_id) AS last, max(observed_ns) AS observed FROM \
             (SELECT * FROM batch WHERE observed_ns > ? ORDER BY observed_ns LIMIT 16)",
        )
        .bind(observed_ns)
        .fetch_one(&self.pool)
        .await
        .during(what)?;
        let Some(until) = row.try_get::<Option<i64>, _>("observed").during(what)? else {
            return Ok(News {
                until: observed_ns,
                ..News::default()
            });
        };
        let (first, last): (i64, i64) = (
            row.try_get("first").during(what)?,
            row.try_get("last").during(what)?,
        );
        let mut snapshot = self.snapshot().await?;
        let mut plan = snapshot.plan(query).await?;
        plan.from = plan.from.max(first);
        plan.to = plan.to.min(last.saturating_add(1));
        let ask = |columns, plan: &Plan| {
            let mut ask = match &plan.compared {
                // These are few lines, and asked for again and again.
                Some(by) => sql::select_compared(columns, plan, by),
                None => sql::select(columns, plan),
            };
            ask.push(" AND l.observed_ns > ").push_bind(observed_ns);
            ask.push(" AND l.observed_ns <= ").push_bind(until);
            ask
        };
        let (mut rows, mut left_out) = (Vec::new(), 0);
        for plan in snapshot.in_parts(&plan, false) {
            let wanted = limit as usize - rows.len();
            let mut newest = ask(COLUMNS, &plan);
            newest.push(" ORDER BY l.id DESC LIMIT ").push_bind(wanted as i64);
            let found = snapshot.read(newest).await?;
            if found.len() == wanted {
                let all = snapshot.count(ask("count(*)", &plan)).await?;
                left_out += all.unsigned_abs().saturating_sub(wanted as u64);
            }
            rows.extend(read(&found)?);
        }
        rows.reverse();
        Ok(News {
            rows,
            left_out,
            until,
        })
    }

    /// When the last batch was stored, in nanoseconds since 1970: where following begins.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn last_observed(&self) -> Result<i64, StoreError> {
        let what = "ask for the last batch";
        let row = sqlx::query("SELECT coalesce(max(observed_ns), 0) AS last FROM batch")
            .fetch_one(&self.pool)
            .await
            .during(what)?;
        row.try_get("last").during(what)
    }

    /// The line `id` with at most `before` lines before and `after` lines after it, oldest first; of its own source only
    /// if `same_source`. Empty if there is no such line.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn context(
        &self,
        id: i64,
        before: u32,
        after: u32,
        same_source: bool,
    ) -> Result<Vec<LogRow>, StoreError> {
        let what = "read the lines around one";
        let ask = |comparison: &str, order: &str, limit: u32| {
            let mut query =
                QueryBuilder::new(format!("SELECT {COLUMNS} FROM log l WHERE l.id {comparison} "));
            query.push_bind(id);
            if same_source {
                query
                    .push(" AND l.source = (SELECT source FROM log WHERE id = ")
                    .push_bind(id)
                    .push(")");
            }
            query
                .push(format!(" ORDER BY l.id {order} LIMIT "))
                .push_bind(i64::from(limit));
            query
        };
        let mut rows = ask("<", "DESC", before)
            .build()
            .fetch_all(&self.pool)
            .await
            .during(what)?;
        rows.reverse();
        let own = ask("=", "ASC", 1)
            .build()
            .fetch_all(&self.pool)
            .await
            .during(what)?;
        if own.is_empty() {
            return Ok(Vec::new());
        }
        rows.extend(own);
        rows.extend(
            ask(">", "ASC", after)
                .build()
                .fetch_all(&self.pool)
                .await
                .during(what)?,
        );
        rows.iter()
            .map(LogRow::read)
            .collect::<Result<_, _>>()
            .during(what)
    }

    /// The database as it is now.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::take(&self.pool).await
    }

    /// How far each source has been read.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn sources(&self) -> Result<Vec<SourceState>, StoreError> {
        let what = "read the sources";
        let rows: Vec<SqliteRow> = sqlx::query("SELECT * FROM source ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .during(what)?;
        rows.iter()
            .map(SourceState::read)
            .collect::<Result<_, _>>()
            .during(what)
    }
}

/// The newest, or if `is_rising` the oldest, `limit` lines of `plan`.
async fn lines(
    snapshot: &mut Snapshot,
    plan: &Plan,
    is_rising: bool,
    limit: u32,
) -> Result<Vec<LogRow>, StoreError> {
    let mut rows = Vec::new();
    for plan in snapshot.in_parts(plan, is_rising) {
        let wanted = limit as usize - rows.len();
        if wanted == 0 {
            break;
        }
        rows.extend(lines_of_part(snapshot, &plan, is_rising, wanted).await?);
    }
    Ok(rows)
}

async fn lines_of_part(
    snapshot: &mut Snapshot,
    plan: &Plan,
    is_rising: bool,
    limit: usize,
) -> Result<Vec<LogRow>, StoreError> {
    if let Some(by) = &plan.compared {
        let found = snapshot
            .read(sql::candidates(plan, by, is_rising, COMPARED))
            .await?;
        let value = |name| found[0].try_get::<i64, _>(name).during("search");
        let (count, first, last) = (value("count")?, value("first")?, value("last")?);
        if count == 0 {
            return Ok(Vec::new());
        }
        let among = plan.within(&plan.index, first, last + 1);
        let ask = sql::compared(COLUMNS, &among, by, is_rising, limit as i64);
        let rows = read(&snapshot.read(ask).await?)?;
        if rows.len() == limit || count < COMPARED {
            return Ok(rows);
        }
    }
    read(
        &snapshot
            .read(sql::lines(COLUMNS, plan, is_rising, limit as i64))
            .await?,
    )
}

fn read(rows: &[SqliteRow]) -> Result<Vec<LogRow>, StoreError> {
    let rows: Result<_, _> = rows.iter().map(LogRow::read).collect();
    rows.during("search")
}
