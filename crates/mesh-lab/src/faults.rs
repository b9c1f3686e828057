//! Faults, and whether a process answers again after one.

use std::time::Duration;

use mesh_model::BrokerId;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::lab::Lab;
use crate::ready;
use crate::setup;
use crate::shared::Shared;
use crate::wait::poll_until;

/// How long a process may take to stand still.
const HANG_DEADLINE: Duration = Duration::from_secs(5);

/// How long a restarted process may take to answer: a broker may have to load a large state.
const RESTART_DEADLINE: Duration = Duration::from_secs(30);

/// How long a daemon may take to end in order.
const HALT_DEADLINE: Duration = Duration::from_secs(10);

/// Something to do to a running lab. `process` is a broker's id, `nginx`, `mesh-health` or
/// `mesh-dashboard`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    /// SIGKILL. A broker stays dead until it is restarted; a daemon is started again.
    Kill {
        /// Who.
        process: String,
    },
    /// SIGSTOP: the process keeps its sockets and says nothing.
    Hang {
        /// Who.
        process: String,
    },
    /// Ends [`Self::Hang`].
    Resume {
        /// Who.
        process: String,
    },
    /// Kills what is left of the process, starts it, and waits until it answers.
    Restart {
        /// Who.
        process: String,
    },
    /// Drops every packet from and to the broker's node, or between two nodes, without a word to anyone.
    Cut {
        /// Who.
        broker: BrokerId,
        /// From whom; from everyone if `None`.
        from: Option<BrokerId>,
    },
    /// Drops every packet that one broker's node sends to another's, without a word to anyone; what comes back passes.
    CutWay {
        /// Who is not reached.
        broker: BrokerId,
        /// By whom.
        from: BrokerId,
    },
    /// Drops a share of the packets from and to the broker's node, at random.
    Loss {
        /// Who.
        broker: BrokerId,
        /// Of a hundred packets so many, 1 to 99.
        percent: u8,
    },
    /// Lets no more than so much through to the broker's node, and from it.
    Slow {
        /// Who.
        broker: BrokerId,
        /// Thousand bits a second, each way.
        kbit: u32,
    },
    /// Ends [`Self::Cut`] and [`Self::CutWay`] of the same names; without `from` every cut of the broker, and
    /// [`Self::Loss`] and [`Self::Slow`].
    Heal {
        /// Who.
        broker: BrokerId,
        /// From whom.
        from: Option<BrokerId>,
    },
}

impl Lab {
    /// [`Fault::Kill`]; returns when the process is gone.
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn kill(&self, process: &str) -> Result<(), LabError> {
        let process = process.to_owned();
        self.fault(&Fault::Kill { process }).await
    }

    /// [`Fault::Hang`]; returns when the process stands still.
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn hang(&self, process: &str) -> Result<(), LabError> {
        let process = process.to_owned();
        self.fault(&Fault::Hang { process }).await
    }

    /// [`Fault::Resume`].
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn resume(&self, process: &str) -> Result<(), LabError> {
        let process = process.to_owned();
        self.fault(&Fault::Resume { process }).await
    }

    /// [`Fault::Restart`]; returns when the process answers.
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn restart(&self, process: &str) -> Result<(), LabError> {
        let process = process.to_owned();
        self.fault(&Fault::Restart { process }).await
    }

    /// Ends a daemon or an extra process in order and leaves it so until [`Self::restart`].
    ///
    /// # Errors
    ///
    /// [`LabError::Unknown`] if there is no such process, [`LabError::TimedOut`] if it had to be killed.
    pub async fn halt(&self, process: &str) -> Result<(), LabError> {
        self.shared.processes.halt(process, HALT_DEADLINE).await
    }

    /// Makes a broker save its state now, as it does by itself each `autosave_interval` (mosquitto(8), SIGUSR1).
    ///
    /// # Errors
    ///
    /// [`LabError::NotAlive`].
    pub fn save(&self, broker: &str) -> Result<(), LabError> {
        self.shared.processes.running(broker)?.signal(Signal::USR1);
        Ok(())
    }

    /// [`Fault::Cut`].
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn cut(&self, broker: &BrokerId, from: Option<&BrokerId>) -> Result<(), LabError> {
        let (broker, from) = (broker.clone(), from.cloned());
        self.fault(&Fault::Cut { broker, from }).await
    }

    /// [`Fault::CutWay`].
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn cut_way(&self, broker: &BrokerId, from: &BrokerId) -> Result<(), LabError> {
        let (broker, from) = (broker.clone(), from.clone());
        self.fault(&Fault::CutWay { broker, from }).await
    }

    /// [`Fault::Heal`].
    ///
    /// # Errors
    ///
    /// As [`Lab::fault`].
    pub async fn heal(&self, broker: &BrokerId, from: Option<&BrokerId>) -> Result<(), LabError> {
        let (broker, from) = (broker.clone(), from.cloned());
        self.fault(&Fault::Heal { broker, from }).await
    }
}

