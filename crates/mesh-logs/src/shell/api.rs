//! `GET /healthz` and `GET /metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use mesh_store::Trouble;
use serde_json::json;

use super::metrics;
use super::status::Status;

/// For so long nothing may be stored before that is called unhealthy.
const PATIENCE: Duration = Duration::from_secs(2);

/// The routes.
pub fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(show_metrics))
        .with_state(status)
}

async fn healthz(State(status): State<Arc<Status>>) -> Response {
    let Some(stall) = status.stall().filter(|stall| stall.since.elapsed() >= PATIENCE) else {
        return "ok\n".into_response();
    };
    let seconds = stall.since.elapsed().as_secs();
    let detail = match stall.trouble {
        Trouble::Slow => format!("The database has been slow for {seconds} s, and sources wait for it."),
        _ => format!(
            "Lines have not been stored for {seconds} s, and sources wait: {}.",
            stall.error
        ),
    };
    let body = json!({
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": detail,
        "trouble": stall.trouble.as_str(),
    });
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn show_metrics(State(status): State<Arc<Status>>) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], metrics::render(&status)).into_response()
}
