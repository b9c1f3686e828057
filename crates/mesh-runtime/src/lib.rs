//! What every program of the mesh needs, once: configuration, secrets, telemetry, shutdown, files that others
//! read, HTTP serving, and plain MQTT connections.
//!
//! Nothing here decides anything about brokers. The daemons depend on this crate, and it on `mesh-model` only.

pub mod atomic_file;
pub mod config;
pub mod daemon;
pub mod http;
pub mod metrics;
pub mod mqtt;
pub mod notify;
pub mod secrets;
pub mod shutdown;
pub mod telemetry;

pub use config::{Config, ConfigArgs, ConfigError, EXIT_CONFIG};
