//! What is known now, and of the last minutes.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{App, Named, fresh, not_known_yet};
use crate::problem::Problem;
use crate::wire::{self, BrokerDetail, History, LinkList};

/// Everything that is known now
#[utoipa::path(get, path = "/api/v1/status", tag = "live", responses(
    (status = 200, description = "The state; it says how old it is", body = wire::State),
))]
pub async fn status(State(app): State<App>) -> Response {
    fresh(&app.feed.now().state)
}

/// One broker with its links
#[utoipa::path(get, path = "/api/v1/brokers/{id}", tag = "live",
    params(("id" = String, Path, description = "The broker's id")),
    responses(
        (status = 200, description = "The broker", body = BrokerDetail),
        (status = 404, description = "There is no such broker", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "mesh-health never answered", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn broker(State(app): State<App>, Named(id): Named) -> Result<Response, Problem> {
    let now = app.feed.now();
    let snapshot = now.state.snapshot.as_ref().ok_or_else(|| not_known_yet(&app))?;
    let broker = snapshot.brokers.iter().find(|broker| broker.id.as_str() == id);
    let broker =
        broker.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("There is no broker {id:?}.")))?;
    let links = || snapshot.links.iter();
    let incidents = app.feed.incidents().unwrap_or_default();
    Ok(fresh(&BrokerDetail {
        at: snapshot.at,
        broker: broker.clone(),
        links_in: links().filter(|link| link.to == broker.id).cloned().collect(),
        links_out: links().filter(|link| link.from == broker.id).cloned().collect(),
        incident: incidents
            .into_iter()
            .find(|incident| incident.broker.as_ref() == Some(&broker.id)),
    }))
}

/// Every link
#[utoipa::path(get, path = "/api/v1/links", tag = "live", responses(
    (status = 200, description = "The links", body = LinkList),
    (status = 503, description = "mesh-health never answered", body = Problem, content_type = "application/problem+json"),
))]
pub async fn links(State(app): State<App>) -> Result<Response, Problem> {
    let now = app.feed.now();
    let snapshot = now.state.snapshot.as_ref().ok_or_else(|| not_known_yet(&app))?;
    Ok(fresh(&LinkList {
        at: snapshot.at,
        links: snapshot.links.clone(),
    }))
}

/// The last 15 minutes, in columns
///
/// A row every 5 s, and one whenever a word changed. Empty after a start.
#[utoipa::path(get, path = "/api/v1/history", tag = "live", responses(
    (status = 200, description = "The last minutes", body = History),
))]
pub async fn history(State(app): State<App>) -> Response {
    fresh(&app.feed.history())
}
