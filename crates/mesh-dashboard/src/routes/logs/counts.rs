//! How many lines there are: over time, and by the values of their fields.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::{App, Asked, bounded, fresh};
use super::parse;
use crate::problem::Problem;

/// Nanoseconds since 1970 are counted in 64 bits.
const LAST_MS: i64 = 7_258_118_400_000;

/// Of which time.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistogramQuery {
    /// The query; every line if empty.
    #[serde(default)]
    q: String,
    /// Where it begins, in milliseconds since 1970; an hour before its end if not given.
    from: Option<i64>,
    /// Where it ends; now if not given.
    to: Option<i64>,
    /// How many bars, 1 to 500; 60 if not given.
    #[param(minimum = 1, maximum = 500)]
    bars: Option<u32>,
}

/// How many lines there were when.
#[derive(Debug, Serialize, ToSchema)]
pub struct Histogram {
    /// Where the first bar begins, in milliseconds since 1970.
    from: i64,
    /// How many milliseconds a bar stands for.
    width_ms: f64,
    /// For each bar the lines of level error and above, of level warn, and all others.
    bars: Vec<[u64; 3]>,
    /// Whether every line was counted; of very many only the newest are.
    is_complete: bool,
}

/// How many lines there were when
#[utoipa::path(get, path = "/api/v1/logs/histogram", tag = "logs", params(HistogramQuery), responses(
    (status = 200, description = "The bars", body = Histogram),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn histogram(
    State(app): State<App>,
    Asked(asked): Asked<HistogramQuery>,
) -> Result<Response, Problem> {
    let query = parse(&asked.q)?;
    let bars = bounded(asked.bars, 60, 500)?;
    let to = asked.to.unwrap_or_else(|| Timestamp::now().as_millisecond());
    let from = asked.from.unwrap_or_else(|| to.saturating_sub(3_600_000));
    if from < 0 || from >= to || to > LAST_MS {
        let detail = "`from` must be before `to`, and both between 1970 and 2200.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let nanos = |ms: i64| ms.saturating_mul(1_000_000);
    let counted = app
        .archive
        .read(async |reader| reader.histogram(&query, nanos(from), nanos(to), bars).await)
        .await?;
    Ok(fresh(&Histogram {
        from: counted.from_ns / 1_000_000,
        width_ms: counted.width_ns as f64 / 1e6,
        bars: counted.bars,
        is_complete: counted.is_complete,
    }))
}

/// A value and how often it occurs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Occurs {
    /// The value. Hostile input.
    value: String,
    /// How often.
    lines: u64,
}

/// Which values the fields of the newest 20,000 lines have.
#[derive(Debug, Serialize, ToSchema)]
pub struct Facets {
    /// By level.
    level: Vec<Occurs>,
    /// By broker.
    broker: Vec<Occurs>,
    /// By service.
    service: Vec<Occurs>,
    /// By event.
    event: Vec<Occurs>,
    /// By client.
    client: Vec<Occurs>,
    /// How many lines were looked at.
    lines: u64,
}

/// Which lines are counted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FacetQuery {
    /// The query; every line if empty.
    #[serde(default)]
    q: String,
}

/// Which values the fields of lines have, the most frequent first
#[utoipa::path(get, path = "/api/v1/logs/facets", tag = "logs", params(FacetQuery), responses(
    (status = 200, description = "The values", body = Facets),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn facets(State(app): State<App>, Asked(asked): Asked<FacetQuery>) -> Result<Response, Problem> {
    let query = parse(&asked.q)?;
    let counted = app
        .archive
        .read(async |reader| reader.facets(&query).await)
        .await?;
    let told = |values: Vec<(String, u64)>| {
        values
            .into_iter()
            .map(|(value, lines)| Occurs { value, lines })
            .collect()
    };
    Ok(fresh(&Facets {
        level: told(counted.level),
        broker: told(counted.broker),
        service: told(counted.service),
        event: told(counted.event),
        client: told(counted.client),
        lines: counted.lines,
    }))
}
