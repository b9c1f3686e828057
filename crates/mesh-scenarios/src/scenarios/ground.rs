//! Where a scenario takes place: in a lab of its own, or in the network that is deployed.

use std::net::SocketAddr;

use anyhow::Context;
use mesh_chaos::Network;
use mesh_lab::{Fault, Lab, wait_until};
use mesh_model::snapshot::BrokerSnapshot;
use mesh_model::{BrokerId, HealthStatus};
use mesh_runtime::atomic_file;
use mesh_runtime::mqtt::mqttbytes::v5::{ConnAck, Connect, LastWill};
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, Version, mqttbytes, open_within};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Settings, network};
use crate::client;
use crate::story::Story;

/// Below this prefix messages show that links carry: where the scenarios write too, since users of their own may not
/// write where the lab does.
const LINKS: &str = "scenario/links/";

/// Where a client connects, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) login: mesh_chaos::Login,
}

impl Door {
    /// One at which everybody is let in.
    pub(super) fn open(address: SocketAddr) -> Self {
        Self { address, login: None }
    }

    /// Opens a session with a CONNECT of the caller's own.
    pub(super) async fn enter(
        &self,
        version: Version,
        connect: Connect,
        will: Option<LastWill>,
    ) -> Result<(Connection, ConnAck), MqttError> {
        let stream = TcpStream::connect(self.address).await?;
        let login = self
            .login
            .as_ref()
            .map(|(name, password)| mqttbytes::v5::Login::new(name, password));
        Connection::start_in(version, stream, Packet::Connect(connect, will, login)).await
    }
}

/// A network with brokers and a balancer, in which faults can be made.
pub(super) struct Ground {
    lab: Option<Lab>,
    network: Network,
    /// Where `mosquitto_pub` and `mosquitto_sub` find a name and password: on their command lines every user of this
    /// machine would see it.
    clients: Option<TempDir>,
}

