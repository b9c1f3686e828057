//! The one task that owns the core: everything that happens goes through it, one thing after the other.
//!
//! Readers hold a watch on the latest [`Snapshot`] and a subscription to the events; nobody else touches the core.
//! The loop measures its own lag: where it was held up, silence of brokers proves nothing, and the core is told
//! before it draws any consequence. Reports are taken in before timeouts for the same reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_model::event::field;
use mesh_model::{Event, EventName, IncidentList, Snapshot, Topology};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::balancer::PlanOrder;
use super::clock::Clock;
use super::happenings::Happenings;
use super::memory;
use super::metrics::Counters;
use super::mover::MoveOrder;
use super::service::Service;
use super::wire::Wall;
use crate::core::{Command, Core, Granted, Input, Moment, Occurrence, Refusal, Request};

/// How often the loop looks at the clock if nothing else happens.
const BEAT: Duration = Duration::from_millis(50);

/// The most time between two snapshots; after an event there is one at once.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);

/// The most reports that are taken in before consequences are drawn and orders go out.
const AT_ONCE: usize = 64;

/// What the driver tells the rest of the program.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// The latest state.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// The latest incidents.
    pub incidents: watch::Sender<Arc<IncidentList>>,
    /// Everything that happens.
    pub events: Happenings,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Something that the operator asks for, and where the answer goes.
#[derive(Debug)]
pub struct Ask {
    /// What is asked for.
    pub request: Request,
    /// Whether it was done.
    pub reply: oneshot::Sender<Result<Granted, Refusal>>,
}

/// Those who do what the core wants done.
#[derive(Debug)]
pub struct Hands {
    /// Takes plans to install.
    pub plans: mpsc::Sender<PlanOrder>,
    /// Takes orders to close sessions.
    pub moves: mpsc::UnboundedSender<MoveOrder>,
    /// Keeps what must survive a restart.
    pub memory: watch::Sender<memory::Version>,
    /// The number of the version that is kept.
    pub kept: watch::Receiver<u64>,
}

/// The owner of the core.
#[derive(Debug)]
pub struct Driver {
    core: Core,
    topology: Topology,
    clock: Clock,
    max_lag: Duration,
    wall: Wall,
    hands: Hands,
    outlets: Outlets,
    service: Service,
    published: Moment,
}

impl Driver {
    /// A driver of `core`, whose wishes `hands` fulfil.
    pub fn new(
        core: Core,
        topology: Topology,
        max_lag: Duration,
        clock: Clock,
        hands: Hands,
        mut wall: Wall,
    ) -> Self {
        let now = clock.now();
        let first = wall.snapshot(&core.view(now), &topology, now);
        let incidents = wall.incidents(&core, now);
        let outlets = Outlets {
            snapshots: watch::Sender::new(Arc::new(first)),
            incidents: watch::Sender::new(Arc::new(incidents)),
            events: Happenings::new(jiff::Timestamp::now()),
            counters: Arc::default(),
        };
        Self {
            core,
            topology,
            clock,
            max_lag,
            wall,
            hands,
            outlets,
            service: Service::from_env(),
            published: Moment::START,
        }
    }

    /// Where the driver tells what it knows.
    pub fn outlets(&self) -> Outlets {
        self.outlets.clone()
    }

