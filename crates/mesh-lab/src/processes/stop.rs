//! The end of all processes: in order, or at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Processes;
use crate::error::LabError;
use crate::process::Process;
use crate::wait::poll_until;

/// How long an orderly stop may take: a broker may have to save a large state.
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How long killed processes may take to vanish.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

impl Processes {
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
