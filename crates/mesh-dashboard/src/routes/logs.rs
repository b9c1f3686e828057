//! The log lines of the whole network: found, counted, read in their surroundings, followed and taken away.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use mesh_store::query::Query;
use mesh_store::reader::Place;
use mesh_store::{LogRow, Page};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};

use super::{App, Asked, Named, fresh};
use crate::archive::failed;
use crate::metrics::Counters;
use crate::problem::Problem;

/// Lines a page if nobody asks for another number, and at most.
const USUAL: u32 = 200;
const MOST: u32 = 1_000;

/// Lines of one export.
const EXPORTED: usize = 100_000;

/// Nanoseconds since 1970 are counted in 64 bits.
const LAST_MS: i64 = 7_258_118_400_000;

/// Who follows gets at most so many lines at a time …
const BATCH: u32 = 200;
/// … and no more often than this.
const BATCH_EVERY: Duration = Duration::from_millis(250);

/// Batches that are skipped for a reader who is too slow are counted.
const TICK_EVERY: Duration = Duration::from_secs(5);

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
}

fn parse(text: &str) -> Result<Query, Problem> {
    text.parse::<Query>().map_err(|error| Problem {
        at: Some(error.at),
        length: Some(error.length),
        ..Problem::new(StatusCode::BAD_REQUEST, error.message)
    })
}

fn bounded(limit: Option<u32>, usual: u32, most: u32) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(usual);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("`limit` must be 1 to {most}.");
    Err(Problem::new(StatusCode::BAD_REQUEST, detail))
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
    let place = asked.before.map_or(Place::Newest, Place::Before);
    let found = async {
        let reader = app.archive.reader().await?;
        reader
            .page(&query, place, limit)
            .await
            .map_err(|error| failed(&error))
    };
    let page = found.await?;
    Ok(fresh(&LinePage::from(page)))
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
    let reader = app.archive.reader().await?;
    let rows = reader.context(number, limit, limit, asked.same_source).await;
    let rows = rows.map_err(|error| failed(&error))?;
    if rows.is_empty() {
        return Err(unknown());
    }
    let rows = rows.into_iter().map(Line::from).collect();
    Ok(fresh(&LinePage { rows, next: None }))
}

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
    let counted = async {
        let bars = bounded(asked.bars, 60, 500)?;
        let to = asked.to.unwrap_or_else(|| Timestamp::now().as_millisecond());
        let from = asked.from.unwrap_or_else(|| to.saturating_sub(3_600_000));
        let nanos = |ms: i64| ms.saturating_mul(1_000_000);
        if from < 0 || from >= to || to > LAST_MS {
            let detail = "`from` must be before `to`, and both between 1970 and 2200.";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        let reader = app.archive.reader().await?;
        let counted = reader.histogram(&query, nanos(from), nanos(to), bars).await;
        counted.map_err(|error| failed(&error))
    };
    let counted = counted.await?;
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
    let counted = async {
        let reader = app.archive.reader().await?;
        reader.facets(&query).await.map_err(|error| failed(&error))
    };
    let counted = counted.await?;
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

/// The form of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A JSON object a line.
    #[default]
    Ndjson,
    /// Comma-separated; a cell that a spreadsheet would take for a formula begins with an apostrophe.
    Csv,
}

/// What is taken away.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// The query; every line if empty.
    #[serde(default)]
    q: String,
    /// `ndjson` if not given.
    #[param(inline)]
    format: Option<ExportFormat>,
}

/// Log lines to take away, the newest first, at most 100,000
#[utoipa::path(get, path = "/api/v1/logs/export", tag = "logs", params(ExportQuery), responses(
    (status = 200, description = "The lines", content((String = "application/x-ndjson"), (String = "text/csv"))),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn export(State(app): State<App>, Asked(asked): Asked<ExportQuery>) -> Result<Response, Problem> {
    let query = parse(&asked.q)?;
    let reader = app.archive.reader().await?;
    let format = asked.format.unwrap_or_default();
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(2);
    tokio::spawn(async move {
        if format == ExportFormat::Csv {
            sender
                .send(Ok(Bytes::from_static(CSV_HEAD.as_bytes())))
                .await
                .ok();
        }
        let mut place = Place::Newest;
        let mut left = EXPORTED;
        while left > 0 {
            let page = reader
                .page(&query, place, MOST)
                .await
                .map_err(std::io::Error::other);
            let (rows, older) = match page {
                Ok(page) => (page.rows, page.older),
                Err(error) => {
                    // The connection breaks, so that nobody takes half for the whole.
                    sender.send(Err(error)).await.ok();
                    return;
                }
            };
            let text: String = rows
                .into_iter()
                .take(left)
                .map(|row| written(Line::from(row), format))
                .collect();
            left = left.saturating_sub(MOST as usize);
            if sender.send(Ok(Bytes::from(text))).await.is_err() {
                return;
            }
            let Some(older) = older else { return };
            place = Place::Before(older);
        }
    });
    let (kind, name) = match format {
        ExportFormat::Ndjson => ("application/x-ndjson", "attachment; filename=\"logs.ndjson\""),
        ExportFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"logs.csv\""),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(name)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

const CSV_HEAD: &str = "time,level,service,broker,client_id,event,body,attributes\r\n";

fn written(line: Line, format: ExportFormat) -> String {
    if format == ExportFormat::Ndjson {
        let json = serde_json::to_string(&line).expect("wire types are plain data");
        return format!("{json}\n");
    }
    let attributes = line.attributes.map(|value| value.to_string());
    let cells = [
        Some(line.time),
        Some(line.severity_text),
        Some(line.service),
        line.broker,
        line.client_id,
        line.event_name,
        Some(line.body),
        attributes,
    ];
    let cells: Vec<String> = cells
        .iter()
        .map(|text| cell(text.as_deref().unwrap_or_default()))
        .collect();
    format!("{}\r\n", cells.join(","))
}

/// A cell of CSV (RFC 4180). Spreadsheets take some texts for formulas; an apostrophe in front keeps them texts.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = text.replace('"', "\"\"");
    format!("\"{}{quoted}\"", if is_formula { "'" } else { "" })
}

