//! What goes into the core, and what comes out.

use std::time::Duration;

use mesh_model::{BrokerId, EventName, IncidentPhase, Plan};

use super::broker::Sign;
use super::memory::Memory;
use super::readings::Reading;
use super::rollout::{Found, Look, Outcome};

/// What the shell reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A probe of this broker learnt something.
    Probe(BrokerId, Sign),
    /// A canary that was published at one broker arrived at another.
    Canary {
        /// Where it was published.
        from: BrokerId,
        /// Where it arrived.
        to: BrokerId,
        /// How long it took.
        latency: Duration,
    },
    /// This broker told something of itself.
    Reading {
        /// The broker.
        broker: BrokerId,
        /// What it told.
        reading: Reading,
        /// Whether it is a retained value of unknown age.
        kept: bool,
    },
    /// Nothing that this broker told of itself holds any longer.
    ReadingsLost(BrokerId),
    /// What the balancer runs at the start.
    Found(Found),
    /// The plan of this generation is in place and the balancer was told to read it.
    Reloaded(u64),
    /// The installation of this generation ended.
    Installed(u64, Outcome),
    /// The balancer was looked at.
    Looked(Look),
    /// Whether sessions of the balancer can be closed at all; if not, why.
    CanMoveSessions(Result<(), String>),
    /// Workers of generations before this one accept no clients any longer.
    OldWorkersStopped(u64),
    /// A [`Command::MoveSessions`] ended.
    Moved {
        /// The broker whose sessions were to be closed.
        from: BrokerId,
        /// What became of them.
        result: Result<Closed, String>,
    },
    /// The daemon's own loop was held up for this long, so silence meanwhile proves nothing.
    Lagged(Duration),
}

/// Sessions of the balancer to one broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Closed just now.
    pub closed: u64,
    /// Still there.
    pub left: u64,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make the balancer run this plan, and report with [`Input::Installed`].
    Install(Plan),
    /// Close sessions of the balancer to a broker, of no other program and to no other broker, and report with
    /// [`Input::Moved`]. Before, workers of generations before this one must have stopped to accept clients.
    MoveSessions {
        /// The broker.
        from: BrokerId,
        /// The generation of the plan that sends clients elsewhere.
        generation: u64,
        /// At most this many; all if it is `None`.
        at_most: Option<u32>,
    },
    /// Keep this for the next start of the daemon, before any plan that comes after it.
    Remember(Box<Memory>),
    /// Tell everyone.
    Emit(Occurrence),
}

/// An event, without the wall-clock time that the shell adds.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// What happened.
    pub name: EventName,
    /// The broker concerned.
    pub broker: Option<BrokerId>,
    /// The sending end of a link, or the broker that clients leave.
    pub from: Option<BrokerId>,
    /// The receiving end of a link, or the broker that clients go to.
    pub to: Option<BrokerId>,
    /// The generation of a plan.
    pub generation: Option<u64>,
    /// The number of the incident that it is part of.
    pub incident: Option<u64>,
    /// The step that the incident has reached.
    pub phase: Option<IncidentPhase>,
    /// How long it took.
    pub elapsed: Option<Duration>,
    /// Why.
    pub reason: Option<String>,
}

impl Occurrence {
    pub(super) fn new(name: EventName) -> Self {
        Self {
            name,
            broker: None,
            from: None,
            to: None,
            generation: None,
            incident: None,
            phase: None,
            elapsed: None,
            reason: None,
        }
    }
}
