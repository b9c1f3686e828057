//! The faults, and what each did to the clients of one system.

use std::fmt;
use std::time::{Duration, Instant};

use mesh_lab::Lab;
use mesh_model::BrokerId;
use serde::Serialize;
use tokio::time::sleep;

use super::effort::Effort;
use super::rig::{Rig, disconnects};
use super::systems::System;

/// How long after the service is back a session may take to be back too; then it is stuck.
const LINGER: Duration = Duration::from_secs(2);

/// What is done to brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL to the primary.
    Kill,
    /// SIGSTOP to the primary.
    Hang,
    /// Every packet from and to the primary is dropped.
    Cut,
    /// SIGSTOP to all, then SIGCONT to all.
    AllHung,
    /// The primary dies and returns, again and again.
    Flap,
    /// The primary hangs and resumes, again and again.
    FlapHung,
    /// SIGKILL to the first backup.
    BackupDeath,
    /// The primary writes a large state to disk while the CPU is saturated.
    Save,
}

impl Fault {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Hang,
        Self::Cut,
        Self::AllHung,
        Self::Flap,
        Self::FlapHung,
        Self::BackupDeath,
        Self::Save,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Cut => "silent cut",
            Self::AllHung => "all hung, resumed",
            Self::Flap => "flap, killed",
            Self::FlapHung => "flap, hung",
            Self::BackupDeath => "backup dies",
            Self::Save => "save, CPU busy",
        })
    }
}

/// What one or more faults on one rig showed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// For each fault, how long there was no service; `None` if for longer than was waited.
    pub back: Vec<Option<Duration>>,
    /// By session, how often it was cut.
    pub disconnects: Vec<u32>,
    /// How often a session was cut that need not have been.
    pub needless: u64,
    /// For each session that was cut, how long after the fault it was back for good.
    pub outages: Vec<Duration>,
    /// Sessions whose broker does not answer at the end.
    pub stuck: usize,
    /// How many of the faults, none of which concerned the primary's life, moved clients.
    pub false_failovers: Option<usize>,
    /// How long each save took.
    pub saves: Vec<Duration>,
}

impl Outcome {
    /// Notes what became of the sessions since `start`, of which each may have been cut `allowed` times, and the
    /// direct ones at brokers for which `was_well` never.
    pub fn note_sessions(
        &mut self,
        rig: &Rig<'_>,
        start: Instant,
        allowed: u32,
        was_well: impl Fn(&BrokerId) -> bool,
    ) {
        let since = rig.fleet.since(start);
        let beyond = since
            .disconnects
            .iter()
            .map(|count| count.saturating_sub(allowed));
        self.needless += beyond.map(u64::from).sum::<u64>() + rig.bystanders_cut(start, was_well);
        self.disconnects.extend(since.disconnects);
        self.outages.extend(since.outages);
    }
}

/// One run of `fault`; a save has a way of its own.
pub async fn strike(
    lab: &Lab,
    system: System,
    fault: Fault,
    effort: &Effort,
    name: &str,
) -> anyhow::Result<Outcome> {
    match fault {
        Fault::Kill | Fault::Hang | Fault::Cut => primary(lab, system, fault, effort, name).await,
        Fault::AllHung => all_hung(lab, system, effort, name).await,
        Fault::Flap | Fault::FlapHung => flap(lab, system, fault, effort, name).await,
        Fault::BackupDeath => backup_death(lab, system, effort, name).await,
        Fault::Save => super::save::run(lab, system, effort, name).await,
    }
}

/// A kill, a hang or a cut of the primary, and its end.
async fn primary(
    lab: &Lab,
    system: System,
    fault: Fault,
    effort: &Effort,
    name: &str,
) -> anyhow::Result<Outcome> {
    let rig = Rig::start(lab, system, effort.sessions, name).await?;
    let primary = rig.primary.clone();
    let mut outcome = Outcome::default();
    let mut start = Instant::now();
    match fault {
        Fault::Hang => lab.hang(primary.as_str()).await?,
        Fault::Cut => {
            lab.cut(&primary, None).await?;
            // It takes some milliseconds until it is in place, and what is answered meanwhile is no recovery.
            start = Instant::now();
        }
        _ => lab.kill(primary.as_str()).await?,
    }
    let cap = effort.patience(system);
    outcome.back.push(rig.service.back(start, cap).await);
    let left = if outcome.back == [None] {
        Duration::ZERO
    } else {
        LINGER
    };
    let answering = rig.fleet.wait_answering(left).await;
    outcome.stuck = rig.sessions - answering;
    // A switch may cut what it should not a moment after it has served the first.
    sleep(Duration::from_millis(100)).await;
    outcome.note_sessions(&rig, start, 1, |id| *id != primary);
    match fault {
        Fault::Hang => lab.resume(primary.as_str()).await?,
        Fault::Cut => lab.heal(&primary, None).await?,
        _ => {}
    }
    rig.finish().await?;
    if fault == Fault::Kill {
        lab.restart(primary.as_str()).await?;
    }
    Ok(outcome)
}

