//! How many lines there are: by time, and by what their fields are.

use std::collections::HashMap;

use mesh_model::names::CLIENT_ID_PREFIX;
use serde::Serialize;
use sqlx::{QueryBuilder, Row, Sqlite};

use crate::error::{StoreError, While};
use crate::query::{Query, sql};
use crate::reader::Reader;

/// Of a facet so many lines are looked at, the newest.
const FACET_LINES: i64 = 20_000;

/// And so many of its values are told.
const FACET_VALUES: usize = 20;

/// Of a histogram so many lines of each group are counted, the newest.
const HISTOGRAM_LINES: i64 = 500_000;

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
        let mut snapshot = self.snapshot().await?;
        let mut plan = snapshot.plan(query).await?;
        plan.from = plan.from.max(crate::id::first_at(from_ns));
        plan.to = plan.to.min(crate::id::first_at(to_ns));
        for (group, levels) in [(4, 5), (3, 3), (0, 2)].into_iter().enumerate() {
            let plan = plan.with_levels(levels.0, levels.1);
            let mut counted = 0;
            for plan in snapshot.in_parts(&plan, false) {
                let mut ask: QueryBuilder<Sqlite> = QueryBuilder::new("");
                ask.push("SELECT ((id >> 10) * 1000 - ")
                    .push_bind(from_ns)
                    .push(") / ")
                    .push_bind(width_ns);
                ask.push(" AS bar, count(*) AS lines FROM (");
                sql::append_ids(&mut ask, &plan, HISTOGRAM_LINES - counted);
                ask.push(") GROUP BY bar");
                for row in snapshot.read(ask).await? {
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
        let columns = "l.severity, l.broker, l.service, l.event, l.client_id";
        let mut snapshot = self.snapshot().await?;
        let plan = snapshot.plan(query).await?;
        let mut rows = Vec::new();
        for plan in snapshot.in_parts(&plan, false) {
            let wanted = FACET_LINES - rows.len() as i64;
            rows.extend(snapshot.read(sql::lines(columns, &plan, false, wanted)).await?);
        }
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
}

fn most(counts: impl Iterator<Item = (String, u64)>) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(FACET_VALUES);
    counts
}
