//! A fault of a broker, a link or the balancer, from its first sign to its end, and how long each step took.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::spelled;
use crate::ids::BrokerId;

spelled! {
    /// What failed.
    IncidentKind {
        /// A broker died or hung.
        Broker = "broker",
        /// Messages did not pass between two healthy brokers.
        Link = "link",
        /// The balancer died, was started again, or refused a plan.
        Balancer = "balancer",
    }
}

spelled! {
    /// A step on the way from a fault to its end.
    ///
    /// All faults have the first two and the last. Those of the primary have what lies between but for
    /// [`Self::Answering`], which only those of the balancer have.
    IncidentPhase {
        /// The last moment at which all was well, or the first thing that went wrong.
        FirstSign = "first_sign",
        /// The broker is taken to be dead, the link to be down, the balancer not to do as it is told.
        Confirmed = "confirmed",
        /// A plan without the broker as primary is in place, and Nginx was told to read it.
        PlanInstalled = "plan_installed",
        /// Nginx answers that it runs the plan.
        GenerationConfirmed = "generation_confirmed",
        /// Nginx's workers of earlier generations accept no clients any longer.
        OldWorkersStopped = "old_workers_stopped",
        /// No session of Nginx to the broker is left.
        SessionsCut = "sessions_cut",
        /// A client is connected to the new primary.
        FirstClientBack = "first_client_back",
        /// Nginx answers, with the last good plan or a newer one, so clients are served.
        Answering = "answering",
        /// The broker is healthy, messages pass, or the balancer runs the wanted plan.
        Recovered = "recovered",
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Incident {
    /// Its name, which no other incident has.
    pub id: String,
    /// What failed.
    pub kind: IncidentKind,
    /// The broker that failed, if it was one.
    pub broker: Option<BrokerId>,
    /// The sending end of the link that failed, if it was one.
    pub from: Option<BrokerId>,
    /// The receiving end of the link, or the broker that the clients of a failed primary were sent to.
    pub to: Option<BrokerId>,
    /// The generation of the plan that sent clients elsewhere, or that the balancer did not run.
    pub generation: Option<u64>,
    /// What was wrong, in a few words.
    pub reason: Option<String>,
    /// When the first sign was.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub began_at: Timestamp,
    /// When it was over; `None` while it lasts.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ended_at: Option<Timestamp>,
    /// The steps, in the order in which they happened.
    pub phases: Vec<IncidentStep>,
}

/// One step of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentStep {
    /// Which.
    pub phase: IncidentPhase,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Timestamp,
    /// Milliseconds since the first sign, by a clock that nobody sets.
    pub elapsed_ms: f64,
}

/// The answer of `GET /v1/incidents`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentList {
    /// The latest incidents, newest first.
    pub incidents: Vec<Incident>,
}
