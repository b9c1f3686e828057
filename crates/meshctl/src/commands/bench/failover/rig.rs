//! One system with its clients on it, ready for a fault.

use std::time::{Duration, Instant};

use mesh_lab::Lab;
use mesh_lab::fleet::{Fleet, FleetOptions, LogMarks, Since};
use mesh_model::BrokerId;

use super::service::Service;
use super::systems::System;

/// Direct sessions at each broker: nobody has any business cutting those of a broker that is well.
const BYSTANDERS: usize = 4;

/// The pause of a session after a connection that could not be made.
const RETRY: Duration = Duration::from_millis(100);

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Rig<'a> {
    pub lab: &'a Lab,
    pub system: System,
    /// Where clients are sent.
    pub primary: BrokerId,
    /// Where they are sent next.
    pub backup: BrokerId,
    /// Sessions through the balancer.
    pub fleet: Fleet,
    pub sessions: usize,
    pub service: Service,
    /// Tells the names of this rig's clients from those of all others.
    name: String,
    bystanders: Vec<(BrokerId, Fleet)>,
}

impl<'a> Rig<'a> {
    /// Starts the system and connects the clients. `name` is of this rig alone.
    pub async fn start(lab: &'a Lab, system: System, sessions: usize, name: &str) -> anyhow::Result<Self> {
        system.start(lab).await?;
        let (primary, backup) = system.order(lab).await?;
        let address = system.address(lab);
        let fleet = |addresses, sessions, name| {
            Fleet::start(&FleetOptions {
                name,
                addresses,
                sessions,
                retry: RETRY,
                patience: Duration::from_secs(3),
            })
        };
        let ids = lab.config().topology.ids().cloned();
        let bystanders = ids
            .map(|id| {
                let direct = fleet(vec![lab.broker(&id)], BYSTANDERS, format!("{name}-direct-{id}"));
                (id, direct)
            })
            .collect();
        let rig = Self {
            lab,
            system,
            primary,
            backup,
            fleet: fleet(vec![address], sessions, format!("{name}-fleet")),
            sessions,
            service: Service::start(address, &format!("{name}-loop")),
            name: name.to_owned(),
            bystanders,
        };
        let connected = rig.fleet.wait_connected(CONNECT_DEADLINE).await;
        anyhow::ensure!(
            connected == sessions,
            "{system}: only {connected} of {sessions} sessions could connect"
        );
        for (id, direct) in &rig.bystanders {
            let connected = direct.wait_connected(CONNECT_DEADLINE).await;
            anyhow::ensure!(
                connected == BYSTANDERS,
                "not every direct session could connect to {id}"
            );
        }
        let served = rig.service.back(Instant::now(), CONNECT_DEADLINE).await;
        anyhow::ensure!(served.is_some(), "{system} does not serve");
        Ok(rig)
    }

    /// How often sessions were cut since `start` that are direct to a broker for which `was_well`.
    pub fn bystanders_cut(&self, start: Instant, was_well: impl Fn(&BrokerId) -> bool) -> u64 {
        let well = self.bystanders.iter().filter(|(id, _)| was_well(id));
        well.map(|(_, fleet)| disconnects(&fleet.since(start))).sum()
    }

    /// How many connections of this rig through the balancer went to another broker than `expected` since `marks`.
    pub fn strayed(&self, marks: &LogMarks, expected: &BrokerId) -> anyhow::Result<usize> {
        let ours = [format!("{}-loop-", self.name), format!("{}-fleet-", self.name)];
        let is_ours = |client: &str| ours.iter().any(|prefix| client.starts_with(prefix));
        let connections = marks.connections()?;
        let strayed = connections
            .iter()
            .filter(|(client, broker)| broker != expected && is_ours(client));
        Ok(strayed.count())
    }

    /// Ends the clients and the system.
    pub async fn finish(self) -> anyhow::Result<()> {
        let (system, lab) = (self.system, self.lab);
        drop(self);
        system.stop(lab).await
    }
}

/// All of them together.
pub fn disconnects(since: &Since) -> u64 {
    since.disconnects.iter().copied().map(u64::from).sum()
}
