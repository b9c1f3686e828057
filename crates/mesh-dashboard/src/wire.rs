//! What the page is told, as it travels. Unknown is `null`, never 0.

use jiff::Timestamp;
use mesh_model::{
    BrokerId, BrokerSnapshot, Event, HealthStatus, Incident, LinkSnapshot, LinkState, MeshState, Role,
    Snapshot,
};
use serde::Serialize;
use utoipa::ToSchema;

/// Everything that is known now: the body of `GET /api/v1/status` and of the stream's `state`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct State {
    /// When this was told.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How it is with mesh-health, where the rest comes from.
    pub health: Source,
    /// How it is with the database that mesh-logs writes, where log lines, clients and the past come from.
    pub logs: Source,
    /// The last that mesh-health told; `null` if it never answered.
    pub snapshot: Option<Snapshot>,
    /// The latest incident; `null` if there was none since mesh-health started, or if that is not known.
    pub incident: Option<Incident>,
}

/// How it is with a program that this one reads from.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Source {
    /// Whether it answered when it was asked last.
    pub reachable: bool,
    /// When it answered last.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub answered_at: Option<Timestamp>,
    /// Why it is not reachable, in a sentence; `null` if it is, or if it was not asked yet.
    pub error: Option<String>,
}

impl Source {
    /// Nobody asked yet.
    pub fn unasked() -> Self {
        Self {
            reachable: false,
            answered_at: None,
            error: None,
        }
    }
}

/// One broker with its links: the body of `GET /api/v1/brokers/{id}`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BrokerDetail {
    /// When mesh-health told this.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The broker.
    pub broker: BrokerSnapshot,
    /// The links over which it receives.
    pub links_in: Vec<LinkSnapshot>,
    /// The links over which others receive from it.
    pub links_out: Vec<LinkSnapshot>,
    /// Its latest incident.
    pub incident: Option<Incident>,
}

/// The body of `GET /api/v1/links`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LinkList {
    /// When mesh-health told this.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Every direction between two brokers.
    pub links: Vec<LinkSnapshot>,
}

/// One page of incidents, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IncidentPage {
    /// The incidents.
    pub incidents: Vec<Incident>,
    /// Whether mesh-health tells them now. If not, they are from this program's memory and the database, and what was
    /// open may be over.
    pub is_live: bool,
    /// Why the older ones, which are in the database only, are missing; `null` if they are not.
    pub archive_error: Option<String>,
    /// Give this as `after` for the next page; `null` at the end.
    pub next: Option<String>,
}

/// Something that happened, as it stands on the stream.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Numbered {
    /// Its number; the stream's id is `epoch.seq`.
    pub seq: u64,
    /// What happened.
    pub event: Event,
}

/// The last minutes in columns: the place in every list is the place in `at`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct History {
    /// Milliseconds since 1970.
    pub at: Vec<i64>,
    /// The state of the whole; `null` where mesh-health did not answer.
    pub state: Vec<Option<MeshState>>,
    /// Where clients were sent.
    pub primary: Vec<Option<BrokerId>>,
    /// One entry a broker.
    pub brokers: Vec<BrokerHistory>,
    /// One entry a link.
    pub links: Vec<LinkHistory>,
    /// What happened, the oldest first; not in columns.
    pub events: Vec<Event>,
}

/// What a broker was like.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BrokerHistory {
    /// Which.
    pub id: BrokerId,
    /// What was observed.
    pub health: Vec<Option<HealthStatus>>,
    /// The part it played.
    pub role: Vec<Option<Role>>,
    /// Milliseconds from PINGREQ to PINGRESP.
    pub rtt_ms: Vec<Option<f64>>,
    /// Connected clients.
    pub clients: Vec<Option<u64>>,
    /// PUBLISH packets received, per second.
    pub in_per_s: Vec<Option<f64>>,
    /// PUBLISH packets sent, per second.
    pub out_per_s: Vec<Option<f64>>,
}

/// What a link was like.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LinkHistory {
    /// The broker whose messages are carried.
    pub from: BrokerId,
    /// The broker that fetches them.
    pub to: BrokerId,
    /// Whether canaries passed.
    pub state: Vec<Option<LinkState>>,
    /// Milliseconds of the last canary.
    pub latency_ms: Vec<Option<f64>>,
    /// Messages per second.
    pub per_s: Vec<Option<f64>>,
}
