//! `meshctl bench failover`: what clients live through when brokers die, hang or vanish, with mesh-health and
//! with what else one could put there.
//!
//! Each system leads to five brokers of its own and is started afresh for each fault. Faults that are mostly waited
//! for strike all systems side by side, and cuts, which need network namespaces, beside the other faults; where the CPU
//! is the bottleneck (crowds, saves) systems take turns at one set of brokers. Either way what the machine does
//! meanwhile meets all of them alike. What is said of them is seen from outside: by clients, and by the brokers' logs.

mod crowd;
mod effort;
mod faults;
mod report;
mod rig;
mod save;
mod service;
mod simulated;
mod steady;
mod systems;

use std::io::Write;
use std::process::ExitCode;

use futures_util::future::{try_join, try_join_all};
use mesh_lab::{Lab, LabOptions, Net};

use super::say;
use effort::{Effort, FULL, QUICK};
use faults::Fault;
use report::{About, Report, Row};
use systems::System;

/// Flags of `meshctl bench failover`.
#[derive(Debug, clap::Args)]
pub struct FailoverArgs {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,

    /// One run of each fault: under a minute, and no figure to rely on
    #[arg(long)]
    quick: bool,

    /// Only this fault, and neither crowds nor rest; may be repeated
    #[arg(long, value_name = "FAULT")]
    fault: Vec<Fault>,

    /// Only mesh-health at rest
    #[arg(long, conflicts_with = "fault")]
    rest: bool,
}

/// Bounds that the load does not reach, and no save but those that are asked for.
const SETTINGS: &str = "[mosquitto]\nautosave_interval = \"24h\"\n";

