//! The network that chaos is brought to: where its clients connect, and how it is told of faults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mesh_lab::{Fault, Lab, Request};
use mesh_model::{BrokerId, Snapshot};
use mesh_runtime::Config;

/// How long mesh-health may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running lab, of this process or of another one.
#[derive(Debug, Clone)]
pub struct Network {
    state: PathBuf,
    config: Config,
    /// In order of priority.
    brokers: Vec<(BrokerId, SocketAddr)>,
    balancer: SocketAddr,
    has_namespaces: bool,
}

impl Network {
    /// A lab of this process.
    pub fn of(lab: &Lab) -> Self {
        Self::new(lab.state().to_owned(), lab.config().clone())
    }

    /// The lab that runs in the folder `state`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn running(state: &Path) -> anyhow::Result<Self> {
        let config = Config::load(&state.join("mesh.toml"), [], &[]).with_context(|| {
            format!(
                "there is no lab in {}; start one with `meshctl lab up`",
                state.display()
            )
        })?;
        Ok(Self::new(state.to_owned(), config))
    }

    fn new(state: PathBuf, config: Config) -> Self {
        // The read-back is at the same place inside and outside of namespaces, and all ports of a lab follow from it.
        let base = config.balancer.readback.port() + 1;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let brokers = config.topology.ids().cloned().zip((base + 1..).map(at)).collect();
        let has_namespaces = config
            .topology
            .brokers()
            .iter()
            .any(|broker| !broker.address.ip().is_loopback());
        Self {
            state,
            config,
            brokers,
            balancer: at(base),
            has_namespaces,
        }
    }

    /// The lab's folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The brokers in order of priority, and where clients reach each past the balancer.
    pub fn brokers(&self) -> &[(BrokerId, SocketAddr)] {
        &self.brokers
    }

    /// Where clients connect.
    pub fn balancer(&self) -> SocketAddr {
        self.balancer
    }

    /// Whether each broker has a network of its own, so that it can be cut off.
    pub fn has_namespaces(&self) -> bool {
        self.has_namespaces
    }

    /// Puts a fault in place, or ends one.
    ///
    /// # Errors
    ///
    /// If it cannot be done.
    pub async fn fault(&self, fault: &Fault) -> anyhow::Result<()> {
        let asked = mesh_lab::ask(&self.state, &Request::Fault(fault.clone())).await;
        asked.with_context(|| format!("the fault {fault:?}"))
    }

    /// What mesh-health says.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn status(&self) -> anyhow::Result<Snapshot> {
        Ok(serde_json::from_str(&self.get("/v1/status").await?)?)
    }

    /// The body of mesh-health's answer to `GET path`.
    ///
    /// # Errors
    ///
    /// If it does not answer, or not well.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.config.health.listen);
        let ask = move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(PATIENCE))
                .build()
                .into();
            agent.get(&url).call()?.body_mut().read_to_string()
        };
        Ok(tokio::task::spawn_blocking(ask).await??)
    }
}
