//! `GET /api/v1/events`: the state, what happens and new log lines, as server-sent events.
//!
//! | event | when | data |
//! |---|---|---|
//! | `state` | at once, then when there is a new one, at most four a second | as `/api/v1/status` |
//! | `event` | when something happens | [`Numbered`](crate::wire::Numbered) |
//! | `logs` | when lines were stored that a `follow` asks for, at most 200 at a time, four times a second; at once without lines: from here on none is missed | [`LogBatch`] |
//! | `gap` | the reader is too slow, or there were more lines | `missed`: how many; `q`: of which query, if of lines |
//! | `reset` | the reader comes back and what it missed is no longer known | why it should begin anew |
//! | `tick` | every 5 s | the time |
//!
//! Ids are `epoch.seq`. Who comes back with `Last-Event-ID` gets what it missed, then the state. An id is sent when
//! everything before it was, so nothing is lost by a break; what was sent just before one may come twice, and has the
//! same number or line id then.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Query as Parameters, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use mesh_store::LogRow;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use super::App;
use super::follow::{self, Follow};
use super::logs::Line;
use crate::feed::Published;
use crate::metrics::Counters;
use crate::problem::Problem;

/// Time between two `tick` events.
const TICK_EVERY: Duration = Duration::from_secs(5);

/// What a slow reader may have waiting; the state is not repeated meanwhile, only the last one comes.
const BUFFER: usize = 4;

/// New lines that one `follow` asks for: the data of `logs`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogBatch<'a> {
    /// The query, as it was given.
    q: &'a str,
    /// The lines, the oldest first.
    rows: Vec<Line>,
}

