//! Everything that touches the world: sockets, files, processes, clocks. It decides nothing.

pub mod announce;
pub mod api;
pub mod balancer;
pub mod clock;
pub mod driver;
pub mod guard;
pub mod happenings;
pub mod memory;
pub mod metrics;
pub mod monitor;
pub mod mover;
mod nginx;
pub mod probe;
pub mod service;
pub mod sessions;
pub mod sock_destroy;
pub mod wire;

use tokio::sync::mpsc;

use crate::core::Input;

/// Where the tasks of the shell report to: the one owner of the core.
pub type Reports = mpsc::Sender<Input>;

/// Hands `input` to the owner of the core. It is gone only when the program ends.
async fn report(reports: &Reports, input: Input) {
    if reports.send(input).await.is_err() {
        tracing::debug!("a report came after the end");
    }
}
