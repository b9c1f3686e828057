//! Everything that is asked of log lines. Readers only read; they wait for nobody and nobody waits for them.

use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::sqlite::{SqlitePoolOptions, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool};

use mesh_model::names::CLIENT_ID_PREFIX;

use crate::error::{StoreError, While};
use crate::query::{Plan, Query};
use crate::row::{COLUMNS, LogRow};
use crate::schema;
use crate::source::SourceState;

/// Connections of a reader.
const CONNECTIONS: u32 = 4;

/// Of a facet so many lines are looked at, the newest.
const FACET_LINES: u32 = 20_000;

/// And so many of its values are told.
const FACET_VALUES: usize = 20;

/// Of a histogram so many lines of each group are counted, the newest.
const HISTOGRAM_LINES: i64 = 500_000;

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

/// How many lines there were when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Where the first bar begins, in nanoseconds since 1970.
    pub from_ns: i64,
    /// How much time a bar stands for, in nanoseconds.
    pub width_ns: i64,
    /// For each bar the lines of level error and above, of level warn, and all others.
    pub bars: Vec<[u64; 3]>,
    /// Whether every line was counted: of more than 500,000 of a group only the newest are.
    pub is_complete: bool,
}

/// How often which values occur among the newest 20,000 lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facets {
    /// By level.
    pub level: Vec<(String, u64)>,
    /// By broker.
    pub broker: Vec<(String, u64)>,
    /// By service.
    pub service: Vec<(String, u64)>,
    /// By event.
    pub event: Vec<(String, u64)>,
    /// By client.
    pub client: Vec<(String, u64)>,
    /// How many lines were looked at.
    pub lines: u64,
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
        let mut plan = Plan::new(query, Timestamp::now());
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
        let rows = self.lines(&plan, is_rising, limit, None).await?;
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
        let mut plan = Plan::new(query, Timestamp::now());
        plan.from = plan.from.max(first);
        plan.to = plan.to.min(last.saturating_add(1));
        let observed = Some((observed_ns, until));
        let mut rows = self.lines(&plan, false, limit, observed).await?;
        rows.reverse();
        let is_full = rows.len() == limit as usize;
        let left_out = if is_full {
            let mut count = QueryBuilder::new("SELECT count(*) FROM (");
            push_select(&mut count, "1", &plan, true);
            push_observed(&mut count, observed);
            let all: i64 = count
                .push(")")
                .build_query_scalar()
                .fetch_one(&self.pool)
                .await
                .during(what)?;
            all.unsigned_abs().saturating_sub(rows.len() as u64)
        } else {
            0
        };
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

    async fn lines(
        &self,
        plan: &Plan,
        is_rising: bool,
        limit: u32,
        observed: Option<(i64, i64)>,
    ) -> Result<Vec<LogRow>, StoreError> {
        let mut query = select(COLUMNS, plan, true);
        push_observed(&mut query, observed);
        order(&mut query, plan, is_rising, i64::from(limit));
        let rows = query.build().fetch_all(&self.pool).await.during("search")?;
        rows.iter()
            .map(LogRow::read)
            .collect::<Result<_, _>>()
            .during("search")
    }

    /// How many of the lines that `query` asks for there were when, in `bars` bars over `[from_ns, to_ns)`.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn histogram(
        &self,
        query: &Query,
        from_ns: i64,
        to_ns: i64,
        bars: u32,
    ) -> Result<Histogram, StoreError> {
        let what = "count lines";
        let bars = i64::from(bars.clamp(1, 10_000));
        let width_ns = (to_ns.saturating_sub(from_ns) / bars).max(1);
        let mut histogram = Histogram {
            from_ns,
            width_ns,
            bars: vec![[0; 3]; bars as usize],
            is_complete: true,
        };
        let mut plan = Plan::new(query, Timestamp::now());
        plan.from = plan.from.max(crate::id::first_at(from_ns));
        plan.to = plan.to.min(crate::id::first_at(to_ns));
        for (group, levels) in [(4, 5), (3, 3), (0, 2)].into_iter().enumerate() {
            let plan = plan.with_levels(levels.0, levels.1);
            let mut outer: QueryBuilder<Sqlite> = QueryBuilder::new("");
            outer
                .push("SELECT ((id >> 10) * 1000 - ")
                .push_bind(from_ns)
                .push(") / ")
                .push_bind(width_ns);
            outer.push(" AS bar, count(*) AS lines FROM (");
            append(&mut outer, &plan, HISTOGRAM_LINES);
            outer.push(") GROUP BY bar");
            let rows = outer.build().fetch_all(&self.pool).await.during(what)?;
            let mut counted = 0;
            for row in rows {
                let (bar, lines): (i64, i64) = (
                    row.try_get("bar").during(what)?,
                    row.try_get("lines").during(what)?,
                );
                counted += lines;
                if let Some(bar) = usize::try_from(bar)
                    .ok()
                    .and_then(|bar| histogram.bars.get_mut(bar))
                {
                    bar[group] += lines.unsigned_abs();
                }
            }
            histogram.is_complete &= counted < HISTOGRAM_LINES;
        }
        Ok(histogram)
    }

    /// Which values the fields of the lines have that `query` asks for, the most frequent first; without the sessions of
    /// the mesh itself.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn facets(&self, query: &Query) -> Result<Facets, StoreError> {
        let what = "count values";
        let plan = Plan::new(query, Timestamp::now());
        let mut select = select(
            "l.severity, l.broker, l.service, l.event, l.client_id",
            &plan,
            true,
        );
        order(&mut select, &plan, false, i64::from(FACET_LINES));
        let rows = select.build().fetch_all(&self.pool).await.during(what)?;
        let count = |column: &'static str| -> Result<Vec<(String, u64)>, sqlx::Error> {
            let mut counts: HashMap<&str, u64> = HashMap::new();
            for row in &rows {
                let value = row.try_get::<Option<&str>, _>(column)?;
                // The mesh's own sessions come and go each second; nobody's clients could be seen beside them.
                if let Some(value) = value.filter(|value| !value.starts_with(CLIENT_ID_PREFIX)) {
                    *counts.entry(value).or_default() += 1;
                }
            }
            Ok(most(
                counts.into_iter().map(|(value, count)| (value.to_owned(), count)),
            ))
        };
        let mut levels: HashMap<&str, u64> = HashMap::new();
        for row in &rows {
            let severity = mesh_model::Severity::from_number(row.try_get("severity").during(what)?);
            *levels.entry(severity.name()).or_default() += 1;
        }
        Ok(Facets {
            level: most(levels.into_iter().map(|(value, count)| (value.to_owned(), count))),
            broker: count("broker").during(what)?,
            service: count("service").during(what)?,
            event: count("event").during(what)?,
            client: count("client_id").during(what)?,
            lines: rows.len() as u64,
        })
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

