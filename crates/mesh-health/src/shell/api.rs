//! What others may ask over HTTP. It holds the latest snapshot and subscribes to events; what an operator asks for
//! it hands to the one owner of the core, and passes on the answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use mesh_model::{AdminState, BrokerId, HealthStatus, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::driver::{Ask, Outlets};
use super::guard::{self, Guard};
use super::happenings::{Following, Numbered};
use super::metrics;
use crate::core::{self, Granted, Refusal};

/// The most event streams at a time.
const MAX_STREAMS: usize = 64;

/// Time between two `tick` events.
const TICK_EVERY: Duration = Duration::from_secs(5);

/// A loop that has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// Who does not read this many events is told what was missed.
const STREAM_BUFFER: usize = 16;

#[derive(Debug, Clone)]
struct Api {
    outlets: Outlets,
    asks: mpsc::Sender<Ask>,
    clock: Clock,
    streams: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// The routes, for whom `guard` lets in. Event streams end on `shutdown`.
pub fn router(
    guard: Guard,
    outlets: Outlets,
    asks: mpsc::Sender<Ask>,
    clock: Clock,
    shutdown: CancellationToken,
) -> Router {
    let api = Api {
        outlets,
        asks,
        clock,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        shutdown,
    };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/incidents", get(incidents))
        .route("/v1/incidents/{id}", get(incident))
        .route("/v1/brokers/{id}/{wish}", post(wish))
        .route("/v1/failback", post(failback))
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(api)
        .layer(middleware::from_fn_with_state(guard, guard::guard))
}

async fn status(State(api): State<Api>) -> Response {
    let snapshot = Arc::clone(&api.outlets.snapshots.borrow());
    ([(header::CACHE_CONTROL, "no-store")], Json(&*snapshot)).into_response()
}

async fn incidents(State(api): State<Api>) -> Response {
    let incidents = Arc::clone(&api.outlets.incidents.borrow());
    ([(header::CACHE_CONTROL, "no-store")], Json(&*incidents)).into_response()
}

async fn incident(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let incidents = Arc::clone(&api.outlets.incidents.borrow());
    match incidents.incidents.iter().find(|incident| incident.id == id) {
        Some(incident) => ([(header::CACHE_CONTROL, "no-store")], Json(incident)).into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("There is no incident {id:?}.")),
    }
}

/// Whether a wish is fulfilled though nobody else can serve: `?force` or `?force=true`.
#[derive(Debug, Deserialize)]
struct Force {
    force: Option<String>,
}

async fn wish(
    State(api): State<Api>,
    Path((id, wish)): Path<(String, String)>,
    Query(force): Query<Force>,
    request: Request,
) -> Response {
    let wanted = match wish.as_str() {
        "enable" => AdminState::Enabled,
        "drain" => AdminState::Draining,
        "disable" => AdminState::Disabled,
        _ => return unknown_path(request).await,
    };
    let Ok(broker) = id.parse::<BrokerId>() else {
        return problem(StatusCode::NOT_FOUND, &format!("There is no broker {id:?}."));
    };
    let force = force
        .force
        .is_some_and(|value| value.is_empty() || value == "true");
    let request = core::Request::Admin {
        broker,
        wanted,
        force,
    };
    ask(&api, request).await
}

async fn failback(State(api): State<Api>) -> Response {
    ask(&api, core::Request::Failback).await
}

async fn ask(api: &Api, request: core::Request) -> Response {
    let (reply, answer) = oneshot::channel();
    let asked = api.asks.send(Ask { request, reply }).await.is_ok();
    match answer.await {
        Ok(Ok(Granted::Admin { broker, admin })) => {
            Json(json!({ "broker": broker, "admin": admin })).into_response()
        }
        Ok(Ok(Granted::Failback { from, to, generation })) => {
            Json(json!({ "from": from, "to": to, "generation": generation })).into_response()
        }
        Ok(Err(refusal)) => {
            let status = match refusal {
                Refusal::UnknownBroker(_) => StatusCode::NOT_FOUND,
                _ => StatusCode::CONFLICT,
            };
            problem(status, &refusal.to_string())
        }
        Err(_) => {
            tracing::debug!(asked, "a request came at the end");
            problem(StatusCode::SERVICE_UNAVAILABLE, "mesh-health is about to end.")
        }
    }
}

