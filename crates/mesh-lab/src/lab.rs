//! A lab from its options to its end.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_model::BrokerId;
use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control;
use crate::error::LabError;
use crate::faults::Fault;
use crate::layout::Ports;
use crate::net::Place;
use crate::options::{LabOptions, MAX_BROKERS, MAX_EXTRA};
use crate::ports::PortBlock;
use crate::processes::{STOP_DEADLINE, supervise};
use crate::programs;
use crate::setup;
use crate::shared::{Prepared, Shared};
use crate::state::State;

/// A running lab. Dropping it kills everything at once; [`Lab::stop`] ends it in order.
pub struct Lab {
    pub(crate) shared: Arc<Shared>,
    state: State,
    tasks: Vec<JoinHandle<()>>,
    down: watch::Receiver<bool>,
    /// Whether [`Self::stop`] has done its work.
    stopped: bool,
    _block: Option<PortBlock>,
}

impl Lab {
    /// Starts a lab and returns when every process answers, every link carries messages, and every broker may serve.
    ///
    /// # Errors
    ///
    /// [`LabError`]; everything that was started has ended then.
    pub async fn start(options: LabOptions) -> Result<Self, LabError> {
        if !(1..=MAX_BROKERS).contains(&options.brokers) {
            let given = options.brokers;
            return Err(LabError::Options(format!(
                "a lab has 1 to {MAX_BROKERS} brokers, not {given}"
            )));
        }
        if options.extra.len() > MAX_EXTRA {
            return Err(LabError::Options(format!(
                "a lab has at most {MAX_EXTRA} extra processes"
            )));
        }
        let programs = programs::find(&options)?;
        let state = State::open(options.state.as_deref(), options.fresh)?;
        let prepared = Prepared::new(&state, &programs, &options);
        // There is nothing in it yet that would tell more than the error.
        let prepared = prepared.inspect_err(|_| state.remove_if_temporary())?;
        // From here on, dropping the lab ends what was started.
        let mut lab = Self {
            tasks: vec![tokio::spawn(supervise(
                Arc::downgrade(&prepared.shared),
                prepared.exits,
            ))],
            shared: prepared.shared,
            state,
            down: prepared.wants_down,
            stopped: false,
            _block: prepared.block,
        };
        lab.bring_up(&options).await?;
        Ok(lab)
    }

    async fn bring_up(&mut self, options: &LabOptions) -> Result<(), LabError> {
        let shared = &self.shared;
        let deadline = Instant::now() + options.start_deadline;
        let left = || deadline.saturating_duration_since(Instant::now());
        let brokers = shared.config.topology.brokers();
        (shared.progress)(&format!("starting {} …", count(brokers.len(), "broker")));
        let nodes = brokers.iter().cloned().enumerate();
        let nodes: Vec<_> = nodes.map(|(node, broker)| (Place::Node(node), broker)).collect();
        let (starter, patience) = (Arc::clone(shared), left());
        let start = move || starter.processes.start_together(&nodes, patience);
        let started = tokio::task::spawn_blocking(start).await;
        started
            .map_err(io::Error::other)
            .map_err(LabError::io("start the brokers"))??;
        if options.balancer {
            shared.processes.start(setup::NGINX)?;
        }
        for broker in brokers {
            shared.answers(broker.id.as_str(), left()).await?;
        }
        if options.balancer {
            shared.answers(setup::NGINX, left()).await?;
        }
        // It watches what answers already, and adopts the plan that Nginx runs.
        if options.health {
            shared.processes.start(setup::HEALTH)?;
        }
        if options.logs {
            shared.processes.start(setup::LOGS)?;
        }
        if let Some(topic) = &options.ready_topic {
            let links = brokers.len() * (brokers.len() - 1);
            (shared.progress)(&format!("waiting for {} …", count(links, "link")));
            shared.links_carry(topic, left()).await?;
        }
        if options.health {
            shared.answers(setup::HEALTH, left()).await?;
            // A broker that is not in sync may not serve, so a fault would not be met as it is later. Brokers with
            // other configurations may not tell.
            if options.ready_topic.is_some() && options.broker_conf.is_none() {
                shared.are_in_sync(left()).await?;
            }
        }
        if options.dashboard {
            shared.processes.start(setup::DASHBOARD)?;
            shared.answers(setup::DASHBOARD, left()).await?;
        }
        if options.logs {
            shared.answers(setup::LOGS, left()).await?;
        }
        shared.processes.supervise_from_now_on();
        self.tasks
            .push(control::serve(&self.state.socket(), Arc::clone(shared))?);
        Ok(())
    }