    /// Works until `shutdown`.
    pub async fn run(
        mut self,
        mut reports: mpsc::Receiver<Input>,
        mut asks: mpsc::Receiver<Ask>,
        shutdown: CancellationToken,
    ) {
        let mut expected = self.clock.now() + BEAT;
        loop {
            let wake = self.core.poll_timeout().map_or(expected, |due| due.min(expected));
            let mut asked = None;
            let input = tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.service.stopping(),
                Some(ask) = asks.recv() => {
                    asked = Some(ask);
                    None
                }
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
            if let Some(input) = input {
                self.core.handle(input, now);
                // Fifty brokers report 5,000 times a second, many at once: what is there already is taken in one turn.
                for input in std::iter::from_fn(|| reports.try_recv().ok()).take(AT_ONCE) {
                    self.core.handle(input, now);
                }
            }
            let idle = reports.is_empty();
            let answer = asked.map(|ask| (self.core.request(ask.request, now), ask.reply));
            if idle && self.core.poll_timeout().is_some_and(|due| due <= now) {
                self.core.handle_timeout(now);
            }
            self.obey().await;
            if let Some((answer, reply)) = answer {
                // Who asks for the state upon the answer finds it.
                self.publish(self.clock.now());
                self.answer(answer, reply);
            }
            if now.since(self.published) >= SNAPSHOT_EVERY {
                self.publish(now);
            }
        }
    }

    /// Answers the operator once the wish is kept: what was granted holds also if this program is killed now.
    fn answer(&self, answer: Result<Granted, Refusal>, reply: oneshot::Sender<Result<Granted, Refusal>>) {
        let number = self.hands.memory.borrow().0;
        let kept = self.hands.kept.clone();
        tokio::spawn(async move {
            memory::written(kept, number).await;
            // Who has hung up misses nothing.
            reply.send(answer).ok();
        });
    }

    async fn obey(&mut self) {
        let mut told = false;
        while let Some(command) = self.core.next_command() {
            match command {
                Command::Install(plan) => {
                    self.outlets.counters.installs.fetch_add(1, Ordering::Relaxed);
                    // The core has at most one under way, so there is room.
                    let after = self.hands.memory.borrow().0;
                    let order = PlanOrder { plan, after };
                    if self.hands.plans.send(order).await.is_err() {
                        tracing::error!("nobody is left to install a plan");
                    }
                }
                Command::MoveSessions {
                    from,
                    generation,
                    at_most,
                } => {
                    let order = MoveOrder {
                        from,
                        generation,
                        at_most,
                    };
                    if self.hands.moves.send(order).is_err() {
                        tracing::error!("nobody is left to move sessions");
                    }
                }
                Command::Remember(memory) => {
                    let kept = Arc::new(self.wall.kept(&memory, self.clock.now()));
                    self.hands.memory.send_modify(|(number, latest)| {
                        *number += 1;
                        *latest = kept;
                    });
                }
                Command::Emit(occurrence) => {
                    // Who asks for the state upon an event finds it.
                    if !std::mem::replace(&mut told, true) {
                        let now = self.clock.now();
                        self.publish(now);
                        let incidents = self.wall.incidents(&self.core, now);
                        self.outlets.incidents.send_replace(Arc::new(incidents));
                    }
                    self.emit(occurrence);
                }
            }
        }
    }

    fn publish(&mut self, now: Moment) {
        self.published = now;
        let snapshot = self.wall.snapshot(&self.core.view(now), &self.topology, now);
        let snapshot = Arc::new(snapshot);
        self.outlets.snapshots.send_replace(Arc::clone(&snapshot));
        // Who hears of it and asks finds the same.
        self.service.turned(now, &snapshot);
    }

    fn emit(&mut self, occurrence: Occurrence) {
        let event = self.wall.event(occurrence);
        log(&event);
        self.outlets.counters.count(event.name);
        self.outlets.events.tell(event);
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
                { field::INCIDENT } = event.incident.as_deref(),
                { field::PHASE } = event.phase.map(|phase| phase.as_str()),
                { field::ELAPSED_MS } = event.elapsed_ms,
                { field::REASON } = event.reason.as_deref(),
                "{}",
                event.name
            )
        };
    }
    match event.name {
        EventName::FailoverBlocked | EventName::BalancerRejected => line!(error),
        EventName::BrokerDead
        | EventName::FailoverStarted
        | EventName::FailbackBlocked
        | EventName::LinkDown => line!(warn),
        _ => line!(info),
    }
}
