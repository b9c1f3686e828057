//! The figures of `meshctl bench failover`, as JSON and as tables.

use std::fmt;
use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;

use crate::commands::bench::times::Times;

use super::crowd::Crowd;
use super::faults::{Fault, Outcome};
use super::steady::Steady;
use super::systems::System;
use crate::commands::bench::report::{figure, table};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether there were few runs.
    pub quick: bool,
    /// Sessions that each fault meets.
    pub sessions: usize,
    /// Who was compared.
    pub systems: Vec<About>,
    /// A row for each fault and system.
    pub faults: Vec<Row>,
    /// A row for each system.
    pub crowds: Vec<Crowd>,
    /// mesh-health at rest.
    pub steady: Vec<Steady>,
}

/// A system in words.
#[derive(Debug, Serialize)]
pub struct About {
    /// The system.
    pub system: System,
    /// What it is.
    pub about: String,
    /// Why it was left out, if it was.
    pub left_out: Option<String>,
}

/// One fault under one system.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The fault.
    pub fault: Fault,
    /// The system.
    pub system: System,
    /// Why nothing was measured, if so.
    pub left_out: Option<String>,
    /// How many faults.
    pub runs: usize,
    /// From the fault to the first PUBACK elsewhere; when all hung, from their resuming to the first PUBACK; where
    /// nobody need notice, the longest time without a PUBACK.
    pub service_back_ms: Option<Times>,
    /// How many of the faults lasted longer than was waited; they are not among the times.
    pub not_back: usize,
    /// How often a session was cut that need not have been.
    pub needless_cuts: u64,
    /// Of one session at most, in one run.
    pub disconnects_max: u32,
    /// For each session that was cut, how long after the fault it was back for good.
    pub outage_ms: Option<Times>,
    /// Sessions without an answering broker at the end of a run, in all runs.
    pub stuck: usize,
    /// How often clients were moved without a reason; `None` where there was one.
    pub false_failovers: Option<usize>,
    /// How long the broker took to save.
    pub save_ms: Option<Times>,
}

impl Row {
    /// A row without figures.
    pub fn left_out(fault: Fault, system: System, why: &str) -> Self {
        Self {
            left_out: Some(why.to_owned()),
            ..Self::new(fault, system, Vec::new())
        }
    }

