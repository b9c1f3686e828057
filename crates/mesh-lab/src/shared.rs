//! What the parts of a lab share, made before any of its processes runs.

use std::sync::Arc;

use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;
use tokio::sync::{mpsc, watch};

use crate::error::LabError;
use crate::layout::Ports;
use crate::net::{Addresses, Network};
use crate::options::{LabOptions, Progress};
use crate::ports::{self, PortBlock};
use crate::process::Exit;
use crate::processes::Processes;
use crate::programs::Programs;
use crate::setup;
use crate::state::State;

/// What the tasks of a lab work on.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    pub(crate) net: Arc<Network>,
    pub(crate) processes: Processes,
    /// The addresses inside the lab's network.
    pub(crate) inside: Addresses,
    /// The addresses that this process and the user's shell reach.
    pub(crate) outside: Addresses,
    pub(crate) ports: Ports,
    /// The names of the extra processes, in the order of their addresses.
    pub(crate) extra: Vec<String>,
    pub(crate) progress: Progress,
    down: watch::Sender<bool>,
}

/// A lab of which nothing runs but the keeper.
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    pub(crate) exits: mpsc::UnboundedReceiver<Exit>,
    pub(crate) wants_down: watch::Receiver<bool>,
    pub(crate) block: Option<PortBlock>,
}

impl Prepared {
    pub(crate) fn new(state: &State, programs: &Programs, options: &LabOptions) -> Result<Self, LabError> {
        let block = match options.base_port {
            Some(_) => None,
            None => Some(PortBlock::reserve()?),
        };
        let reserved = block.as_ref().map(PortBlock::base);
        let base = options.base_port.or(reserved).unwrap_or_default();
        let ports = Ports::new(base, options.brokers)?
            .with_extra(options.extra.len())
            .with_doors(options.websockets, options.certificates.is_some())?;
        check_ports(&ports, options)?;
        let (net, inside) = Network::new(options.net, &ports)?;
        let net = Arc::new(net);
        let setup = setup::write(state, programs, &inside, options)?;
        let progress = options.progress.clone().unwrap_or_else(|| Arc::new(|_: &str| {}));
        let (processes, exits) = Processes::new(setup.specs, Arc::clone(&net), Arc::clone(&progress))?;
        let (down, wants_down) = watch::channel(false);
        let shared = Arc::new(Shared {
            config: setup.config,
            secrets: setup.secrets,
            net,
            processes,
            inside,
            outside: Addresses::loopback(&ports),
            ports,
            extra: options.extra.iter().map(|extra| extra.name.clone()).collect(),
            progress,
            down,
        });
        Ok(Self {
            shared,
            exits,
            wants_down,
            block,
        })
    }
}

impl Shared {
    /// The place of the extra process `name` among their addresses.
    pub(crate) fn extra_place(&self, name: &str) -> Option<usize> {
        self.extra.iter().position(|extra| extra == name)
    }

    /// Asks the owner of the lab to stop it.
    pub(crate) fn ask_to_stop(&self) {
        self.down.send_replace(true);
    }
}

fn check_ports(ports: &Ports, options: &LabOptions) -> Result<(), LabError> {
    if options.balancer {
        ports::check(ports.balancer, "balancer")?;
        ports::check(ports.readback, "read-back of the balancer")?;
    }
    for (index, port) in ports.brokers.iter().enumerate() {
        ports::check(*port, &format!("broker{}", index + 1))?;
    }
    for door in [&ports.websockets, &ports.tls].into_iter().flatten() {
        if options.balancer {
            ports::check(door.balancer, "balancer")?;
        }
        for (index, port) in door.brokers.iter().enumerate() {
            ports::check(*port, &format!("broker{}", index + 1))?;
        }
    }
    if options.health {
        ports::check(ports.health, "mesh-health")?;
    }
    if options.dashboard {
        ports::check(ports.dashboard, "mesh-dashboard")?;
    }
    if options.logs {
        ports::check(ports.logs, "mesh-logs")?;
    }
    for (port, extra) in ports.extra.iter().zip(&options.extra) {
        ports::check(*port, &extra.name)?;
    }
    Ok(())
}
