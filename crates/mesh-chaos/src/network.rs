//! The network that chaos is brought to: where its clients connect, and how it is told of faults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use mesh_lab::{Fault, Lab, Request};
use mesh_model::{BrokerId, Snapshot};
use mesh_runtime::Config;

use crate::Login;
use crate::machines::{Machines, Reach};

/// How long mesh-health may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who makes the faults.
#[derive(Debug, Clone)]
enum Hands {
    /// The lab in this folder.
    Lab(PathBuf),
    /// systemd on machines of their own.
    Machines(Machines),
    /// Nobody: brokers are in containers, or are somebody else's.
    Nobody,
}

/// A running network: a lab of this process or of another one, or one that is deployed.
#[derive(Debug, Clone)]
pub struct Network {
    hands: Hands,
    config: Config,
    /// In order of priority.
    brokers: Vec<(BrokerId, SocketAddr)>,
    balancer: SocketAddr,
    can_cut: bool,
    login: Login,
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

    /// The network that is deployed as `config` says, with this machine in front of the brokers. Without a way to reach their
    /// machines no fault can be made in it.
    pub async fn deployed(config: Config, reach: Option<Reach>, login: Login) -> Self {
        let brokers = config.topology.brokers().iter();
        let brokers: Vec<_> = brokers
            .map(|broker| (broker.id.clone(), broker.address))
            .collect();
        let mut balancer = config.balancer.listen;
        if balancer.ip().is_unspecified() {
            balancer.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let machines = reach.map(|reach| Machines {
            brokers: brokers.clone(),
            reach,
            login: login.clone(),
        });
        let can_cut = match &machines {
            Some(machines) => machines.can_cut().await,
            None => false,
        };
        Self {
            can_cut,
            hands: machines.map_or(Hands::Nobody, Hands::Machines),
            config,
            brokers,
            balancer,
            login,
        }
    }

    fn new(state: PathBuf, config: Config) -> Self {
        // The read-back is at the same place inside and outside of namespaces, and all ports of a lab follow from it.
        let base = config.balancer.readback.port() + 1;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let brokers = config.topology.ids().cloned().zip((base + 1..).map(at)).collect();
        let can_cut = config
            .topology
            .brokers()
            .iter()
            .any(|broker| !broker.address.ip().is_loopback());
        Self {
            hands: Hands::Lab(state),
            config,
            brokers,
            balancer: at(base),
            can_cut,
            login: None,
        }
    }

    /// The machines of a network that is deployed.
    pub fn machines(&self) -> Option<&Machines> {
        match &self.hands {
            Hands::Machines(machines) => Some(machines),
            Hands::Lab(_) | Hands::Nobody => None,
        }
    }

    /// Whether there is somebody to make faults.
    pub fn can_break(&self) -> bool {
        !matches!(self.hands, Hands::Nobody)
    }

    /// As whom clients log in.
    pub fn login(&self) -> &Login {
        &self.login
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
    pub fn can_cut(&self) -> bool {
        self.can_cut
    }

    /// Puts a fault in place, or ends one.
    ///
    /// # Errors
    ///
    /// If it cannot be done.
    pub async fn fault(&self, fault: &Fault) -> anyhow::Result<()> {
        let done = match &self.hands {
            Hands::Lab(state) => {
                let asked = mesh_lab::ask(state, &Request::Fault(fault.clone())).await;
                asked.map_err(anyhow::Error::from)
            }
            Hands::Machines(machines) => machines.fault(fault).await,
            Hands::Nobody => Err(anyhow!("the brokers' machines are not to be reached")),
        };
        done.with_context(|| format!("the fault {fault:?}"))
    }

    /// Mends what faults have left in a network that is deployed; a lab goes as a whole.
    ///
    /// # Errors
    ///
    /// If a machine cannot be reached.
    pub async fn mend(&self) -> anyhow::Result<()> {
        match &self.hands {
            Hands::Lab(_) | Hands::Nobody => Ok(()),
            Hands::Machines(machines) => machines.mend().await,
        }
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
