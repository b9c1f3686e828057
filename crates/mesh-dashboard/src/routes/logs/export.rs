//! Log lines to take away, as NDJSON or CSV.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mesh_store::reader::Place;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};

use super::super::{App, Asked};
use super::{Line, MOST, parse};
use crate::problem::Problem;

/// Lines of one export.
const EXPORTED: usize = 100_000;

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
}
