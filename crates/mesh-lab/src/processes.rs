//! All processes of a lab by name, and who may start one when.

mod stop;
mod supervise;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_model::Broker;
use rustix::process::Signal;
use tokio::sync::mpsc;

use crate::error::LabError;
use crate::keeper::Keeper;
use crate::net::{Network, Place};
use crate::options::Progress;
use crate::process::{Exit, Process, Spec};
use crate::wait::poll_until;

pub(crate) use stop::STOP_DEADLINE;
pub(crate) use supervise::supervise;

/// Time between two looks at whether brokers listen: less than a broker needs from there to its bridges.
const LISTEN_STEP: Duration = Duration::from_micros(100);

/// How much of a log is shown when its process died at the start.
const TAIL_LINES: usize = 10;

/// The processes of a lab.
pub(crate) struct Processes {
    table: Mutex<Table>,
    net: Arc<Network>,
    keeper: Arc<Keeper>,
    exits: mpsc::UnboundedSender<Exit>,
    progress: Progress,
}

struct Table {
    entries: BTreeMap<String, Entry>,
    /// Names in the order in which processes are started.
    order: Vec<String>,
    supervised: bool,
    /// Nothing is started any more.
    stopping: bool,
}

impl Table {
    fn unknown(&self, name: &str) -> LabError {
        LabError::Unknown {
            name: name.to_owned(),
            known: self.order.join(", "),
        }
    }
}

struct Entry {
    spec: Spec,
    process: Option<Arc<Process>>,
    /// Somebody is restarting it; supervision keeps off.
    held: bool,
}

impl Processes {
    /// Nothing runs yet but the keeper. What ends is told through the receiver.
    pub(crate) fn new(
        specs: Vec<Spec>,
        net: Arc<Network>,
        progress: Progress,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Exit>), LabError> {
        let keeper = Keeper::start().map_err(LabError::io("start the keeper, /bin/sh"))?;
        let (exits, ended) = mpsc::unbounded_channel();
        let order = specs.iter().map(|spec| spec.name.clone()).collect();
        let entry = |spec: Spec| {
            let name = spec.name.clone();
            let (process, held) = (None, false);
            (name, Entry { spec, process, held })
        };
        let table = Table {
            entries: specs.into_iter().map(entry).collect(),
            order,
            supervised: false,
            stopping: false,
        };
        let processes = Self {
            table: Mutex::new(table),
            net,
            keeper: Arc::new(keeper),
            exits,
            progress,
        };
        Ok((processes, ended))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process `name`, which does not run.
    pub(crate) fn start(&self, name: &str) -> Result<(), LabError> {
        self.start_in(&mut self.table(), name)
    }

    /// Starts all brokers so that none looks for its peers before all are listening.
    ///
    /// A bridge that finds nobody tries again only after two to four seconds. A broker listens first and
    /// connects its bridges a moment later, so each is stopped when it listens until the last one does. If a
    /// broker is too quick for that, or none of this works, the start is slower and no less sure.
    pub(crate) fn start_together(
        &self,
        brokers: &[(Place, Broker)],
        patience: Duration,
    ) -> Result<(), LabError> {
        let prepare = |(place, broker): &(Place, Broker)| {
            let process = self.prepare_in(&mut self.table(), broker.id.as_str())?;
            Ok((*place, broker.address, process))
        };
        let prepared: Vec<_> = brokers.iter().map(prepare).collect::<Result<_, LabError>>()?;
        for (_, _, process) in &prepared {
            process.release().map_err(LabError::io("start the brokers"))?;
        }
        let deadline = Instant::now() + patience;
        let mut awaited: Vec<_> = prepared.iter().collect();
        while !awaited.is_empty() && Instant::now() < deadline {
            awaited.retain(|(place, address, process)| {
                let listens = self.net.listens(*place, *address);
                if listens {
                    process.signal(Signal::STOP);
                }
                !listens
            });
            if awaited.iter().any(|(_, _, process)| process.has_ended()) {
                break;
            }
            std::thread::sleep(LISTEN_STEP);
        }
        for (_, _, process) in &prepared {
            process.signal(Signal::CONT);
        }
        Ok(())
    }

    fn start_in(&self, table: &mut Table, name: &str) -> Result<(), LabError> {
        let process = self.prepare_in(table, name)?;
        process.release().map_err(LabError::io(format!("start {name}")))
    }

    fn prepare_in(&self, table: &mut Table, name: &str) -> Result<Arc<Process>, LabError> {
        if table.stopping {
            return Err(LabError::Net("the lab is stopping".to_owned()));
        }
        let Some(entry) = table.entries.get_mut(name) else {
            return Err(table.unknown(name));
        };
        let process = Process::prepare(&entry.spec, &self.net, &self.keeper, self.exits.clone());
        let process = process.map_err(LabError::io(format!("start {name}")))?;
        entry.process = Some(Arc::clone(&process));
        Ok(process)
    }

    /// The process `name`, running or not; `None` if it was never started.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Arc<Process>>, LabError> {
        let table = self.table();
        match table.entries.get(name) {
            Some(entry) => Ok(entry.process.clone()),
            None => Err(table.unknown(name)),
        }
    }

    /// The process `name`, which must run.
    pub(crate) fn running(&self, name: &str) -> Result<Arc<Process>, LabError> {
        let process = self.get(name)?.filter(|process| !process.has_ended());
        process.ok_or_else(|| LabError::NotAlive {
            name: name.to_owned(),
        })
    }

    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        let process = self.running(name).ok()?;
        u32::try_from(process.pid().as_raw_pid()).ok()
    }

    /// Kills what is left of `name` and starts it again.
    pub(crate) async fn restart(&self, name: &str) -> Result<(), LabError> {
        if let Some(process) = self.get(name)? {
            self.hold(name, true);
            process.signal(Signal::KILL);
            process.ended().await;
        }
        let mut table = self.table();
        let started = self.start_in(&mut table, name);
        if let Some(entry) = table.entries.get_mut(name) {
            entry.held = false;
        }
        started
    }

    /// Ends `name` in order; supervision keeps off until [`Self::restart`].
    pub(crate) async fn halt(&self, name: &str, deadline: Duration) -> Result<(), LabError> {
        self.hold(name, true);
        let Some(process) = self.get(name)? else {
            return Ok(());
        };
        process.signal(Signal::TERM);
        process.signal(Signal::CONT);
        let what = format!("the end of {name}");
        let ended = poll_until(&what, deadline, || async {
            if process.has_ended() {
                Ok(())
            } else {
                Err("it still runs")
            }
        });
        let ended = ended.await;
        if ended.is_err() {
            process.signal(Signal::KILL);
            process.ended().await;
        }
        Ok(ended?)
    }

    fn hold(&self, name: &str, held: bool) {
        if let Some(entry) = self.table().entries.get_mut(name) {
            entry.held = held;
        }
    }

    /// Why `name` cannot answer any more, if it has ended.
    pub(crate) fn died(&self, name: &str) -> Option<LabError> {
        let table = self.table();
        let entry = table.entries.get(name)?;
        let status = entry.process.as_ref()?.status()?;
        Some(LabError::Died {
            name: name.to_owned(),
            status: status.to_string(),
            log: entry.spec.log.clone(),
            tail: tail(&entry.spec.log),
        })
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
