//! All processes of a lab by name, and who may start one when.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use mesh_model::Broker;
use rustix::process::{Pid, Signal};
use tokio::sync::mpsc;

use crate::error::{LabError, in_full};
use crate::keeper::Keeper;
use crate::lab::{Progress, Shared};
use crate::net::{Network, Place};
use crate::process::{Exit, Process, Spec};
use crate::wait::poll_until;

/// How long an orderly stop may take: a broker may have to save a large state.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How long killed processes may take to vanish.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A daemon that lived shorter than this is started again only after [`PAUSE`].
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// With the start itself, this stays below the 500 ms within which a daemon is there again.
const PAUSE: Duration = Duration::from_millis(400);

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

    /// From now on daemons that die are started again.
    pub(crate) fn supervise_from_now_on(&self) {
        let died: Vec<String> = {
            let mut table = self.table();
            table.supervised = true;
            let ended = |entry: &&Entry| {
                let process = entry.process.as_ref();
                entry.spec.supervised && process.is_some_and(|process| process.has_ended())
            };
            table
                .entries
                .values()
                .filter(ended)
                .map(|entry| entry.spec.name.clone())
                .collect()
        };
        for name in died {
            self.start_again(&name, None);
        }
    }

    /// Starts `name` again, unless that is somebody else's business by now.
    fn start_again(&self, name: &str, dead: Option<Pid>) {
        let mut table = self.table();
        if table.stopping {
            return;
        }
        let is_due = table.entries.get(name).is_some_and(|entry| {
            let pid = entry.process.as_ref().map(|process| process.pid());
            !entry.held && (dead.is_none() || dead == pid)
        });
        if is_due {
            match self.start_in(&mut table, name) {
                Ok(()) => (self.progress)(&format!("{name} was started again")),
                Err(error) => (self.progress)(&in_full(&error)),
            }
        }
    }

    /// What is to be done about an exit: `None` if nothing, else after how long the process is started again.
    fn judge(&self, exit: &Exit) -> Option<Duration> {
        let table = self.table();
        let entry = table.entries.get(&exit.name)?;
        let current = entry
            .process
            .as_ref()
            .is_some_and(|process| process.pid() == exit.pid);
        if table.stopping || !table.supervised || entry.held || !current {
            return None;
        }
        (self.progress)(&format!("{} ended ({})", exit.name, exit.status));
        let pause = if exit.lived < SHORT_LIFE {
            PAUSE
        } else {
            Duration::ZERO
        };
        entry.spec.supervised.then_some(pause)
    }

    /// Ends everything in order, the last started first; what does not end in time is killed.
    pub(crate) async fn stop(&self, deadline: Duration) -> Result<(), LabError> {
        let end = Instant::now() + deadline;
        let mut daemons = Vec::new();
        let mut brokers = Vec::new();
        {
            let mut table = self.table();
            table.stopping = true;
            for name in table.order.iter().rev() {
                let entry = &table.entries[name];
                let Some(process) = entry.process.clone() else {
                    continue;
                };
                let list = if entry.spec.supervised {
                    &mut daemons
                } else {
                    &mut brokers
                };
                list.push((name.clone(), process));
            }
        }
        let mut result = Ok(());
        for group in daemons.into_iter().map(|one| vec![one]).chain([brokers]) {
            for (_, process) in &group {
                // A hung process gets the first signal when the second wakes it.
                process.signal(Signal::TERM);
                process.signal(Signal::CONT);
            }
            let left = end.saturating_duration_since(Instant::now());
            let ended = poll_until("the end of every process", left, || async {
                let alive = group.iter().filter(|(_, process)| !process.has_ended());
                let alive: Vec<&str> = alive.map(|(name, _)| name.as_str()).collect();
                if alive.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{} still run", alive.join(", ")))
                }
            });
            if let Err(late) = ended.await {
                result = Err(late.into());
                for (_, process) in &group {
                    process.kill_now(Instant::now() + KILL_DEADLINE);
                }
            }
        }
        self.keeper.dismiss();
        result
    }

    /// Kills everything at once, without an executor. Does nothing after [`Self::stop`].
    pub(crate) fn kill_all(&self) {
        let processes: Vec<Arc<Process>> = {
            let mut table = self.table();
            table.stopping = true;
            table
                .entries
                .values()
                .filter_map(|entry| entry.process.clone())
                .collect()
        };
        for process in &processes {
            process.signal(Signal::KILL);
        }
        let deadline = Instant::now() + KILL_DEADLINE;
        for process in &processes {
            process.kill_now(deadline);
        }
        self.keeper.dismiss();
    }
}

/// Starts daemons again that die, for as long as the lab is there.
pub(crate) async fn supervise(lab: Weak<Shared>, mut exits: mpsc::UnboundedReceiver<Exit>) {
    while let Some(exit) = exits.recv().await {
        let Some(shared) = lab.upgrade() else { return };
        let Some(pause) = shared.processes.judge(&exit) else {
            continue;
        };
        let lab = lab.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(shared) = lab.upgrade() {
                shared.processes.start_again(&exit.name, Some(exit.pid));
            }
        });
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
