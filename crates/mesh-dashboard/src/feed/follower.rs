//! Asking mesh-health: its state once a second, and at once when its event stream says that something happened.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use jiff::Timestamp;
use mesh_model::{Event, IncidentList, MeshState, Snapshot};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::upstream::{AskError, Upstream};
use super::{Feed, sse};
use crate::wire::{Source, State};

/// The least time between two states: readers get at most four a second.
const LEAST: Duration = Duration::from_millis(250);

/// How long is waited after an event: what belongs together, such as the death of a broker after it was late, is told
/// within a few milliseconds, and one state shows all of it.
const SETTLE: Duration = Duration::from_millis(25);

/// Time between two questions when all is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// mesh-health says something every 5 s; a stream that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(12);

/// Time before the event stream is opened again.
const REOPEN: Duration = Duration::from_millis(500);

/// What mesh-health's event stream says.
#[derive(Debug)]
pub enum Hint {
    /// Something happened.
    Event(Event),
    /// So many events came too fast, or while the stream was broken, and are not known any more.
    Missed(u64),
}

/// Asks mesh-health, and tells the readers.
#[derive(Debug)]
pub struct Follower {
    feed: Arc<Feed>,
    upstream: Upstream,
    asked: Instant,
    hurry: bool,
    incidents_due: bool,
}

impl Follower {
    /// A follower that fills `feed` from `upstream`.
    pub fn new(feed: Arc<Feed>, upstream: Upstream) -> Self {
        Self {
            feed,
            upstream,
            asked: Instant::now(),
            hurry: false,
            incidents_due: true,
        }
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, mut hints: mpsc::Receiver<Hint>, shutdown: CancellationToken) {
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(hint) = hints.recv() => {
                    self.incidents_due = true;
                    match hint {
                        Hint::Event(event) => self.feed.happened(event),
                        Hint::Missed(events) => self.feed.missed(events),
                    }
                    due = due.min((self.asked + LEAST).max(Instant::now() + SETTLE));
                }
                () = sleep_until(due) => {
                    self.asked = Instant::now();
                    let looking = self.look();
                    if shutdown.run_until_cancelled(looking).await.is_none() {
                        return;
                    }
                    due = self.asked + if self.hurry { LEAST } else { QUIET };
                }
            }
        }
    }

    async fn look(&mut self) {
        let asked = self.upstream.get::<Snapshot>("/v1/status").await;
        let last = self.feed.now();
        let at = Timestamp::now();
        let state = match asked {
            Ok(snapshot) => {
                self.hurry = matches!(snapshot.state, MeshState::FailingOver);
                self.look_at_incidents().await;
                State {
                    at,
                    health: Source {
                        reachable: true,
                        answered_at: Some(at),
                        error: None,
                    },
                    logs: self.feed.logs(),
                    snapshot: Some(snapshot),
                    incident: self.feed.latest_incident(),
                }
            }
            Err(error) => self.without(&last.state, at, &error),
        };
        self.feed.publish(state);
    }

    /// The steps of an incident are no events, so an open one is asked for again each time.
    async fn look_at_incidents(&mut self) {
        let is_open = {
            let past = self.feed.past();
            let mut all = past.incidents.iter().flatten();
            all.any(|incident| incident.ended_at.is_none())
        };
        if !self.incidents_due && !is_open {
            return;
        }
        match self.upstream.get::<IncidentList>("/v1/incidents").await {
            Ok(list) => {
                self.incidents_due = false;
                self.feed.past().incidents = Some(list.incidents);
            }
            Err(error) => tracing::debug!(%error, "the incidents cannot be had now"),
        }
    }

    fn without(&mut self, last: &State, at: Timestamp, error: &AskError) -> State {
        if last.health.reachable {
            tracing::warn!(%error, "mesh-health does not answer; the page shows what was");
        }
        // Another mesh-health may be there next time, with other incidents.
        self.incidents_due = true;
        self.hurry = false;
        State {
            at,
            health: Source {
                reachable: false,
                answered_at: last.health.answered_at,
                error: Some(error.to_string()),
            },
            logs: self.feed.logs(),
            snapshot: last.snapshot.clone(),
            incident: last.incident.clone(),
        }
    }
}

/// Keeps mesh-health's event stream open and hands on what it says, until `shutdown`. After a break it goes on where it
/// ended.
pub async fn listen(upstream: Upstream, hints: mpsc::Sender<Hint>, shutdown: CancellationToken) {
    let following = async {
        let mut last = None;
        loop {
            if let Err(error) = follow(&upstream, &hints, &mut last).await {
                tracing::debug!(error, "the event stream of mesh-health ended");
            }
            sleep(REOPEN).await;
        }
    };
    shutdown.run_until_cancelled(following).await;
}

async fn follow(
    upstream: &Upstream,
    hints: &mpsc::Sender<Hint>,
    last: &mut Option<String>,
) -> Result<(), String> {
    let opened = upstream.events(last.as_deref()).await;
    let mut body = opened.map_err(|error| error.to_string())?;
    let mut parser = sse::Parser::default();
    loop {
        let frame = timeout(SILENCE, body.frame()).await;
        let frame = frame.map_err(|_elapsed| "it is silent".to_owned())?;
        let Some(frame) = frame else {
            return Err("it is over".to_owned());
        };
        let frame = frame.map_err(|error| error.to_string())?;
        let Some(piece) = frame.data_ref() else { continue };
        let messages = parser.feed(piece).ok_or("it is no event stream")?;
        for message in messages {
            if let Some(hint) = hint(&message) {
                hints.send(hint).await.map_err(|_| "nobody listens".to_owned())?;
            }
            if !message.id.is_empty() {
                *last = Some(message.id);
            }
        }
    }
}

/// What a message says, if anything: `status` and `tick` are covered by asking once a second.
fn hint(message: &sse::Message) -> Option<Hint> {
    /// The data of `missed`.
    #[derive(serde::Deserialize)]
    struct Missed {
        missed: u64,
    }
    match message.name.as_str() {
        "missed" => {
            let told: Missed = serde_json::from_str(&message.data).ok()?;
            Some(Hint::Missed(told.missed))
        }
        _ => serde_json::from_str(&message.data).ok().map(Hint::Event),
    }
}
