//! A fault of a broker, from its first sign to its end, and how long each step took.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::spelled;
use crate::ids::BrokerId;

spelled! {
    /// A step on the way from a fault to its end. A standby's fault has only the first two and the last.
    IncidentPhase {
        /// The last answer before the silence, or the first thing that went wrong.
        FirstSign = "first_sign",
        /// The broker is taken to be dead.
        Confirmed = "confirmed",
        /// A plan without it as primary is in place, and Nginx was told to read it.
        PlanInstalled = "plan_installed",
        /// Nginx answers that it runs the plan.
        GenerationConfirmed = "generation_confirmed",
        /// Nginx's workers of earlier generations accept no clients any longer.
        OldWorkersStopped = "old_workers_stopped",
        /// No session of Nginx to the broker is left.
        SessionsCut = "sessions_cut",
        /// A client is connected to the new primary.
        FirstClientBack = "first_client_back",
        /// The broker is healthy again.
        Recovered = "recovered",
    }
}

/// One fault of one broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its name, which no other incident has.
    pub id: String,
    /// The broker that failed.
    pub broker: BrokerId,
    /// Where its clients were sent, if it was the primary.
    pub to: Option<BrokerId>,
    /// The generation of the plan that did so.
    pub generation: Option<u64>,
    /// What was wrong, in a few words.
    pub reason: Option<String>,
    /// When the first sign was.
    pub began_at: Timestamp,
    /// When it was over; `None` while it lasts.
    pub ended_at: Option<Timestamp>,
    /// The steps, in the order in which they happened.
    pub phases: Vec<IncidentStep>,
}

/// One step of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentStep {
    /// Which.
    pub phase: IncidentPhase,
    /// When.
    pub at: Timestamp,
    /// Milliseconds since the first sign, by a clock that nobody sets.
    pub elapsed_ms: f64,
}

/// The answer of `GET /v1/incidents`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentList {
    /// The latest incidents, newest first.
    pub incidents: Vec<Incident>,
}