/// Runs the bench. Its exit code judges no figure.
pub async fn run(args: FailoverArgs) -> anyhow::Result<ExitCode> {
    let effort = if args.quick { QUICK } else { FULL };
    let systems = System::ALL.map(|system| About {
        system,
        about: system.about(),
        left_out: system.missing(),
    });
    let bench = Bench {
        here: System::ALL
            .into_iter()
            .filter(|system| system.missing().is_none())
            .collect(),
        effort,
        only: args.fault,
        rest: args.rest,
    };
    let (mut rows, mut crowds, mut steady) = (Vec::new(), Vec::new(), Vec::new());
    say("starting five brokers");
    let first = lab(Net::Loopback).await?;
    if bench.only.is_empty() {
        say("mesh-health at rest");
        steady.push(steady::real(&first, effort.steady).await?);
        steady.push(steady::simulated(&first, effort.steady).await?);
    }
    let mut labs = vec![first];
    let (waited, cut) = try_join(bench.waits(&mut labs), bench.cuts()).await?;
    rows.extend(waited.into_iter().chain(cut));
    // An orderly end would save everything.
    labs.drain(1..).for_each(Lab::discard);
    for lab in labs {
        if bench.only.is_empty() && !bench.rest {
            crowds = bench.crowds(&lab).await?;
        }
        if bench.wants(Fault::Save) {
            rows.extend(bench.saves(&lab).await?);
        }
        lab.discard();
    }
    say("");
    let report = Report {
        quick: args.quick,
        sessions: effort.sessions,
        systems: systems.into(),
        faults: bench.sorted(rows),
        crowds,
        steady,
    };
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(std::io::stdout(), "{report}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Five brokers on which nothing else runs yet.
async fn lab(net: Net) -> anyhow::Result<Lab> {
    let mut extra = System::extra();
    if net == Net::Loopback {
        let nginx = mesh_lab::system_program(
            "nginx",
            "install it: `apt install nginx-light libnginx-mod-stream`",
        )?;
        extra.extend(steady::extra(&nginx)?);
    }
    let lab = Lab::start(LabOptions {
        net,
        extra,
        settings: SETTINGS.to_owned(),
        ..LabOptions::default()
    })
    .await?;
    System::Ours.stop(&lab).await?;
    Ok(lab)
}

/// What is measured, and what was.
struct Bench {
    /// The systems that can be measured on this machine.
    here: Vec<System>,
    effort: Effort,
    /// The faults that were asked for; all if none.
    only: Vec<Fault>,
    /// Whether no fault was asked for.
    rest: bool,
}

impl Bench {
    fn wants(&self, fault: Fault) -> bool {
        !self.rest && (self.only.is_empty() || self.only.contains(&fault))
    }

    /// Everything but cuts that is mostly waited for. Adds a lab for each further system.
    async fn waits(&self, labs: &mut Vec<Lab>) -> anyhow::Result<Vec<Row>> {
        let mut faults = [
            Fault::Kill,
            Fault::Hang,
            Fault::AllHung,
            Fault::Flap,
            Fault::FlapHung,
            Fault::BackupDeath,
        ]
        .into_iter()
        .filter(|fault| self.wants(*fault))
        .peekable();
        if faults.peek().is_some() {
            say("starting five brokers for each of the other systems");
            let more = self.here.iter().skip(1).map(|_| lab(Net::Loopback));
            labs.extend(try_join_all(more).await?);
        }
        let mut rows = Vec::new();
        for fault in faults {
            rows.extend(self.side_by_side(labs, fault).await?);
        }
        Ok(rows)
    }

    /// Has `fault` strike every system, each at a lab of its own.
    async fn side_by_side(&self, labs: &[Lab], fault: Fault) -> anyhow::Result<Vec<Row>> {
        let effort = self.effort;
        let each = self.here.iter().zip(labs).map(|(system, lab)| async move {
            let rounds = effort.rounds(fault, *system);
            let mut runs = Vec::new();
            for round in 1..=rounds {
                say(&format!("{fault}, round {round} of {rounds}: {system}"));
                let rig = format!("{fault:?}-{round}");
                runs.push(faults::strike(lab, *system, fault, &effort, &rig).await?);
            }
            anyhow::Ok(Row::new(fault, *system, runs))
        });
        try_join_all(each).await
    }

    async fn crowds(&self, lab: &Lab) -> anyhow::Result<Vec<crowd::Crowd>> {
        let mut crowds = Vec::new();
        for system in &self.here {
            say(&format!("{} sessions at once: {system}", self.effort.crowd));
            let rig = format!("crowd-{system:?}");
            crowds.push(crowd::run(lab, *system, &self.effort, &rig).await?);
        }
        Ok(crowds)
    }

    async fn saves(&self, lab: &Lab) -> anyhow::Result<Vec<Row>> {
        let (saves, mb) = (self.effort.saves, self.effort.save_mb);
        say(&format!("publishing {mb} MB of retained messages"));
        save::fill(lab, mb).await?;
        let mut rows = Vec::new();
        for system in &self.here {
            say(&format!(
                "{saves} saves of {mb} MB while the CPU is busy: {system}"
            ));
            let rig = format!("save-{system:?}");
            let run = save::run(lab, *system, &self.effort, &rig).await?;
            rows.push(Row::new(Fault::Save, *system, vec![run]));
        }
        Ok(rows)
    }

    /// Silent cuts need a network that can be cut.
    async fn cuts(&self) -> anyhow::Result<Vec<Row>> {
        if !self.wants(Fault::Cut) {
            return Ok(Vec::new());
        }
        say("starting five brokers in network namespaces for each system");
        let labs = self.here.iter().map(|_| lab(Net::Namespaces));
        match try_join_all(labs).await {
            Ok(labs) => {
                let rows = self.side_by_side(&labs, Fault::Cut).await?;
                labs.into_iter().for_each(Lab::discard);
                Ok(rows)
            }
            Err(error) => {
                let why = format!("{error:#}");
                say(&format!("silent cut is left out: {why}"));
                let rows = self.here.iter();
                Ok(rows
                    .map(|system| Row::left_out(Fault::Cut, *system, &why))
                    .collect())
            }
        }
    }

    /// Every fault with every system: those that are not here too, with the reason.
    fn sorted(&self, mut rows: Vec<Row>) -> Vec<Row> {
        let mut sorted = Vec::new();
        for fault in Fault::ALL.into_iter().filter(|fault| self.wants(*fault)) {
            for system in System::ALL {
                let place = rows
                    .iter()
                    .position(|row| row.fault == fault && row.system == system);
                sorted.push(match place {
                    Some(place) => rows.swap_remove(place),
                    None => Row::left_out(fault, system, &system.missing().unwrap_or_default()),
                });
            }
        }
        sorted
    }
}