/// Which lines are followed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TailQuery {
    /// The query; every line if empty.
    #[serde(default)]
    q: String,
}

/// New log lines as they are stored, as server-sent events
///
/// `logs` with at most 200 lines at most four times a second, the oldest first; `gap` with a count where there were more;
/// `tick` every 5 s.
#[utoipa::path(get, path = "/api/v1/logs/tail", tag = "logs", params(TailQuery), responses(
    (status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There is no database, or there are too many streams", body = Problem, content_type = "application/problem+json"),
))]
pub async fn tail(State(app): State<App>, Asked(asked): Asked<TailQuery>) -> Result<Response, Problem> {
    let query = parse(&asked.q)?;
    let reader = app.archive.reader().await?;
    let Ok(permit) = Arc::clone(&app.feed.streams).try_acquire_owned() else {
        Counters::add(&app.counters.refused);
        let detail = format!("There are {} event streams already.", app.feed.max_streams);
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let begin = reader.last_observed().await.map_err(|error| failed(&error))?;
    let (sender, receiver) = mpsc::channel(1);
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let closed = sender.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = closed.closed() => {}
            () = follow(&app, &query, begin, &sender) => {}
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).into_response())
}

type Told = Result<Event, std::convert::Infallible>;

/// Sends what is new until nobody reads. A slow reader holds nobody up: it is told later, and of more than fits only the
/// newest lines, and how many were left out.
async fn follow(app: &App, query: &Query, begin: i64, sender: &mpsc::Sender<Told>) {
    let mut seen = begin;
    let mut looks = interval(BATCH_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = interval(TICK_EVERY);
    loop {
        let told = tokio::select! {
            _ = looks.tick() => {
                let (lines, dropped) = match newest(app, query, &mut seen).await {
                    Ok(news) => news,
                    Err(problem) => {
                        let event = Event::default().event("trouble").data(json!({ "detail": problem.detail }).to_string());
                        sender.send(Ok(event)).await.ok();
                        return;
                    }
                };
                if dropped > 0 {
                    let event = Event::default().event("gap").data(json!({ "missed": dropped }).to_string());
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                if lines.is_empty() {
                    continue;
                }
                let lines: Vec<Line> = lines.into_iter().map(Line::from).collect();
                let data = serde_json::to_string(&lines).expect("wire types are plain data");
                Event::default().event("logs").data(data)
            }
            _ = ticks.tick() => Event::default().event("tick").data(json!({ "at": Timestamp::now() }).to_string()),
        };
        if sender.send(Ok(told)).await.is_err() {
            return;
        }
    }
}

/// The newest lines that were stored after `seen`, and how many older ones were left out.
async fn newest(app: &App, query: &Query, seen: &mut i64) -> Result<(Vec<LogRow>, usize), Problem> {
    let reader = app.archive.reader().await?;
    let mut lines: Vec<LogRow> = Vec::new();
    let mut dropped = 0;
    // Each call covers some batches; the last one is known by coming back with nothing new.
    for _ in 0..64 {
        let (more, until) = reader
            .news(query, *seen, 10 * BATCH)
            .await
            .map_err(|error| failed(&error))?;
        if until == *seen {
            break;
        }
        *seen = until;
        lines.extend(more);
        let over = lines.len().saturating_sub(BATCH as usize);
        dropped += over;
        lines.drain(..over);
    }
    Ok((lines, dropped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_finds_no_formula() {
        assert_eq!(
            cell("plain \"text\", and more"),
            "\"plain \"\"text\"\", and more\""
        );
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"] {
            assert_eq!(cell(text), format!("\"'{text}\""));
        }
    }

    #[test]
    fn a_wrong_query_is_refused() {
        assert!(parse("broker:broker1 level>=warn since:10m").is_ok());
        assert_eq!(parse("level>=loud").unwrap_err().status, 400);
    }
}
