//! What an operator may do from the page. mesh-health decides; its answer is passed on as it is.

use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mesh_model::BrokerId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, Asked, Named};
use crate::problem::Problem;

/// Whether it is done though nobody else can serve.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Force {
    /// `true` to do it though no other broker can serve.
    #[serde(default)]
    force: bool,
}

/// What is wanted of a broker from now on.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminAnswer {
    /// The broker.
    broker: BrokerId,
    /// What is wanted of it.
    admin: mesh_model::AdminState,
}

/// Where clients are being sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailbackAnswer {
    /// The broker that they leave.
    from: BrokerId,
    /// The broker that they go to.
    to: BrokerId,
    /// The plan that does so.
    generation: u64,
}

/// A broker takes no new clients and hands over those it has
#[utoipa::path(post, path = "/api/v1/brokers/{id}/drain", tag = "actions",
    params(("id" = String, Path, description = "The broker's id"), Force,
        ("x-mesh-action" = String, Header, description = "Anything: other pages cannot set it")),
    responses(
        (status = 200, description = "It drains", body = AdminAnswer),
        (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The header is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such broker", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "mesh-health refuses, and says why", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "mesh-health does not answer", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn drain(State(app): State<App>, Named(id): Named, Asked(force): Asked<Force>) -> Response {
    wish(&app, &id, "drain", force.force).await
}

/// A broker may serve again
#[utoipa::path(post, path = "/api/v1/brokers/{id}/enable", tag = "actions",
    params(("id" = String, Path, description = "The broker's id"),
        ("x-mesh-action" = String, Header, description = "Anything: other pages cannot set it")),
    responses(
        (status = 200, description = "It may serve", body = AdminAnswer),
        (status = 403, description = "The header is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such broker", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "mesh-health refuses, and says why", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "mesh-health does not answer", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn enable(State(app): State<App>, Named(id): Named) -> Response {
    wish(&app, &id, "enable", false).await
}

/// Clients go back to the most preferred broker
#[utoipa::path(post, path = "/api/v1/failback", tag = "actions",
    params(("x-mesh-action" = String, Header, description = "Anything: other pages cannot set it")),
    responses(
        (status = 200, description = "They go", body = FailbackAnswer),
        (status = 403, description = "The header is missing", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "mesh-health refuses, and says why", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "mesh-health does not answer", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn failback(State(app): State<App>) -> Response {
    pass_on(&app, "/v1/failback").await
}

async fn wish(app: &App, id: &str, wish: &str, force: bool) -> Response {
    // What is no id cannot be the id of a broker, nor stand in a path.
    let Ok(id) = id.parse::<BrokerId>() else {
        return Problem::new(StatusCode::NOT_FOUND, format!("There is no broker {id:?}.")).into_response();
    };
    let force = if force { "?force=true" } else { "" };
    pass_on(app, &format!("/v1/brokers/{id}/{wish}{force}")).await
}

async fn pass_on(app: &App, path: &str) -> Response {
    match app.upstream.ask(Method::POST, path).await {
        Ok((status, body)) => {
            tracing::info!(path, status = status.as_u16(), "an operator asked from the page");
            let kind = if status.is_success() {
                "application/json"
            } else {
                "application/problem+json"
            };
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (status, headers, body).into_response()
        }
        Err(error) => Problem::new(StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
