//! Every path, and what they share.

pub mod actions;
pub mod availability;
pub mod clients;
pub mod events;
pub mod flow;
mod follow;
pub mod incidents;
pub mod live;
pub mod logs;
pub mod pages;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use mesh_model::BrokerId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;

use crate::archive::Archive;
use crate::assets::Assets;
use crate::feed::Feed;
use crate::feed::upstream::Upstream;
use crate::metrics::Counters;
use crate::problem::Problem;
use crate::security::{self, Guard};
use flow::Flow;

/// The most bytes of a body: nothing longer than a token is sent here.
const MAX_BODY: usize = 4096;

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct App {
    /// What is known.
    pub feed: Arc<Feed>,
    /// The way to mesh-health.
    pub upstream: Upstream,
    /// The way to the database.
    pub archive: Arc<Archive>,
    /// The brokers, in order of priority.
    pub brokers: Arc<[BrokerId]>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// The page's files.
    pub assets: Arc<Assets>,
    /// Sends test messages.
    pub flow: Arc<Flow>,
    /// Event streams end on it.
    pub shutdown: CancellationToken,
}

/// The routes, behind `guard`.
pub fn router(app: App, guard: Guard) -> Router {
    Router::new()
        .route("/api/v1/status", get(live::status))
        .route("/api/v1/brokers/{id}", get(live::broker))
        .route("/api/v1/links", get(live::links))
        .route("/api/v1/history", get(live::history))
        .route("/api/v1/incidents", get(incidents::list))
        .route("/api/v1/incidents/{id}", get(incidents::one))
        .route("/api/v1/availability", get(availability::availability))
        .route("/api/v1/clients", get(clients::list))
        .route("/api/v1/clients/{id}", get(clients::one))
        .route("/api/v1/logs", get(logs::list))
        .route("/api/v1/logs/{id}/context", get(logs::context))
        .route("/api/v1/logs/histogram", get(logs::counts::histogram))
        .route("/api/v1/logs/facets", get(logs::counts::facets))
        .route("/api/v1/logs/export", get(logs::export::export))
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/brokers/{id}/drain", post(actions::drain))
        .route("/api/v1/brokers/{id}/enable", post(actions::enable))
        .route("/api/v1/failback", post(actions::failback))
        .route("/api/v1/flow", post(flow::send))
        .route("/api/v1/openapi.json", get(crate::openapi::document))
        .route("/metrics", get(pages::metrics))
        .route("/healthz", get(pages::healthz))
        .route("/login", get(pages::shell).post(pages::login))
        .route("/assets/{version}/{*path}", get(pages::asset))
        .route("/", get(pages::shell))
        .route("/brokers/{id}", get(pages::shell))
        .route("/incidents", get(pages::shell))
        .route("/incidents/{id}", get(pages::shell))
        .route("/clients", get(pages::shell))
        .route("/clients/{id}", get(pages::shell))
        .route("/logs", get(pages::shell))
        .route("/flow", get(pages::shell))
        .route("/api", get(pages::shell))
        .fallback(pages::unknown)
        .method_not_allowed_fallback(pages::unknown_method)
        .with_state(app)
        .layer(Extension(guard.clone()))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // It leaves event streams, and what is compressed already, as they are.
        .layer(CompressionLayer::new())
        .layer(from_fn_with_state(guard, security::guard))
}

/// A query whose mistakes are answered with a problem document.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(wrong) => Err(Problem::new(StatusCode::BAD_REQUEST, wrong.body_text())),
        }
    }
}

/// A part of the path whose mistakes are answered with a problem document.
#[derive(Debug)]
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(wrong) => Err(Problem::new(StatusCode::BAD_REQUEST, wrong.body_text())),
        }
    }
}

/// The `limit` that was asked for, `usual` if none was, at most `most`.
fn bounded(limit: Option<u32>, usual: u32, most: u32) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(usual);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    let detail = format!("The number asked for must be 1 to {most}.");
    Err(Problem::new(StatusCode::BAD_REQUEST, detail))
}

/// `value` as JSON that nobody keeps.
fn fresh(value: &impl Serialize) -> Response {
    let mut response = Json(value).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is answered for data that mesh-health has never told.
fn not_known_yet(app: &App) -> Problem {
    let state = app.feed.now();
    let error = state.state.health.error.clone();
    let detail = error.unwrap_or_else(|| "mesh-health has not told this yet.".to_owned());
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}