impl Ground {
    /// The network that is deployed, or a new lab.
    pub(super) async fn enter(story: &mut Story, settings: &Settings) -> anyhow::Result<Self> {
        if let Some(network) = &settings.deployed {
            story.say(format_args!(
                "in the network of {}",
                network.config().path.display()
            ));
            // The scenario before may have broken it.
            let well = wait_until("a network that is well", super::PATIENCE * 2, async || {
                let status = network.status().await?;
                let is_well = |broker: &BrokerSnapshot| broker.health == HealthStatus::Healthy;
                anyhow::ensure!(
                    status.brokers.iter().all(is_well),
                    "{:?}: {:?}",
                    status.state,
                    status.brokers
                );
                anyhow::Ok(())
            });
            well.await?;
            let ground = Self {
                lab: None,
                network: network.clone(),
                clients: configure_clients(network.login())?,
            };
            // Healthy brokers may have links that are still to be made.
            let carry = mesh_lab::links_carry(ground.sessions().await?, LINKS, super::PATIENCE);
            carry.await.with_context(|| {
                format!("messages below {LINKS} do not pass (may --user write and read there?)")
            })?;
            return Ok(ground);
        }
        let lab = network(story, settings).await?;
        Ok(Self {
            network: Network::of(&lab),
            lab: Some(lab),
            clients: None,
        })
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// The balancer, as clients use it.
    pub(super) fn door(&self) -> Door {
        self.door_at(self.network.balancer())
    }

    /// A place of this network.
    pub(super) fn door_at(&self, address: SocketAddr) -> Door {
        Door {
            address,
            login: self.network.login().clone(),
        }
    }

    /// The brokers in order of priority.
    pub(super) fn ids(&self) -> impl Iterator<Item = &BrokerId> {
        self.network.brokers().iter().map(|(id, _)| id)
    }

    /// Where the broker `id` is reached, past the balancer.
    pub(super) fn broker(&self, id: &BrokerId) -> anyhow::Result<SocketAddr> {
        let mut brokers = self.network.brokers().iter();
        let found = brokers.find(|(broker, _)| broker == id);
        found
            .map(|(_, address)| *address)
            .with_context(|| format!("there is no {id}"))
    }

    /// `mosquitto_pub` or `mosquitto_sub` with the name and password that the network asks for.
    pub(super) fn mosquitto(
        &self,
        name: &str,
        address: SocketAddr,
        version: &str,
    ) -> anyhow::Result<Command> {
        let mut command = client::mosquitto(name, address, version)?;
        if let Some(folder) = &self.clients {
            command.env("XDG_CONFIG_HOME", folder.path());
        }
        Ok(command)
    }

    /// A client of this name, as the network wants it.
    pub(super) fn identity(&self, client_id: &str) -> Identity {
        Identity {
            client_id: client_id.to_owned(),
            login: self.network.login().clone(),
            keep_alive_s: 0,
        }
    }

    /// A session on each broker, past the balancer.
    async fn sessions(&self) -> anyhow::Result<Vec<(BrokerId, Connection)>> {
        let mut sessions = Vec::new();
        for (id, address) in self.network.brokers() {
            let identity = self.identity(&format!("scenario-links-{id}"));
            let opened = open_within(*address, &identity, super::PATIENCE).await;
            let session = opened.with_context(|| format!("a session on {id}"))?;
            sessions.push((id.clone(), session));
        }
        Ok(sessions)
    }

    /// Who serves.
    pub(super) async fn primary(&self) -> anyhow::Result<BrokerId> {
        Ok(self.network.status().await?.primary)
    }

    /// Ends a broker in order, so that it saves its state.
    pub(super) async fn halt(&self, id: &BrokerId) -> anyhow::Result<()> {
        match (&self.lab, self.network.machines()) {
            (Some(lab), _) => Ok(lab.halt(id.as_str()).await?),
            (None, machines) => machines.context("no machines")?.halt(id).await,
        }
    }

    pub(super) async fn kill(&self, id: &BrokerId) -> anyhow::Result<()> {
        let process = id.to_string();
        self.network.fault(&Fault::Kill { process }).await
    }

    /// Starts a broker that does not run, and waits until it takes clients.
    pub(super) async fn restart(&self, id: &BrokerId) -> anyhow::Result<()> {
        let process = id.to_string();
        self.network.fault(&Fault::Restart { process }).await
    }

    /// Makes a broker save its state now.
    pub(super) async fn save(&self, id: &BrokerId) -> anyhow::Result<()> {
        match (&self.lab, self.network.machines()) {
            (Some(lab), _) => Ok(lab.save(id.as_str())?),
            (None, machines) => machines.context("no machines")?.save(id).await,
        }
    }

    /// Removes the files of a broker that does not run.
    pub(super) async fn lose_files(&self, id: &BrokerId) -> anyhow::Result<()> {
        let Some(lab) = &self.lab else {
            let machines = self.network.machines();
            return machines.context("no machines")?.lose_files(id).await;
        };
        for entry in std::fs::read_dir(lab.log_dir(id.as_str()))? {
            let path = entry?.path();
            // Its configuration is rendered, not its own.
            if path.is_file() && path.extension().is_none_or(|end| end != "conf" && end != "log") {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Ends a lab in order; what is deployed stays.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        match self.lab {
            Some(lab) => Ok(lab.stop().await?),
            None => Ok(()),
        }
    }
}

/// A folder with the configuration of Mosquitto's clients, for this user only.
fn configure_clients(login: &mesh_chaos::Login) -> anyhow::Result<Option<TempDir>> {
    let Some((user, password)) = login else {
        return Ok(None);
    };
    let folder = tempfile::tempdir().context("make a folder for the clients' configuration")?;
    for client in ["mosquitto_pub", "mosquitto_sub"] {
        let lines = format!("-u {user}\n-P {password}\n");
        atomic_file::write(&folder.path().join(client), lines.as_bytes(), 0o600)?;
    }
    Ok(Some(folder))
}
