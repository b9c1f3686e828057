//! The one task that owns the core: everything that happens goes through it, one thing after the other.
//!
//! Readers hold a watch on the latest [`Snapshot`] and a subscription to the events; nobody else touches the core.
//! The loop measures its own lag: where it was held up, silence of brokers proves nothing, and the core is told
//! before it draws any consequence. Reports are taken in before timeouts for the same reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_model::event::field;
use mesh_model::{Event, EventName, Plan, Snapshot, Topology};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::metrics::Counters;
use super::wire::{Wall, event};
use crate::core::{Command, Core, Input, Moment, Occurrence};

/// How often the loop looks at the clock if nothing else happens.
const BEAT: Duration = Duration::from_millis(50);

/// The most time between two snapshots; after an event there is one at once.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);

/// An event with its number, which counts from 1 at the start of the daemon.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// The number.
    pub id: u64,
    /// The event.
    pub event: Event,
}

/// What the driver tells the rest of the program.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// The latest state.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// Everything that happens.
    pub events: broadcast::Sender<Arc<Numbered>>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// The owner of the core.
#[derive(Debug)]
pub struct Driver {
    core: Core,
    topology: Topology,
    clock: Clock,
    max_lag: Duration,
    wall: Wall,
    plans: mpsc::Sender<Plan>,
    outlets: Outlets,
    last_event: u64,
    published: Moment,
}

impl Driver {
    /// A driver of `core`, which hands plans to `plans`.
    pub fn new(
        core: Core,
        topology: Topology,
        max_lag: Duration,
        clock: Clock,
        plans: mpsc::Sender<Plan>,
        first: Snapshot,
    ) -> Self {
        let outlets = Outlets {
            snapshots: watch::Sender::new(Arc::new(first)),
            events: broadcast::Sender::new(1024),
            counters: Arc::default(),
        };
        Self {
            core,
            topology,
            clock,
            max_lag,
            wall: Wall::default(),
            plans,
            outlets,
            last_event: 0,
            published: Moment::START,
        }
    }

    /// Where the driver tells what it knows.
    pub fn outlets(&self) -> Outlets {
        self.outlets.clone()
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, mut reports: mpsc::Receiver<Input>, shutdown: CancellationToken) {
        let mut expected = self.clock.now() + BEAT;
        loop {
            let wake = self.core.poll_timeout().map_or(expected, |due| due.min(expected));
            let input = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                input = reports.recv() => match input {
                    Some(input) => Some(input),
                    None => return,
                },
                () = sleep_until(self.clock.instant(wake)) => None,
            };
            let now = self.clock.now();
            self.outlets
                .counters
                .beat_ms
                .store(millis(now.elapsed()), Ordering::Relaxed);
            let lag = now.since(expected);
            if now >= expected {
                self.outlets.counters.note_lag(lag);
                if lag > self.max_lag {
                    tracing::warn!(
                        lag_ms = millis(lag),
                        "the loop was held up; silence meanwhile proves nothing"
                    );
                    self.core.handle(Input::Lagged(lag), now);
                }
                expected = now + BEAT;
            }
            let idle = input.is_none() || reports.is_empty();
            if let Some(input) = input {
                self.core.handle(input, now);
            }
            if idle && self.core.poll_timeout().is_some_and(|due| due <= now) {
                self.core.handle_timeout(now);
            }
            self.obey().await;
            if now.since(self.published) >= SNAPSHOT_EVERY {
                self.publish(now);
            }
        }
    }

    async fn obey(&mut self) {
        let mut told = false;
        while let Some(command) = self.core.next_command() {
            match command {
                Command::Install(plan) => {
                    self.outlets.counters.installs.fetch_add(1, Ordering::Relaxed);
                    // The core has at most one under way, so there is room.
                    if self.plans.send(plan).await.is_err() {
                        tracing::error!("nobody is left to install a plan");
                    }
                }
                Command::Emit(occurrence) => {
                    if !std::mem::replace(&mut told, true) {
                        // Who asks for the state upon an event finds it.
                        self.publish(self.clock.now());
                    }
                    self.emit(occurrence);
                }
            }
        }
    }

    fn publish(&mut self, now: Moment) {
        self.published = now;
        let snapshot = self.wall.snapshot(&self.core.view(now), &self.topology, now);
        self.outlets.snapshots.send_replace(Arc::new(snapshot));
    }

    fn emit(&mut self, occurrence: Occurrence) {
        let event = event(occurrence);
        log(&event);
        self.outlets.counters.count(event.name);
        self.last_event += 1;
        let numbered = Numbered {
            id: self.last_event,
            event,
        };
        // Without listeners it is told to nobody, which is no error.
        self.outlets.events.send(Arc::new(numbered)).ok();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes `event` to the log, under the same names.
fn log(event: &Event) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                event = event.name.as_str(),
                { field::BROKER } = event.broker.as_ref().map(|id| id.as_str()),
                { field::FROM } = event.from.as_ref().map(|id| id.as_str()),
                { field::TO } = event.to.as_ref().map(|id| id.as_str()),
                { field::GENERATION } = event.generation,
                { field::ELAPSED_MS } = event.elapsed_ms,
                { field::REASON } = event.reason.as_deref(),
                "{}",
                event.name
            )
        };
    }
    match event.name {
        EventName::FailoverBlocked | EventName::BalancerRejected => line!(error),
        EventName::BrokerDead | EventName::FailoverStarted | EventName::LinkDown => line!(warn),
        _ => line!(info),
    }
}