    /// From every run.
    pub fn new(fault: Fault, system: System, runs: Vec<Outcome>) -> Self {
        let back: Vec<Option<Duration>> = runs.iter().flat_map(|run| run.back.clone()).collect();
        let of = |times: fn(&Outcome) -> &Vec<Duration>| {
            Times::new(runs.iter().flat_map(times).copied().collect())
        };
        let (outage_ms, save_ms) = (of(|run| &run.outages), of(|run| &run.saves));
        Self {
            fault,
            system,
            left_out: None,
            runs: back.len(),
            not_back: back.iter().filter(|back| back.is_none()).count(),
            service_back_ms: Times::new(back.into_iter().flatten().collect()),
            needless_cuts: runs.iter().map(|run| run.needless).sum(),
            disconnects_max: runs
                .iter()
                .flat_map(|run| &run.disconnects)
                .copied()
                .max()
                .unwrap_or(0),
            outage_ms,
            stuck: runs.iter().map(|run| run.stuck).sum(),
            false_failovers: runs
                .iter()
                .filter_map(|run| run.false_failovers)
                .reduce(|a, b| a + b),
            save_ms,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.faults.is_empty() {
            writeln!(
                f,
                "Service back and {} sessions, times in milliseconds. A client tries to connect and publish again \
                 and again,\n10 ms after each attempt; back is its first PUBACK after the fault. Where nobody need \
                 notice (backup dies, save)\nit is the longest time between two PUBACKs, and after all hung it counts \
                 from their resuming.\n",
                self.sessions
            )?;
            writeln!(f, "{}\n", self.fault_table())?;
            writeln!(
                f,
                "NEEDLESS: sessions cut though their broker was well. MAX CUTS: of one session in a run. OUTAGE: from \
                 the fault until\na session that was cut is back for good. STUCK: sessions without an answering \
                 broker 2 s later.\n"
            )?;
        }
        if let Some(crowd) = self.crowds.first() {
            let sessions = crowd.sessions;
            writeln!(
                f,
                "{sessions} sessions: all reconnect at once, then their broker hangs\n\n{}\n",
                self.crowd_table()
            )?;
        }
        if !self.steady.is_empty() {
            writeln!(f, "mesh-health at rest\n\n{}\n", self.steady_table())?;
        }
        for system in &self.systems {
            match &system.left_out {
                None => writeln!(f, "{}: {}", system.system, system.about)?,
                Some(why) => writeln!(f, "{}: left out; {why}", system.system)?,
            }
        }
        for row in &self.faults {
            if let Some(why) = row.left_out.as_ref().filter(|_| row.system == System::Ours) {
                writeln!(f, "{}: left out; {why}", row.fault)?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn fault_table(&self) -> Table {
        let mut table = table([
            "FAULT",
            "SYSTEM",
            "RUNS",
            "BACK P50",
            "P99",
            "MAX",
            "NEVER",
            "NEEDLESS",
            "MAX CUTS",
            "OUTAGE P50",
            "MAX",
            "STUCK",
            "FALSE",
        ]);
        for row in self.faults.iter().filter(|row| row.left_out.is_none()) {
            let time = |times: Option<Times>, of: fn(Times) -> f64| match times {
                Some(times) => figure(Some(of(times)), 0),
                None => "-".to_owned(),
            };
            table.add_row([
                row.fault.to_string(),
                row.system.to_string(),
                row.runs.to_string(),
                time(row.service_back_ms, |times| times.p50),
                time(row.service_back_ms, |times| times.p99),
                time(row.service_back_ms, |times| times.max),
                row.not_back.to_string(),
                row.needless_cuts.to_string(),
                row.disconnects_max.to_string(),
                time(row.outage_ms, |times| times.p50),
                time(row.outage_ms, |times| times.max),
                row.stuck.to_string(),
                row.false_failovers
                    .map_or(String::new(), |count| format!("{count} of {}", row.runs)),
            ]);
        }
        table
    }

    fn crowd_table(&self) -> Table {
        let mut table = table([
            "SYSTEM",
            "MISPLACED",
            "RECONNECTED MS",
            "HUNG: BACK MS",
            "ALL CLOSED MS",
            "AFTER SWITCH",
            "NOT CLOSED",
            "ALL BACK MS",
            "STUCK",
            "LANDED ON",
        ]);
        let time = |ms: Option<f64>| ms.map_or("never".to_owned(), |ms| figure(Some(ms), 0));
        for crowd in &self.crowds {
            let landed = crowd
                .landed
                .iter()
                .map(|(broker, count)| format!("{broker} {count}"));
            table.add_row([
                crowd.system.to_string(),
                crowd.misplaced.to_string(),
                figure(Some(crowd.reconnected_ms), 0),
                time(crowd.service_back_ms),
                time(crowd.closed_ms),
                time(crowd.closed_after_switch_ms),
                crowd.not_closed.to_string(),
                time(crowd.all_back_ms),
                crowd.stuck.to_string(),
                landed.collect::<Vec<_>>().join(", "),
            ]);
        }
        table
    }

    fn steady_table(&self) -> Table {
        let mut table = table(["BROKERS", "WHICH", "CPU % OF A CORE", "RSS MIB", "SECONDS"]);
        for steady in &self.steady {
            table.add_row([
                steady.brokers.to_string(),
                if steady.simulated { "simulated" } else { "real" }.to_owned(),
                figure(steady.cpu_percent, 2),
                figure(steady.rss_mib, 1),
                figure(Some(steady.seconds), 0),
            ]);
        }
        table
    }
}
