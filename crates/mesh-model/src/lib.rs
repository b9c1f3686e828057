//! The vocabulary of the mesh, shared by every program of it.
//!
//! This crate does no IO and reads no clock, so everything in it can be tested as plain values. It guarantees
//! that a value of one of its types is valid: a [`BrokerId`] can stand in a topic, a file name and a client id;
//! a [`Topology`] has at least one broker and no duplicates; a [`Plan`] has exactly one primary.

pub mod event;
pub mod health;
pub mod ids;
pub mod incident;
pub mod log_record;
pub mod names;
pub mod plan;
pub mod snapshot;
pub mod topology;

pub use event::{Event, EventName};
pub use health::{AdminState, HealthStatus, LinkState, MeshState, Role};
pub use ids::{BrokerId, InvalidBrokerId};
pub use incident::{Incident, IncidentKind, IncidentList, IncidentPhase, IncidentStep};
pub use log_record::{AttributeValue, Attributes, LogRecord, Severity};
pub use plan::Plan;
pub use snapshot::{BalancerSnapshot, BrokerSnapshot, LinkSnapshot, RetainedSnapshot, Snapshot};
pub use topology::{Broker, Link, Topology, TopologyError};
