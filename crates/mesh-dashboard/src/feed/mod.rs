//! What is known of the network, and how it comes here.
//!
//! [`Follower`](follower::Follower) is the only one that asks mesh-health for its state, and [`tail::watch`] the only one
//! that looks whether log lines were stored. An event is a hint to look again; the state is what counts. Readers hold
//! the latest state, of which each sees the last and not every one on the way, and the number of what was told last: who
//! is behind asks for what lies between, whether it is slow or comes back after a break.

pub mod follower;
pub mod history;
pub mod ring;
pub mod sse;
pub mod tail;
pub mod upstream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mesh_model::{Event, Incident};
use tokio::sync::{Semaphore, watch};

use crate::metrics::Counters;
use crate::wire::{History, Source, State};
use history::Frames;
use ring::{News, Ring};

/// Events that a new page is told.
const TOLD_EVENTS: usize = 100;

/// A state, and itself as JSON: it is written once for all readers.
#[derive(Debug, Clone)]
pub struct Published {
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
    /// The number of what was told last; [`Feed::after`] has it.
    pub told: watch::Sender<u64>,
    /// How many readers follow log lines.
    pub followers: watch::Sender<usize>,
    /// One permit for each event stream that may be opened.
    pub streams: Arc<Semaphore>,
    /// How many those are.
    pub max_streams: usize,
    past: Mutex<Past>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Past {
    ring: Ring,
    frames: Frames,
    incidents: Option<Vec<Incident>>,
    logs: Source,
}

impl Feed {
    /// Nothing is known yet.
    pub fn new(max_streams: u64, counters: Arc<Counters>) -> Self {
        let now = Timestamp::now();
        let logs = Source::unasked();
        let state = State {
            at: now,
            health: Source::unasked(),
            logs: logs.clone(),
            snapshot: None,
            incident: None,
        };
        let max_streams = usize::try_from(max_streams).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            epoch: format!("{:x}", now.as_microsecond()),
            states: watch::Sender::new(Arc::new(published(state))),
            told: watch::Sender::new(0),
            followers: watch::Sender::new(0),
            streams: Arc::new(Semaphore::new(max_streams)),
            max_streams,
            past: Mutex::new(Past {
                ring: Ring::default(),
                frames: Frames::default(),
                incidents: None,
                logs,
            }),
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
        history.events = past.ring.latest(TOLD_EVENTS).cloned().collect();
        history
    }

    /// The incidents, newest first; `None` if mesh-health was never asked with success.
    pub fn incidents(&self) -> Option<Vec<Incident>> {
        self.past().incidents.clone()
    }

    /// What came after number `seq`.
    pub fn after(&self, seq: u64) -> News {
        self.past().ring.after(seq)
    }

    /// How many event streams are open.
    pub fn open_streams(&self) -> usize {
        self.max_streams - self.streams.available_permits()
    }

    /// Where a reader that was told `seq` by the run `epoch` goes on: the number, and from where with log lines. `None`
    /// if what it missed is no longer known.
    pub fn resumed(&self, epoch: &str, seq: u64) -> Option<(u64, Option<i64>)> {
        let past = self.past();
        let is_known = epoch == self.epoch && past.ring.covers(seq);
        is_known.then(|| (seq, past.ring.lines_after(seq)))
    }

    /// Something happened.
    fn happened(&self, event: Event) {
        Counters::add(&self.counters.events);
        let mut past = self.past();
        past.ring.happened(event);
        self.told.send_replace(past.ring.last());
    }

    /// So many events happened that mesh-health does not know any more.
    fn missed(&self, events: u64) {
        let mut past = self.past();
        past.ring.missed(events);
        self.told.send_replace(past.ring.last());
    }

    /// Log lines were stored until `until`, in nanoseconds since 1970.
    fn stored(&self, until: i64) {
        let mut past = self.past();
        let at = Timestamp::now();
        past.logs = Source {
            reachable: true,
            answered_at: Some(at),
            error: None,
        };
        if past.ring.stored(until) {
            self.told.send_replace(past.ring.last());
        }
    }

    /// The database cannot be read.
    fn unreadable(&self, error: String) {
        let mut past = self.past();
        past.logs.reachable = false;
        past.logs.error = Some(error);
    }

    /// How it is with the database.
    fn logs(&self) -> Source {
        self.past().logs.clone()
    }

    fn latest_incident(&self) -> Option<Incident> {
        self.past().incidents.as_ref()?.first().cloned()
    }

    /// A new state, which is kept for replaying too.
    fn publish(&self, state: State) {
        let known = state.snapshot.as_ref().filter(|_| state.health.reachable);
        self.past().frames.note(state.at, known);
        self.states.send_replace(Arc::new(published(state)));
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // What is inside is whole after every step, so a panic elsewhere spoils nothing.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn published(state: State) -> Published {
    let json = serde_json::to_string(&state).expect("wire types are plain data");
    Published { state, json }
}
