//! What happens, by name: the same names in log lines and on the event stream.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::spelled;
use crate::ids::BrokerId;
use crate::incident::IncidentPhase;

/// The names of the fields that events and log lines share.
pub mod field {
    /// The broker concerned.
    pub const BROKER: &str = "broker";
    /// The sending end of a link, or the broker that clients leave.
    pub const FROM: &str = "from";
    /// The receiving end of a link, or the broker that clients go to.
    pub const TO: &str = "to";
    /// The generation of a plan.
    pub const GENERATION: &str = "generation";
    /// The id of an incident.
    pub const INCIDENT: &str = "incident";
    /// The step that an incident has reached.
    pub const PHASE: &str = "phase";
    /// How long it took, in milliseconds.
    pub const ELAPSED_MS: &str = "elapsed_ms";
    /// Why, in a few words.
    pub const REASON: &str = "reason";
    /// An MQTT client id.
    pub const CLIENT_ID: &str = "client_id";
    /// An error with its causes.
    pub const ERROR: &str = "error";
}

spelled! {
    /// What happened.
    EventName {
        /// A broker is silent for longer than usual.
        BrokerSuspect = "broker.suspect",
        /// A broker is taken to be dead.
        BrokerDead = "broker.dead",
        /// A broker answers again.
        BrokerRecovering = "broker.recovering",
        /// A broker answers in time and has proved itself.
        BrokerHealthy = "broker.healthy",
        /// The operator lets a broker serve again.
        BrokerEnabled = "broker.enabled",
        /// The operator has a broker hand over its clients.
        BrokerDraining = "broker.draining",
        /// A draining broker has handed over its clients.
        BrokerDrained = "broker.drained",
        /// The operator has a broker serve nobody.
        BrokerDisabled = "broker.disabled",
        /// The primary is being replaced.
        FailoverStarted = "failover.started",
        /// The balancer confirmed the new primary.
        FailoverSwitched = "failover.switched",
        /// The new primary serves and nothing is left to do.
        FailoverCompleted = "failover.completed",
        /// The primary should be replaced and cannot be.
        FailoverBlocked = "failover.blocked",
        /// Clients are being sent back to the preferred broker.
        FailbackStarted = "failback.started",
        /// Clients are sent to the preferred broker again.
        FailbackCompleted = "failback.completed",
        /// Clients should go back, and there were too many such switches lately.
        FailbackBlocked = "failback.blocked",
        /// Nginx's sessions to a broker that no longer serves were closed, so that their clients come back elsewhere.
        SessionsMoved = "sessions.moved",
        /// Messages do not pass between two healthy brokers.
        LinkDown = "link.down",
        /// Messages pass again.
        LinkUp = "link.up",
        /// What is kept for the far end of a link nearly fills its bounds: soon messages will be lost for it.
        LinkFilling = "link.filling",
        /// Messages are lost for the far end of a link, which was away for longer than they could be kept.
        LinkLosing = "link.losing",
        /// The balancer refused a plan, does not run it, or does not answer.
        BalancerRejected = "balancer.rejected",
        /// The balancer runs the wanted plan again.
        BalancerRestored = "balancer.restored",
        /// An incident went one step further.
        IncidentStep = "incident.step",
        /// A client connected.
        ClientConnected = "client.connected",
        /// A client's connection ended.
        ClientDisconnected = "client.disconnected",
        /// A broker holds the same retained state as the others.
        MeshInSync = "mesh.in_sync",
        /// A broker's retained state differs from the others'.
        MeshOutOfSync = "mesh.out_of_sync",
    }
}

/// One thing that happened. Fields that do not apply are left out on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// What.
    pub name: EventName,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Timestamp,
    /// The broker concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerId>,
    /// The sending end of a link, or the broker that clients leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<BrokerId>,
    /// The receiving end of a link, or the broker that clients go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<BrokerId>,
    /// The generation of a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The incident that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// The step that the incident has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<IncidentPhase>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<f64>,
    /// Why, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Event {
    /// An event without fields.
    pub fn new(name: EventName, at: Timestamp) -> Self {
        Self {
            name,
            at,
            broker: None,
            from: None,
            to: None,
            generation: None,
            incident: None,
            phase: None,
            elapsed_ms: None,
            reason: None,
        }
    }
}
