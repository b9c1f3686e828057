//! Closes Nginx's sessions to a broker when the core says so, and reports how it went.
//!
//! Guarantees: nothing is closed before the workers of earlier generations stopped to accept clients, or did not do
//! so in time; each order has one report. Where the right to close connections is missing, all that can be done is
//! to end old workers, which may cut other sessions too, and says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{BrokerId, Snapshot, Topology};
use mesh_runtime::Config;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::sessions::Sessions;
use super::{Reports, report};
use crate::core::{Closed, Input};

/// How long old workers may take until they accept nobody any longer. They usually need a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// An order to close sessions; see [`crate::core::Command::MoveSessions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveOrder {
    /// The broker.
    pub from: BrokerId,
    /// The generation of the plan that sends clients elsewhere.
    pub generation: u64,
    /// At most this many; all if it is `None`.
    pub at_most: Option<u32>,
}

/// The one who closes sessions.
#[derive(Debug)]
pub struct Mover {
    sessions: Sessions,
    topology: Topology,
    reports: Reports,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The generation whose predecessors are known to accept nobody.
    stopped: Option<u64>,
    is_capable: bool,
}

impl Mover {
    /// Closes sessions of the Nginx that `config` describes.
    pub fn new(config: &Config, reports: Reports, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self {
            sessions: Sessions::new(config),
            topology: config.topology.clone(),
            reports,
            snapshots,
            stopped: None,
            is_capable: false,
        }
    }

    /// Finds out whether it can be done, then takes `orders` until `shutdown`.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<MoveOrder>, shutdown: CancellationToken) {
        let capability = self.sessions.capability().await;
        self.is_capable = capability.is_ok();
        if let Err(error) = &capability {
            tracing::warn!(
                error,
                "sessions cannot be moved off a broker that hangs; old workers of Nginx will be ended instead, \
                 which may cut sessions on healthy brokers"
            );
        }
        report(&self.reports, Input::CanMoveSessions(capability)).await;
        loop {
            let order = tokio::select! {
                () = shutdown.cancelled() => return,
                order = orders.recv() => order,
            };
            let Some(order) = order else { return };
            let from = order.from.clone();
            let result = self.obey(order).await;
            if let Err(error) = &result {
                tracing::warn!(broker = %from, error, "the sessions of a broker were not moved");
            }
            report(&self.reports, Input::Moved { from, result }).await;
        }
    }

    async fn obey(&mut self, order: MoveOrder) -> Result<Closed, String> {
        let Some(broker) = self.topology.get(&order.from) else {
            return Err(format!("there is no broker {}", order.from));
        };
        let addresses: Vec<SocketAddr> = broker.addresses().collect();
        if self.stopped < Some(order.generation) {
            match self.sessions.old_workers_stopped(PATIENCE).await {
                Ok(()) => report(&self.reports, Input::OldWorkersStopped(order.generation)).await,
                // Whoever comes back through them is found by a later look.
                Err(error) => tracing::warn!(error, "old workers of Nginx do not stop"),
            }
            self.stopped = Some(order.generation);
        }
        if self.snapshots.borrow().primary == order.from {
            return Err(format!("{} serves again", order.from));
        }
        let at_most = order
            .at_most
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let closed = if self.is_capable {
            self.sessions.close(&addresses, at_most).await?
        } else {
            self.without_capability(&addresses, at_most).await?
        };
        Ok(Closed {
            closed: closed.closed as u64,
            left: closed.left as u64,
        })
    }

    async fn without_capability(
        &self,
        broker: &[SocketAddr],
        at_most: Option<usize>,
    ) -> Result<super::sessions::Closed, String> {
        let before = self.sessions.count(broker).await?;
        // A draining broker works: its clients can wait until they may be moved without harm to others.
        if before > 0 && at_most.is_none() {
            self.sessions.close_by_ending_old_workers().await?;
        }
        let left = self.sessions.count(broker).await?;
        Ok(super::sessions::Closed {
            closed: before.saturating_sub(left),
            left,
        })
    }
}
