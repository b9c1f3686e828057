//! What a reader sees at one moment, whatever is written and forgotten meanwhile.

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool, Transaction};

use crate::error::{StoreError, While};
use crate::index::{self, Part};
use crate::query::{Plan, Query, terms};

/// The database at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    transaction: Transaction<'static, Sqlite>,
    /// The parts of the index, the oldest first.
    parts: Vec<Part>,
    /// The oldest line.
    first: i64,
}

impl Snapshot {
    /// The database as it is now. mesh-logs may have brought it up to date since it was opened.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub(crate) async fn take(pool: &SqlitePool) -> Result<Self, StoreError> {
        let what = "begin to read";
        let mut transaction = pool.begin().await.during(what)?;
        let version = crate::open::version(&mut transaction).await?;
        let parts = index::parts(&mut transaction, version).await?;
        let row = sqlx::query("SELECT coalesce(min(id), 0) AS first FROM log")
            .fetch_one(&mut *transaction)
            .await
            .during(what)?;
        Ok(Self {
            first: row.try_get("first").during(what)?,
            transaction,
            parts,
        })
    }

    /// How `query` is to be answered, by what is in the index.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub(crate) async fn plan(&mut self, query: &Query) -> Result<Plan, StoreError> {
        let known = terms::known(&mut self.transaction, query, &self.parts).await?;
        let mut plan = Plan::new(query, Timestamp::now(), &known);
        plan.from = plan.from.max(self.first);
        Ok(plan)
    }

    /// `plan` in each part of the index that it needs, the newest first, or if `is_rising` the oldest.
    pub(crate) fn in_parts(&self, plan: &Plan, is_rising: bool) -> Vec<Plan> {
        let mut plans: Vec<Plan> = index::ranges(&self.parts)
            .map(|(part, first, end)| plan.within(&part.words, first, end))
            .filter(|plan| plan.from < plan.to)
            .collect();
        if !is_rising {
            plans.reverse();
        }
        plans
    }

    /// What `ask` asks for.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub(crate) async fn read(&mut self, mut ask: QueryBuilder<Sqlite>) -> Result<Vec<SqliteRow>, StoreError> {
        let rows = ask.build().fetch_all(&mut *self.transaction).await;
        rows.during("search")
    }

    /// The number that `ask` asks for.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub(crate) async fn count(&mut self, mut ask: QueryBuilder<Sqlite>) -> Result<i64, StoreError> {
        let row = ask.build().fetch_one(&mut *self.transaction).await;
        row.and_then(|row| row.try_get(0)).during("search")
    }
}
