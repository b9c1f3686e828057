//! Where a scenario takes place: in a lab of its own, or in the network that is deployed.

use std::net::SocketAddr;

use anyhow::Context;
use mesh_chaos::Network;
use mesh_lab::Lab;
use mesh_model::BrokerId;
use mesh_runtime::mqtt::Identity;
use tokio::process::Command;

use super::{Settings, network};
use crate::client;
use crate::story::Story;

/// A network with brokers and a balancer, in which faults can be made.
pub(super) struct Ground {
    lab: Option<Lab>,
    network: Network,
}

impl Ground {
    /// The network that is deployed, or a new lab.
    pub(super) async fn enter(story: &mut Story, settings: &Settings) -> anyhow::Result<Self> {
        if let Some(network) = &settings.deployed {
            story.say(format_args!(
                "in the network of {}",
                network.config().path.display()
            ));
            return Ok(Self {
                lab: None,
                network: network.clone(),
            });
        }
        let lab = network(story, settings).await?;
        Ok(Self {
            network: Network::of(&lab),
            lab: Some(lab),
        })
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
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
        if let Some((user, password)) = self.network.login() {
            command.args(["-u", user, "-P", password]);
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
