//! The log lines of the whole network: found, read in their surroundings, counted and taken away.

pub mod counts;
pub mod export;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use mesh_store::query::Query;
use mesh_store::reader::Place;
use mesh_store::{LogRow, Page};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, Asked, Named, bounded, fresh};
use crate::problem::Problem;

/// Lines a page if nobody asks for another number, and at most.
const USUAL: u32 = 200;
const MOST: u32 = 1_000;

/// A line, in OpenTelemetry's words.
#[derive(Debug, Serialize, ToSchema)]
pub struct Line {
    /// Its id; rises with time. As text, since it is above what JavaScript's numbers hold.
    id: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    time: String,
    /// How severe it is, by OpenTelemetry's numbers.
    severity_number: u8,
    /// The name of its class.
    severity_text: String,
    /// What it says. Hostile input, like every text below.
    body: String,
    /// What else is known of it.
    #[schema(value_type = Option<Object>)]
    attributes: Option<serde_json::Value>,
    /// What happened, if that has a name.
    event_name: Option<String>,
    /// The machine.
    node: Option<String>,
    /// The broker that wrote it or that it is about.
    broker: Option<String>,
    /// The program.
    service: String,
    /// The MQTT client that it is about.
    client_id: Option<String>,
    /// The source that it was read from.
    source: Option<String>,
}

impl From<LogRow> for Line {
    fn from(row: LogRow) -> Self {
        let attributes = row.attributes.as_ref();
        Self {
            id: row.id.to_string(),
            time: mesh_store::row::rfc3339(row.time_ns),
            severity_number: row.severity.number(),
            severity_text: row.severity_text.to_owned(),
            attributes: attributes.and_then(|raw| serde_json::from_str(raw.get()).ok()),
            body: row.body,
            event_name: row.event,
            node: row.node,
            broker: row.broker,
            service: row.service,
            client_id: row.client_id,
            source: row.source,
        }
    }
}

/// One page of lines, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct LinePage {
    /// The lines.
    rows: Vec<Line>,
    /// Give this as `before` for the next page; `null` at the end.
    next: Option<String>,
}

impl From<Page> for LinePage {
    fn from(page: Page) -> Self {
        Self {
            rows: page.rows.into_iter().map(Line::from).collect(),
            next: page.older.map(|id| id.to_string()),
        }
    }
}

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LinesQuery {
    /// The query, e.g. `broker:broker3 level>=warn since:10m`; every line if empty.
    #[serde(default)]
    q: String,
    /// The `next` of the page before.
    before: Option<i64>,
    /// How many, 1 to 1000; 200 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `true` for the oldest ones, the oldest first; then there is no next page, and `before` means nothing.
    #[serde(default)]
    oldest: bool,
}

/// A query, or where in it the mistake is.
pub fn parse(text: &str) -> Result<Query, Problem> {
    text.parse::<Query>().map_err(|error| Problem {
        at: Some(error.at),
        length: Some(error.length),
        ..Problem::new(StatusCode::BAD_REQUEST, error.message)
    })
}

/// Log lines, the newest first
#[utoipa::path(get, path = "/api/v1/logs", tag = "logs", params(LinesQuery), responses(
    (status = 200, description = "One page", body = LinePage),
    (status = 400, description = "The query is wrong; `at` and `length` say where", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(app): State<App>, Asked(asked): Asked<LinesQuery>) -> Result<Response, Problem> {
    let query = parse(&asked.q)?;
    let limit = bounded(asked.limit, USUAL, MOST)?;
    let place = match asked.before {
        _ if asked.oldest => Place::After(i64::MIN),
        Some(before) => Place::Before(before),
        None => Place::Newest,
    };
    let page = app
        .archive
        .read(async |reader| reader.page(&query, place, limit).await)
        .await?;
    let page = LinePage::from(page);
    let next = page.next.filter(|_| !asked.oldest);
    Ok(fresh(&LinePage { next, ..page }))
}

/// How much around a line.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ContextQuery {
    /// Lines before and after, 1 to 200 each; 15 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `true` for lines of the same source only.
    #[serde(default)]
    same_source: bool,
}

/// A line with those around it, the oldest first
#[utoipa::path(get, path = "/api/v1/logs/{id}/context", tag = "logs",
    params(("id" = i64, Path, description = "The line's id"), ContextQuery),
    responses(
        (status = 200, description = "The lines", body = LinePage),
        (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such line", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn context(
    State(app): State<App>,
    Named(id): Named,
    Asked(asked): Asked<ContextQuery>,
) -> Result<Response, Problem> {
    let limit = bounded(asked.limit, 15, 200)?;
    let unknown = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("There is no line {id:?}; old lines are deleted."),
        )
    };
    let number: i64 = id.parse().map_err(|_| unknown())?;
    let rows = app
        .archive
        .read(async |reader| reader.context(number, limit, limit, asked.same_source).await)
        .await?;
    if rows.is_empty() {
        return Err(unknown());
    }
    let rows = rows.into_iter().map(Line::from).collect();
    Ok(fresh(&LinePage { rows, next: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_query_is_refused() {
        assert!(parse("broker:broker1 level>=warn since:10m").is_ok());
        assert_eq!(parse("level>=loud").unwrap_err().status, 400);
    }
}
