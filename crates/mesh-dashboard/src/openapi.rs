//! The description of the API, written from the code that serves it.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

use crate::problem::Problem;
use crate::routes::{actions, availability, clients, events, flow, incidents, live, logs};
use crate::wire;

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "mesh-dashboard",
        description = "What the page at :3000 knows. Unknown is null, never 0. Times are RFC 3339 in UTC. Errors are \
                       problem documents (RFC 9457)."
    ),
    paths(
        live::status,
        live::broker,
        live::links,
        live::history,
        events::events,
        incidents::list,
        incidents::one,
        availability::availability,
        clients::list,
        clients::one,
        logs::list,
        logs::context,
        logs::counts::histogram,
        logs::counts::facets,
        logs::export::export,
        actions::drain,
        actions::enable,
        actions::failback,
        flow::send,
    ),
    components(schemas(Problem, wire::Numbered))
)]
pub struct Document;

/// The description of this API, in OpenAPI 3.1.
pub async fn document() -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match Document::openapi().to_json() {
        Ok(json) => ([kind], json).into_response(),
        Err(error) => {
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, format!("The description cannot be written: {error}")).into_response()
        }
    }
}
