//! The live state of the network as it travels: the body of mesh-health's `GET /v1/status`.
//!
//! What is not known is `None`, on the wire `null`; never 0.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::{AdminState, HealthStatus, LinkState, MeshState, Role};
use crate::ids::BrokerId;

/// Everything that mesh-health knows at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// The generation of the plan that mesh-health wants.
    pub generation: u64,
    /// When this was taken.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Timestamp,
    /// The state of the whole.
    pub state: MeshState,
    /// Where clients are sent.
    pub primary: BrokerId,
    /// The next in order.
    pub backup: Option<BrokerId>,
    /// What the balancer really runs.
    pub balancer: BalancerSnapshot,
    /// The brokers in order of priority.
    pub brokers: Vec<BrokerSnapshot>,
    /// Every direction between two brokers.
    pub links: Vec<LinkSnapshot>,
}

/// What the balancer really runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BalancerSnapshot {
    /// The generation that it answered at the last read-back.
    pub generation: Option<u64>,
    /// Whether that is the wanted one.
    pub confirmed: bool,
    /// Worker processes of earlier generations that still hold sessions.
    pub old_workers: Option<u32>,
    /// Why it does not do as it is told, in a sentence.
    pub error: Option<String>,
    /// Whether its sessions to a broker that no longer serves can be closed; `None` until that was tried.
    #[serde(default)]
    pub can_move_sessions: Option<bool>,
    /// Why they cannot be closed, or were not at the last attempt.
    #[serde(default)]
    pub move_error: Option<String>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BrokerSnapshot {
    /// Its name.
    pub id: BrokerId,
    /// Where it takes MQTT connections.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: SocketAddr,
    /// What is observed.
    pub health: HealthStatus,
    /// What the operator wants.
    pub admin: AdminState,
    /// The part it plays for clients.
    pub role: Option<Role>,
    /// Since when `health` is what it is.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub since: Timestamp,
    /// Why `health` is what it is, in a few words.
    pub reason: Option<String>,
    /// Time from the last PINGREQ to its PINGRESP, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Connected clients, without the links, probes and canaries of the mesh itself.
    pub clients: Option<u64>,
    /// PUBLISH packets received, per second.
    pub in_per_s: Option<f64>,
    /// PUBLISH packets sent, per second.
    pub out_per_s: Option<f64>,
    /// Sessions of the balancer that are still to be moved off this broker; `None` if none are, or not counted yet.
    #[serde(default)]
    pub sessions_left: Option<u64>,
    /// The retained state.
    pub retained: Option<RetainedSnapshot>,
}

/// The retained state of one broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetainedSnapshot {
    /// Retained messages outside `$SYS`.
    pub count: u64,
    /// Equal on two brokers exactly if their retained state is equal.
    pub digest: Option<String>,
    /// Whether the broker has everything that its peers have. Clients are sent to another one while it has not.
    #[serde(default)]
    pub in_sync: Option<bool>,
}

/// One direction between two brokers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkSnapshot {
    /// The broker whose messages are carried.
    pub from: BrokerId,
    /// The broker that fetches them.
    pub to: BrokerId,
    /// Whether canaries pass.
    pub state: LinkState,
    /// Time from publishing the last canary at `from` to its arrival at a subscriber of `to`, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Messages over this link, per second.
    pub per_s: Option<f64>,
    /// Messages over this link since `to` started.
    pub received: Option<u64>,
    /// Messages dropped at `to` because it had them already.
    pub duplicates_dropped: Option<u64>,
    /// Messages dropped at `to` because it had a newer value.
    pub stale_dropped: Option<u64>,
    /// Messages at `from` that `to` has not yet told to have.
    #[serde(default)]
    pub backlog: Option<u64>,
    /// Messages that `from` keeps no longer and that `to` is not known to have.
    #[serde(default)]
    pub lost: Option<u64>,
}
