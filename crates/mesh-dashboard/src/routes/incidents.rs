//! Incidents: page by page, one by one, and as a report to hand on.

use std::fmt::Write;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesh_model::{BrokerId, Incident, IncidentKind};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{App, Asked, Named, fresh, not_known_yet};
use crate::problem::Problem;
use crate::wire::IncidentPage;

/// Incidents a page if nobody asks for another number, and at most.
const USUAL: usize = 50;
const MOST: usize = 200;

/// Which page of incidents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// Incidents, newest first
#[utoipa::path(get, path = "/api/v1/incidents", tag = "incidents", params(PageQuery), responses(
    (status = 200, description = "One page", body = IncidentPage),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "There is no incident `after`", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "mesh-health never answered", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(app): State<App>, Asked(query): Asked<PageQuery>) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        let detail = format!("`limit` must be 1 to {MOST}.");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let all = app.feed.incidents().ok_or_else(|| not_known_yet(&app))?;
    let first = match &query.after {
        None => 0,
        Some(after) => {
            1 + all
                .iter()
                .position(|incident| incident.id == *after)
                .ok_or_else(|| unknown(after))?
        }
    };
    let rest = all.get(first..).unwrap_or_default();
    let incidents: Vec<Incident> = rest.iter().take(limit).cloned().collect();
    let next = incidents
        .last()
        .filter(|_| rest.len() > limit)
        .map(|incident| incident.id.clone());
    Ok(fresh(&IncidentPage { incidents, next }))
}

/// The form of an incident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As it is.
    #[default]
    Json,
    /// A report for people.
    Markdown,
}

/// How an incident is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FormatQuery {
    /// `json` if not given.
    #[param(inline)]
    format: Option<Format>,
}

/// One incident
#[utoipa::path(get, path = "/api/v1/incidents/{id}", tag = "incidents",
    params(("id" = String, Path, description = "The incident's id"), FormatQuery),
    responses(
        (status = 200, description = "The incident", content(
            (Incident = "application/json"), (String = "text/markdown"),
        )),
        (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such incident", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "mesh-health never answered", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn one(
    State(app): State<App>,
    Named(id): Named,
    Asked(query): Asked<FormatQuery>,
) -> Result<Response, Problem> {
    let all = app.feed.incidents().ok_or_else(|| not_known_yet(&app))?;
    let incident = all
        .iter()
        .find(|incident| incident.id == id)
        .ok_or_else(|| unknown(&id))?;
    Ok(match query.format.unwrap_or_default() {
        Format::Json => fresh(incident),
        Format::Markdown => {
            let kind = HeaderValue::from_static("text/markdown; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], report(incident)).into_response()
        }
    })
}

fn unknown(id: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("There is no incident {id:?}; the oldest are forgotten."),
    )
}

/// An incident as a report. Its texts come from programs that are not ours, so nothing in them is markup.
fn report(incident: &Incident) -> String {
    let mut text = format!("# Incident {}: {}\n\n", plain(&incident.id), subject(incident));
    let mut line = |name: &str, value: &str| text += &format!("- {name}: {value}\n");
    line("began", &incident.began_at.to_string());
    line(
        "ended",
        &incident
            .ended_at
            .map_or("not yet".to_owned(), |end| end.to_string()),
    );
    line(
        "reason",
        &incident.reason.as_deref().map_or("–".to_owned(), plain),
    );
    if let (IncidentKind::Broker, Some(to)) = (incident.kind, &incident.to) {
        line("clients were sent to", to.as_str());
    }
    if let Some(generation) = incident.generation {
        line("plan", &generation.to_string());
    }
    text += "\n| step | after ms | at |\n|---|---:|---|\n";
    for step in &incident.phases {
        writeln!(text, "| {} | {:.1} | {} |", step.phase, step.elapsed_ms, step.at).ok();
    }
    text
}

/// What failed.
fn subject(incident: &Incident) -> String {
    let id = |id: &Option<BrokerId>| id.as_ref().map_or("?", BrokerId::as_str).to_owned();
    match incident.kind {
        IncidentKind::Broker => id(&incident.broker),
        IncidentKind::Link => format!("link {} → {}", id(&incident.from), id(&incident.to)),
        IncidentKind::Balancer => "balancer".to_owned(),
    }
}

/// Markdown's special characters, escaped.
fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => escaped.push(' '),
            c if c.is_ascii_punctuation()
                && !matches!(c, ',' | '.' | ':' | ';' | '/' | '\'' | '"' | '%' | '?' | '-') =>
            {
                escaped.extend(['\\', c]);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_readable_and_nothing_in_it_is_markup() {
        let incident: Incident = serde_json::from_str(
            r#"{"id":"i-1","kind":"broker","broker":"broker1","from":null,"to":"broker2","generation":3,"reason":"<b>refused</b> | [x](y)",
            "began_at":"2026-11-23T03:00:00Z","ended_at":null,
            "phases":[{"phase":"first_sign","at":"2026-11-23T03:00:00Z","elapsed_ms":0.0},
            {"phase":"confirmed","at":"2026-11-23T03:00:00.012Z","elapsed_ms":12.04}]}"#,
        )
        .unwrap();
        let report = report(&incident);
        assert!(report.starts_with("# Incident i-1: broker1\n"), "{report}");
        assert!(
            report.contains("| confirmed | 12.0 | 2026-11-23T03:00:00.012Z |"),
            "{report}"
        );
        assert!(report.contains(r"\<b\>refused\</b\> \| \[x\]\(y\)"), "{report}");
        assert!(report.contains("- ended: not yet"), "{report}");
    }
}