impl Shared {
    pub(crate) async fn fault(&self, fault: &Fault) -> Result<(), LabError> {
        match fault {
            Fault::Kill { process } => {
                let process = self.processes.running(process)?;
                process.signal(Signal::KILL);
                process.ended().await;
                Ok(())
            }
            Fault::Hang { process } => self.hang(process).await,
            Fault::Resume { process } => {
                self.processes.running(process)?.signal(Signal::CONT);
                Ok(())
            }
            Fault::Restart { process } => {
                self.processes.restart(process).await?;
                self.answers(process, RESTART_DEADLINE).await
            }
            Fault::Cut { broker, from } => {
                let (node, from) = self.nodes(broker, from.as_ref())?;
                self.net.cut(node, from)
            }
            Fault::CutWay { broker, from } => {
                let to = self.nodes(broker, Some(from))?.0;
                let from = self.nodes(from, None)?.0;
                self.net.cut_way(from, to)
            }
            Fault::Loss { broker, percent } => {
                if !(1..=99).contains(percent) {
                    return Err(LabError::Options(format!(
                        "of a hundred packets 1 to 99 can be dropped, not {percent}"
                    )));
                }
                self.net.loss(self.nodes(broker, None)?.0, *percent)
            }
            Fault::Slow { broker, kbit } => self.net.slow(self.nodes(broker, None)?.0, *kbit),
            Fault::Heal { broker, from } => {
                let (node, from) = self.nodes(broker, from.as_ref())?;
                self.net.heal(node, from)
            }
        }
    }

    async fn hang(&self, name: &str) -> Result<(), LabError> {
        let process = self.processes.running(name)?;
        process.signal(Signal::STOP);
        let what = format!("standstill of {name}");
        let stopped = poll_until(&what, HANG_DEADLINE, || async {
            if process.is_stopped() {
                Ok(())
            } else {
                Err("it still runs")
            }
        });
        Ok(stopped.await?)
    }

    fn nodes(&self, broker: &BrokerId, from: Option<&BrokerId>) -> Result<(usize, Option<usize>), LabError> {
        let node = |id: &BrokerId| {
            let topology = &self.config.topology;
            topology.priority(id).ok_or_else(|| LabError::Unknown {
                name: id.to_string(),
                known: topology
                    .ids()
                    .map(BrokerId::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        if from == Some(broker) {
            return Err(LabError::Options(format!(
                "{broker} cannot be cut off from itself"
            )));
        }
        Ok((node(broker)?, from.map(node).transpose()?))
    }

    /// Waits until the process `name` does what it is there for.
    pub(crate) async fn answers(&self, name: &str, deadline: Duration) -> Result<(), LabError> {
        let broker = name
            .parse()
            .ok()
            .and_then(|id: BrokerId| self.config.topology.priority(&id));
        let look = || async {
            if let Some(died) = self.processes.died(name) {
                return Ok(Err(died));
            }
            let answer = match (broker, name) {
                (Some(node), _) => {
                    let broker = &self.config.topology.brokers()[node];
                    ready::session(&self.net, node, broker, &self.secrets)
                        .await
                        .map(drop)
                }
                (None, setup::NGINX) => ready::balancer(&self.net, self.inside.readback).await.map(drop),
                (None, setup::HEALTH) => ready::healthy(&self.net, self.inside.health).await,
                (None, setup::DASHBOARD) => ready::healthy(&self.net, self.inside.dashboard).await,
                (None, setup::LOGS) => ready::healthy(&self.net, self.inside.logs).await,
                (None, name) => match self.extra_place(name) {
                    Some(place) => ready::listens(&self.net, self.inside.extra[place]).await,
                    None => Err("there is no such process".to_owned()),
                },
            };
            answer.map(Ok)
        };
        poll_until(&format!("an answer of {name}"), deadline, look).await?
    }

    /// Waits until mesh-health knows that every broker has what the others retain.
    pub(crate) async fn are_in_sync(&self, deadline: Duration) -> Result<(), LabError> {
        let look = || ready::in_sync(&self.net, self.inside.health);
        Ok(poll_until("brokers in sync", deadline, look).await?)
    }

    /// Waits until a message from each broker reaches each other one on a topic below `prefix`.
    pub(crate) async fn links_carry(&self, prefix: &str, deadline: Duration) -> Result<(), LabError> {
        let topology = &self.config.topology;
        let sessions = ready::sessions(&self.net, topology.brokers(), &self.secrets);
        ready::links_carry_unless(sessions, prefix, deadline, || {
            topology.ids().find_map(|id| self.processes.died(id.as_str()))
        })
        .await
    }
}
