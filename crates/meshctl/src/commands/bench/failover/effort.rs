//! How much is measured.

use std::time::Duration;

use super::faults::Fault;
use super::systems::System;

/// Counts and times of one run of the bench.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Runs of a kill, a hang, a cut.
    pub runs: usize,
    /// The same for a system that never notices: each takes [`Self::hopeless_cap`].
    pub hopeless_runs: usize,
    /// How long the service may take to be back.
    pub cap: Duration,
    /// How long a system is watched that never notices.
    pub hopeless_cap: Duration,
    /// Sessions that stay connected.
    pub sessions: usize,
    /// How often all brokers hang and resume, and how long each time.
    pub all_hung_runs: usize,
    /// How long they hang.
    pub all_hung: Duration,
    /// How long is watched after they have resumed.
    pub aftermath: Duration,
    /// How often the primary dies and returns in one run.
    pub flaps: usize,
    /// How long it stays away, and then how long it stays.
    pub flap: Duration,
    /// How often the first backup dies.
    pub backup_deaths: usize,
    /// How long is watched after that.
    pub backup_watch: Duration,
    /// How often the primary saves its state.
    pub saves: usize,
    /// The size of that state, in megabytes.
    pub save_mb: usize,
    /// Sessions of the crowd.
    pub crowd: usize,
    /// How long mesh-health is watched doing nothing.
    pub steady: Duration,
}

impl Effort {
    /// How often `fault` strikes `system`. The flaps, the deaths of the backup and the saves are in one round each.
    pub fn rounds(&self, fault: Fault, system: System) -> usize {
        match fault {
            Fault::Hang | Fault::Cut if system.never_notices_hangs() => self.hopeless_runs,
            Fault::Kill | Fault::Hang | Fault::Cut => self.runs,
            Fault::AllHung => self.all_hung_runs,
            Fault::Flap | Fault::FlapHung | Fault::BackupDeath | Fault::Save => 1,
        }
    }

    /// How long `system` may take to lead clients away from a broker that hangs or is cut off.
    pub fn patience(&self, system: System) -> Duration {
        if system.never_notices_hangs() {
            self.hopeless_cap
        } else {
            self.cap
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What the command does.
pub const FULL: Effort = Effort {
    runs: 20,
    hopeless_runs: 3,
    cap: ms(6000),
    hopeless_cap: ms(4000),
    sessions: 100,
    all_hung_runs: 5,
    all_hung: ms(3000),
    aftermath: ms(1500),
    flaps: 8,
    flap: ms(1300),
    backup_deaths: 20,
    backup_watch: ms(500),
    saves: 20,
    save_mb: 200,
    crowd: 2000,
    steady: ms(10_000),
};

/// What it does with `--quick`.
pub const QUICK: Effort = Effort {
    runs: 1,
    hopeless_runs: 1,
    cap: ms(2500),
    hopeless_cap: ms(1000),
    sessions: 30,
    all_hung_runs: 1,
    all_hung: ms(800),
    aftermath: ms(500),
    flaps: 1,
    flap: ms(500),
    backup_deaths: 1,
    backup_watch: ms(300),
    saves: 1,
    save_mb: 10,
    crowd: 200,
    steady: ms(1000),
};
