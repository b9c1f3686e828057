//! Daemons that die are started again, as systemd would.

use std::sync::Weak;
use std::time::Duration;

use rustix::process::Pid;
use tokio::sync::mpsc;

use super::{Entry, Processes};
use crate::error::in_full;
use crate::process::Exit;
use crate::shared::Shared;

/// A daemon that lived shorter than this is started again only after [`PAUSE`].
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// With the start itself, this stays below the 500 ms within which a daemon is there again.
const PAUSE: Duration = Duration::from_millis(300);

impl Processes {
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