/// The state, what happens and new log lines, as server-sent events
///
/// `state` at most four times a second, `event` when something happens, `logs` when lines were stored that a `follow` asks
/// for, `tick` every 5 s; `gap` and `reset` where a reader missed something. Ids are `epoch.seq`; `Last-Event-ID` resumes,
/// as does `after` where that header cannot be set.
#[utoipa::path(get, path = "/api/v1/events", tag = "live",
    params(
        ("last-event-id" = Option<String>, Header, description = "The last id that was seen"),
        ("after" = Option<String>, Query, description = "The last id that was seen, where the header cannot be set"),
        ("follow" = Option<Vec<String>>, Query, description = "A query for log lines; may be given 16 times; empty for every line"),
    ),
    responses(
        (status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A query is wrong; `at` and `length` say where", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There are too many streams", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn events(
    State(app): State<App>,
    Parameters(asked): Parameters<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (follows, after) = follow::parse(&asked)?;
    let Ok(permit) = Arc::clone(&app.feed.streams).try_acquire_owned() else {
        Counters::add(&app.counters.refused);
        let detail = format!("There are {} event streams already.", app.feed.max_streams);
        let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
        let later = HeaderValue::from_static("5");
        response.headers_mut().insert(header::RETRY_AFTER, later);
        return Ok(response);
    };
    // A browser that opens the same address again sets the header, which is then newer.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last = last.or(after).map(str::to_owned);
    let (sender, receiver) = mpsc::channel(BUFFER);
    let stream = Stream::new(app, follows, sender);
    tokio::spawn(stream.run(last, permit));
    Ok(Sse::new(ReceiverStream::new(receiver)).into_response())
}

struct Stream {
    app: App,
    follows: Vec<Follow>,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    /// The number up to which the reader has had everything, and how many events there were then.
    seen: u64,
    total: u64,
}

impl Stream {
    fn new(app: App, follows: Vec<Follow>, sender: mpsc::Sender<Result<Event, Infallible>>) -> Self {
        let now = app.feed.after(u64::MAX);
        Self {
            app,
            follows,
            sender,
            seen: now.seq,
            total: now.total,
        }
    }

    /// Writes until the reader leaves or the program ends.
    async fn run(self, last: Option<String>, _permit: OwnedSemaphorePermit) {
        let shutdown = self.app.shutdown.clone();
        let sender = self.sender.clone();
        let feed = Arc::clone(&self.app.feed);
        let _following = (!self.follows.is_empty()).then(|| Following::new(&feed.followers));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sender.closed() => {}
            _left = self.write(last) => {}
        }
    }

    /// Completes when nobody reads any more.
    async fn write(mut self, last: Option<String>) -> Option<()> {
        let feed = Arc::clone(&self.app.feed);
        let mut told = feed.told.subscribe();
        let mut states = feed.states.subscribe();
        // Subscribed before the past is looked at, so that nothing falls between the two.
        self.begin(last).await?;
        let first = Arc::clone(&states.borrow_and_update());
        self.look().await?;
        self.send_state(&first).await?;
        let mut ticks = interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                biased;
                changed = told.changed() => {
                    changed.ok()?;
                    self.look().await?;
                }
                changed = states.changed() => {
                    changed.ok()?;
                    let state = Arc::clone(&states.borrow_and_update());
                    self.send_state(&state).await?;
                }
                _ = ticks.tick() => {
                    let at = json!({ "at": jiff::Timestamp::now() });
                    self.send("tick", &at.to_string(), None).await?;
                }
            }
        }
    }

    /// Finds where the reader goes on.
    async fn begin(&mut self, last: Option<String>) -> Option<()> {
        let mut lines = self.app.feed.after(u64::MAX).lines_until;
        if let Some((epoch, seq)) = last.as_deref().and_then(parse_id) {
            if let Some((seq, lines_from)) = self.app.feed.resumed(epoch, seq) {
                self.seen = seq;
                self.total -= self.app.feed.after(seq).events.len() as u64;
                lines = lines_from;
            } else {
                let why = json!({ "reason": "what came after the last id is no longer known" });
                self.send("reset", &why.to_string(), None).await?;
            }
        }
        for follow in &mut self.follows {
            follow.begin(lines);
        }
        for follow in &self.follows {
            self.send_batch(&follow.q, Vec::new(), None).await?;
        }
        Some(())
    }

    /// Tells what is new.
    async fn look(&mut self) -> Option<()> {
        let news = self.app.feed.after(self.seen);
        let missed = news.total.saturating_sub(self.total) - news.events.len() as u64;
        if missed > 0 {
            self.app.counters.missed.fetch_add(missed, Ordering::Relaxed);
            self.send("gap", &json!({ "missed": missed }).to_string(), None)
                .await?;
        }
        let has_lines = self
            .follows
            .iter()
            .any(|follow| follow.is_behind(news.lines_until));
        for event in &news.events {
            let data = serde_json::to_string(&**event).expect("wire types are plain data");
            // Events are urgent. Lines told before them have to be looked for first, so only those end the look.
            let id = (!has_lines).then_some(event.seq);
            self.send("event", &data, id).await?;
        }
        (self.seen, self.total) = (news.seq, news.total);
        if has_lines {
            // On the heap only while it is needed: most of a thousand readers follow nothing.
            Box::pin(self.send_lines(news.lines_until)).await?;
        }
        Some(())
    }

    async fn send_lines(&mut self, until: Option<i64>) -> Option<()> {
        for at in 0..self.follows.len() {
            let follow = &mut self.follows[at];
            let (q, found) = (follow.q.clone(), follow.news(&self.app.archive, until).await);
            // The state says why the database cannot be read; the lines come when it can be.
            let Ok((rows, dropped)) = found else { continue };
            if dropped > 0 {
                let gap = json!({ "missed": dropped, "q": q });
                self.send("gap", &gap.to_string(), None).await?;
            }
            if rows.is_empty() {
                continue;
            }
            let is_last = at + 1 == self.follows.len();
            self.send_batch(&q, rows, is_last.then_some(self.seen)).await?;
        }
        Some(())
    }

    async fn send_batch(&self, q: &str, rows: Vec<LogRow>, seq: Option<u64>) -> Option<()> {
        let rows = rows.into_iter().map(Line::from).collect();
        let data = serde_json::to_string(&LogBatch { q, rows }).expect("wire types are plain data");
        self.send("logs", &data, seq).await
    }

    async fn send_state(&self, state: &Published) -> Option<()> {
        self.send("state", &state.json, Some(self.seen)).await
    }

    async fn send(&self, name: &str, data: &str, seq: Option<u64>) -> Option<()> {
        let mut event = Event::default().event(name).data(data);
        if let Some(seq) = seq {
            event = event.id(format!("{}.{seq}", self.app.feed.epoch));
        }
        self.sender.send(Ok(event)).await.ok()
    }
}

/// One who follows log lines, for as long as it lives.
struct Following<'a>(&'a watch::Sender<usize>);

impl<'a> Following<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The epoch and number of an id. What is no id of ours is as good as none.
fn parse_id(id: &str) -> Option<(&str, u64)> {
    let (epoch, seq) = id.split_once('.')?;
    Some((epoch, seq.parse().ok()?))
}