fn most(counts: impl Iterator<Item = (String, u64)>) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(FACET_VALUES);
    counts
}

/// The index first and each row after it: with a plain JOIN SQLite may choose to walk through all rows and ask the index
/// for each.
fn select(columns: &str, plan: &Plan, with_rows: bool) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("");
    push_select(&mut query, columns, plan, with_rows);
    query
}

fn push_select(query: &mut QueryBuilder<Sqlite>, columns: &str, plan: &Plan, with_rows: bool) {
    query.push("SELECT ").push(columns);
    match &plan.words {
        Some(words) => {
            query.push(" FROM log_fts f ");
            if with_rows {
                query.push("CROSS JOIN log l ON l.id = f.rowid ");
            }
            query.push("WHERE f.log_fts MATCH ").push_bind(words.clone());
            if plan.from > i64::MIN {
                query.push(" AND f.rowid >= ").push_bind(plan.from);
            }
            if plan.to < i64::MAX {
                query.push(" AND f.rowid < ").push_bind(plan.to);
            }
        }
        None => {
            query.push(" FROM log l WHERE l.id >= ").push_bind(plan.from);
            query.push(" AND l.id < ").push_bind(plan.to);
        }
    }
    for (name, values, negated) in &plan.attributes {
        query.push(if *negated { " AND coalesce(" } else { " AND (" });
        query
            .push("CAST(l.attributes ->> ")
            .push_bind(format!("$.{name}"));
        query.push(if *negated {
            " AS TEXT), '') NOT IN ("
        } else {
            " AS TEXT)) IN ("
        });
        for (index, value) in values.iter().enumerate() {
            query
                .push(if index == 0 { "" } else { ", " })
                .push_bind(value.clone());
        }
        query.push(")");
    }
}

/// Only lines that were stored after the one time and until the other.
fn push_observed(query: &mut QueryBuilder<Sqlite>, observed: Option<(i64, i64)>) {
    if let Some((after, until)) = observed {
        query.push(" AND l.observed_ns > ").push_bind(after);
        query.push(" AND l.observed_ns <= ").push_bind(until);
    }
}

fn order(query: &mut QueryBuilder<Sqlite>, plan: &Plan, is_rising: bool, limit: i64) {
    query.push(match plan.words {
        Some(_) => " ORDER BY f.rowid",
        None => " ORDER BY l.id",
    });
    query.push(if is_rising { " ASC LIMIT " } else { " DESC LIMIT " });
    query.push_bind(limit);
}

fn append(query: &mut QueryBuilder<Sqlite>, plan: &Plan, limit: i64) {
    push_select(query, "f.rowid AS id", plan, !plan.attributes.is_empty());
    order(query, plan, false, limit);
}
