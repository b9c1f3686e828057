//! What is known of the network, and how it comes here.
//!
//! [`Follower`] is the only one that asks mesh-health for its state: once a second, and at once when mesh-health's event
//! stream ([`listen`]) says that something happened, but never more often than every [`LEAST`]. An event is a hint to
//! look again; the state is what counts. Readers hold the latest state, of which each sees the last and not every one
//! on the way, and a subscription to the events, of which each is told all or how many it missed.

pub mod history;
pub mod sse;
pub mod upstream;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use jiff::Timestamp;
use mesh_model::{Event, Incident, IncidentList, MeshState, Snapshot};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Counters;
use crate::wire::{History, Numbered, Source, State};
use history::Frames;
use upstream::{AskError, Upstream};

/// The least time between two states: readers get at most four a second.
const LEAST: Duration = Duration::from_millis(250);

/// Time between two questions when all is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// Events that are kept for readers that come back.
const KEPT_EVENTS: usize = 512;

/// Events that a new page is told.
const TOLD_EVENTS: usize = 100;

/// mesh-health says something every 5 s; a stream that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(12);

/// Time before the event stream is opened again.
const REOPEN: Duration = Duration::from_millis(500);

/// A state, its number, and itself as JSON: it is written once for all readers.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its number.
    pub seq: u64,
    /// It.
    pub state: State,
    /// It as JSON.
    pub json: String,
}

/// What readers hold.
#[derive(Debug)]
pub struct Feed {
    /// Tells one run of this program from another.
    pub epoch: String,
    /// The latest state.
    pub states: watch::Sender<Arc<Published>>,
    /// Everything that happens.
    pub events: broadcast::Sender<Arc<Numbered>>,
    /// One permit for each event stream that may be opened.
    pub streams: Arc<Semaphore>,
    /// How many those are.
    pub max_streams: usize,
    past: Mutex<Past>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Past {
    events: VecDeque<Arc<Numbered>>,
    frames: Frames,
    incidents: Option<Vec<Incident>>,
}

/// What a reader missed that was here before.
#[derive(Debug)]
pub enum Missed {
    /// These, in their order.
    Events(Vec<Arc<Numbered>>),
    /// That is no longer known.
    Unknown,
}

impl Feed {
    /// Nothing is known yet.
    pub fn new(max_streams: u64, counters: Arc<Counters>) -> Self {
        let now = Timestamp::now();
        let source = Source {
            reachable: false,
            answered_at: None,
            error: Some("mesh-health was not asked yet".to_owned()),
        };
        let state = State {
            at: now,
            health: source,
            snapshot: None,
            incident: None,
        };
        let max_streams = usize::try_from(max_streams).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            epoch: format!("{:x}", now.as_microsecond()),
            states: watch::Sender::new(Arc::new(published(0, state))),
            events: broadcast::Sender::new(256),
            streams: Arc::new(Semaphore::new(max_streams)),
            max_streams,
            past: Mutex::default(),
            counters,
        }
    }

    /// The latest state.
    pub fn now(&self) -> Arc<Published> {
        Arc::clone(&self.states.borrow())
    }

    /// The last minutes.
    pub fn history(&self) -> History {
        let past = self.past();
        let mut history = past.frames.columns();
        let first = past.events.len().saturating_sub(TOLD_EVENTS);
        let latest = past.events.iter().skip(first);
        history.events = latest.map(|numbered| numbered.event.clone()).collect();
        history
    }

    /// The incidents, newest first; `None` if mesh-health was never asked with success.
    pub fn incidents(&self) -> Option<Vec<Incident>> {
        self.past().incidents.clone()
    }

    /// What happened after number `seq` of the run `epoch`.
    pub fn missed(&self, epoch: &str, seq: u64) -> Missed {
        if epoch != self.epoch || seq > self.now().seq.max(self.last_event()) {
            return Missed::Unknown;
        }
        let past = self.past();
        if past.events.len() >= KEPT_EVENTS && past.events.front().is_some_and(|oldest| oldest.seq > seq + 1)
        {
            return Missed::Unknown;
        }
        let newer = past.events.iter().filter(|event| event.seq > seq);
        Missed::Events(newer.cloned().collect())
    }

    fn last_event(&self) -> u64 {
        self.past().events.back().map_or(0, |event| event.seq)
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // What is inside is whole after every step, so a panic elsewhere spoils nothing.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn published(seq: u64, state: State) -> Published {
    let json = serde_json::to_string(&state).expect("wire types are plain data");
    Published { seq, state, json }
}

/// Asks mesh-health, and tells the readers.
#[derive(Debug)]
pub struct Follower {
    feed: Arc<Feed>,
    upstream: Upstream,
    seq: u64,
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
            seq: 0,
            asked: Instant::now(),
            hurry: false,
            incidents_due: true,
        }
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, mut hints: mpsc::Receiver<Event>, shutdown: CancellationToken) {
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(event) = hints.recv() => {
                    self.tell(event);
                    due = due.min(self.asked + LEAST);
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

    fn tell(&mut self, event: Event) {
        self.seq += 1;
        self.incidents_due = true;
        let numbered = Arc::new(Numbered { seq: self.seq, event });
        {
            let mut past = self.feed.past();
            if past.events.len() == KEPT_EVENTS {
                past.events.pop_front();
            }
            past.events.push_back(Arc::clone(&numbered));
        }
        Counters::add(&self.feed.counters.events);
        // Without readers it is told to nobody, which is no error.
        self.feed.events.send(numbered).ok();
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
                    snapshot: Some(snapshot),
                    incident: self
                        .feed
                        .past()
                        .incidents
                        .as_ref()
                        .and_then(|all| all.first().cloned()),
                }
            }
            Err(error) => self.without(&last.state, at, &error),
        };
        let is_known = state
            .health
            .reachable
            .then_some(state.snapshot.as_ref())
            .flatten();
        self.feed.past().frames.note(at, is_known);
        self.seq += 1;
        self.feed
            .states
            .send_replace(Arc::new(published(self.seq, state)));
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
            snapshot: last.snapshot.clone(),
            incident: last.incident.clone(),
        }
    }
}

/// Keeps mesh-health's event stream open and hands on what it says, until `shutdown`.
pub async fn listen(upstream: Upstream, hints: mpsc::Sender<Event>, shutdown: CancellationToken) {
    let following = async {
        loop {
            if let Err(error) = follow(&upstream, &hints).await {
                tracing::debug!(error, "the event stream of mesh-health ended");
            }
            sleep(REOPEN).await;
        }
    };
    shutdown.run_until_cancelled(following).await;
}

async fn follow(upstream: &Upstream, hints: &mpsc::Sender<Event>) -> Result<(), String> {
    let mut body = upstream.events().await.map_err(|error| error.to_string())?;
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
            // `status`, `tick` and `missed` are not events, and are covered by asking once a second.
            let Ok(event) = serde_json::from_str::<Event>(&message.data) else {
                continue;
            };
            hints.send(event).await.map_err(|_| "nobody listens".to_owned())?;
        }
    }
}