async fn show_metrics(State(api): State<Api>) -> Response {
    let snapshot = Arc::clone(&api.outlets.snapshots.borrow());
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], metrics::render(&snapshot, &api.outlets.counters)).into_response()
}

async fn healthz(State(api): State<Api>) -> Response {
    let beat = Duration::from_millis(api.outlets.counters.beat_ms.load(Ordering::Relaxed));
    let still = api.clock.now().elapsed().saturating_sub(beat);
    let snapshot = Arc::clone(&api.outlets.snapshots.borrow());
    match unready(&snapshot, still) {
        None => "ok\n".into_response(),
        Some(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// Why the daemon cannot be relied on, in a sentence.
fn unready(snapshot: &Snapshot, still: Duration) -> Option<String> {
    if still > STUCK_AFTER {
        return Some(format!(
            "The core has not turned for {:.1} s.",
            still.as_secs_f64()
        ));
    }
    let unknown = snapshot
        .brokers
        .iter()
        .filter(|b| b.health == HealthStatus::Unknown);
    let unknown: Vec<&str> = unknown.map(|broker| broker.id.as_str()).collect();
    (!unknown.is_empty()).then(|| format!("There is no verdict yet on {}.", unknown.join(", ")))
}

async fn events(State(api): State<Api>, headers: HeaderMap) -> Response {
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        let reason = format!("There are {MAX_STREAMS} event streams already.");
        return problem(StatusCode::SERVICE_UNAVAILABLE, &reason);
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    // Followed before the state is looked at, so that nothing falls between the two.
    let following = api.outlets.events.follow(last);
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    tokio::spawn(feed(api, following, sender, permit));
    Sse::new(ReceiverStream::new(receiver)).into_response()
}

type Line = Result<sse::Event, Infallible>;

/// Writes one stream until its reader leaves or the program ends.
async fn feed(api: Api, following: Following, sender: mpsc::Sender<Line>, _permit: OwnedSemaphorePermit) {
    let events = &api.outlets.events;
    let snapshot = Arc::clone(&api.outlets.snapshots.borrow());
    let line_of = |numbered: &Numbered| {
        named(numbered.event.name.as_str(), &numbered.event).id(events.id(numbered.number))
    };
    let Following {
        after,
        missed,
        since,
        mut live,
    } = following;
    // Who is cut off before the first event comes back with this id.
    let mut ready = VecDeque::from([named("status", &*snapshot).id(events.id(after))]);
    ready.extend((missed > 0).then(|| left_out(missed)));
    ready.extend(since.iter().map(|numbered| line_of(numbered)));
    let mut ticks = interval(TICK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let next = match ready.pop_front() {
            Some(line) => line,
            None => tokio::select! {
                () = api.shutdown.cancelled() => return,
                () = sender.closed() => return,
                _ = ticks.tick() => named("tick", &json!({ "at": jiff::Timestamp::now() })),
                received = live.recv() => match received {
                    Ok(numbered) => line_of(&numbered),
                    Err(RecvError::Lagged(missed)) => left_out(missed),
                    Err(RecvError::Closed) => return,
                },
            },
        };
        let sent = tokio::select! {
            () = api.shutdown.cancelled() => return,
            sent = sender.send(Ok(next)) => sent,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn left_out(events: u64) -> sse::Event {
    named("missed", &json!({ "missed": events }))
}

fn named(name: &str, data: &impl Serialize) -> sse::Event {
    let data = serde_json::to_string(data).expect("wire types are plain data");
    sse::Event::default().event(name).data(data)
}

async fn unknown_path(request: Request) -> Response {
    let reason = format!("There is nothing at {}.", request.uri().path());
    problem(StatusCode::NOT_FOUND, &reason)
}

async fn unknown_method(request: Request) -> Response {
    let reason = format!("{} cannot be used here.", request.method());
    problem(StatusCode::METHOD_NOT_ALLOWED, &reason)
}

/// An RFC 9457 problem document.
pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = (status, Json(body)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
