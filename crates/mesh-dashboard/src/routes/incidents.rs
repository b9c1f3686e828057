//! Incidents: page by page, one by one, and as a report to hand on.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::Write;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesh_model::{BrokerId, Incident, IncidentKind};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{App, Asked, Named, bounded, fresh, not_known_yet};
use crate::problem::Problem;
use crate::wire::IncidentPage;

/// Incidents a page if nobody asks for another number, and at most.
const USUAL: u32 = 50;
const MOST: u32 = 200;

/// Which page of incidents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Incidents, newest first
///
/// Those that mesh-health remembers, as it tells them, and older ones from the database; all of them from there while
/// mesh-health is away.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "incidents", params(PageQuery), responses(
    (status = 200, description = "One page", body = IncidentPage),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "There is no incident `after`", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "mesh-health never answered, and there is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(app): State<App>, Asked(query): Asked<PageQuery>) -> Result<Response, Problem> {
    let limit = bounded(query.limit, USUAL, MOST)?;
    let told = app.feed.incidents();
    let before = match &query.after {
        Some(after) => Some(find(&app, after).await?),
        None => None,
    };
    // Some of those in the database are told by mesh-health too; with as many more, none is missed.
    let wanted = limit
        + 1
        + told
            .as_ref()
            .map_or(0, |told| u32::try_from(told.len()).unwrap_or(u32::MAX));
    let stored = app
        .archive
        .read(async |reader| reader.incidents(before.as_ref(), wanted).await)
        .await;
    let (stored, archive_error) = match stored {
        Ok(stored) => (stored, None),
        Err(problem) if told.is_some() => (Vec::new(), Some(problem.detail)),
        Err(problem) => return Err(neither(&app, &problem)),
    };
    let mut incidents = merged(told.unwrap_or_default(), stored, before.as_ref());
    let has_more = incidents.len() > limit as usize;
    incidents.truncate(limit as usize);
    let next = incidents
        .last()
        .filter(|_| has_more)
        .map(|incident| incident.id.clone());
    Ok(fresh(&IncidentPage {
        incidents,
        is_live: app.feed.now().state.health.reachable,
        archive_error,
        next,
    }))
}

/// All incidents after `before`, newest first. mesh-health knows best; the database is a little behind.
fn merged(told: Vec<Incident>, stored: Vec<Incident>, before: Option<&Incident>) -> Vec<Incident> {
    let mut all = told;
    let known: HashSet<String> = all.iter().map(|incident| incident.id.clone()).collect();
    all.extend(
        stored
            .into_iter()
            .filter(|incident| !known.contains(&incident.id)),
    );
    let key = |incident: &Incident| (incident.began_at, incident.id.clone());
    all.retain(|incident| before.is_none_or(|before| key(incident) < key(before)));
    all.sort_by_key(|incident| Reverse(key(incident)));
    all
}

/// The incident `id`, from mesh-health or else from the database.
async fn find(app: &App, id: &str) -> Result<Incident, Problem> {
    let told = app.feed.incidents();
    let found = told.iter().flatten().find(|incident| incident.id == id);
    if let Some(incident) = found {
        return Ok(incident.clone());
    }
    match app.archive.read(async |reader| reader.incident(id).await).await {
        Ok(Some(incident)) => Ok(incident),
        Ok(None) => Err(unknown(id)),
        Err(_) if told.is_some() => Err(unknown(id)),
        Err(problem) => Err(neither(app, &problem)),
    }
}

/// What is answered if both are away that could tell.
fn neither(app: &App, archive: &Problem) -> Problem {
    let health = not_known_yet(app);
    let detail = format!("{}; and {}", health.detail.trim_end_matches('.'), archive.detail);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
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
        (status = 503, description = "mesh-health never answered, and there is no database", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn one(
    State(app): State<App>,
    Named(id): Named,
    Asked(query): Asked<FormatQuery>,
) -> Result<Response, Problem> {
    let incident = find(&app, &id).await?;
    Ok(match query.format.unwrap_or_default() {
        Format::Json => fresh(&incident),
        Format::Markdown => {
            let kind = HeaderValue::from_static("text/markdown; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], report(&incident)).into_response()
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

    fn began(id: &str, at: &str) -> Incident {
        let text = format!(
            r#"{{"id":"{id}","kind":"balancer","broker":null,"from":null,"to":null,"generation":null,"reason":null,
            "began_at":"2026-11-23T03:00:{at}Z","ended_at":null,"phases":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_mesh_health_tells_comes_before_what_is_stored_of_it() {
        let told = vec![began("d", "40"), began("c", "30")];
        let mut old = began("c", "30");
        old.reason = Some("an older one".to_owned());
        let stored = vec![old, began("b", "20"), began("a", "10")];
        let all = merged(told.clone(), stored.clone(), None);
        let ids: Vec<&str> = all.iter().map(|incident| incident.id.as_str()).collect();
        assert_eq!(ids, ["d", "c", "b", "a"]);
        assert_eq!(all[1].reason, None);
        let rest = merged(told, stored, Some(&began("c", "30")));
        assert_eq!(rest.len(), 2, "a page goes on after the last of the page before");
    }

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