    /// The configuration that every program of the lab runs with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The passwords of the mesh's users.
    pub fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }

    /// The ports on 127.0.0.1.
    pub fn ports(&self) -> &Ports {
        &self.shared.ports
    }

    /// Where this process reaches the broker `id`, with the balancer passed by.
    ///
    /// # Panics
    ///
    /// If the lab has no such broker.
    pub fn broker(&self, id: &BrokerId) -> SocketAddr {
        let place = self.config().topology.priority(id);
        let place = place.unwrap_or_else(|| panic!("the lab has no broker {id}"));
        self.shared.outside.brokers[place]
    }

    /// Where clients connect.
    pub fn balancer(&self) -> SocketAddr {
        self.shared.outside.balancer
    }

    /// Where clients connect by WebSockets, if they may.
    pub fn balancer_websockets(&self) -> Option<SocketAddr> {
        self.shared.outside.websockets.as_ref().map(|door| door.balancer)
    }

    /// Where clients connect with TLS, if they may.
    pub fn balancer_tls(&self) -> Option<SocketAddr> {
        self.shared.outside.tls.as_ref().map(|door| door.balancer)
    }

    /// Where the extra process `name` takes connections.
    ///
    /// # Panics
    ///
    /// If the lab has no such process.
    pub fn extra(&self, name: &str) -> SocketAddr {
        let place = self.shared.extra_place(name);
        let place = place.unwrap_or_else(|| panic!("the lab has no extra process {name}"));
        self.shared.outside.extra[place]
    }

    /// Where Nginx tells which plan it runs.
    pub fn readback(&self) -> SocketAddr {
        self.shared.outside.readback
    }

    /// The root of mesh-health's API, without a slash at its end.
    pub fn health_url(&self) -> String {
        format!("http://{}", self.shared.outside.health)
    }

    /// The root of the page, without a slash at its end.
    pub fn dashboard_url(&self) -> String {
        format!("http://{}", self.shared.outside.dashboard)
    }

    /// The root of what mesh-logs answers, without a slash at its end.
    pub fn logs_url(&self) -> String {
        format!("http://{}", self.shared.outside.logs)
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        self.state.root()
    }

    /// The folder with the logs and other files of the process `name`.
    pub fn log_dir(&self, name: &str) -> PathBuf {
        self.state.root().join(name)
    }

    /// The process id of `name` (a broker, `nginx`, `mesh-health`, `mesh-logs` or `mesh-dashboard`) while it runs.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.shared.processes.pid(name)
    }

    /// Puts a fault in place, or ends one.
    ///
    /// # Errors
    ///
    /// [`LabError`] if there is no such process, or if it cannot be done to it.
    pub async fn fault(&self, fault: &Fault) -> Result<(), LabError> {
        self.shared.fault(fault).await
    }

    /// Waits until a message from each broker reaches each other one on a topic below `prefix`.
    ///
    /// # Errors
    ///
    /// [`LabError::TimedOut`] at the deadline, with the links that carried nothing.
    pub async fn links_carry(&self, prefix: &str, deadline: Duration) -> Result<(), LabError> {
        self.shared.links_carry(prefix, deadline).await
    }

    /// Completes when another process has asked this lab to end.
    pub async fn asked_to_stop(&self) {
        // The sender lives as long as the lab.
        self.down.clone().wait_for(|down| *down).await.ok();
    }

    /// Ends everything in order: mesh-logs, mesh-health, Nginx, then the brokers, which save their state.
    ///
    /// # Errors
    ///
    /// [`LabError::TimedOut`] if a process had to be killed. Nothing is left in that case too.
    pub async fn stop(mut self) -> Result<(), LabError> {
        (self.shared.progress)("stopping …");
        let ended = self.shared.processes.stop(STOP_DEADLINE).await;
        self.end_tasks();
        self.stopped = true;
        // The socket's file may be gone with its folder already.
        std::fs::remove_file(self.state.socket()).ok();
        if ended.is_ok() && !std::thread::panicking() {
            self.state.remove_if_temporary();
        }
        ended
    }

    /// Kills everything at once and forgets it, with a temporary folder: for a lab that would not end in order,
    /// such as a storm.
    pub fn discard(self) {
        self.shared.processes.kill_all();
        if !std::thread::panicking() {
            self.state.remove_if_temporary();
        }
    }

    fn end_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end_tasks();
        self.shared.processes.kill_all();
        if !self.stopped {
            std::fs::remove_file(self.state.socket()).ok();
        }
        if self.state.is_temporary() && self.state.root().exists() {
            eprintln!(
                "mesh-lab: the logs of this lab are kept in {}",
                self.state.root().display()
            );
        }
    }
}

/// `1 broker`, `5 brokers`.
fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
