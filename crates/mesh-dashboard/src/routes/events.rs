//! `GET /api/v1/events`: the state and what happens, as server-sent events.
//!
//! | event | when | data |
//! |---|---|---|
//! | `state` | at once, then when there is a new one, at most four a second | as `/api/v1/status` |
//! | `event` | when something happens | [`Numbered`](crate::wire::Numbered) |
//! | `gap` | the reader is too slow | how many events it missed |
//! | `reset` | the reader comes back and what it missed is no longer known | why it should begin anew |
//! | `tick` | every 5 s | the time |
//!
//! Ids are `epoch.seq`. Who comes back with `Last-Event-ID` gets the events it missed, then the state.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;

use super::App;
use crate::feed::{Feed, Missed, Published};
use crate::metrics::Counters;
use crate::problem::Problem;
use crate::wire::Numbered;

/// Time between two `tick` events.
const TICK_EVERY: Duration = Duration::from_secs(5);

/// What a slow reader may have waiting; the state is not repeated meanwhile, only the last one comes.
const BUFFER: usize = 4;

/// The state and what happens, as server-sent events
///
/// `state` at most four times a second, `event` when something happens, `tick` every 5 s; `gap` and `reset` where a
/// reader missed something. Ids are `epoch.seq`; `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/api/v1/events", tag = "live",
    params(("last-event-id" = Option<String>, Header, description = "The last id that was seen")),
    responses(
        (status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"),
        (status = 503, description = "There are too many streams", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn events(State(app): State<App>, headers: HeaderMap) -> Response {
    let Ok(permit) = Arc::clone(&app.feed.streams).try_acquire_owned() else {
        Counters::add(&app.counters.refused);
        let detail = format!("There are {} event streams already.", app.feed.max_streams);
        let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
        let later = HeaderValue::from_static("5");
        response.headers_mut().insert(header::RETRY_AFTER, later);
        return response;
    };
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let (sender, receiver) = mpsc::channel(BUFFER);
    let stream = Stream { app, sender };
    tokio::spawn(stream.run(last.map(str::to_owned), permit));
    Sse::new(ReceiverStream::new(receiver)).into_response()
}

struct Stream {
    app: App,
    sender: mpsc::Sender<Result<Event, Infallible>>,
}

impl Stream {
    /// Writes until the reader leaves or the program ends.
    async fn run(self, last: Option<String>, _permit: OwnedSemaphorePermit) {
        let shutdown = self.app.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.sender.closed() => {}
            _left = self.write(last) => {}
        }
    }

    /// Completes when nobody reads any more.
    async fn write(&self, last: Option<String>) -> Option<()> {
        let feed = &self.app.feed;
        // Subscribed before the past is looked at, so that nothing falls between the two.
        let mut events = feed.events.subscribe();
        let mut states = feed.states.subscribe();
        let mut seen = 0;
        if let Some((epoch, seq)) = last.as_deref().and_then(parse_id) {
            match feed.missed(epoch, seq) {
                Missed::Events(missed) => {
                    for event in missed {
                        seen = event.seq;
                        self.send(event_of(feed, &event)).await?;
                    }
                }
                Missed::Unknown => {
                    let why = json!({ "reason": "what came after the last id is no longer known" });
                    self.send(named(feed, "reset", &why.to_string(), None)).await?;
                }
            }
        }
        let first = Arc::clone(&states.borrow_and_update());
        self.send(state_of(feed, &first)).await?;
        let mut ticks = interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let next = tokio::select! {
                biased;
                received = events.recv() => match received {
                    Ok(event) if event.seq <= seen => continue,
                    Ok(event) => event_of(feed, &event),
                    Err(RecvError::Lagged(missed)) => {
                        self.app.counters.missed.fetch_add(missed, Ordering::Relaxed);
                        named(feed, "gap", &json!({ "missed": missed }).to_string(), None)
                    }
                    Err(RecvError::Closed) => return None,
                },
                changed = states.changed() => {
                    changed.ok()?;
                    let state = Arc::clone(&states.borrow_and_update());
                    state_of(feed, &state)
                }
                _ = ticks.tick() => {
                    let at = json!({ "at": jiff::Timestamp::now() });
                    named(feed, "tick", &at.to_string(), None)
                }
            };
            self.send(next).await?;
        }
    }

    async fn send(&self, event: Event) -> Option<()> {
        self.sender.send(Ok(event)).await.ok()
    }
}

fn state_of(feed: &Feed, published: &Published) -> Event {
    named(feed, "state", &published.json, Some(published.seq))
}

fn event_of(feed: &Feed, numbered: &Numbered) -> Event {
    let data = serde_json::to_string(numbered).expect("wire types are plain data");
    named(feed, "event", &data, Some(numbered.seq))
}

fn named(feed: &Feed, name: &str, data: &str, seq: Option<u64>) -> Event {
    let event = Event::default().event(name).data(data);
    match seq {
        Some(seq) => event.id(format!("{}.{seq}", feed.epoch)),
        None => event,
    }
}

/// The epoch and number of an id. What is no id of ours is as good as none.
fn parse_id(id: &str) -> Option<(&str, u64)> {
    let (epoch, seq) = id.split_once('.')?;
    Some((epoch, seq.parse().ok()?))
}
