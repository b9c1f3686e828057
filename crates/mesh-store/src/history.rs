//! Incidents and samples: what mesh-health tells, kept for longer than it remembers.

use jiff::Timestamp;
use mesh_model::{Incident, IncidentKind, IncidentStep};
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};

use crate::error::{StoreError, While};
use crate::reader::Reader;
use crate::writer::{Writer, begin, end};

/// One value of one series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// What was measured, e.g. `clients` or `rtt_ms`.
    pub series: String,
    /// Of what: a broker, a link as `from>to`, or empty.
    pub target: String,
    /// When, in nanoseconds since 1970.
    pub at: i64,
    /// The value.
    pub value: f64,
}

fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(0)
}

impl Writer {
    /// Stores incidents as they are now.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn store_incidents(&mut self, incidents: &[Incident]) -> Result<(), StoreError> {
        begin(&mut self.connection).await?;
        let stored = write_incidents(&mut self.connection, incidents).await;
        end(&mut self.connection, stored).await
    }

    /// Stores `samples`.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn store_samples(&mut self, samples: &[Sample]) -> Result<(), StoreError> {
        for chunk in samples.chunks(1000) {
            let mut query = QueryBuilder::new("INSERT OR REPLACE INTO sample (series, target, at, value) ");
            query.push_values(chunk, |mut row, sample| {
                row.push_bind(sample.series.as_str())
                    .push_bind(sample.target.as_str())
                    .push_bind(sample.at)
                    .push_bind(sample.value);
            });
            let stored = query.build().execute(&mut self.connection).await;
            stored.during("store samples")?;
        }
        Ok(())
    }
}

async fn write_incidents(
    connection: &mut SqliteConnection,
    incidents: &[Incident],
) -> Result<(), StoreError> {
    let what = "store incidents";
    for incident in incidents {
        sqlx::query(
            "INSERT INTO incident (id, kind, broker, \"from\", \"to\", generation, reason, began_at, ended_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET \"to\" = excluded.\"to\", generation = excluded.generation, \
             reason = excluded.reason, ended_at = excluded.ended_at",
        )
        .bind(&incident.id)
        .bind(incident.kind.as_str())
        .bind(incident.broker.as_ref().map(mesh_model::BrokerId::as_str))
        .bind(incident.from.as_ref().map(mesh_model::BrokerId::as_str))
        .bind(incident.to.as_ref().map(mesh_model::BrokerId::as_str))
        .bind(incident.generation.map(u64::cast_signed))
        .bind(&incident.reason)
        .bind(nanos(incident.began_at))
        .bind(incident.ended_at.map(nanos))
        .execute(&mut *connection)
        .await
        .during(what)?;
        for (number, step) in (0_i64..).zip(&incident.phases) {
            sqlx::query(
                "INSERT OR REPLACE INTO incident_phase (incident, number, phase, at, elapsed_ms) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(&incident.id)
            .bind(number)
            .bind(step.phase.as_str())
            .bind(nanos(step.at))
            .bind(step.elapsed_ms)
            .execute(&mut *connection)
            .await
            .during(what)?;
        }
    }
    Ok(())
}

/// What fails if reading incidents does.
const READ: &str = "read incidents";

impl Reader {
    /// At most `limit` incidents, those that began last first; only such that come after
    /// `before` in that order, if it is given.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn incidents(
        &self,
        before: Option<&Incident>,
        limit: u32,
    ) -> Result<Vec<Incident>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM incident WHERE (began_at, id) < (?, ?) ORDER BY began_at DESC, id DESC LIMIT ?",
        )
        .bind(before.map_or(i64::MAX, |before| nanos(before.began_at)))
        .bind(before.map_or("", |before| &before.id))
        .bind(limit)
        .fetch_all(self.pool())
        .await
        .during(READ)?;
        let mut incidents = Vec::new();
        for row in &rows {
            incidents.push(self.with_phases(row).await?);
        }
        Ok(incidents)
    }

    /// The incident `id`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn incident(&self, id: &str) -> Result<Option<Incident>, StoreError> {
        let row = sqlx::query("SELECT * FROM incident WHERE id = ?")
            .bind(id)
            .fetch_optional(self.pool())
            .await
            .during(READ)?;
        match row {
            Some(row) => self.with_phases(&row).await.map(Some),
            None => Ok(None),
        }
    }

    async fn with_phases(&self, row: &SqliteRow) -> Result<Incident, StoreError> {
        let id: String = row.try_get("id").during(READ)?;
        let phases = sqlx::query("SELECT * FROM incident_phase WHERE incident = ? ORDER BY number")
            .bind(&id)
            .fetch_all(self.pool())
            .await
            .during(READ)?;
        incident(id, row, &phases).during(READ)
    }

    /// The values of `series` of `target` in `[from, to)`, oldest first.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn samples(
        &self,
        series: &str,
        target: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<Sample>, StoreError> {
        let what = "read samples";
        let rows = sqlx::query(
            "SELECT * FROM sample WHERE series = ? AND target = ? AND at >= ? AND at < ? ORDER BY at",
        )
        .bind(series)
        .bind(target)
        .bind(from)
        .bind(to)
        .fetch_all(self.pool())
        .await
        .during(what)?;
        let sample = |row: &SqliteRow| {
            Ok(Sample {
                series: row.try_get("series")?,
                target: row.try_get("target")?,
                at: row.try_get("at")?,
                value: row.try_get("value")?,
            })
        };
        rows.iter()
            .map(sample)
            .collect::<Result<_, sqlx::Error>>()
            .during(what)
    }
}

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).unwrap_or_default()
}

fn incident(id: String, row: &SqliteRow, phases: &[SqliteRow]) -> Result<Incident, sqlx::Error> {
    let parsed = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let step = |row: &SqliteRow| {
        let name: String = row.try_get("phase")?;
        let phase = mesh_model::IncidentPhase::ALL
            .iter()
            .find(|phase| phase.as_str() == name);
        let (at, elapsed_ms) = (time(row.try_get("at")?), row.try_get("elapsed_ms")?);
        Ok(phase.map(|phase| IncidentStep {
            phase: *phase,
            at,
            elapsed_ms,
        }))
    };
    let name: String = row.try_get("kind")?;
    let kind = IncidentKind::ALL.iter().find(|kind| kind.as_str() == name);
    let unknown = || sqlx::Error::Decode(format!("{name:?} is no kind of incident").into());
    let steps: Result<Vec<_>, sqlx::Error> = phases.iter().map(step).collect();
    Ok(Incident {
        id,
        kind: *kind.ok_or_else(unknown)?,
        broker: parsed(row.try_get("broker")?),
        from: parsed(row.try_get("from")?),
        to: parsed(row.try_get("to")?),
        generation: row
            .try_get::<Option<i64>, _>("generation")?
            .map(i64::cast_unsigned),
        reason: row.try_get("reason")?,
        began_at: time(row.try_get("began_at")?),
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(time),
        phases: steps?.into_iter().flatten().collect(),
    })
}