/// All brokers hang, and resume.
async fn all_hung(lab: &Lab, system: System, effort: &Effort, name: &str) -> anyhow::Result<Outcome> {
    let rig = Rig::start(lab, system, effort.sessions, name).await?;
    let mut outcome = Outcome::default();
    let start = Instant::now();
    for id in lab.config().topology.ids() {
        lab.hang(id.as_str()).await?;
    }
    sleep(effort.all_hung).await;
    for id in lab.config().topology.ids() {
        lab.resume(id.as_str()).await?;
    }
    let resumed = Instant::now();
    outcome.back.push(rig.service.back(resumed, effort.cap).await);
    sleep(effort.aftermath).await;
    outcome.stuck = rig.sessions - rig.fleet.wait_answering(effort.cap).await;
    outcome.note_sessions(&rig, start, 0, |_| true);
    rig.finish().await?;
    Ok(outcome)
}

/// The primary of the beginning dies or hangs and returns, again and again.
async fn flap(
    lab: &Lab,
    system: System,
    fault: Fault,
    effort: &Effort,
    name: &str,
) -> anyhow::Result<Outcome> {
    let hangs = fault == Fault::FlapHung;
    let rig = Rig::start(lab, system, effort.sessions, name).await?;
    let mut outcome = Outcome::default();
    let start = Instant::now();
    for _ in 0..effort.flaps {
        let fault = Instant::now();
        let primary = rig.primary.as_str();
        if hangs {
            lab.hang(primary).await?;
        } else {
            lab.kill(primary).await?;
        }
        let cap = if hangs {
            effort.patience(system)
        } else {
            effort.cap
        };
        outcome.back.push(rig.service.back(fault, cap).await);
        sleep(effort.flap.saturating_sub(fault.elapsed())).await;
        if hangs {
            lab.resume(primary).await?;
        } else {
            lab.restart(primary).await?;
        }
        sleep(effort.flap).await;
    }
    outcome.stuck = rig.sessions - rig.fleet.wait_answering(effort.cap).await;
    outcome.note_sessions(&rig, start, 1, |id| *id != rig.primary);
    rig.finish().await?;
    Ok(outcome)
}

/// The first backup dies and returns, again and again: nobody should notice.
async fn backup_death(lab: &Lab, system: System, effort: &Effort, name: &str) -> anyhow::Result<Outcome> {
    let rig = Rig::start(lab, system, effort.sessions, name).await?;
    let mut outcome = Outcome {
        false_failovers: Some(0),
        ..Outcome::default()
    };
    let start = Instant::now();
    for _ in 0..effort.backup_deaths {
        let marks = mesh_lab::fleet::LogMarks::now(lab);
        let fault = Instant::now();
        lab.kill(rig.backup.as_str()).await?;
        sleep(effort.backup_watch).await;
        outcome.back.push(Some(rig.service.longest_gap(fault)));
        lab.restart(rig.backup.as_str()).await?;
        note_failover(&mut outcome, &rig, &marks, fault)?;
    }
    outcome.stuck = rig.sessions - rig.fleet.wait_answering(effort.cap).await;
    outcome.note_sessions(&rig, start, 0, |id| *id != rig.backup);
    rig.finish().await?;
    Ok(outcome)
}

/// Counts a failover without a reason since `start`: somebody was cut, or sent elsewhere.
pub fn note_failover(
    outcome: &mut Outcome,
    rig: &Rig<'_>,
    marks: &mesh_lab::fleet::LogMarks,
    start: Instant,
) -> anyhow::Result<()> {
    let moved = rig.strayed(marks, &rig.primary)? > 0 || disconnects(&rig.fleet.since(start)) > 0;
    let count = outcome.false_failovers.get_or_insert_default();
    *count += usize::from(moved);
    Ok(())
}
